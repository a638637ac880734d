"""The boundary: every failure becomes words, a reference and a documented exit code; nothing prints a traceback."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from provisioner.cli import main as cli
from provisioner.cli.words import duration, error_text, safe, table
from provisioner.errors import BadInput, Exit, ProvisionError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type:
    """A command named `boom` that raises what the test puts into it; defects are logged into a folder of the test's."""

    class Boom:
        raises: BaseException | None = None

        @staticmethod
        def arguments(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--x")

        @classmethod
        def run(cls, args: argparse.Namespace) -> int:
            if cls.raises is not None:
                raise cls.raises
            return 0

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setitem(cli.COMMANDS, "boom", ("tests.boom", "fail in a chosen way"))
    monkeypatch.setitem(sys.modules, "tests.boom", Boom)  # type: ignore[arg-type]
    return Boom


def test_expected_error(command: type, capsys: pytest.CaptureFixture[str]) -> None:
    """Words, reference, context and hint go to stderr; the exit code is the error's."""
    command.raises = BadInput("odd-thing", "rig-01 is odd", context=["seen in hosts.yml:3"], hint="make it even")  # type: ignore[attr-defined]

    assert cli.main(["boom"]) == Exit.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("error: rig-01 is odd") and err.splitlines()[0].endswith("[odd-thing]")
    assert err.splitlines()[1:] == ["  seen in hosts.yml:3", "", "make it even"]


def test_defect_leaves_a_log(command: type, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An unexpected exception has its own exit code and a log with the traceback, which the screen spares."""
    command.raises = RuntimeError("seven")  # type: ignore[attr-defined]

    assert cli.main(["boom"]) == Exit.INTERNAL
    err = capsys.readouterr().err
    assert "Traceback" not in err and "RuntimeError: seven" in err
    (log,) = (tmp_path / "provision").glob("defect-*.log")
    assert "Traceback" in log.read_text(encoding="utf-8")


def test_interrupted(command: type, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C says that nothing is lost."""
    command.raises = KeyboardInterrupt()  # type: ignore[attr-defined]

    assert cli.main(["boom"]) == Exit.INTERRUPTED
    assert "the next run goes on" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["nosuch"], ["boom", "--nosuch"]])
def test_wrong_arguments(command: type, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong argument is bad input (3), because 2 means that there is something to change."""
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)

    assert caught.value.code == Exit.BAD_INPUT
    assert "[bad-argument]" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help(name: str) -> None:
    """Each command of the table has its module, arguments, and a help that says what it does."""
    module = importlib.import_module(cli.COMMANDS[name][0])
    parser = argparse.ArgumentParser()
    module.arguments(parser)

    assert callable(module.run)
    assert all(action.help for action in parser._actions)


def test_help_imports_nothing_heavy() -> None:
    """`provision --help` answers at once: none of the big libraries is loaded for it."""
    code = (
        "import sys; from provisioner.cli.main import parser; parser().format_help();"
        "print(*sorted({'pydantic', 'ansible', 'docker', 'rich', 'yaml', 'jinja2', 'pytest'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""


def test_control_characters_do_not_reach_the_terminal() -> None:
    """What a host printed cannot drive the operator's terminal."""
    problem = ProvisionError("x", "a\x1b[31mred\x07", context=["b\x9b2J"])

    assert "\x1b" not in error_text(problem) and "\x9b" not in error_text(problem)
    assert safe("tab\tand\nline") == "tab\tand\nline"


def test_table_aligns() -> None:
    """Columns are aligned and no line ends in spaces."""
    assert table([["rig-01", "up"], ["rig-1", "up to date"]]) == "rig-01  up\nrig-1   up to date"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (45, "45 s"), (99, "99 s"), (120, "2 min"), (600, "10 min")]
)
def test_duration(seconds: float, words: str) -> None:
    """Seconds up to a hundred, minutes beyond."""
    assert words == duration(seconds)
