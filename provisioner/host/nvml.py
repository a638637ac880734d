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


class _Process(ctypes.Structure):
    # nvmlProcessInfo_t of nvmlDeviceGetComputeRunningProcesses_v3
    _fields_ = [("pid", ctypes.c_uint), ("memory", ctypes.c_ulonglong), ("gi", ctypes.c_uint), ("ci", ctypes.c_uint)]


MOST_PROCESSES = 256


def compute_processes(path: str = LIBRARY) -> "dict[str, Any]":
    """`{"pids": […]}` of every compute process on every card."""
    try:
        with Nvml(path) as nvml:
            return {"pids": sorted({pid for card in nvml.cards() for pid in nvml.pids(card)})}
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
