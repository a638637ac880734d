"""The enrolment record is an in-toto statement in a DSSE envelope, and has one spelling."""

from __future__ import annotations

import base64
import json

import pytest

from provisioner.model.enrolment import (
    PAYLOAD,
    PREDICATE,
    STATEMENT,
    is_of_an_older_format,
    pae,
    read_record,
)
from tests.enrolments import record


def test_the_encoding_of_dsse() -> None:
    """The example of its protocol.md."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("", b"") == b"DSSEv1 0  0 "


def test_the_envelope_and_the_statement_in_it() -> None:
    """The fields that in-toto and DSSE ask for, with the host as subject."""
    envelope = json.loads(record().text)
    statement = json.loads(base64.b64decode(envelope["payload"]))

    assert set(envelope) == {"payloadType", "payload", "signatures"}
    assert envelope["payloadType"] == PAYLOAD
    assert envelope["signatures"] == [{"keyid": "SHA256:mine", "sig": "good"}]
    assert (statement["_type"], statement["predicateType"]) == (STATEMENT, PREDICATE)
    [subject] = statement["subject"]
    assert subject["name"] == "rig-01"
    assert set(subject["digest"]) == {"sha256"}
    assert statement["predicate"]["expires_at"] == "2026-12-24T03:07:00Z"
    assert "key" not in statement["predicate"]


def test_a_record_comes_back_as_it_was() -> None:
    """Through the text of a file, which is one line."""
    assert record().text.count("\n") == 1
    assert read_record(record().text) == record()


def changed(**changes: object) -> str:
    return json.dumps({**json.loads(record().text), **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        changed(payloadType="text/plain"),
        changed(payload="!"),
        changed(payload=base64.b64encode(b"{}").decode()),
        changed(payload=base64.b64encode(record().payload + b" ").decode()),
        changed(signatures=[]),
        changed(signatures=[{"keyid": "a", "sig": "b"}] * 2),
    ],
)
def test_what_is_no_record(text: str) -> None:
    """Another type, another spelling, no signature or two."""
    assert read_record(text) is None


def test_a_record_of_format_1_is_told_apart() -> None:
    """Its host is enrolled anew by the next `provision apply`, not called damaged."""
    assert is_of_an_older_format('{"format": 1, "lock_digest": "sha256:1"}')
    assert not is_of_an_older_format(record().text)
    assert not is_of_an_older_format("x")
