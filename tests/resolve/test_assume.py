"""What-if: what each assumption makes of facts and request, and that nothing is assumed silently."""

from __future__ import annotations

import itertools

import pytest
import worlds

from provisioner.errors import BadInput
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.resolve import NoSolution, explain, solve
from provisioner.resolve.assume import assume, read_assumption, what_if
from provisioner.resolve.explain_assume import heading

FACTS = worlds.host("debian-12", "rtx-3090", "gtx-1080")


def would(*texts: str, facts: HostFacts = FACTS, **intent: object) -> HostLock | NoSolution:
    matrix = worlds.matrix()
    return what_if(facts, Intent.model_validate(intent), [read_assumption(t, matrix) for t in texts], matrix)


def stack(*texts: str, facts: HostFacts = FACTS, **intent: object) -> tuple[object, ...]:
    found = would(*texts, facts=facts, **intent)
    assert isinstance(found, HostLock)
    driver = found.driver_version.value if found.driver_version is not None else None
    return found.os, found.gpus, driver, {name: choice.value for name, choice in found.networks.items()}


BOTH = ("rtx-3090", "gtx-1080")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], ("debian-12", BOTH, "535.261.03", {})),
        (["os=debian-13"], ("debian-13", BOTH, "550.163.01", {})),
        (["os=debian-13", "driver=535"], ("debian-13", BOTH, "535.274.02", {})),
        (["os=ubuntu-24.04", "runtime=docker-ce"], ("ubuntu-24.04", BOTH, "580.178.04", {})),
        (["gpu-=1"], ("debian-12", ("rtx-3090",), "535.261.03", {})),
        (["gpu-=0", "gpu-=1"], ("debian-12", (), None, {})),
        (["gpu-=gtx-1080"], ("debian-12", ("rtx-3090",), "535.261.03", {})),
        (["gpu-=0000:01:00.0", "gpu+=rtx-4090"], ("debian-12", ("gtx-1080", "rtx-4090"), "535.261.03", {})),
        (["driver=580"], ("debian-12", BOTH, "580.178.04", {})),
        (["driver=580.95.05"], ("debian-12", BOTH, "580.95.05", {})),
        (["driver=535"], ("debian-12", BOTH, "535.261.03", {})),
        (["lium=0.0.25"], ("debian-12", BOTH, "535.261.03", {"lium": "0.0.25"})),
        (["network+=lium"], ("debian-12", BOTH, "535.261.03", {"lium": "0.0.25"})),
    ],
)
def test_the_stack_that_a_host_would_have(texts: list[str], expected: tuple[object, ...]) -> None:
    assert stack(*texts) == expected


def test_a_client_is_pinned_where_the_network_is_served_already() -> None:
    facts = worlds.host("debian-12", "rtx-3090")

    assert stack("akash=0.16.1", facts=facts, networks=["akash"])[3] == {"akash": "0.16.1"}
    assert stack("network-=akash", facts=facts, networks=["akash"])[3] == {}


def test_a_component_that_is_not_enabled_would_bring_the_driver() -> None:
    bare = worlds.host("debian-12", "rtx-3090", components=("main",))
    assert isinstance(solve(bare, Intent(), worlds.matrix()), NoSolution)

    each = [f"components+={c}" for c in ("contrib", "non-free", "non-free-firmware")]

    assert stack(*each, facts=bare)[2] == "535.309.01"


def test_what_would_not_work_is_explained_in_full() -> None:
    answer = would("gpu+=rtx-5090", facts=worlds.host("debian-12", "rtx-3090"))

    assert isinstance(answer, NoSolution)
    assert explain.no_solution("rig-01", answer, assumed=True) == (
        "error: no set of versions serves rig-01                                                    "
        "[unresolvable-host]\n\n"
        "One reason:\n\n"
        "1. No driver that this host is offered drives GeForce RTX 5090.\n"
        "   · GeForce RTX 5090 (Blackwell architecture, compute capability 12.0) is driven by no branch before 570\n"
        "     (gpus/rtx-5090, seen 2026-11-24; architectures/blackwell, seen 2026-11-24)\n"
        "   · this host's package sources (debian-12, main contrib non-free non-free-firmware) offer driver "
        "470.256.02,\n"
        "     535.216.03, 535.261.03 and no other\n"
        "     (host: package sources)\n\n"
        "What would work, least downtime first:\n"
        "   a. add the NVIDIA CUDA repository (nvidia-cuda) to the package sources\n"
        "      reboot      → driver 620.70.06, CUDA 13.5, serves no network (as the matrix lists its packages)\n"
        "   b. take out GeForce RTX 5090 in slot assumed-1\n"
        "      at the rig  → driver 535.261.03, CUDA 12.2, serves no network\n\n"
        "To do a: change provision_policy.sources of rig-01 in the inventory, then provision resolve rig-01\n"
    )


def test_the_order_of_the_words_does_not_count() -> None:
    """Another release takes away what was on the host; said last it must not take away what was assumed before."""
    texts = ("os=debian-13", "driver=580", "gpu-=1", "network+=lium")

    answers = {repr(stack(*order)) for order in itertools.permutations(texts)}

    assert answers == {repr(("debian-13", ("rtx-3090",), "580.173.02", {"lium": "0.0.25"}))}  # too new: 580.178.04


def test_nothing_is_changed_in_what_was_seen() -> None:
    before = repr(FACTS)
    would("os=debian-13", "gpu-=0", "driver=580", "network+=lium")

    assert repr(FACTS) == before


def test_a_stack_that_was_assumed_names_no_packages() -> None:
    found = would("driver=580")

    assert isinstance(found, HostLock)
    assert found.packages == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("os", "this is no assumption"),
        ("os=debian-99", "the matrix has no release 'debian-99'"),
        ("os+=debian-13", "os takes ="),
        ("gpu=rtx-5090", "gpu takes += or -="),
        ("gpu+=rtx-9999", "the matrix has no card with a known PCI id 'rtx-9999'"),
        ("components=non-free", "components takes +="),
        ("components+=nonfree", "the matrix has no component 'nonfree'"),
        ("driver=five", "driver=five: "),
        ("akahs=0.16.2", "'akahs' is nothing that is chosen for a host"),
        ("runtime=rocket", "runtime=rocket: the matrix has no such runtime"),
    ],
)
def test_a_bad_assumption_is_bad_input(text: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_assumption(text, worlds.matrix())

    assert caught.value.message.startswith(f"--assume {text}: {said}")
    assert caught.value.reference == "assumption-not-read"


def test_a_network_that_nobody_knows_is_bad_input() -> None:
    with pytest.raises(BadInput, match="there is no network 'akahs'"):
        read_assumption("network+=akahs", worlds.matrix())


@pytest.mark.parametrize(("text", "reference"), [("gpu-=2", "no-such-card"), ("network-=akash", "no-such-network")])
def test_what_is_not_there_cannot_be_taken_away(text: str, reference: str) -> None:
    matrix = worlds.matrix()

    with pytest.raises(BadInput) as caught:
        assume(FACTS, Intent(), [read_assumption(text, matrix)], matrix)

    assert caught.value.reference == reference


def test_every_kind_of_assumption_has_words() -> None:
    texts = (
        "os=debian-13", "components+=non-free", "gpu+=rtx-5090", "gpu-=0", "runtime=podman", "toolkit=1.19.1",
        "cdi=present", "network+=akash",
        "network-=lium", "akash=0.16.2", "driver=580", "cuda=13.0", "modules=open",
    )  # fmt: skip

    assert heading([read_assumption(text, worlds.matrix()) for text in texts]) == [
        "WHAT IF, and it is not so:",
        "   · the host runs debian-13, freshly installed, with its archive as the matrix lists it",
        "   · component non-free is enabled in the package sources",
        "   · there is one rtx-5090 more",
        "   · GPU 0 is taken out",
        "   · the request asks for podman, and it is offered",
        "   · the request demands container toolkit 1.19.1, and it is offered",
        "   · the request asks for CDI specs present",
        "   · the request names akash too",
        "   · the request does not name lium",
        "   · the request names akash with client 0.16.2",
        "   · the request asks for driver 580, and those that the matrix knows are offered",
        "   · the request asks for CUDA 13.0 or higher",
        "   · the request asks for open kernel modules",
        "",
    ]
