"""`provision resolve` from probe to lock, with a prober that answers from memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone

import pytest

from provisioner.actions.resolve import resolve
from provisioner.cli.views.resolve import resolved_json, resolved_text
from provisioner.errors import BadInput, HostError
from provisioner.matrix.reader import Matrix, load
from provisioner.model.capture import Capture
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.probe.request import Request


class Remembered:
    """A prober with one answer per host."""

    def __init__(self, answers: Mapping[str, Capture | HostError]) -> None:
        self.answers = answers

    def probe(self, hosts: Sequence[InventoryHost], requests: Mapping[str, Request]) -> dict[str, Capture | HostError]:
        assert set(requests) == {host.name for host in hosts}
        return {host.name: self.answers[host.name] for host in hosts}


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load()


def nothing_seen(name: str) -> Capture:
    return Capture(host=name, taken_at=datetime(2026, 11, 24, tzinfo=timezone.utc), probe="test")


def test_a_host_that_showed_nothing_is_unresolvable_and_says_what_is_missing(matrix: Matrix) -> None:
    """Unknown is not absent: an empty capture is no host without GPUs."""
    host = InventoryHost("rig-01", {}, Intent())

    resolved = resolve([host], matrix, prober=Remembered({"rig-01": nothing_seen("rig-01")}))

    assert not resolved.stacks
    assert "which GPUs it has" in resolved.unresolvable["rig-01"].unseen
    text = resolved_text(resolved, explained=False, written=None, next_command="provision plan")
    assert "rig-01 did not show which GPUs it has." in text
    assert "Next:" not in text


def test_a_host_that_cannot_be_reached_does_not_stop_the_others(matrix: Matrix) -> None:
    hosts = [InventoryHost(name, {}, Intent()) for name in ("rig-01", "rig-02")]
    answers = {
        "rig-01": HostError("ssh-unreachable", "rig-01", "rig-01 does not answer", hint="is it on?"),
        "rig-02": nothing_seen("rig-02"),
    }

    resolved = resolve(hosts, matrix, prober=Remembered(answers))

    assert list(resolved.failed) == ["rig-01"]
    assert list(resolved.unresolvable) == ["rig-02"]
    assert '"ssh-unreachable"' in resolved_json(resolved)


def test_bad_input_of_one_host_names_the_host(matrix: Matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BadInput("unknown-network", "there is no network 'akahs' in the matrix")

    monkeypatch.setattr("provisioner.resolve.fleet.solve", refuse)
    host = InventoryHost("rig-01", {}, Intent(networks=("akahs",)))

    with pytest.raises(BadInput, match="rig-01: there is no network 'akahs'"):
        resolve([host], matrix, prober=Remembered({"rig-01": nothing_seen("rig-01")}))
