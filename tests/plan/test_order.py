"""Phases, costs and refusals of a host's plan."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from provisioner.host.programs import ENDING
from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import HostFacts, Package
from provisioner.model.intent import Intent, Policy
from provisioner.model.plan import PHASES, HostPlan
from provisioner.model.resource import ReplacedSource
from provisioner.model.stack import HostLock
from provisioner.plan.order import host_plan, mending
from provisioner.plan.simulate import simulation
from provisioner.resources.difference import difference
from provisioner.resources.wanted import DOCKER_ENDS, wanted
from tests import world

LOCK = world.entry()
FACTS = world.fitting_facts(LOCK)


def plan(facts: HostFacts, lock: HostLock = LOCK, *, bare: bool = False, enrolled: bool = True) -> HostPlan:
    capture = world.bare_capture(lock) if bare else world.fitting_capture(lock)
    return host_plan("rig-01", lock, difference(wanted(lock), facts, capture), enrolled=enrolled)


def test_nothing_differs() -> None:
    """A host as locked and enrolled has an empty plan that costs nothing."""
    found = plan(FACTS)

    assert (found.up_to_date, found.enrolled, found.reboot, found.not_serving_s) == (True, True, False, 0)


def test_a_bare_host_is_staged_changed_and_rebooted() -> None:
    """Pins and tools come before the drain, packages after it, the persistence daemon after the reboot."""
    found = plan(world.bare_facts(), bare=True, enrolled=False)

    assert [c.what for c in found.in_phase("stage") if not c.what.startswith("file")] == [
        "directory /var/lib/provision",
        "directory /etc/systemd/system/docker.service.d",
        "directory /usr/local/lib/provision",
        "directory /usr/local/lib/provision/provisioner",
        "directory /usr/local/lib/provision/provisioner/host",
        "directory /usr/local/lib/provision/clients",
        "directory /etc/provision",
        "directory /usr/local/lib/provision/health",
        "directory /etc/provision/cluster",
    ]
    assert all("apt" in c.what or "/provision" in c.what for c in found.in_phase("stage") if c.what.startswith("file"))
    assert [c.what for c in found.in_phase("reboot")] == ["running driver", "service nvidia-persistenced.service"]
    assert found.drain == ("akash",)
    assert found.reboot
    assert found.download_bytes == 5_000_000
    assert found.not_serving_s > 200
    ranks = [PHASES.index(c.phase) for c in found.changes]
    assert sorted(ranks) == ranks


def test_a_lost_hold_costs_nothing() -> None:
    """Putting a hold back needs no drain and no reboot: the host serves all along."""
    assert isinstance(FACTS.packages, dict)
    packages = {**FACTS.packages, "nvidia-smi": Package("nvidia-smi", world.DRIVER_DEB, held=False)}
    found = plan(replace(FACTS, packages=packages))

    assert (
        tuple(c.what for c in found.changes),
        found.drain,
        found.download_bytes,
        found.reboot,
        found.not_serving_s,
    ) == (("package nvidia-smi",), (), 0, False, 0)


def test_driver_taken_away_by_hand() -> None:
    """Only what is gone is planned: the packages and the module, not docker, not the pins."""
    assert isinstance(FACTS.packages, dict)
    gone = ("nvidia-kernel-dkms", "nvidia-smi")
    packages = {name: package for name, package in FACTS.packages.items() if name not in gone}
    found = plan(replace(FACTS, packages=packages, driver=replace(FACTS.driver, modules=())))

    assert {"package nvidia-kernel-dkms", "package nvidia-smi", f"module nvidia for {world.KERNEL}"} == {
        c.what for c in found.changes
    }


def test_reboot_forbidden_by_policy_blocks() -> None:
    """A reboot that policy forbids stops the plan with the reason, before anything is changed."""
    lock = world.entry(intent=Intent(networks=("akash",), policy=Policy(reboot="never")))
    found = plan(replace(FACTS, driver=replace(FACTS.driver, loaded="535.216.03")), lock)

    assert found.blocked == ("a reboot is due to load the driver, and provision_policy.reboot is never",)


def test_owners_keys_are_merged_into_settings() -> None:
    """The planned text of daemon.json keeps what its owner wrote."""
    capture = world.fitting_capture(LOCK)
    capture = capture.model_copy(
        update={"files": {**capture.files, "/etc/docker/daemon.json": '{"data-root": "/mnt"}'}}
    )
    found = host_plan("rig-01", LOCK, difference(wanted(LOCK), FACTS, capture), enrolled=True)

    assert [c.content for c in found.changes] == ['{\n    "data-root": "/mnt",\n    "live-restore": true\n}\n']


def test_unreadable_settings_block() -> None:
    """A daemon.json that is no JSON is left alone, and the plan says why nothing happens."""
    capture = world.fitting_capture(LOCK)
    capture = capture.model_copy(update={"files": {**capture.files, "/etc/docker/daemon.json": "{"}})
    found = host_plan("rig-01", LOCK, difference(wanted(LOCK), FACTS, capture), enrolled=True)

    assert found.blocked == (
        "/etc/docker/daemon.json is no JSON object, or holds a secret that provision does not read: it is left alone; "
        "set live-restore=true there by hand",
    )
    assert not found.up_to_date


@pytest.mark.parametrize("whole", [True, False])
def test_a_module_that_could_not_be_seen_blocks_unless_packages_are_half_done(whole: bool) -> None:
    """A dpkg that was cut off, or is at it, leaves one so; what it is comes out when dpkg has finished."""
    assert isinstance(FACTS.packages, dict)
    name = "nvidia-kernel-dkms"
    facts = replace(
        FACTS,
        driver=replace(FACTS.driver, modules=UNKNOWN),
        packages={**FACTS.packages, name: Package(name, world.DRIVER_DEB, held=True, whole=whole)},
    )
    found = plan(facts)

    what = f"module nvidia for {world.KERNEL}"
    assert found.blocked == ((f"{what} could not be seen",) if whole else ())
    assert [c.what for c in mending(found).changes] == ([] if whole else ["dpkg state"])
    assert (what in [c.what for c in found.changes]) is not whole


def test_a_package_source_is_staged_before_apt_is_asked() -> None:
    """Writing it costs nothing; a host that has it as locked is left alone."""
    lock = world.entry(sources=(world.SOURCE,))
    there = plan(world.fitting_facts(lock), lock)
    missing = plan(world.bare_facts(), lock, bare=True, enrolled=False)

    assert there.up_to_date
    [change] = [c for c in missing.changes if c.what == "package source docker"]
    assert (change.phase, change.before) == ("stage", None)
    assert change.after == "https://docker.example/linux/debian, signed by …D1EA9165F2BD78B2"


def test_a_source_that_was_changed_is_put_back() -> None:
    lock = world.entry(sources=(world.SOURCE,))
    capture = world.fitting_capture(lock)
    files = {**capture.files, world.SOURCE.key_path: "another key"}
    found = difference(wanted(lock), world.fitting_facts(lock), capture.model_copy(update={"files": files}))

    assert [(d.wanted.key, d.keys) for d in found] == [("package source docker", ("content",))]


def test_a_file_that_names_more_than_our_source_blocks() -> None:
    """Two keys for one address would stop apt, and the rest of the file is not ours to lose."""
    wish = ReplacedSource(path="/etc/apt/sources.list", by="docker", also=("http://mirror.example/debian",))
    found = host_plan("rig-01", LOCK, difference([wish], FACTS, world.fitting_capture(LOCK)), enrolled=True)

    assert found.blocked == (
        "/etc/apt/sources.list names the package source docker beside http://mirror.example/debian: apt refuses two "
        "keys for one address; take the line out of that file by hand",
    )


def test_apt_is_asked_with_the_source_that_is_not_there_yet() -> None:
    """The simulation reads a copy of the sources with the new one in it, and none of what it replaces."""
    lock = world.entry(sources=(world.SOURCE,))
    old = ReplacedSource(path="/etc/apt/sources.list.d/docker.list", by="docker")
    resources = (*wanted(lock), old)
    found = host_plan(
        "rig-01", lock, difference(resources, world.bare_facts(), world.bare_capture(lock)), enrolled=False
    )
    line = simulation(found)

    assert line is not None
    assert 'rm -f "$d/parts/docker.list"' in line
    assert "apt-get --yes" in line
    assert '"$@" --option Dir::Etc::PreferencesParts="$p"' in line
    assert subprocess.run(["sh", "-n", "-c", line], check=False).returncode == 0


def test_what_a_newer_provision_adds_for_the_shutdown_costs_nothing() -> None:
    """Docker reads it when it stops next: an enrolled host serves all along."""
    capture = world.fitting_capture(LOCK)
    added = (DOCKER_ENDS, ENDING)
    files = {path: (None if path in added else text) for path, text in capture.files.items()}
    seen = capture.model_copy(update={"files": files})
    found = host_plan("a", LOCK, difference(wanted(LOCK), FACTS, seen), enrolled=True)

    assert [c.what for c in found.changes] == [f"file {path}" for path in added]
    assert {c.phase for c in found.changes} == {"stage"}
    assert (found.drain, found.reboot, found.not_serving_s) == ((), False, 0)
