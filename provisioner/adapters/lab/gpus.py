"""Simulated cards: what the matrix says of a model, and the description of hardware that a lab host boots with."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from provisioner.matrix.reader import load

_NAMESPACE = uuid.UUID("6f0f3a52-6c4b-4f0e-9a53-2f6f4c61f0a4")
_SLOTS = (0x01, 0x21, 0x41, 0x61, 0x81, 0xA1, 0xC1, 0xE1)


@dataclass(frozen=True)
class GpuModel:
    """One card as the lab needs it.

    `open` says whether the open module drives it ("yes", "no", "only"); a branch that is None is no bound.
    """

    id: str
    name: str
    vendor_id: str
    device_id: str
    memory_mib: int
    architecture: str
    compute_capability: str
    segment: str
    open: str
    first_branch: int | None
    last_branch: int | None
    power_w: int


@dataclass(frozen=True)
class _Silicon:
    """What cards of one architecture share: NVML's number, PCIe generation, sound function, idle and top clocks."""

    nvml: int
    link: int
    audio: str
    idle_mhz: int
    boost_mhz: int
    memory_mhz: int
    remaps_rows: bool = False


# NVML's numbers are those of nvmlDeviceArchitecture_t; the rest is typical of the architecture, not of one model.
_SILICON: Mapping[str, _Silicon] = {
    "fermi": _Silicon(2, 2, "0bee", 405, 1401, 1900),
    "kepler": _Silicon(2, 3, "0e1a", 324, 1058, 3505),
    "maxwell": _Silicon(3, 3, "0fb0", 135, 1329, 3505),
    "pascal": _Silicon(4, 3, "10f0", 139, 1911, 5005),
    "volta": _Silicon(5, 3, "10f2", 135, 1530, 877),
    "turing": _Silicon(6, 3, "10f7", 300, 2100, 7001),
    "ampere": _Silicon(7, 4, "1aef", 210, 2100, 9751, remaps_rows=True),
    "ada": _Silicon(8, 4, "22ba", 210, 3105, 10501, remaps_rows=True),
    "hopper": _Silicon(9, 5, "22bb", 345, 1980, 2619, remaps_rows=True),
    "blackwell": _Silicon(10, 5, "22e8", 180, 3090, 14001, remaps_rows=True),
}
_SPEEDS = {2: "5.0 GT/s PCIe", 3: "8.0 GT/s PCIe", 4: "16.0 GT/s PCIe", 5: "32.0 GT/s PCIe"}
_BRANDS = {"quadro": 1, "tesla": 2, "geforce": 5, "titan": 6, "rtx": 12, "datacenter": 14, "integrated": 14}


def gpu_models() -> dict[str, GpuModel]:
    """Return every model of the matrix that the lab can show on a PCI bus, by id."""
    matrix = load()
    models: dict[str, GpuModel] = {}
    for entry in matrix.gpus.values():
        architecture = matrix.architectures.get(entry.architecture)
        if not entry.pci or architecture is None or entry.architecture not in _SILICON:
            continue
        last = entry.last_driver or architecture.last_driver
        device = entry.pci[0]
        memory = device.memory_gib or (entry.memory_gib or (8.0,))
        gib = memory[0] if isinstance(memory, tuple) else memory
        models[entry.id] = GpuModel(
            id=entry.id,
            name=nvml_name(entry.name),
            vendor_id=device.vendor,
            device_id=device.device,
            memory_mib=int(gib * 1024),
            architecture=entry.architecture,
            compute_capability=str(entry.compute_capability),
            segment=entry.segment,
            open={(True, True): "yes", (True, False): "only"}.get(
                ("open" in entry.modules, "proprietary" in entry.modules), "no"
            ),
            first_branch=int(architecture.first_driver) if architecture.first_driver else None,
            last_branch=int(last) if last else None,
            power_w=entry.tdp_w or 250,
        )
    return models


def nvml_name(name: str) -> str:
    """Write a model's name as the driver does: "GeForce RTX 3090" is "NVIDIA GeForce RTX 3090", "Tesla T4" stays."""
    return name if name.startswith(("Tesla", "Quadro", "NVIDIA")) else f"NVIDIA {name}"


def hardware(lab: str, host: str, cards: Iterable[GpuModel]) -> dict[str, Any]:
    """Describe a host's cards for boot.py; the same lab and host always give the same UUIDs."""
    return {"gpus": [_card(lab, host, slot, card) for slot, card in enumerate(cards)]}


def _card(lab: str, host: str, slot: int, card: GpuModel) -> dict[str, Any]:
    silicon = _SILICON[card.architecture]
    identity = uuid.uuid5(_NAMESPACE, f"{lab}/{host}/{slot}")
    return {
        "id": card.id,
        "name": card.name,
        "bus": f"0000:{_SLOTS[slot]:02x}:00.0",
        "device": card.device_id.lower(),
        "subsystem": f"10de:{card.device_id.lower()}",
        # Cards for computing are 3D controllers without a display; the others are VGA controllers.
        "class": "030200" if card.segment == "datacenter" else "030000",
        "audio": None if card.segment == "datacenter" else silicon.audio,
        "link_speed": _SPEEDS[silicon.link],
        "link_width": "16",
        "uuid": f"GPU-{identity}",
        "vbios": f"{0x80 + silicon.nvml:02x}.{slot:02d}.10.00.01",
        "open": card.open,
        "first_branch": card.first_branch,
        "last_branch": card.last_branch,
        "nvml": _idle(card, silicon, identity),
    }


def _idle(card: GpuModel, silicon: _Silicon, identity: uuid.UUID) -> dict[str, object]:
    """A card that does nothing; keys as nvml.c reads them, and a key that is left out is "not supported"."""
    server = card.segment == "datacenter"
    milliwatts = card.power_w * 1000
    keys: dict[str, object] = {
        "architecture": silicon.nvml,
        "brand": 14 if server and silicon.nvml >= 7 else _BRANDS["tesla"] if server else _BRANDS["geforce"],
        "compute_capability": card.compute_capability,
        "memory_total_mib": card.memory_mib,
        "memory_reserved_mib": 300 if card.memory_mib > 8192 else 150,
        "memory_used_mib": 1,
        "temperature": 34,
        "temperature_max": 87,
        "temperature_slowdown": 95,
        "temperature_shutdown": 98,
        "power_mw": milliwatts // 14,
        "power_limit_mw": milliwatts,
        "power_default_mw": milliwatts,
        "power_min_mw": milliwatts * 2 // 5,
        "power_max_mw": milliwatts if server else milliwatts * 11 // 10,
        "utilization_gpu": 0,
        "utilization_memory": 0,
        "clock_graphics": silicon.idle_mhz,
        "clock_sm": silicon.idle_mhz,
        "clock_memory": 405,
        "clock_video": silicon.idle_mhz + 345,
        "clock_max_graphics": silicon.boost_mhz,
        "clock_max_sm": silicon.boost_mhz,
        "clock_max_memory": silicon.memory_mhz,
        "clock_max_video": silicon.boost_mhz - 150,
        "throttle_reasons": "0x1",
        "pstate": 8,
        "link_gen": 1,
        "link_gen_max": silicon.link,
        "link_width": 16,
        "link_width_max": 16,
        "link_replays": 0,
    }
    if server:
        keys |= {"ecc": 1, "ecc_corrected": 0, "ecc_uncorrected": 0, "serial": f"{identity.int % 10**13:013d}"}
    else:
        keys |= {"fans": 2, "fan": 0}
    if silicon.remaps_rows and server:
        keys["remapped_rows"] = "0 0 0 0"
    return keys
