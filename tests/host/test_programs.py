"""What is put on a host runs there: every Python from 3.6, standard library, and readable by the probe."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest

from provisioner.host import programs
from provisioner.probe.script import without_secrets

VERSIONS = Path.home() / ".pyenv" / "versions"
PYTHONS = [Path("/usr/bin/python3"), *sorted(VERSIONS.glob("3.*/bin/python"))]


def install(root: Path) -> dict[str, Path]:
    """Put everything below `root` instead of /, and return the commands by name."""
    for path, text in {**programs.modules(), **programs.commands()}.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace(f'"{programs.FOLDER}"', f'"{root}{programs.FOLDER}"'), encoding="utf-8")
    return {Path(path).name: root / path.lstrip("/") for path in programs.commands()}


@pytest.mark.parametrize("path", programs.modules())
def test_source_is_python_36(path: str) -> None:
    """Nothing that Python 3.6 cannot parse, and no annotation that it would have to evaluate."""
    tree = ast.parse(programs.modules()[path], feature_version=(3, 6))
    plain = {"str", "int", "bool", "bytes", "float", "None", "object"}
    annotations = [
        annotation
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        for annotation in [node.returns, *(argument.annotation for argument in node.args.args)]
        if annotation is not None and not (isinstance(annotation, ast.Constant) and isinstance(annotation.value, str))
    ]

    assert {ast.unparse(annotation) for annotation in annotations} <= plain


@pytest.mark.parametrize("path", [*programs.modules(), *programs.commands()])
def test_the_probe_reads_it_whole(path: str) -> None:
    """A line that looked like a secret would be blanked in captures, and the file would differ for ever."""
    text = {**programs.modules(), **programs.commands()}[path]

    assert without_secrets(text) == text


@pytest.mark.parametrize("python", [path for path in PYTHONS if path.exists()], ids=lambda path: path.parts[-3])
def test_every_interpreter_runs_the_gate(python: Path, tmp_path: Path) -> None:
    """It observes, and it refuses with words on a machine that is not enrolled."""
    gate = install(tmp_path)["provision-gate"]
    seen = subprocess.run([python, "-IS", gate, "observe"], capture_output=True, text=True, timeout=60, check=True)
    refused = subprocess.run(
        [python, "-IS", gate, "check", "akash"], capture_output=True, text=True, timeout=60, check=False
    )

    assert {"machine", "driver", "nvml", "docker", "cdi"} <= set(json.loads(seen.stdout))
    assert refused.returncode == 1
    assert "akash stays stopped: " in refused.stderr
    assert "Traceback" not in refused.stderr
