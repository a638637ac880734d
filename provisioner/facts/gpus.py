"""NVIDIA GPUs on the PCI bus, from sysfs or from lspci; both show them with no driver at all."""

from __future__ import annotations

import re

from provisioner.facts.listing import commands_like, matching
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import PciGpu

NVIDIA = "10de"
_DISPLAY = ("0300", "0302")  # VGA controller, 3D controller
_SWITCH = "0680"  # bridge of another kind
_ROOT = "/sys/bus/pci/devices"
_HEAD = re.compile(r"([0-9a-f:]+\.[0-7]) .*\[([0-9a-f]{4})\]: .*\[([0-9a-f]{4}):([0-9a-f]{4})\]", re.IGNORECASE)


def read(capture: Capture) -> tuple[PciGpu, ...] | Unknown:
    seen = from_sysfs(capture)
    return from_lspci(capture) if seen is UNKNOWN else seen


def from_sysfs(capture: Capture) -> tuple[PciGpu, ...] | Unknown:
    paths = matching(capture, f"{_ROOT}/*/vendor")
    if paths is UNKNOWN:
        return UNKNOWN
    gpus = []
    for path in paths:
        folder = path.rpartition("/")[0]
        vendor = _hex(capture.file(path))
        if vendor is UNKNOWN:
            return UNKNOWN
        if vendor != NVIDIA:
            continue
        kind, device = _hex(capture.file(f"{folder}/class")), _hex(capture.file(f"{folder}/device"))
        if kind is UNKNOWN or device is UNKNOWN:
            return UNKNOWN
        if kind[:4] in _DISPLAY:
            gpus.append(
                PciGpu(
                    slot=slot(folder.rpartition("/")[2]),
                    vendor=vendor,
                    device=device,
                    subsystem=_subsystem(capture, folder),
                    bound_to=_driver(capture, folder),
                )
            )
    return tuple(sorted(gpus, key=lambda gpu: gpu.slot))


def nvswitches(capture: Capture) -> int | Unknown:
    """How many NVSwitch bridges are on the bus; cards behind them compute only while the fabric manager runs.

    Systems whose switches are not on the host's bus (NVLink 5) show none here. Source of the class: PCI code 0680,
    "bridge, other", which the devices of drivers before NVLink 5 have.
    """
    paths = matching(capture, f"{_ROOT}/*/vendor")
    if paths is not UNKNOWN:
        count: int = 0
        for path in paths:
            vendor, kind = _hex(capture.file(path)), _hex(capture.file(f"{path.rpartition('/')[0]}/class"))
            if vendor is UNKNOWN or (vendor == NVIDIA and kind is UNKNOWN):
                return UNKNOWN
            if vendor == NVIDIA and kind is not UNKNOWN and kind[:4] == _SWITCH:
                count += 1
        return count
    found = _listing(capture)
    if found is UNKNOWN:
        return UNKNOWN
    heads = [_HEAD.match(block) for block in re.split(r"\n(?=\S)", found[1])]
    return sum(1 for head in heads if head and head[2] == _SWITCH and head[3].lower() == NVIDIA)


def _hex(text: str | Unknown | None) -> str | Unknown:
    """`0x10DE` is `10de`."""
    if not isinstance(text, str):
        return UNKNOWN
    match = re.fullmatch(r"\s*(?:0x)?([0-9A-Fa-f]{4,8})\s*", text)
    return match[1].lower() if match else UNKNOWN


def _subsystem(capture: Capture, folder: str) -> str | Unknown:
    vendor = _hex(capture.file(f"{folder}/subsystem_vendor"))
    device = _hex(capture.file(f"{folder}/subsystem_device"))
    return UNKNOWN if vendor is UNKNOWN or device is UNKNOWN else f"{vendor}:{device}"


def _driver(capture: Capture, folder: str) -> str | Unknown | None:
    """The kernel's driver that holds the card; a link that is not there means none."""
    answer = capture.command(f"readlink -f {folder}/driver")
    if answer is UNKNOWN:
        return UNKNOWN
    path = answer.stdout.strip()
    return path.rpartition("/")[2] if "/drivers/" in path else None


def from_lspci(capture: Capture) -> tuple[PciGpu, ...] | Unknown:
    found = _listing(capture)
    if found is UNKNOWN:
        return UNKNOWN
    line, text = found
    return parse_lspci(text, with_driver=any("k" in word for word in line.split()[1:] if word[0] == "-"))


def _listing(capture: Capture) -> tuple[str, str] | Unknown:
    """The command and its answer. One narrower than all NVIDIA devices (`-d 10de::0300`) proves nothing of the rest."""
    for line in commands_like(capture, "lspci"):
        words = line.split()
        wide = not any(word.startswith("-s") for word in words) and (
            "-d" not in words or words[-1] == f"{NVIDIA}:" or f"-d {NVIDIA}: " in line
        )
        numeric = any(word in ("-nn", "-nnk", "-Dnn", "-nnD", "-nnvv") for word in words)
        answer = capture.commands[line]
        if wide and numeric and answer.rc == 0:
            return line, answer.stdout
    return UNKNOWN


def parse_lspci(text: str, *, with_driver: bool = False) -> tuple[PciGpu, ...]:
    gpus: list[PciGpu] = []
    for block in re.split(r"\n(?=\S)", text):
        head = _HEAD.match(block)
        if not head or head[3].lower() != NVIDIA or head[2] not in _DISPLAY:
            continue
        board = re.search(r"^[ \t]+Subsystem: .*\[([0-9a-f]{4}:[0-9a-f]{4})\]", block, re.MULTILINE | re.IGNORECASE)
        driver = re.search(r"^[ \t]+Kernel driver in use: (\S+)", block, re.MULTILINE)
        gpus.append(
            PciGpu(
                slot=slot(head[1]),
                vendor=NVIDIA,
                device=head[4].lower(),
                subsystem=board[1].lower() if board else UNKNOWN,
                bound_to=(driver[1] if driver else None) if with_driver else UNKNOWN,
            )
        )
    return tuple(gpus)


def slot(text: str) -> str:
    """`01:00.0` and `00000000:01:00.0` are both `0000:01:00.0`."""
    parts = text.lower().split(":")
    return ":".join(["0000" if len(parts) < 3 else parts[0][-4:].rjust(4, "0"), *parts[-2:]])
