"""Rules that admit through a tunnel only what is needed; a table of our own, beside whatever the host has."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from provisioner.model.resource import GuardedFile
from provisioner.model.tunnel import INTERFACE, Forward, TunnelLock
from provisioner.tunnels.contract import HEADER, STATE

UNIT = "provision-firewall.service"
RULES = f"{STATE}/firewall.nft"
IPTABLES = f"{STATE}/firewall.iptables"


def files(lock: TunnelLock) -> tuple[GuardedFile, ...]:
    """The rules and the unit that loads them before the network comes up."""
    if lock.firewall == "iptables":
        rules = GuardedFile(path=IPTABLES, content=iptables(lock))
    else:
        rules = GuardedFile(path=RULES, content=nftables(lock))
    return rules, GuardedFile(path=f"/etc/systemd/system/{UNIT}", content=unit(lock))


def own(lock: TunnelLock) -> str:
    """The port on which this host is dialled, `51820`; empty for one that only dials."""
    return str(lock.port) if lock.port is not None and lock.role != "spoke" else ""


def nftables(lock: TunnelLock) -> str:
    """nft(8) input: one table, replaced as a whole. It only ever narrows what comes in by the tunnel.

    A drop in any table is final, an accept is not: what ufw or the owner's own rules refuse stays refused.
    """
    address = "ip6" if _six(lock) else "ip"
    lines = [
        HEADER + "table inet provision",
        "delete table inet provision",
        "table inet provision {",
        "    chain input {",
        "        type filter hook input priority -10; policy accept;",
        f'        iifname != "{INTERFACE}" accept',
        "        ct state established,related accept",
        "        meta l4proto { icmp, icmpv6 } accept",
        *(f"        {rule} accept" for rule in _matches(lock.admit, "dport", _from_hub(lock, address))),
        "        counter drop",
        "    }",
        "    chain forward {",
        "        type filter hook forward priority -10; policy accept;",
        f'        iifname != "{INTERFACE}" oifname != "{INTERFACE}" accept',
        "        ct state established,related accept",
        *(f"        {rule}" for rule in _forwarded(lock, address)),
        "        counter drop",
        "    }",
        *_translated(lock, address),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _from_hub(lock: TunnelLock, address: str) -> str:
    """A spoke hears its hub alone; a hub and a site hear those whose addresses WireGuard lets through anyway."""
    return f"{address} saddr {lock.hub_address} " if lock.role == "spoke" and lock.hub_address else ""


def _matches(ports: Iterable[str], what: str, before: str = "") -> list[str]:
    """`tcp/22`, `udp/30000-32767` → one match for each protocol: `tcp dport { 22, 8080 }`."""
    found = []
    for protocol in ("tcp", "udp"):
        numbers = [port.partition("/")[2] for port in ports if port.startswith(f"{protocol}/")]
        if numbers:
            found.append(f"{before}{protocol} {what} {{ {', '.join(numbers)} }}")
    return found


def _forwarded(lock: TunnelLock, address: str) -> list[str]:
    """What may pass: published container ports that are admitted, forwarded ports, LANs; never spoke to spoke."""
    rules = []
    for protocol in ("tcp", "udp"):
        numbers = [p.partition("/")[2] for p in lock.admit if p.startswith(f"{protocol}/")]
        if numbers:
            # A published port was translated before it comes here: what it was called outside is what counts.
            rules.append(
                f'iifname "{INTERFACE}" ct status dnat meta l4proto {protocol} '
                f"ct original proto-dst {{ {', '.join(numbers)} }} accept"
            )
    rules += [
        f'oifname "{INTERFACE}" {address} daddr {f.address} ct status dnat meta l4proto {f.protocol} '
        f"ct original proto-dst {{ {f.ports} }} accept"
        for f in lock.forwards
    ]
    for lan in lock.lans:
        rules.append(f'iifname "{INTERFACE}" oifname != "{INTERFACE}" {address} daddr {lan} accept')
        rules.append(f'iifname != "{INTERFACE}" oifname "{INTERFACE}" {address} saddr {lan} accept')
    return rules


def _translated(lock: TunnelLock, address: str) -> list[str]:
    if not lock.forwards:
        return []
    return [
        "    chain prerouting {",
        "        type nat hook prerouting priority -110; policy accept;",
        f'        iifname "{INTERFACE}" accept',
        *(f"        fib daddr type local {_dnat(f, address)}" for f in lock.forwards),
        "    }",
        "    chain postrouting {",
        "        type nat hook postrouting priority 90; policy accept;",
        "        # The spoke knows the way back to its hub only: its customers' addresses stop here.",
        f'        oifname "{INTERFACE}" ct status dnat masquerade',
        "    }",
    ]


def _dnat(forward: Forward, address: str) -> str:
    return f"{forward.protocol} dport {{ {forward.ports} }} dnat {address} to {forward.address}"


def iptables(lock: TunnelLock) -> str:
    """iptables-restore(8) input for a host without nft: chains of our own; here an accept is final, and so opens.

    Of ip6tables-restore where the tunnel has IPv6 inside: the other version has no way in by it.
    """
    source = f" -s {lock.hub_address}" if lock.role == "spoke" and lock.hub_address else ""
    lines = ["*filter", ":PROVISION-IN - [0:0]", ":PROVISION-FORWARD - [0:0]"]
    for chain in ("PROVISION-IN", "PROVISION-FORWARD"):
        lines.append(f"-A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
    lines.append(f"-A PROVISION-IN -p {'ipv6-icmp' if _six(lock) else 'icmp'} -j ACCEPT")
    for port in lock.admit:
        protocol, _, numbers = port.partition("/")
        lines.append(f"-A PROVISION-IN{source} -p {protocol} --dport {_colon(numbers)} -j ACCEPT")
        lines.append(
            f"-A PROVISION-FORWARD -i {INTERFACE} -p {protocol} -m conntrack --ctstate DNAT "
            f"--ctorigdstport {_colon(numbers)} -j ACCEPT"
        )
    for forward in lock.forwards:
        lines.append(
            f"-A PROVISION-FORWARD -o {INTERFACE} -d {forward.address} -p {forward.protocol} "
            "-m conntrack --ctstate DNAT -j ACCEPT"
        )
    for lan in lock.lans:
        lines.append(f"-A PROVISION-FORWARD -i {INTERFACE} ! -o {INTERFACE} -d {lan} -j ACCEPT")
        lines.append(f"-A PROVISION-FORWARD -o {INTERFACE} ! -i {INTERFACE} -s {lan} -j ACCEPT")
    lines += ["-A PROVISION-IN -j DROP", "-A PROVISION-FORWARD -j DROP", "COMMIT"]
    if lock.forwards:
        lines += ["*nat", ":PROVISION-DNAT - [0:0]", ":PROVISION-SNAT - [0:0]"]
        lines += [
            f"-A PROVISION-DNAT -p {f.protocol} --dport {_colon(f.ports)} -j DNAT --to-destination {f.address}"
            for f in lock.forwards
        ]
        lines += [f"-A PROVISION-SNAT -o {INTERFACE} -m conntrack --ctstate DNAT -j MASQUERADE", "COMMIT"]
    return HEADER + "\n".join(lines) + "\n"


def _six(lock: TunnelLock) -> bool:
    return bool(lock.range) and ipaddress.ip_network(lock.range).version == 6


_FILTER = (
    ("INPUT", f"-i {INTERFACE} -j PROVISION-IN"),
    ("FORWARD", f"-i {INTERFACE} -j PROVISION-FORWARD"),
    ("FORWARD", f"-o {INTERFACE} -j PROVISION-FORWARD"),
)
_NAT = (
    ("PREROUTING -t nat", f"! -i {INTERFACE} -m addrtype --dst-type LOCAL -j PROVISION-DNAT"),
    ("POSTROUTING -t nat", "-j PROVISION-SNAT"),
)
"""(chain, rule) by which the host's own chains call ours."""
_CHAINS = ("PROVISION-IN", "PROVISION-FORWARD", "PROVISION-DNAT -t nat", "PROVISION-SNAT -t nat")
_VERSIONS = ("/usr/sbin/iptables", "/usr/sbin/ip6tables")


def unit(lock: TunnelLock) -> str:
    """The unit of the rules. With iptables it puts in the calls of our chains, and takes out no rule but those.

    It comes after what loads the host's own rules, and again with it: that may begin by emptying everything.
    """
    owners = "netfilter-persistent.service" if lock.firewall == "iptables" else "nftables.service"
    head = (
        HEADER
        + "[Unit]\nDescription=Firewall rules of provision's tunnel\n"
        + f"After={owners}\nPartOf={owners}\nReloadPropagatedFrom={owners}\n"
        + f"Before=wg-quick@{INTERFACE}.service network-pre.target\nWants=network-pre.target\n\n"
        + "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
    )
    if lock.firewall != "iptables":
        body = (
            f"ExecStart=/usr/sbin/nft -f {RULES}\nExecReload=/usr/sbin/nft -f {RULES}\n"
            "ExecStop=-/usr/sbin/nft delete table inet provision\n"
        )
    else:
        program = _VERSIONS[_six(lock)]
        calls = [(program, chain, rule) for chain, rule in (*_FILTER, *(_NAT if lock.forwards else ()))]
        # How the hub is dialled has nothing to do with what is inside: both versions come in.
        dialled = f"-p udp --dport {own(lock)} -j ACCEPT"
        outside = [(by, "INPUT", dialled) for by in _VERSIONS if own(lock)]
        # What an earlier tunnel called goes too, whichever version it had inside.
        former = [(by, chain, rule) for by in _VERSIONS for chain, rule in (*_FILTER, *_NAT)]
        take = [f"-{by} -D {chain} {rule}" for by, chain, rule in (*former, *outside)]
        load = f"{program}-restore --noflush {IPTABLES}"
        put = [f"{by} -I {chain} {rule}" for by, chain, rule in calls]
        put += [f"{'' if by == _VERSIONS[0] else '-'}{by} -I {chain} {rule}" for by, chain, rule in outside]
        chains = [(by, verb, chain) for by in _VERSIONS for verb in "FX" for chain in _CHAINS]
        gone = [f"-{by} -{verb} {chain}" for by, verb, chain in chains]
        # Nobody calls these any more; what an earlier tunnel had in them would be read as if it counted.
        filled = [chain for chain in _CHAINS if lock.forwards or "-t nat" not in chain]
        empty = [f"-{by} -{verb} {chain}" for by, verb, chain in chains if by != program or chain not in filled]
        body = "".join(f"ExecStart={line}\n" for line in [*take, load, *put, *empty])
        body += "".join(f"ExecReload={line}\n" for line in [*take, load, *put, *empty])
        body += "".join(f"ExecStop={line}\n" for line in [*take, *gone])
    return head + body + "\n[Install]\nWantedBy=multi-user.target\n"


def ufw_commands(lock: TunnelLock) -> tuple[tuple[str, ...], ...]:
    """What ufw has to let through; our own table still narrows it. Empty without ufw."""
    if lock.firewall != "ufw":
        return ()
    rules = [f"allow in on {INTERFACE}"]
    if own(lock):
        rules.append(f"allow {own(lock)}/udp")
    rules += [
        f"route allow out on {INTERFACE} to {f.address} port {_colon(f.ports)} proto {f.protocol}"
        for f in lock.forwards
    ]
    for lan in lock.lans:  # what a router hands on is refused by ufw unless it is told
        rules.append(f"route allow in on {INTERFACE} to {lan}")
        rules.append(f"route allow out on {INTERFACE} from {lan}")
    return tuple(("ufw", *rule.split(), "comment", _OURS) for rule in rules)


_OURS = "provision"
"""The comment of each rule that ufw was told, by which it is found again when no lock knows of it any more."""


def ufw_forget(lock: TunnelLock) -> tuple[tuple[str, ...], ...]:
    """Take away what ufw was told of any tunnel of before: a site's LAN, a port that moved. Empty without ufw.

    Rules from before there were comments are known by the interface.
    """
    if lock.firewall != "ufw":
        return ()
    return (("/bin/sh", "-c", _FORGET),)


_FORGET = f"""ufw show added | while read -r program rule; do
    [ "$program" = ufw ] || continue
    case $rule in
        *" comment '{_OURS}'") rule=${{rule%" comment "*}} ;;
        *" comment "*) continue ;;
        *" on {INTERFACE}" | *" on {INTERFACE} "*) ;;
        *) continue ;;
    esac
    case $rule in
        "route "*) set -- route delete ${{rule#route }} ;;
        *) set -- delete $rule ;;
    esac
    ufw "$@" </dev/null || exit 1
done"""


def kept(lock: TunnelLock) -> tuple[GuardedFile, ...]:
    """What `ufw allow` writes, so that a revert brings back what was there."""
    return tuple(GuardedFile(path=path, content=None) for path in UFW_FILES) if lock.firewall == "ufw" else ()


def undo(lock: TunnelLock) -> tuple[tuple[str, ...], ...]:
    """What makes ufw read the files that came back."""
    return (("ufw", "reload"),) if lock.firewall == "ufw" else ()


def _colon(ports: str) -> str:
    """ufw and iptables write a range as 30000:32767."""
    return ports.replace("-", ":")


UFW_FILES = ("/etc/ufw/user.rules", "/etc/ufw/user6.rules")
