"""The tunnel: is it up, has it been heard of, does it carry, and packets of which size?"""

from __future__ import annotations

import re

from provisioner.checks.check import Check, NotMade, Seen, Verdict, failed, found, listed, not_applicable, passed
from provisioner.model.stack import HostLock
from provisioner.model.tunnel import TunnelLock

TUNNEL_UNITS = "systemctl is-active wg-quick@prov0.service provision-nebula.service provision-ssh-tunnel.service; :"
HEARD = "wg show prov0 latest-handshakes && date +%s"
# Only ends that this host dials: a hub does not wait for spokes that may be switched off.
WAY = r"""
[ -e /sys/class/net/prov0/mtu ] || exit 3
cat /sys/class/net/prov0/mtu
command -v wg >/dev/null || exit 0
size=$(($(cat /sys/class/net/prov0/mtu) - 28))
for key in $(wg show prov0 persistent-keepalive | awk '$2 != "off" { print $1 }'); do
    far=$(wg show prov0 allowed-ips | awk -v key="$key" '$1 == key { sub("/.*", "", $2); print $2 }')
    [ -n "$far" ] || continue
    echo "far $far"
    ping -n -q -c 5 -i 0.2 -W 2 "$far" 2>&1
    echo "large $far"
    ping -n -q -M do -c 2 -W 2 -s "$size" "$far" 2>&1
done; :"""
WAITING = "cat /var/lib/provision/guard/pending 2>/dev/null; :"

STALE_S = 180
MOST_LOST = 50  # per cent; above that ssh hardly gets through


def _tunnel(wanted: HostLock) -> TunnelLock | None:
    """The tunnel that must be up; None where the lock wants none, or one whose keys are not all known yet."""
    lock = wanted.tunnel
    return lock if lock is not None and lock.kind in _PLACE and lock.complete else None


_PLACE = {"wireguard": 0, "nebula": 1, "ssh-reverse": 2}
NONE = not_applicable("the lock wants no tunnel on this host that could be up")


def up(wanted: HostLock, seen: Seen) -> Verdict:
    lock = _tunnel(wanted)
    if lock is None or (lock.kind == "ssh-reverse" and lock.role == "hub"):
        return NONE
    states = seen.output.split()
    if len(states) != len(_PLACE):
        raise NotMade("systemctl did not name all units")
    state = states[_PLACE[lock.kind]]
    return found(state == "active", f"its unit is {state}")


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
    if lock is None or lock.kind == "ssh-reverse":
        return NONE
    if seen.rc == 3:
        return failed("there is no interface prov0")
    parts = _parts(seen, "far")
    dialled = [peer for peer in lock.peers if peer.keepalive] if lock.kind == "wireguard" else []
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
        lines.append(f"{peer.host} in {mean} ms" + (f", {loss:.0f} % lost" if loss else ""))
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


def settled(wanted: HostLock, seen: Seen) -> Verdict:
    waits = seen.output.strip()
    return failed(f"{waits} is not confirmed yet, and goes back by itself") if waits else passed()


def _parts(seen: Seen, word: str) -> dict[str, str]:
    """Address → what ping said of it."""
    found_: dict[str, str] = {}
    for block in re.split(r"^(?=far |large )", seen.output, flags=re.MULTILINE):
        head, _, rest = block.partition("\n")
        if head.startswith(f"{word} "):
            found_[head.split()[1]] = rest
    return found_


def _ping(text: str) -> tuple[float, str]:
    lost = re.search(r"([0-9.]+)% packet loss", text)
    mean = re.search(r"= [0-9.]+/([0-9.]+)/", text)
    return (float(lost[1]) if lost else 100.0), (mean[1] if mean else "?")


CHECKS = (
    Check("tunnel-up", "The tunnel is up", up, (TUNNEL_UNITS,)),
    Check("tunnel-heard", "The other end of the tunnel was heard", heard, (HEARD,)),
    Check("tunnel-carries", "The tunnel carries", carries, (WAY,)),
    Check("tunnel-size", "The tunnel carries packets of its size", whole_packets, (WAY,), required=False),
    Check("change-settled", "No change waits to be confirmed", settled, (WAITING,)),
)
