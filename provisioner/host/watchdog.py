"""provision-watchdog: once a minute, see what is wrong on this host and take the next step of its ladder.

The ladders and their limits stand in ladder.py and in docs/reference/watchdog.md. What it saw and did goes to the
journal, to /var/lib/provision/watchdog.json, and to /var/lib/provision/watchdog.prom for a textfile collector. It needs
no controller.

    provision-watchdog run               look, act, write
    provision-watchdog look              look and print, change nothing
    provision-watchdog serves NETWORK…   which clients serve now, since when and why not, and its last round, as JSON
"""

# pathlib and typing cost more to import than a look takes.
# ruff: noqa: PTH105, PTH110, PTH123

import json
import os
import re
import subprocess
import sys
import time

from provisioner.host import client, cluster, gate, ladder, nvml, power

MYPY = False
if MYPY:
    from typing import Any

    Json = dict[str, Any]

CONFIG = "/etc/provision/watchdog.json"
STATUS = gate.STATE + "/watchdog.json"
METRICS = gate.STATE + "/watchdog.prom"
CLIENTS = "/usr/local/lib/provision/clients"
HEALTH = "/usr/local/lib/provision/health"
CLUSTER = "/usr/local/sbin/provision-cluster"
CLUSTER_LIMIT_S = 240
KMSG = "/dev/kmsg"
BOOT = "/proc/sys/kernel/random/boot_id"

DISKS = ("/", "/var", "/var/lib/docker")
DISK_MIB = 1024
TUNNEL_S = 300  # the tunnel's own keeper looks four times a minute, and mends what it can in that time
HEALTH_LIMIT_S = 30

# Xids that speak of the card, and those that a program causes on a sound one; every other is told like the latter.
HARDWARE_XIDS = frozenset((48, 63, 64, 74, 79, 94, 95, 119, 120))
SLOWED = 0x20 | 0x40 | 0x80  # SwThermalSlowdown, HwThermalSlowdown, HwPowerBrakeSlowdown of nvml.h
MARK = "watchdog: "


class Host:
    """The world as the watchdog meets it; tests have their own."""

    def __init__(self, root: str = "") -> None:
        self.root = root

    def now(self) -> float:
        return time.time()

    def nvml(self) -> "Json":
        return gate.apart(nvml.watch, gate.NVML_LIMIT_S)

    def gate(self, network: str) -> "list[str]":
        return gate.closed_for_running(network, self.root)

    def admits(self, network: str) -> "list[str]":
        return gate.check(network, self.root)

    def active(self, unit: str) -> bool:
        return self.run(["systemctl", "is-active", "--quiet", unit]) == 0

    def since(self, unit: str) -> "float | None":
        """When an active unit became so; systemd tells it by the clock that a set time does not move."""
        rc, text = self.said(["systemctl", "show", "-p", "ActiveEnterTimestampMonotonic", unit])
        after = text.strip().rpartition("=")[2]
        if rc or not after.isdigit() or after == "0":
            return None
        return self.now() - time.monotonic() + int(after) / 1e6

    def jobs(self, containers: "str | None", network: str) -> "list[str]":
        return client.jobs(containers, self.root, networks=(network,))

    def cluster(self, verb: str, network: str) -> int:
        """What provision-cluster answers; 0 as well where Kubernetes does not run the client."""
        if not cluster.concerns(network, self.root):
            return 0
        return self.run([self.root + CLUSTER, verb, network], CLUSTER_LIMIT_S)

    def free_mib(self, path: str) -> "int | None":
        try:
            seen = os.statvfs(self.root + path)
        except OSError:
            return None
        return seen.f_bavail * seen.f_frsize >> 20

    def kernel_log(self) -> "list[str]":
        """Everything that the kernel's ring still holds, a record each."""
        try:
            log = os.open(self.root + KMSG, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return []
        records = []  # type: list[str]
        try:
            while True:
                try:
                    record = os.read(log, 8192)
                except BlockingIOError:
                    return records
                except BrokenPipeError:
                    continue  # overwritten while it was read; the next one is whole
                if not record:
                    return records
                records.append(record.decode("utf-8", "replace"))
        finally:
            os.close(log)

    def run(self, words: "list[str]", limit_s: float = 120) -> int:
        try:
            return subprocess.call(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=limit_s)
        except subprocess.TimeoutExpired:
            return 124
        except OSError:
            return 127

    def said(self, words: "list[str]", limit_s: float = HEALTH_LIMIT_S) -> "tuple[int, str]":
        """Exit code, and everything that it printed."""
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s
            )
        except subprocess.TimeoutExpired:
            return 124, f"no answer within {limit_s:g} s"
        except OSError as problem:
            return 127, str(problem)
        return done.returncode, done.stdout.decode("utf-8", "replace")

    def cap_power(self) -> "list[str]":
        try:
            with nvml.Nvml() as lib:
                return power.cap(lib)
        except nvml.Failed as problem:
            return [str(problem)]

    def restore_power(self, limits: "dict[str, float]") -> "list[str]":
        try:
            with nvml.Nvml() as lib:
                return power.restore(limits, lib)
        except nvml.Failed as problem:
            return [str(problem)]


# What is wrong.


def xids(records: "list[str]", after: int) -> "tuple[list[tuple[int, str]], int]":
    """Xids of records whose number is above `after`, as (Xid, words), and the highest number seen."""
    found, last = [], after
    for record in records:
        head, _, text = record.partition(";")
        fields = head.split(",")
        if len(fields) < 2 or not fields[1].isdigit() or int(fields[1]) <= after:
            continue
        last = max(last, int(fields[1]))
        match = re.search(r"NVRM: Xid \(([^)]*)\): (\d+)(?:,(.*))?", text.split("\n")[0])
        if match:
            found.append(
                (int(match.group(2)), f"Xid {match.group(2)} on {match.group(1)}:{match.group(3) or ''}".rstrip(":"))
            )
    return found, last


def causes(host: "Host", config: "Json", memory: "Json", seen: "Json") -> "dict[str, str]":
    """Everything that is wrong now; `seen` is what NVML gave. Notes in `memory` how far the kernel log was read."""
    found = {}  # type: dict[str, str]
    found.update(of_cards(seen, memory.get("cards", [])))
    found.update(of_kernel(host, memory))
    found.update(of_disks(host, config))
    found.update(of_tunnel(host))
    for network in config.get("networks", []):
        found.update(of_client(host, network))
    return found


def of_cards(seen: "Json", enrolled: "list[Json]") -> "dict[str, str]":
    """Nothing is said of cards when NVML gives an error: the gate says that."""
    if "error" in seen:
        return {}
    found = {}
    there = {card["uuid"] for card in seen["gpus"]}
    gone = [f"{card['name']} ({card['uuid']})" for card in enrolled if card["uuid"] not in there]
    if gone:
        found["gpu-gone"] = ", ".join(gone)
    for card in seen["gpus"]:
        heat = gate.hot(card)
        if heat:
            found["hot"] = heat[0]
        elif card["reasons"] is not None and card["reasons"] & SLOWED:
            found["throttling"] = f"{card['name']} is slowed down at {card['temperature_c']} °C, {card['power_w']} W"
    return found


def of_kernel(host: "Host", memory: "Json") -> "dict[str, str]":
    """A card that reported a fault stays faulty until the next boot; what a program caused is over."""
    boot = (gate.read(host.root + BOOT) or "").strip()
    known = memory.get("kernel") or {}
    if known.get("boot") != boot:
        known = {"boot": boot, "after": -1, "hardware": ""}
    fresh, known["after"] = xids(host.kernel_log(), known["after"])
    found = {}
    for number, words in fresh:
        if number in HARDWARE_XIDS:
            known["hardware"] = words
        else:
            found["xid-application"] = words
    memory["kernel"] = known
    if known["hardware"]:
        found["xid-hardware"] = known["hardware"]
    return found


def of_disks(host: "Host", config: "Json") -> "dict[str, str]":
    least = config.get("disk_mib", DISK_MIB)
    tight = [
        f"{path} has {free} MiB free" for path in DISKS for free in [host.free_mib(path)] if (free or least) < least
    ]
    return {"disk-full": ", ".join(tight)} if tight else {}


def of_tunnel(host: "Host") -> "dict[str, str]":
    """What the tunnel's keeper noted: a far end that is silent for longer than the keeper needs to mend it."""
    if not os.path.exists(host.root + gate.TUNNEL):
        return {}
    notes = load(host.root + gate.TUNNEL_NOTES)
    age = host.now() - notes.get("at", 0)
    if age > TUNNEL_S:
        return {"tunnel-stale": "nobody looks after the tunnel" + (f" since {age:.0f} s" if notes else "")}
    silent = gate.silent(host.root)
    old = [end["host"] for end in notes["peers"] if host.now() - end.get("handshake", 0) > TUNNEL_S]
    dead = [name for name in silent if name in old]
    return {"tunnel-stale": f"{', '.join(dead)} does not answer through the tunnel"} if dead else {}


def of_client(host: "Host", network: str) -> "dict[str, str]":
    """Only what has been installed and enrolled is expected to run; a drained one is expected not to."""
    if not os.access(f"{host.root}{CLIENTS}/{network}", os.X_OK) or not os.path.exists(host.root + gate.RECORD):
        return {}
    told = host.gate(network)
    active = host.active(f"provision-client@{network}.service")
    if told:
        # A node takes pods whether its unit runs or not: after a crash nobody held it back.
        takes = active or (cluster.concerns(network, host.root) and host.cluster("open", network) == 0)
        return {f"gate-closed/{network}": told[0]} if takes else {}
    if not active and os.path.exists(f"{host.root}{gate.DRAINED}/{network}"):
        return {}
    if not active:
        return {f"client-down/{network}": "its unit does not run"}
    check = f"{HEALTH}/{network}"
    if os.access(host.root + check, os.X_OK) and host.run([host.root + check], HEALTH_LIMIT_S):
        return {f"heartbeat-stale/{network}": f"{check} says it does not serve"}
    return {}


def serving(host: "Host", network: str) -> "Json":
    """Whether a client serves now, since when, and what keeps it from it, or will once it has stopped."""
    unit = f"provision-client@{network}.service"
    closed = host.admits(network)
    if not host.active(unit):
        there = os.access(f"{host.root}{CLIENTS}/{network}", os.X_OK)
        why = "its unit does not run" if there else f"nothing starts it: {CLIENTS}/{network} is not there"
        return {"serves": False, "since": None, "why": closed[0] if closed else why}
    check = f"{HEALTH}/{network}"
    if os.access(host.root + check, os.X_OK):
        rc, text = host.said([host.root + check])
        if rc:
            lines = text.strip().splitlines()
            return {"serves": False, "since": None, "why": lines[0] if lines else f"{check} says it does not serve"}
    began = host.since(unit)
    return {
        "serves": True,
        "since": gate.stamp(began) if began is not None else None,
        "why": closed[0] if closed else "",
    }


# What is done.


def act(host: "Host", config: "Json", action: str, cause: str, words: str) -> "list[str]":
    """Take one action; what came of it, in words."""
    named = cause.partition("/")[2]
    networks = [named] if named else list(config.get("networks", []))
    units = [f"provision-client@{network}.service" for network in networks]
    if action == "drain":
        for network in networks:
            if not os.path.exists(f"{host.root}{gate.DRAINED}/{network}"):
                client.close(network, host.root, MARK + words)
        failed = [network for network in networks if host.cluster("hold", network)]
        return [
            f"gate of {', '.join(networks)} closed",
            *(f"the node of {one} could not be held back" for one in failed),
        ]
    if action == "cap-power":
        return host.cap_power() or ["no card can be capped further"]
    if action == "reboot":
        return [] if host.run(["systemctl", "reboot"]) == 0 else ["systemctl reboot was refused"]
    if action == "restart-tunnel":
        units = [load(host.root + gate.TUNNEL).get("unit", ""), "provision-tunnel.timer"]
        return done(host, ["systemctl", "restart", *filter(None, units)])
    verb = action.partition("-")[0]
    return done(host, ["systemctl", verb, "--no-block", *units]) if units else []


def done(host: "Host", words: "list[str]") -> "list[str]":
    rc = host.run(words)
    return [] if rc == 0 else [f"{' '.join(words)}: exit code {rc}"]


def reopen(host: "Host", config: "Json") -> "list[str]":
    """When nothing is wrong any more, take back the marks that the watchdog itself set, and the power caps."""
    taken = []
    for network in config.get("networks", []):
        mark = gate.read(f"{host.root}{gate.DRAINED}/{network}")
        if mark is not None and mark.startswith(MARK):
            client.reopen(network, host.root)
            # Where its unit does not run, the unit does this when the gate lets it start.
            if host.active(f"provision-client@{network}.service"):
                host.cluster("release", network)
            taken.append(network)
    return taken


def busy(host: "Host", config: "Json") -> bool:
    """Whether a job runs; what cannot be seen counts as one."""
    patterns = config.get("jobs") or {}
    try:
        return any(host.jobs(patterns.get(network), network) for network in config.get("networks", []))
    except client.Unseen:
        return True


def enrolled_cards(root: str) -> "list[Json]":
    """The cards of the record; none when it does not hold."""
    try:
        record = gate.opened(gate.read(root + gate.RECORD) or "", gate.read(root + gate.KEYS) or "")
        return list(record["stack"]["gpus"])
    except (gate.Closed, KeyError, TypeError):
        return []


def run(host: "Host", config: "Json") -> "Json":
    """One round: look, decide, act, and what is to be written."""
    before = load(host.root + STATUS).get("memory") or {}
    memory = {"kernel": before.get("kernel"), "cards": enrolled_cards(host.root)}
    capped = before["capped"] if isinstance(before.get("capped"), dict) else {}
    seen = host.nvml()
    found = causes(host, config, memory, seen)
    decision = ladder.decide(
        found, before.get("ladder") or {}, host.now(), busy(host, config), config.get("reboot", False)
    )
    memory["ladder"] = decision.memory
    actions = []
    if not decision.memory["causes"]:
        actions += [{"action": "reopen", "cause": network, "words": ""} for network in reopen(host, config)]
        for words in host.restore_power(capped) if capped else []:
            say(words)
        if capped:
            host.run(["systemctl", "try-restart", "--no-block", "provision-power.service"])
    memory["capped"] = capped_after(capped, decision, seen)
    status = {"format": 1, "at": gate.stamp(host.now()), "causes": found, "held": decision.held, "actions": actions}
    status.update({"nvml": seen, "memory": memory})
    # Written before anything is done: a reboot that comes at once must not be forgotten, or its limit would be.
    write(host.root + STATUS, json.dumps(status, sort_keys=True) + "\n")
    for action, cause, words in decision.actions:
        came = act(host, config, action, cause, words) if action != "tell" else []
        actions.append({"action": action, "cause": cause, "words": "; ".join(came)})
        say(
            f"{cause}: {words}; {'nothing more will be tried' if action == 'tell' else action}"
            + "".join(f"; {c}" for c in came)
        )
    counters = before.get("counters") or {}
    for one in actions:
        name = f"{one['action']}/{one['cause'].partition('/')[0]}"
        counters[name] = counters.get(name, 0) + 1
    memory["counters"] = counters
    write(host.root + STATUS, json.dumps(status, sort_keys=True) + "\n")
    write(host.root + METRICS, metrics(status, config))
    return status


def capped_after(capped: "dict[str, float]", decision: "ladder.Decision", seen: "Json") -> "dict[str, float]":
    """Each card's limit before the first cap, as uuid -> watts; nothing is capped any more once no cause is left."""
    if not decision.memory["causes"]:
        return {}
    if not any(action == "cap-power" for action, _, _ in decision.actions):
        return capped
    limits = {card["uuid"]: card["limit_w"] for card in seen.get("gpus", []) if card["limit_w"] is not None}
    return {**limits, **capped}


# What is written.


def load(path: str) -> "Json":
    """A file that is damaged or not there is empty: the ladder begins anew."""
    try:
        return dict(json.loads(gate.read(path) or "{}"))
    except (ValueError, TypeError):
        return {}


def write(path: str, text: str) -> None:
    """Whole or not at all."""
    with open(path + ".new", "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(path + ".new", path)


def metrics(status: "Json", config: "Json") -> str:
    """Prometheus text format, version 0.0.4."""
    lines = []

    def family(name: str, kind: str, text: str, rows: "list[tuple[dict[str, str], Any]]") -> None:
        lines.append(f"# HELP provision_{name} {text}")
        lines.append(f"# TYPE provision_{name} {kind}")
        for labels, value in rows:
            inside = ",".join(f'{key}="{quoted(word)}"' for key, word in sorted(labels.items()))
            lines.append(f"provision_{name}{'{' + inside + '}' if inside else ''} {value}")

    known = status["memory"]["ladder"]["causes"]
    family(
        "watchdog_cause",
        "gauge",
        "1 while the cause is seen.",
        [
            ({"cause": name.partition("/")[0], "network": name.partition("/")[2]}, int(name in status["causes"]))
            for name in sorted(known)
        ],
    )
    family(
        "watchdog_actions_total",
        "counter",
        "Actions taken, by action and cause.",
        [
            ({"action": name.partition("/")[0], "cause": name.partition("/")[2]}, count)
            for name, count in sorted(status["memory"]["counters"].items())
        ],
    )
    down = {name.partition("/")[2] for name in status["causes"] if "/" in name}
    family(
        "client_serves",
        "gauge",
        "1 while nothing is wrong with the network's client.",
        [({"network": network}, int(network not in down)) for network in sorted(config.get("networks", []))],
    )
    cards = status["nvml"].get("gpus", [])
    for key, name, text in (
        ("temperature_c", "gpu_temperature_celsius", "Temperature of the GPU."),
        ("power_w", "gpu_power_watts", "Power that the GPU draws."),
        ("limit_w", "gpu_power_limit_watts", "Power limit that is set."),
    ):
        rows = [({"uuid": str(card["uuid"]), "name": str(card["name"])}, card[key]) for card in cards]
        family(name, "gauge", text, [row for row in rows if row[1] is not None])
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def say(line: str) -> None:
    gate.say(line, level=4)


def main(argv: "list[str]", host: "Host | None" = None) -> int:
    here = host or Host()
    if argv[:1] == ["serves"] and all(map(client.safe_name, argv)):
        clients = {network: serving(here, network) for network in argv[1:]}
        last = load(here.root + STATUS) or None
        print(json.dumps({"format": 1, "clients": clients, "watchdog": last}, sort_keys=True))
        return 0
    if argv not in (["run"], ["look"]):
        sys.stderr.write((__doc__ or "").partition("\n\n")[2])
        return 2
    config = load(here.root + CONFIG)
    if argv == ["look"]:
        memory = {"kernel": None, "cards": enrolled_cards(here.root)}
        print(json.dumps(causes(here, config, memory, here.nvml()), indent=2, sort_keys=True))
    else:
        run(here, config)
    return 0


def entry() -> None:
    sys.exit(main(sys.argv[1:]))
