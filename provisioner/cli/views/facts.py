"""How facts read: one short block per host for people; JSON with `null` for absent and "unknown" for not seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from provisioner.cli.views.tunnel import tunnel_words
from provisioner.cli.words import safe, table
from provisioner.errors import HostError
from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import HostFacts

FORMAT = 1


def facts_json(seen: Sequence[HostFacts], failures: Sequence[HostError]) -> str:
    """Return all hosts, and what went wrong with the others, as one document of format 1."""
    return json.dumps(
        {
            "format": FORMAT,
            "hosts": {host.host: plain(host) for host in seen},
            "failures": {
                failure.host: {"reference": failure.reference, "message": failure.message, "hint": failure.hint}
                for failure in failures
            },
        },
        indent=1,
    )


def plain(value: Any) -> Any:
    """A fact as JSON: UNKNOWN is the word "unknown", which is neither false nor null."""
    if value is UNKNOWN:
        return "unknown"
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def facts_text(host: HostFacts) -> str:
    """Return what a person asks first: system, kernel, cards, driver in its three places, runtime, trouble."""
    rows = [
        ("system", _system(host)),
        ("kernel", _kernel(host)),
        ("GPUs", _gpus(host)),
        ("driver", _driver(host)),
        ("runtime", _runtime(host)),
        ("offers", _offers(host)),
        ("machine", _machine(host)),
        *([("tunnel", tunnel)] if (tunnel := tunnel_words(host.tunnel)) else []),
    ]
    rows += [("trouble", line) for line in _trouble(host)]
    unseen = not_seen(host)
    if unseen:
        rows.append(("not seen", ", ".join(unseen)))
    return f"{safe(host.host)}\n" + table([(name, safe(text)) for name, text in rows], indent=2)


def not_seen(host: HostFacts) -> list[str]:
    """Names of the facts that the capture does not show."""
    names = []
    for field in fields(host):
        value = getattr(host, field.name)
        if field.name == "tunnel":
            continue  # most hosts have none, and what nobody misses is no news
        if value is UNKNOWN:
            names.append(field.name.replace("_", " "))
        elif is_dataclass(value):
            names += [
                f"{field.name} {inner.name.replace('_', ' ')}"
                for inner in fields(value)
                if getattr(value, inner.name) is UNKNOWN
            ]
    return names


def _system(host: HostFacts) -> str:
    if host.os is UNKNOWN:
        return "unknown"
    inside = f", in {host.virtualization}" if isinstance(host.virtualization, str) else ""
    return f"{host.os.name} ({host.os.architecture or 'architecture unknown'}){inside}"


def _kernel(host: HostFacts) -> str:
    kernel = host.kernel
    text = f"{_word(kernel.running)} runs"
    if kernel.next_boot is not UNKNOWN and kernel.next_boot != kernel.running:
        text += f", {kernel.next_boot} boots next"
    if kernel.headers is not UNKNOWN and kernel.next_boot is not UNKNOWN and kernel.next_boot not in kernel.headers:
        text += ", without headers"
    return text


def _gpus(host: HostFacts) -> str:
    if host.gpus is UNKNOWN:
        return "unknown"
    names = [gpu.name for gpu in host.nvml.gpus] if host.nvml is not UNKNOWN else []
    if not host.gpus:
        return "none of NVIDIA's on the PCI bus"
    ids = [f"{gpu.vendor}:{gpu.device} at {gpu.slot}" for gpu in host.gpus]
    if len(names) == len(ids):
        ids = [f"{name} ({id_})" for name, id_ in zip(names, ids, strict=True)]
    return ", ".join(ids)


def _driver(host: HostFacts) -> str:
    driver = host.driver
    flavour = f" ({driver.loaded_flavour})" if isinstance(driver.loaded_flavour, str) else ""
    return (
        f"loaded {_word(driver.loaded)}{flavour} · on disk {_word(driver.module_for_running)}"
        f" · library {_word(driver.library)}"
    )


def _runtime(host: HostFacts) -> str:
    runtime = host.runtime
    active = runtime.docker_active
    state = "unknown" if active is UNKNOWN else "active" if active else "not active"
    version = f" {runtime.docker_version}" if isinstance(runtime.docker_version, str) else ""
    count = f", {runtime.containers_running} containers run" if isinstance(runtime.containers_running, int) else ""
    return f"docker{version} {state}{count if active else ''}"


def _offers(host: HostFacts) -> str:
    if host.offers is UNKNOWN:
        return "unknown"
    names = {offer.name for offer in host.offers}
    return f"{len(host.offers)} versions of {len(names)} packages"


def _machine(host: HostFacts) -> str:
    parts = []
    if host.memory_mib is not UNKNOWN:
        parts.append(f"{host.memory_mib / 1024:.0f} GiB memory")
    if host.disk_free_mib is not UNKNOWN and "/" in host.disk_free_mib:
        parts.append(f"{host.disk_free_mib['/'] / 1024:.0f} GiB free on /")
    if host.clock_skew_s is not UNKNOWN and abs(host.clock_skew_s) > 1:
        parts.append(f"clock {host.clock_skew_s:+.1f} s")
    return ", ".join(parts) or "unknown"


def _trouble(host: HostFacts) -> list[str]:
    """What is plainly wrong; the diagnosis is for other commands."""
    lines = []
    if host.nvml is not UNKNOWN and host.nvml.error:
        lines.append(f"NVML: {host.nvml.error}")
    if host.failed_units is not UNKNOWN and host.failed_units:
        lines.append(f"failed units: {', '.join(host.failed_units)}")
    if host.packages is not UNKNOWN:
        broken = [package.name for package in host.packages.values() if not package.whole]
        if broken:
            lines.append(f"half-installed packages: {', '.join(broken)}")
    if host.tunnel.change == "reverted":
        lines.append(f"the last guarded change was taken back: {host.tunnel.change_why}")
    if host.tunnel.change in ("armed", "applied"):
        lines.append("a guarded change waits to be confirmed")
    return lines


def _word(value: object) -> str:
    return "unknown" if value is UNKNOWN else "none" if value is None else str(value)
