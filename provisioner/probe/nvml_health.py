"""What doctor asks of each card besides: link, memory rows, clocks. Appended to nvml_calls.py when it travels."""

MYPY = False
if MYPY:  # never true: on the host both texts are run as one
    from typing import Any

    from provisioner.probe.nvml_calls import MORE, or_none


def health(nvml: "Any", handle: "Any") -> "dict[str, Any]":
    """Null for what this card or library does not tell; row remapping exists from Ampere on, and not on GeForce."""
    rows = or_none(nvml.nvmlDeviceGetRemappedRows, handle)
    bar1 = or_none(nvml.nvmlDeviceGetBAR1MemoryInfo, handle)
    mig = or_none(nvml.nvmlDeviceGetMigMode, handle)
    reasons = or_none(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if reasons is None:  # the name before driver 535
        reasons = or_none(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return {
        "pcie_width_max": or_none(nvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
        "pcie_generation": or_none(nvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
        "pcie_generation_max": or_none(nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        "throttle_reasons": reasons,
        "bar1_total": int(bar1.bar1Total) if bar1 is not None else None,
        "mig_mode": mig[0] if mig is not None else None,
        "fan_percent": or_none(nvml.nvmlDeviceGetFanSpeed, handle),
        "remapped_rows": (
            {"correctable": rows[0], "uncorrectable": rows[1], "pending": bool(rows[2]), "failed": bool(rows[3])}
            if rows is not None
            else None
        ),
    }


MORE.append(health)
