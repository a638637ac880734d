"""Asks on a terminal before something is changed; without one, nobody can have agreed."""

from __future__ import annotations

import sys

from provisioner.errors import BadInput


def ask(question: str, without: str) -> None:
    """Return when the answer is yes. Raises BadInput `not-confirmed` otherwise; `without` says how to do without."""
    if not sys.stdin.isatty():
        raise BadInput("not-confirmed", "nobody is there to confirm the plan; nothing was changed", hint=without)
    answer = input(f"\n{question} [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise BadInput("not-confirmed", "not confirmed; nothing was changed")
