"""The tunnel: is it up, has it been heard of, does it carry, and packets of which size?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from provisioner.checks.check import Check, NotMade, Seen, Verdict, failed, found, listed, not_applicable, passed
from provisioner.model.stack import HostLock
from provisioner.model.tunnel import TunnelLock

_UNITS = (
    "wg-quick@prov0.service",
    "provision-nebula.service",
    "provision-ssh-tunnel.service",
    "tailscaled.service",
    "headscale.service",
    "cloudflared.service",
    "frpc.service",
    "frps.service",
    "rathole.service",
)
_DIALS = ("provision-ssh-tunnel.service", "frpc.service")
"""Programs that end when the far end does not take them: to run is not yet to be connected."""
DIALLED_S = 12
"""A dial to an address that does not answer ends sooner (ssh: ConnectTimeout of 10 s)."""
# A tunnel that was switched a moment ago may still dial: it is waited for, half a minute at most. One that waits for a
# name server has no TCP connection yet (proc_pid_net(5): state 01 is established, the tenth field the socket's inode).
TUNNEL_UNITS = f"""
stands() {{
    pid=$(systemctl show -p MainPID "$1" | cut -d= -f2)
    for inode in $(ls -l "/proc/$pid/fd" 2>/dev/null | sed -n 's/.*socket:\\[\\([0-9]*\\)\\]$/\\1/p'); do
        cat "/proc/$pid/net/tcp" "/proc/$pid/net/tcp6" 2>/dev/null |
            awk -v inode="$inode" '$4 == "01" && $10 == inode {{ found = 1 }} END {{ exit !found }}' && return
    done
    return 1
}}
units='{" ".join(_UNITS)}'
turn=0
while :; do
    states=$(systemctl is-active $units)
    young=
    for unit in {" ".join(_DIALS)}; do
        systemctl -q is-active $unit || continue
        entered=$(systemctl show -p ActiveEnterTimestampMonotonic $unit | cut -d= -f2)
        read -r now rest </proc/uptime
        [ $((${{now%.*}} - ${{entered:-0}} / 1000000)) -ge {DIALLED_S} ] && stands $unit || young="$young $unit"
    done
    case $states$young in
        *activating*|*.service) [ $turn -lt 30 ] || break;;
        *) break;;
    esac
    turn=$((turn + 1)); sleep 1
done
echo "$states"
for unit in $young; do echo "young $unit"; done; :"""
HEARD = "wg show prov0 latest-handshakes && date +%s"
# Only ends that this host dials: a hub does not wait for spokes that may be switched off.
WAY = r"""
[ -e /sys/class/net/prov0/mtu ] || exit 3
mtu=$(cat /sys/class/net/prov0/mtu)
echo "$mtu"
ends=
if command -v wg >/dev/null && wg show prov0 >/dev/null 2>&1; then
    for key in $(wg show prov0 persistent-keepalive | awk '$2 != "off" { print $1 }'); do
        far=$(wg show prov0 allowed-ips | awk -v key="$key" '$1 == key { sub("/.*", "", $2); print $2 }')
        ends="$ends $far,$(wg show prov0 endpoints | awk -v key="$key" '$1 == key { print $2 }')"
    done
else
    ends=$(sed -n 's/^  "\(.*\)": \["\(.*\)"\]$/\1,\2/p' /etc/nebula/provision/config.yml 2>/dev/null)
fi
for end in $ends; do
    far=${end%%,*}; out=$(echo "${end#*,}" | sed 's/:[0-9]*$//; s/[][]//g')
    case $far in *:*) size=$((mtu - 48));; *) size=$((mtu - 28));; esac
    echo "far $far"
    ping -n -q -c 5 -i 0.2 -W 2 "$far" 2>&1
    echo "large $far"
    ping -n -q -M do -c 2 -W 2 -s "$size" "$far" 2>&1
    echo "outside $far"
    [ -z "$out" ] || ping -n -q -c 5 -i 0.2 -W 1 "$out" 2>&1
done; :"""
# What the programs that are no kernel's matter say of themselves, each only where it is. rathole says nothing.
OWN_WORDS = r"""
command -v tailscale >/dev/null && { echo 'say tailscale'; timeout 10 tailscale status --json --peers=false 2>&1; }
command -v headscale >/dev/null && { echo 'say headscale'; timeout 10 headscale health 2>&1 && echo well; }
command -v curl >/dev/null || { echo 'say no-curl'; exit 0; }
[ -e /etc/cloudflared/config.yml ] && { echo 'say cloudflared'; curl -sS -m 5 http://127.0.0.1:20241/ready 2>&1; }
[ -e /etc/frp/frpc.toml ] && { echo 'say frpc'; curl -sS -m 5 http://127.0.0.1:7400/api/status 2>&1; }; :"""
# With iptables a chain that nobody calls is no rule in force.
RULES = r"""
/usr/sbin/nft list chain inet provision input 2>/dev/null
for by in /usr/sbin/iptables /usr/sbin/ip6tables; do
    $by -S INPUT 2>/dev/null | grep -q -- '-i prov0 -j PROVISION-IN' && $by -S PROVISION-IN
done; :"""
WAITING = "cat /var/lib/provision/guard/pending 2>/dev/null; :"

STALE_S = 180
MOST_LOST = 50  # per cent; above that ssh hardly gets through


def _tunnel(wanted: HostLock) -> TunnelLock | None:
    """The tunnel that must be up; None where the lock wants none, or one whose keys are not all known yet."""
    lock = wanted.tunnel
    return lock if lock is not None and _unit(lock) is not None and lock.complete else None


def _unit(lock: TunnelLock) -> str | None:
    """The unit that carries it on this host; None where nothing of its own has to run."""
    hub = lock.role == "hub"
    return {
        "wireguard": "wg-quick@prov0.service",
        "nebula": "provision-nebula.service",
        "ssh-reverse": None if hub else "provision-ssh-tunnel.service",
        "tailscale": "tailscaled.service",
        "headscale": "headscale.service" if hub else "tailscaled.service",
        "cloudflare-tunnel": "cloudflared.service",
        "frp": "frps.service" if hub else "frpc.service",
        "rathole": "rathole.service",
    }.get(lock.kind)


NONE = not_applicable("the lock wants no tunnel on this host that could be up")


def up(wanted: HostLock, seen: Seen) -> Verdict:
    lock = _tunnel(wanted)
    if lock is None:
        return NONE
    lines = seen.output.splitlines()
    states, young = lines[: len(_UNITS)], lines[len(_UNITS) :]
    if len(states) != len(_UNITS):
        raise NotMade("systemctl did not name all units")
    unit = _unit(lock) or ""
    state = dict(zip(_UNITS, states, strict=True))[unit]
    if state == "active" and f"young {unit}" in young:
        return failed("its program runs, but has no connection: the other end does not answer, or does not take it")
    return found(state == "active", f"its unit is {state}")


def answers(wanted: HostLock, seen: Seen) -> Verdict:
    """What the tunnel's own program says of its connection, where that is the only way to know."""
    lock, told = _tunnel(wanted), seen.output
    said = _asked(lock) if lock is not None else None
    if said is None:
        return not_applicable("this tunnel is judged by what it carries, or has no words of its own")
    name, judge = said
    blocks = re.split(r"^say ", told, flags=re.MULTILINE)
    texts = {head: rest for head, _, rest in (block.partition("\n") for block in blocks)}
    if name not in texts:
        if "no-curl" in texts and name in ("cloudflared", "frpc"):
            raise NotMade("there is no curl on the host to ask it with")
        return failed(f"there is no {name} on this host")
    return judge(texts[name].strip())


def _asked(lock: TunnelLock) -> tuple[str, Callable[[str], Verdict]] | None:
    hub = lock.role == "hub"
    if lock.kind == "tailscale" or (lock.kind == "headscale" and not hub):
        return "tailscale", _tailscale
    if lock.kind == "headscale":
        return "headscale", lambda text: found(text.endswith("well"), (text.splitlines() or ["no answer"])[-1])
    if lock.kind == "cloudflare-tunnel":
        return "cloudflared", _cloudflared
    return ("frpc", _frpc) if lock.kind == "frp" and not hub else None


def _tailscale(text: str) -> Verdict:
    told = _json(text)
    own = told.get("Self")
    online = own.get("Online") if isinstance(own, dict) else None
    state = told.get("BackendState")
    return found(state == "Running" and online is True, f"{state}, {'online' if online else 'not online'}")


def _cloudflared(text: str) -> Verdict:
    count = _json(text).get("readyConnections")
    return found(isinstance(count, int) and count > 0, f"{count} connections to the edge")


def _frpc(text: str) -> Verdict:
    rows = [row for rows in _json(text).values() if isinstance(rows, list) for row in rows if isinstance(row, dict)]
    down = [f"{row.get('name')} {row.get('status')}" for row in rows if row.get("status") != "running"]
    if down or not rows:
        return failed(listed(down) or "it has no proxy")
    return passed(f"{len(rows)} running")


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise NotMade((text.splitlines() or ["it said nothing"])[-1])
    return value


def heard(wanted: HostLock, seen: Seen) -> Verdict:
    """A handshake is renewed every two minutes while anything is sent, and keepalive sees to that."""
    lock = _tunnel(wanted)
    if lock is None or lock.kind != "wireguard":
        return NONE
    if seen.rc != 0:
        return failed((seen.stderr.strip() or "wg shows no interface prov0").splitlines()[-1])
    *rows, clock = seen.output.splitlines()
    ages = {}
    for row in rows:
        key, _, last = row.partition("\t")
        ages[key] = int(clock) - int(last) if int(last or 0) else None
    late = []
    for peer in lock.peers:
        if peer.public_key not in ages:
            return failed(f"{peer.host} is not among its peers")
        age = ages[peer.public_key]
        if peer.keepalive and (age is None or age > STALE_S):
            late.append(f"{peer.host} never" if age is None else f"{peer.host} {age} s ago")
    if late:
        return failed(f"last heard: {listed(late)}")
    known = [f"{peer.host} {ages[peer.public_key]} s ago" for peer in lock.peers if ages[peer.public_key] is not None]
    return passed(listed(known))


def carries(wanted: HostLock, seen: Seen) -> Verdict:
    lock = _tunnel(wanted)
    if lock is None or lock.kind not in ("wireguard", "nebula"):
        return NONE
    if seen.rc == 3:
        return failed("there is no interface prov0")
    parts, outside = _parts(seen, "far"), _parts(seen, "outside")
    dialled = [peer for peer in lock.peers if peer.keepalive] if lock.kind == "wireguard" else []
    if lock.kind == "nebula" and lock.role == "spoke":
        dialled = [peer for peer in lock.peers if peer.host == lock.hub]
    if not dialled:
        return not_applicable("it dials nobody")
    lines = []
    for peer in dialled:
        text = parts.get(peer.allowed[0].partition("/")[0])
        if text is None:
            return failed(f"{peer.host} is not dialled")
        loss, mean = _ping(text)
        if loss > MOST_LOST:
            return failed(f"{peer.host} answers {100 - loss:.0f} of 100 packets")
        added = _added(mean, outside.get(peer.allowed[0].partition("/")[0], ""))
        lines.append(f"{peer.host} in {mean} ms{added}" + (f", {loss:.0f} % lost" if loss else ""))
    return passed(listed(lines))


def whole_packets(wanted: HostLock, seen: Seen) -> Verdict:
    """Small packets that come through and large ones that do not look like a tunnel that hangs."""
    lock = _tunnel(wanted)
    if lock is None or lock.kind != "wireguard":
        return NONE
    if seen.rc == 3:
        return failed("there is no interface prov0")
    size = int(seen.output.split()[0])
    for far, text in _parts(seen, "large").items():
        if _ping(text)[0] == 100:
            return failed(f"packets of {size} bytes do not reach {far}")
    return found(size == lock.mtu, f"MTU {size}" + ("" if size == lock.mtu else f", {lock.mtu} in the lock"))


def narrow(wanted: HostLock, seen: Seen) -> Verdict:
    """The rules as the kernel has them: they end with a drop, and admit the ports of the lock and no other."""
    lock = _tunnel(wanted)
    if lock is None or lock.kind not in ("wireguard", "nebula"):
        return NONE
    text = seen.output
    if not re.search(r"\bdrop\b", text, re.IGNORECASE):
        return failed("none of its rules is in force")
    opened = set()
    for protocol, ports in _NFT_PORTS.findall(text):
        opened |= {f"{protocol}/{port.strip()}" for port in ports.strip("{} ").split(",")}
    opened |= {f"{protocol}/{port.replace(':', '-')}" for protocol, port in _IPTABLES_PORTS.findall(text)}
    more, less = sorted(opened - set(lock.admit)), sorted(set(lock.admit) - opened)
    if more or less:
        wrong = (("admits", more), ("shuts out", less))
        return failed(" and ".join(f"{word} {listed(ports)}" for word, ports in wrong if ports))
    return passed(f"admits {listed(list(lock.admit)) or 'nothing'}")


_NFT_PORTS = re.compile(r"\b(tcp|udp) dport (\{[^}]*\}|\S+) accept")
_IPTABLES_PORTS = re.compile(r"^-A PROVISION-IN .*-p (tcp|udp) .*--dport (\S+) -j ACCEPT$", re.MULTILINE)


def settled(wanted: HostLock, seen: Seen) -> Verdict:
    waits = seen.output.strip()
    return failed(f"{waits} is not confirmed yet, and goes back by itself") if waits else passed()


def _parts(seen: Seen, word: str) -> dict[str, str]:
    """Address → what ping said of it."""
    found_: dict[str, str] = {}
    for block in re.split(r"^(?=far |large |outside )", seen.output, flags=re.MULTILINE):
        head, _, rest = block.partition("\n")
        if head.startswith(f"{word} "):
            found_[head.split()[1]] = rest
    return found_


def _added(mean: str, outside: str) -> str:
    """What the tunnel adds to the way there and back; nothing where the public address does not answer pings."""
    lost, bare = _ping(outside)
    return f" ({max(0.0, float(mean) - float(bare)):.1f} added)" if lost < 100 and "?" not in (mean, bare) else ""


def _ping(text: str) -> tuple[float, str]:
    lost = re.search(r"([0-9.]+)% packet loss", text)
    mean = re.search(r"= [0-9.]+/([0-9.]+)/", text)
    return (float(lost[1]) if lost else 100.0), (mean[1] if mean else "?")


CHECKS = (
    Check("tunnel-up", "The tunnel is up", up, (TUNNEL_UNITS,)),
    Check("tunnel-heard", "The other end of the tunnel was heard", heard, (HEARD,)),
    Check("tunnel-carries", "The tunnel carries", carries, (WAY,)),
    Check("tunnel-answers", "The tunnel's own program is connected", answers, (OWN_WORDS,)),
    Check("tunnel-size", "The tunnel carries packets of its size", whole_packets, (WAY,), required=False),
    Check("tunnel-narrow", "The tunnel admits what is needed and no more", narrow, (RULES,)),
    Check("change-settled", "No change waits to be confirmed", settled, (WAITING,)),
)
