"""`provision rehearse`: what it would rehearse, and how it reads for a person, for CI and in a pull request."""

from __future__ import annotations

import html.parser
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from provisioner.cli.main import main
from provisioner.cli.views import rehearse as view
from provisioner.errors import Exit
from provisioner.model.rehearsal import Case, CaseResult, Rehearsal, StepResult
from provisioner.model.stack import Choice, HostLock, Lock
from provisioner.resolve.lock import lock_text
from tests.world import entry, locked

NEW = entry(
    driver_branch=Choice(value="550"),
    driver_version=Choice(value="550.163.01"),
    packages=(locked("nvidia-smi", "550.163.01-1"),),
)


def lock(**hosts: HostLock) -> str:
    return lock_text(Lock(made_by="0.1.0", matrix="0" * 64, hosts=hosts))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "provision.lock").write_text(lock(a=entry(), b=entry(), c=entry(gpus=("l4",))), encoding="utf-8")
    (tmp_path / "candidate.lock").write_text(lock(a=NEW, b=NEW, c=entry(gpus=("l4",))), encoding="utf-8")
    return tmp_path


def test_a_dry_run_names_the_stacks_and_starts_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rehearse", "--to", "candidate.lock", "--dry-run"]) == Exit.OK

    out = capsys.readouterr().out
    assert out.startswith("1 stack to rehearse for 2 hosts\n\ndebian-12-rtx-3090-535.261.03-to-550.163.01-")
    assert "  driver 535.261.03, docker-io, akash → driver 550.163.01, docker-io, akash\n" in out
    assert out.endswith("1 unchanged: c\n")
    assert not (folder / ".provision").exists()

    assert main(["rehearse", "--to", "candidate.lock", "--dry-run", "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert [case["hosts"] for case in found["cases"]] == [["a", "b"]]


def test_an_inventory_narrows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rigs.yml").write_text('{"rigs": {"hosts": {"a": {}, "c": {}, "gone": {}}}}', encoding="utf-8")

    assert main(["rehearse", "--to", "candidate.lock", "-i", "rigs.yml", "-l", "a,c", "-n"]) == Exit.OK
    assert "1 stack to rehearse for 1 host\n" in capsys.readouterr().out
    assert main(["rehearse", "--to", "candidate.lock", "-i", "rigs.yml", "-n"]) == Exit.BAD_INPUT
    assert "[rehearse-host-not-locked]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--to", "nowhere.lock"],
        ["--to", "candidate.lock", "--limit", "a"],
        ["--to", "candidate.lock", "--jobs", "0"],
        ["--to", "candidate.lock", "--html", "nowhere/report.html"],
        ["--from", "candidate.lock"],
    ],
)
def test_what_cannot_be_used_is_said_before_any_work(folder: Path, words: list[str]) -> None:
    try:
        code = main(["rehearse", *words])
    except SystemExit as problem:  # argparse, for a missing argument
        code = int(problem.code or 0)
    assert code == Exit.BAD_INPUT


def test_nothing_to_rehearse_needs_no_lab(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And still writes every report that was asked for: a pipeline expects its files."""
    assert (
        main(["rehearse", "--to", "provision.lock", "--markdown", "s.md", "--junit", "j.xml", "--html", "h.html"]) == 0
    )
    assert "nothing to rehearse: 3 hosts stay as they are" in capsys.readouterr().out
    assert "Nothing to rehearse: 3 hosts" in (folder / "s.md").read_text(encoding="utf-8")
    assert ElementTree.parse(folder / "j.xml").getroot().tag == "testsuites"
    assert (folder / "h.html").exists()


# --- how it reads -------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script> | `x` @all \x1b[2J"


def result(name: str, verdict: str, *steps: StepResult, **more: object) -> CaseResult:
    case = Case(
        id=name * 12, name=f"debian-12-{name}", hosts=(f"rig-{name}",), before=entry(), after=NEW, present="0" * 64
    )
    return CaseResult.model_validate({"case": case, "verdict": verdict, "steps": steps, **more})


PASSED = result(
    "a",
    "passed",
    StepResult(step="present", status="passed", seconds=12),
    StepResult(step="upgrade", status="passed", seconds=94, not_serving_s=70),
    StepResult(step="verify", status="passed", seconds=5),
    StepResult(step="back", status="passed", seconds=60, not_serving_s=50),
    StepResult(step="verify-back", status="passed", seconds=5),
    cached=True,
)
FAILED = result(
    "b",
    "failed",
    StepResult(step="present", status="passed", seconds=300),
    StepResult(step="upgrade", status="failed", seconds=8, reference="task-failed", detail=("rig failed", HOSTILE)),
    why="the upgrade failed: rig failed",
)
UNKNOWN = result("c", "not-rehearsed", StepResult(step="present", status="not-made"), why="the lab has no ubuntu-22.04")
DONE = Rehearsal(
    made_by="0.1.0", made_at="2026-11-25T00:00:00Z", before="0" * 64, after="1" * 64, cases=(PASSED, FAILED, UNKNOWN),
    unchanged=("rig-x",), seconds=400,
)  # fmt: skip


def test_the_table_has_a_row_per_stack_and_says_what_to_do() -> None:
    text = view.rehearsed_text(DONE, "candidate.lock")

    rows = {line.split()[0]: " ".join(line.split()) for line in text.splitlines() if line.startswith("debian")}
    head = [line for line in text.splitlines() if line.startswith("debian")][:3]
    assert " ".join(head[0].split()) == "debian-12-a 1 12 s 94 s 5 s 60 s 5 s 70 s passed (kept image)"
    assert " ".join(head[1].split()) == "debian-12-b 1 5 min ✗ 8 s – – – – failed"
    assert " ".join(head[2].split()) == "debian-12-c 1 ? – – – – – not rehearsed"
    assert set(rows) == {"debian-12-a", "debian-12-b", "debian-12-c"}
    assert "[task-failed]" in text
    assert 'leave these hosts as they are: provision_driver: "535.261.03" for rig-b, then provision resolve' in text
    assert "nothing is known of this one" in text
    assert "1 passed · 1 failed · 1 not rehearsed · 7 min" in text
    assert "\x1b" not in text
    assert "Next:" not in text


def test_what_keeps_a_host_at_what_it_has() -> None:
    """A lock that was edited by hand is no longer what the inventory resolves to, so CI would refuse it."""
    client = entry(networks={"akash": Choice(value="0.17.0")})

    assert view.held_by(entry(), NEW) == ['provision_driver: "535.261.03"']
    assert view.held_by(entry(), client) == ["provision_networks: [akash@0.16.2]"]
    assert view.held_by(entry(), entry(packages=())) == []
    packages = FAILED.case.model_copy(update={"after": entry(packages=())})
    assert "put their entries of the lock in use back" in view.advice(FAILED.model_copy(update={"case": packages}))
    new = FAILED.case.model_copy(update={"before": None})
    assert view.advice(FAILED.model_copy(update={"case": new})).startswith("leave rig-b out until this passes")


def test_when_all_pass_the_next_command_is_named() -> None:
    text = view.rehearsed_text(DONE.model_copy(update={"cases": (PASSED,)}), "candidate.lock")

    assert text.endswith("Next: mv candidate.lock provision.lock && provision plan -i INVENTORY\n")


def test_junit_tells_failed_from_not_made() -> None:
    """CI counts them apart; a step that was not reached is skipped, not passed."""
    root = ElementTree.fromstring(view.junit_text(DONE))

    counts = {s.get("name"): tuple(s.get(k) for k in ("tests", "failures", "errors", "skipped")) for s in root}
    assert counts == {
        "debian-12-a": ("5", "0", "0", "0"),
        "debian-12-b": ("5", "1", "0", "3"),
        "debian-12-c": ("5", "0", "1", "4"),
    }


def test_the_summary_for_a_pull_request_cannot_be_broken_out_of() -> None:
    text = view.markdown_text(DONE)

    assert text.startswith("### Rehearsal: 2 of 3 stacks did not pass\n")
    assert (
        "| ✅ | debian-12-a | 1 | driver 535.261.03, docker-io, akash → driver 550.163.01, docker-io, akash | 70 s |"
        in text
    )
    assert text.count("```") == 2  # around what the failed step said; nothing more is known of the other
    assert "'x'" in text
    outside = "".join(text.split("```")[::2])
    assert "<script>" not in outside
    assert "Leave these hosts as they are" in text
    assert "1 host unchanged" in text


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href")]


def test_the_report_opens_offline_and_runs_nothing(tmp_path: Path) -> None:
    """One file: no script, no address outside of itself, and hostile words of a host are text."""
    log = tmp_path / "log.txt"
    log.write_text(f"$ provision apply\n{HOSTILE}\n", encoding="utf-8")
    done = DONE.model_copy(update={"cases": (PASSED, FAILED.model_copy(update={"log": str(log), "plan": "the plan"}))})

    text = view.html_text(done)

    page = _Page()
    page.feed(text)
    assert "script" not in page.tags
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "default-src 'none'" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\x1b" not in text
    for part in ("the plan", "driver 535.261.03 → 550.163.01", "rig failed", "5 min", "rig-b"):
        assert part in text


def test_the_report_shows_what_files_say_differently() -> None:
    """Pins move with the packages; a file that stays is not shown, nor anything of a tunnel's keys."""
    (pins, unattended) = view.file_diffs(PASSED.case)

    assert "--- /etc/apt/preferences.d/provision.pref" in unattended + pins
    assert "\n-Pin: version 535.261.03-1~deb12u1" in unattended + pins
    assert "\n+Pin: version 550.163.01-1" in unattended + pins
    assert '<span class="more">+Pin: version 550.163.01-1</span>' in view.html_text(DONE)
    assert view.file_diffs(PASSED.case.model_copy(update={"after": entry()})) == []


def test_json_has_the_documented_shape() -> None:
    found = json.loads(view.rehearsed_json(DONE))

    assert found["format"] == 1
    assert [(one["name"], one["verdict"], one["not_serving_s"]) for one in found["cases"]] == [
        ("debian-12-a", "passed", 70.0),
        ("debian-12-b", "failed", 0.0),
        ("debian-12-c", "not-rehearsed", 0.0),
    ]
    assert "case" not in found["cases"][0]


@pytest.mark.parametrize(
    ("cases", "words", "code"),
    [
        ((PASSED,), [], Exit.OK),
        ((PASSED, FAILED), ["--tolerate-unrehearsed"], Exit.FAILED),
        ((PASSED, UNKNOWN), [], Exit.FAILED),
        ((PASSED, UNKNOWN), ["--tolerate-unrehearsed"], Exit.OK),
    ],
)
def test_exit_codes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, cases: tuple[CaseResult, ...], words: list[str], code: int
) -> None:
    """What was not rehearsed is no success unless somebody says so."""
    import provisioner.actions.rehearse as action

    monkeypatch.setattr(action, "rehearse", lambda *_a, **_k: DONE.model_copy(update={"cases": cases}))

    assert main(["rehearse", "--to", "candidate.lock", *words]) == code
