"""An open shell answers each command whole, survives what commands do, and opens again when it was lost."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.adapters.shell import Connection, Shell
from provisioner.errors import HostError


@pytest.fixture
def shell() -> Iterator[Shell]:
    with Shell("here", Connection(("sh",))) as opened:
        yield opened


def test_streams_and_status_are_kept_apart(shell: Shell) -> None:
    """stdout, stderr and exit status come back as the command gave them."""
    answer = shell.run("echo out; echo err >&2; exit 7")

    assert (answer.rc, answer.stdout, answer.stderr) == (7, b"out\n", b"err\n")


def test_bytes_pass_unchanged(shell: Shell) -> None:
    """No byte is lost or added: no newline, zeros, every value, more than a pipe holds."""
    every = bytes(range(256)) * 1024
    answer = shell.run("python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 1024)'")

    assert every == answer.stdout
    assert shell.run("printf ''").stdout == b""
    assert shell.run("printf x").stdout == b"x"


def test_a_long_command_passes(shell: Shell) -> None:
    """A command longer than the pipe is written as the shell reads it."""
    word = "a" * 90_000

    assert len(word) == len(shell.run(f"echo {word}; echo {word}").stdout.split()[0])


def test_a_command_cannot_end_or_change_the_shell(shell: Shell) -> None:
    """exit, cd, set, variables, traps and syntax errors stay inside their command."""
    before = shell.run("echo $PWD; echo $$").stdout
    for command in ("exit 3", "cd /; x=1; set -e; false", "trap 'echo gone' EXIT", "if then", "exec true", "'"):
        shell.run(command)

    assert before == shell.run("echo $PWD; echo $$").stdout
    assert shell.run("if then").rc == 2


def test_a_command_cannot_eat_the_next(shell: Shell) -> None:
    """stdin is closed for commands, so `cat` ends at once instead of reading the script behind it."""
    answers = shell.look(["cat", "echo second"])

    assert [answer.stdout for answer in answers] == [b"", b"second\n"]


def test_quotes_newlines_and_unicode(shell: Shell) -> None:
    """The text of a command reaches the shell as it is."""
    answer = shell.run("printf '%s\\n' \"it's\"\nprintf '%s' 'grün'")

    assert answer.stdout.decode() == "it's\ngrün"


def test_an_output_that_looks_like_a_marker(shell: Shell) -> None:
    """Only the marker with the right random word ends an answer."""
    fake = "0" * 32

    assert f"\n{fake}.1 e 0\n".encode() == shell.run(f"printf '\\n{fake}.1 e 0\\n'").stdout


def test_a_command_that_takes_too_long_is_ended_on_the_host_too(shell: Shell) -> None:
    """After the limit the answer is 124, the process is gone, and the next command works."""
    began = time.monotonic()
    answer = shell.run("echo $$; exec sleep 987654", limit=0.5)

    assert answer.rc == 124
    assert time.monotonic() - began < 5
    assert shell.run("echo next").stdout == b"next\n"
    cmdlines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if _readable(p)]
    assert b"sleep\x00987654\x00" not in cmdlines


def _readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def test_the_limit_ends_one_look_and_the_others_are_still_made(shell: Shell) -> None:
    """In a batch, one that hangs costs its limit and nothing else."""
    answers = shell.look(["echo a", "sleep 30", "echo b"], limit=0.5)

    assert [answer.rc for answer in answers] == [0, 124, 0]
    assert [answer.stdout for answer in answers] == [b"a\n", b"", b"b\n"]


def test_a_shell_that_died_between_commands_is_opened_again(shell: Shell) -> None:
    """As after a reboot: the next command runs in a new shell."""
    pid = int(shell.run("echo $$").stdout)
    os.kill(pid, 9)
    time.sleep(0.2)

    assert shell.run("echo again").stdout == b"again\n"


def test_a_command_that_lost_its_shell_is_not_run_twice(shell: Shell, tmp_path: Path) -> None:
    """A command that had begun is reported, not repeated; the next one works."""
    ran = tmp_path / "ran"
    with pytest.raises(HostError) as caught:
        shell.run(f"echo x >>{ran}; kill -9 $$")

    assert caught.value.reference == "connection-lost"
    assert ran.read_text() == "x\n"
    assert shell.run("echo on").stdout == b"on\n"


def test_looks_are_made_once_more_after_a_loss(shell: Shell, tmp_path: Path) -> None:
    """What only reads may be read again: a connection that broke once costs nothing but time."""
    mark = tmp_path / "mark"
    answers = shell.look(["echo a", f"if [ -e {mark} ]; then echo b; else touch {mark}; kill -9 $$; fi", "echo c"])

    assert [answer.stdout for answer in answers] == [b"a\n", b"b\n", b"c\n"]


def test_a_host_that_gives_no_shell_says_why() -> None:
    """What the connection printed is what the error shows."""
    with pytest.raises(HostError) as caught:
        Shell(
            "rig-01",
            Connection(
                (
                    "sh",
                    "-c",
                    "echo 'Permission denied (publickey).' >&2; exit 255",
                )
            ),
        ).run("true")

    assert caught.value.host == "rig-01"
    assert caught.value.context == ("Permission denied (publickey).",)


def test_the_explainer_hears_exit_code_and_words() -> None:
    """Whoever knows more about the connection can word the error."""
    heard = []

    def explain(host: str, rc: int, stderr: str) -> HostError:
        heard.append((host, rc, stderr))
        return HostError("mine", host, "mine")

    with pytest.raises(HostError, match="mine"):
        Shell(
            "rig-01",
            Connection(
                (
                    "sh",
                    "-c",
                    "echo no >&2; exit 3",
                ),
                explain=explain,
            ),
        ).run("true")

    assert heard == [("rig-01", 3, "no\n")]


def test_a_program_that_is_not_there() -> None:
    """A missing ssh is an error of the host, not a traceback."""
    with pytest.raises(HostError, match="gave no shell"):
        Shell("rig-01", Connection(("/no/such/ssh",))).run("true")


def test_a_connection_that_says_nothing_is_given_up() -> None:
    """A host that takes the connection and never answers does not hold the run."""
    began = time.monotonic()
    with pytest.raises(HostError):
        Shell(
            "rig-01",
            Connection(
                (
                    "sleep",
                    "60",
                ),
                open_limit=0.5,
            ),
        ).run("true")

    assert time.monotonic() - began < 10


def test_a_login_that_prints_a_greeting() -> None:
    """What a login shell says before the script begins is not part of an answer."""
    with Shell(
        "rig-01",
        Connection(
            (
                "sh",
                "-c",
                "echo Welcome; echo motd >&2; exec sh",
            )
        ),
    ) as shell:
        answer = shell.run("echo hello")

    assert (answer.stdout, answer.stderr) == (b"hello\n", b"")


def test_a_late_word_of_a_background_process_is_dropped(shell: Shell) -> None:
    """A process left behind by one command does not write into the answer of the next."""
    shell.run("(sleep 0.2; echo late) & echo now")
    time.sleep(0.5)

    assert shell.run("echo clean").stdout == b"clean\n"


def test_a_password_goes_first() -> None:
    """What sudo reads is written before the script."""
    with Shell(
        "rig-01",
        Connection(
            (
                "sh",
                "-c",
                'read -r word; test "$word" = secret && exec sh',
            ),
            before=b"secret\n",
        ),
    ) as shell:
        assert shell.run("echo in").stdout == b"in\n"
