"""What a lab host tells, when the engine loses a part of it."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from provisioner.adapters.lab.hosts import HOST_LABEL, SPEC_LABEL, TRIES, Host
from provisioner.errors import HostError


class Engine:
    """Runs a command here, in place of the host, and hands over what `loses` leaves of its output, try after try."""

    def __init__(self, *loses: Any) -> None:
        self.loses = list(loses)
        self.asked = 0

    def exec_create(self, container: str, argv: list[str], user: str) -> dict[str, Any]:
        self.asked += 1
        return {"Id": argv}

    def exec_start(self, argv: list[str], demux: bool) -> tuple[bytes | None, bytes]:
        said = subprocess.run(argv, capture_output=True, check=False).stdout
        return (self.loses.pop(0)(said) if self.loses else said), b""

    def exec_inspect(self, argv: list[str]) -> dict[str, int]:
        return {"ExitCode": 0}


def host(engine: Engine) -> Host:
    labels = {HOST_LABEL: "rig", SPEC_LABEL: json.dumps({"suite": "bookworm", "gpus": []})}
    container = SimpleNamespace(labels=labels, id="c")
    return Host(SimpleNamespace(api=engine), container)  # type: ignore[arg-type]


def test_what_was_lost_is_asked_for_again() -> None:
    """Nothing at all, only the beginning, only the end: none of them is taken for the answer."""
    engine = Engine(lambda said: None, lambda said: said[:-9], lambda said: said[40:], lambda said: b"")

    assert host(engine).told("echo one; echo two") == "one\ntwo\n"
    assert engine.asked == 5


def test_an_empty_answer_is_an_answer() -> None:
    """And so is one of a command that fails."""
    assert host(Engine()).told("false") == ""


def test_an_engine_that_never_hands_it_over_is_an_error() -> None:
    with pytest.raises(HostError) as problem:
        host(Engine(*TRIES * [lambda said: said[:-1]])).told("echo one")

    assert problem.value.reference == "lab-host-not-heard"
