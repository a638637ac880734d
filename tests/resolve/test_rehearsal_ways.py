"""Which upgrades are rehearsed: each distinct way between two locks once, whatever the number of hosts."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from provisioner.model.intent import ClientContainer, Intent, Policy
from provisioner.model.stack import Choice, HostLock, Lock, Reason
from provisioner.model.tunnel import Tunnel, TunnelLock
from provisioner.resolve.rehearsal import stack_print, stack_words, ways
from tests.world import SOURCE, entry, locked

NEW = "535.274.02"


def lock(**hosts: HostLock) -> Lock:
    return Lock(made_by="0.1.0", matrix="0" * 64, hosts=hosts)


def upgraded(**changes: Any) -> HostLock:
    return entry(driver_version=Choice(value=NEW), packages=(locked("nvidia-smi", f"{NEW}-1"),), **changes)


def test_a_thousand_hosts_with_twelve_stacks_are_twelve_cases() -> None:
    """The number of hosts changes the work by nothing."""
    cards = [f"card-{number}" for number in range(12)]
    before = lock(**{f"rig-{n:04}": entry(gpus=(cards[n % 12],)) for n in range(1000)})
    after = lock(**{f"rig-{n:04}": upgraded(gpus=(cards[n % 12],)) for n in range(1000)})

    found = ways(before, after)

    assert len(found.cases) == 12
    assert sum(len(case.hosts) for case in found.cases) == 1000
    assert found.cases[0].hosts[:2] == ("rig-0000", "rig-0012")


def test_words_numbers_of_cards_and_requests_that_say_the_same_make_no_case_of_their_own() -> None:
    """Reasons are told anew by each resolve; a second card or `driver: 535` in the request changes nothing."""
    told = entry(gpus=("rtx-3090", "rtx-3090"), driver_branch=Choice(value="535", because=(Reason(text="said anew"),)))
    asked = entry(intent=Intent(networks=("akash",), driver="535"))

    assert stack_print(told) == stack_print(entry()) == stack_print(asked)
    assert ways(lock(a=entry()), lock(a=told)).unchanged == ("a",)


def test_all_that_an_upgrade_can_meet_makes_a_case() -> None:
    others = [
        entry(os="debian-11"),
        entry(gpus=("rtx-4090",)),
        entry(kernels=("6.1.0-51-amd64",)),
        entry(modules=Choice(value="open")),
        entry(module_options=("options nvidia a=1",)),
        entry(networks={"akash": Choice(value="0.16.3")}),
        entry(intent=Intent(networks=("akash", "lium"))),
        entry(intent=Intent(networks=("akash",), policy=Policy(reboot="never"))),
        entry(toolkit=Choice(value="1.19.1")),
        entry(default_runtime="nvidia"),
        entry(sources=(SOURCE,)),
        entry(intent=Intent(networks=("akash",), clients=(client("a"),))),
        entry(intent=Intent(networks=("akash",), clients=(client("b"),))),
        entry(intent=spoke("10.87.0.2")),
        upgraded(),
    ]

    assert len({stack_print(other) for other in (*others, entry())}) == len(others) + 1


def client(digit: str) -> ClientContainer:
    return ClientContainer(network="akash", image=f"example/provider@sha256:{digit * 64}")


def spoke(address: str, hub: str = "hub-01") -> Intent:
    return Intent(networks=("akash",), tunnel=Tunnel(kind="wireguard", hub=hub, address=address))


def test_addresses_and_keys_of_tunnels_make_no_case_of_their_own() -> None:
    """Every host has its own; a rehearsal brings its own hub and keys."""
    one = entry(intent=spoke("10.87.0.2"), tunnel=TunnelLock(kind="wireguard", role="spoke", address="10.87.0.2"))
    two = entry(intent=spoke("10.88.0.9", "hub-02"), tunnel=TunnelLock(kind="wireguard", role="spoke", public_key="x"))

    assert stack_print(one) == stack_print(two) != stack_print(entry())
    assert stack_words(one) == "driver 535.261.03, docker-io, akash, tunnel by wireguard"


def test_new_and_lost_hosts() -> None:
    """A host that only the candidate has comes from nothing; one that it has lost is told, and not rehearsed."""
    found = ways(lock(a=entry(), gone=entry()), lock(a=entry(), new=upgraded()))

    assert [(case.hosts, case.before) for case in found.cases] == [(("new",), None)]
    assert found.unchanged == ("a",)
    assert found.gone == ("gone",)
    assert stack_words(None) == "nothing yet"
    assert stack_words(entry()) == "driver 535.261.03, docker-io, akash"


def test_the_id_is_of_the_two_stacks_alone() -> None:
    """Other hosts on the same way, other reasons: what passed stays passed."""
    one = ways(lock(a=entry()), lock(a=upgraded())).cases[0]
    two = ways(lock(b=entry(), c=entry()), lock(b=upgraded(), c=upgraded())).cases[0]
    back = ways(lock(a=upgraded()), lock(a=entry())).cases[0]

    assert one.id == two.id != back.id
    assert one.name == "debian-12-rtx-3090-535.261.03-to-535.274.02-" + one.id[:4]


def test_a_way_is_named_after_what_moves_first() -> None:
    """`none-packages` would say nothing to anybody."""
    bare: dict[str, Any] = {"gpus": (), "driver_version": None, "modules": None}
    containerd, docker = Choice(value="containerd 1.6.20"), Choice(value="docker.io 20.10.24")
    before = lock(a=entry(**bare, runtime=containerd), b=entry(**bare), d=entry())
    after = lock(
        a=entry(**bare, runtime=docker),
        b=entry(**bare, packages=()),
        c=upgraded(),
        d=entry(modules=Choice(value="open")),
    )

    assert sorted(case.name.rpartition("-")[0] for case in ways(before, after).cases) == [
        "debian-12-no-gpu-containerd-to-docker-io",
        "debian-12-no-gpu-no-driver-packages",
        "debian-12-rtx-3090-535.261.03-to-535.261.03-open",
        "debian-12-rtx-3090-new-to-535.274.02",
    ]


STACKS = st.sampled_from([entry(), upgraded(), entry(gpus=("a",)), upgraded(gpus=("a",)), entry(os="debian-13")])


@given(st.dictionaries(st.sampled_from("abcdef"), STACKS), st.dictionaries(st.sampled_from("abcdef"), STACKS))
def test_every_host_of_the_candidate_is_in_one_place(before: dict[str, HostLock], after: dict[str, HostLock]) -> None:
    """In exactly one case, with the two entries it really has, or among the unchanged."""
    found = ways(lock(**before), lock(**after))

    placed = [name for case in found.cases for name in case.hosts] + list(found.unchanged)
    assert sorted(placed) == sorted(after)
    for case in found.cases:
        for name in case.hosts:
            old = before.get(name)
            assert (old is None) == (case.before is None)
            assert case.before is None or (old is not None and stack_print(case.before) == stack_print(old))
            assert stack_print(case.after) == stack_print(after[name])
    assert len({case.id for case in found.cases}) == len(found.cases)
