"""What travels out and back: requests are made once, answers are found in noise, and bad ones are refused."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any

import pytest

from provisioner.matrix.reader import load
from provisioner.model.manager import manager_of
from provisioner.probe.payload import Garbled, capture_from, payload
from provisioner.probe.request import DNF_OFFERS, FULL, STATE, Request

NOW = datetime(2026, 11, 24, 3, 7, tzinfo=timezone.utc)
BODY: dict[str, Any] = {"format": 1, "files": {"/a": "ü", "/b": None}, "commands": {}}


def frame(body: bytes, kind: str = "j", length: int | None = None) -> bytes:
    return f"\n#provision-probe-1 {kind} {len(body) if length is None else length}\n".encode() + body


def test_answer_is_found_in_noise() -> None:
    """A banner before, a farewell after, even one that imitates the frame, do not matter."""
    body = zlib.compress(json.dumps(BODY).encode())
    noise = b"Welcome!\n#provision-probe-1 j 99999\nlast login"

    seen = capture_from(noise + frame(body, "z") + b"\nlogout\n", "rig-01", NOW)

    assert (seen.host, seen.taken_at, seen.files) == ("rig-01", NOW, {"/a": "ü", "/b": None})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "no answer"),
        (b"Please change your password.\n", "no answer"),
        (frame(b"{}", length=100), "ends after 2 of 100 bytes"),
        (frame(b"{}", kind="x"), "first line is damaged"),
        (b"\n#provision-probe-1 j many\n{}", "first line is damaged"),
        (frame(b"{not json"), "cannot be read"),
        (frame(b"[]"), "cannot be read"),
        (frame(b'{"format": 2}'), "cannot be read"),
        (frame(b'{"format": 1, "files": {"/a": 5}}'), "cannot be read"),
        (frame(b"not zlib", "z"), "cannot be read"),
        (frame(zlib.compress(b"{}" * 1000)[:-9], "z"), "damaged"),
        (frame(zlib.compress(b" " * (80 << 20)), "z"), "larger than 64 MiB"),
        (frame(b"[" * 200_000), "cannot be read"),
    ],
)
def test_bad_answers_are_refused(answer: bytes, words: str) -> None:
    """Each says what it looks like; none of them raises anything else or fills the memory."""
    with pytest.raises(Garbled, match=words):
        capture_from(answer, "rig-01", NOW)


def test_hosts_asked_the_same_share_the_bytes() -> None:
    """Script and request are compressed once, and stay small enough for one write to a pipe."""
    assert payload(Request(STATE)) is payload(Request(STATE))
    assert len(payload(Request(STATE))) < 16_000


@pytest.mark.parametrize(
    "path", ["/etc/shadow", "/etc/apt/auth.conf.d/x", "/etc/wireguard/wg0.key", "/root/.ssh/id_rsa", "relative"]
)
def test_secrets_are_not_asked_for(path: str) -> None:
    """Whoever builds a request cannot make the probe read these."""
    with pytest.raises(ValueError, match=path):
        payload(Request(STATE, files=(path,)))


def test_commands_have_one_key_each() -> None:
    """Two commands with the same line would hide each other in the capture."""
    lines = [command.line for command in Request(FULL, units=("akash.service",), packages=("foo",)).commands]

    assert len(lines) == len(set(lines))
    assert any("akash.service" in line for line in lines)
    assert any("|foo)" in line for line in lines)


def test_state_starts_two_processes() -> None:
    """The look that finds nothing to do is cheap by count: dpkg-query and systemctl."""
    assert [command.argv[0] for command in Request(STATE).commands] == ["systemctl", "dpkg-query"]


def test_full_asks_all_that_state_asks() -> None:
    """Facts read from FULL must not know less than facts read from STATE."""
    for name in ("files", "listings", "folders", "links", "disks", "units", "commands", "devices"):
        assert set(getattr(STATE, name)) <= set(getattr(FULL, name)), name


def test_requests_are_told_apart() -> None:
    """An added file changes what travels."""
    assert payload(Request(STATE)) != payload(Request(STATE, files=("/etc/x",)))
    assert payload(Request(STATE)) != payload(Request(replace(STATE, width=1)))


def test_every_package_that_the_matrix_installs_is_asked_about() -> None:
    """A set of which one name is never asked about can never be chosen, and nothing would say why."""
    matrix = load()
    sets = [one for branch in matrix.drivers.values() for one in branch.packages]
    named = {(one.os, name) for one in sets for name in (*one.install, one.kernel_package)}
    engines = [one for runtime in matrix.runtimes.values() for one in runtime.packages if one.origin != "fedora"]
    named |= {(one.os, name) for one in engines for name in one.install}
    assert all(len({manager_of(os) for os in systems}) == 1 for systems, _ in named), "a set of one package manager"
    asked = {"apt": FULL.offers, "dnf": DNF_OFFERS}

    missing = {
        name
        for systems, name in named
        if not any(fnmatchcase(name, pattern) for pattern in asked[manager_of(systems[0])])
    }
    assert missing == set()
