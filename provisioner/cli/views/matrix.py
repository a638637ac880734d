"""How entries of the matrix, lint findings and the schema look to a person and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter

from provisioner.matrix.entries import (
    ROOMS,
    Architecture,
    Conflict,
    ContainerImages,
    CudaLevel,
    DriverBranch,
    Entry,
    GpuModel,
    Network,
    OsRelease,
    PackageSource,
    Rule,
    Runtime,
    TunnelKind,
)
from provisioner.matrix.lint import Finding
from provisioner.matrix.reader import Matrix
from provisioner.matrix.specifier import Requirement, text_of
from provisioner.model.version import Specifier, Version

FORMAT = 1
ROOM_ORDER = tuple(ROOMS)
_WIDTH = 110


# --- list ---------------------------------------------------------------------------------------------------------


def list_text(matrix: Matrix, rooms: Sequence[str]) -> str:
    """A table for each room: id, what it is, and how far to trust it."""
    blocks = []
    for room in rooms:
        entries = matrix.room(room)
        rows = [(entry.id, summary(room, entry), entry.confidence) for entry in entries.values()]
        blocks.append(f"{room}  {len(entries)}\n" + _table(rows))
    blocks.append(
        f"matrix {matrix.digest[:12]}\n\nLook closer: provision matrix show {rooms[0]}/{_first(matrix, rooms[0])}"
    )
    return "\n\n".join(blocks)


def list_json(matrix: Matrix, rooms: Sequence[str]) -> str:
    content = {
        room: [
            {"id": e.id, "title": e.title, "summary": summary(room, e), "confidence": e.confidence, "seen": e.seen}
            for e in matrix.room(room).values()
        ]
        for room in rooms
    }
    return _json({"format": FORMAT, "digest": matrix.digest, "rooms": content})


def _first(matrix: Matrix, room: str) -> str:
    return next(iter(matrix.room(room)), "ID")


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max((len(row[n]) for row in rows), default=0) for n in range(2)]
    middle = min(widths[1], _WIDTH - widths[0] - 12)
    lines = []
    for name, text, trust in rows:
        shown = text if len(text) <= middle else text[: middle - 1].rstrip() + "…"
        lines.append(f"  {name:<{widths[0]}}  {shown:<{middle}}  {trust}".rstrip())
    return "\n".join(lines)


def _driver(e: DriverBranch) -> str:
    end = f"until {e.eol.date}" if e.eol.date else "no last day known"
    flavours = [name for name in ("proprietary", "open") if getattr(e.modules, name)]
    return f"{e.type} · {e.latest.version} · CUDA {e.native_cuda} · {'/'.join(flavours)} · {end}"


def _cuda(e: CudaLevel) -> str:
    if not e.released:
        return f"never released; branch {e.native_branch} reports it"
    reach = f" · {e.capabilities.min} to {e.capabilities.max}" if e.capabilities else ""
    return f"driver {e.native_branch}, at least {e.minor_floor}{reach} · {len(e.releases)} releases"


def _architecture(e: Architecture) -> str:
    window = f"{e.first_driver or '…'} to {e.last_driver or '…'}"
    return f"{', '.join(map(str, e.capabilities))} · drivers {window} · {' or '.join(e.modules)} modules"


def _gpu(e: GpuModel) -> str:
    memory = "/".join(f"{size:g}" for size in e.memory_gib) or "?"
    return f"{e.name} · {e.architecture} {e.compute_capability} · {memory} GB"


def _os(e: OsRelease) -> str:
    return f"{e.name} · {e.state} · until {e.eol.extended or e.eol.date}"


def _runtime(e: Runtime) -> str:
    floors = [f"at least {f.version}" for f in e.floors if f.version]
    return " · ".join([e.title, e.kind, *floors[:1]])


def _network(e: Network) -> str:
    names = ", ".join(p.id + ("*" if p.default and len(e.profiles) > 1 else "") for p in e.profiles)
    return f"{e.name} · {names or 'no profile'}"


def _conflict(e: Conflict) -> str:
    return f"{e.about} · {'exclusive' if e.exclusive else 'with a way out'} · {e.title}"


def _tunnel(e: TunnelKind) -> str:
    return f"{e.name} · {e.support} · {e.transport}"


def _images(e: ContainerImages) -> str:
    return f"{len(e.requirements)} requirement strings"


def _rule(e: Rule) -> str:
    return f"{e.about} · {e.title}"


def _source(e: PackageSource) -> str:
    return f"{e.title} · {', '.join(e.provides)} · {sum(len(r.os) for r in e.repositories)} releases"


_SUMMARIES: dict[str, Callable[[Any], str]] = {
    "drivers": _driver,
    "cuda": _cuda,
    "architectures": _architecture,
    "gpus": _gpu,
    "os": _os,
    "runtimes": _runtime,
    "networks": _network,
    "conflicts": _conflict,
    "tunnels": _tunnel,
    "container-images": _images,
    "rules": _rule,
    "sources": _source,
}


def summary(room: str, entry: Entry) -> str:
    """What an entry is, in half a line."""
    return _SUMMARIES[room](entry)


# --- show ---------------------------------------------------------------------------------------------------------


def entry_json(room: str, entry: Any) -> str:
    return _json(
        {"format": FORMAT, "room": room, "entry": entry.model_dump(mode="json", by_alias=True, exclude_none=True)}
    )


def entry_text(room: str, entry: Any) -> str:
    """The entry from its summary down to its sources; nothing of the file is left out but repeated sources."""
    head = f"{entry.title}  ({room}/{entry.id})\n{summary(room, entry)}"
    skip = {"id", "title", "sources", "seen", "confidence", "why", "profiles"}
    lines = [head, ""]
    if isinstance(entry, Network):
        for profile in entry.profiles:
            lines += [*_profile(profile.id, profile.title, profile.default, profile.requirements), ""]
    lines += _wrapped(_fields(entry, skip, 0))
    trust = f"{entry.confidence} confidence, read {entry.seen}"
    trust += f": {entry.why}" if entry.why else ""
    lines += ["", *textwrap.wrap(trust, _WIDTH), *(f"  {source}" for source in entry.sources)]
    return "\n".join(lines)


def _wrapped(lines: Iterator[str]) -> list[str]:
    wrapped = []
    for line in lines:
        pad = " " * (len(line) - len(line.lstrip(" -")) + 2)
        wrapped += textwrap.wrap(line, _WIDTH, subsequent_indent=pad, break_long_words=False) or [line]
    return wrapped


def _profile(name: str, title: str, default: bool, items: Sequence[Requirement]) -> Iterator[str]:
    yield f"{name}{' (default)' if default else ''}: {title}"
    width = max((len(item.key) for item in items), default=0)
    for item in items:
        mark = "needs" if item.forbids else "wants"
        listed = f", list of {item.listed_on}" if item.listed_on else ""
        yield f"  {mark}  {item.key:<{width}}  {_cut(text_of(item.value), _WIDTH - width - 9)}"
        because = f"{item.because} ({item.confidence}{listed})"
        yield from textwrap.wrap(because, _WIDTH, initial_indent=" " * 9, subsequent_indent=" " * 9)


def _fields(value: BaseModel, skip: set[str], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for name in type(value).model_fields:
        part = getattr(value, name)
        if name in skip or part in (None, (), {}, ""):
            continue
        label = name.rstrip("_").replace("_", " ")
        if is_short(part):
            yield f"{pad}{label}: {short(part)}"
        else:
            yield f"{pad}{label}"
            yield from _nested(part, depth + 1)


def _nested(part: Any, depth: int) -> Iterator[str]:
    pad = "  " * depth
    if isinstance(part, BaseModel):
        yield from _fields(part, {"sources"}, depth)
    elif isinstance(part, Mapping):
        for key, item in part.items():
            if is_short(item):
                yield f"{pad}{key}: {short(item)}"
            else:
                yield f"{pad}{key}"
                yield from _nested(item, depth + 1)
    elif isinstance(part, list | tuple):
        for item in part:
            if is_short(item):
                yield f"{pad}- {short(item)}"
            else:
                inner = list(_nested(item, depth + 1))
                if inner:
                    yield f"{pad}- {inner[0].strip()}"
                    yield from inner[1:]
    else:
        yield f"{pad}{part}"


def is_short(part: Any) -> bool:
    """Whether a value fits on the line of its name: no mapping, no list of mappings."""
    if isinstance(part, list | tuple):
        return all(isinstance(item, str | int | float | Version) for item in part)
    return not isinstance(part, BaseModel | Mapping)


def short(part: Any) -> str:
    """A short value in words: true is yes, nothing is none."""
    if part is None:
        return "none"
    if isinstance(part, bool):
        return "yes" if part else "no"
    if isinstance(part, Specifier):
        return text_of(part)
    if isinstance(part, list | tuple):
        return ", ".join(short(item) for item in part)
    return f"{part:g}" if isinstance(part, float) else str(part)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip(" ,") + "…"


# --- lint and schema ----------------------------------------------------------------------------------------------


def findings_text(findings: Sequence[Finding]) -> str:
    """One line each, errors first; the last line counts them."""
    errors = sum(f.level == "error" for f in findings)
    lines = [f"{finding.level}: {finding}" for finding in findings]
    tally = f"{errors} errors, {len(findings) - errors} warnings" if findings else "the matrix is sound: nothing found"
    return "\n".join([*lines, *([""] if lines else []), tally])


def findings_json(findings: Sequence[Finding]) -> str:
    return _json(
        {
            "format": FORMAT,
            "findings": [
                {"level": f.level, "file": f.file, "line": f.line, "field": f.field, "message": f.message}
                for f in findings
            ],
        }
    )


def schema_text(room: str | None) -> str:
    """The schema of one room's entries, or of all rooms under `$defs` with a pattern for each folder."""
    if room is not None:
        return _json(ROOMS[room].model_json_schema(by_alias=True))
    inputs: Any = [(name, "validation", TypeAdapter(model)) for name, model in ROOMS.items()]
    refs, whole = TypeAdapter.json_schemas(inputs, by_alias=True)
    folders = {name: refs[name, "validation"] for name in ROOMS}
    return _json({"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "properties": folders})


def _json(data: object) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)
