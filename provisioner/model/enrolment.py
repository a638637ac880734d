"""The enrolment record: a signed statement that a host passed every required check of one run, for one lock entry."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from provisioner.model.capture import Capture
from provisioner.model.results import Status
from provisioner.model.stack import HostLock

RECORD = "/var/lib/provision/enrolment.json"
"""Where the record lies on its host; the client units' target starts only when it is there."""


class RecordedCheck(BaseModel):
    """A check as it stood when the host was enrolled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    status: Status
    required: bool


class EnrolmentRecord(BaseModel):
    """`key` is the fingerprint of the operator's key (`SHA256:…`, as ssh-keygen -l prints it), `signature` base64."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    host: str
    lock_digest: str
    matrix_digest: str
    run: str
    checks: tuple[RecordedCheck, ...]
    enrolled_at: datetime
    key: str
    signature: str = ""

    @property
    def signed_bytes(self) -> bytes:
        """What the signature covers: every other field, as canonical JSON."""
        return canonical(self.model_dump(mode="json", exclude={"signature"}))

    @property
    def text(self) -> str:
        """The record as it is written to a file."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"


def canonical(value: Any) -> bytes:
    """One spelling for equal values: keys sorted, no spaces, ASCII; `{"b":1,"a":"é"}` is `{"a":"\\u00e9","b":1}`."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


_WORDS = {"because", "not_newer", "warnings", "unchecked"}


def lock_digest(entry: HostLock) -> str:
    """`sha256:…` of what a host's lock entry decides; another host's entry, or other words for it, do not change it.

    Reasons are told anew by each `provision resolve` ("is on this host already"): they must not end an enrolment.
    """
    return "sha256:" + hashlib.sha256(canonical(decided(entry))).hexdigest()


def decided(entry: HostLock) -> Any:
    """Return the entry as data, without the words that explain it."""
    return _decided(entry.model_dump(mode="json"))


def _decided(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _decided(item) for key, item in value.items() if key not in _WORDS}
    return [_decided(item) for item in value] if isinstance(value, list) else value


def read_record(text: str) -> EnrolmentRecord | None:
    """Read a record; None when the text is not one, for a host may hold anything under that name."""
    try:
        return EnrolmentRecord.model_validate_json(text)
    except ValidationError:
        return None


def record_in(capture: Capture) -> EnrolmentRecord | None:
    """The record that a capture shows; None when it shows none that can be read, or did not look."""
    text = capture.file(RECORD)
    return read_record(text) if isinstance(text, str) else None
