"""Asks NVML through ctypes: the few questions that the programs on a host have, without NVIDIA's Python module.

Names, numbers and argument order are those of nvml.h. A number that a card does not give is None.
"""

import ctypes

MYPY = False
if MYPY:
    from typing import Any

LIBRARY = "libnvidia-ml.so.1"
SLOWDOWN = 1  # NVML_TEMPERATURE_THRESHOLD_SLOWDOWN
GPU_SENSOR = 0  # NVML_TEMPERATURE_GPU


class Failed(Exception):
    """NVML is not there, or said no; the text is its own."""


class Nvml:
    """An open NVML; use it in a `with` block."""

    def __init__(self, path: str = LIBRARY) -> None:
        try:
            self.library = ctypes.CDLL(path)
        except OSError as error:
            raise Failed(f"{path} is not there: {error}") from None

    def __enter__(self) -> "Nvml":
        code = self.library.nvmlInit_v2()
        if code:
            raise Failed(self.words(code))
        return self

    def __exit__(self, *_: object) -> None:
        self.library.nvmlShutdown()

    def words(self, code: int) -> str:
        """`Driver/library version mismatch (18)`."""
        text = self.library.nvmlErrorString
        text.restype = ctypes.c_char_p
        return f"{text(code).decode('utf-8', 'replace')} ({code})"

    def call(self, name: str, *arguments: "Any") -> bool:
        """Whether the call is there and went well."""
        function = getattr(self.library, name, None)
        return function is not None and function(*arguments) == 0

    def driver(self) -> "str | None":
        text = ctypes.create_string_buffer(96)
        return text.value.decode() if self.call("nvmlSystemGetDriverVersion", text, 96) else None

    def cards(self) -> "list[Any]":
        """A handle for each card that answers; a card that fell off the bus has none."""
        count = ctypes.c_uint(0)
        self.call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        found = []
        for index in range(count.value):
            card = ctypes.c_void_p()
            if self.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(card)):
                found.append(card)
        return found

    def text(self, name: str, card: "Any") -> "str | None":
        text = ctypes.create_string_buffer(96)
        return text.value.decode("utf-8", "replace") if self.call(name, card, text, 96) else None

    def number(self, name: str, card: "Any", *before: int) -> "int | None":
        """The unsigned number that a call writes behind its fixed arguments."""
        value = ctypes.c_uint(0)
        arguments = [ctypes.c_uint(one) for one in before]
        return value.value if self.call(name, card, *arguments, ctypes.byref(value)) else None

    def pids(self, card: "Any") -> "list[int]":
        """Compute processes on a card; none when it does not say."""
        count = ctypes.c_uint(MOST_PROCESSES)
        room = (_Process * MOST_PROCESSES)()
        if not self.call("nvmlDeviceGetComputeRunningProcesses_v3", card, ctypes.byref(count), room):
            return []
        return [room[index].pid for index in range(count.value)]

    def minute(self, card: "Any") -> "dict[str, Any]":
        reasons = ctypes.c_ulonglong(0)
        known = self.call("nvmlDeviceGetCurrentClocksThrottleReasons", card, ctypes.byref(reasons))
        least, most = self.limits(card)
        return {
            "uuid": self.text("nvmlDeviceGetUUID", card),
            "name": self.text("nvmlDeviceGetName", card),
            "temperature_c": self.number("nvmlDeviceGetTemperature", card, GPU_SENSOR),
            "slowdown_c": self.number("nvmlDeviceGetTemperatureThreshold", card, SLOWDOWN),
            "power_w": watts(self.number("nvmlDeviceGetPowerUsage", card)),
            "limit_w": watts(self.number("nvmlDeviceGetPowerManagementLimit", card)),
            "default_w": watts(self.number("nvmlDeviceGetPowerManagementDefaultLimit", card)),
            "least_w": least,
            "most_w": most,
            "reasons": reasons.value if known else None,
        }

    def link(self, card: "Any") -> "dict[str, Any]":
        """How the card hangs on the bus, and how many rows of its memory were replaced; rows: None on most GeForces."""
        pci = _Pci()
        rows = [ctypes.c_uint(0) for _ in range(4)]
        known = self.call("nvmlDeviceGetRemappedRows", card, *map(ctypes.byref, rows))
        return {
            "uuid": self.text("nvmlDeviceGetUUID", card),
            "name": self.text("nvmlDeviceGetName", card),
            "slot": pci.bus_id.decode() if self.call("nvmlDeviceGetPciInfo_v3", card, ctypes.byref(pci)) else None,
            "width": self.number("nvmlDeviceGetCurrPcieLinkWidth", card),
            # An idle card lowers its speed, so what counts is the greatest that card and board can do together.
            "generation": self.number("nvmlDeviceGetMaxPcieLinkGeneration", card),
            "rows": {"correctable": rows[0].value, "uncorrectable": rows[1].value} if known else None,
        }

    def limits(self, card: "Any") -> "tuple[float | None, float | None]":
        """The card's own least and greatest power limit, in watts."""
        least, most = ctypes.c_uint(0), ctypes.c_uint(0)
        name = "nvmlDeviceGetPowerManagementLimitConstraints"
        if not self.call(name, card, ctypes.byref(least), ctypes.byref(most)):
            return None, None
        return watts(least.value), watts(most.value)

    def set_limit(self, card: "Any", limit_w: float) -> bool:
        """Set the power limit; False when the card or the driver refuses."""
        return self.call("nvmlDeviceSetPowerManagementLimit", card, ctypes.c_uint(round(limit_w * 1000)))

    def lock_clocks(self, card: "Any", least_mhz: int, most_mhz: int) -> bool:
        return self.call("nvmlDeviceSetGpuLockedClocks", card, ctypes.c_uint(least_mhz), ctypes.c_uint(most_mhz))

    def free_clocks(self, card: "Any") -> bool:
        return self.call("nvmlDeviceResetGpuLockedClocks", card)


def watts(milliwatts: "int | None") -> "float | None":
    return None if milliwatts is None else milliwatts / 1000


class _Process(ctypes.Structure):
    # nvmlProcessInfo_t of nvmlDeviceGetComputeRunningProcesses_v3
    _fields_ = [("pid", ctypes.c_uint), ("memory", ctypes.c_ulonglong), ("gi", ctypes.c_uint), ("ci", ctypes.c_uint)]


class _Pci(ctypes.Structure):
    # nvmlPciInfo_t
    _fields_ = [("legacy", ctypes.c_char * 16), ("numbers", ctypes.c_uint * 5), ("bus_id", ctypes.c_char * 32)]


MOST_PROCESSES = 256


def compute_processes(path: str = LIBRARY) -> "dict[str, Any]":
    """`{"pids": […]}` of every compute process on every card."""
    try:
        with Nvml(path) as nvml:
            return {"pids": sorted({pid for card in nvml.cards() for pid in nvml.pids(card)})}
    except Failed as problem:
        return {"error": str(problem)}


def watch(path: str = LIBRARY) -> "dict[str, Any]":
    """What changes from minute to minute: temperature (°C), power and its limits (W), why clocks are held down."""
    try:
        with Nvml(path) as nvml:
            return {"driver": nvml.driver(), "gpus": [nvml.minute(card) for card in nvml.cards()]}
    except Failed as problem:
        return {"error": str(problem)}


def links(path: str = LIBRARY) -> "dict[str, Any]":
    """What a baseline is made of: `{"cards": […]}`."""
    try:
        with Nvml(path) as nvml:
            return {"cards": [nvml.link(card) for card in nvml.cards()]}
    except Failed as problem:
        return {"error": str(problem)}


def look(path: str = LIBRARY) -> "dict[str, Any]":
    """What the gate compares: driver, and uuid, name, temperature and slowdown threshold (°C) of each card."""
    try:
        with Nvml(path) as nvml:
            return {
                "driver": nvml.driver(),
                "gpus": [
                    {
                        "uuid": nvml.text("nvmlDeviceGetUUID", card),
                        "name": nvml.text("nvmlDeviceGetName", card),
                        "temperature_c": nvml.number("nvmlDeviceGetTemperature", card, GPU_SENSOR),
                        "slowdown_c": nvml.number("nvmlDeviceGetTemperatureThreshold", card, SLOWDOWN),
                    }
                    for card in nvml.cards()
                ],
            }
    except Failed as problem:
        return {"error": str(problem)}
