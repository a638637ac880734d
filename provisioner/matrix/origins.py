"""Where the claims of one entry come from, and what the entry has to do with others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from provisioner.matrix.entries import Entry
from provisioner.matrix.files import contents_of
from provisioner.matrix.reader import Document, Matrix, Position, parse
from provisioner.matrix.references import Reference, references, wishes
from provisioner.matrix.specifier import Claim, Requirement


@dataclass(frozen=True)
class Origin:
    """One claim: where it stands, what it says, how far to trust it. `where` is () for the entry as a whole."""

    where: Position
    line: int
    value: Any
    confidence: str
    seen: str
    why: str | None
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """One id of another entry, with the line on which it is named (or with which it is satisfied)."""

    room: str
    entry_id: str
    where: Position
    file: str
    line: int


@dataclass(frozen=True)
class Origins:
    """All that is known of where one entry comes from and what it matters for."""

    file: str
    fields: Mapping[str, int]  # the line of each field that the file states
    claims: tuple[Origin, ...]
    rests_on: tuple[Link, ...]
    used_by: tuple[Link, ...]
    wanted_by: tuple[Link, ...]  # wishes of networks that this entry satisfies


def origins(folder: Path, matrix: Matrix, room: str, entry: Entry) -> Origins:
    """Read the lines of an entry and of all that points to it; `folder` is where the matrix was read from."""
    contents = contents_of(folder)
    documents: dict[str, Document] = {}

    def line(name: str, where: Position) -> int:
        if name not in documents:
            documents[name] = parse(name, contents[name])
        return documents[name].line(where)

    def links(found: Iterator[Reference], *, to: bool) -> tuple[Link, ...]:
        made = []
        for ref in found:
            own = f"{ref.room}/{ref.entry_id}.yaml"
            if to and (ref.target_room, ref.target) == (room, entry.id):
                made.append(Link(ref.room, ref.entry_id, ref.where, own, line(own, ref.where)))
            elif not to and (ref.room, ref.entry_id) == (room, entry.id):
                made.append(Link(ref.target_room, ref.target, ref.where, own, line(own, ref.where)))
        return tuple(made)

    file = f"{room}/{entry.id}.yaml"
    return Origins(
        file,
        {name: line(file, (name,)) for name in sorted(entry.model_fields_set)},
        tuple(_origin(where, part, entry, line(file, where)) for where, part in _claims(entry, ())),
        links(references(matrix), to=False),
        links(references(matrix), to=True),
        links(wishes(matrix), to=True),
    )


def _origin(where: Position, part: Claim, entry: Entry, line: int) -> Origin:
    """What a part leaves open it has from its entry."""
    return Origin(
        where,
        line,
        part,
        part.confidence or entry.confidence,
        part.seen or entry.seen,
        part.why or (entry.why if not part.sources else None),
        part.sources or entry.sources,
    )


def _claims(part: Any, where: Position) -> Iterator[tuple[Position, Claim]]:
    """The entry, then every part that is a claim of its own, with its place in the file."""
    if isinstance(part, Requirement):
        yield (*where, part.key), part
        return
    if isinstance(part, Claim):
        yield where, part
    if isinstance(part, BaseModel):
        for name, field in type(part).model_fields.items():
            yield from _claims(getattr(part, name), (*where, field.alias or name))
    elif isinstance(part, Mapping):
        for key, item in part.items():
            yield from _claims(item, (*where, str(key)))
    elif isinstance(part, list | tuple):
        for n, item in enumerate(part):
            yield from _claims(item, (*where, n))
