"""The machine around the cards: disk, clock, processes, network, and whether it is one at all."""

from __future__ import annotations

import re

from provisioner.doctor.facts.fact import UNSEEN, Fact, Seen
from provisioner.doctor.host import Host, shown
from provisioner.doctor.truth import Evidence
from provisioner.facts import machine
from provisioner.facts.listing import matching
from provisioner.model.capture import UNKNOWN

_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1048576, "": 1}
_STORES = ("/", "/var", "/var/lib/docker", "/var/lib/containerd", "/var/lib/rancher")


def _free(host: Host) -> dict[str, tuple[float, Evidence]]:
    """MiB free by path, from any df that somebody ran."""
    found: dict[str, tuple[float, Evidence]] = {}
    known = machine.disk_free_mib(host.capture)
    for path, mib in known.items() if known is not UNKNOWN else ():
        line = next(
            (line for line in host.capture.commands if line.startswith("df -B1M") and path in line.split()), "df -B1M"
        )
        found[path] = (mib, shown("free", f"{mib} MiB on {path}", line))
    for line, answer in host.answers("df*"):
        if line.startswith("df -B1M"):
            continue
        unit = 1 / 1024 if answer.stdout.split("\n", 1)[0].find("1K-blocks") >= 0 else 1
        for row in answer.stdout.splitlines()[1:]:
            words = row.split()
            match = re.fullmatch(r"([\d.]+)([KMGT]?)i?B?", words[3]) if len(words) >= 6 else None
            if match:
                size = float(match[1]) * (_UNITS[match[2]] if match[2] else unit)
                found.setdefault(words[5], (size, shown("free", row, line)))
    return found


def _stores_free(host: Host) -> Seen:
    """MiB free where packages, logs and container images go: the least of them."""
    free = [item for path, item in _free(host).items() if path in _STORES]
    least = min(free, key=lambda item: item[0], default=None)
    return UNSEEN if least is None else Seen(int(least[0]), (least[1],))


def _boot_free(host: Host) -> Seen:
    item = _free(host).get("/boot")
    return UNSEEN if item is None else Seen(int(item[0]), (item[1],))


def _clock(host: Host) -> Seen:
    skew = machine.clock_skew_s(host.capture, host.capture.taken_at)
    return UNSEEN if skew is UNKNOWN else Seen(abs(skew), (shown("clock", f"{skew:+.1f} s", "date +%s.%N"),))


def _kind(host: Host) -> Seen:
    """`lxc`, `docker`, `kvm`, `wsl`, …; None for bare metal."""
    if host.running is not UNKNOWN and "microsoft" in host.running.lower():
        return Seen("wsl", (shown("kernel", host.running, host.shown_by("/proc/sys/kernel/osrelease", "uname -r")),))
    for line, answer in host.answers("systemd-detect-virt", "systemd-detect-virt -c"):
        kind = answer.stdout.strip()
        if kind:
            return Seen(None if kind == "none" else kind, (shown("inside", kind, line),))
    return UNSEEN


def _zombies(host: Host) -> Seen:
    """Processes that ended and that nobody took note of."""
    counts: list[tuple[int, Evidence]] = []
    for line, answer in host.answers("ps *"):
        if "grep -c" in line and "Z" in line:
            if answer.stdout.strip().isdecimal():
                counts.append((int(answer.stdout), shown("zombies", answer.stdout, line)))
        elif "stat" in line:
            rows = [row for row in answer.stdout.splitlines() if row.split()[:1] and row.split()[0].startswith("Z")]
            counts.append((len(rows), shown("zombies", f"{len(rows)}: {rows[0] if rows else ''}", line)))
    most = max(counts, key=lambda item: item[0], default=None)
    return UNSEEN if most is None else Seen(most[0], (most[1],))


def _stuck(host: Host) -> Seen:
    """NVIDIA's programs that wait in the kernel and cannot be ended."""
    for line, answer in host.answers("ps *stat*"):
        rows = [row for row in answer.stdout.splitlines() if re.match(r"\s*D\S*\s.*\b(nvidia|cuda)", row)]
        return Seen(tuple(row.split()[-1] for row in rows), tuple(shown("stuck", row, line) for row in rows[:2]))
    return UNSEEN


_TUNNEL = re.compile(r"(wg|tun|tap|tailscale|zt|nebula|cloudflare|prov\d)\w*")
_OVERLAY = re.compile(r"(docker0|br-|cni|flannel|cilium|vxlan|cali|kube)")


def _mtu(host: Host) -> Seen:
    """Overlays and bridges that take larger packets than the tunnel does."""
    for line, answer in host.answers("ip *link*", "ip a*"):
        sizes = re.findall(r"^\d+: ([\w.-]+)(?:@\S+)?: .*?mtu (\d+)", answer.stdout, re.MULTILINE)
        tunnels = [(int(mtu), name) for name, mtu in sizes if _TUNNEL.match(name)]
        if not sizes:
            continue
        if not tunnels:
            return Seen(())
        least, tunnel = min(tunnels)
        large = [(name, mtu) for name, mtu in sizes if _OVERLAY.match(name) and int(mtu) > least]
        rows = tuple(shown("MTU", f"{name} {mtu}, {tunnel} {least}", line) for name, mtu in large[:2])
        return Seen(tuple(name for name, _ in large), rows)
    return UNSEEN


def _missing(host: Host, program: str) -> bool:
    """Whether the host was found to have no such program."""
    return any(
        answer.rc == 127 and line.split()[0] == program for line, answer in host.capture.commands.items() if line
    )


def _firewall(host: Host) -> Seen:
    """Whether ufw is on."""
    if _missing(host, "ufw"):
        return Seen(False)
    for line, answer in host.answers("ufw status*"):
        match = re.search(r"^Status: (\w+)", answer.stdout, re.MULTILINE)
        if match:
            return Seen(match[1] == "active", (shown("ufw", match[0], line),))
    text = host.capture.file("/etc/ufw/ufw.conf")
    if isinstance(text, str):
        return Seen(bool(re.search(r"^ENABLED=yes", text, re.MULTILINE)), (shown("ufw", text, "/etc/ufw/ufw.conf"),))
    return UNSEEN if text is UNKNOWN else Seen(False)


def _published(host: Host) -> Seen:
    """Ports that containers publish on every address."""
    if _missing(host, "docker"):
        return Seen(())
    for line, answer in host.answers("docker ps*"):
        ports = re.findall(r"(?:0\.0\.0\.0|\[?::\]?):(\d+)->", answer.stdout)
        return Seen(tuple(dict.fromkeys(ports)), (shown("published", answer.stdout[:200], line),) if ports else ())
    return UNSEEN


def _user_rules(host: Host) -> Seen:
    """Rules of the operator's own in DOCKER-USER."""
    for line, answer in host.answers("iptables *DOCKER-USER*"):
        rules = [row for row in answer.stdout.splitlines() if row.startswith("-A") and not row.endswith("-j RETURN")]
        return Seen(tuple(rules), (shown("DOCKER-USER", answer.stdout, line),))
    return UNSEEN


def _iommu(host: Host) -> Seen:
    """Whether devices' addresses are translated: `identity` and `off` are not."""
    for line, answer in host.answers("cat /sys/kernel/iommu_groups/*/type"):
        kinds = set(answer.stdout.split())
        return Seen("translated" if kinds - {"identity"} else "identity", (shown("IOMMU", answer.stdout, line),))
    for path, text in host.files("/sys/kernel/iommu_groups/*/type").items():
        return Seen("translated" if text.strip() != "identity" else "identity", (shown("IOMMU", text, path),))
    if matching(host.capture, "/sys/kernel/iommu_groups/*/type") == ():
        return Seen("off")
    cmdline = host.capture.file("/proc/cmdline")
    if isinstance(cmdline, str) and re.search(r"\biommu=(pt|off)|(amd|intel)_iommu=off", cmdline):
        return Seen("identity", (shown("IOMMU", cmdline, "/proc/cmdline"),))
    return UNSEEN


def _failed(host: Host) -> Seen:
    """Units that failed."""
    names: dict[str, Evidence] = {}
    looked = False
    if host.units is not UNKNOWN:
        looked = True
        for state in host.units.values():
            if state.active == "failed":
                names.setdefault(state.name, shown("unit", f"{state.name} failed", host.unit_line))
    for line, answer in host.capture.commands.items():
        match = re.match(r"systemctl (?:is-failed|is-active|status) ([\w@.-]+)", line)
        if match:
            name = match[1] if "." in match[1] else f"{match[1]}.service"
            failed = answer.stdout.strip() == "failed" or re.search(
                r"Active: failed|Failed with result|code=exited, status=[1-9]", answer.stdout
            )
            if failed:
                names.setdefault(name, shown("unit", answer.stdout.strip().splitlines()[-1], line))
            looked = looked or bool(answer.stdout)
    return Seen(tuple(names), tuple(names.values())) if names or looked else UNSEEN


def _nodes(host: Host) -> Seen:
    """Device files of the driver."""
    for line, answer in host.capture.commands.items():
        if re.fullmatch(r"ls (-\w+ )?/dev/nvidia\*", line) and answer.rc in (0, 2):
            names = tuple(re.findall(r"/dev/(nvidia[\w-]*)", answer.stdout))
            return Seen(names, (shown("devices", " ".join(names) or "none", line),))
    return UNSEEN


FACTS = (
    Fact("disk.free", "number", "MiB free for packages and images", "df -h / /var/lib/docker", _stores_free),
    Fact("disk.boot_free", "number", "MiB free on /boot", "df -h /boot", _boot_free),
    Fact("clock.skew", "number", "seconds that the clock is off", "timedatectl", _clock),
    Fact("machine.inside", "text", "what the host runs in", "systemd-detect-virt", _kind),
    Fact("processes.zombies", "number", "zombie processes", "ps -eo stat,ppid,comm", _zombies),
    Fact("processes.stuck", "texts", "stuck GPU programs", "ps -eo stat,pid,comm", _stuck),
    Fact("network.large_mtu", "texts", "overlays with a larger MTU than the tunnel", "ip -o link", _mtu),
    Fact("network.ufw", "truth", "whether ufw is on", "ufw status", _firewall),
    Fact("network.published", "texts", "ports that containers publish", "docker ps", _published),
    Fact("network.user_rules", "texts", "rules in DOCKER-USER", "iptables -S DOCKER-USER", _user_rules),
    Fact("machine.iommu", "text", "the IOMMU", "cat /sys/kernel/iommu_groups/*/type", _iommu),
    Fact("units.failed", "texts", "failed units", "systemctl --failed", _failed),
    Fact("devices.nodes", "texts", "the driver's device files", "ls /dev/nvidia*", _nodes),
)
