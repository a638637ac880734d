"""Combinations of the matrix are those that the resolver solves, no other; those of a lock are what its hosts are."""

from __future__ import annotations

import itertools
import random
from functools import lru_cache

import pytest
import worlds

from provisioner.errors import BadInput
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.resolve import solve
from provisioner.resolve.combos import NO_DRIVER, PARAMETERS, Combo, array, of_lock, parameters, upgrades, valid
from provisioner.resolve.host import prepare
from provisioner.resolve.hypothetical import Shelf, Sources
from provisioner.resolve.lock import make_lock
from provisioner.resolve.problem import build
from provisioner.resolve.solver import best

ONLY = {"network": ("akash", "lium", "ionet", "render", "chutes", "golem"), "runtime": ("docker-io", "docker-ce")}


@lru_cache(maxsize=2)
def rows(sources: Sources = "archive") -> dict[tuple[str, ...], Combo]:
    return valid(worlds.matrix(), Shelf(worlds.matrix(), sources), ONLY)


def intent(row: tuple[str, ...]) -> Intent:
    _, _, branch, modules, runtime, network = row
    if branch == NO_DRIVER:
        return Intent(networks=(network,), runtime=runtime)
    return Intent.model_validate({"networks": (network,), "runtime": runtime, "driver": branch, "modules": modules})


@pytest.mark.parametrize("sources", ["archive", "vendor"])
def test_the_resolver_solves_each_valid_combination_with_the_version_it_names(sources: Sources) -> None:
    found = rows(sources)
    for row in random.Random(1).sample(sorted(found), 60):
        combo = found[row]
        stack = solve(Shelf(worlds.matrix(), sources).host(combo.os, combo.gpus), intent(row), worlds.matrix())

        assert isinstance(stack, HostLock), row
        if combo.driver:
            assert stack.driver_version is not None and stack.modules is not None
            assert (stack.driver_version.value, stack.modules.value) == (combo.driver, combo.modules)


@pytest.mark.parametrize("sources", ["archive", "vendor"])
def test_no_card_of_the_architecture_solves_a_combination_that_is_not_valid(sources: Sources) -> None:
    matrix, shelf, found = worlds.matrix(), Shelf(worlds.matrix(), sources), rows(sources)
    known = parameters(matrix, shelf, ONLY)
    known["branch"] = tuple(branch for branch in known["branch"] if branch != NO_DRIVER)
    known["modules"] = ("proprietary", "open")
    other = [row for row in itertools.product(*(known[name] for name in PARAMETERS)) if row not in found]
    for row in random.Random(2).sample(other, 40):
        for model in (gpu.id for gpu in matrix.gpus.values() if gpu.architecture == row[1]):
            host = prepare(shelf.host(row[0], [model]), matrix)
            assert best(build(host, intent(row), matrix, beside="none").problem) is None, (row, model)


@pytest.mark.parametrize("strength", [2, 3])
def test_the_array_holds_every_pair_and_triple_of_the_valid_combinations(strength: int) -> None:
    def tuples(wanted: list[tuple[str, ...]]) -> set[tuple[tuple[int, str], ...]]:
        return {items for row in wanted for items in itertools.combinations(enumerate(row), strength)}

    found = rows()
    by_combo = {id(combo): row for row, combo in found.items()}
    chosen = [by_combo[id(combo)] for combo in array(found, strength)]

    assert tuples(chosen) == tuples(list(found))
    assert len(chosen) < len(found)
    assert [id(combo) for combo in array(found, strength)] == [id(found[row]) for row in chosen]


def test_known_incompatibilities_stand_in_no_combination() -> None:
    """Kepler ends at 470, Pascal takes no open modules, Debian 13 has no 470."""
    for os, architecture, branch, modules, _, _ in rows():
        assert not (architecture == "kepler" and branch not in ("470", NO_DRIVER))
        assert not (architecture in ("kepler", "maxwell", "pascal", "volta") and modules == "open")
        assert not (os == "debian-13" and branch == "470")


def test_a_name_that_is_not_known_is_refused() -> None:
    shelf = Shelf(worlds.matrix(), "archive")
    for only in ({"gpu": ["ada"]}, {"os": ["debian-9"]}, {"network": ["akasch"]}):
        with pytest.raises(BadInput):
            parameters(worlds.matrix(), shelf, only)


def stack(os: str, gpu: str, **request: object) -> HostLock:
    found = solve(worlds.host(os, gpu), Intent.model_validate(request), worlds.matrix())
    assert isinstance(found, HostLock)
    return found


def test_a_lock_gives_each_combination_once_with_its_hosts() -> None:
    one = stack("debian-12", "rtx-4090", networks=["akash"])
    other = stack("debian-13", "rtx-4090", networks=["akash"])
    lock = make_lock({"rig-01": one, "rig-02": other, "rig-03": one}, "m")

    assert [
        (combo.hosts, combo.os, combo.architectures, combo.networks) for combo in of_lock(lock, worlds.matrix())
    ] == [
        (("rig-01", "rig-03"), "debian-12", ("ada",), ("akash",)),
        (("rig-02",), "debian-13", ("ada",), ("akash",)),
    ]


def test_upgrades_are_the_pairs_between_two_locks() -> None:
    old = stack("debian-12", "rtx-3090", networks=["akash"], driver="470")
    new = stack("debian-12", "rtx-3090", networks=["akash"], driver="535")
    before = make_lock({"rig-01": old, "rig-02": old, "rig-03": new, "gone": old}, "m")
    after = make_lock({"rig-01": new, "rig-02": new, "rig-03": new, "new": new}, "m")
    found = upgrades(before, after, worlds.matrix())

    assert [(pair.before.branch, pair.after.branch, pair.hosts) for pair in found.pairs] == [
        ("470", "535", ("rig-01", "rig-02"))
    ]
    assert (found.unchanged, found.only_before, found.only_after) == (("rig-03",), ("gone",), ("new",))


def test_a_change_of_packages_alone_is_an_upgrade_too() -> None:
    old = stack("debian-12", "rtx-4090", networks=["akash"])
    new = old.model_copy(update={"packages": old.packages[1:]})
    found = upgrades(make_lock({"rig-01": old}, "m"), make_lock({"rig-01": new}, "m"), worlds.matrix())

    assert [pair.hosts for pair in found.pairs] == [("rig-01",)]
