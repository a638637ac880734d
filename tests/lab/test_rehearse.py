"""A rehearsal as CI runs it: the distinct stacks of a fleet, one planted to fail, one that can't be rebuilt.

One story in numbered steps. The short form has one stack, of a host without cards: what a dry run says, that an
interruption leaves no host, and the way there and back. The long form (PROVISION_LONG=1, `scripts/test --all`) has the
six stacks below, and the plain CI script from an empty folder.
"""

from __future__ import annotations

import os
import shutil
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
from provisioner.model.stack import HostLock
from provisioner.model.tunnel import Tunnel, TunnelLock, TunnelPeer
from provisioner.resolve.lock import lock_text, read_lock

LONG = bool(os.environ.get("PROVISION_LONG"))
pytestmark = pytest.mark.lab
long = pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")
short = pytest.mark.skipif(LONG, reason="short form")

ROOT = Path(__file__).resolve().parents[2]
# host: lab host, wishes before, wishes after
SIX = {
    "rig-11": (
        "bullseye:gtx-1080",
        {"networks": ["akash@0.16.0"], "driver": "470.256.02"},
        {"networks": ["akash"], "driver": "470.256.02"},
    ),
    "rig-12": ("bookworm:rtx-3090", {"networks": ["lium"], "driver": "535.216.03"}, {"networks": ["lium"]}),
    "rig-13": ("trixie:rtx-4090", {"networks": ["ionet"], "driver": "535"}, {"networks": ["ionet"], "driver": "550"}),
    "rig-14": ("bookworm:rtx-3090", {"networks": ["lium"], "driver": "535.216.03"}, {"networks": ["lium"]}),
}
ONE = {"rig-00": ("bookworm", {"runtime": "containerd"}, {"runtime": "docker-io"})}
HOSTS = SIX if LONG else ONE
GOOD = len(HOSTS)
PREFIX = f"reh{os.getpid()}"
REHEARSE = ("rehearse", "--to", "candidate.lock", "--name", PREFIX)
PRESENT = "the host as it is now"
NET = f"10.87.{os.getpid() % 250}"  # of this run only: no image that an earlier run has kept is of such a host


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
        began = time.monotonic()
        out = self.run(*REHEARSE, *words, code=code)
        print(f"{out}\nrehearsed in {time.monotonic() - began:.0f} s")
        return out

    def results(self, file: str = "r.xml") -> dict[str, ElementTree.Element]:
        root = ElementTree.parse(self.folder / file).getroot()
        return {str(suite.get("name")): suite for suite in root}


def seconds_of(suite: ElementTree.Element, step: str) -> float:
    return next(float(str(test.get("time"))) for test in suite if test.get("name") == step)


def left_over() -> list[str]:
    return [lab.name for lab in labs() if lab.name.startswith(PREFIX)]


def joined(entry: HostLock) -> HostLock:
    """The entry of a host that is reached through a hub; its keys are nobody's, as those of a fleet are to a lab."""
    wish = Tunnel(kind="wireguard", hub="hub-01", confirm_s=60)
    lock = TunnelLock(
        kind="wireguard",
        role="spoke",
        host="rig-14",
        address=f"{NET}.14",
        range=f"{NET}.0/24",
        hub="hub-01",
        hub_address=f"{NET}.1",
        public_key="QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=",
        peers=(TunnelPeer(host="hub-01", public_key="QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=", allowed=()),),
        admit=("tcp/22",),
    )
    return entry.model_copy(update={"intent": entry.intent.model_copy(update={"tunnel": wish}), "tunnel": lock})


def broken(entry: HostLock) -> HostLock:
    """An entry that asks for a version which nobody offers."""
    packages = tuple(
        p.model_copy(update={"version": "535.261.03-99"}) if p.name == "nvidia-smi" else p for p in entry.packages
    )
    return entry.model_copy(update={"packages": packages})


@pytest.fixture(scope="module")
def fleet(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Locks as `provision resolve` makes them on bare hosts; then a tunnel, a fault and another system are planted."""
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    lab = lab_factory(*(f"{name}={spec}" for name, (spec, _, _) in HOSTS.items()))
    for number, lock in ((1, "provision.lock"), (2, "candidate.lock")):
        wishes = {name: {f"provision_{k}": v for k, v in host[number].items()} for name, host in HOSTS.items()}  # type: ignore[attr-defined]
        (fleet.folder / "wishes.yml").write_text(yaml.safe_dump({"lab": {"hosts": wishes}}), encoding="utf-8")
        fleet.run("resolve", "-i", str(lab.inventory), "-i", "wishes.yml", "-o", lock)
        (fleet.folder / f"of-{lock}").mkdir()
        fleet.run("facts", "-i", str(lab.inventory), "-i", "wishes.yml", "--lock", lock, "--save", f"of-{lock}")
    lab.down()
    if LONG:
        before, after = read_lock(fleet.folder / "provision.lock"), read_lock(fleet.folder / "candidate.lock")
        for name in ("provision.lock", "candidate.lock"):
            shutil.copy(fleet.folder / name, fleet.folder / f"resolved-{name}")
        same, moved = before.hosts["rig-12"], after.hosts["rig-12"]
        ubuntu = {"os": "ubuntu-22.04"}
        old = {**before.hosts, "rig-14": joined(same), "rig-bad": same, "rig-ubuntu": same.model_copy(update=ubuntu)}
        new = {
            **after.hosts,
            "rig-14": joined(moved),
            "rig-bad": broken(moved),
            "rig-ubuntu": moved.model_copy(update=ubuntu),
        }
        for lock, hosts, name in ((before, old, "provision.lock"), (after, new, "candidate.lock")):
            text = lock_text(lock.model_copy(update={"hosts": hosts}))  # type: ignore[attr-defined]
            (fleet.folder / name).write_text(text, encoding="utf-8")
    yield fleet
    assert left_over() == []


def test_01_a_dry_run_names_the_stacks(fleet: Fleet) -> None:
    out = fleet.rehearse("--dry-run")

    count = GOOD + 2 if LONG else GOOD
    assert out.startswith(f"{count} stack{'s' * (count > 1)} to rehearse for {count} host{'s' * (count > 1)}\n")
    assert ("535.216.03-to-535.261.03" if LONG else "runtime containerd") in out
    assert left_over() == []


def test_02_interrupted_it_leaves_no_host(fleet: Fleet) -> None:
    """Ctrl-C while the present state is being built: an exit code of its own, and nothing stays up."""
    running = fleet.start(*REHEARSE)
    assert running.stdout is not None
    for line in running.stdout:
        if "  present  " in line:
            break
    time.sleep(4)
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=180)

    assert running.returncode == Exit.INTERRUPTED, out
    assert left_over() == []


@short
def test_03_there_and_back(fleet: Fleet) -> None:
    """All five steps of one stack, and the reports."""
    out = fleet.rehearse("--junit", "r.xml", "--html", "r.html", "--markdown", "r.md")

    assert "1 passed" in out
    (suite,) = fleet.results().values()
    assert [suite.get(k) for k in ("tests", "failures", "errors", "skipped")] == ["5", "0", "0", "0"]
    assert "docker.io" in (fleet.folder / "r.html").read_text(encoding="utf-8")
    assert (fleet.folder / "r.md").read_text(encoding="utf-8").startswith("### Rehearsal: all stacks pass")
    assert left_over() == []


@long
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


@long
def test_04_what_passed_is_not_tried_again(fleet: Fleet) -> None:
    (fleet.folder / "good.yml").write_text(
        yaml.safe_dump({"lab": {"hosts": {name: {} for name in HOSTS}}}), encoding="utf-8"
    )
    out = fleet.rehearse("-i", "good.yml")

    assert f"{GOOD} passed · {GOOD} of them in an earlier rehearsal" in out


@long
def test_05_a_kept_image_makes_the_second_rehearsal_cheaper(fleet: Fleet) -> None:
    """The present state comes from its image, also that of a host with a tunnel: a fraction of the time."""
    out = fleet.rehearse("-i", "good.yml", "--limit", "rig-12,rig-14", "--fresh", "--junit", "again.xml")

    assert out.count("passed (kept image)") == 2
    before, again = fleet.results(), fleet.results("again.xml")
    assert len(again) == 2
    built = {name: seconds_of(before[name], PRESENT) for name in again}
    slowest = max(built, key=lambda name: built[name])  # the one with the tunnel, or both: rig-12 may share an image
    assert seconds_of(again[slowest], PRESENT) < built[slowest] / 2


@long
def test_06_a_pull_request_that_moves_535_to_550(fleet: Fleet, tmp_path: Path) -> None:
    """The plain script of docs/ci.md, from an empty folder to the summary that somebody reads."""
    folder = tmp_path / "repository"
    (folder / "captures").mkdir(parents=True)
    (folder / "ci").mkdir()
    shutil.copy(ROOT / "docs/ci/provision-ci.sh", folder / "ci")
    request_of_change(fleet, folder, 1, "provision.lock")
    request_of_change(fleet, folder, 2, "candidate.lock")

    environment = {**fleet.environment, "INVENTORY": "inventory.yml"}
    argv = ["sh", "ci/provision-ci.sh", "main~1", "--name", PREFIX]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    summary = (folder / "ci-report" / "summary.md").read_text(encoding="utf-8")
    print(summary)

    assert done.returncode == 0, summary + done.stderr
    assert summary.startswith("### Rehearsal: all stacks pass\n")
    assert "driver 535.274.02" in summary and "→ driver 550.163.01" in summary
    for title in ("the matrix", "the lock is what it should be", "plan against the last captures"):
        assert f"✅ {title}" in summary
    assert left_over() == []


def request_of_change(fleet: Fleet, folder: Path, number: int, lock: str) -> None:
    """Commit inventory, capture and lock of rig-13, as its owner would: wishes before (1) or after (2)."""
    wishes = {f"provision_{key}": value for key, value in SIX["rig-13"][number].items()}  # type: ignore[attr-defined]
    (folder / "inventory.yml").write_text(yaml.safe_dump({"rigs": {"hosts": {"rig-13": wishes}}}), encoding="utf-8")
    whole = read_lock(fleet.folder / f"resolved-{lock}")
    text = lock_text(whole.model_copy(update={"hosts": {"rig-13": whole.hosts["rig-13"]}}))
    (folder / "provision.lock").write_text(text, encoding="utf-8")
    shutil.copy(fleet.folder / f"of-{lock}" / "rig-13.json", folder / "captures")
    git = ["git", "-c", "user.name=fleet", "-c", "user.email=fleet@example.org", "-c", "commit.gpgsign=false"]
    if number == 1:
        subprocess.run([*git, "init", "-q", "-b", "main"], cwd=folder, check=True)
    subprocess.run([*git, "add", "."], cwd=folder, check=True)
    subprocess.run([*git, "commit", "-q", "-m", lock], cwd=folder, check=True)
