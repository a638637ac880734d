"""The way to a host through its hub: what is on record, and what ssh is told."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.adapters import path_files, ssh
from provisioner.adapters.paths import TunnelPaths, overlaid
from provisioner.errors import BadInput, HostError
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.model.tunnel import Tunnel
from provisioner.tunnels.assign import Member, assign
from tests.tunnel_world import hub, site, spoke
from tests.world import entry

ENTRY = entry(intent=Intent(tunnel=spoke("rig-01").wish), tunnel=assign([hub(), spoke("rig-01")])["rig-01"])
HUB = {"ansible_host": "203.0.113.1", "ansible_user": "op", "ansible_port": 2222}


def rig(**variables: object) -> InventoryHost:
    return InventoryHost(
        "rig-01",
        {"ansible_host": "192.168.1.5", "ansible_ssh_common_args": "-o IdentitiesOnly=yes", **variables},
        ENTRY.intent,
        hubs={"hub": HUB},
    )


def frp(name: str) -> Member:
    return Member(name, Tunnel.model_validate({"kind": "frp", "server": "s.example:7000", "expose": ["tcp/2222=22"]}))


def options(host: InventoryHost) -> list[str]:
    """Every -o that ssh gets, in order; it takes the first of each."""
    argv = list(ssh.ssh_argv(ssh.Target.from_variables(host.name, host.variables)))
    return [argv[i + 1] for i, word in enumerate(argv) if word == "-o"]


def test_without_a_record_the_inventory_says_how(tmp_path: Path) -> None:
    assert overlaid(rig(), tmp_path) == rig()


def test_on_record_the_hub_connects_onwards(tmp_path: Path) -> None:
    path_files.store("rig-01", {"hub": "hub", "address": "10.87.0.2", "alias": "rig-01"}, tmp_path)
    host = overlaid(rig(), tmp_path)
    given = options(host)
    (command,) = [word for word in given if word.startswith("ProxyCommand=")]

    assert host.variables["ansible_host"] == "10.87.0.2"
    assert "HostKeyAlias=rig-01" in given and "IdentitiesOnly=yes" in given
    assert shlex.split(command)[-3:] == ["-W", "[%h]:%p", "203.0.113.1"]
    assert "StrictHostKeyChecking=yes" in command and "Port=2222" in command
    assert "ControlPath" not in command and "%C" not in command


def test_two_tunnels_with_one_address_never_share_a_connection(tmp_path: Path) -> None:
    """Seen in a lab: the other rig's open connection was taken, for ssh names it after address and port."""
    path_files.store("rig-01", {"hub": "hub", "address": "10.87.0.2", "alias": "rig-01"}, tmp_path)
    mine = overlaid(rig(), tmp_path)
    theirs = overlaid(replace(rig(), hubs={"hub": {**HUB, "ansible_host": "203.0.113.77"}}), tmp_path)
    sockets = [next(word for word in options(host) if word.startswith("ControlPath=")) for host in (mine, theirs)]

    assert sockets[0] != sockets[1]
    assert "%C" not in "".join(sockets)


def test_the_hub_may_move_in_the_inventory(tmp_path: Path) -> None:
    path_files.store("rig-01", {"hub": "hub", "address": "10.87.0.2", "alias": "rig-01"}, tmp_path)
    moved = replace(rig(), hubs={"hub": {**HUB, "ansible_host": "203.0.113.99"}})

    assert any("203.0.113.99" in word for word in options(overlaid(moved, tmp_path)))


def test_this_machine_as_the_hub_needs_nobody_in_between(tmp_path: Path) -> None:
    path_files.store("rig-01", {"hub": "hub", "address": "10.87.0.2", "alias": "rig-01"}, tmp_path)
    here = replace(rig(), hubs={"hub": {"ansible_connection": "local"}})

    assert "ProxyCommand=none" in options(overlaid(here, tmp_path))


def test_a_hub_that_is_not_in_the_inventory_is_named(tmp_path: Path) -> None:
    path_files.store("rig-01", {"hub": "hub", "address": "10.87.0.2", "alias": "rig-01"}, tmp_path)
    with pytest.raises(HostError, match="rig-01 is reached through hub, which is not in the inventory"):
        overlaid(replace(rig(), hubs={}), tmp_path)


def test_the_new_path_is_never_a_shared_connection(tmp_path: Path) -> None:
    """An open connection outlives a firewall that shuts new ones out: it would confirm what nobody can reach."""
    given = options(TunnelPaths(tmp_path).new(rig(), ENTRY))
    first = {word.partition("=")[0]: word.partition("=")[2] for word in reversed(given)}

    assert (first["ControlPath"], first["ControlMaster"]) == ("none", "no")


def test_a_new_way_stands_before_an_old_one_and_takes_its_place(tmp_path: Path) -> None:
    path_files.store("rig-01", {"hub": "hub", "address": "10.87.0.9", "alias": "rig-01", "port": 22001}, tmp_path)
    host = TunnelPaths(tmp_path).new(overlaid(rig(), tmp_path), ENTRY)

    assert (host.variables["ansible_host"], host.variables["ansible_port"]) == ("10.87.0.2", 22)
    assert str(host.variables["ansible_ssh_common_args"]).count("ProxyCommand") == 1


def test_a_hub_and_a_host_that_is_reached_directly_have_no_way_of_their_own(tmp_path: Path) -> None:
    direct = spoke("rig-01", wish={"reach": "direct"})
    there = entry(intent=Intent(tunnel=direct.wish), tunnel=ENTRY.tunnel)
    host = replace(rig(), intent=there.intent)

    assert TunnelPaths(tmp_path).way(host, there.tunnel) == {}
    assert TunnelPaths(tmp_path).way(rig(), assign([hub(), spoke("rig-01")])["hub"]) == {}


@pytest.mark.parametrize("member", [site("rig-01", "192.168.1.5:51820"), frp("rig-01")], ids=["site", "frp"])
def test_who_is_to_be_no_spoke_any_more_is_reached_as_the_inventory_says(tmp_path: Path, member: Member) -> None:
    """The tunnel of before ends with the change, so nobody could confirm it that way; then its record goes."""
    path_files.store("rig-01", {"hub": "hub", "address": "10.87.0.2", "alias": "rig-01"}, tmp_path)
    host = replace(rig(), intent=Intent(tunnel=member.wish))
    assert overlaid(host, tmp_path) == host

    TunnelPaths(tmp_path).keep(host, entry(intent=host.intent, tunnel=assign([member])["rig-01"]))
    assert path_files.stored("rig-01", tmp_path) == {}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    path_files.file_of("rig-01", tmp_path).write_text("[]")
    with pytest.raises(BadInput, match=r"rig-01\.json cannot be read"):
        overlaid(rig(), tmp_path)
