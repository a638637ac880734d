"""The cards: how many each layer counts, what they are, and how they feel (Xids, memory, clocks, link)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from provisioner.doctor.facts.fact import UNSEEN, Fact, Seen
from provisioner.doctor.host import Host, Said, shown
from provisioner.doctor.truth import Evidence
from provisioner.facts.gpus import slot
from provisioner.model.capture import UNKNOWN

# nvidia-smi exits with NVML's return codes; both stand for one answer.
_NVML_CODES = {
    "NVML_ERROR_NO_PERMISSION": 4,
    "NVML_ERROR_NOT_FOUND": 6,
    "NVML_ERROR_INSUFFICIENT_POWER": 8,
    "NVML_ERROR_DRIVER_NOT_LOADED": 9,
    "NVML_ERROR_IRQ_ISSUE": 11,
    "library-not-found": 12,
    "NVML_ERROR_LIBRARY_NOT_FOUND": 12,
    "NVML_ERROR_FUNCTION_NOT_FOUND": 13,
    "NVML_ERROR_CORRUPTED_INFOROM": 14,
    "NVML_ERROR_GPU_IS_LOST": 15,
    "NVML_ERROR_RESET_REQUIRED": 16,
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": 18,
    "timed-out": 124,
}
_DRIVER_TOLD = re.compile(r"couldn't communicate with the NVIDIA driver", re.IGNORECASE)


def _smi(host: Host) -> Seen:
    """nvidia-smi's exit code, or NVML's error as the same number; 124: it never answered."""
    capture = host.capture
    answer = capture.command("nvidia-smi")
    if answer is UNKNOWN:
        told = [(line, item) for line, item in capture.commands.items() if re.match(r"(sudo )?nvidia-smi( -L)?$", line)]
        answer = told[0][1] if told else UNKNOWN
    if answer is not UNKNOWN and answer.rc != 127:
        text = next((row for row in (answer.stdout + answer.stderr).splitlines() if row.strip()), "no answer in time")
        if answer.rc != 124 and "+---" in answer.stdout:
            text = next((row.strip("| ") for row in answer.stdout.splitlines() if "NVIDIA-SMI" in row), text)
        return Seen(answer.rc, (shown("nvidia-smi", f"exit {answer.rc}: {text}", "nvidia-smi"),))
    if host.nvml is not UNKNOWN:
        error = host.nvml.error
        if error is not None:
            return Seen(_NVML_CODES.get(error, 255), (shown("NVML", error, "NVML"),))
        # Where there is no such program, NVML speaks for it: that it answers is the answer.
        if answer is not UNKNOWN and devices_of(host):
            return Seen(0, (shown("NVML", f"driver {host.nvml.driver_version}", "NVML"),))
    return UNSEEN


def _no_smi(host: Host) -> Seen:
    answer = host.capture.command("nvidia-smi")
    if answer is UNKNOWN:
        return UNSEEN
    return Seen(answer.rc != 127, (shown("nvidia-smi", f"exit {answer.rc}", "nvidia-smi"),))


# How many.


def _on_bus(host: Host) -> Seen:
    if host.gpus is UNKNOWN:
        return UNSEEN
    rows = tuple(shown("PCI", f"{gpu.slot} {gpu.vendor}:{gpu.device}", host.bus) for gpu in host.gpus[:2])
    return Seen(len(host.gpus), rows or (shown("PCI", "no GPU of NVIDIA's", host.bus),))


def _in_nvml(host: Host) -> Seen:
    """Cards that NVML or nvidia-smi lists and can open."""
    if host.nvml is not UNKNOWN and host.nvml.error is None and host.capture.nvml:
        devices = host.capture.nvml.get("devices")
        if isinstance(devices, list):
            count = sum(1 for item in devices if isinstance(item, dict) and not item.get("error"))
            return Seen(count, (shown("NVML", f"{count} cards", "NVML"),))
    answer = host.capture.command("nvidia-smi")
    if answer is not UNKNOWN and answer.rc in (0, 14):
        rows = re.findall(
            r"^\|\s+(\d+)\s+\S.*?\|\s*(?:[0-9A-Fa-f]{4,8}:)?[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d", answer.stdout, re.M
        )
        return Seen(len(rows), (shown("nvidia-smi", f"{len(rows)} cards", "nvidia-smi"),)) if rows else UNSEEN
    if answer is not UNKNOWN and answer.rc == 6:
        return Seen(0, (shown("nvidia-smi", answer.stdout + answer.stderr, "nvidia-smi"),))
    return UNSEEN


# What they are.


def _architectures(host: Host) -> Seen:
    """Architectures by PCI id, or by the chip's name where the id is not known."""
    if host.matrix is None or host.gpus is UNKNOWN:
        return UNSEEN
    found: dict[str, str] = {}
    for gpu in host.gpus:
        for model in host.matrix.gpus_with_pci(gpu.vendor, gpu.device)[:1]:
            found.setdefault(model.architecture, f"{gpu.slot} {gpu.vendor}:{gpu.device} {model.name}")
    for line, answer in host.answers("lspci*"):
        for row in answer.stdout.splitlines():
            match = re.search(r"NVIDIA Corporation (\w+ ?\[?.*)\[10de:", row)
            architecture = host.matrix.architecture_of_chip(match[1]) if match and "[03" in row else None
            if architecture is not None:
                found.setdefault(architecture.id, row.strip())
        del line
    if len(found) == 0 and host.gpus:
        return UNSEEN
    return Seen(tuple(sorted(found)), tuple(shown("card", text, host.bus) for text in found.values()))


def _last_branch(host: Host) -> Seen:
    """The last branch that drives every card here; None when no branch has dropped one of them yet."""
    kinds = _architectures(host)
    if kinds.value is UNKNOWN or host.matrix is None:
        return UNSEEN
    last = [host.matrix.architectures[kind].last_driver for kind in kinds.value]
    known = [int(branch) for branch in last if branch is not None]
    return Seen(str(min(known)), kinds.evidence) if known else Seen(None, kinds.evidence)


def _wants_modules(host: Host) -> Seen:
    """Flavours of the kernel modules that drive every card here."""
    kinds = _architectures(host)
    if kinds.value is UNKNOWN or host.matrix is None or not kinds.value:
        return UNSEEN
    common = set.intersection(*(set(host.matrix.architectures[kind].modules) for kind in kinds.value))
    return Seen(tuple(sorted(common)), kinds.evidence)


def _bound(host: Host) -> Seen:
    """Kernel drivers that hold cards."""
    if host.gpus is UNKNOWN or any(gpu.bound_to is UNKNOWN for gpu in host.gpus):
        return UNSEEN
    rows = tuple(shown("bound to", f"{gpu.slot} {gpu.bound_to or 'no driver'}", host.bus) for gpu in host.gpus)
    return Seen(tuple(str(gpu.bound_to or "none") for gpu in host.gpus), rows[:3])


# How they feel.


@dataclass(frozen=True)
class Xid:
    """One event of the kernel's log: which card, its number, and the number of the event that led to it."""

    card: str
    code: int
    root: int
    at: str
    line: str
    where: str


_XID = re.compile(r"NVRM: (?:GPU at )?.*?Xid \((?:PCI:)?([0-9A-Fa-f:.]+)\): (\d+)(.*)")
_CAUSED = re.compile(r"caused by previous Xid (\d+)", re.IGNORECASE)
_STAMP = re.compile(r"^(\[[^\]]*\]|\S+T\S+|\w{3}\s+\d+ \d\d:\d\d:\d\d)")
_PLUGIN_XID = re.compile(r"Xid=(\d+)\s+on\s+Device=(GPU-[0-9A-Za-z-]+)")


def xids(host: Host) -> tuple[Xid, ...] | None:
    """Every Xid of the kernel's log, oldest first; None when the log was not seen.

    An event that says "caused by previous Xid N" is counted as N: one fault tears down many channels.
    """
    texts = host.texts(("kernel-log", "past-xids"))
    if not texts:
        return None
    sources = [list(_events(where, text)) for where, text in texts if "Xid" in text]
    # dmesg and the journal tell of the same events in other words for the time: counting both would count twice.
    best = max(sources, key=len, default=[])
    known = {(event.card, event.root) for event in best}
    others = [event for source in sources if source is not best for event in source]
    return (*best, *(event for event in others if (event.card, event.root) not in known))


def _events(where: str, text: str) -> Iterator[Xid]:
    """The Xids of one log; several channels that one fault closed at once are one event."""
    seen: set[tuple[str, int, str]] = set()
    for number, line in enumerate(text.splitlines(), 1):
        match = _XID.search(line) if "Xid" in line else None
        if match is None:
            continue
        caused, stamp = _CAUSED.search(match[3]), _STAMP.match(line.strip())
        card, code = slot(match[1] if "." in match[1] else f"{match[1]}.0"), int(match[2])
        root, at = int(caused[1]) if caused else code, stamp[1] if stamp else f"line {number}"
        if (card, root, at) not in seen:
            seen.add((card, root, at))
            yield Xid(card, code, root, at, line.strip(), f"{where}:{number}" if where.startswith("/") else where)


def _xid_codes(host: Host) -> Seen:
    events = xids(host)
    if events is None:
        return UNSEEN
    roots = tuple(dict.fromkeys(str(event.root) for event in events))
    return Seen(roots, tuple(shown("Xid", event.line, event.where) for event in events[:3]))


def plugin_xids(host: Host) -> tuple[tuple[int, Said], ...]:
    """Xids that a device plugin reports."""
    found = []
    for where, text in host.texts(("containers",)):
        for line in text.splitlines():
            match = _PLUGIN_XID.search(line)
            if match:
                found.append((int(match[1]), Said(line.strip(), where)))
    return tuple(found)


_BITS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}
_WORDS = {
    "hw power brake slowdown": "power brake",
    "hw thermal slowdown": "hardware thermal",
    "sw thermal slowdown": "software thermal",
    "hw slowdown": "hardware slowdown",
}


def _throttle(host: Host) -> Seen:
    """Why clocks are held down now, by NVIDIA's words; () when they are not."""
    reasons: dict[str, Evidence] = {}
    looked = False
    for line, answer in host.answers("nvidia-smi *"):
        if "event_reasons" in line or "throttle_reasons" in line:
            looked = looked or answer.rc == 0
            for row in answer.stdout.splitlines():
                for mask in re.findall(r"0x([0-9a-fA-F]{16})", row):
                    for bit, word in _BITS.items():
                        if int(mask, 16) & bit:
                            reasons.setdefault(word, shown("clocks", row, line))
        for match in re.finditer(
            r"^[ \t]*([HS]W [\w ]+?Slowdown|HW Slowdown)\s*: (Active|Not Active)", answer.stdout, re.M
        ):
            looked = True
            named = _WORDS.get(match[1].lower())
            if match[2] == "Active" and named:
                reasons.setdefault(named, shown("clocks", match[0], line))
    for device in devices_of(host):
        mask = device.get("throttle_reasons")
        if isinstance(mask, int):
            looked = True
            for bit, word in _BITS.items():
                if mask & bit:
                    reasons.setdefault(word, shown("clocks", f"GPU {device.get('index')}: 0x{mask:x} ({word})", "NVML"))
    return Seen(tuple(reasons), tuple(reasons.values())) if looked else UNSEEN


def devices_of(host: Host) -> list[dict[str, Any]]:
    """What NVML said of each card."""
    devices = (host.capture.nvml or {}).get("devices")
    return [item for item in devices if isinstance(item, dict)] if isinstance(devices, list) else []


def _errors(host: Host) -> Seen:
    """What NVML says of cards that it lists and cannot open."""
    if host.nvml is UNKNOWN:
        return UNSEEN
    found = [(str(item["error"]), item.get("index")) for item in devices_of(host) if item.get("error")]
    rows = tuple(shown("NVML", f"GPU {index}: {error}", "NVML") for error, index in found)
    return Seen(tuple(dict.fromkeys(error for error, _ in found)), rows)


def _remapped(host: Host) -> Seen:
    """`pending`, `failed`, or () when no row waits for a reset; cards without row remapping say nothing."""
    states: dict[str, Evidence] = {}
    looked = False
    for line, answer in host.answers("nvidia-smi *"):
        if answer.rc != 0:
            continue
        for row in answer.stdout.splitlines():
            match = re.match(r"\s*(Pending|Remapping Failure Occurred)\s*:\s*(Yes|No)\b", row)
            if match:
                looked = True
                if match[2] == "Yes":
                    states.setdefault("pending" if match[1] == "Pending" else "failed", shown("rows", row, line))
        if "remapped_rows" in line:
            looked = True
            columns = [word.strip() for word in re.sub(r".*query-remapped-rows=(\S+).*", r"\1", line).split(",")]
            for row in answer.stdout.splitlines():
                cells = dict(zip(columns, (cell.strip() for cell in row.split(",")), strict=False))
                for name, state in (("remapped_rows.pending", "pending"), ("remapped_rows.failure", "failed")):
                    if cells.get(name, "").lower() in ("yes", "1"):
                        states.setdefault(state, shown("rows", row, line))
    for device in devices_of(host):
        rows_ = device.get("remapped_rows")
        looked = looked or "remapped_rows" in device  # null: a card that has no row remapping
        if isinstance(rows_, dict):
            for name, state in (("pending", "pending"), ("failed", "failed")):
                if rows_.get(name):
                    states.setdefault(state, shown("rows", f"GPU {device.get('index')}: {rows_}", "NVML"))
    return Seen(tuple(states), tuple(states.values())) if looked else UNSEEN


def _bar1(host: Host) -> Iterator[tuple[str, int, Evidence]]:
    """(card, MiB, evidence) of the large memory window of each card."""
    for line, answer in host.answers("nvidia-smi -q*"):
        card = ""
        inside = False
        for row in answer.stdout.splitlines():
            head = re.match(r"\s*GPU ([0-9A-Fa-f:.]+)", row)
            card = head[1] if head else card
            inside = "BAR1 Memory" in row or (inside and not row.strip().endswith("Usage"))
            total = re.match(r"\s*Total\s*: (\d+) MiB", row)
            if inside and total:
                yield card, int(total[1]), shown("BAR1", f"{card} {total[1]} MiB", line)
                inside = False
    for line, answer in host.answers("lspci*"):
        for block in re.split(r"\n(?=\S)", answer.stdout):
            none = re.search(r"Region 1: Memory at <(?:ignored|unassigned)>(?!.*\[size=).*", block)
            if none and "NVIDIA" in block:
                yield line, 0, shown("BAR1", none[0], line)
            region = re.search(r"Region 1: Memory at .*\[size=(\d+)([MG])\]", block)
            if region and (block.startswith(("\t", " ")) or "NVIDIA" in block):
                size = int(region[1]) * (1024 if region[2] == "G" else 1)
                yield line, size, shown("BAR1", region[0], line)
    for where, text in host.texts(("kernel-log",)):
        for match in re.finditer(r"BAR1 is 0M @ 0x0 \(PCI:([0-9A-Fa-f:.]+)\)", text):
            yield match[1], 0, shown("BAR1", match[0], where)
    for device in devices_of(host):
        total_bytes = device.get("bar1_total")
        if isinstance(total_bytes, int) and total_bytes:
            mib = total_bytes >> 20
            yield str(device.get("name")), mib, shown("BAR1", f"GPU {device.get('index')} {mib} MiB", "NVML")


def _bar1_differs(host: Host) -> Seen:
    """Whether cards of one model have windows of different sizes."""
    found = list(_bar1(host))
    names = {name for name, *_ in _models(host)}
    if not found or not names:
        return UNSEEN
    if len(found) < 2 or len(names) != 1:
        return Seen(False)
    return Seen(len({size for _, size, _ in found}) > 1, tuple(item for _, _, item in found[:4]))


def _bar1_smallest(host: Host) -> Seen:
    found = sorted(_bar1(host), key=lambda item: item[1])
    return Seen(found[0][1], (found[0][2],)) if found else UNSEEN


def _models(host: Host) -> list[tuple[str, str]]:
    """(name, slot) of the cards that NVML or nvidia-smi lists."""
    if host.nvml is not UNKNOWN and host.nvml.gpus:
        return [(gpu.name, gpu.slot) for gpu in host.nvml.gpus]
    answer = host.capture.command("nvidia-smi")
    if answer is UNKNOWN:
        return []
    pattern = r"^\|\s+\d+\s+(\S.*?)\s+(?:On|Off)?\s*\|\s*([0-9A-Fa-f:]+\.\d)"
    return [(match[1], slot(match[2])) for match in re.finditer(pattern, answer.stdout, re.M)]


def _mig(host: Host) -> Seen:
    """Modes of partitioning; two of them: some cards are cut up and others are not."""
    for line, answer in host.answers("nvidia-smi *mig.mode.current*"):
        modes = re.findall(r"\b(Enabled|Disabled)\b", answer.stdout)
        if modes:
            return Seen(tuple(sorted(set(modes))), (shown("MIG", answer.stdout, line),))
    modes_ = {device.get("mig_mode") for device in devices_of(host) if isinstance(device.get("mig_mode"), int)}
    if modes_:
        words = tuple(sorted("Enabled" if mode else "Disabled" for mode in modes_))
        return Seen(words, (shown("MIG", ", ".join(words), "NVML"),))
    table = host.capture.command("nvidia-smi")
    if table is not UNKNOWN and table.rc == 0:
        modes = re.findall(r"\|\s+(Enabled|Disabled)\s+\|\s*$", table.stdout, re.M)
        return Seen(tuple(sorted(set(modes))), (shown("MIG", ", ".join(modes), "nvidia-smi"),) if modes else ())
    return UNSEEN


_LINK = re.compile(r"LnkSta:\s*Speed ([\d.]+)GT/s(?: \((\w+)\))?, Width x(\d+)(?: \((\w+)\))?")


def _lost_buses(host: Host) -> frozenset[str]:
    """Bus numbers of cards that fell off."""
    cards = {event.card for event in xids(host) or () if event.root == 79}
    for _, answer in host.answers("nvidia-smi"):
        cards |= {
            slot(name)
            for name in re.findall(r"GPU ?\d?:? ?([0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d)", answer.stdout)
        }
    cards |= {slot(name) for name in _lost(host).value or () if isinstance(name, str)}
    return frozenset(card.split(":")[1] for card in cards)


def _link(host: Host) -> Seen:
    """`narrow`: fewer lanes than both ends have. `slow`: above a card that is lost alone, for idle cards slow down."""
    if host.gpus == ():
        return Seen(())
    found: dict[str, Evidence] = {}
    lost = _lost_buses(host)
    looked = False
    for line, answer in host.answers("lspci*"):
        for block in re.split(r"\n(?=\S)", answer.stdout):
            match = _LINK.search(block)
            if match is None or not ("NVIDIA" in block or "PCI bridge" in block):
                continue
            looked = True
            row = shown("link", f"{block.splitlines()[0][:40]} {match[0]}", line)
            below = re.search(r"secondary=([0-9a-f]{2})", block)
            if match[2] == "downgraded" and below and below[1] in lost:
                found.setdefault("slow", row)
            if match[4] == "downgraded" and "NVIDIA" in block:
                found.setdefault("narrow", row)
    for device in devices_of(host):
        now, most = device.get("pcie_width"), device.get("pcie_width_max")
        if isinstance(now, int) and isinstance(most, int):
            looked = True
            if 0 < now < most:
                found.setdefault("narrow", shown("link", f"GPU {device.get('index')}: x{now} of x{most}", "NVML"))
    if host.gpus is not UNKNOWN:
        for gpu in host.gpus:
            root = f"/sys/bus/pci/devices/{gpu.slot}"
            now_, most_ = host.capture.file(f"{root}/current_link_width"), host.capture.file(f"{root}/max_link_width")
            if (
                isinstance(now_, str)
                and isinstance(most_, str)
                and now_.strip().isdecimal()
                and most_.strip().isdecimal()
            ):
                looked = True
                if 0 < int(now_) < int(most_):
                    row = shown("link", f"{gpu.slot} x{now_.strip()} of x{most_.strip()}", f"{root}/current_link_width")
                    found.setdefault("narrow", row)
    return Seen(tuple(found), tuple(found.values())) if looked else UNSEEN


_BUS_ERROR = re.compile(
    r"^.*?(pcieport|nvidia) ([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.\d): .*?severity=Correct\w+.*$", re.M
)


def _link_errors(host: Host) -> Seen:
    """Errors that the worst link of a card corrected, told of the card itself or of the port above it."""
    texts = host.texts(("kernel-log",))
    if not texts or (host.gpus is UNKNOWN and "Bus Error" not in "".join(text for _, text in texts)):
        return UNSEEN
    ports = {
        block.split()[0][-7:]: match[1]
        for _, answer in host.answers("lspci*")
        for block in re.split(r"\n(?=\S)", answer.stdout)
        if block.strip() and (match := re.search(r"secondary=([0-9a-f]{2})", block))
    }
    buses = {gpu.slot.split(":")[1] for gpu in host.gpus} if host.gpus is not UNKNOWN else set()
    best: dict[str, list[Evidence]] = {}
    for where, text in texts:
        mine: dict[str, list[Evidence]] = {}
        for match in _BUS_ERROR.finditer(text) if "Bus Error" in text else ():
            bus = match[2].split(":")[1] if match[1] == "nvidia" else ports.get(match[2][5:], "")
            if match[1] == "nvidia" or bus in buses:
                mine.setdefault(bus, []).append(shown("AER", match[0], where))
        for bus, rows in mine.items():  # logs tell of the same errors: the fuller one counts
            if len(rows) > len(best.get(bus, ())):
                best[bus] = rows
    worst = max(best.values(), key=len, default=[])
    more = shown("in all", f"{len(worst)} errors that were corrected", worst[0].where) if worst else None
    return Seen(len(worst), (*worst[:2], *([more] if more else ())))


def _acs(host: Host) -> Seen:
    """Whether bridges send a card's traffic for another card up to the IOMMU."""
    if host.gpus == ():
        return Seen(False)
    for line, answer in host.answers("lspci*"):
        rows = [row for row in answer.stdout.splitlines() if "ACSCtl:" in row]
        if rows:
            redirect = [row for row in rows if "ReqRedir+" in row and "CmpltRedir+" in row]
            return Seen(bool(redirect), tuple(shown("ACS", row, line) for row in (redirect or rows)[:1]))
        if "bridge" in answer.stdout and "-v" in line:
            return Seen(False)
    return UNSEEN


def _lost(host: Host) -> Seen:
    """Cards whose configuration space reads as ones: the bus no longer reaches them."""
    if host.gpus == ():
        return Seen(())
    for line, answer in host.answers("lspci*"):
        rows = [row for row in answer.stdout.splitlines() if "10de:" in row or "NVIDIA" in row]
        if rows:
            gone = [row for row in rows if "(rev ff)" in row]
            return Seen(tuple(row.split()[0] for row in gone), tuple(shown("PCI", row, line) for row in gone[:2]))
    return UNSEEN


def _hottest(host: Host) -> Seen:
    temperatures = (
        [(gpu.temperature_c, gpu.index) for gpu in host.nvml.gpus if gpu.temperature_c]
        if host.nvml is not UNKNOWN
        else []
    )
    if temperatures:
        most, index = max(temperatures)
        return Seen(most, (shown("heat", f"GPU {index}: {most} °C", "NVML"),))
    for line, answer in host.answers("nvidia-smi *temperature.gpu*"):
        columns = re.sub(r".*query-gpu=(\S+).*", r"\1", line).split(",")
        place = columns.index("temperature.gpu") if "temperature.gpu" in columns else 0
        values = [row.split(",")[place].strip() for row in answer.stdout.splitlines() if row.count(",") >= place]
        numbers = [int(value) for value in values if value.isdecimal()]
        if numbers:
            return Seen(max(numbers), (shown("heat", answer.stdout, line),))
    return UNSEEN


def _boards(host: Host) -> Seen:
    """Vendors of the boards whose vendor is not NVIDIA."""
    rows: dict[str, Evidence] = {}
    looked = False
    if host.gpus is not UNKNOWN:
        for gpu in host.gpus:
            if isinstance(gpu.subsystem, str) and gpu.subsystem:
                looked = True
                vendor = gpu.subsystem.partition(":")[0]
                if vendor != "10de":
                    rows.setdefault(vendor, shown("board", f"{gpu.slot} subsystem {gpu.subsystem}", host.bus))
    for line, answer in host.answers("lspci*"):
        for match in re.finditer(r"Subsystem: .*\[([0-9a-f]{4}):[0-9a-f]{4}\]", answer.stdout):
            looked = True
            if match[1] != "10de":
                rows.setdefault(match[1], shown("board", match[0], line))
    return Seen(tuple(rows), tuple(rows.values())[:2]) if looked else UNSEEN


def parsed_json(text: str) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


FACTS = (
    Fact("nvidia-smi", "number", "nvidia-smi, or NVML", "nvidia-smi", _smi),
    Fact("nvidia-smi.installed", "truth", "whether there is an nvidia-smi", "nvidia-smi", _no_smi),
    Fact("cards.on_bus", "number", "cards on the PCI bus", "lspci -nn -d 10de:", _on_bus),
    Fact("cards.in_nvml", "number", "cards that NVML can open", "nvidia-smi -L", _in_nvml),
    Fact("cards.architectures", "texts", "architectures of the cards", "lspci -nn -d 10de:", _architectures),
    Fact("cards.last_branch", "number", "the last driver branch for these cards", "lspci -nn -d 10de:", _last_branch),
    Fact("cards.flavours", "texts", "flavours of modules that drive these cards", "lspci -nn -d 10de:", _wants_modules),
    Fact("cards.bound_to", "texts", "kernel drivers that hold the cards", "lspci -k -d 10de:", _bound),
    Fact("cards.boards", "texts", "vendors of boards other than NVIDIA", "lspci -nnv -d 10de:", _boards),
    Fact("cards.xids", "texts", "Xids in the kernel's log, by root event", "dmesg | grep Xid", _xid_codes),
    Fact("cards.errors", "texts", "errors of cards that NVML cannot open", "nvidia-smi", _errors),
    Fact("cards.throttle", "texts", "why clocks are held down", "nvidia-smi -q -d PERFORMANCE", _throttle),
    Fact("cards.remapped", "texts", "rows of memory to be remapped", "nvidia-smi -q -d ROW_REMAPPER", _remapped),
    Fact("cards.bar1_differs", "truth", "memory windows of equal cards", "nvidia-smi -q -d MEMORY", _bar1_differs),
    Fact("cards.bar1_smallest", "number", "the smallest memory window, MiB", "lspci -vv -d 10de:", _bar1_smallest),
    Fact("cards.mig", "texts", "MIG modes", "nvidia-smi --query-gpu=mig.mode.current --format=csv", _mig),
    Fact("cards.link", "texts", "PCIe links below what they can", "lspci -vv -d 10de:", _link),
    Fact("cards.link_errors", "number", "errors that a card's link corrected", "dmesg | grep AER", _link_errors),
    Fact("cards.acs", "truth", "ACS redirection on bridges", "lspci -vvv | grep ACSCtl", _acs),
    Fact("cards.lost", "texts", "cards the bus no longer reaches", "lspci -nn -d 10de:", _lost),
    Fact("cards.hottest", "number", "the hottest card, °C", "nvidia-smi -q -d TEMPERATURE", _hottest),
)
