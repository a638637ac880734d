"""A lock that two matrices made: the hosts that were not asked keep their entries, and nothing follows those."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioner.cli.main import main
from provisioner.errors import Exit
from tests.facts.hosts import CAPTURES

FIRST, SECOND = str(CAPTURES / "debian-12-bare.json"), str(CAPTURES / "debian-13-bare.json")
FORMER = "0" * 64


@pytest.fixture
def names() -> tuple[str, str]:
    first, second = (json.loads(Path(file).read_text(encoding="utf-8"))["host"] for file in (FIRST, SECOND))
    return first, second


@pytest.fixture
def lock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Two hosts, both resolved with a former matrix, then the first of them with the one in use."""
    path = tmp_path / "provision.lock"
    assert main(["resolve", "--capture", FIRST, "--capture", SECOND, "-o", str(path)]) == Exit.OK
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(json.loads(text)["matrix"], FORMER), encoding="utf-8")
    assert main(["plan", "--capture", FIRST, "--lock", str(path)]) == Exit.BAD_INPUT
    capsys.readouterr()
    return path


def test_resolving_one_host_keeps_the_entry_of_the_other_and_says_so(
    lock: Path, names: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads(lock.read_text(encoding="utf-8"))

    assert main(["resolve", "--capture", FIRST, "-o", str(lock)]) == Exit.OK

    said = f"! made with another matrix, kept, and left alone by every plan until resolved again: {names[1]}\n"
    assert said in capsys.readouterr().out
    after = json.loads(lock.read_text(encoding="utf-8"))
    assert after["hosts"] == before["hosts"]
    assert after["older"] == {names[1]: FORMER}
    assert after["matrix"] != FORMER


def test_no_plan_follows_the_entry_of_another_matrix(
    lock: Path, names: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["resolve", "--capture", FIRST, "-o", str(lock)])
    capsys.readouterr()

    assert main(["plan", "--capture", FIRST, "--capture", SECOND, "--lock", str(lock), "--json"]) == Exit.FAILED

    plan = json.loads(capsys.readouterr().out)
    assert list(plan["hosts"]) == [names[0]]
    assert plan["failed"] == {
        names[1]: f"lock-other-matrix: {names[1]}: its lock entry was made with another matrix than the one in use, "
        "so its reasons may no longer hold"
    }


def test_status_says_it_and_what_to_type(
    lock: Path, names: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["resolve", "--capture", FIRST, "-o", str(lock)])
    capsys.readouterr()

    main(["status", "--capture", FIRST, "--capture", SECOND, "--lock", str(lock)])

    out = capsys.readouterr().out
    assert f"{names[1]}  its lock entry was made with another matrix" in out
    assert out.splitlines()[-1].startswith(f"Next: provision resolve --limit {names[1]}")


def test_resolving_the_other_too_mends_it(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["resolve", "--capture", FIRST, "-o", str(lock)])

    assert main(["resolve", "--capture", SECOND, "-o", str(lock)]) == Exit.OK

    assert "older" not in json.loads(lock.read_text(encoding="utf-8"))


def test_a_host_that_no_longer_resolves_loses_its_entry(
    tmp_path: Path, names: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked alone as well as among others: an old answer must not pass for a new one."""
    lock = tmp_path / "provision.lock"
    main(["resolve", "--capture", FIRST, "--capture", SECOND, "-o", str(lock)])
    blind = json.loads(Path(FIRST).read_text(encoding="utf-8")) | {"files": {}, "commands": {}, "nvml": None}
    (tmp_path / "blind.json").write_text(json.dumps({k: v for k, v in blind.items() if v is not None}))

    assert main(["resolve", "--capture", str(tmp_path / "blind.json"), "-o", str(lock)]) == Exit.UNRESOLVABLE

    assert list(json.loads(lock.read_text(encoding="utf-8"))["hosts"]) == [names[1]]
