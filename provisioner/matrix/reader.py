"""Reads `matrix/` into one frozen value: `load()` gives a `Matrix` whose attributes are the rooms.

    matrix = load()
    matrix.drivers["535"].latest.version          # DriverVersion("535.309.01"); also .modules, .eol, .packages …
    matrix.cuda["12.4"].minor_floor               # DriverVersion("525.60.13"); also .releases, .capabilities
    matrix.architectures["pascal"].last_driver    # "580"; also .modules, .capabilities
    matrix.gpus["rtx-4090"].pci[0].device         # "2684"; also .name, .memory_gib, .architecture, .compute_capability
    matrix.os["debian-12"].components             # also .eol, .family, .unsupported_architectures
    matrix.runtimes["docker-io"].packages         # also .floors, .releases
    matrix.networks["lium"].default_profile       # .requirements: items with .key, .value, .forbids, .because, .sources
    matrix.conflicts["cdi"].parties
    matrix.tunnels["wireguard"].carries           # also .breaks: networks that such a tunnel can't serve
    matrix.container_images["cuda-12.4"].requirements
    matrix.rules["minor-version-compatibility"].figures
    matrix.sources["docker"].repositories         # .uri, .key, .fingerprint per OS release
    matrix.digest                                 # sha256 of the canonical content; comments and layout do not count

    matrix.gpus_with_pci("10de", "2684", "10de:1b1d")  # models with the id (and that board): none, one or several
    matrix.architecture_of_chip("AD102 [GeForce …]")  # what an unknown card falls back to, or None

Every attribute is a read-only mapping from id to an entry of `entries.py`. A file that cannot be used raises BadInput
that names file, line and field.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from provisioner.errors import BadInput
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
from provisioner.matrix.files import bytes_digest, contents_of, matrix_dir, read_cache, refuse_altered, write_cache

DEPTH_LIMIT = 32

Position = tuple[str | int, ...]
E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class Document:
    """One file as written: its data, and the line on which each part of it begins."""

    path: str
    data: Any
    lines: Mapping[Position, int]

    def line(self, where: Position) -> int:
        """The line of the closest part that exists; a missing field is shown at its parent."""
        for end in range(len(where), -1, -1):
            if (found := self.lines.get(where[:end])) is not None:
                return found
        return 1


@dataclass(frozen=True)
class Rooms:
    """All entries by room and id."""

    drivers: Mapping[str, DriverBranch]
    cuda: Mapping[str, CudaLevel]
    architectures: Mapping[str, Architecture]
    gpus: Mapping[str, GpuModel]
    os: Mapping[str, OsRelease]
    runtimes: Mapping[str, Runtime]
    networks: Mapping[str, Network]
    conflicts: Mapping[str, Conflict]
    tunnels: Mapping[str, TunnelKind]
    container_images: Mapping[str, ContainerImages]
    rules: Mapping[str, Rule]
    sources: Mapping[str, PackageSource]

    def room(self, name: str) -> Mapping[str, Entry]:
        """The entries of a folder of `matrix/`: `matrix.room("container-images")`."""
        entries: Mapping[str, Entry] = getattr(self, name.replace("-", "_"))
        return entries


@dataclass(frozen=True)
class Matrix(Rooms):
    """The rooms, and the digest of their content."""

    digest: str
    _by_pci: Mapping[tuple[str, str], tuple[GpuModel, ...]] = field(repr=False, compare=False)

    def gpus_with_pci(self, vendor: str, device: str, subsystem: str | None = None) -> tuple[GpuModel, ...]:
        """Models that carry a PCI id, in the order of their ids; a subsystem narrows those that share one."""
        models = self._by_pci.get((vendor.lower(), device.lower()), ())
        if subsystem is None:
            return models
        board = subsystem.lower()
        return tuple(
            model for model in models if any(pci.device == device.lower() and pci.is_board(board) for pci in model.pci)
        )

    def architecture_of_chip(self, pci_name: str) -> Architecture | None:
        """`GP104 [GeForce GTX 1080]` is of Pascal; the longest prefix wins (`GB10` is not `GB1`)."""
        found = [
            (len(prefix), architecture)
            for architecture in self.architectures.values()
            for prefix in architecture.chip_prefixes
            if pci_name.upper().startswith(prefix)
        ]
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def __reduce__(self) -> tuple[Any, ...]:
        return (_matrix, ({name: dict(self.room(name)) for name in ROOMS}, self.digest))


def _matrix(rooms: Mapping[str, Mapping[str, Any]], digest: str) -> Matrix:
    by_pci: dict[tuple[str, str], list[GpuModel]] = {}
    for model in rooms["gpus"].values():
        for pci in model.pci:
            owners = by_pci.setdefault((pci.vendor, pci.device), [])
            if model not in owners:
                owners.append(model)
    frozen = {name.replace("-", "_"): MappingProxyType(dict(rooms[name])) for name in ROOMS}
    return Matrix(**frozen, digest=digest, _by_pci={key: tuple(models) for key, models in by_pci.items()})


def load(path: Path | None = None) -> Matrix:
    """Read, check and freeze the matrix under `path` (by default the one in use)."""
    folder = path or matrix_dir()
    contents = contents_of(folder)
    key = bytes_digest(contents)
    cached = read_cache(key)
    if cached is not None:
        try:
            matrix = _validated(cached)
            refuse_altered(folder, matrix.digest)
            return matrix
        except ValidationError:
            pass  # written by a version with another schema; the slow way below names file and line
    documents = [parse(name, text) for name, text in contents.items()]
    canonical = _canonical(documents)
    matrix = _validated(canonical)
    _refuse_cycles(matrix, documents)
    refuse_altered(folder, matrix.digest)
    write_cache(key, canonical)
    return matrix


def read_documents(folder: Path) -> list[Document]:
    """Every file of the matrix as data with line numbers, not yet held against the schema."""
    return [parse(name, text) for name, text in contents_of(folder).items()]


# --- YAML, with line numbers and without its dangerous half -------------------------------------------------------

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)\.[0-9]+([eE][-+]?[0-9]+)?")


def _scalar(text: str) -> Any:
    """Plain scalars as YAML 1.2 has them: `on` and `no` are words, `2026-06-03` is text."""
    if text in ("null", "~", ""):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def parse(name: str, text: bytes) -> Document:
    """Read one file. Aliases, tags, duplicate keys and more than one document are refused."""
    lines: dict[Position, int] = {}

    def refuse(line: int, why: str, reference: str = "matrix-bad-yaml") -> BadInput:
        return BadInput(reference, f"{name}:{line}: {why}")

    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse(text[: error.start].count(b"\n") + 1, "this is not UTF-8 text") from error

    def value(events: Iterator[Any], event: Any, where: Position) -> Any:
        line = event.start_mark.line + 1
        lines.setdefault(where, line)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise refuse(line, "anchors and aliases are not read; write the value out", "matrix-yaml-alias")
        if getattr(event, "tag", None) not in (None, "!"):
            raise refuse(line, f"the tag {event.tag} is not read; write plain YAML")
        if len(where) > DEPTH_LIMIT:
            raise refuse(line, f"nested deeper than {DEPTH_LIMIT} levels")
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event.value) if event.implicit[0] else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(inner := next(events), yaml.SequenceEndEvent):
                items.append(value(events, inner, (*where, len(items))))
            return items
        mapping: dict[str, Any] = {}
        while not isinstance(inner := next(events), yaml.MappingEndEvent):
            at = inner.start_mark.line + 1
            if not isinstance(inner, yaml.ScalarEvent):
                raise refuse(at, "a key is plain text")
            if inner.value in mapping:
                raise refuse(at, f"'{inner.value}' stands here twice", "matrix-duplicate-key")
            below = (*where, inner.value)
            lines[below] = at
            mapping[inner.value] = value(events, next(events), below)
        return mapping

    try:
        events: Iterator[Any] = iter(yaml.parse(decoded, Loader=_Loader))
        data: Any = None
        seen = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                seen += 1
                if seen > 1:
                    raise refuse(getattr(event.start_mark, "line", 0) + 1, "one file holds one entry")
                data = value(events, next(events), ())
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        # What is never closed is best shown where it was opened.
        opened = getattr(error, "context_mark", None) if "end of stream" in problem else None
        mark = opened or getattr(error, "problem_mark", None)
        line = int(getattr(mark, "line", 0))
        raise refuse(line + 1, f"not YAML ({problem})") from error
    except RecursionError as error:
        raise refuse(1, f"nested deeper than {DEPTH_LIMIT} levels") from error
    return Document(path=name, data=data, lines=lines)


def rooms_of(documents: list[Document]) -> Rooms:
    """The entries of documents that the schema accepts, for the linter: nothing is cached, nothing is digested."""
    return _validated(_canonical(documents))


# --- from documents to entries ------------------------------------------------------------------------------------


def problems_of(document: Document) -> list[str]:
    """What the schema has against one document, each as `file:line: field: why`."""
    room, _, file = document.path.partition("/")
    if not isinstance(document.data, dict):
        return [f"{document.path}:1: an entry is a mapping that begins with its id"]
    try:
        entry = ROOMS[room].model_validate_json(_json(document.data))
    except ValidationError as error:
        return [_worded(document, item) for item in error.errors(include_url=False)]
    if entry.id != file.removesuffix(".yaml"):
        return [f"{document.path}:{document.line(('id',))}: id: '{entry.id}' must be the name of the file"]
    return []


def _worded(document: Document, error: Any) -> str:
    where: Position = tuple(error["loc"])
    field_name = ".".join(str(part) for part in where) or "entry"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "this key is not known here"
    elif error["type"] == "missing":
        message = "this field is missing"
    return f"{document.path}:{document.line(where)}: {field_name}: {message}"


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _canonical(documents: list[Document]) -> str:
    """One JSON text of all entries; raises BadInput with every complaint when a document breaks the schema."""
    rooms: dict[str, dict[str, Any]] = {name: {} for name in ROOMS}
    owners: dict[tuple[str, str], Document] = {}
    for document in documents:
        room = document.path.partition("/")[0]
        entry_id = document.data.get("id") if isinstance(document.data, dict) else None
        if isinstance(entry_id, str):
            other = owners.setdefault((room, entry_id), document)
            if other is not document:
                raise BadInput(
                    "matrix-duplicate-id",
                    f"{document.path}:{document.line(('id',))}: id: '{entry_id}' is also the id of {other.path}",
                )
            rooms[room][entry_id] = document.data
    complaints = [line for document in documents for line in problems_of(document)]
    if complaints:
        raise BadInput(
            "matrix-bad-entry",
            complaints[0],
            context=complaints[1:20],
            hint="provision matrix schema prints the schema; provision matrix lint lists every complaint",
        )
    return _json(rooms)


def parent_cycle(networks: Mapping[str, Network], network_id: str) -> list[str] | None:
    """The way from a network up its parents back to itself, or None when it is not part of itself."""
    way = [network_id]
    while (parent := networks[way[-1]].parent) is not None and parent in networks and parent not in way:
        way.append(parent)
    return [*way, network_id] if parent == network_id else None


def _refuse_cycles(matrix: Matrix, documents: list[Document]) -> None:
    """Whoever follows parents would never arrive. Raises BadInput that names the first network of a cycle."""
    for network_id in matrix.networks:
        way = parent_cycle(matrix.networks, network_id)
        if way is not None:
            document = next(d for d in documents if d.path == f"networks/{network_id}.yaml")
            raise BadInput(
                "matrix-cycle",
                f"{document.path}:{document.line(('parent',))}: parent: a cycle: {' → '.join(way)}",
                hint="provision matrix lint lists every complaint",
            )


_ADAPTERS: list[TypeAdapter[Any]] = []


@functools.lru_cache(maxsize=2)
def _validated(canonical: str) -> Matrix:
    """The matrix of one text, frozen: a command that loads it twice validates it once. Two texts: an old and a new."""
    if not _ADAPTERS:
        _ADAPTERS.append(_all_rooms())
    rooms = _ADAPTERS[0].validate_json(canonical)
    return _matrix(rooms, hashlib.sha256(canonical.encode()).hexdigest())


def _all_rooms() -> TypeAdapter[Any]:
    from typing_extensions import TypedDict

    shape: Any = TypedDict("Rooms", {name: dict[str, model] for name, model in ROOMS.items()})  # type: ignore[misc,valid-type]  # made from the table of rooms
    return TypeAdapter(shape)
