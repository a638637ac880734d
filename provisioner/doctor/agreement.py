"""Two chains that must agree: the driver's version wherever it lies, and the number of cards that each layer counts."""

from __future__ import annotations

from dataclasses import dataclass

from provisioner.doctor.facts import FACTS
from provisioner.doctor.host import Host
from provisioner.model.capture import UNKNOWN

_VERSIONS = (
    ("driver.loaded", "loaded module"),
    ("driver.on_disk", "module on disk"),
    ("driver.modules", "modules of every kernel"),
    ("driver.boot_modules", "modules in the boot images"),
    ("driver.initramfs", "firmware in the initramfs"),
    ("driver.firmware", "firmware"),
    ("driver.library", "libnvidia-ml"),
    ("driver.libcuda", "libcuda"),
    ("driver.fabric_manager", "fabric manager"),
    ("persistenced.version", "persistence daemon"),
    ("cdi.driver", "every CDI spec"),
    ("driver.in_use", "held by processes"),
    ("driver.in_containers", "held by containers"),
)
_COUNTS = (
    ("cards.on_bus", "on the PCI bus"),
    ("cards.in_driver", "held by the driver"),
    ("cards.in_nvml", "opened by NVML"),
    ("cards.in_runtime", "named by the container runtime"),
    ("cards.allocatable", "allocatable in the cluster"),
    ("cards.advertised", "advertised to the network"),
)
# Debian builds the persistence daemon on its own, with a version that lawfully differs.
_MAY_LAG = {"persistenced.version"}


@dataclass(frozen=True)
class Link:
    """One place of a chain; `value` is None where there is nothing, `seen` False where nobody looked."""

    name: str
    words: str
    value: str | None
    seen: bool
    agrees: bool | None
    where: str = ""


@dataclass(frozen=True)
class Chain:
    """Places in order, each with whether it agrees with the first that was seen."""

    links: tuple[Link, ...]

    @property
    def agrees(self) -> bool | None:
        """None while fewer than two places were seen."""
        known = [link for link in self.links if link.agrees is not None]
        return None if len(known) < 2 else all(link.agrees for link in known)


def agreement(host: Host) -> Chain:
    """The driver's version in thirteen places, against the module that is loaded (or would load)."""
    return _chain(host, _VERSIONS)


def count_chain(host: Host) -> Chain:
    """How many cards the bus, the driver, NVML, the runtime, the cluster and the network each count."""
    return _chain(host, _COUNTS)


def _chain(host: Host, places: tuple[tuple[str, str], ...]) -> Chain:
    links: list[Link] = []
    first: str | None = None
    for name, words in places:
        seen = FACTS[name].of(host)
        if seen.value is UNKNOWN:
            links.append(Link(name, words, None, False, None))
            continue
        many = seen.value if isinstance(seen.value, tuple) else (seen.value,)
        texts = tuple(str(value) for value in many if value is not None)
        where = seen.evidence[0].where if seen.evidence else ""
        if not texts:
            links.append(Link(name, words, None, True, None, where))
            continue
        if first is None:
            first = texts[0]
        agrees = (
            None
            if name in _MAY_LAG
            else first in texts
            if name in ("driver.firmware", "driver.initramfs")
            else set(texts) == {first}
        )
        links.append(Link(name, words, ", ".join(texts), True, agrees, where))
    return Chain(tuple(links))
