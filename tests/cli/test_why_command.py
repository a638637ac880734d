"""`provision why` and `why-not` on recorded hosts: what is printed, and the exit code."""

from __future__ import annotations

import json

import pytest

from provisioner.cli.main import main
from provisioner.errors import Exit
from tests.facts.hosts import CAPTURES

BARE = str(CAPTURES / "debian-12-bare.json")


def test_the_answer_of_a_recorded_host(capsys: pytest.CaptureFixture[str]) -> None:
    """The host may be named or left out when there is one; both commands ask the same."""
    assert main(["why-not", "pd-b", "cuda=13.0", "--capture", BARE]) == Exit.OK
    named = capsys.readouterr().out
    assert main(["why", "cuda=13.0", "--capture", BARE]) == Exit.OK

    assert capsys.readouterr().out == named
    assert named.startswith("pd-b can't have CUDA 13.0.\n")
    assert "CUDA 13.0 comes with driver branch 580 and newer ones  (drivers/580" in named


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", "pd-b", "driver=580", "--capture", BARE, "--json"]) == Exit.OK

    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "impossible"
    assert [[claim["rule"] for claim in conflict] for conflict in answer["conflicts"]] == [["driver-not-offered"]]
    assert answer["now"]["driver"] == "535.309.01" and answer["with_it"] is None


def test_a_host_without_its_sources_is_not_answered_for(capsys: pytest.CaptureFixture[str]) -> None:
    capture = str(CAPTURES / "debian-12-driver.json")

    assert main(["why", "driver=580", "--capture", capture]) == Exit.UNRESOLVABLE
    assert "did not show what its package sources offer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reference"),
    [
        (["pd-b"], "question-not-read"),
        (["driver=580", "cuda=13.0"], "no-host"),
        (["rig-99", "driver=580"], "no-host"),
    ],
)
def test_bad_words(words: list[str], reference: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["why", *words, "--capture", BARE]) == Exit.BAD_INPUT
    assert f"[{reference}]" in capsys.readouterr().err


def test_of_two_hosts_one_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    other = str(CAPTURES / "debian-13-bare.json")

    assert main(["why", "driver=580", "--capture", BARE, "--capture", other]) == Exit.BAD_INPUT
    assert "[which-host]" in capsys.readouterr().err
