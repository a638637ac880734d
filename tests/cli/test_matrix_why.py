"""`provision matrix why`: what an entry decides, what uses it, and where each of its claims comes from."""

from __future__ import annotations

import json

import pytest

from provisioner.cli.main import main
from provisioner.matrix.entries import ROOMS
from provisioner.matrix.reader import load
from provisioner.model.paths import data_dir


def why(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["matrix", "why", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_whole_screen_of_a_card(capsys: pytest.CaptureFixture[str]) -> None:
    """What it is, what it decides, what it rests on and what uses it, then its file, line and sources."""
    code, out, _ = why(capsys, "tesla-k80")
    assert code == 0
    assert out.splitlines()[:6] == [
        "Tesla K80  (gpus/tesla-k80)",
        "Tesla K80 · kepler 3.7 · 12 GB",
        "",
        "decides    what a card with these PCI ids is, so which branches, kernel modules and CUDA levels it takes",
        "rests on   architectures: kepler",
        "           drivers: 470",
    ]
    assert "\ngpus/tesla-k80.yaml:2  the entry as a whole\n" in out
    assert "\n      https://" in out


def test_one_claim_of_a_network_with_its_line_its_trust_and_its_sources(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = why(capsys, "lium", "cdi")
    assert code == 0
    place = next(line for line in out.splitlines() if "needs cdi" in line)
    file, _, line = place.split()[0].partition(":")
    text = (data_dir("matrix") / file).read_text(encoding="utf-8").splitlines()
    assert text[int(line) - 1].strip() == "- cdi: absent"
    assert "    high confidence, read 2026-11-24\n" in out
    assert "nvidia_docker_sysbox_setup.sh" in out
    assert "kernel" not in out


def test_a_plain_field_has_the_trust_of_its_entry_and_its_own_line(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = why(capsys, "drivers/580", "native_cuda", "--json")
    [claim] = json.loads(out)["claims"]
    file = data_dir("matrix") / "drivers/580.yaml"
    assert (claim["field"], claim["value"], claim["confidence"]) == ("native_cuda", "13.0", "high")
    assert file.read_text(encoding="utf-8").splitlines()[claim["line"] - 1] == 'native_cuda: "13.0"'
    assert claim["sources"] == list(load().drivers["580"].sources)


def test_what_uses_an_entry_is_named_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Both ways: what names the entry, and the wishes of networks that it satisfies."""
    _, out, _ = why(capsys, "drivers/535", "--json")
    found = json.loads(out)
    assert "cuda/12.2" in {link["entry"] for link in found["used_by"]}
    assert {"networks/lium", "networks/render"} <= {link["entry"] for link in found["wanted_by"]}
    for link in (*found["used_by"], *found["rests_on"], *found["wanted_by"]):
        file, _, line = link["at"].partition(":")
        text = (data_dir("matrix") / file).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        assert link["field"].rpartition(".")[2] in text or link["entry"].partition("/")[2] in text or "- " in text


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_entry_says_why(capsys: pytest.CaptureFixture[str], room: str) -> None:
    """The first and the last of each room, as text and as JSON."""
    names = list(load().room(room))
    for name in (names[0], names[-1]):
        code, out, _ = why(capsys, f"{room}/{name}")
        assert code == 0
        assert max(len(line) for line in out.splitlines() if not line.startswith("      ")) <= 120
        _, out, _ = why(capsys, f"{room}/{name}", "--json")
        assert json.loads(out)["claims"][0]["sources"]


def test_a_field_that_is_not_there_names_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = why(capsys, "drivers/580", "colour")
    assert (code, out) == (3, "")
    assert "[matrix-unknown-field]" in err
    assert "native_cuda" in err
