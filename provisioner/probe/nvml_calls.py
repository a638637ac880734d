"""What NVML is asked on a host; `nvml` is the part of pynvml that this needs. Runs in a child that may be killed."""

MYPY = False
if MYPY:  # never true: typing is not imported on the host
    from typing import Any


MORE = []  # type: list[Any]
"""What else each card is asked, when doctor looks: functions from (nvml, handle) to more fields."""


def name_of(nvml: "Any", code: int) -> str:
    """`NVML_ERROR_LIB_RM_VERSION_MISMATCH` for 18; the library missing has a word of its own."""
    if code == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return "library-not-found"
    for name in dir(nvml):
        if name.startswith("NVML_ERROR_") and getattr(nvml, name) == code:
            return name
    return f"NVML_ERROR_{code}"


def or_none(call: "Any", *arguments: "Any") -> "Any":
    """None for what this card or library does not tell; pynvml has one more exception for calls a library lacks."""
    try:
        return call(*arguments)
    except Exception:
        return None


def text(value: "Any") -> "Any":
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def device(nvml: "Any", index: int) -> "dict[str, Any]":
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError as error:
        return {"index": index, "error": name_of(nvml, error.value)}
    memory = or_none(nvml.nvmlDeviceGetMemoryInfo, handle)
    pci = or_none(nvml.nvmlDeviceGetPciInfo, handle)
    processes = or_none(nvml.nvmlDeviceGetComputeRunningProcesses, handle)
    known = {
        "index": index,
        "name": name,
        "uuid": text(or_none(nvml.nvmlDeviceGetUUID, handle)),
        "bus_id": text(pci.busId) if pci is not None else None,
        "memory_total": int(memory.total) if memory is not None else None,
        "memory_used": int(memory.used) if memory is not None else None,
        "temperature_c": or_none(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        "power_mw": or_none(nvml.nvmlDeviceGetPowerUsage, handle),
        "power_limit_mw": or_none(nvml.nvmlDeviceGetEnforcedPowerLimit, handle),
        "compute_processes": len(processes) if processes is not None else None,
        "pcie_width": or_none(nvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
        "persistence_mode": or_none(nvml.nvmlDeviceGetPersistenceMode, handle),
    }
    for more in MORE:
        known.update(more(nvml, handle))
    return known


def ask(nvml: "Any") -> "dict[str, Any]":
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return {"error": name_of(nvml, error.value)}
    return {
        "driver_version": text(or_none(nvml.nvmlSystemGetDriverVersion)),
        "nvml_version": text(or_none(nvml.nvmlSystemGetNVMLVersion)),
        "cuda_driver_version": or_none(nvml.nvmlSystemGetCudaDriverVersion),
        "devices": [device(nvml, index) for index in range(or_none(nvml.nvmlDeviceGetCount) or 0)],
    }
