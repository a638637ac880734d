"""`provision resolve` from probe to lock, with a prober that answers from memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import pytest

from provisioner.actions.resolve import resolve
from provisioner.actions.upgrade import upgrade
from provisioner.adapters.captures import load_capture
from provisioner.cli.views.resolve import resolved_json, resolved_text
from provisioner.errors import BadInput, HostError
from provisioner.matrix.reader import Matrix, load
from provisioner.model.capture import Capture, CommandOutput
from provisioner.model.facts import UNKNOWN, HostFacts, OsRelease
from provisioner.model.intent import Intent, Policy, SourceWish
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import HostLock
from provisioner.probe.request import Request
from provisioner.resolve.sources import places
from provisioner.resolve.upgrade import Step


class Remembered:
    """A prober with one answer per host."""

    def __init__(self, answers: Mapping[str, Capture | HostError]) -> None:
        self.answers = answers

    def probe(self, hosts: Sequence[InventoryHost], requests: Mapping[str, Request]) -> dict[str, Capture | HostError]:
        assert set(requests) == {host.name for host in hosts}
        return {host.name: self.answers[host.name] for host in hosts}


class Keys:
    """A KeyReader that knows keys by name; asking for another is an error of the test."""

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self.known = known or {}
        self.read_from: list[str] = []

    def read(self, where: str) -> str:
        self.read_from.append(where)
        return self.known[where]


KEYS = Keys()
CAPTURES = Path(__file__).parent.parent / "captures"
KEY = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawY6wBYJKwYBBAHaRw8BAQdA9u8LctFs2u3277eb6C8b+LjcQdEhWj4KyvQy
Ctrm1kC0BW90aGVyiJAEExYIADgWIQSY0ffo2qGbRtP/BhXR6pFl8r14sgUCawY6
wAIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRDR6pFl8r14su3IAPsF4+7B
k+Jev/RxwnL50uC9Ik7O6KB3vimFagLNUmIxZQD/SL/OWXHnRGVtwTY3PaTer58R
dSELkEe0QYg+YBqKLAc=
=mFD7
-----END PGP PUBLIC KEY BLOCK-----
"""
"""Made for this test; its other half is lost."""


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load()


def nothing_seen(name: str) -> Capture:
    return Capture(host=name, taken_at=datetime(2026, 11, 24, tzinfo=timezone.utc), probe="test")


def test_a_host_that_showed_nothing_is_unresolvable_and_says_what_is_missing(matrix: Matrix) -> None:
    """Unknown is not absent: an empty capture is no host without GPUs."""
    host = InventoryHost("rig-01", {}, Intent())

    resolved = resolve([host], matrix, prober=Remembered({"rig-01": nothing_seen("rig-01")}), keys=KEYS)

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

    resolved = resolve(hosts, matrix, prober=Remembered(answers), keys=KEYS)

    assert list(resolved.failed) == ["rig-01"]
    assert list(resolved.unresolvable) == ["rig-02"]
    assert '"ssh-unreachable"' in resolved_json(resolved)


def test_bad_input_of_one_host_names_the_host(matrix: Matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BadInput("unknown-network", "there is no network 'akahs' in the matrix")

    monkeypatch.setattr("provisioner.resolve.fleet.solve", refuse)
    host = InventoryHost("rig-01", {}, Intent(networks=("akahs",)))

    with pytest.raises(BadInput, match="rig-01: there is no network 'akahs'"):
        resolve([host], matrix, prober=Remembered({"rig-01": nothing_seen("rig-01")}), keys=KEYS)


MINE = SourceWish(
    id="mine",
    uri="http://mirror.example/cuda/",
    suite="/",
    key="keys/mine.asc",
    fingerprint="98D1 F7E8 DAA1 9B46 D3FF  0615 D1EA 9165 F2BD 78B2",
)


def with_source(name: str = "rig-01", wish: SourceWish = MINE) -> InventoryHost:
    return InventoryHost(name, {}, Intent(policy=Policy(sources=(wish,))))


class Asked:
    """A prober of bare hosts that tells what it was asked, and what the second look came to."""

    def __init__(self, second: CommandOutput, sources: str = "") -> None:
        self.second, self.sources = second, sources
        self.looks: list[Mapping[str, Request]] = []

    def probe(self, hosts: Sequence[InventoryHost], requests: Mapping[str, Request]) -> dict[str, Capture | HostError]:
        self.looks.append(requests)
        found: dict[str, Capture | HostError] = {}
        for host in hosts:
            request = requests[host.name]
            if request.profile.files:
                capture = load_capture(CAPTURES / "debian-12-bare.json")
                files = {**capture.files, "/etc/apt/sources.list.d/x.sources": self.sources or None}
                listing = {"ls -d '/etc/apt/sources.list.d/*.sources'": CommandOutput(rc=0, stdout="")}
                if self.sources:
                    path = "/etc/apt/sources.list.d/x.sources"
                    listing = {"ls -d /etc/apt/sources.list.d/*.sources": CommandOutput(rc=0, stdout=f"{path}\n")}
                found[host.name] = capture.model_copy(
                    update={"host": host.name, "files": files, "commands": {**capture.commands, **listing}}
                )
            else:
                [command] = request.commands
                before = load_capture(CAPTURES / "debian-12-bare.json").commands
                offered = next(out.stdout for line, out in before.items() if "apt-cache" in line)
                said = self.second.model_copy(update={"stdout": f"{offered}\n{self.second.stdout}"})
                found[host.name] = nothing_seen(host.name).model_copy(update={"commands": {command.line: said}})
        return found


OFFERED = """Package: docker.io
Version: 99.1-1
Source: docker.io
Architecture: amd64
Size: 10
SHA256: 00ff

 docker.io | 99.1-1 | http://mirror.example/cuda  Packages
"""


def test_what_a_source_offers_is_known_before_it_is_there(matrix: Matrix) -> None:
    """One look more, in a folder of its own on the host; the lock has the source with its key."""
    prober = Asked(CommandOutput(rc=0, stdout=OFFERED))

    resolved = resolve([with_source()], matrix, prober=prober, keys=Keys({"keys/mine.asc": KEY}))

    stack = resolved.stacks["rig-01"]
    assert [(s.id, s.uri, s.fingerprint) for s in stack.sources] == [
        ("mine", "http://mirror.example/cuda", "98D1F7E8DAA19B46D3FF0615D1EA9165F2BD78B2")
    ]
    assert stack.sources[0].key == KEY
    assert stack.runtime is not None
    assert stack.runtime.value == "docker.io 99.1-1"
    [line] = [command.line for command in prober.looks[1]["rig-01"].commands]
    assert "Dir::State::Lists" in line
    assert "98D1F7E8" in line


def test_a_source_that_is_there_needs_no_second_look(matrix: Matrix) -> None:
    """Its apt has the index already."""
    text = "Types: deb\nURIs: http://mirror.example/cuda/\nSuites: /\nSigned-By: /x.asc\n"
    prober = Asked(CommandOutput(rc=1), text)

    resolved = resolve([with_source()], matrix, prober=prober, keys=Keys({"keys/mine.asc": KEY}))

    assert len(prober.looks) == 1
    assert resolved.stacks["rig-01"].sources


def test_an_upgrade_knows_the_sources_of_an_entry_that_was_never_applied(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said that nothing serves the host, because the source of its driver was in the lock and not on the host."""
    prober = Asked(CommandOutput(rc=0, stdout=OFFERED))
    wish = dataclasses.replace(with_source(), intent=Intent(networks=("golem",), policy=Policy(sources=(MINE,))))
    lock = resolve([wish], matrix, prober=prober, keys=Keys({"keys/mine.asc": KEY})).lock
    decided: list[HostFacts] = []

    def upgraded(facts: HostFacts, intent: Intent, before: HostLock, *rest: object) -> Step:
        decided.append(facts)
        return Step("done", before, before, "")

    monkeypatch.setattr("provisioner.actions.upgrade.upgraded", upgraded)
    upgrade([wish], "golem", "v0.17.6", matrix, lock, prober=prober)

    [facts] = decided
    assert facts.offers is not UNKNOWN
    assert "99.1-1" in {offer.version for offer in facts.offers}


def test_a_source_that_cannot_be_read_fails_its_host_alone(matrix: Matrix) -> None:
    """The words are apt's; the other host has its stack."""
    said = CommandOutput(rc=90, stderr="E: The repository 'http://mirror.example/cuda  Release' is not signed.\n")
    hosts = [with_source(), InventoryHost("rig-02", {}, Intent())]

    resolved = resolve(hosts, matrix, prober=Asked(said), keys=Keys({"keys/mine.asc": KEY}))

    assert list(resolved.stacks) == ["rig-02"]
    assert resolved.failed["rig-01"].reference == "source-not-read"
    assert "is not signed" in resolved.failed["rig-01"].context[0]


def test_a_key_with_another_fingerprint_is_refused(matrix: Matrix) -> None:
    wish = MINE.model_copy(update={"fingerprint": "A" * 40})

    with pytest.raises(BadInput, match="is not the one that mine is signed with") as problem:
        resolve([with_source(wish=wish)], matrix, prober=Asked(CommandOutput(rc=0)), keys=Keys({"keys/mine.asc": KEY}))
    assert "98D1F7E8DAA19B46D3FF0615D1EA9165F2BD78B2" in problem.value.context[1]


def test_the_key_of_the_former_lock_is_not_read_again(matrix: Matrix) -> None:
    """The vendor's address need not answer for a lock that is made anew."""
    keys = Keys({"keys/mine.asc": KEY})
    prober = Asked(CommandOutput(rc=0, stdout=OFFERED))
    first = resolve([with_source()], matrix, prober=prober, keys=keys)

    again = resolve([with_source()], matrix, prober=prober, keys=keys, before=first.lock)

    assert keys.read_from == ["keys/mine.asc"]
    assert again.lock == first.lock


@pytest.mark.parametrize(
    ("wish", "reference"),
    [
        (SourceWish(id="dockr"), "unknown-source"),
        (SourceWish(id="mine", uri="http://mirror.example/x"), "source-key-unknown"),
    ],
)
def test_a_source_that_cannot_be_filled_in(matrix: Matrix, wish: SourceWish, reference: str) -> None:
    with pytest.raises(BadInput) as problem:
        resolve([with_source(wish=wish)], matrix, prober=Asked(CommandOutput(rc=0)), keys=KEYS)
    assert problem.value.reference == reference


def test_the_vendors_sources_come_from_the_matrix(matrix: Matrix) -> None:
    """A bare id is enough where the matrix knows address, suite, key and fingerprint, so not for CUDA on Debian 13."""
    bookworm = OsRelease("debian-12", "", "bookworm")
    intent = Intent.model_validate({"policy": {"sources": ["docker", "nvidia-cuda", "nvidia-container-toolkit"]}})

    docker, cuda, toolkit = places(intent, bookworm, matrix)

    assert (docker.uri, docker.suite, docker.components) == (
        "https://download.docker.com/linux/debian",
        "bookworm",
        ("stable",),
    )
    assert cuda.fingerprint == "EB693B3035CD5710E231E123A4B469963BF863CC"
    assert toolkit.uri.endswith("/stable/deb/amd64")
    with pytest.raises(BadInput, match="no fingerprint is known for debian-13"):
        places(intent, OsRelease("debian-13", "", "trixie"), matrix)
