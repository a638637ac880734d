"""Markdown of every entry of the matrix, a page for each room: docs/reference/matrix/, and a test keeps it so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel

from provisioner.cli.views.contract_pages import contracts_page
from provisioner.cli.views.marks import cell, marked
from provisioner.cli.views.matrix import is_short, short, summary
from provisioner.cli.views.matrix_reference import reference_text
from provisioner.matrix.entries import ROOMS, Details, Entry, Network, Profile
from provisioner.matrix.reader import Matrix
from provisioner.matrix.specifier import Claim, Requirement, text_of

_WRITTEN = "Written by `provision matrix reference` from the files of `matrix/`; don't edit it by hand."

_INTRO: dict[str, tuple[str, str]] = {
    "drivers": (
        "Driver branches",
        "A branch is what stands before the first dot of a driver's version: 580.95.05 is of branch 580. It "
        "decides which cards are driven, which CUDA level is offered, how long it is mended, and by which "
        "packages a distribution carries it.",
    ),
    "cuda": (
        "CUDA levels",
        "A level is major.minor. `native branch` is the driver branch that came with it; `minor floor` is the "
        "oldest driver that runs its programs at all, by minor-version compatibility within one major.",
    ),
    "architectures": (
        "GPU architectures",
        "Which driver branches drive an architecture, with which flavour of kernel modules, and up to which "
        "CUDA level. A card that no file names falls back to its architecture, by the name of its chip.",
    ),
    "gpus": (
        "GPU models",
        "What a card is on the PCI bus, its memory, and what it takes. `first open driver` is the first "
        "release by date whose open module lists the id; a card that is missing there is warned of, never "
        "refused.",
    ),
    "os": (
        "OS releases",
        "How long a release is supported, its kernels, and what its own archive and the repositories of "
        "NVIDIA and Docker carry for it.",
    ),
    "runtimes": (
        "Container runtimes",
        "Container engines and the toolkit that gives them GPUs: packages, what each release changed, "
        "published holes, and the lowest versions that follow.",
    ),
    "networks": (
        "Networks",
        "What a network's client requires of a host, how the network learns that a host is well, how to drain "
        "it, and what has broken hosts before. *needs* rules out what does not fit; *wants* only warns. At a "
        "glance: [networks and their clients](contracts.md).",
    ),
    "conflicts": (
        "Conflicts between networks",
        "What cannot share a host, or only with the way out that is named.",
    ),
    "tunnels": (
        "Kinds of tunnel",
        "What each way to a host behind NAT carries, and which networks it cannot serve when their customers come "
        "in by it. *Proven* kinds run in the lab; of a *rendered* one only the configuration is written and checked.",
    ),
    "container-images": (
        "Requirements of container images",
        "The `NVIDIA_REQUIRE_CUDA` strings that NVIDIA's CUDA images carry. Alternatives are separated by "
        "spaces; within one, every condition between commas must hold.",
    ),
    "sources": (
        "Package sources",
        "Repositories of NVIDIA and Docker that `provision_policy.sources` can name: where they lie for each OS "
        "release, and the fingerprint of the key that signs them.",
    ),
    "rules": (
        "Rules",
        "Statements over many entries, which explanations cite.",
    ),
}


def pages(matrix: Matrix) -> dict[str, str]:
    """Return every page by its path below docs/reference/: `matrix.md` (the schema), `matrix/drivers.md` and so on."""
    texts = {"matrix.md": reference_text(), "matrix/README.md": _overview(matrix)}
    texts["matrix/contracts.md"] = contracts_page(matrix)
    return texts | {f"matrix/{room}.md": _page(room, matrix) for room in ROOMS}


def _overview(matrix: Matrix) -> str:
    lines = [
        "# What the matrix knows",
        "",
        _WRITTEN,
        "",
        "A claim is an entry, a requirement of a network, or a part of an entry that states its own confidence. "
        "What a file may hold, field by field: [the files of the matrix](../matrix.md).",
        "",
        "| Room | | Entries | Claims | Sources |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for room, (title, _) in _INTRO.items():
        entries = matrix.room(room).values()
        parts = [part for entry in entries for part in _mappings(entry.model_dump(exclude_unset=True))]
        claims = sum(part.get("confidence") is not None for part in parts)
        sources = {source for part in parts for source in part.get("sources", ())}
        lines.append(f"| `{room}/` | [{title}]({room}.md) | {len(entries)} | {claims} | {len(sources)} |")
    lines += [
        "",
        "What *high*, *medium* and *low* mean: [confidence-words](rules.md#confidence-words). A low claim and one "
        "without a date warn, they never forbid. *Not confirmed* is not *no*.",
    ]
    return "\n".join(lines) + "\n"


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """The mapping itself and every one below it."""
    if isinstance(value, Mapping):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _mappings(inner)


def _page(room: str, matrix: Matrix) -> str:
    title, about = _INTRO[room]
    entries = matrix.room(room).values()
    lines = [f"# {title}", "", _WRITTEN, "", about, "", f"Fields: [{room}/](../matrix.md#{room}).", ""]
    lines += ["| Id | | Confidence |", "| --- | --- | --- |"]
    for entry in entries:
        lines.append(f"| [{entry.id}](#{_anchor(entry.id)}) | {cell(summary(room, entry))} | {entry.confidence} |")
    for entry in entries:
        lines += ["", f"## {entry.id}", "", *_entry(room, entry)]
    return "\n".join(lines) + "\n"


def _anchor(heading: str) -> str:
    """How GitHub names the place of a heading: `ubuntu-22.04` is `ubuntu-2204`."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _entry(room: str, entry: Entry) -> Iterator[str]:
    notes = _Notes(entry)
    yield (
        f"**{marked(entry.title)}** · `matrix/{room}/{entry.id}.yaml` · {entry.confidence} confidence, "
        + f"read {entry.seen}"
        + (f": {marked(entry.why)}" if entry.why else "")
    )
    yield ""
    if isinstance(entry, Network):
        for profile in entry.profiles:
            yield from _profile(profile, notes)
            yield ""
    skip = {"id", "title", "profiles", *Claim.model_fields}
    if getattr(entry, "name", None) == entry.title:
        skip.add("name")
    yield from _fields(entry, skip, notes, 0)
    yield ""
    yield "Sources:"
    yield ""
    for number, source in enumerate(notes.sources, 1):
        yield f"{number}. {source if source.startswith('https://') and ' ' not in source else marked(source)}"


class _Notes:
    """The sources of one entry, numbered as they are met; what a part states of its own, in brackets."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.sources = list(dict.fromkeys(entry.sources))

    def of(self, part: Any) -> str:
        """` (high, read 2026-03-19; 1, 4)`: only what differs from the entry, nothing when nothing does."""
        stated = []
        if getattr(part, "confidence", None) and (part.confidence != self._entry.confidence or part.sources):
            stated.append(str(part.confidence))
        if getattr(part, "seen", None) and part.seen != self._entry.seen:
            stated.append(f"read {part.seen}")
        if getattr(part, "listed_on", None):
            stated.append(f"list of {part.listed_on}")
        if part.sources and part.sources != self._entry.sources:
            stated.append(f"source{'' if len(part.sources) == 1 else 's'} {', '.join(self._numbers(part.sources))}")
        text = ", ".join(stated)
        if getattr(part, "why", None) and part.why != self._entry.why:
            text += f"{': ' if text else ''}{marked(part.why)}"
        return f" ({text})" if text else ""

    def _numbers(self, sources: Iterable[str]) -> Iterator[str]:
        for source in sources:
            if source not in self.sources:
                self.sources.append(source)
            yield str(self.sources.index(source) + 1)


def _profile(profile: Profile, notes: _Notes) -> Iterator[str]:
    yield f"Profile `{profile.id}`{' (default)' if profile.default else ''}: {marked(profile.title)}"
    yield ""
    if not profile.requirements:
        yield "It requires nothing that is known."
        return
    yield "| | Of | Value | Because |"
    yield "| --- | --- | --- | --- |"
    for item in profile.requirements:
        yield f"| {' | '.join(_cell_of(item, notes))} |"


def _cell_of(item: Requirement, notes: _Notes) -> tuple[str, ...]:
    mark = "needs" if item.severity == "must" else "wants"
    if item.severity == "must" and not item.forbids:
        mark = "needs, only warned of"
    if item.with_client is not None:
        mark += f" (client `{item.with_client}`)".replace("|", "\\|")
    because = marked(item.because) + notes.of(item)
    return mark, f"`{item.key}`", marked(text_of(item.value)).replace("|", "\\|"), because.replace("|", "\\|")


def _fields(part: BaseModel, skip: set[str], notes: _Notes, depth: int) -> Iterator[str]:
    """The fields that the file states, each as a list item; what they hold is nested below."""
    for name, value in _stated(part, skip):
        yield from _item(name, value, notes, depth)


def _stated(part: BaseModel, skip: set[str]) -> Iterator[tuple[str, Any]]:
    for name in type(part).model_fields:
        if name in part.model_fields_set and name not in skip:
            yield name.rstrip("_"), getattr(part, name)


def _item(name: str, value: Any, notes: _Notes, depth: int) -> Iterator[str]:
    pad = "  " * depth
    lead = f"{pad}- {_label(name)}: " if name and name != "text" else f"{pad}- "
    if isinstance(value, Details):
        yield f"{lead.rstrip()}{notes.of(value)}"
        for key, inner in value.facts.items():
            yield from _item(key, inner, notes, depth + 1)
    elif isinstance(value, BaseModel):
        yield from _model(lead, name, value, notes, depth)
    elif isinstance(value, Mapping) and not name and value and all(_is_plain(item) for item in value.values()):
        yield f"{lead}{' · '.join(f'{_label(str(key))} {_plain(item, key)}' for key, item in value.items())}"
    elif _is_plain(value):
        yield f"{lead}{_plain(value, name)}"
    else:
        stated = ""
        if isinstance(value, Mapping) and isinstance(value.get("sources"), list):
            own = {key: value.get(key) for key in Claim.model_fields}
            stated = notes.of(SimpleNamespace(**own))
            value = {key: item for key, item in value.items() if key not in own}
        yield lead.rstrip() + stated
        pairs = value.items() if isinstance(value, Mapping) else (("", item) for item in value)
        for key, inner in pairs:
            never = inner is None and name == "listed_from"
            yield from _item(str(key), "never" if never else inner, notes, depth + 1)


def _model(lead: str, name: str, part: BaseModel, notes: _Notes, depth: int) -> Iterator[str]:
    """On one line when every field is short: `bulletin 5703 · published 2025-10-09 · version 580.95.05 (source 3)`."""
    own = set(Claim.model_fields) | {"sources"}
    stated = notes.of(part) if "sources" in type(part).model_fields else ""
    fields = list(_stated(part, own))
    if all(_is_plain(value) for _, value in fields):
        words = [f"{_lead(name)}{_plain(value, name)}" for name, value in fields]
        yield f"{lead}{' · '.join(words)}{stated}"
        return
    first, *others = fields
    if not name and _is_plain(first[1]):
        yield f"{lead}{_lead(first[0])}{_plain(first[1], first[0])}{stated}"
    else:
        yield f"{lead.rstrip()}{stated}"
        others = fields
    for field, value in others:
        yield from _item(field, value, notes, depth + 1)


def _is_plain(value: Any) -> bool:
    """Fits on the line of its label: nothing, a word, a sentence, or a list of words."""
    if isinstance(value, list | tuple):
        return is_short(value) and not any(isinstance(i, str) and (len(i) > 60 or i.endswith(".")) for i in value)
    return value == {} or is_short(value)


_NULL = {
    "codename": "none",
    "first_cuda": "older than any here",
    "first_driver": "older than any here",
    "last_cuda": "none so far",
    "last_driver": "none so far",
    "level": "older than any here",
    "version": "none named",
}
"""Where nothing is something else than "not confirmed"."""


def _plain(value: Any, name: str = "") -> str:
    if value is None:
        return _NULL.get(name, "not confirmed")
    if value == {}:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or "none"
    return marked(short(value))


_WORDS = {"eol": "end of life", "cuda": "CUDA", "gpu": "GPU", "os": "OS", "pci": "PCI", "tdp": "TDP", "gib": "GiB"}


def _label(name: str) -> str:
    """`native_cuda` is `native CUDA`."""
    return marked(" ".join(_WORDS.get(word, word) for word in re.split("[_ ]", name)))


def _lead(name: str) -> str:
    """A sentence needs no name before it."""
    return "" if name == "text" else f"{_label(name)} "
