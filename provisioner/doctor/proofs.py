"""Runs the proofs beside the mechanisms: what must match, what must not, and what the language cannot check itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.doctor.host import Host
from provisioner.doctor.judge import of_mechanism
from provisioner.doctor.mechanism import Mechanism, Proof
from provisioner.doctor.reader import ROOM, contents_of, problems
from provisioner.doctor.truth import Truth
from provisioner.errors import BadInput
from provisioner.matrix.reader import Document, parse
from provisioner.model.capture import Capture, CommandOutput

if TYPE_CHECKING:
    from provisioner.matrix.reader import Matrix

TAKEN_AT = datetime.fromtimestamp(1795489620, timezone.utc)
"""The time of every proof's capture, for clocks."""


@dataclass(frozen=True)
class Complaint:
    """What is wrong with a mechanism: its file, the place in it, why."""

    id: str
    field: str
    message: str


def capture_of(proof: Proof) -> Capture:
    """The capture that a proof stands for."""
    return Capture(
        host="proof",
        taken_at=TAKEN_AT,
        probe="proof",
        files=dict(proof.files),
        commands={
            line: CommandOutput(rc=0, stdout=given) if isinstance(given, str) else CommandOutput(**given.model_dump())
            for line, given in proof.commands.items()
        },
        nvml=dict(proof.nvml) if proof.nvml is not None else None,
    )


def failures(mechanisms: Mapping[str, Mechanism], matrix: Matrix | None = None) -> Iterator[Complaint]:
    """Every proof that fails, every reference that leads nowhere, every circle."""
    for mechanism in mechanisms.values():
        yield from _references(mechanism, mechanisms)
        for name, proofs, wanted in (
            ("match", mechanism.proof.match, True),
            ("no_match", mechanism.proof.no_match, False),
        ):
            for number, proof in enumerate(proofs):
                truth = of_mechanism(mechanism, Host(capture_of(proof), matrix))[0].truth
                if wanted is not (truth is Truth.YES):
                    yield Complaint(
                        mechanism.id,
                        f"proof.{name}.{number}",
                        f"'{proof.title}' must {'' if wanted else 'not '}match, and the answer is {truth.value}",
                    )
    yield from _circles(mechanisms)


def _references(mechanism: Mechanism, mechanisms: Mapping[str, Mechanism]) -> Iterator[Complaint]:
    for field in ("covers", "explains"):
        for number, other in enumerate(getattr(mechanism, field)):
            if other not in mechanisms or other == mechanism.id:
                yield Complaint(mechanism.id, f"{field}.{number}", f"no other mechanism is called '{other}'")


def _circles(mechanisms: Mapping[str, Mechanism]) -> Iterator[Complaint]:
    """Two that explain each other would hide each other."""
    for name, mechanism in mechanisms.items():
        seen: set[str] = set()
        todo = [*mechanism.covers, *mechanism.explains]
        while todo:
            other = todo.pop()
            if other == name:
                yield Complaint(name, "explains", "it explains itself, through others")
                break
            if other not in seen and other in mechanisms:
                seen.add(other)
                todo += [*mechanisms[other].covers, *mechanisms[other].explains]


def lint(folder: Path, matrix: Matrix | None = None) -> list[tuple[Document | None, Complaint]]:
    """Every complaint about the room of failures under `folder`, with the document it is about."""
    try:
        documents = [parse(name, text) for name, text in contents_of(folder).items()]
    except BadInput as error:
        return [(None, Complaint(ROOM, "entry", error.message))]
    broken = [(document, text) for document in documents for text in problems(document)]
    if broken:
        return [(document, _from_text(text)) for document, text in broken]
    by_id = {str(document.data["id"]): document for document in documents}
    mechanisms = {name: Mechanism.model_validate(document.data) for name, document in by_id.items()}
    return [(by_id.get(item.id), item) for item in failures(mechanisms, matrix)]


def _from_text(text: str) -> Complaint:
    """`failures/x.yaml:3: id: why` comes apart again."""
    file, _, rest = text.partition(":")
    _, _, rest = rest.partition(": ")
    field, _, message = rest.partition(": ")
    return Complaint(Path(file).stem, field if message else "entry", message or rest)
