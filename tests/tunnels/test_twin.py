"""A tunnel rebuilt elsewhere: the fleet's wish and addresses, with the keys and the hub of that place."""

from __future__ import annotations

import base64

from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.model.tunnel import Tunnel, TunnelLock
from provisioner.tunnels import twin
from provisioner.tunnels.kinds import tunnel_resources
from tests.world import entry

WISH = Tunnel(kind="wireguard", hub="hub-01", mtu=1400, confirm_s=60, ingress="tunnel")
FLEET = TunnelLock(
    kind="wireguard",
    role="spoke",
    host="rig-07",
    address="10.87.0.9",
    range="10.87.0.0/24",
    hub="hub-01",
    hub_address="10.87.0.1",
    public_key="real",
    generation=3,
    admit=("tcp/22", "tcp/8080"),
)


def spoke() -> HostLock:
    return entry(intent=Intent(networks=("akash",), tunnel=WISH), tunnel=FLEET)


def key(byte: int) -> str:
    return base64.b64encode(bytes([byte] * 32)).decode()


def test_before_the_keys_are_made_both_wait() -> None:
    found = twin.joined("rig", spoke(), {}, {}, kernel_module=False)

    assert not any(one.complete for one in found.values())
    assert {one.userspace for one in found.values()} == {True}
    assert tunnel_resources(spoke().model_copy(update={"tunnel": found["rig"]}))


def test_with_keys_they_are_joined_at_the_fleets_addresses() -> None:
    keys = {"rig": key(1), "hub": key(2)}
    found = twin.joined(
        "rig", spoke(), keys, twin.joined("rig", spoke(), {}, {}, kernel_module=False), kernel_module=False
    )
    rig, hub = found["rig"], found["hub"]

    assert (rig.address, hub.address, hub.range) == ("10.87.0.9", "10.87.0.1", "10.87.0.0/24")
    assert (rig.public_key, rig.generation) == (key(1), 1)  # nothing of the fleet's own keys
    assert [(peer.host, peer.public_key, peer.endpoint) for peer in rig.peers] == [("hub", key(2), "hub:51820")]
    assert [(peer.host, peer.allowed) for peer in hub.peers] == [("rig", ("10.87.0.9/32",))]
    assert rig.admit == ("tcp/22", "tcp/8080")
    assert rig.mtu == 1400
    assert rig.complete
    assert hub.complete


def test_asked_again_it_is_the_same() -> None:
    """An upgrade that leaves the tunnel alone must not meet another one."""
    keys = {"rig": key(1), "hub": key(2)}
    first = twin.joined("rig", spoke(), keys, {}, kernel_module=False)

    assert twin.joined("rig", spoke(), keys, first, kernel_module=False) == first


def test_the_hub_is_a_host_with_nothing_but_its_end() -> None:
    found = twin.joined("rig", spoke(), {"rig": key(1), "hub": key(2)}, {}, kernel_module=False)
    hub = twin.hub_entry("debian-12", found["hub"])

    assert hub.intent.tunnel.role == "hub"
    assert hub.packages == ()
    assert tunnel_resources(hub)
    assert twin.hub_entry("debian-12", None).tunnel is None


def test_the_wish_names_the_hub_of_that_place_and_keeps_the_rest() -> None:
    assert twin.wish_of(spoke()) == WISH.model_copy(update={"hub": "hub"})
    assert twin.wish_of(entry()) == Tunnel()
