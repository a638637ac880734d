"""What is written for each kind: the whole text of WireGuard's config, rules that admit no more, no secret anywhere."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.model.resource import File, Guarded, KeyPair, SecretFile, Tool
from provisioner.model.tunnel import Tunnel, TunnelLock
from provisioner.tunnels import (
    cloudflare_tunnel,
    firewall,
    frp,
    headscale,
    keeping,
    nebula,
    rathole,
    ssh_reverse,
    wireguard,
)
from provisioner.tunnels.assign import Member, assign
from provisioner.tunnels.contract import Own
from provisioner.tunnels.kinds import KINDS, tunnel_resources
from provisioner.tunnels.wireguard import peers_in
from tests.tunnel_world import hub, key, site, spoke
from tests.world import entry

NEBULA_HUB = {"kind": "nebula", "role": "hub", "endpoint": "203.0.113.1:4242", "range": "10.87.0.0/24"}


def own(member: Member, *others: Member) -> Own:
    return Own(member.host, member.wish, assign([member, *others])[member.host])


def test_the_config_of_a_spoke() -> None:
    """The whole text; where the key is, not the key."""
    me = own(spoke("rig-01", path_mtu=1500), hub())

    assert wireguard.config(me) == (
        "# Written by provision from provision.lock; the next plan puts it back when it is changed.\n"
        "[Interface]\n"
        "Address = 10.87.0.2/32\n"
        "MTU = 1440\n"
        "PostUp = wg set %i private-key /etc/wireguard/prov0.key\n"
        "\n"
        "[Peer]\n"
        "# hub\n"
        f"PublicKey = {key('hub')}\n"
        "AllowedIPs = 10.87.0.1/32\n"
        "Endpoint = 203.0.113.1:51820\n"
        "PersistentKeepalive = 25\n"
    )


def test_the_config_of_a_hub_dials_nobody_and_takes_in_who_was_invited() -> None:
    text = wireguard.config(own(hub(), spoke("rig-01"), spoke("rig-02")))

    assert "Address = 10.87.0.1/24\n" in text
    assert "ListenPort = 51820\n" in text
    assert "Endpoint" not in text
    assert "join restore" in text
    assert peers_in(text) == {
        "rig-01": (key("rig-01"), "10.87.0.2/32"),
        "rig-02": (key("rig-02"), "10.87.0.3/32"),
    }


def test_a_rotated_key_is_read_from_its_own_file() -> None:
    before = assign([hub(), spoke("rig-01")])["rig-01"].model_copy(update={"next_generation": 2})
    me = own(spoke("rig-01", before=before, keys={1: key("rig-01"), 2: key("next")}), hub())

    assert "private-key /etc/wireguard/prov0.2.key\n" in wireguard.config(me)


def test_preshared_keys_are_named_and_come_from_the_vault() -> None:
    me = own(spoke("rig-01", wish={"preshared": True}), hub())
    secrets = [r for r in wireguard.resources(me) if isinstance(r, SecretFile)]

    assert f"peer {key('hub')} preshared-key /etc/wireguard/prov0.hub.psk.key\n" in wireguard.config(me)
    assert [s.expression for s in secrets] == ["hostvars['rig-01'].provision_tunnel_preshared"]


def test_a_host_whose_peer_is_unknown_only_makes_its_key() -> None:
    """Nothing that could cut it off is in force before everything that is needed is known."""
    me = own(spoke("rig-01", keys=None), hub())
    found = wireguard.resources(me)

    assert [r for r in found if isinstance(r, Guarded)] == []
    assert [r.path for r in found if isinstance(r, KeyPair)] == ["/etc/wireguard/prov0.key"]


def test_the_program_beside_the_kernel_is_installed_where_there_is_no_module() -> None:
    names = [
        {r.name for r in wireguard.resources(own(spoke("a", kernel_module=has), hub())) if isinstance(r, Tool)}
        for has in (True, False)
    ]

    assert ["wireguard-go" in some for some in names] == [False, True]


def test_the_rules_of_a_spoke_admit_ssh_from_its_hub_and_no_more() -> None:
    text = firewall.nftables(own(spoke("rig-01"), hub()).lock)

    assert "ip saddr 10.87.0.1 tcp dport { 22 } accept" in text
    assert text.count("dport {") == 1
    assert text.count("counter drop") == 2
    assert "dnat" not in text.replace("ct status dnat", "")


def test_the_rules_of_a_hub_let_no_spoke_reach_another() -> None:
    text = firewall.nftables(own(hub(), spoke("a"), spoke("b")).lock)

    assert "dport" not in text
    assert 'iifname != "prov0" oifname != "prov0" accept' in text


def test_the_hub_hands_on_public_ports() -> None:
    rig = spoke("a", wish={"ingress": "tunnel"}, ports=("tcp/8080", "udp/30000-32767"))
    text = firewall.nftables(own(hub(), rig).lock)

    assert "fib daddr type local tcp dport { 8080 } dnat ip to 10.87.0.2" in text
    assert "fib daddr type local udp dport { 30000-32767 } dnat ip to 10.87.0.2" in text
    assert 'oifname "prov0" ct status dnat masquerade' in text


def test_ufw_lets_the_tunnel_and_the_hubs_port_through() -> None:
    me = own(hub(firewall="ufw"), spoke("a"))
    change = wireguard.guarded(me)

    assert change.run == (
        ("ufw", "allow", "in", "on", "prov0", "comment", "provision"),
        ("ufw", "allow", "51820/udp", "comment", "provision"),
    )
    assert change.undo == (("ufw", "reload"),)
    assert {f.path for f in change.files if f.content is None} == {"/etc/ufw/user.rules", "/etc/ufw/user6.rules"}


def test_iptables_gets_chains_of_its_own() -> None:
    lock = own(spoke("a", firewall="iptables"), hub()).lock

    assert "-A PROVISION-IN -s 10.87.0.1 -p tcp --dport 22 -j ACCEPT" in firewall.iptables(lock)
    assert "ExecStart=/usr/sbin/iptables -I INPUT -i prov0 -j PROVISION-IN\n" in firewall.unit(lock)


def test_iptables_keeps_no_chain_of_an_earlier_tunnel() -> None:
    """A hub that hands no port on any more, or a tunnel that has another version inside."""
    rig, center = spoke("a", firewall="iptables"), hub(firewall="iptables")
    handing = spoke("a", firewall="iptables", wish={"ingress": "tunnel"}, ports=("tcp/8080",))
    for after, goes in ((rig, True), (handing, False)):
        text = firewall.unit(own(center, after).lock)
        for start in ("ExecStart", "ExecReload"):
            lines = [line for line in text.splitlines() if line.startswith(f"{start}=-") and " -X " in line]
            assert (f"{start}=-/usr/sbin/iptables -X PROVISION-DNAT -t nat" in lines) is goes
            assert f"{start}=-/usr/sbin/ip6tables -X PROVISION-IN" in lines
            assert f"{start}=-/usr/sbin/iptables -X PROVISION-IN" not in lines
            assert text.index(lines[0]) > text.index(f"{start}=/usr/sbin/iptables -I ")


def test_ufw_lets_a_sites_lan_through_both_ways() -> None:
    a = site("a", "203.0.113.1:51820", wish={"lans": ["192.168.7.0/24"]}, firewall="ufw")

    assert wireguard.guarded(own(a, site("b", None))).run[2:] == (
        ("ufw", "route", "allow", "in", "on", "prov0", "to", "192.168.7.0/24", "comment", "provision"),
        ("ufw", "route", "allow", "out", "on", "prov0", "from", "192.168.7.0/24", "comment", "provision"),
    )


ADDED = """Added user rules (see 'ufw status' for running firewall):
ufw allow 22/tcp
ufw allow in on prov0 comment 'provision'
ufw allow 443/tcp comment 'the owner'
ufw deny in on prov0 comment 'the owner'
ufw allow 51820/udp comment 'provision'
ufw route allow in on prov0 to 192.168.7.0/24
ufw route allow out on prov0 to 10.87.0.2 port 30000:32767 proto tcp comment 'provision'
"""


def test_what_ufw_was_told_is_taken_back(tmp_path: Path) -> None:
    """By any tunnel of before, which the lock does not know any more; what the owner told it stays."""
    said = tmp_path / "said"
    ufw = tmp_path / "ufw"
    ufw.write_text(f'#!/bin/sh\n[ "$1" = show ] && cat <<\'END\' || echo "$*" >>{said}\n{ADDED}END\n')
    ufw.chmod(0o755)
    ((_, _, script),) = firewall.ufw_forget(own(hub(firewall="ufw"), spoke("a")).lock)
    subprocess.run(["/bin/sh", "-c", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)

    assert said.read_text().splitlines() == [
        "delete allow in on prov0",
        "delete allow 51820/udp",
        "route delete allow in on prov0 to 192.168.7.0/24",
        "route delete allow out on prov0 to 10.87.0.2 port 30000:32767 proto tcp",
    ]


@pytest.mark.parametrize("kind", ["none", "ssh-reverse", "wireguard"])
def test_ufw_forgets_the_tunnel_of_before_whatever_comes_after_it(kind: str) -> None:
    """A site's routes would outlive the site; a revert brings them back with ufw's files."""
    lock = own(spoke("a", firewall="ufw"), hub()).lock
    after = entry(tunnel=lock.model_copy(update={"kind": kind}))
    (change,) = (r for r in tunnel_resources(after) if isinstance(r, Guarded))

    assert change.run[:1] == firewall.ufw_forget(lock)
    assert (change.undo, firewall.ufw_forget(lock.model_copy(update={"firewall": "nftables"}))) == (
        (("ufw", "reload"),),
        (),
    )
    assert {f.path for f in change.files} >= set(firewall.UFW_FILES)
    assert len({f.path for f in change.files}) == len(change.files)
    assert kind == "wireguard" or "/etc/wireguard/prov0.conf" in change.absent


def test_nebula_asks_the_same_of_a_hosts_firewall() -> None:
    """A default of deny would shut the tunnel's interface like any other."""
    member = Member("hub", Tunnel.model_validate(NEBULA_HUB), keys={1: "HUB"}, firewall="ufw")
    (change,) = (r for r in nebula.resources(own(member)) if isinstance(r, Guarded))

    assert [words[:-2] for words in change.run[:2]] == [
        ("ufw", "allow", "in", "on", "prov0"),
        ("ufw", "allow", "4242/udp"),
    ]
    assert change.undo == (("ufw", "reload"),)
    without = own(Member("hub", member.wish, keys={1: "HUB"}, firewall="iptables"))
    assert "nftables" not in {r.name for r in nebula.resources(without) if isinstance(r, Tool)}


def test_our_rules_come_after_those_of_the_host_and_again_with_them() -> None:
    """Both services begin with an empty table: rules that were there before would be gone."""
    for kind, service in (("nftables", "nftables.service"), ("iptables", "netfilter-persistent.service")):
        text = firewall.unit(own(spoke("a", firewall=kind), hub()).lock)
        assert f"After={service}\nPartOf={service}\nReloadPropagatedFrom={service}\n" in text


def test_with_ipv6_inside_the_rules_are_of_ipv6() -> None:
    """How the hub is dialled from outside stays open in both versions; a host without IPv6 cannot refuse the change."""
    rig, center = spoke("a", firewall="iptables"), hub(range_="fd87::/64", firewall="iptables")

    assert "ip6 saddr fd87::1 tcp dport { 22 } accept" in firewall.nftables(own(rig, center).lock)
    assert "-A PROVISION-IN -s fd87::1 -p tcp --dport 22 -j ACCEPT" in firewall.iptables(own(rig, center).lock)
    assert "-p ipv6-icmp -j ACCEPT" in firewall.iptables(own(rig, center).lock)
    text = firewall.unit(own(center, rig).lock)
    assert "ExecStart=/usr/sbin/ip6tables-restore --noflush /etc/provision/firewall.iptables\n" in text
    assert "ExecStart=/usr/sbin/ip6tables -I INPUT -i prov0 -j PROVISION-IN\n" in text
    assert "ExecStart=/usr/sbin/iptables -I INPUT -p udp --dport 51820 -j ACCEPT\n" in text
    assert "ExecStart=-/usr/sbin/ip6tables -I INPUT -p udp --dport 51820 -j ACCEPT\n" in text


def test_the_config_with_ipv6_inside() -> None:
    me = own(spoke("rig-01", path_mtu=1500), hub(range_="fd87::/64"))
    (_, _, size) = wireguard.questions(me)

    assert "Address = fd87::2/128\n" in wireguard.config(me)
    assert "AllowedIPs = fd87::1/128\n" in wireguard.config(me)
    assert "Address = fd87::1/64\n" in wireguard.config(own(hub(range_="fd87::/64"), spoke("rig-01")))
    assert size.command == "ping -M do -c 2 -s 1392 -q fd87::1"  # 1440 less 40 of IPv6 and 8 of ICMP


def test_a_rig_makes_the_key_that_is_to_come_with_every_kind() -> None:
    """A rotation waits for it: a kind that never made it would wait for ever."""
    for kind in ("wireguard", "nebula", "ssh-reverse"):
        lock = TunnelLock(kind=kind, role="spoke", host="a", hub="hub", next_generation=2)  # type: ignore[arg-type]
        me = Own("a", Tunnel.model_validate({"kind": kind, "hub": "hub"}), lock)
        made = [r.public for r in KINDS[lock.kind].resources(me) if isinstance(r, KeyPair)]
        assert [path.rpartition("/")[2] for path in made] == ["prov0.pub", "prov0.2.pub"]


def test_a_site_lets_its_lan_through() -> None:
    a = site("a", "203.0.113.1:51820", wish={"lans": ["192.168.7.0/24"]})
    text = wireguard.config(own(a, site("b", None)))

    assert 'PostUp = [ "$(cat /proc/sys/net/ipv4/ip_forward)" = 1 ] || sysctl -q -w net.ipv4.ip_forward=1\n' in text
    assert "ipv6" not in text
    six = site("a", "203.0.113.1:51820", wish={"lans": ["fd07::/64"]})
    assert "sysctl -q -w net.ipv6.conf.all.forwarding=1\n" in wireguard.config(own(six, site("b", None)))
    assert 'iifname "prov0" oifname != "prov0" ip daddr 192.168.7.0/24 accept' in firewall.nftables(
        own(a, site("b", None)).lock
    )


def test_where_a_change_must_be_confirmed() -> None:
    """A spoke over the tunnel; a hub, and a host that stays reached directly, over any new session."""
    direct = spoke("b", wish={"reach": "direct"})

    assert wireguard.guarded(own(spoke("a"), hub())).path == "10.87.0.2"
    assert wireguard.guarded(own(direct, hub())).path == ""
    assert wireguard.guarded(own(hub(), spoke("a"))).path == ""


# Every kind, through one door.

SPOKES: dict[str, dict[str, Any]] = {
    "wireguard": {"hub": "hub"},
    "ssh-reverse": {"hub": "hub"},
    "nebula": {"hub": "hub"},
    "tailscale": {},
    "headscale": {"server": "https://head.example"},
    "cloudflare-tunnel": {"server": "id-of-it", "expose": ["https://rig.example=http://127.0.0.1:8080"]},
    "frp": {"server": "frps.example:7000", "expose": ["tcp/2222=22", "udp/4000-4002"]},
    "rathole": {"server": "rat.example:2333", "expose": ["tcp/2222=22"]},
}


def test_nft_knows_every_word_of_its_rules_by_itself() -> None:
    """`ipv6-icmp` stands in /etc/protocols, which a host without netbase has not: the rules were refused there."""
    for lock in (own(spoke("rig-01"), hub()).lock, own(hub(), spoke("rig-01")).lock):
        named = re.findall(r"l4proto \{ ([^}]*) \}|l4proto (\w+)", firewall.nftables(lock))
        words = {word for one in named for part in one for word in part.replace(",", " ").split()}
        assert words <= {"icmp", "icmpv6", "tcp", "udp"}  # words of nft's own grammar


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ["spoke", "hub"])
def test_a_kind_gives_one_guarded_change_and_questions_and_no_secret(kind: str, role: str) -> None:
    wish = {"kind": kind, **SPOKES[kind]}
    if role == "hub":
        wish = {"kind": kind, "role": "hub", "endpoint": "203.0.113.1:51820", "range": "10.87.0.0/24"}
    lock = TunnelLock(
        kind=kind,  # type: ignore[arg-type]  # a word of the table
        role=role,  # type: ignore[arg-type]
        host="rig-01",
        address="10.87.0.2",
        port=22001,
        range="10.87.0.0/24",
        hub_address="10.87.0.1",
        public_key=key("rig-01"),
        certificate="ca\n\nown",
        admit=("tcp/22",),
        peers=assign([spoke("rig-01"), hub()])["rig-01"].peers,
    )
    me = Own("rig-01", Tunnel.model_validate(wish), lock)
    found = KINDS[lock.kind].resources(me)

    assert len([r for r in found if isinstance(r, Guarded)]) == 1
    assert KINDS[lock.kind].questions(me)
    text = "".join(r.model_dump_json() for r in found)
    assert "PrivateKey" not in text.replace("no PrivateKey", "") or kind == "wireguard"  # the reloader's own words


def _own(kind: str, role: str = "spoke", **wish: Any) -> Own:
    value = {"kind": kind, "role": role, **(SPOKES[kind] if role == "spoke" else {}), **wish}
    return Own("rig-01", Tunnel.model_validate(value), TunnelLock(kind=kind, role=role, host="rig-01"))  # type: ignore[arg-type]


def _toml(text: str) -> Any:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    return tomllib.loads(text)


def test_frp_reads_as_toml_with_one_proxy_for_each_port() -> None:
    client = _toml(frp.client(_own("frp")))
    server = _toml(frp.server(_own("frp", "hub", endpoint="s:7000", expose=["tcp/2222=22", "udp/4000-4002"])))

    assert client["loginFailExit"] is False
    assert [(p["type"], p["localPort"], p["remotePort"]) for p in client["proxies"]] == [
        ("tcp", 22, 2222),
        ("udp", 4000, 4000),
        ("udp", 4001, 4001),
        ("udp", 4002, 4002),
    ]
    assert server["allowPorts"] == [{"start": 2222, "end": 2222}, {"start": 4000, "end": 4002}]
    assert server["transport"]["tls"]["force"] is True


def _filled(text: str) -> str:
    """As its unit fills it in on the host."""
    return text.replace(rathole.NAME, "token").replace(rathole.MARK, "x")


def test_rathole_reads_as_toml_and_waits_longer_than_the_server_beats() -> None:
    client = _toml(_filled(rathole.config(_own("rathole"))))["client"]
    server = _toml(_filled(rathole.config(_own("rathole", "hub", endpoint="s:2333", expose=["tcp/2222=22"]))))["server"]

    assert client["heartbeat_timeout"] > server["heartbeat_interval"]
    assert client["services"]["tcp-2222"]["local_addr"] == "127.0.0.1:22"
    assert server["services"]["tcp-2222"]["bind_addr"] == "0.0.0.0:2222"


def test_cloudflared_reads_as_yaml_and_ends_with_the_catch_all() -> None:
    value = yaml.safe_load(cloudflare_tunnel.config(_own("cloudflare-tunnel")))

    assert value["ingress"] == [
        {"hostname": "rig.example", "service": "http://127.0.0.1:8080"},
        {"service": "http_status:404"},
    ]


def test_headscale_reads_as_yaml() -> None:
    value = yaml.safe_load(headscale.config(_own("headscale", "hub", endpoint="head.example:443")))

    assert value["server_url"] == "https://head.example:443"


def test_nebula_reads_as_yaml_and_hears_only_the_hub() -> None:
    me = Own(
        "rig-01",
        Tunnel.model_validate({"kind": "nebula", "hub": "hub"}),
        TunnelLock(
            kind="nebula",
            role="spoke",
            host="rig-01",
            hub_address="10.87.0.1",
            admit=("tcp/22",),
            peers=assign([spoke("rig-01"), hub()])["rig-01"].peers,
        ),
    )
    value = yaml.safe_load(nebula.config(me))

    assert value["static_host_map"] == {"10.87.0.1": ["203.0.113.1:51820"]}
    assert value["firewall"]["inbound"][1:] == [{"port": 22, "proto": "tcp", "cidr": "10.87.0.1/32"}]


def test_the_login_of_a_reverse_tunnel_may_open_its_own_port_and_nothing_else() -> None:
    me = own(
        Member(
            "hub",
            Tunnel.model_validate({"kind": "ssh-reverse", "role": "hub", "endpoint": "203.0.113.1:22"}),
            keys={1: "ssh-ed25519 HUB"},
        ),
        Member("rig-01", Tunnel.model_validate({"kind": "ssh-reverse", "hub": "hub"}), keys={1: "ssh-ed25519 RIG"}),
    )

    assert 'restrict,port-forwarding,permitlisten="127.0.0.1:22001" ssh-ed25519 RIG rig-01\n' in (
        ssh_reverse.authorized_keys(me)
    )


def test_what_the_host_keeps_watch_with_is_json() -> None:
    value = json.loads(keeping.facts_for_the_host(own(spoke("rig-01"), hub()), wireguard.UNIT, 1420))

    assert value["peers"] == [
        {"host": "hub", "public_key": key("hub"), "endpoint": "203.0.113.1:51820", "address": "10.87.0.1"}
    ]


@pytest.mark.parametrize("role", ["spoke", "hub"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_probe_reads_every_text_whole(kind: str, role: str) -> None:
    """It takes out what looks like a secret; a file that lost something could never be as wanted."""
    script = runpy.run_path(str(Path(__file__).parents[2] / "provisioner/probe/script.py"))
    wish = {"kind": kind, **SPOKES[kind]}
    if role == "hub":
        wish = {"kind": kind, "role": "hub", "endpoint": "203.0.113.1:51820", "range": "10.87.0.0/24"}
    lock = TunnelLock(
        kind=kind,  # type: ignore[arg-type]  # a word of the table
        role=role,  # type: ignore[arg-type]
        host="rig-01",
        address="10.87.0.2",
        port=22001,
        range="10.87.0.0/24",
        hub_address="10.87.0.1",
        public_key=key("rig-01"),
        certificate="ca\n\nown",
        admit=("tcp/22",),
        peers=assign([spoke("rig-01", wish={"preshared": True}), hub()])["rig-01"].peers,
    )
    for resource in KINDS[lock.kind].resources(Own("rig-01", Tunnel.model_validate(wish), lock)):
        texts = [resource.content] if isinstance(resource, File) else []
        texts += [f.content or "" for f in resource.files] if isinstance(resource, Guarded) else []
        for text in texts:
            assert script["without_secrets"](text) == text
