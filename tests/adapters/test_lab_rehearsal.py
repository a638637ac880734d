"""What the lab can rebuild, what a command's output means, and what is remembered; the hosts are in tests/lab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import provisioner.adapters.rehearsal as stage_module
import provisioner.adapters.rehearsal_memory as module
from provisioner.adapters.rehearsal import LabTheatre, present_images, shown, stand_ins
from provisioner.adapters.rehearsal_memory import CaseFiles, jobs_here, only_one
from provisioner.adapters.rehearsal_outcome import changed_in, outcome_of, together
from provisioner.errors import Exit, ProvisionError
from provisioner.model.intent import Intent, SecretSource
from provisioner.model.rehearsal import Case, CaseResult, Outcome
from provisioner.model.tunnel import Tunnel, TunnelLock
from tests.world import entry

CASE = Case(id="a" * 12, name="debian-12-x", hosts=("rig-01",), before=entry(), after=entry(), present="0" * 64)


def case(**changes: Any) -> Case:
    return CASE.model_copy(update=changes)


def joined(
    kind: Any = "wireguard", role: Any = "spoke", public_key: str | None = "k" * 43 + "=", address: str = "10.87.0.9"
) -> Any:
    """An entry with a tunnel, as the lock of a fleet has it."""
    wish = Tunnel(kind=kind, role=role, hub="hub-01", endpoint="h.example:1", range="10.87.0.0/24")
    lock = TunnelLock(kind=kind, role=role, host="rig-01", public_key=public_key, address=address)
    return entry(intent=Intent(networks=("akash",), tunnel=wish), tunnel=lock)


@pytest.mark.parametrize(
    ("tried", "reason"),
    [
        (CASE, None),
        (case(before=None), None),
        (case(before=entry(os="ubuntu-22.04"), after=entry(os="ubuntu-22.04")), "the lab has no ubuntu-22.04"),
        (case(after=entry(os="debian-13")), "another release (debian-12 → debian-13) is a new installation"),
        (case(after=entry(gpus=("10de:ffff",))), "the lab cannot show a 10de:ffff"),
        (case(before=joined(), after=joined()), None),
        (case(before=joined(public_key=None), after=joined()), "its tunnel is in the lock and not in force yet"),
        (case(after=joined(role="hub")), "the lab cannot rebuild a tunnel by wireguard as hub"),
        (case(after=joined(kind="tailscale")), "the lab cannot rebuild a tunnel by tailscale as spoke"),
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
    found = outcome_of(0, applied(state), "", 50.0, "rig")

    assert (found.state, found.taken_back) == (expected, taken_back)
    assert (found.seconds, found.verify_s, found.not_serving_s) == (50.0, 4.0, 30.0)


def test_reason_and_context_come_along() -> None:
    found = outcome_of(
        1, applied("failed", reference="task-failed", reason="rig failed", context=["no x"]), "", 1.0, "rig"
    )

    assert (found.reference, found.detail) == ("task-failed", ("rig failed", "no x"))


def test_a_command_that_fails_before_it_has_a_host() -> None:
    """Then the last lines that it said are the reason: never a pass, never silence."""
    found = outcome_of(3, "", "$ provision apply\nerror: nothing there   [lock-not-found]\n", 0.4, "rig")

    assert found.state == "failed"
    assert found.detail == ("$ provision apply", "error: nothing there   [lock-not-found]")
    assert outcome_of(70, "", "", 0.1, "rig").detail == ("exit code 70",)
    assert outcome_of(130, "", "", 0.1, "rig").state == "interrupted"


def test_a_hub_that_failed_fails_the_step() -> None:
    """The rig itself came to a good end: what it was joined with did not."""
    value = json.loads(applied("enrolled"))
    hub = {**value["hosts"]["rig"], "state": "failed", "reference": "task-failed", "reason": "no wg", "context": ["x"]}
    value["hosts"]["hub"] = hub

    found = outcome_of(1, json.dumps(value), "", 9.0, "rig")

    assert (found.state, found.reference, found.detail) == ("failed", "task-failed", ("hub: no wg", "x"))
    assert found.not_serving_s == 30.0


def test_which_run_is_to_be_taken_back() -> None:
    value = json.loads(applied("enrolled"))
    assert changed_in(json.dumps(value), "rig") == "r1"
    value["hosts"]["rig"]["state"] = "unchanged"
    assert changed_in(json.dumps(value), "rig") == ""
    value["folder"] = None
    assert changed_in(json.dumps(value), "rig") == changed_in("error", "rig") == ""


def test_two_commands_of_a_step_count_together() -> None:
    first, second = Outcome("good", 50.0, 4.0, 30.0), Outcome("failed", 10.0, 1.0, 5.0, detail=("no",))
    assert together(first, second) == Outcome("failed", 60.0, 5.0, 35.0, detail=("no",))


def test_no_secret_of_the_fleet_gets_onto_a_lab_host() -> None:
    """What stands in for it is the same everywhere, also where this machine's environment holds the real one."""
    tunnel = Tunnel(kind="wireguard", hub="hub-01", preshared=True)
    secrets = (
        SecretSource(network="lium", name="hotkey", variable="lium_hotkey"),
        SecretSource(network="lium", name="api", env="LIUM_API"),
    )
    variables, environment = stand_ins(entry(intent=Intent(secrets=secrets, tunnel=tunnel)))

    assert set(variables) == {"lium_hotkey", "provision_tunnel_preshared"}
    assert set(environment) == {"LIUM_API"}
    assert len(variables["provision_tunnel_preshared"]) == 44


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ((), ()),
        (("a", "a"), ("a", "a")),
        (("a",) * 10, ("a",) * 8),
        (("a",) * 9 + ("b",), ("a",) * 7 + ("b",)),
    ],
)
def test_a_host_with_more_cards_than_the_lab_can_show(gpus: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert shown(gpus) == expected


def test_images_are_known_by_the_present_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which host stands for its stack, and what it is upgraded to, changes no tag; a hub has an image of its own."""
    monkeypatch.setattr(stage_module, "_bare_image", lambda suite: suite)
    one = present_images(CASE, joined=False)

    assert one == present_images(case(hosts=("b",), before=entry(gpus=("rtx-3090",) * 2)), joined=False)
    assert one != present_images(case(present="1" * 64), joined=False)
    assert set(present_images(CASE, joined=True)) == {"rig", "hub"}


def test_an_image_of_another_address_in_the_tunnel_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack is the same, and its hub would be looked for where it is not."""
    monkeypatch.setattr(stage_module, "_bare_image", lambda suite: suite)
    one = present_images(case(before=joined()), joined=True)

    assert one == present_images(case(before=joined()), joined=True)
    other = present_images(case(before=joined(address="10.87.0.10")), joined=True)
    assert one["rig"] != other["rig"] and one["hub"] != other["hub"]


def test_one_rehearsal_at_a_time_in_a_folder(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(ProvisionError) as problem, only_one(tmp_path):
        pass
    assert (problem.value.reference, problem.value.exit_code) == ("rehearsal-runs-already", Exit.BUSY)
    with only_one(tmp_path):  # and again, once the first has ended
        pass


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


def test_the_log_of_what_passed_is_kept_with_it(tmp_path: Path) -> None:
    """CI keeps the folder of what passed alone, and its next report still shows the log."""
    log = tmp_path / "log.txt"
    log.write_text("$ provision apply", encoding="utf-8")
    memory = CaseFiles(tmp_path)
    memory.note(CaseResult(case=CASE, verdict="passed", log=str(log)))
    log.unlink()

    found = memory.passed(CASE)
    assert found is not None
    assert Path(found.log).read_text(encoding="utf-8") == "$ provision apply"

    memory.note(CaseResult(case=CASE, verdict="failed", why="no"))
    assert not Path(found.log).exists()


def test_a_broken_file_is_not_a_pass(tmp_path: Path) -> None:
    memory = CaseFiles(tmp_path)
    memory.note(CaseResult(case=CASE, verdict="passed"))
    file = tmp_path / "passed" / f"{CASE.id}.json"
    for text in ("", "{", "[]", '{"made_by": "x"}', file.read_text(encoding="utf-8").replace('"debian-12"', "12")):
        file.write_text(text, encoding="utf-8")
        assert memory.passed(CASE) is None


def test_at_least_one_host_at_once() -> None:
    assert jobs_here() >= 1
