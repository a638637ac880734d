#!/usr/bin/python3
"""Keeps a tunnel carrying: asks its far ends for a sign of life, mends what it can, and notes what it saw.

A timer starts it four times a minute. It reads /etc/provision/tunnel.json and writes /run/provision/tunnel.json, which
the probe reads. What it mends, when the far end that this host dials does not answer:
  the interface is gone              the unit is started again
  its name has another address now   the endpoint is set anew (WireGuard resolves a name once, when it starts)
  only small packets come through    the MTU of the interface is lowered to what does
On a hub it looks at one of those that dial it each time, and gives the route to it an MTU of its own when only small
packets come through. Once an hour it tries whether the full size comes through again.

Nebula has no handshakes to ask for: there the time of the last answer takes their place, and what mends it is a start
anew, which resolves the name too. An SSH reverse tunnel has no interface either, and systemd starts it again: the hub
only notes whether sshd of the rig is heard through its port, the rig whether its connection stands (ssh ends one that
has been silent for 45 s).
"""

import json
import os
import re
import socket
import subprocess
import sys
import time

MYPY = False
if MYPY:  # never true: annotations stand in quotes for Python 3.6
    from typing import Any

CONFIG = os.environ.get("PROVISION_TUNNEL_CONFIG", "/etc/provision/tunnel.json")
NOTES = os.environ.get("PROVISION_TUNNEL_NOTES", "/run/provision/tunnel.json")
NET = os.environ.get("PROVISION_TUNNEL_NET", "/sys/class/net")
SMALLEST, SMALLEST_6 = 576, 1280  # below the second the kernel takes IPv6 off an interface
HOUR = 3600
DIALLED = 12  # seconds; ssh's ConnectTimeout is 10
STALE = 180  # seconds after which a handshake is no sign of a session any more


def output(*argv: str) -> "str | None":
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def ping(address: str, count: int, size: "int | None" = None) -> "tuple[float, float | None]":
    """(per cent lost, mean time in ms or None). With a size: packets of that many bytes that must not be cut."""
    argv = ["ping", "-n", "-q", "-c", str(count), "-i", "0.2", "-W", "1"]
    if size is not None:
        argv += ["-M", "do", "-s", str(size - (48 if ":" in address else 28))]
    try:
        done = subprocess.run(
            [*argv, address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
        )
    except OSError:
        return 100.0, None
    lost = re.search(r"([0-9.]+)% packet loss", done.stdout)
    mean = re.search(r"= [0-9.]+/([0-9.]+)/", done.stdout)
    return (float(lost.group(1)) if lost else 100.0), (float(mean.group(1)) if mean else None)


def table(interface: str, what: str) -> "dict[str, str]":
    """Public key → value, as `wg show` prints them."""
    rows = [line.split("\t") for line in (output("wg", "show", interface, what) or "").splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def resolved(endpoint: str) -> "list[str]":
    """Every address that the endpoint's name has now, as WireGuard writes them."""
    host, _, port = endpoint.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
    except (OSError, ValueError):
        return []
    return [("[%s]:%s" if item[0] == socket.AF_INET6 else "%s:%s") % (item[4][0], port) for item in found]


def path_ms(peer: "dict[str, Any]", seen: "dict[str, Any]") -> "float | None":
    """The way there and back outside the tunnel; None where the far end's public address does not answer pings."""
    end = seen["endpoint"] or next(iter(resolved(peer["endpoint"])), None)
    return ping(end.rpartition(":")[0].strip("[]"), 3)[1] if end else None


def least(address: str) -> int:
    return SMALLEST_6 if ":" in address else SMALLEST


def interface_mtu(interface: str) -> "int | None":
    try:
        with open("%s/%s/mtu" % (NET, interface)) as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def set_mtu(interface: str, size: int) -> None:
    output("ip", "link", "set", "dev", interface, "mtu", str(size))


def fitting(address: str, low: int, high: int) -> int:
    """The largest packet that comes back, between two sizes of which the smaller does."""
    while high - low > 1:
        middle = (low + high) // 2
        if ping(address, 2, middle)[0] < 100:
            low = middle
        else:
            high = middle
    return low


def mend_size(interface: str, address: str, wanted: int, now: int, notes: "dict[str, Any]") -> "str | None":
    """Lower the MTU when only small packets come back; once an hour try the wanted one again."""
    if now < wanted:
        if time.time() - notes.get("lowered_at", 0) < HOUR:
            return None
        set_mtu(interface, wanted)
        if ping(address, 2, wanted)[0] < 100:
            notes.pop("lowered_at", None)
            return "MTU back at %d" % wanted
        set_mtu(interface, now)
        notes["lowered_at"] = time.time()
        return None
    low = least(address)
    if now <= low or ping(address, 3, now)[0] < 100 or ping(address, 3, low)[0] >= 100:
        return None
    size = fitting(address, low, now)
    set_mtu(interface, size)
    notes["lowered_at"] = time.time()
    return "MTU lowered from %d to %d: larger packets do not come through" % (now, size)


def mend_route(interface: str, address: str, size: int, known: "dict[str, Any]") -> "str | None":
    """The same for one of many that dial this host: its own path may be narrow, theirs need not be."""
    route = ["ip", "route", "replace", address + ("/128" if ":" in address else "/32"), "dev", interface]
    narrow = known.get(address)
    if narrow and time.time() - narrow["at"] < HOUR:
        return None
    if narrow:
        output(*route)
    if ping(address, 3, size)[0] < 100:
        if known.pop(address, None):
            return "full size to %s again" % address
        return None
    low = least(address)
    if size <= low or ping(address, 3, low)[0] >= 100:
        return None
    fits = fitting(address, low, size)
    output(*route, "mtu", str(fits))
    known[address] = {"mtu": fits, "at": time.time()}
    return None if narrow else "route to %s narrowed to %d: larger packets do not come through" % (address, fits)


def dial_again(config: "dict[str, Any]", peer: "dict[str, Any]", seen: "dict[str, Any]") -> "str | None":
    """The name may have another address; if not, every second time another port of this host is tried."""
    interface, key, now = config["interface"], peer["public_key"], resolved(peer["endpoint"])
    if now and seen["endpoint"] not in now:
        output("wg", "set", interface, "peer", key, "endpoint", now[0])
        return "%s is dialled at %s now" % (peer["host"], now[0])
    if now and seen["lost_runs"] % 2 == 0:
        # A router that was restarted may keep a dead mapping alive as long as packets of this port come:
        # those that passed before it knew its rules. Another port gets another mapping.
        output("wg", "set", interface, "listen-port", "0")
        return "%s does not answer: dialled from another port" % peer["host"]
    return None


def start_again(config: "dict[str, Any]", peer: "dict[str, Any]", seen: "dict[str, Any]") -> "str | None":
    """Every fourth time, about once a minute: time enough for it to come back by itself."""
    if seen["lost_runs"] % 4:
        return None
    output("systemctl", "restart", config["unit"])
    return "%s does not answer: %s was started again" % (peer["host"], config["unit"])


def hears_sshd(end: str) -> "tuple[float, float | None]":
    """(per cent of three connections that failed, mean ms until sshd behind the port says its name, or None)."""
    host, _, port = end.rpartition(":")
    times = []
    for _ in range(3):
        began = time.monotonic()
        try:
            with socket.create_connection((host, int(port)), 5) as line:
                line.settimeout(5)
                if line.recv(64).startswith(b"SSH-"):
                    times.append((time.monotonic() - began) * 1000)
        except (OSError, ValueError):
            pass
    return round(100.0 * (3 - len(times)) / 3, 1), (round(sum(times) / len(times), 1) if times else None)


def connected(unit: str) -> bool:
    """Whether ssh has run longer than a dial can last (it ends when nobody answers, or takes it), and is connected."""
    said = output("systemctl", "show", "-p", "ActiveState,ActiveEnterTimestampMonotonic,MainPID", unit) or ""
    shown = dict(line.partition("=")[::2] for line in said.splitlines())
    if shown.get("ActiveState") != "active":
        return False
    entered = int(shown.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    return time.monotonic() - entered >= DIALLED and holds_connection(shown.get("MainPID", "0"))


def holds_connection(pid: str) -> bool:
    """Whether a process has an established TCP connection; one that waits for a name server has none yet."""
    held = set()
    try:
        for name in os.listdir("/proc/{}/fd".format(pid)):
            try:
                held.add(os.readlink("/proc/{}/fd/{}".format(pid, name)))
            except OSError:
                continue  # closed meanwhile
    except OSError:
        return False
    for table in ("tcp", "tcp6"):
        try:
            with open("/proc/{}/net/{}".format(pid, table)) as lines:
                rows = [line.split() for line in lines]
        except OSError:
            continue  # a kernel without IPv6
        if any(row[3] == "01" and "socket:[{}]".format(row[9]) in held for row in rows if len(row) > 9):
            return True
    return False


def look_at_reverse(config: "dict[str, Any]", before: "dict[str, Any]") -> "dict[str, Any]":
    known = {peer["host"]: peer for peer in before.get("peers", []) if isinstance(peer, dict) and "host" in peer}
    now = int(time.time())
    notes = {"kind": config["kind"], "mtu": None, "peers": [], "at": now}  # type: dict[str, Any]
    for peer in config["peers"]:
        seen = {"host": peer["host"], "handshake": known.get(peer["host"], {}).get("handshake", 0)}
        seen["endpoint"] = peer.get("endpoint")
        if peer.get("endpoint"):
            heard = connected(config["unit"])
        else:
            seen["loss_pct"], seen["rtt_ms"] = hears_sshd(peer["address"])
            heard = seen["loss_pct"] < 100
        if heard:
            seen["handshake"] = now
        notes["peers"].append(seen)
    return notes


def look_after(config: "dict[str, Any]", before: "dict[str, Any]") -> "dict[str, Any]":
    if config.get("kind") == "ssh-reverse":
        return look_at_reverse(config, before)
    interface = config["interface"]
    notes = {
        "interface": interface,
        "kind": config.get("kind", "wireguard"),
        "peers": [],
        "acted": before.get("acted", [])[-9:],
    }  # type: dict[str, Any]
    if "lowered_at" in before:
        notes["lowered_at"] = before["lowered_at"]

    def acted(what: "str | None") -> None:
        if what:
            notes["acted"] = notes["acted"] + [{"at": int(time.time()), "what": what}]

    if interface_mtu(interface) is None:
        output("systemctl", "reset-failed", config["unit"])
        output("systemctl", "restart", config["unit"])
        acted("started %s again: its interface was gone" % config["unit"])
    known = {peer["host"]: peer for peer in before.get("peers", []) if isinstance(peer, dict) and "host" in peer}
    wireguard = config.get("kind", "wireguard") == "wireguard"
    handshakes = table(interface, "latest-handshakes") if wireguard else {}
    endpoints = table(interface, "endpoints") if wireguard else {}
    notes["routes"] = before.get("routes") if isinstance(before.get("routes"), dict) else {}
    dialling = [peer for peer in config["peers"] if peer.get("address") and not peer.get("endpoint")]
    notes["turn"] = (before.get("turn", 0) + 1) % len(dialling) if dialling else 0
    for peer in config["peers"]:
        key, was = peer["public_key"], known.get(peer["host"], {})
        last = int(handshakes.get(key, "0")) if wireguard else was.get("handshake", 0)
        seen = {"host": peer["host"], "handshake": last, "endpoint": endpoints.get(key)}  # type: dict[str, Any]
        asked = False
        if peer.get("address") and peer.get("endpoint"):
            asked = True
            seen["loss_pct"], seen["rtt_ms"] = ping(peer["address"], 5)
            size = interface_mtu(interface)
            if seen["loss_pct"] >= 100:
                seen["lost_runs"] = was.get("lost_runs", 0) + 1
                acted(dial_again(config, peer, seen) if wireguard else start_again(config, peer, seen))
            else:
                seen["path_ms"] = path_ms(peer, seen)
            if seen["loss_pct"] < 100 and size is not None:
                acted(mend_size(interface, peer["address"], config["mtu"], size, notes))
        elif dialling and peer is dialling[notes["turn"]] and (not wireguard or (last and time.time() - last < STALE)):
            asked = True
            seen["loss_pct"], seen["rtt_ms"] = ping(peer["address"], 3)
            size = interface_mtu(interface)
            if seen["loss_pct"] < 100 and size is not None:
                acted(mend_route(interface, peer["address"], size, notes["routes"]))
        if not wireguard and asked and seen["loss_pct"] < 100:
            seen["handshake"] = int(time.time())
        elif not wireguard and not asked and "loss_pct" in was:
            seen["loss_pct"], seen["rtt_ms"] = was["loss_pct"], was.get("rtt_ms")  # as it was at its turn
        notes["peers"].append(seen)
    notes["mtu"] = interface_mtu(interface)
    notes["at"] = int(time.time())
    return notes


def main() -> int:
    try:
        with open(CONFIG) as file:
            config = json.load(file)
    except (OSError, ValueError):
        return 0  # no tunnel, nothing to keep
    before = {}  # type: dict[str, Any]
    try:
        with open(NOTES) as file:
            before = json.load(file)
    except (OSError, ValueError):
        pass
    os.makedirs(os.path.dirname(NOTES), exist_ok=True)
    if not isinstance(before, dict) or not isinstance(before.get("peers", []), list):
        before = {}  # damaged by a crash: what it knew was of a quarter of a minute
    notes = look_after(config, before)
    with open(NOTES + ".new", "w") as file:
        json.dump(notes, file, sort_keys=True)
    os.rename(NOTES + ".new", NOTES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
