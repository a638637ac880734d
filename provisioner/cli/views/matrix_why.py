"""How `provision matrix why` reads: what an entry decides, what uses it, where each of its claims comes from."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from provisioner.cli.views.matrix import is_short, short, summary
from provisioner.cli.words import table
from provisioner.errors import BadInput
from provisioner.matrix.entries import Entry
from provisioner.matrix.origins import Link, Origin, Origins
from provisioner.matrix.reader import Position
from provisioner.matrix.specifier import Claim, Requirement, text_of

FORMAT = 1
_WIDTH = 110

_DECIDES = {
    "drivers": "which cards a version of this branch drives, which CUDA level it offers, when it counts as ended or "
    "unsafe, and which packages install it",
    "cuda": "which toolkit a driver can serve, natively or by minor-version compatibility",
    "architectures": "which branches and kernel modules its cards take, and what a card falls back to that no file "
    "names",
    "gpus": "what a card with these PCI ids is, so which branches, kernel modules and CUDA levels it takes",
    "os": "which packages can be chosen on this release, when it counts as ended, and which repair an upgrade of it is",
    "runtimes": "which packages a container engine is, and from which version on it is safe and does what is wanted",
    "sources": "where a source that the request names lies for this release, and which key must sign it",
    "networks": "what of a host is needed (rules stacks out) or wanted (warns) when it serves this network",
    "conflicts": "whether two networks may share a host",
    "tunnels": "whether a network can be served when its customers come in by a tunnel of this kind",
    "container-images": "nothing that provision resolve chooses: with which drivers an image of this level starts",
    "rules": "nothing by itself: a statement over many entries, kept with its source to be read and cited",
}


def why_text(room: str, entry: Entry, found: Origins, field: str | None) -> str:
    """The whole screen: an overview of the entry, or with a field where its claims come from."""
    lines = [f"{entry.title}  ({room}/{entry.id})", summary(room, entry), ""]
    if field is not None:
        for claim in _about(entry, found, field):
            lines += [*_claim(claim, found.file), ""]
        return "\n".join([*lines, f"Look closer: provision matrix show {room}/{entry.id}"])
    lines += _folded("decides    ", _DECIDES[room])
    lines += _links("rests on   ", found.rests_on)
    lines += _links("used by    ", found.used_by)
    lines += _links("wanted by  ", found.wanted_by)
    whole, *parts = found.claims
    lines += ["", *_claim(whole, found.file)]
    if parts:
        rows = [(f"{found.file}:{part.line}", _name(part), _trust(part), _cut(_value(part.value))) for part in parts]
        lines += ["", *table(rows).splitlines(), ""]
        first = next((p for p in parts if isinstance(p.value, Requirement)), parts[0])
        asked = first.where[-1] if isinstance(first.where[-1], str) else first.where[0]
        lines.append(f"Where one comes from: provision matrix why {room}/{entry.id} {asked}")
    return "\n".join(lines).rstrip()


def _name(claim: Origin) -> str:
    """`needs driver` for a requirement, `security.1` for another part."""
    if isinstance(claim.value, Requirement):
        return f"{'needs' if claim.value.forbids else 'wants'} {claim.value.key}"
    return ".".join(map(str, claim.where)) or "the entry as a whole"


def _trust(claim: Origin) -> str:
    listed = getattr(claim.value, "listed_on", None)
    return claim.confidence + (f", list of {listed}" if listed else "")


def _claim(claim: Origin, file: str) -> Iterator[str]:
    yield f"{file}:{claim.line}  {_name(claim)}"
    yield from _folded("    ", _value(claim.value))
    if isinstance(claim.value, Requirement):
        yield from _folded("    ", claim.value.because)
    listed = getattr(claim.value, "listed_on", None)
    trust = f"{claim.confidence} confidence, read {claim.seen}" + (f", list of {listed}" if listed else "")
    yield from _folded("    ", trust + (f": {claim.why}" if claim.why else ""))
    yield from (f"      {source}" for source in claim.sources)


def _value(part: Any) -> str:
    if isinstance(part, Requirement):
        return text_of(part.value)
    if isinstance(part, Entry):
        return ""
    if not isinstance(part, BaseModel):
        return short(part) if is_short(part) else json.dumps(part, ensure_ascii=False, default=str)
    stated = ((name, getattr(part, name)) for name in type(part).model_fields if name in part.model_fields_set)
    fields = [(name, value) for name, value in stated if name not in Claim.model_fields]
    return " · ".join(
        f"{name.rstrip('_').replace('_', ' ')} {short(v)}" for name, v in fields if is_short(v) and v != ()
    )


def _about(entry: Entry, found: Origins, field: str | None) -> Sequence[Origin]:
    """The claims that a field is about: those at it or below it, else the claim of the part that it stands in."""
    if field is None:
        return found.claims
    wanted = field.split(".")
    chosen = [claim for claim in found.claims if _has(claim.where, wanted)]
    if not chosen and field in type(entry).model_fields and getattr(entry, field) is not None:
        whole = found.claims[0]
        value = getattr(entry, field)
        chosen = [
            Origin(
                (field,),
                found.fields.get(field, whole.line),
                value,
                whole.confidence,
                whole.seen,
                whole.why,
                whole.sources,
            )
        ]
    if not chosen:
        known = dict.fromkeys(str(part) for claim in found.claims for part in claim.where if isinstance(part, str))
        fields = [name for name in entry.model_fields_set if name not in Claim.model_fields]
        raise BadInput(
            "matrix-unknown-field",
            f"{found.file} makes no claim about '{field}'",
            context=textwrap.wrap(f"it has {', '.join(sorted({*known, *fields}))}", 100),
        )
    return chosen


def _has(where: Position, wanted: Sequence[str]) -> bool:
    """`driver` and `profiles.0` are in `profiles.0.requirements.3.driver`; `gpu.model` is one key of the language."""
    parts = [word for part in where for word in str(part).split(".")]
    return any(parts[n : n + len(wanted)] == list(wanted) for n in range(len(parts)))


def _links(label: str, links: Iterable[Link]) -> Iterator[str]:
    """`used by    gpus: rtx-4090, rtx-3090`: a line for each room, each entry once."""
    rooms: dict[str, dict[str, None]] = {}
    for link in links:
        rooms.setdefault(link.room, {})[link.entry_id] = None
    for place, (room, names) in enumerate(rooms.items()):
        yield from _folded(label if place == 0 else " " * len(label), f"{room}: {', '.join(names)}")


def _folded(lead: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_on_hyphens=False,
        break_long_words=False,
    )


def _cut(text: str) -> str:
    return text if len(text) <= 48 else text[:47].rstrip(" ,·") + "…"


def why_json(room: str, entry: Entry, found: Origins, field: str | None) -> str:
    """The same, with every line on which another entry names this one."""
    return json.dumps(
        {
            "format": FORMAT,
            "room": room,
            "id": entry.id,
            "title": entry.title,
            "file": found.file,
            "decides": _DECIDES[room],
            "rests_on": [_link(link) for link in found.rests_on],
            "used_by": [_link(link) for link in found.used_by],
            "wanted_by": [_link(link) for link in found.wanted_by],
            "claims": [
                {
                    "field": ".".join(map(str, claim.where)),
                    "line": claim.line,
                    "value": _value(claim.value),
                    "forbids": claim.value.forbids if isinstance(claim.value, Requirement) else None,
                    "confidence": claim.confidence,
                    "seen": claim.seen,
                    "why": claim.why,
                    "sources": list(claim.sources),
                }
                for claim in _about(entry, found, field)
            ],
        },
        indent=2,
        ensure_ascii=False,
    )


def _link(link: Link) -> dict[str, Any]:
    return {
        "entry": f"{link.room}/{link.entry_id}",
        "field": ".".join(map(str, link.where)),
        "at": f"{link.file}:{link.line}",
    }
