"""Every host has one state, and the record on it counts only when it is signed, for this host and this lock."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest

from provisioner.actions import observe as observing
from provisioner.actions.status import HostStatus, status
from provisioner.cli.views.status import status_json, status_text
from provisioner.errors import HostError
from provisioner.facts.live import (
    UPTIME,
    WATCHDOG,
    CardNow,
    ClientNow,
    LiveFacts,
    gate_line,
    live,
    units_line,
)
from provisioner.model.capture import Capture, CommandOutput
from provisioner.model.enrolment import RECORD, EnrolmentRecord
from provisioner.model.facts import HostFacts
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import HostLock, Lock
from provisioner.probe.request import Request
from tests.enrolments import record
from tests.world import WHEN, bare_capture, bare_facts, entry, fitting_capture, fitting_facts

ENTRY = entry()


class Signatures:
    def verifies(self, record: EnrolmentRecord) -> bool | None:
        return None if record.key != "SHA256:mine" else record.signature == "good"


@dataclass
class Prober:
    answer: Capture | HostError
    asked: int = 0

    def probe(self, hosts: Sequence[InventoryHost], requests: Mapping[str, Request]) -> dict[str, Capture | HostError]:
        self.asked += 1
        return {host.name: self.answer for host in hosts}


def state_of(
    monkeypatch: pytest.MonkeyPatch,
    *,
    text: str | None = None,
    facts: HostFacts | None = None,
    capture: Capture | None = None,
    lock: HostLock | None = ENTRY,
) -> HostStatus:
    seen = capture or fitting_capture(ENTRY)
    seen = seen.model_copy(update={"files": {**seen.files, RECORD: text}})
    monkeypatch.setattr(observing, "read", lambda _capture: facts or fitting_facts(ENTRY))
    whole = Lock(made_by="x", matrix="m1", hosts={"rig-01": lock} if lock is not None else {})
    prober = Prober(seen)
    [one] = status([InventoryHost("rig-01", {}, ENTRY.intent)], whole, prober=prober, signatures=Signatures())
    assert prober.asked == 1
    return one


def test_enrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As locked, with a good record: in, since when, with what."""
    one = state_of(monkeypatch, text=record().text)

    assert (one.state, one.reason, one.enrolled_at) == ("enrolled", "", WHEN)
    assert (one.driver, one.runtime, one.networks) == ("535.261.03", "docker 20.10.24", ("akash",))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (record(host="rig-09").text, "its enrolment record is that of rig-09"),
        (record(signature="bad").text, "the signature of its enrolment record is wrong"),
        (record(key="SHA256:other").text, "enrolled with a key that is not known here (SHA256:other)"),
        (record(lock_digest="sha256:0").text, "enrolled for another lock"),
        (record(matrix_digest="m0").text, "enrolled for another lock"),
        (record(expires_at=WHEN).text, "its enrolment ended at 2026-11-24 03:07"),
        (json.dumps({"format": 1, "lock_digest": "sha256:1"}), "its enrolment record is of an older format"),
        ("{}", f"{RECORD} is no enrolment record"),
        ("", f"{RECORD} is no enrolment record"),
    ],
    ids=[
        "other-host",
        "bad-signature",
        "other-key",
        "other-lock",
        "other-matrix",
        "expired",
        "format-1",
        "no-record",
        "empty",
    ],
)
def test_a_record_that_does_not_hold_is_out(monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    """A record is a claim; whatever is wrong with it is said."""
    one = state_of(monkeypatch, text=text)

    assert (one.state, one.reason, one.enrolled_at) == ("out", reason, None)


def test_changed_since_it_was_enrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A good record on a host that is no longer as locked."""
    facts = fitting_facts(ENTRY)
    packages = dict(facts.packages or {})
    packages.pop("docker.io")
    changed = HostFacts(**{**facts.__dict__, "packages": packages})
    one = state_of(monkeypatch, text=record().text, facts=changed)

    assert one.state == "out"
    assert one.reason.startswith("changed since it was enrolled: ")
    assert one.runtime is None


def test_up_to_date_differs_and_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a record: as locked, partly, or nothing of it."""
    assert state_of(monkeypatch).state == "up to date"
    assert state_of(monkeypatch, capture=bare_capture(ENTRY)).state == "differs"
    bare = state_of(monkeypatch, facts=bare_facts(), capture=bare_capture(ENTRY))
    assert (bare.state, bare.driver, bare.runtime) == ("bare", None, None)


def test_not_in_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new host is looked at like the others."""
    one = state_of(monkeypatch, lock=None)

    assert (one.state, one.reason) == ("bare", "not in the lock")


def test_a_host_that_was_not_seen_is_none_of_these() -> None:
    """It keeps its line, with the reason and what to do."""
    problem = HostError("host-unreachable", "rig-01", "rig-01 does not answer", hint="is it on?")
    [one] = status([InventoryHost("rig-01", {}, ENTRY.intent)], None, prober=Prober(problem), signatures=Signatures())

    assert (one.state, one.reason, one.hint) == ("not seen", "rig-01 does not answer", "is it on?")


def test_the_whole_screen() -> None:
    """Aligned rows, reasons below, one next command."""
    states = (
        HostStatus("rig-01", "enrolled", "", "535.261.03", "docker 20.10.24", ("akash",), WHEN),
        HostStatus("rig-02", "out", "enrolled for another lock", "535.216.03", None, ("akash", "ionet")),
        HostStatus("rig-03", "not seen", "rig-03 does not answer", hint="is it on?"),
    )
    text = status_text(states, seconds=0.42, lock="provision.lock", inventory=["hosts.yml"])

    assert text.splitlines() == [
        "3 hosts observed in 0.4 s · lock provision.lock · 1 enrolled",
        "",
        "host    state     driver      runtime          networks      enrolled since",
        "rig-01  enrolled  535.261.03  docker 20.10.24  akash         2026-11-24 03:07",
        "rig-02  out       535.216.03  none             akash, ionet  -",
        "rig-03  not seen  unknown     unknown          -             -",
        "",
        "  rig-02  enrolled for another lock",
        "  rig-03  rig-03 does not answer",
        "  rig-03: is it on?",
        "",
        "Next: provision plan -i hosts.yml --limit rig-02",
    ]


def test_json_tells_absent_from_unknown() -> None:
    """null is absent, "unknown" was not seen."""
    text = status_json((HostStatus("rig-01", "bare", "", None), HostStatus("rig-02", "not seen")))

    assert '"driver": null' in text
    assert '"driver": "unknown"' in text


def test_what_only_lacks_its_record_is_verified_next() -> None:
    """A plan has nothing to change there; the checks and a new record are what is missing."""
    states = (HostStatus("rig-01", "out", "the signature is wrong", as_locked=True),)

    assert (
        status_text(states, seconds=1, lock="provision.lock").splitlines()[-1]
        == "Next: provision verify --limit rig-01 --enrol"
    )


def at(minutes: int) -> datetime:
    return WHEN + timedelta(minutes=minutes)


UNIT = "Id=provision-client@{0}.service\nActiveState={1}\nActiveEnterTimestampMonotonic={2}\n"
NOTED = {
    "at": "2026-11-24T03:06:30Z",
    "causes": {"hot": "A is at 95 °C", "heartbeat-stale/lium": "x says it does not serve"},
    "held": {"hot": "stop-client: a job runs"},
    "nvml": {"gpus": [{"name": "NVIDIA GeForce RTX 4090", "temperature_c": 95, "power_w": 410.4, "limit_w": None}]},
}


def looked(noted: str | None, *, gate: CommandOutput, units: str) -> Capture:
    return Capture(
        host="rig-01",
        taken_at=WHEN,
        probe="0.1.0",
        files={WATCHDOG: noted, UPTIME: "7200.50 9000.10\n"},
        commands={
            units_line(("akash", "lium")): CommandOutput(rc=0, stdout=units),
            gate_line("akash"): CommandOutput(rc=0, stderr="akash may start: the host is as it was enrolled\n"),
            gate_line("lium"): gate,
        },
    )


def test_what_the_clients_do_now() -> None:
    """Since when by systemd's own clock, what the gate says, and what the watchdog saw."""
    closed = CommandOutput(rc=1, stderr="lium stays stopped: the driver is gone\nlium stays stopped: NVML: no\n")
    units = UNIT.format("akash", "active", 3_600_500_000) + "\n" + UNIT.format("lium", "inactive", 0)
    found = live(looked(json.dumps(NOTED), gate=closed, units=units), ("akash", "lium"))

    assert found.clients == (
        ClientNow("akash", True, at(-60), ()),
        ClientNow("lium", False, None, ("the driver is gone", "NVML: no")),
    )
    assert (found.stale, found.causes[1]) == (False, ("hot", "A is at 95 °C"))
    assert found.cards == (CardNow("NVIDIA GeForce RTX 4090", 95, 410.4, None),)

    one = HostStatus("rig-01", "enrolled", "", "1", None, ("akash", "lium"), WHEN, live=found)
    text = status_text((one,), seconds=1, lock="provision.lock")
    assert text.partition("now\n")[2].splitlines() == [
        "rig-01  akash  serves since 2026-11-24 02:07 UTC",
        "rig-01  lium   stopped: the driver is gone (and 1 more)",
        "rig-01         hot: A is at 95 °C (held back: stop-client: a job runs)",
        "rig-01         RTX 4090 95 °C 410 W",
    ]
    shown = json.loads(status_json((one,)))["hosts"]["rig-01"]["live"]
    assert shown["clients"]["akash"] == {"active": True, "since": "2026-11-24T02:07:00+00:00", "closed": []}
    assert shown["causes"]["heartbeat-stale/lium"] == "x says it does not serve"


@pytest.mark.parametrize(
    ("noted", "gate", "state", "words"),
    [
        (
            json.dumps(NOTED),
            CommandOutput(rc=0),
            "active",
            "runs since 2026-11-24 02:07 UTC, but heartbeat-stale: x says",
        ),
        (None, CommandOutput(rc=0), "active", "serves since 2026-11-24 02:07 UTC"),
        (
            "{",
            CommandOutput(rc=1, stderr="lium stays stopped: hot\n"),
            "active",
            "but the gate would not open again: hot",
        ),
        ("[]", CommandOutput(rc=0), "inactive", "stopped; its gate is open"),
        (None, CommandOutput(rc=127), "failed", "stopped; its gate is open"),
    ],
)
def test_each_way_not_to_serve(noted: str | None, gate: CommandOutput, state: str, words: str) -> None:
    """A watchdog's note that is damaged or not there says nothing, and hides nothing."""
    units = UNIT.format("akash", "active", 0) + "\n" + UNIT.format("lium", state, 3_600_500_000)
    found = live(looked(noted, gate=gate, units=units), ("akash", "lium"))
    one = HostStatus("rig-01", "enrolled", networks=("lium",), live=replace(found, clients=found.clients[1:]))
    assert words in status_text((one,), seconds=1, lock="provision.lock")


def test_what_was_not_looked_at_is_not_known() -> None:
    found = live(Capture(host="rig-01", taken_at=WHEN, probe="0.1.0"), ("lium",))
    assert found == LiveFacts(clients=(ClientNow("lium"),))
    one = HostStatus("rig-01", "enrolled", networks=("lium",), live=found)
    assert "rig-01  lium  not seen" in status_text((one,), seconds=1, lock="provision.lock")
    old = live(looked('{"at": "2026-11-24T02:00:00Z"}', gate=CommandOutput(rc=0), units=""), ("lium",))
    assert old.stale


def test_one_look_tells_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same round trip is asked for units, gate and the watchdog's note; without --live it is not."""
    asked: list[Request] = []

    class Noting(Prober):
        def probe(
            self, hosts: Sequence[InventoryHost], requests: Mapping[str, Request]
        ) -> dict[str, Capture | HostError]:
            asked.extend(requests.values())
            return super().probe(hosts, requests)

    monkeypatch.setattr(observing, "read", lambda _capture: fitting_facts(ENTRY))
    whole = Lock(made_by="x", matrix="m1", hosts={"rig-01": ENTRY})
    for now in (True, False):
        [one] = status(
            [InventoryHost("rig-01", {}, ENTRY.intent)],
            whole,
            prober=Noting(fitting_capture(ENTRY)),
            signatures=Signatures(),
            now=now,
        )
        assert (one.live is not None) == now
    lines = [[command.line for command in request.commands] for request in asked]
    assert gate_line("akash") in lines[0] and units_line(("akash",)) in lines[0]
    assert WATCHDOG in asked[0].profile.files
    assert gate_line("akash") not in lines[1] and WATCHDOG not in asked[1].profile.files
