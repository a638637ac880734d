"""The Molecule scenarios without a host: Molecule reads them, and each story names what verifies it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from provisioner.adapters.lab.spec import parse_all

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
BIN = Path(sys.executable).parent


def read(scenario: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(
        (ROOT / "molecule" / scenario / "molecule.yml").read_text(encoding="utf-8")
    )
    return found


def test_the_page_has_every_scenario() -> None:
    page = (ROOT / "docs" / "molecule.md").read_text(encoding="utf-8")

    assert SCENARIOS == ["combos", "default", "gate", "network", "rollback", "tunnel", "upgrade"]
    assert [name for name in SCENARIOS if f"| `{name}` |" not in page] == []


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_verifier_is_the_checks_of_the_project(scenario: str) -> None:
    """Through pytest-testinfra, against the lock that the story ends with; the path is where Molecule looks for it."""
    verifier = read(scenario)["verifier"]
    assert isinstance(verifier, dict)

    assert verifier["name"] == "testinfra"
    checks = (ROOT / "molecule" / scenario / verifier["directory"]).resolve()
    assert [path.name for path in checks.glob("test_*.py")] == ["test_host.py"]
    assert str(verifier["options"]["provision-lock"]).endswith(".lock")


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "combos"])
def test_hosts_are_ones_that_the_lab_has(scenario: str) -> None:
    config: dict[str, dict[str, dict[str, object]]] = read(scenario)  # type: ignore[assignment]
    suites = yaml.safe_load((ROOT / "molecule/shared/create.yml").read_text(encoding="utf-8"))[0]["vars"]["suites"]
    variables = config["provisioner"]["inventory"]["host_vars"]
    for name, host in variables.items():  # type: ignore[attr-defined]
        cards = f":{','.join(host['lab_gpus'])}" if host["lab_gpus"] else ""
        text = f"{name}={suites[host['lab_os']]}{cards}"
        assert parse_all([text], suites.values(), host["lab_gpus"])[0].name == name


@pytest.mark.tools
def test_molecule_reads_every_scenario(tmp_path: Path) -> None:
    """In one call, for its start is what takes time; Ansible must name the playbook of each."""
    scenarios = [name for name in SCENARIOS if name != "combos"]
    tool = shutil.which("molecule", path=f"{BIN}:{os.environ['PATH']}")
    if tool is None:
        pytest.skip("molecule is not installed")
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path / "m"),
        "NO_COLOR": "1",
    }
    named = [word for scenario in scenarios for word in ("-s", scenario)]
    done = subprocess.run(
        [tool, "syntax", *named], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    read = re.findall(r"^playbook: .*/molecule/([a-z]+)/converge\.yml$", done.stdout, re.MULTILINE)
    assert sorted(read) == scenarios, done.stdout + done.stderr
