"""Python clients come from lists in which every file has its hash, and get an environment of their own per network."""

from __future__ import annotations

import re

import pytest
import yaml

from provisioner.model.capture import CommandOutput
from provisioner.model.paths import data_dir
from provisioner.model.requirements import digest, requirements
from provisioner.model.resource import PythonEnvironment
from provisioner.model.stack import Choice
from provisioner.plan.order import host_plan
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
