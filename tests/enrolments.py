"""Enrolment records for tests: a valid one, and what its gate saw."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

from provisioner.actions.enrol import Observation
from provisioner.adapters.signing import Signer
from provisioner.model.enrolment import EnrolmentRecord, lock_digest
from tests.world import DRIVER, WHEN, entry

MACHINE = "ab" * 32
HOST_KEY = "SHA256:host"
GPU = {"uuid": "GPU-1", "name": "NVIDIA GeForce RTX 4090"}


def record(**changes: Any) -> EnrolmentRecord:
    """Return the record of rig-01, enrolled at WHEN for a month; `changes` replace its fields."""
    values = {
        "host": "rig-01",
        "bound_to": {"machine": MACHINE, "host_key": HOST_KEY},
        "lock_digest": lock_digest(entry()),
        "matrix_digest": "m1",
        "networks": {"akash": "0.16.2"},
        "stack": {"driver": DRIVER, "flavour": "proprietary", "gpus": [GPU], "docker": "20.10.24+dfsg1"},
        "run": "r1",
        "made_by": "0.1.0",
        "checks": [{"id": "driver-loaded", "status": "passed", "required": True}],
        "enrolled_at": WHEN,
        "expires_at": WHEN + timedelta(days=30),
        "key": "SHA256:mine",
        "signature": "good",
    }
    return EnrolmentRecord.model_validate(values | changes)


def observation(**changes: Any) -> Observation:
    """Return what the gate of a host sees that is as `entry()` has it."""
    values = {
        "machine": MACHINE,
        "host_key": HOST_KEY,
        "driver": DRIVER,
        "flavour": "proprietary",
        "nvml": {"driver": DRIVER, "gpus": [{**GPU, "temperature_c": 40, "slowdown_c": 90}]},
        "docker": "20.10.24+dfsg1",
        "cdi": {},
        "clock_kept": True,
    }
    return Observation.model_validate(values | changes)


def signed(unsigned: EnrolmentRecord, signer: Signer) -> EnrolmentRecord:
    """Return the record with a signature of its own."""
    named = unsigned.model_copy(update={"key": signer.fingerprint, "signature": ""})
    return named.model_copy(update={"signature": base64.b64encode(signer.sign(named.signed_bytes)).decode()})
