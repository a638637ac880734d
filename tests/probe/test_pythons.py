"""The script runs on every Python that a host may have, 3.6 to the newest."""

from __future__ import annotations

import ast
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

from provisioner.probe.nvml import roots_of, shake
from provisioner.probe.payload import BOOTSTRAP, capture_from, nvml_calls, payload
from provisioner.probe.request import FULL, STATE, Profile, Request

PROBE = Path(__file__).parents[2] / "provisioner" / "probe"
VERSIONS = Path.home() / ".pyenv" / "versions"
PYTHONS = [Path("/usr/bin/python3"), *sorted(VERSIONS.glob("3.*/bin/python"))]
NOW = datetime(2026, 11, 24, 3, 7, tzinfo=timezone.utc)
# All of FULL but apt, which takes seconds and is no matter of the interpreter.
WIDE = Profile(
    files=FULL.files,
    listings=FULL.listings,
    folders=FULL.folders,
    links=FULL.links,
    disks=FULL.disks,
    commands=FULL.commands,
    devices=FULL.devices,
    nvml=True,
)


@pytest.mark.parametrize("name", ["script.py", "nvml_calls.py"])
def test_source_is_python_36(name: str) -> None:
    """Nothing that Python 3.6 cannot parse, also where no such interpreter is at hand."""
    ast.parse((PROBE / name).read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("name", ["script.py", "nvml_calls.py"])
def test_annotations_stand_in_quotes(name: str) -> None:
    """`list[str]` and `X | None` fail at run time before 3.9 and 3.10; in quotes they are never evaluated."""
    plain = {"str", "int", "bool", "bytes", "float", "None", "Running"}
    tree = ast.parse((PROBE / name).read_text(encoding="utf-8"))
    annotations = [
        annotation
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for annotation in [node.returns, *(argument.annotation for argument in node.args.args)]
        if annotation is not None and not (isinstance(annotation, ast.Constant) and isinstance(annotation.value, str))
    ]

    assert {ast.unparse(annotation) for annotation in annotations} <= plain


@pytest.mark.parametrize("python", [path for path in PYTHONS if path.exists()], ids=lambda path: path.parts[-3])
def test_every_interpreter_answers(python: Path, pynvml_source: str) -> None:
    """Each gives a whole answer, NVML's part included."""
    data = payload(Request(WIDE), shake(pynvml_source, roots_of(nvml_calls())))

    done = subprocess.run([python, "-IS", "-c", BOOTSTRAP], input=data, capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    seen = capture_from(done.stdout, "here", NOW)
    assert seen.file("/etc/os-release") is not None
    assert {command.line for command in WIDE.commands} <= set(seen.commands)
    assert seen.nvml is not None
    assert "detail" not in seen.nvml


def test_state_imports_little(tmp_path: Path) -> None:
    """Every module that the script pulls in costs each host milliseconds: this is the list, and it stays short."""
    code = (
        "import sys\nbefore=set(sys.modules)\n"
        + BOOTSTRAP
        + "\nsys.stderr.write(' '.join(sorted(set(sys.modules)-before)))"
    )

    done = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", code],
        input=payload(Request(STATE)),
        capture_output=True,
        timeout=60,
        check=True,
    )

    of_os = {"os", "os.path", "posixpath", "genericpath", "stat", "_stat", "_collections_abc"}
    assert set(done.stderr.decode().split()) <= {"zlib", "_json", "select", "time"} | of_os


def test_older_python_says_so() -> None:
    """Python 2 is told apart from no Python at all."""
    old = next(iter(VERSIONS.glob("2.7*/bin/python")), None)
    if old is None:
        pytest.skip("no Python 2.7 here")

    done = subprocess.run([old, "-S", "-c", BOOTSTRAP], input=b"", capture_output=True, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith(b"provision-python-too-old 2.7")
