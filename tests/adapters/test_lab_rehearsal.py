"""What the lab can rebuild, what a command's output means, and what is remembered; the hosts are in tests/lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import provisioner.adapters.rehearsal as module
from provisioner.adapters.rehearsal import CaseFiles, LabTheatre, jobs_here, outcome_of
from provisioner.model.rehearsal import Case, CaseResult
from tests.world import entry

CASE = Case(id="a" * 12, name="debian-12-x", hosts=("rig-01",), before=entry(), after=entry())


def case(**changes: Any) -> Case:
    return CASE.model_copy(update=changes)


@pytest.mark.parametrize(
    ("tried", "reason"),
    [
        (CASE, None),
        (case(before=None), None),
        (case(before=entry(os="ubuntu-22.04"), after=entry(os="ubuntu-22.04")), "the lab has no ubuntu-22.04"),
        (case(after=entry(os="debian-13")), "another release (debian-12 → debian-13) is a new installation"),
        (case(after=entry(gpus=("10de:ffff",))), "the lab cannot show a 10de:ffff"),
    ],
)
def test_what_the_lab_cannot_rebuild(tried: Case, reason: str | None, tmp_path: Path) -> None:
    """Said before anything is started."""
    found = LabTheatre(tmp_path, "rehearse").lacks(tried)

    assert found is None if reason is None else str(found).startswith(reason)


def applied(state: str, **more: Any) -> str:
    host = {"state": state, "reference": "", "reason": "", "context": [], "hint": ""}
    host |= {"seconds": {"change": 20.0, "verify": 4.0}, "not_serving_s": 30.0, **more}
    return json.dumps({"format": 1, "run": "r1", "folder": "/runs/r1", "hosts": {"rig": host}})


@pytest.mark.parametrize(
    ("state", "expected", "taken_back"),
    [
        ("enrolled", "good", False),
        ("unchanged", "good", False),
        ("restored", "good", False),
        ("out", "unverified", False),
        ("rolled-back", "unverified", True),
        ("failed", "failed", False),
        ("a word of a later version", "failed", False),
    ],
)
def test_what_apply_says_is_read(state: str, expected: str, taken_back: bool) -> None:
    found = outcome_of(0, applied(state), "", 50.0)

    assert (found.state, found.taken_back) == (expected, taken_back)
    assert (found.seconds, found.verify_s, found.not_serving_s) == (50.0, 4.0, 30.0)


def test_reason_and_context_come_along() -> None:
    found = outcome_of(1, applied("failed", reference="task-failed", reason="rig failed", context=["no x"]), "", 1.0)

    assert (found.reference, found.detail) == ("task-failed", ("rig failed", "no x"))


def test_a_command_that_fails_before_it_has_a_host() -> None:
    """Then the last lines that it said are the reason: never a pass, never silence."""
    found = outcome_of(3, "", "$ provision apply\nerror: nothing there   [lock-not-found]\n", 0.4)

    assert found.state == "failed"
    assert found.detail == ("$ provision apply", "error: nothing there   [lock-not-found]")
    assert outcome_of(70, "", "", 0.1).detail == ("exit code 70",)
    assert outcome_of(130, "", "", 0.1).state == "interrupted"


def test_only_what_passed_with_this_version_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = CaseFiles(tmp_path)
    assert memory.passed(CASE) is None
    memory.note(CaseResult(case=CASE, verdict="passed"))
    assert memory.passed(CASE) == CaseResult(case=CASE, verdict="passed")
    assert memory.passed(case(id="b" * 12)) is None

    monkeypatch.setattr(module, "__version__", "99")
    assert memory.passed(CASE) is None
    monkeypatch.undo()

    memory.note(CaseResult(case=CASE, verdict="failed", why="no"))
    assert memory.passed(CASE) is None
    memory.note(CaseResult(case=CASE, verdict="not-rehearsed", why="no"))
    assert memory.passed(CASE) is None


def test_a_broken_file_is_not_a_pass(tmp_path: Path) -> None:
    memory = CaseFiles(tmp_path)
    memory.note(CaseResult(case=CASE, verdict="passed"))
    file = tmp_path / "passed" / f"{CASE.id}.json"
    for text in ("", "{", "[]", '{"made_by": "x"}', file.read_text(encoding="utf-8").replace('"debian-12"', "12")):
        file.write_text(text, encoding="utf-8")
        assert memory.passed(CASE) is None


def test_at_least_one_host_at_once() -> None:
    assert jobs_here() >= 1
