"""The part of resolve that joins hosts: what they are asked, whose keys count, who stays joined unseen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from provisioner.actions.observe import Seen
from provisioner.actions.tunnels import join, request_of
from provisioner.errors import BadInput
from provisioner.matrix.reader import load
from provisioner.model.facts import Route, TunnelFacts
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import HostLock, Lock
from provisioner.tunnels.assign import Member
from provisioner.tunnels.lock import removed, rotated
from tests.tunnel_world import hub, key, spoke
from tests.world import entry, fitting_capture, fitting_facts

MATRIX = load()


def seen(member: Member, **facts: object) -> Seen:
    host = InventoryHost(member.host, {}, Intent(tunnel=member.wish))
    shown = {"/etc/wireguard/prov0.pub": key(member.host) + "\n"}
    tunnel = replace(TunnelFacts(public_keys=shown, routes=(Route("192.168.1.0/24", "eth0"),)), **facts)  # type: ignore[arg-type]
    return Seen(host, fitting_capture(entry(), member.host), replace(fitting_facts(entry()), tunnel=tunnel))


def stack(member: Member) -> HostLock:
    return entry(intent=Intent(tunnel=member.wish), networks={})


def joined(*members: Member, before: Lock | None = None, resolves: bool = True, **facts: object) -> Lock:
    looks = {m.host: seen(m, **facts) for m in members}
    mine, theirs = join(looks, {m.host: stack(m) for m in members}, before, MATRIX, lambda _name: resolves)
    others = {n: e for n, e in (theirs.hosts if theirs is not None else {}).items() if n not in mine}
    parked = theirs.tunnels if theirs is not None else {}
    return Lock(made_by="x", matrix="m", hosts={**others, **mine}, tunnels=parked)


def tunnel_of(lock: Lock, name: str):  # type: ignore[no-untyped-def]
    tunnel = lock.hosts[name].tunnel
    assert tunnel is not None
    return tunnel


def test_a_spoke_measures_the_way_to_its_hub_and_a_hub_does_not() -> None:
    hosts = [InventoryHost(m.host, {}, Intent(tunnel=m.wish)) for m in (hub(), spoke("rig-01"))]

    assert request_of(hosts[0], hosts, None).asked == ()
    (command,) = request_of(hosts[1], hosts, None).asked
    assert command.line.startswith("h=203.0.113.1;") and command.shell


def test_keys_come_from_the_hosts_themselves() -> None:
    lock = joined(hub(), spoke("rig-01"))

    assert tunnel_of(lock, "rig-01").public_key == key("rig-01")
    assert [p.public_key for p in tunnel_of(lock, "hub").peers] == [key("rig-01")]


def test_a_host_that_is_not_looked_at_stays_joined() -> None:
    """To leave it out of its hub's peers would cut it off."""
    both = joined(hub(), spoke("rig-01"))
    again = joined(hub(), before=both)
    third = joined(spoke("rig-02"), before=again)

    assert [p.host for p in tunnel_of(third, "hub").peers] == ["rig-01", "rig-02"]
    assert tunnel_of(third, "rig-01") == tunnel_of(both, "rig-01")


def test_an_endpoint_that_nobody_can_resolve_is_refused() -> None:
    named = hub(wish={"endpoint": "no.such.host.invalid:51820"})

    with pytest.raises(BadInput, match=r"the endpoint of hub, no\.such\.host\.invalid:51820, does not resolve"):
        joined(named, spoke("rig-01"), resolves=False)
    assert joined(named, spoke("rig-01"), resolves=False, path_mtu=1500)  # the rig found it: a name of its own resolver


def test_a_wrong_name_is_said_before_any_key_is_made() -> None:
    """Nobody's key is known at the first resolve, and the wrong name would be in force by the second."""
    named = hub(wish={"endpoint": "no.such.host.invalid:51820"})

    with pytest.raises(BadInput, match="does not resolve"):
        joined(named, spoke("rig-01"), resolves=False, public_keys={})


def test_routes_of_the_hosts_are_compared_with_the_range() -> None:
    with pytest.raises(BadInput, match="overlap"):
        joined(hub(), spoke("rig-01"), routes=(Route("10.87.0.0/16", "br0"),))


def test_a_host_that_wants_no_tunnel_any_more_is_to_lose_it() -> None:
    plain = Member("rig-01", Intent().tunnel)

    assert joined(plain, interface_mtu=1420).hosts["rig-01"].tunnel.kind == "none"  # type: ignore[union-attr]
    assert joined(plain, interface_mtu=None).hosts["rig-01"].tunnel is None


def test_taking_a_host_out_leaves_the_others_as_they_are_and_can_be_done_once() -> None:
    lock = joined(hub(), spoke("rig-01"), spoke("rig-02"))
    without = removed(lock, "rig-01")

    assert [p.host for p in tunnel_of(without, "hub").peers] == ["rig-02"]
    assert without.hosts["rig-02"] == lock.hosts["rig-02"]
    with pytest.raises(BadInput, match="rig-01 is in no tunnel of the lock; it may have been removed before"):
        removed(without, "rig-01")


def test_a_hub_with_spokes_is_not_taken_out() -> None:
    with pytest.raises(BadInput, match="hub is the hub of rig-01, who would lose their only way"):
        removed(joined(hub(), spoke("rig-01")), "hub")


def test_a_rotation_is_asked_for_once_at_a_time() -> None:
    lock = rotated(joined(hub(), spoke("rig-01")), "rig-01")

    assert (tunnel_of(lock, "rig-01").generation, tunnel_of(lock, "rig-01").next_generation) == (1, 2)
    with pytest.raises(BadInput, match="rig-01 is to make a new key already"):
        rotated(lock, "rig-01")
