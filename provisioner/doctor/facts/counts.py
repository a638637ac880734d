"""How many cards each layer above NVML counts: the kernel driver, the container runtime, the cluster, the network."""

from __future__ import annotations

import re
from typing import Any

from provisioner.doctor.facts.cards import parsed_json
from provisioner.doctor.facts.containers import discovered_devices, in_cluster, specs, unread_specs
from provisioner.doctor.facts.fact import CALLED, UNSEEN, Fact, Seen
from provisioner.doctor.host import Host, shown
from provisioner.facts.listing import matching
from provisioner.model.capture import UNKNOWN
from provisioner.probe.request import ALLOCATABLE, HANDED_OUT, PROVIDER

_GPUS = "/proc/driver/nvidia/gpus/*"


def _in_driver(host: Host) -> Seen:
    """Cards that NVIDIA's module took: its own list, else those that sysfs says it holds."""
    listed = matching(host.capture, _GPUS)
    if listed is not UNKNOWN and listed:
        return Seen(len(listed), (shown("driver", f"{len(listed)} cards", f"ls -d {_GPUS}"),))
    if host.gpus is UNKNOWN or any(gpu.bound_to is UNKNOWN for gpu in host.gpus):
        return UNSEEN
    count = sum(1 for gpu in host.gpus if gpu.bound_to == "nvidia")
    return Seen(count, (shown("driver", f"nvidia holds {count} of {len(host.gpus)} cards", host.bus),))


_NAMED = re.compile(
    r"^[ \t]*-?[ \t]*[\"']?name[\"']?:[ \t]*[\"']?([\w:.-]+)[\"']?[ \t]*,?[ \t]*$|\"name\":\s*\"([\w:.-]+)\"", re.M
)


def _in_runtime(host: Host) -> Seen:
    """Whole cards that CDI has a name for; None where CDI is not used, for then the toolkit hands out what NVML has.

    Devices are named by number, by UUID or both; parts of cards (`0:1`) are no cards.
    """
    if unread_specs(host):
        return UNSEEN
    names: dict[str, str] = {}
    for path, text in specs(host).items():
        if "nvidia.com/gpu" in text:
            names |= {match[1] or match[2]: path for match in _NAMED.finditer(text)}
    if not names:
        devices = discovered_devices(host)
        if devices is not UNKNOWN:
            line, ids = devices
            names = {one.partition("=")[2]: line for one in ids if one.startswith("nvidia.com/gpu=")}
    numbers = [name for name in names if name.isascii() and name.isdecimal()]
    cards = numbers or [name for name in names if name.startswith("GPU-")]
    if cards:
        return Seen(len(cards), (shown("CDI", f"{len(cards)} cards: {', '.join(cards[:8])}", names[cards[0]]),))
    return UNSEEN if names else Seen(None)


def _allocatable(host: Host) -> Seen:
    """What the cluster may give away on this node; None on a host that is no node."""
    answer = host.capture.command(ALLOCATABLE.line)
    if answer is not UNKNOWN and answer.rc == 0:
        text = answer.stdout.strip() or "0"
        if text.isascii() and text.isdecimal():
            return Seen(int(text), (shown("allocatable", f"nvidia.com/gpu: {text}", "kubectl get node"),))
    for line, said in host.answers("kubectl get node*", "kubectl describe node*"):
        match = re.search(r"allocatable.*?nvidia\.com/gpu\"?\s*:\s*\"?(\d+)", said.stdout, re.IGNORECASE | re.DOTALL)
        if match is None and "allocatable" in line:
            match = re.search(r"nvidia\.com/gpu\"?\s*:\s*\"?(\d+)", said.stdout)
        if match:
            return Seen(int(match[1]), (shown("allocatable", f"nvidia.com/gpu: {match[1]}", line),))
    return Seen(None) if in_cluster(host) is False else UNSEEN


_ADVERTISED = (
    re.compile(r"\"gpu\":\{\"quantity\":\{\"allocatable\":\{\"string\":\"(\d+)\""),
    re.compile(r"\"allocatable\":\s*\{[^{}]*\"gpu\":\s*(\d+)"),
    re.compile(r"^[ \t]*\"[\w.-]+\"\s+\"[^\"]*\"\s+\"(?:\d+/)?(\d+)/\d+\"", re.MULTILINE),
)


def _advertised(host: Host) -> Seen:
    """What the network is told: by Akash's provider of this node, else by what a network's own container has.

    A client that is no container, on a host that asks no cluster, tells nobody here; then it is not seen.
    """
    told = _provider(host)
    if told is not None:
        return told
    for line, answer in host.answers("*provider*", "grpcurl *"):
        if line == PROVIDER.line:
            continue
        for pattern in _ADVERTISED:
            match = pattern.search(answer.stdout)
            if match:
                return Seen(int(match[1]), (shown("advertised", match[0], line),))
    return _of_containers(host)


def _provider(host: Host) -> Seen | None:
    """Of this node alone: a provider tells of all nodes of its cluster."""
    answer = host.capture.command(PROVIDER.line)
    if answer is UNKNOWN or answer.rc != 0:
        return None
    node, _, text = answer.stdout.partition("\n")
    found: Any = parsed_json(text)
    for key in ("cluster", "inventory", "available", "nodes"):
        found = found.get(key) if isinstance(found, dict) else None
    for one in found if isinstance(found, list) else ():
        amount = one.get("allocatable") if isinstance(one, dict) and one.get("name") == node else None
        count = amount.get("gpu") if isinstance(amount, dict) else None
        if isinstance(count, int) and not isinstance(count, bool):
            return Seen(count, (shown("advertised", f"{node}: gpu {count}", "akash-provider's status"),))
    return None


def _of_containers(host: Host) -> Seen:
    """The most cards that a container of a network's client has; containers of one network share the cards."""
    answer = host.capture.command(HANDED_OUT.line)
    if answer is UNKNOWN or answer.rc != 0:
        return UNSEEN
    rows = [row.split() for row in answer.stdout.splitlines()]
    mine = [row for row in rows if len(row) == 3 and row[1] != "-" and row[2].isascii() and row[2].isdecimal()]
    if not mine:
        return UNSEEN
    name, network, count = max(mine, key=lambda row: int(row[2]))
    return Seen(
        int(count), (shown("advertised", f"{name.strip('/')} of {network} has {count} cards", CALLED[HANDED_OUT.line]),)
    )


FACTS = (
    Fact("cards.in_driver", "number", "cards that the kernel driver holds", "ls /proc/driver/nvidia/gpus", _in_driver),
    Fact(
        "cards.in_runtime",
        "number",
        "cards that the container runtime has a name for",
        "nvidia-ctk cdi list",
        _in_runtime,
    ),
    Fact("cards.allocatable", "number", "cards that the cluster may give away", "kubectl describe node", _allocatable),
    Fact(
        "cards.advertised",
        "number",
        "cards that the network's agent advertises",
        "the provider's status",
        _advertised,
        asked=False,
    ),
)
