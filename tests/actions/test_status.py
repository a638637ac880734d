"""Every host has one state, and the record on it counts only when it is signed, for this host and this lock."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from provisioner.actions import observe as observing
from provisioner.actions.live import Live, live
from provisioner.actions.status import HostStatus, status
from provisioner.cli.views.status import status_json, status_text
from provisioner.errors import HostError
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


def test_who_serves_what_and_why_not_where_not() -> None:
    """The client's version where the host is as locked; who serves since when; what the watchdog saw."""
    clients = {"livepeer": "v0.7.3", "akash": "0.16.2"}
    states = (
        HostStatus("rig-01", "enrolled", "", "580.95.05", None, ("livepeer",), WHEN, clients=clients),
        HostStatus("rig-02", "enrolled", "", "580.95.05", None, ("livepeer@v0.7.3", "akash/x"), WHEN, clients=clients),
        HostStatus("rig-03", "differs", "file x differs", "580.95.05", None, ("livepeer",), clients=clients),
        HostStatus("rig-04", "not seen", "rig-04 does not answer", networks=("livepeer",)),
    )
    shell = Shell(
        {
            "rig-01": (0, {"livepeer": {"serves": True, "since": "2026-11-24T03:08:00Z", "why": ""}}, None),
            "rig-02": (
                0,
                {
                    "livepeer": {"serves": False, "since": None, "why": "drained: watchdog: A is at 95 °C"},
                    "akash": {"serves": True, "since": None, "why": "drained: by provision"},
                },
                {"causes": {"hot": "A is at 95 °C"}, "held": {"hot": "stop-client: a job runs"}},
            ),
            "rig-03": (127, None, None),
        }
    )
    hosts = [InventoryHost(one.host, {}, ENTRY.intent) for one in states[:3]]
    wanted = {"rig-01": ["livepeer"], "rig-02": ["livepeer", "akash"], "rig-03": ["livepeer"]}
    now = live(hosts, wanted, shell=shell)

    assert shell.asked["rig-02"].endswith("provision-watchdog serves livepeer akash")
    assert status_text(states, seconds=1, lock="provision.lock", now=now).splitlines()[2:14] == [
        "host    state     driver     runtime  networks                         enrolled since",
        "rig-01  enrolled  580.95.05  none     livepeer v0.7.3                  2026-11-24 03:07",
        "rig-02  enrolled  580.95.05  none     livepeer v0.7.3, akash/x 0.16.2  2026-11-24 03:07",
        "rig-03  differs   580.95.05  none     livepeer                         -",
        "rig-04  not seen  unknown    unknown  livepeer                         -",
        "",
        "host    client    serves                  why not",
        "rig-01  livepeer  since 2026-11-24 03:08",
        "rig-02  livepeer  no                      drained: watchdog: A is at 95 °C",
        "rig-02  akash     yes                     drained: by provision",
        "rig-02  watchdog  hot                     A is at 95 °C; held: stop-client: a job runs",
        "rig-03  -         unknown                 nothing of provision is on it yet",
    ]
    shown = json.loads(status_json(states, now))["hosts"]
    assert shown["rig-01"]["live"]["clients"]["livepeer"]["since"] == "2026-11-24T03:08:00Z"
    assert shown["rig-02"]["live"]["watchdog"]["causes"] == {"hot": "A is at 95 °C"}
    assert "live" not in shown["rig-04"]


def test_a_host_that_does_not_tell_what_it_serves() -> None:
    """Gone, of an older release, or talking of something else: each in words."""
    shell = Shell({"rig-01": (2, None, None), "rig-02": (1, None, None)})
    told = live([InventoryHost(f"rig-0{n}", {}, ENTRY.intent) for n in (1, 2, 3)], {}, shell=shell)
    assert [told[f"rig-0{n}"].problem for n in (1, 2, 3)] == [
        "its programs are older than this: provision apply brings them up to date",
        "it does not tell what it serves: Traceback",
        "rig-03 does not answer",
    ]


@dataclass
class Shell:
    """Hosts that answer with an exit code, their clients and the watchdog's last round; the others do not answer."""

    answers: Mapping[str, tuple[int, object, object]]
    asked: dict[str, str] = field(default_factory=dict)

    def run(self, host: InventoryHost, script: str, stdin: str = "", timeout_s: float = 60) -> CommandOutput:
        self.asked[host.name] = script
        if host.name not in self.answers:
            raise HostError("ssh-timeout", host.name, f"{host.name} does not answer")
        rc, clients, watchdog = self.answers[host.name]
        if rc:
            return CommandOutput(rc=rc, stderr="Traceback\n")
        return CommandOutput(rc=0, stdout=json.dumps({"format": 1, "clients": clients, "watchdog": watchdog}))


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


@pytest.mark.parametrize(
    ("noted", "rows"),
    [
        (
            {
                "at": "2026-11-24T03:07:00Z",
                "nvml": {
                    "gpus": [
                        {"name": "NVIDIA GeForce RTX 4090", "temperature_c": 62, "power_w": 280.4, "limit_w": 350.0},
                        {"name": "NVIDIA L4", "temperature_c": None, "power_w": 31.0, "limit_w": None},
                    ]
                },
            },
            ["rig-01  watchdog  at 2026-11-24T03:07:00Z  RTX 4090 62 °C 280 of 350 W · L4 31 W"],
        ),
        ({"causes": ["hot"], "held": "x", "nvml": {"gpus": {"a": 1}}}, []),
        ({"causes": {"hot": "A is at 95 °C"}, "held": None, "nvml": None}, ["rig-01  watchdog  hot  A is at 95 °C"]),
    ],
)
def test_the_cards_as_the_watchdog_saw_them(noted: dict[str, object], rows: list[str]) -> None:
    """Below the clients of a host; a note that is damaged says less and breaks nothing."""
    states = (HostStatus("rig-01", "enrolled", networks=("lium",)),)
    text = status_text(states, seconds=0.4, lock="l", now={"rig-01": Live(watchdog=noted)})

    squeezed = [re.sub(r" {2,}", "  ", line) for line in text.splitlines()]
    assert [line for line in squeezed if line.startswith("rig-01  watchdog")] == rows
