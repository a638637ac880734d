"""A rehearsal as CI runs it: the distinct stacks of a fleet, one planted to fail, one that can't be rebuilt.

One story in numbered steps. The short form rehearses Debian 12 (535 of backports → 535). The long form
(PROVISION_LONG=1, `scripts/test --all`) adds Debian 11 (470 → 535), Debian 13 (tesla-535 → 550) and a newer client.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from provisioner.adapters.lab import Lab, labs
from provisioner.errors import Exit
from provisioner.resolve.lock import lock_text, read_lock

LONG = bool(os.environ.get("PROVISION_LONG"))
# Not in the short form before it was seen to pass as a whole on an idle machine.
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

# host: lab host, wishes before, wishes after
HOSTS = {
    "rig-12": ("bookworm:rtx-3090", {"networks": ["lium"], "driver": "535.216.03"}, {"networks": ["lium"]}),
    **(
        {
            "rig-11": ("bullseye:gtx-1080", {"networks": ["akash"], "driver": "470.256.02"}, {"networks": ["akash"]}),
            "rig-13": ("trixie:rtx-4090", {"networks": ["ionet"], "driver": "535"}, {"networks": ["ionet"]}),
            "rig-14": ("bookworm:rtx-3090", {"networks": ["akash@0.16.0"]}, {"networks": ["akash"]}),
        }
        if LONG
        else {}
    ),
}
GOOD = len(HOSTS)
PREFIX = f"reh{os.getpid()}"
REHEARSE = ("rehearse", "--to", "candidate.lock", "--name", PREFIX)


class Fleet:
    """A folder with the two locks of a fleet, and the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PROVISION_CONFIG_DIR": str(folder / "config"),
            "NO_COLOR": "1",
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin:{os.environ['PATH']}",
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "provisioner.cli", *words]
        return subprocess.Popen(
            argv, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *words: str, code: int = Exit.OK) -> str:
        process = self.start(*words)
        out, _ = process.communicate()
        assert process.returncode == code, f"{words} exited with {process.returncode}:\n{out}"
        return out

    def rehearse(self, *words: str, code: int = Exit.OK) -> str:
        return self.run(*REHEARSE, *words, code=code)

    def results(self, file: str = "r.xml") -> dict[str, ElementTree.Element]:
        root = ElementTree.parse(self.folder / file).getroot()
        return {str(suite.get("name")): suite for suite in root}


def seconds_of(suite: ElementTree.Element, step: str) -> float:
    return next(float(str(test.get("time"))) for test in suite if test.get("name") == step)


def left_over() -> list[str]:
    return [lab.name for lab in labs() if lab.name.startswith(PREFIX)]


@pytest.fixture(scope="module")
def fleet(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Locks as `provision resolve` makes them on bare hosts, then a planted fault and a host of another system."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    lab = lab_factory(*(f"{name}={spec}" for name, (spec, _, _) in HOSTS.items()))
    for number, lock in ((1, "provision.lock"), (2, "candidate.lock")):
        wishes = {name: {f"provision_{k}": v for k, v in host[number].items()} for name, host in HOSTS.items()}  # type: ignore[attr-defined]
        (fleet.folder / "wishes.yml").write_text(yaml.safe_dump({"lab": {"hosts": wishes}}), encoding="utf-8")
        fleet.run("resolve", "-i", str(lab.inventory), "-i", "wishes.yml", "-o", lock)
    lab.down()
    before, after = read_lock(fleet.folder / "provision.lock"), read_lock(fleet.folder / "candidate.lock")
    same, moved = before.hosts["rig-12"], after.hosts["rig-12"]
    broken = moved.model_copy(
        update={
            "packages": tuple(
                p.model_copy(update={"version": "535.261.03-99"}) if p.name == "nvidia-smi" else p
                for p in moved.packages
            )
        }
    )
    other = {"os": "ubuntu-22.04"}
    old = {**before.hosts, "rig-bad": same, "rig-ubuntu": same.model_copy(update=other)}
    new = {**after.hosts, "rig-bad": broken, "rig-ubuntu": moved.model_copy(update=other)}
    for lock, hosts, name in ((before, old, "provision.lock"), (after, new, "candidate.lock")):
        (fleet.folder / name).write_text(lock_text(lock.model_copy(update={"hosts": hosts})), encoding="utf-8")
    yield fleet
    assert left_over() == []


def test_01_a_dry_run_names_the_stacks(fleet: Fleet) -> None:
    out = fleet.rehearse("--dry-run")

    assert out.startswith(f"{GOOD + 2} stacks to rehearse for {GOOD + 2} hosts\n")
    assert "535.216.03-to-535.261.03" in out
    assert left_over() == []


def test_02_interrupted_it_leaves_no_host(fleet: Fleet) -> None:
    """Ctrl-C while the present state is being built: an exit code of its own, and nothing stays up."""
    running = fleet.start(*REHEARSE)
    assert running.stdout is not None
    for line in running.stdout:
        if "  present  " in line:
            break
    time.sleep(20)
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=180)

    assert running.returncode == Exit.INTERRUPTED, out
    assert left_over() == []


@pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")
def test_03_what_passes_what_fails_and_what_is_not_known(fleet: Fleet) -> None:
    """The good stacks pass up and back, the planted one is named with its step, the other system is not rehearsed."""
    out = fleet.rehearse("--junit", "r.xml", "--html", "r.html", "--markdown", "r.md", code=Exit.FAILED)

    assert f"{GOOD} passed · 1 failed · 1 not rehearsed" in out
    suites = fleet.results()
    counts = sorted(tuple(str(s.get(k)) for k in ("failures", "errors", "skipped")) for s in suites.values())
    assert counts == [("0", "0", "0")] * GOOD + [("0", "1", "4"), ("1", "0", "3")]
    assert "nvidia-smi" in out
    assert "the lab has no ubuntu-22.04" in out
    assert "rig-bad" in (fleet.folder / "r.html").read_text(encoding="utf-8")
    assert (fleet.folder / "r.md").read_text(encoding="utf-8").startswith("### Rehearsal: 2 of ")
    assert left_over() == []


@pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")
def test_04_what_passed_is_not_tried_again(fleet: Fleet) -> None:
    (fleet.folder / "good.yml").write_text(
        yaml.safe_dump({"lab": {"hosts": {name: {} for name in HOSTS}}}), encoding="utf-8"
    )
    out = fleet.rehearse("-i", "good.yml")

    assert f"{GOOD} passed · {GOOD} of them in an earlier rehearsal" in out


@pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")
def test_05_a_kept_image_makes_the_second_rehearsal_cheaper(fleet: Fleet) -> None:
    """The present state comes from its image: the same verdict, and a fraction of the time for that step."""
    fleet.rehearse("-i", "good.yml", "--limit", "rig-12", "--fresh", "--junit", "again.xml")

    (name,) = fleet.results("again.xml")
    first, second = (seconds_of(fleet.results(file)[name], "the host as it is now") for file in ("r.xml", "again.xml"))
    assert second < first / 2
