"""Addresses, peers and what cannot work: from wishes, former lock and keys to each host's tunnel."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.errors import BadInput
from provisioner.model.tunnel import Tunnel, TunnelLock
from provisioner.tunnels.assign import Member, assign
from tests.tunnel_world import hub, key, site, spoke


def again(member: Member, found: dict[str, TunnelLock]) -> Member:
    """The same host at the next resolve, with what the lock says now."""
    return replace(member, before=found[member.host])


def test_hub_and_spokes_know_only_each_other() -> None:
    """A spoke may be sent the hub's address alone, the hub each spoke's own."""
    found = assign([hub(), spoke("rig-01"), spoke("rig-02")])

    assert {name: lock.address for name, lock in found.items()} == {
        "hub": "10.87.0.1",
        "rig-01": "10.87.0.2",
        "rig-02": "10.87.0.3",
    }
    (far,) = found["rig-01"].peers
    assert (far.host, far.allowed, far.endpoint, far.keepalive) == ("hub", ("10.87.0.1/32",), "203.0.113.1:51820", 25)
    assert [(p.host, p.allowed, p.endpoint) for p in found["hub"].peers] == [
        ("rig-01", ("10.87.0.2/32",), None),
        ("rig-02", ("10.87.0.3/32",), None),
    ]


def test_a_hub_admits_nothing_from_its_spokes_and_a_spoke_only_ssh() -> None:
    found = assign([hub(), spoke("rig-01", ssh_port=2222, ports=("tcp/8080",))])

    assert (found["hub"].admit, found["rig-01"].admit) == ((), ("tcp/2222",))


def test_customers_by_the_tunnel_admit_the_networks_ports_and_forward_them() -> None:
    rig = spoke("rig-01", wish={"ingress": "tunnel"}, ports=("tcp/8080", "udp/30000-32767"))
    found = assign([hub(), rig])

    assert found["rig-01"].admit == ("tcp/22", "tcp/8080", "udp/30000-32767")
    assert [(f.address, f.protocol, f.ports) for f in found["hub"].forwards] == [
        ("10.87.0.2", "tcp", "8080"),
        ("10.87.0.2", "udp", "30000-32767"),
    ]


def test_two_spokes_that_want_one_public_port_are_refused() -> None:
    rigs = [spoke(n, wish={"ingress": "tunnel"}, ports=(p,)) for n, p in (("a", "tcp/8000-8100"), ("b", "tcp/8080"))]

    with pytest.raises(BadInput, match="a and b both want tcp port 8080 of their hub") as problem:
        assign([hub(), *rigs])
    assert problem.value.reference == "tunnel-port-twice"


@given(st.permutations([f"rig-{n:02}" for n in range(6)]), st.sets(st.integers(0, 5)), st.integers(1, 5))
def test_addresses_stay_whoever_comes_and_goes(names: list[str], gone: set[int], count: int) -> None:
    """Whatever the order, and whoever is not looked at or new, an address once given stays and is nobody else's."""
    first = assign([hub(), *(spoke(name) for name in names[:count])])
    stay = [name for place, name in enumerate(names[:count]) if place not in gone]
    second = assign([again(hub(), first), *(again(spoke(n), first) for n in stay), *(spoke(n) for n in names[count:])])

    assert all(second[name].address == first[name].address for name in ["hub", *stay])
    addresses = [lock.address for lock in second.values()]
    assert len(set(addresses)) == len(addresses)
    assert all(ipaddress.ip_address(a) in ipaddress.ip_network("10.87.0.0/24") for a in addresses)


def test_the_same_members_give_the_same_answer() -> None:
    members = [hub(), spoke("b"), spoke("a")]
    found = assign(members)

    assert assign([again(m, found) for m in members]) == found
    assert found["a"].address == "10.87.0.2"


def test_an_address_asked_for_is_given_and_goes_around_nobody() -> None:
    found = assign([hub(), spoke("a"), spoke("b", wish={"address": "10.87.0.2"})])

    assert (found["a"].address, found["b"].address) == ("10.87.0.3", "10.87.0.2")


def test_one_address_for_two_is_refused() -> None:
    rigs = [spoke(name, wish={"address": "10.87.0.9"}) for name in ("a", "b")]

    with pytest.raises(BadInput, match="a and b both have the address") as problem:
        assign([hub(), *rigs])
    assert problem.value.reference == "tunnel-address-twice"


def test_a_full_range_says_whom_it_has_no_room_for() -> None:
    with pytest.raises(BadInput, match="c: the range") as problem:
        assign([hub(range_="10.87.0.0/30"), spoke("b"), spoke("c")])
    assert problem.value.reference == "tunnel-range-full"
    assert "provision tunnel remove" in (problem.value.hint or "")


def test_two_hosts_with_one_key_are_refused() -> None:
    """The disk of one was copied to the other."""
    with pytest.raises(BadInput, match="a and b have the same wireguard key") as problem:
        assign([hub(), spoke("a"), spoke("b", keys={1: key("a")})])
    assert problem.value.reference == "tunnel-key-twice"
    assert "sudo rm /etc/wireguard/prov0.key /etc/wireguard/prov0.pub" in (problem.value.hint or "")


def test_a_copied_key_that_was_made_anew_is_no_trouble_any_more() -> None:
    """What the error says to type leads out of it, whether the lock has the copy or not."""
    before = assign([hub(), spoke("a"), spoke("b")])
    copied = before["b"].model_copy(update={"public_key": key("a")})
    with pytest.raises(BadInput) as problem:
        assign([hub(), spoke("a", before=before["a"]), spoke("b", before=copied, keys={1: key("a")})])
    assert "provision tunnel rotate b" in (problem.value.hint or "")

    asked = copied.model_copy(update={"next_generation": 2})
    both = {1: key("a"), 2: key("b anew")}
    found = assign([hub(), spoke("a", before=before["a"]), spoke("b", before=asked, keys=both)])
    assert found["b"].public_key == key("b anew")


@pytest.mark.parametrize(
    ("routed", "line"),
    [
        ((("10.87.0.0/16", "eth0"),), "10.87.0.0/24 overlaps 10.87.0.0/16 (eth0)"),
        ((("10.87.0.128/25", "docker0"),), "10.87.0.0/24 overlaps 10.87.0.128/25 (docker0)"),
    ],
)
def test_a_range_that_the_host_routes_already_is_refused(routed: tuple[tuple[str, str], ...], line: str) -> None:
    with pytest.raises(BadInput) as problem:
        assign([hub(), spoke("a", routed=routed)])
    assert (problem.value.reference, problem.value.context) == ("tunnel-range-overlaps", (line,))


@pytest.mark.parametrize("text", ["172.17.4.0/24", "10.42.9.0/24", "10.43.0.0/24", "10.233.64.0/24"])
def test_a_range_of_docker_or_kubernetes_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="overlap"):
        assign([hub(range_=text), spoke("a")])


def test_a_default_route_stands_in_nobodys_way() -> None:
    assert assign([hub(), spoke("a", routed=(("0.0.0.0/0", "eth0"), ("192.168.1.0/24", "eth0")))])


def test_two_hubs_with_ranges_that_overlap_are_refused() -> None:
    with pytest.raises(BadInput, match="two tunnels have networks that overlap"):
        assign([hub(), hub("hub-2", "10.87.0.128/25")])


def test_an_unknown_hub_and_one_that_is_none_are_refused() -> None:
    with pytest.raises(BadInput, match="a: its hub nobody is not among the hosts"):
        assign([hub(), spoke("a", "nobody")])
    with pytest.raises(BadInput, match="a: its hub b is no wireguard hub"):
        assign([hub(), spoke("a", "b"), spoke("b")])


def test_a_key_that_nobody_has_seen_is_waited_for() -> None:
    """The hub is complete without it, the spoke waits for its own key, and the hub has no peer yet."""
    found = assign([hub(), spoke("a", keys=None)])

    assert found["hub"].waits_for == ("a",)
    assert not found["a"].complete
    assert found["hub"].peers == ()


def test_a_new_key_takes_the_place_of_the_old_one_only_when_its_host_shows_it() -> None:
    first = assign([hub(), spoke("a")])
    asked = first["a"].model_copy(update={"next_generation": 2})

    waiting = assign([again(hub(), first), replace(spoke("a"), before=asked)])
    done = assign([again(hub(), first), spoke("a", keys={1: key("a"), 2: key("a2")}, before=asked)])

    assert (waiting["a"].generation, waiting["a"].next_generation, waiting["a"].public_key) == (1, 2, key("a"))
    assert (done["a"].generation, done["a"].next_generation, done["a"].public_key) == (2, None, key("a2"))
    assert done["hub"].peers[0].public_key == key("a2")


def test_the_mtu_follows_the_path_and_the_addresses_outside() -> None:
    """1500 bytes over IPv4 leave 1440, over IPv6 1420, a name may be either; nothing measured is 1280."""
    four = assign([hub(), spoke("a", path_mtu=1500), spoke("b")])
    six = assign([hub(wish={"endpoint": "[2001:db8::1]:51820"}), spoke("a", path_mtu=1500)])
    name = assign([hub(wish={"endpoint": "hub.example:51820"}), spoke("a", path_mtu=1380)])

    assert (four["a"].mtu, four["b"].mtu, four["hub"].mtu) == (1440, 1280, 1280)
    assert (six["a"].mtu, name["a"].mtu) == (1420, 1300)


def test_ipv6_inside() -> None:
    """One address of 128 bits each; no MTU below 1280, however narrow the path: what is larger is cut outside."""
    found = assign([hub(range_="fd87::/64"), spoke("a", path_mtu=1500), spoke("b", path_mtu=1300)])

    assert [found[name].address for name in ("hub", "a", "b")] == ["fd87::1", "fd87::2", "fd87::3"]
    assert found["a"].peers[0].allowed == ("fd87::1/128",)
    assert [found[name].mtu for name in ("a", "b", "hub")] == [1440, 1280, 1280]


def test_what_ipv6_inside_cannot_do_is_said() -> None:
    with pytest.raises(BadInput, match="mtu 1200 is less than IPv6 takes") as problem:
        assign([hub(range_="fd87::/64"), spoke("a", wish={"mtu": 1200})])
    assert problem.value.reference == "tunnel-mtu-too-small"

    with pytest.raises(BadInput, match="its customers come by IPv4") as problem:
        assign([hub(range_="fd87::/64"), spoke("a", wish={"ingress": "tunnel"}, ports=("tcp/8080",))])
    assert problem.value.reference == "tunnel-ingress-version"


def test_sites_know_one_another_and_each_others_lans() -> None:
    found = assign(
        [
            site("a", "203.0.113.1:51820", wish={"lans": ["192.168.7.0/24"]}),
            site("b", None, wish={"lans": ["192.168.8.0/24"]}),
        ]
    )

    (far,) = found["b"].peers
    assert (far.allowed, far.endpoint) == (("10.88.0.1/32", "192.168.7.0/24"), "203.0.113.1:51820")
    (back,) = found["a"].peers
    assert (back.allowed, back.endpoint, back.keepalive) == (("10.88.0.2/32", "192.168.8.0/24"), None, 0)


def test_two_sites_without_an_endpoint_cannot_find_each_other() -> None:
    with pytest.raises(BadInput, match="neither site says where it is reached"):
        assign([site("a", None), site("b", None)])


def test_a_lan_on_both_sides_is_refused() -> None:
    with pytest.raises(BadInput, match="overlap"):
        assign([site(n, f"203.0.113.{i}:51820", wish={"lans": ["192.168.1.0/24"]}) for i, n in ((1, "a"), (2, "b"))])


def test_reverse_tunnels_have_ports_that_stay() -> None:
    wish = {"kind": "ssh-reverse", "role": "hub", "endpoint": "203.0.113.1:22"}
    far = Member("hub", Tunnel.model_validate(wish), keys={1: "ssh-ed25519 AAAA"})
    rigs = [
        Member(n, Tunnel.model_validate({"kind": "ssh-reverse", "hub": "hub"}), keys={1: f"ssh-ed25519 {n}"})
        for n in ("b", "c")
    ]
    first = assign([far, *rigs])
    newer = Member("a", rigs[0].wish, keys={1: "ssh-ed25519 a"})
    second = assign([again(far, first), *(again(r, first) for r in rigs), newer])

    assert [first[n].port for n in ("b", "c")] == [22001, 22002]
    assert [second[n].port for n in ("a", "b", "c")] == [22003, 22001, 22002]
    assert {p.host: p.allowed for p in second["hub"].peers}["a"] == ("127.0.0.1:22003",)
