"""A module that is known not to build for a kernel is refused with the fact, before and after there is a lock."""

from __future__ import annotations

from dataclasses import replace

import pytest
import worlds

from provisioner.model.facts import HostFacts, ModuleBuild
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.resolve import NoSolution, explain, solve
from provisioner.resolve.builds import unbuildable
from provisioner.resolve.combos import valid
from provisioner.resolve.hypothetical import Shelf
from provisioner.resolve.listed import assumed_offer

OPEN = Intent(modules="open")
SUITES = ("", "-security")
FLAVOURS = ("amd64", "rt-amd64", "cloud-amd64")
OLD, NEW = "6.1.0-50-amd64", "6.1.0-56-amd64"


def rig(kernel: str = OLD, next_boot: str | None = None, suites: tuple[str, ...] = SUITES) -> HostFacts:
    return worlds.host("debian-12", "rtx-3090", suites=suites, kernel=kernel, next_boot=next_boot)


def locked(facts: HostFacts, intent: Intent = OPEN) -> HostLock:
    found = solve(facts, intent, worlds.matrix())
    assert isinstance(found, HostLock)
    return found


def refused(facts: HostFacts, intent: Intent = OPEN) -> NoSolution:
    found = solve(facts, intent, worlds.matrix())
    assert isinstance(found, NoSolution)
    return found


def kernels_told(found: NoSolution) -> list[str]:
    return [claim.about for conflict in found.conflicts for claim in conflict.claims if claim.kind == "does-not-build"]


@pytest.mark.parametrize(
    ("running", "next_boot", "told"),
    [
        (OLD, OLD, []),
        (NEW, NEW, [NEW]),
        (OLD, NEW, [NEW]),
        (NEW, OLD, [NEW]),
        ("6.1.0-56-cloud-amd64", OLD, []),  # without headers: nothing is built for it
    ],
)
def test_every_kernel_that_gets_a_module_counts(running: str, next_boot: str, told: list[str]) -> None:
    """The one that boots next, and the running one where it has headers: dpkg builds for both."""
    found = solve(rig(running, next_boot), OPEN, worlds.matrix())

    assert (kernels_told(found) if isinstance(found, NoSolution) else []) == told


def test_the_other_flavour_is_chosen_where_nobody_asked_for_this_one() -> None:
    lock = locked(rig(NEW), Intent())

    assert lock.modules is not None
    assert lock.modules.value == "proprietary"


def test_a_module_that_is_there_has_been_built() -> None:
    """What the host shows outweighs what somebody saw elsewhere; another flavour of that version proves nothing."""
    facts = rig(NEW)

    def having(flavour: str) -> HostFacts:
        built = ModuleBuild(NEW, "535.261.03", flavour)  # type: ignore[arg-type]  # one of the two
        return replace(facts, driver=replace(facts.driver, modules=(built,)))

    assert locked(having("open")).kernels == (NEW,)
    assert kernels_told(refused(having("proprietary"))) == [NEW]


def test_what_is_stated_with_low_confidence_warns() -> None:
    world = worlds.with_failure(
        worlds.matrix(), "535", "nvidia-open-kernel-dkms", "535.261.03-1", ">=6.1.0-20", confidence="low"
    )
    lock = solve(rig(OLD), OPEN, world)

    assert isinstance(lock, HostLock)
    assert [line for line in lock.warnings if "does not build" in line] == [
        "the open module of nvidia-open-kernel-dkms 535.261.03-1 does not build for kernel 6.1.0-50-amd64: "
        "an interface is another one there (drivers/535, seen 2026-11-30, low confidence; host: kernel)"
    ]
    assert not any("does not build" in line for line in locked(rig(OLD)).warnings)
    assert unbuildable(lock, [OLD], world) == ()


def test_an_older_kernel_is_named_only_where_it_would_help() -> None:
    """Its headers must be offered, and nothing may be known against it; it costs a reboot and the fixes since."""
    edits = [repair.edits[0].kind for repair in refused(rig(NEW)).repairs]
    nowhere = [repair.edits[0].kind for repair in refused(rig(NEW, suites=("-security",))).repairs]
    barred = worlds.with_failure(worlds.matrix(), "535", "nvidia-open-kernel-dkms", "535.261.03-1", ">=6.1.0-20")
    found = solve(rig(NEW), OPEN, barred)

    assert "older-kernel" in edits
    assert "older-kernel" not in nowhere
    assert isinstance(found, NoSolution)
    assert "older-kernel" not in [repair.edits[0].kind for repair in found.repairs]


def test_kernels_without_a_number_are_not_judged() -> None:
    """Nothing is known of somebody's own kernel, and unknown is not no."""
    facts = rig("custom")
    facts = replace(facts, kernel=replace(facts.kernel, headers=("custom",)))

    assert locked(facts).kernels == ("custom",)


def test_a_lock_is_held_against_kernels_that_came_later() -> None:
    """One claim for each kernel for which the locked module would fail, with its source."""
    lock = locked(rig(OLD))
    claims = unbuildable(lock, [OLD, NEW, "6.1.0-57-amd64"], worlds.matrix())

    assert [claim.about for claim in claims] == [NEW, "6.1.0-57-amd64"]
    assert explain.warning(claims[1]).startswith(
        "the open module of nvidia-open-kernel-dkms 535.261.03-1 does not build for kernel 6.1.0-57-amd64: "
        "pci_resize_resource takes one argument more there"
    )
    assert explain.sources(claims[1])[0] == "drivers/535, seen 2026-11-30"
    assert unbuildable(locked(rig(OLD), Intent(modules="proprietary")), [NEW], worlds.matrix()) == ()
    assert unbuildable(lock.model_copy(update={"driver_branch": None}), [NEW], worlds.matrix()) == ()


def test_no_combination_is_rehearsed_that_cannot_be_built() -> None:
    """The release's own kernel stands in the matrix: Debian 12 has no driver with open modules that builds for it."""
    only = {"os": ["debian-12"], "network": ["lium"], "architecture": ["ampere"], "runtime": ["docker-io"]}
    found = valid(worlds.matrix(), Shelf(worlds.matrix(), "archive"), only)

    assert {combo.modules for combo in found.values()} == {"proprietary"}


def test_a_kernel_that_is_proposed_is_of_the_same_series_and_flavour() -> None:
    """The newest offered is the realtime one of a later series: nobody wants that one to get a driver."""
    facts = rig("6.1.0-18-amd64")
    later = [assumed_offer(f"linux-headers-6.12.117+deb12-{flavour}", "1", "linux", "amd64") for flavour in FLAVOURS]
    found = refused(replace(facts, offers=(*(facts.offers or ()), *later)), Intent())
    only = [offer for offer in later if "rt" in offer.name or "cloud" in offer.name]
    nothing = refused(replace(rig("6.1.0-18-amd64", suites=("-security",)), offers=tuple(only)), Intent())

    assert [e.value for r in found.repairs for e in r.edits if e.kind == "boot-kernel"] == [NEW]
    assert [e for r in nothing.repairs for e in r.edits if e.kind == "boot-kernel"] == []
