"""The enrolment record: a signed statement that a host passed every required check of one run, for one lock entry.

It is an in-toto statement in a DSSE envelope, so that others can read and verify it with tools of their own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from provisioner.model.capture import Capture
from provisioner.model.results import Status
from provisioner.model.stack import HostLock

RECORD = "/var/lib/provision/enrolment.json"
"""Where the record lies on its host; the client units' target starts only when it is there."""

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:provision:enrolment:v2"
PAYLOAD = "application/vnd.in-toto+json"


class RecordedCheck(BaseModel):
    """A check as it stood when the host was enrolled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    status: Status
    required: bool


class Binding(BaseModel):
    """What ties a record to one host: a keyed hash of its machine-id, and the fingerprint of its ssh host key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str
    host_key: str | None  # None: no sshd there


class Card(BaseModel):
    """A GPU as NVML names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uuid: str
    name: str


class EnrolledStack(BaseModel):
    """What the host had when it was enrolled, as the gate sees it; None: not there, or nothing asks for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    driver: str | None
    flavour: Literal["open", "proprietary"] | None
    gpus: tuple[Card, ...] = ()
    docker: str | None = None
    cdi: dict[str, tuple[str, ...]] = {}  # specification -> driver versions that its libraries carry
    clock_kept: bool = False


class EnrolmentRecord(BaseModel):
    """The predicate of the statement, and who signed it: `key` as ssh-keygen -l prints it, `signature` base64.

    Times are whole seconds in UTC, so that their texts compare as they do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = 2
    host: str
    bound_to: Binding
    lock_digest: str
    matrix_digest: str
    networks: dict[str, str] = {}  # id -> the version of its client
    stack: EnrolledStack
    run: str
    made_by: str
    checks: tuple[RecordedCheck, ...]
    enrolled_at: AwareDatetime
    expires_at: AwareDatetime
    key: str
    signature: str = ""

    @property
    def payload(self) -> bytes:
        """The in-toto statement, as canonical JSON."""
        predicate = self.model_dump(mode="json", exclude={"key", "signature"})
        bound = hashlib.sha256(canonical(predicate["bound_to"])).hexdigest()
        subject = [{"name": self.host, "digest": {"sha256": bound}}]
        statement = {"_type": STATEMENT, "subject": subject, "predicateType": PREDICATE, "predicate": predicate}
        return canonical(statement)

    @property
    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        return pae(PAYLOAD, self.payload)

    @property
    def text(self) -> str:
        """The record as it is written to a file: the envelope, on one line."""
        envelope = {
            "payloadType": PAYLOAD,
            "payload": base64.b64encode(self.payload).decode(),
            "signatures": [{"keyid": self.key, "sig": self.signature}],
        }
        return json.dumps(envelope, sort_keys=True) + "\n"


def pae(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding, version 1: `DSSEv1 LENGTH TYPE LENGTH PAYLOAD`.

    Source: github.com/secure-systems-lab/dsse, protocol.md.
    """
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


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
    """Read a record; None when the text is not one, for a host may hold anything under that name.

    A statement in another spelling than ours is refused, so that what was signed is what was read.
    """
    try:
        envelope = json.loads(text)
        [signed] = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        predicate = json.loads(payload)["predicate"]
        record = EnrolmentRecord.model_validate_json(
            canonical({**predicate, "key": signed["keyid"], "signature": signed["sig"]})
        )
    except (ValueError, KeyError, TypeError):  # ValidationError is a ValueError
        return None
    return record if record.payload == payload and envelope.get("payloadType") == PAYLOAD else None


def is_of_an_older_format(text: str) -> bool:
    """Whether this is a record of format 1, which was no attestation and ended never."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("format") == 1 and "lock_digest" in value


def record_in(capture: Capture) -> EnrolmentRecord | None:
    """The record that a capture shows; None when it shows none that can be read, or did not look."""
    text = capture.file(RECORD)
    return read_record(text) if isinstance(text, str) else None
