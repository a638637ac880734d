"""What can go wrong, in words: a reference, what could not be done, why, and what to type next."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line; documented in docs/reference/exit-codes.md."""

    OK = 0
    FAILED = 1  # at least one host failed, or a check did not pass
    DIFFERS = 2  # only with --exit-code: there is something to change
    BAD_INPUT = 3  # arguments, inventory, matrix, lock or capture cannot be used
    UNRESOLVABLE = 4  # no set of versions serves at least one host
    BUSY = 5  # another run holds the host's lock
    INTERNAL = 70  # a defect of provision itself; a log was written
    INTERRUPTED = 130  # Ctrl-C


class ProvisionError(Exception):
    """An expected failure that a person can act on.

    `reference` is a kebab-case word to search for, `message` what could not be done,
    `context` the lines that say why (host, fact, rule with its source), `hint` what to type next.
    """

    exit_code: Exit = Exit.FAILED

    def __init__(
        self,
        reference: str,
        message: str,
        *,
        context: tuple[str, ...] | list[str] = (),
        hint: str | None = None,
        exit_code: Exit | None = None,
    ) -> None:
        super().__init__(message)
        self.reference = reference
        self.message = message
        self.context = tuple(context)
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class BadInput(ProvisionError):
    """Something that was given cannot be used; nothing was changed. Names file and key."""

    exit_code = Exit.BAD_INPUT


class HostError(ProvisionError):
    """One host failed; the others go on."""

    def __init__(
        self,
        reference: str,
        host: str,
        message: str,
        *,
        context: tuple[str, ...] | list[str] = (),
        hint: str | None = None,
        exit_code: Exit | None = None,
    ) -> None:
        super().__init__(reference, message, context=context, hint=hint, exit_code=exit_code)
        self.host = host
