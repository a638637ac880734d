"""Reads an enrolment record as a third party does: with the file and a public key, and without the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from provisioner.actions.ports import Signatures
from provisioner.errors import BadInput
from provisioner.model.enrolment import EnrolmentRecord, is_of_an_older_format, read_record


@dataclass(frozen=True)
class Past:
    """An earlier record of the same host, and whether its signature is that of the same trusted keys."""

    record: EnrolmentRecord
    signed: bool


@dataclass(frozen=True)
class Examined:
    """A record, and why it does not count; no reason: it holds at the time it was examined."""

    record: EnrolmentRecord
    at: datetime
    wrong: tuple[str, ...] = ()
    past: tuple[Past, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.wrong


def examine(text: str, name: str, *, signatures: Signatures, at: datetime) -> Examined:
    """Check signature and time. Raises BadInput when `text` (of the file `name`) is no enrolment record."""
    record = read_record(text)
    if record is None:
        old = is_of_an_older_format(text)
        raise BadInput(
            "no-attestation",
            f"{name} is a record of an older format" if old else f"{name} is no enrolment record",
            hint="provision enrol HOST makes a new one" if old else "it lies on the host: provision status names it",
        )
    signed = signatures.verifies(record)
    wrong = []
    if signed is None:
        wrong.append(f"it is signed with {record.key}, which is not the key it was compared with")
    elif not signed:
        wrong.append("its signature is wrong: it was edited or damaged")
    if at >= record.expires_at:
        wrong.append(f"it ended at {record.expires_at:%Y-%m-%d %H:%M} UTC")
    if at < record.enrolled_at:
        wrong.append(f"it begins at {record.enrolled_at:%Y-%m-%d %H:%M} UTC")
    return Examined(record, at, tuple(wrong))


def past(examined: Examined, texts: Sequence[str], *, signatures: Signatures) -> tuple[Past, ...]:
    """Return the host's earlier enrolments, newest first; what is no record of this host is passed over."""
    found = {record.enrolled_at: record for text in texts if (record := read_record(text)) is not None}
    return tuple(
        Past(found[at], signatures.verifies(found[at]) is True)
        for at in sorted(found, reverse=True)
        if found[at].host == examined.record.host and at < examined.record.enrolled_at
    )
