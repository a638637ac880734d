"""What NVML answered: the driver as a CUDA process would meet it, and the health of each GPU."""

from __future__ import annotations

from typing import Any

from provisioner.facts.gpus import slot
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import GpuHealth, NvmlFacts


def read(capture: Capture) -> NvmlFacts | Unknown:
    answer = capture.nvml
    if not answer:
        return UNKNOWN
    error = answer.get("error")
    if error:
        return NvmlFacts(error=str(error), driver_version=None, cuda_version=None)
    devices = answer.get("devices")
    return NvmlFacts(
        error=None,
        driver_version=_text(answer.get("driver_version")),
        cuda_version=cuda_version(answer.get("cuda_driver_version")) or _text(answer.get("cuda_version")),
        gpus=tuple(_gpu(item) for item in devices if isinstance(item, dict)) if isinstance(devices, list) else (),
    )


def cuda_version(number: Any) -> str | None:
    """12020 is CUDA 12.2."""
    return f"{number // 1000}.{number % 1000 // 10}" if isinstance(number, int) and number > 0 else None


def _gpu(item: dict[str, Any]) -> GpuHealth:
    """A card that NVML lists but cannot open keeps its place, with its error as its name."""
    bus = _text(item.get("bus_id"))
    memory, power, limit = (_number(item.get(key)) for key in ("memory_total", "power_mw", "power_limit_mw"))
    return GpuHealth(
        index=_number(item.get("index")) or 0,
        name=_text(item.get("name")) or _text(item.get("error")) or "",
        uuid=_text(item.get("uuid")) or "",
        slot=slot(bus) if bus else "",
        memory_mib=memory >> 20 if memory is not None else None,
        temperature_c=_number(item.get("temperature_c")),
        power_w=power / 1000 if power is not None else None,
        power_limit_w=limit / 1000 if limit is not None else None,
        compute_processes=_number(item.get("compute_processes")),
        pcie_width=_number(item.get("pcie_width")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
