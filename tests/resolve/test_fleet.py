"""Hosts that are alike are solved once, and each gets exactly what it would get alone."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import cases
import pytest
import worlds
import yaml

from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import GpuHealth, HostFacts, NvmlFacts, PciGpu, RuntimeFacts, UnitState
from provisioner.model.intent import Intent
from provisioner.resolve import NoSolution, solve
from provisioner.resolve.fleet import Fleet

SAMPLE = cases.files()[::3]


def elsewhere(facts: HostFacts) -> HostFacts:
    """The same kind of host under another name, at another hour, with other values of all that must not matter."""
    return dataclasses.replace(
        facts,
        host="rig-77",
        taken_at=facts.taken_at + timedelta(hours=5, minutes=3),
        os=dataclasses.replace(facts.os, name="Another name", codename="other") if facts.os else facts.os,
        kernel=dataclasses.replace(facts.kernel, installed=("6.1.0-1-amd64", "6.1.0-2-amd64")),
        gpus=tuple(dataclasses.replace(gpu, bound_to="vfio-pci") for gpu in facts.gpus) if facts.gpus else facts.gpus,
        driver=dataclasses.replace(facts.driver, nouveau_loaded=True, nouveau_blacklisted=UNKNOWN, loaded_flavour=None),
        packages=(
            {name: dataclasses.replace(p, held=True) for name, p in reversed(facts.packages.items())}
            if facts.packages
            else facts.packages
        ),
        runtime=RuntimeFacts(True, "{}", "20.10", 7),
        units={"docker.service": UnitState("docker.service", "loaded", "active", "enabled")},
        failed_units=("cron.service",),
        disk_free_mib={"/": 5},
        memory_mib=facts.memory_mib - 3 if facts.memory_mib else facts.memory_mib,
        swap_mib=4096,
        clock_skew_s=0.2,
        boot_identity="boot-2",
        virtualization="kvm",
    )


@pytest.mark.parametrize("path", SAMPLE, ids=lambda path: path.stem)
def test_a_kind_leaves_out_nothing_that_matters(path: Path) -> None:
    """Through the fleet a host and its double get what each gets when it is solved alone, from one solution."""
    case = yaml.safe_load(path.read_text(encoding="utf-8"))
    facts, intent = cases.facts(case), cases.intent(case)
    double = elsewhere(facts)
    fleet = Fleet(worlds.matrix())

    answers = [fleet.solve(one, intent) for one in (facts, double)]

    assert answers == [solve(one, intent, worlds.matrix()) for one in (facts, double)]
    assert fleet.kinds == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda f: dataclasses.replace(f, taken_at=f.taken_at + timedelta(days=1)),
        lambda f: dataclasses.replace(f, os=dataclasses.replace(f.os, architecture="arm64")),
        lambda f: dataclasses.replace(f, gpus=(*f.gpus, PciGpu("0000:09:00.0", "10de", "2684", "10de:1b1d"))),
        lambda f: dataclasses.replace(f, kernel=dataclasses.replace(f.kernel, running="6.1.0-9-amd64")),
        lambda f: dataclasses.replace(f, kernel=dataclasses.replace(f.kernel, next_boot=UNKNOWN)),
        lambda f: dataclasses.replace(f, kernel=dataclasses.replace(f.kernel, headers=("6.1.0-9-amd64",))),
        lambda f: dataclasses.replace(f, driver=dataclasses.replace(f.driver, loaded=None)),
        lambda f: dataclasses.replace(f, driver=dataclasses.replace(f.driver, library="535.1")),
        lambda f: dataclasses.replace(f, driver=dataclasses.replace(f.driver, modules=UNKNOWN)),
        lambda f: dataclasses.replace(f, driver=dataclasses.replace(f.driver, secure_boot=True)),
        lambda f: dataclasses.replace(f, driver=dataclasses.replace(f.driver, run_file_install=True)),
        lambda f: dataclasses.replace(f, packages={}),
        lambda f: dataclasses.replace(
            f, packages={n: dataclasses.replace(p, whole=False) for n, p in f.packages.items()}
        ),
        lambda f: dataclasses.replace(f, offers=f.offers[1:]),
        lambda f: dataclasses.replace(
            f, nvml=NvmlFacts(None, None, None, (GpuHealth(0, "NVIDIA X", "", "0000:01:00.0", *[None] * 5),))
        ),
        lambda f: dataclasses.replace(f, memory_mib=f.memory_mib // 2),
        lambda f: dataclasses.replace(f, clock_skew_s=-40.0),
        lambda f: dataclasses.replace(f, components=("main",)),
    ],
)  # fmt: skip
def test_whatever_the_resolver_looks_at_makes_another_kind(change: object) -> None:
    facts = worlds.host("debian-12", "rtx-3090", installed={"nvidia-kernel-dkms": "535.261.03-1"}, loaded="535.261.03")
    fleet = Fleet(worlds.matrix())
    other = change(facts)  # type: ignore[operator]  # a table of functions

    for one in (facts, other):
        assert fleet.solve(one, Intent()) == solve(one, Intent(), worlds.matrix())

    assert fleet.kinds == 2


def test_equal_sources_are_told_by_what_they_hold() -> None:
    """Each host reads its own package index: equal rows in another tuple are the same sources."""
    facts = worlds.host("debian-12", "rtx-3090")
    copies = [
        dataclasses.replace(facts, offers=tuple(dataclasses.replace(offer) for offer in facts.offers or ()))
        for _ in range(2)
    ]
    fleet = Fleet(worlds.matrix())

    answers = [fleet.solve(one, Intent(networks=("akash",))) for one in (facts, *copies, facts)]

    assert fleet.kinds == 1
    assert all(answer is answers[0] for answer in answers)


def test_a_shared_refusal_names_the_host_it_is_told_to() -> None:
    fleet = Fleet(worlds.matrix())

    answers = [fleet.solve(worlds.host("debian-12", "tesla-k80", name=name), Intent(driver="580")) for name in "aba"]

    assert [answer.host for answer in answers if isinstance(answer, NoSolution)] == ["a", "b", "a"]
    assert fleet.kinds == 1
