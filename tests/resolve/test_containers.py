"""Engine, container toolkit, CDI and forward compatibility: what the lock pins of them and what is said."""

from __future__ import annotations

import dataclasses

import pytest
import worlds

from provisioner.errors import BadInput
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.resolve import NoSolution, explain, solve
from provisioner.resolve.assume import read_assumption, what_if
from provisioner.resolve.explain_why import answer_text
from provisioner.resolve.question import read_question
from provisioner.resolve.why import why

OFFERED = worlds.host("debian-13", "rtx-4090", vendor={"toolkit": ["1.17.4", "1.19.1", "1.20.0"]})


def locked(facts: HostFacts, **request: object) -> HostLock:
    answer = solve(facts, Intent.model_validate(request), worlds.matrix())
    assert isinstance(answer, HostLock)
    return answer


def test_the_four_packages_of_the_toolkit_go_into_the_lock_in_one_version() -> None:
    unit = [p for p in locked(OFFERED).packages if p.unit == "toolkit"]

    assert {p.name for p in unit} == set(worlds.TOOLKIT)
    assert {p.version for p in unit} == {"1.20.0-1"}
    assert all(len(p.sha256) == 64 and p.hold for p in unit)


def test_a_toolkit_of_which_a_package_is_missing_is_not_offered() -> None:
    """Three packages of 1.20.0 are no toolkit 1.20.0: apt would mix versions or refuse."""
    offers = tuple(o for o in OFFERED.offers or () if (o.name, o.version) != ("libnvidia-container1", "1.20.0-1"))

    lock = locked(dataclasses.replace(OFFERED, offers=offers))

    assert lock.toolkit is not None
    assert lock.toolkit.value == "nvidia-container-toolkit 1.19.1-1"


def test_a_release_candidate_is_not_the_release() -> None:
    """1.19.1 mends CVE-2026-24260; whether its candidate did is not known."""
    facts = worlds.host("debian-13", "rtx-4090", vendor={"toolkit": ["1.19.1~rc.1"]})

    assert locked(facts).toolkit is None


def test_every_choice_is_explained() -> None:
    told = explain.choices(locked(OFFERED, networks=["lium"]))

    assert told[told.index("  runtime ") : told.index("  lium ")] == (
        "  runtime        docker.io 26.1.5+dfsg1-9+deb13u1+b1\n"
        "                 because: docker.io 26.1.5+dfsg1-9+deb13u1+b1 is the newest that debian-13 offers outside\n"
        "                          backports (host: packages)\n"
        "  toolkit        nvidia-container-toolkit 1.20.0-1\n"
        "                 because: nvidia-container-toolkit 1.20.0-1 is the newest sound one that this host's package\n"
        "                          sources offer (host: package sources)\n"
        "                 because: 1.20.0 has every fix that is known: 1.19.1 is the lowest without a published hole\n"
        "                          (runtimes/nvidia-container-toolkit, seen 2026-11-24)\n"
        "  CDI            absent\n"
        "                 because: Lium (Bittensor subnet 51) (lium 0.0.25) wants CDI specs absent (networks/lium, "
        "seen\n"
        "                          2026-11-24)\n"
    )


def test_forward_compatibility_is_explained_and_pinned() -> None:
    facts = worlds.host("debian-12", "a100-pcie-80gb", vendor={"cuda-compat-13-0": ["580.95.05"]})

    lock = locked(facts, cuda="13.0")

    assert [(p.name, p.version, p.hold) for p in lock.packages if p.unit == "compat"] == [
        ("cuda-compat-13-0", "580.95.05-1", True)
    ]
    assert lock.cuda is not None and lock.compat is not None
    assert [reason.text for reason in lock.cuda.because] == [
        "cuda-compat-13-0 carries CUDA 13.0 on driver 535.261.03, which by itself carries 12.2"
    ]
    assert [reason.text for reason in lock.compat.because][1:] == [
        "A100 PCIe 80GB can use forward compatibility, which a GeForce can't"
    ]


@pytest.mark.parametrize("inside", ["535.261.03", "535.216.03"])
def test_libraries_that_are_not_newer_than_the_driver_carry_nothing(inside: str) -> None:
    """A package for CUDA 12.4 with the libraries of driver 535 in it: whatever its name says, it stays off."""
    facts = worlds.host("debian-12", "a100-pcie-80gb", vendor={"cuda-compat-12-4": [inside]})

    answer = solve(facts, Intent(cuda="12.4", driver="535.261.03"), worlds.matrix())

    assert isinstance(answer, NoSolution)


@pytest.mark.parametrize(
    ("question", "facts", "request_", "expected"),
    [
        (
            "toolkit=1.17.4",
            OFFERED,
            {},
            "rig-01 can't have container toolkit 1.17.4.\n\n"
            "1. Container toolkit 1.17.4 has published holes (CVE-2026-24260, CVE-2025-23266, CVE-2025-23267); 1.19.1 "
            "mends\n"
            "   them all.\n"
            "   (runtimes/nvidia-container-toolkit, seen 2026-11-24)\n\n"
            "No single change of the request or this host allows it.\n\n"
            "Now      driver 550.163.01, CUDA 12.4, serves no network\n",
        ),
        (
            "toolkit=1.19.1",
            OFFERED,
            {},
            "rig-01 could have container toolkit 1.19.1. Why it is not chosen:\n\n"
            "   · nvidia-container-toolkit 1.19.1-1 would fit as well; nvidia-container-toolkit 1.20.0-1 comes first: "
            "it is\n"
            "     newer\n"
            "     (host: package sources)\n\n"
            'To have it: set provision_toolkit: "1.19.1" for rig-01, then provision resolve rig-01\n',
        ),
        (
            "cdi=present",
            OFFERED,
            {"networks": ["lium"]},
            "rig-01 can't have CDI specs present.\n\n"
            "1. Lium (Bittensor subnet 51) (lium 0.0.25) wants CDI specs absent.\n"
            "   (networks/lium, seen 2026-11-24)\n\n"
            "What would allow it, least downtime first:\n"
            "   a. serve without Lium (Bittensor subnet 51)  reboot  → driver 550.163.01, CUDA 12.4, serves no "
            "network\n\n"
            "Now      driver 550.163.01, CUDA 12.4, serves lium\n",
        ),
        (
            "cdi=present",
            worlds.host("debian-13", "rtx-4090"),
            {},
            "rig-01 can't have CDI specs present.\n\n"
            "1. For CDI specs present this host's package sources offer no sound container toolkit to write them.\n"
            "   (host: package sources; runtimes/nvidia-container-toolkit)\n\n"
            "No single change of the request or this host allows it.\n\n"
            "Now      driver 550.163.01, CUDA 12.4, serves no network\n",
        ),
        (
            "toolkit>=1.19.1",
            worlds.host("debian-13", "rtx-4090"),
            {},
            "rig-01 can't have container toolkit >=1.19.1.\n\n"
            "1. This host's package sources offer no container toolkit >=1.19.1; NVIDIA's repository for the "
            "container\n"
            "   toolkit would.\n"
            "   (host: package sources; runtimes/nvidia-container-toolkit)\n\n"
            "No single change of the request or this host allows it.\n\n"
            "Now      driver 550.163.01, CUDA 12.4, serves no network\n",
        ),
    ],
)
def test_whole_answers_for_one_value(
    question: str, facts: HostFacts, request_: dict[str, object], expected: str
) -> None:
    matrix = worlds.matrix()
    answer = why(facts, Intent.model_validate(request_), matrix, read_question(question, matrix))

    assert answer_text(answer, "provision resolve rig-01") == expected


def test_a_toolkit_and_cdi_can_be_assumed() -> None:
    matrix = worlds.matrix()
    bare = worlds.host("debian-13", "rtx-4090")

    would = what_if(bare, Intent(), [read_assumption(t, matrix) for t in ("toolkit=1.20.0", "cdi=present")], matrix)

    assert isinstance(would, HostLock) and would.toolkit is not None and would.cdi is not None
    assert (would.toolkit.value, would.cdi.value) == ("nvidia-container-toolkit 1.20.0-1", "present")
    assert would.packages == ()


@pytest.mark.parametrize("text", ["toolkit=none", "toolkit=new", "cdi=on", "runtime=nvidia-container-toolkit"])
def test_what_is_no_value_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_question(text, worlds.matrix())
    assert caught.value.reference == "question-not-read"


def test_a_toolkit_wish_that_cannot_be_read_is_bad_input() -> None:
    with pytest.raises(BadInput) as caught:
        solve(OFFERED, Intent(toolkit="new or so"), worlds.matrix())
    assert caught.value.reference == "toolkit-specifier"


def test_of_engines_that_are_there_the_networks_decide() -> None:
    """docker-ce is on the host and io.net takes any Docker: it stays, and nobody has to name it."""
    facts = worlds.host(
        "debian-12",
        "rtx-3090",
        installed={"docker-ce": "5:29.8.2-1~debian.12~bookworm"},
        vendor={"docker-ce": ["29.8.2"], "podman": ["4.3.1"]},
    )

    assert locked(facts, networks=["ionet"]).engine == "docker-ce"
    assert locked(facts, networks=["ionet"], runtime="docker-io").engine == "docker-io"
    assert locked(facts, runtime="podman").engine == "podman"


def test_why_no_other_engine() -> None:
    """Of each other engine that is offered: what stands against it, or why it comes later."""
    facts = worlds.host("debian-12", "rtx-a6000", vendor={"docker-ce": ["29.8.2"], "podman": ["4.3.1"]})

    def told(**request: object) -> list[str]:
        choice = locked(facts, **request).runtime
        assert choice is not None
        return [reason.text for reason in choice.not_newer]

    assert told() == [
        "podman 4.3.1-1 would fit as well; docker.io 20.10.24+dfsg1-1+deb12u1+b6 comes first: more networks take it",
        "docker-ce 5:29.8.2-1~debian.12~bookworm would fit as well; docker.io 20.10.24+dfsg1-1+deb12u1+b6 comes first: "
        "it is the distribution's own engine",
    ]
    assert told(networks=["compute-horde"]) == [
        "ComputeHorde (Bittensor subnet 12) (compute-horde-miner) wants runtime docker-ce"
    ]
