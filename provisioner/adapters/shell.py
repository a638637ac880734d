"""One shell per host, kept open: commands go in framed by markers, each answer comes back whole.

An ssh exec costs a process here, a channel, a login shell there; a command in an open shell costs one fork.
Theory of the framing: the far `sh` reads its script from stdin. A command runs in a subshell with stdin closed, so it
can neither end the shell nor eat the commands behind it. Its stdout and stderr are the two streams of the connection
itself, so bytes pass unchanged; before and after it the shell's own `printf` writes a marker to both streams. The
marker holds 128 random bits and a counter, so no output can imitate it. What a process left in the background writes
after its command's end marker lands between two commands and is dropped.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO

from provisioner.errors import HostError

Explain = Callable[[str, int, str], HostError]
"""From the host's name, the exit code of the connection and what it printed to stderr, the error that helps."""

TIMED_OUT = 124  # what coreutils' `timeout` returns


@dataclass(frozen=True)
class Answer:
    """What a command gave. `sent` and `answered` are the controller's clock; the command ran between them."""

    rc: int
    stdout: bytes
    stderr: bytes
    sent: float
    answered: float
    seconds: float


class ShellLost(Exception):
    """The connection ended; `begun` tells whether the command in hand had started on the host."""

    def __init__(self, begun: bool, stderr: str) -> None:
        super().__init__(stderr)
        self.begun = begun
        self.stderr = stderr


def not_reached(host: str, rc: int, stderr: str) -> HostError:
    """The error when nobody gave a better explanation of what ssh printed."""
    lines = tuple(line for line in stderr.strip().splitlines() if line.strip())[-5:]
    return HostError(
        "host-unreachable",
        host,
        f"{host} gave no shell",
        context=lines or (f"the connection ended with exit code {rc}",),
        hint=f"try: ssh {host} sudo -n true",
    )


@dataclass(frozen=True)
class Connection:
    """How to open a root shell on a host, and how to explain a failure to.

    `argv` starts a POSIX shell that reads its script from stdin, such as `("ssh", "rig-01", "sudo -n sh")`.
    `before` goes there first (a password that sudo asks for).
    """

    argv: tuple[str, ...]
    before: bytes = field(default=b"", repr=False)
    explain: Explain = not_reached
    open_limit: float = 30.0


class _Stream:
    """The bytes of one of the two streams, cut at markers."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self.pipe = pipe
        self.data = bytearray()
        self.searched = 0
        self.ended = False

    def feed(self) -> None:
        block = os.read(self.pipe.fileno(), 1 << 16)
        if block:
            self.data += block
        else:
            self.ended = True

    def take(self, marker: bytes) -> bytes | None:
        """Return what stands before the marker and drop both; None while the marker has not come."""
        place = self.data.find(marker, self.searched)
        if place < 0:
            self.searched = max(0, len(self.data) - len(marker))
            return None
        before = bytes(self.data[:place])
        del self.data[: place + len(marker)]
        self.searched = 0
        return before


class Shell:
    """A root shell on one host, opened when first needed and again when it was lost."""

    def __init__(self, host: str, connection: Connection) -> None:
        self.host = host
        self._argv = connection.argv
        self._before = connection.before
        self._open_limit = connection.open_limit
        self._explain = connection.explain
        self._process: subprocess.Popen[bytes] | None = None
        self._out: _Stream
        self._err: _Stream
        self._group: str | None = None
        self._token = ""
        self._count = 0
        self._given_up = False

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, command: str, *, limit: float = 120.0) -> Answer:
        """Run one command. It is sent again after a lost connection only when it had not begun."""
        return self._answers([command], limit, repeat_begun=False)[0]

    def look(self, commands: Sequence[str], *, limit: float = 120.0) -> list[Answer]:
        """Run commands that only read, sent in one piece; one that was cut off is run once more."""
        return self._answers(commands, limit, repeat_begun=True)

    def give_up(self) -> None:
        """End what another thread is waiting for here: Ctrl-C must not wait for a hung host."""
        self._given_up = True
        process = self._process
        if process is not None:
            # The whole group (it was started as one): a local command would keep the streams open.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the shell; the shared connection below it stays as ssh's ControlPersist says."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _answers(self, commands: Sequence[str], limit: float, *, repeat_begun: bool) -> list[Answer]:
        for command in commands:
            if "\0" in command:
                raise ValueError("a command cannot hold a NUL character")
        answers: list[Answer] = []
        losses = 0
        while len(answers) < len(commands):
            self._ensure_open()
            done = len(answers)
            try:
                self._batch(commands[done:], limit, answers)
            except ShellLost as lost:
                self.close()
                # A first loss at a command that may be repeated is a reboot or a broken pipe; a second is a fault.
                losses = losses + 1 if len(answers) == done else 1
                if self._given_up or losses > 1 or (lost.begun and not repeat_begun):
                    raise HostError(
                        "connection-lost",
                        self.host,
                        f"the connection to {self.host} ended in the middle of a command",
                        context=(f"command: {commands[len(answers)][:200]}", *lost.stderr.splitlines()[-3:]),
                        hint="if the host was rebooting, wait for it and run this again",
                    ) from lost
        return answers

    def _batch(self, commands: Sequence[str], limit: float, answers: list[Answer]) -> None:
        """Send the commands in one piece and append an answer for each; stops early after a time limit."""
        process = self._process
        assert process is not None and process.stdin and process.stdout and process.stderr
        marks = []
        script = bytearray()
        for command in commands:
            self._count += 1
            word = f"{self._token}.{self._count}"
            marks.append(word.encode())
            script += (
                f"printf '\\n{word} b\\n'; printf '\\n{word} b\\n' >&2; ( eval {shlex.quote(command)} ) </dev/null; "
                f"printf '\\n{word} e %s\\n' \"$?\"; printf '\\n{word} e\\n' >&2\n"
            ).encode("utf-8", "surrogateescape")
        out, err = self._out, self._err
        with selectors.DefaultSelector() as selector:
            for stream in (out, err):
                selector.register(stream.pipe, selectors.EVENT_READ, stream)
            selector.register(process.stdin, selectors.EVENT_WRITE)
            sent = time.time()
            last = time.monotonic()
            for mark in marks:
                begun = last
                has_begun = False
                stdout: bytes | None = None
                stderr: bytes | None = None
                while stdout is None or stderr is None:
                    if not has_begun and out.take(b"\n%s b\n" % mark) is not None:
                        has_begun = True
                    if has_begun and stdout is None:
                        stdout = out.take(b"\n%s e " % mark)
                    if stderr is None and (whole := err.take(b"\n%s e\n" % mark)) is not None:
                        stderr = whole.partition(b"\n%s b\n" % mark)[2]
                    if stdout is not None and stderr is not None:
                        break
                    left = begun + limit - time.monotonic()
                    if left <= 0:
                        self._kill()
                        words = f"provision: stopped by the time limit of {limit:g} s\n".encode()
                        now = time.time()
                        answers.append(Answer(TIMED_OUT, bytes(out.data), bytes(err.data) + words, sent, now, limit))
                        return
                    self._move(selector, process, script, min(left, 5.0), has_begun)
                rc = self._rest_of_line(selector, process, script, begun + limit)
                last = time.monotonic()
                answers.append(Answer(rc, stdout, stderr, sent, time.time(), last - begun))

    def _rest_of_line(
        self, selector: selectors.BaseSelector, process: subprocess.Popen[bytes], script: bytearray, until: float
    ) -> int:
        """The exit status stands between the end marker and a newline, which may come a block later."""
        while (line := self._out.take(b"\n")) is None:
            if time.monotonic() > until:
                raise ShellLost(True, "the end of an answer did not come")
            self._move(selector, process, script, 5.0, True)
        return int(line)

    def _move(
        self,
        selector: selectors.BaseSelector,
        process: subprocess.Popen[bytes],
        script: bytearray,
        wait: float,
        begun: bool,
    ) -> None:
        """Move what can be moved: script out, streams in."""
        for key, _ in selector.select(wait):
            if isinstance(key.data, _Stream):
                key.data.feed()
                if key.data.ended:
                    selector.unregister(key.fileobj)
            else:
                try:
                    sent = os.write(key.fd, script)
                except BlockingIOError:
                    continue
                except OSError:
                    selector.unregister(key.fileobj)
                    continue
                del script[:sent]
                if not script:
                    selector.unregister(key.fileobj)
        if self._out.ended:
            raise ShellLost(begun, self._err.data.decode("utf-8", "replace"))

    def _ensure_open(self) -> None:
        if self._process is not None and self._process.poll() is None and not self._has_ended():
            return
        self.close()
        self._open()

    def _has_ended(self) -> bool:
        """Whether the far end has closed since the last answer: a readable stream with nothing to read."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._out.pipe, selectors.EVENT_READ)
            while not self._out.ended and selector.select(0):
                self._out.feed()
        return self._out.ended

    def _open(self) -> None:
        self._token = secrets.token_hex(16)
        self._count = 0
        try:
            process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise self._explain(self.host, 127, f"{self._argv[0]}: {error.strerror}") from error
        assert process.stdin and process.stdout and process.stderr
        self._process = process
        os.set_blocking(process.stdin.fileno(), False)
        self._out, self._err = _Stream(process.stdout), _Stream(process.stderr)
        hello = self._token.encode()
        # /proc/self is the shell itself, since the redirection is its own: the process group to end on a time limit.
        script = bytearray(self._before + b"read -r stat </proc/self/stat; printf '\\n%s %%s\\n' \"$stat\"\n" % hello)
        until = time.monotonic() + self._open_limit
        with selectors.DefaultSelector() as selector:
            for stream in (self._out, self._err):
                selector.register(stream.pipe, selectors.EVENT_READ, stream)
            selector.register(process.stdin, selectors.EVENT_WRITE)
            try:
                while self._out.take(b"\n%s " % hello) is None:
                    if time.monotonic() > until:
                        raise ShellLost(False, f"no answer within {self._open_limit:g} s")
                    self._move(selector, process, script, 1.0, False)
                while (line := self._out.take(b"\n")) is None:
                    self._move(selector, process, script, 1.0, False)
            except ShellLost as lost:
                self._drain_stderr()
                said = self._err.data.decode("utf-8", "replace") or lost.stderr
                rc = self._end(process)
                self.close()
                raise self._explain(self.host, rc, said) from lost
        fields = line.rpartition(b")")[2].split()
        self._group = fields[2].decode() if len(fields) > 2 and re.fullmatch(rb"[0-9]+", fields[2]) else None

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> int:
        """The exit code of a connection that failed; one that hangs is ended, and counts as ssh's own failure."""
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return 255

    def _drain_stderr(self) -> None:
        """ssh closes stdout before it has said why: give its last words a moment."""
        until = time.monotonic() + 1.0
        with selectors.DefaultSelector() as selector:
            selector.register(self._err.pipe, selectors.EVENT_READ)
            while not self._err.ended and time.monotonic() < until:
                if selector.select(0.2):
                    self._err.feed()

    def _kill(self) -> None:
        """End a command that outlived its limit, on the host too: ending ssh alone would leave it running."""
        process, self._process = self._process, None
        if self._group is not None and int(self._group) > 1:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    self._argv,
                    input=self._before + f"kill -s KILL -- -{self._group}\n".encode(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=10,
                    check=False,
                    start_new_session=True,
                )
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            process.wait()
