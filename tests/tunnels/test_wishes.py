"""What an operator may write in provision_tunnel, and what is said when it does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from provisioner.adapters.inventory import intent_of
from provisioner.errors import BadInput
from provisioner.model.tunnel import Tunnel, split_endpoint


def test_a_word_is_the_kind_alone() -> None:
    assert Tunnel.model_validate("none") == Tunnel()


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"kind": "wireguard"}, "a wireguard spoke names its hub"),
        ({"kind": "wireguard", "role": "hub", "range": "10.87.0.0/24"}, "names where it is reached"),
        ({"kind": "wireguard", "role": "hub", "endpoint": "h:1"}, "names the network of the tunnel"),
        ({"kind": "wireguard", "hub": "h", "address": "10.87.0"}, "does not appear to be an IPv4 or IPv6 address"),
        ({"kind": "wireguard", "role": "hub", "endpoint": "h:1", "range": "10.87.0.1/24"}, "has host bits set"),
        ({"kind": "wireguard", "role": "hub", "endpoint": "h", "range": "10.87.0.0/24"}, "has no port"),
        ({"kind": "wireguard", "role": "hub", "endpoint": "2001:db8::1:51820", "range": "10.87.0.0/24"}, "brackets"),
        ({"kind": "wireguard", "role": "site", "mesh": "x"}, "a site names its mesh and the network"),
        ({"kind": "nebula", "role": "site", "mesh": "x", "range": "10.8.0.0/24"}, "a matter of wireguard"),
        ({"kind": "nebula", "role": "hub", "endpoint": "h:1", "range": "fd87::/64"}, "nebula has only IPv4 inside"),
        (
            {"kind": "wireguard", "role": "hub", "endpoint": "h:1", "range": "fd87::/64", "mtu": 1200},
            "IPv6 takes no link of less than 1280 bytes",
        ),
        ({"kind": "frp", "server": "s:7000"}, "frp names what it carries"),
        ({"kind": "rathole", "expose": ["tcp/1=2"]}, "rathole names its server"),
        ({"kind": "frp", "server": "s:7000", "expose": ["22"]}, "should match pattern"),
        ({"kind": "ipsec"}, "'wireguard'"),
        ({"kind": "wireguard", "hub": "h", "keepalive": 70000}, "less than or equal to 65535"),
        ({"kind": "wireguard", "hub": "h", "ports": 1}, "Extra inputs are not permitted"),
        (
            {"kind": "wireguard", "role": "hub", "endpoint": "h:1", "range": "10.87.0.0/24", "address": "10.88.0.1"},
            "address 10.88.0.1 is not in range 10.87.0.0/24",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_words(wish: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as problem:
        Tunnel.model_validate(wish)
    assert said in str(problem.value)


def test_the_error_of_the_inventory_names_the_file_and_the_key() -> None:
    with pytest.raises(BadInput, match="rig-01: provision_tunnel: value error, a wireguard spoke names its hub") as e:
        intent_of("rig-01", {"provision_tunnel": {"kind": "wireguard"}}, lambda key: f"hosts.yml ({key})")
    assert e.value.context[0] == "written in hosts.yml (provision_tunnel)"


def test_secrets_of_the_vault_are_no_part_of_the_request() -> None:
    intent = intent_of("rig-01", {"provision_tunnel_preshared": "x" * 44}, lambda key: "hosts.yml")

    assert "x" * 44 not in intent.model_dump_json()


@given(st.text(max_size=30))
def test_an_endpoint_is_read_or_refused_and_never_anything_else(text: str) -> None:
    try:
        host, port = split_endpoint(text)
    except ValueError:
        return
    assert host and 0 < port < 65536
    assert split_endpoint(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") == (host, port)
