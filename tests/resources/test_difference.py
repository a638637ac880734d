"""What differs is named exactly; what fits is not; what could not be seen is never taken for fine."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from provisioner.model.capture import UNKNOWN, Capture, CommandOutput
from provisioner.model.facts import HostFacts, ModuleBuild, Package, UnitState
from provisioner.model.resource import CONTAINERD_FILES, CdiSpec, ContainerdRuntime, Service
from provisioner.plan.order import host_plan
from provisioner.resources.difference import difference
from provisioner.resources.wanted import DOCKER_SETTINGS, PREFERENCES, UNATTENDED, wanted
from tests import world

LOCK = world.entry()
FACTS = world.fitting_facts(LOCK)
CAPTURE = world.fitting_capture(LOCK)


def differing(facts: HostFacts = FACTS, capture: Capture = CAPTURE) -> dict[str, tuple[str, ...]]:
    return {d.wanted.key: d.keys for d in difference(wanted(LOCK), facts, capture)}


def with_file(path: str, text: str | None) -> Capture:
    return CAPTURE.model_copy(update={"files": {**CAPTURE.files, path: text}})


def with_package(package: Package) -> HostFacts:
    assert isinstance(FACTS.packages, dict)
    return replace(FACTS, packages={**FACTS.packages, package.name: package})


def test_a_host_as_locked_differs_in_nothing() -> None:
    """No difference, so nothing would be run."""
    assert differing() == {}


def test_a_bare_host_differs_in_everything() -> None:
    """Every wanted resource is absent on a bare host, but for the state of dpkg."""
    found = differing(world.bare_facts(), world.bare_capture(LOCK))

    assert {r.key for r in wanted(LOCK)} - {"dpkg state"} == set(found)


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        (Package("nvidia-smi", "535.216.03-1", held=True), {"package nvidia-smi": ("version",)}),
        (Package("nvidia-smi", world.DRIVER_DEB, held=False), {"package nvidia-smi": ("held",)}),
        (
            Package("nvidia-smi", world.DRIVER_DEB, held=True, whole=False),
            {"dpkg state": ("broken",), "package nvidia-smi": ("whole",)},
        ),
    ],
)
def test_package_moved_let_go_or_broken(package: Package, expected: dict[str, tuple[str, ...]]) -> None:
    """A foreign upgrade, a lost hold and an interrupted dpkg are three different differences."""
    assert expected == differing(with_package(package))


def test_module_for_the_next_kernel() -> None:
    """A module of another version for the kernel that boots next is a difference of that module only."""
    modules = (ModuleBuild(world.KERNEL, "535.216.03", "proprietary"),)

    assert {f"module nvidia for {world.KERNEL}": ("version",)} == differing(
        replace(FACTS, driver=replace(FACTS.driver, modules=modules))
    )


@pytest.mark.parametrize(("noted", "unseen"), [(True, True), (False, False)])
def test_a_module_of_no_known_version(noted: bool, unseen: bool) -> None:
    """What DKMS has not noted is yet to be installed; of what it did not put there nothing is known."""
    modules = (ModuleBuild(world.KERNEL, UNKNOWN, "proprietary", noted=noted),)
    [found] = difference(wanted(LOCK), replace(FACTS, driver=replace(FACTS.driver, modules=modules)), CAPTURE)

    assert (found.wanted.key, found.unseen) == (f"module nvidia for {world.KERNEL}", unseen)


def test_upgrade_without_reboot() -> None:
    """New packages with the old module still loaded: only the running driver differs."""
    found = differing(replace(FACTS, driver=replace(FACTS.driver, loaded="535.216.03")))

    assert found == {"running driver": ("version",)}


def test_other_flavour_loaded() -> None:
    """Open modules of the same version are not the proprietary ones."""
    assert differing(replace(FACTS, driver=replace(FACTS.driver, loaded_flavour="open"))) == {
        "running driver": ("flavour",)
    }


def test_service_disabled() -> None:
    """A unit that runs but would not come back after a boot differs."""
    units = {**FACTS.units, "docker.service": UnitState("docker.service", "loaded", "active", "disabled")}  # type: ignore[dict-item]

    assert differing(replace(FACTS, units=units)) == {"service docker.service": ("enabled",)}


def test_owners_settings_stay() -> None:
    """Keys that the owner keeps in daemon.json are no difference; a wanted key with another value is."""
    theirs = with_file(DOCKER_SETTINGS, json.dumps({"data-root": "/mnt/docker", "live-restore": True}))
    other = with_file(DOCKER_SETTINGS, json.dumps({"live-restore": False}))

    assert differing(capture=theirs) == {}
    assert {f"settings {DOCKER_SETTINGS}": ("live-restore",)} == differing(capture=other)


def test_settings_that_are_no_json_are_unseen() -> None:
    """A file that cannot be merged with is not overwritten: it counts as not seen."""
    (found,) = difference(wanted(LOCK), FACTS, with_file(DOCKER_SETTINGS, "{ not json"))

    assert found.unseen


def test_settings_with_a_secret_are_not_written_back() -> None:
    """The probe leaves secrets out; writing such a file back would lose them, so it counts as not seen."""
    theirs = with_file(DOCKER_SETTINGS, '{"proxies": "http://***@proxy"}').model_copy(
        update={"redacted": (DOCKER_SETTINGS,)}
    )
    fitting = with_file(DOCKER_SETTINGS, '{"proxies": "***", "live-restore": true}').model_copy(
        update={"redacted": (DOCKER_SETTINGS,)}
    )

    assert [d.unseen for d in difference(wanted(LOCK), FACTS, theirs)] == [True]
    assert difference(wanted(LOCK), FACTS, fitting) == ()


def test_mode_and_owner_of_a_file() -> None:
    """A pin file that others may write is not as wanted."""
    line = f"stat -c '%a %U:%G %F' {PREFERENCES}"
    loose = CAPTURE.model_copy(
        update={"commands": {**CAPTURE.commands, line: CommandOutput(rc=0, stdout="666 root:root regular file\n")}}
    )

    assert {f"file {PREFERENCES}": ("mode",)} == differing(capture=loose)


@pytest.mark.parametrize(
    "change",
    [
        {"packages": UNKNOWN},
        {"units": UNKNOWN},
        {"driver": replace(FACTS.driver, loaded=UNKNOWN)},
        {"driver": replace(FACTS.driver, modules=UNKNOWN)},
    ],
)
def test_unknown_is_a_difference_and_unseen(change: dict[str, Any]) -> None:
    """What could not be looked at is neither fine nor absent."""
    found = difference(wanted(LOCK), replace(FACTS, **change), CAPTURE)

    assert found
    assert all(d.unseen for d in found)


def test_files_not_asked_for_are_unseen() -> None:
    """A capture without the pin file says nothing about it."""
    files = {path: text for path, text in CAPTURE.files.items() if path != UNATTENDED}
    (found,) = difference(wanted(LOCK), FACTS, CAPTURE.model_copy(update={"files": files}))

    assert (f"file {UNATTENDED}", True) == (found.wanted.key, found.unseen)


def test_host_without_driver_wants_none() -> None:
    """A lock entry with no driver asks for no module, no nouveau file, no running driver."""
    lock = world.entry(driver_version=None, driver_branch=None, modules=None, packages=(), kernels=())

    assert not [r.key for r in wanted(lock) if "driver" in r.key or "module" in r.key or "nouveau" in r.key]


SPEC = "containerEdits:\n  mounts:\n    - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{}\n"


@pytest.mark.parametrize(
    ("etc", "run", "found"),
    [
        (None, SPEC.format(world.DRIVER), None),
        (None, None, "absent"),
        (SPEC.format("535.216.03"), SPEC.format(world.DRIVER), "535.216.03, 535.261.03"),
        (SPEC.format(world.DRIVER), None, None),
    ],
)
def test_a_cdi_spec_of_another_driver_is_a_difference(etc: str | None, run: str | None, found: str | None) -> None:
    """Every spec must be of the driver: engines read both folders, and a stale one mounts libraries that are gone."""
    lock = world.entry()
    files = {"/etc/cdi/nvidia.yaml": etc, "/var/run/cdi/nvidia.yaml": run}
    capture = world.fitting_capture(lock).model_copy(update={"files": files})
    seen = difference([CdiSpec(version=world.DRIVER)], world.fitting_facts(lock), capture)

    told = [getattr(d.observed, "version", "absent") for d in seen]
    assert told == ([] if found is None else [found])


def test_what_a_foreign_script_changed_is_told_from_three_sides() -> None:
    """We wrote runc; the script made it nvidia; the lock wants runc. What it added stays."""
    lock = world.entry(default_runtime="runc")
    capture = world.fitting_capture(lock)
    path = "/etc/docker/daemon.json"
    theirs = {"live-restore": True, "default-runtime": "nvidia", "data-root": "/srv"}
    wrote = {"live-restore": True, "default-runtime": "runc"}
    files = {
        **capture.files,
        path: json.dumps(theirs),
        "/var/lib/provision/wrote-etc-docker-daemon.json": json.dumps(wrote),
    }
    found = difference(wanted(lock), world.fitting_facts(lock), capture.model_copy(update={"files": files}))
    [change] = host_plan("rig-01", lock, found, enrolled=True).changes

    assert change.keys == ("default-runtime",)
    assert (change.before, change.after) == ('default-runtime="nvidia"', 'default-runtime="runc"')
    assert change.notes == ('default-runtime: provision wrote "runc", "nvidia" stands there now, "runc" is wanted',)
    assert json.loads(change.content or "") == {"live-restore": True, "default-runtime": "runc", "data-root": "/srv"}


def test_a_unit_that_is_not_there_is_off_already() -> None:
    """An older toolkit has no unit that refreshes specs."""
    facts = world.fitting_facts(world.entry())
    units = {"nvidia-cdi-refresh.path": UnitState("nvidia-cdi-refresh.path", "not-found", "inactive", "")}
    off = Service(name="nvidia-cdi-refresh.path", enabled=False, active=False)

    assert difference([off], replace(facts, units=units), world.fitting_capture(world.entry())) == ()


@pytest.mark.parametrize(
    ("config", "drop_in", "there"),
    [
        ('version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n', "BinaryName = nvidia-container-runtime", True),
        ("version = 2\n", "BinaryName = nvidia-container-runtime", False),
        ('imports = ["/etc/containerd/conf.d/*.toml"]\n', None, False),
        (None, None, False),
    ],
)
def test_containerd_knows_the_nvidia_runtime_or_not(config: str | None, drop_in: str | None, there: bool) -> None:
    """Drop-in and import belong together: one without the other does nothing."""
    files = dict(zip(CONTAINERD_FILES, (config, drop_in), strict=True))
    capture = CAPTURE.model_copy(update={"files": files})

    assert (difference([ContainerdRuntime()], FACTS, capture) == ()) is there
