"""Python clients come from lists in which every file has its hash, and get an environment of their own per network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.actions.plan import make_plan
from provisioner.errors import BadInput, HostError
from provisioner.matrix.reader import load
from provisioner.model import requirements as requirements_module
from provisioner.model.capture import CommandOutput
from provisioner.model.enrolment import EnrolmentRecord
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.model.paths import data_dir
from provisioner.model.requirements import digest, pinned, requirements
from provisioner.model.resource import PythonEnvironment
from provisioner.model.stack import Choice, Lock
from provisioner.plan.order import host_plan
from provisioner.probe.request import Request
from provisioner.render.project import project
from provisioner.resources.difference import difference
from provisioner.resources.observed import sum_command
from provisioner.resources.wanted import wanted
from tests import world

LISTS = sorted(path.stem for path in data_dir("requirements").glob("*.txt"))
LOCK = world.entry(networks={"bittensor": Choice(value="9.21.2")})


@pytest.mark.parametrize("network", LISTS)
def test_every_requirement_is_exact_and_has_hashes(network: str) -> None:
    """pip refuses the rest; no address of any index stands in it."""
    text = requirements(network)
    assert text is not None
    assert "://" not in text
    blocks = re.split(r"\n(?=\S)", text.split("\n", 1)[1].strip())
    assert len(blocks) > 20
    for block in blocks:
        assert re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==\S+( ; .*)? \\\n", block), block
        assert re.findall(r"--hash=sha256:[0-9a-f]{64}", block), block


def seen(answer: CommandOutput) -> list[str]:
    [one] = [r for r in wanted(LOCK) if isinstance(r, PythonEnvironment)]
    capture = world.fitting_capture(LOCK)
    capture = capture.model_copy(update={"commands": {**capture.commands, sum_command(one.mark): answer}})
    return [d.wanted.key for d in difference(wanted(LOCK), world.fitting_facts(LOCK), capture)]


def test_the_list_that_was_installed_is_compared() -> None:
    """By its hash; a list without its name is one that was not installed to the end."""
    text = requirements("bittensor")
    assert text is not None
    assert seen(CommandOutput(rc=0, stdout=f"{digest(text)}  /opt/x\n")) == []
    assert seen(CommandOutput(rc=0, stdout=f"{'0' * 64}  /opt/x\n")) == ["python environment bittensor"]
    assert seen(CommandOutput(rc=1, stderr="No such file or directory\n")) == ["python environment bittensor"]


def test_the_rendered_tasks_install_by_hash() -> None:
    """The list travels with the run; the link moves last, so a run that is killed leaves the old environment in use."""
    capture = world.fitting_capture(LOCK)
    [one] = [r for r in wanted(LOCK) if isinstance(r, PythonEnvironment)]
    capture = capture.model_copy(update={"commands": {**capture.commands, sum_command(one.mark): CommandOutput(rc=1)}})
    plan = host_plan("rig-01", LOCK, difference(wanted(LOCK), world.fitting_facts(LOCK), capture), enrolled=False)
    run = project([plan], {"rig-01": {}}, run="r1", made_by="0.1.0", made_at="2026-11-24T03:07:00Z")

    assert (plan.reboot, plan.drain) == (False, ())
    assert run.files["files/group_1/requirements/bittensor.txt"] == requirements("bittensor")
    tasks = [t for play in yaml.safe_load(run.files["group_1.yml"]) for t in play.get("tasks", [])]
    words = [task["ansible.builtin.command"]["argv"] for task in tasks if "ansible.builtin.command" in task]
    [install] = [argv for argv in words if "install" in argv]
    assert {"--require-hashes", "--no-deps", "--no-input"} <= set(install)
    assert tasks[-1]["ansible.builtin.file"]["dest"] == "/opt/provision/bittensor/current"


def test_a_network_without_a_list_has_no_environment() -> None:
    """Its client comes otherwise, or is not pinned here."""
    assert requirements("akash") is None
    assert not [r for r in wanted(world.entry()) if isinstance(r, PythonEnvironment)]


OWN = "bittensor-cli==9.21.1 ; python_version >= '3.10' \\\n    --hash=sha256:" + "a" * 64 + "\n"


def own(folder: Path, text: str, network: str = "bittensor") -> None:
    (folder / requirements_module.OWN).mkdir(exist_ok=True)
    (folder / requirements_module.OWN / f"{network}.txt").write_text(text, encoding="utf-8")


def test_a_list_of_ones_own_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a network whose client is not shipped as well; what ships is still there for the others."""
    monkeypatch.chdir(tmp_path)
    own(tmp_path, OWN)
    own(tmp_path, OWN.replace("bittensor-cli", "lium-io"), "lium")
    assert requirements("bittensor") == OWN
    assert pinned(OWN) == {"bittensor-cli": "9.21.1"}
    lock = world.entry(networks={"lium": Choice(value="0.0.25"), "vast-ai": Choice(value="")})
    made = [r for r in wanted(lock) if isinstance(r, PythonEnvironment)]
    assert [one.network for one in made] == ["lium", "vast-ai"]
    assert made[0].sha256 == digest(OWN.replace("bittensor-cli", "lium-io"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bittensor-cli==9.21.1\n", "own.*:1: 'bittensor-cli==9.21.1' is not NAME==VERSION"),
        (OWN + "requests>=2\n", ":3: 'requests>=2'"),
        (OWN + "# a word\n--index-url https://u:p@x/simple\n", ":4: '--index-url"),
        (OWN + "x @ https://example.com/x.whl\n", "is not NAME==VERSION"),
        (OWN.replace("sha256", "md5"), "is not NAME==VERSION"),
        ("# nothing\n", "names no package"),
    ],
)
def test_a_list_that_would_take_what_is_newest(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told with its line, before any host is looked at."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(requirements_module, "OWN", Path("own"))
    own(tmp_path, text)
    with pytest.raises(BadInput, match=words):
        requirements("bittensor")


@pytest.mark.parametrize("path", sorted(data_dir("requirements").rglob("*.txt")), ids=lambda path: path.stem)
def test_what_ships_or_is_offered_is_such_a_list(path: Path) -> None:
    """Nothing is left to an index, and what is only offered is installed for nobody."""
    assert len(pinned(path.read_text(encoding="utf-8"), str(path))) > 20
    assert path.parent.name != "offered" or requirements(path.stem) is None


def test_the_version_of_the_lock_is_what_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that the lock names and no list has is refused before anything is changed; with a list it is taken."""
    monkeypatch.chdir(tmp_path)
    shipped = requirements("bittensor")
    assert shipped is not None
    newest = load().networks["bittensor"].clients[0].versions[0].version
    assert pinned(shipped)["bittensor-cli"] == newest

    def planned() -> HostError | None:
        lock = Lock(
            made_by="0.1.0",
            matrix="m",
            hosts={"rig-01": world.entry(intent=Intent(networks=("bittensor@9.21.1",)), networks=OLDER)},
        )
        host = InventoryHost("rig-01", {}, Intent(networks=("bittensor@9.21.1",)))
        seen = make_plan((host,), lock, prober=Nobody(), clock=Now(), signatures=NoKeys())
        return seen.failed.get("rig-01")

    refused = planned()
    assert refused is not None and refused.reference == "client-not-pinned"
    assert "client 9.21.1 of bittensor, and what is pinned here is bittensor-cli 9.21.2" in refused.message
    own(tmp_path, OWN)
    reached = planned()
    assert reached is not None and reached.reference == "nobody-is-there"


OLDER = {"bittensor": Choice(value="9.21.1")}


class Nobody:
    """A prober that reaches no host."""

    def probe(self, hosts: Sequence[InventoryHost], requests: Mapping[str, Request]) -> dict[str, Any]:
        return {host.name: HostError("nobody-is-there", host.name, "nobody") for host in hosts}


class Now:
    def now(self) -> datetime:
        return world.WHEN


class NoKeys:
    def verifies(self, record: EnrolmentRecord) -> bool | None:
        return None
