"""Molecule's own command runs the scenarios on lab hosts; the long form (PROVISION_LONG=1), for each takes minutes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from provisioner.adapters.lab import labs

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SCENARIOS = ("default", "upgrade", "rollback", "tunnel", "gate", "network", "combos")
HERE = ("os=debian-12", "network=lium", "architecture=ampere")
COMBOS = ("--pairwise", *(word for only in HERE for word in ("--only", only)))

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not os.environ.get("PROVISION_LONG"), reason="the long form: scripts/test --all"),
]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_scenario_passes_and_leaves_nothing(scenario: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path / "m"),
    }
    more: list[str] = []
    if scenario == "combos":
        generated = tmp_path / "combos.yml"
        argv = [sys.executable, "-m", "provisioner.cli", "matrix", "combos", *COMBOS, "--format", "molecule"]
        generated.write_text(subprocess.run(argv, check=True, capture_output=True, text=True).stdout, encoding="utf-8")
        more = ["--base-config", str(generated)]
    done = subprocess.run(
        ["molecule", *more, "test", "-s", scenario, "--destroy=always"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-20000:]
    # Without tests Molecule's verifier skips, and all is well: the checks must really have run.
    assert re.search(r"[1-9][0-9]* passed", done.stdout + done.stderr)
    assert f"molecule-{scenario}" not in [lab.name for lab in labs()]
