"""How the cards are is noted at the enrolment, and a worse link or a grown count does not become the measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provisioner.host import baseline, gate

AT = 1_790_000_000.0
DAY = 86400.0


def card(**changes: Any) -> dict[str, Any]:
    return {
        "uuid": "GPU-1",
        "name": "NVIDIA A100",
        "slot": "00000000:01:00.0",
        "width": 16,
        "generation": 4,
        "rows": {"correctable": 0, "uncorrectable": 1},
        **changes,
    }


def note(root: Path, *cards: dict[str, Any], at: float = AT) -> dict[str, Any]:
    assert baseline.note(str(root), lambda: {"cards": list(cards)}, lambda: at) == ""
    found: dict[str, Any] = json.loads((root / baseline.PATH.lstrip("/")).read_text())
    return found


def test_the_first_note(tmp_path: Path) -> None:
    """Each card by its UUID, with the time."""
    found = note(tmp_path, card())

    assert (found["format"], found["at"]) == (1, gate.stamp(AT))
    assert found["cards"] == {
        "GPU-1": {
            "name": "NVIDIA A100",
            "slot": "00000000:01:00.0",
            "width": 16,
            "generation": 4,
            "rows": {"correctable": 0, "uncorrectable": 1},
            "rows_at": gate.stamp(AT),
            "since": gate.stamp(AT),
        }
    }


def test_the_best_link_stays_the_measure(tmp_path: Path) -> None:
    """Enrolling anew with fewer lanes does not make them enough; more lanes count at once."""
    note(tmp_path, card(width=8))
    note(tmp_path, card(width=16), at=AT + DAY)
    found = note(tmp_path, card(width=4, generation=1), at=AT + 90 * DAY)["cards"]["GPU-1"]

    assert (found["width"], found["generation"], found["since"]) == (16, 4, gate.stamp(AT))


def test_counts_of_rows_stay_for_thirty_days(tmp_path: Path) -> None:
    """A change of the host in between hides no growth; after that the count of then is the measure."""
    grown = {"correctable": 0, "uncorrectable": 5}
    note(tmp_path, card())
    soon = note(tmp_path, card(rows=grown), at=AT + 29 * DAY)["cards"]["GPU-1"]
    later = note(tmp_path, card(rows=grown), at=AT + 31 * DAY)["cards"]["GPU-1"]

    assert (soon["rows"]["uncorrectable"], soon["rows_at"]) == (1, gate.stamp(AT))
    assert (later["rows"]["uncorrectable"], later["rows_at"]) == (5, gate.stamp(AT + 31 * DAY))


def test_another_slot_and_another_card_begin_anew(tmp_path: Path) -> None:
    """And a card that is gone is no longer noted."""
    note(tmp_path, card(), card(uuid="GPU-2", slot="00000000:21:00.0"))
    found = note(tmp_path, card(slot="00000000:41:00.0", width=4), card(uuid="GPU-3", width=8), at=AT + DAY)["cards"]

    assert {name: one["width"] for name, one in found.items()} == {"GPU-1": 4, "GPU-3": 8}
    assert found["GPU-1"]["since"] == gate.stamp(AT + DAY)


def test_what_a_card_does_not_tell_now_keeps_what_it_told(tmp_path: Path) -> None:
    """A question that failed once is no worse link."""
    note(tmp_path, card())
    found = note(tmp_path, card(width=None, rows=None), at=AT + DAY)["cards"]["GPU-1"]

    assert (found["width"], found["rows"]) == (16, {"correctable": 0, "uncorrectable": 1})


@pytest.mark.parametrize("text", ["", "no json", "[1]", '{"cards": 5}', '{"cards": {"GPU-1": 7}}'])
def test_a_damaged_note_is_written_anew(text: str, tmp_path: Path) -> None:
    """Nothing of it counts, and nothing fails."""
    path = tmp_path / baseline.PATH.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text(text)

    assert note(tmp_path, card(width=8))["cards"]["GPU-1"]["width"] == 8


def test_without_nvml_nothing_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The old note stays, and the reason is told."""
    before = note(tmp_path, card())
    code = baseline.main(["note"], root=str(tmp_path), ask=lambda: {"error": "Driver/library version mismatch (18)"})

    assert code == 1
    assert "nothing is noted of the cards: NVML: Driver/library version mismatch (18)" in capsys.readouterr().err
    assert json.loads((tmp_path / baseline.PATH.lstrip("/")).read_text()) == before


def test_show_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would be noted, as JSON; any other word gets the usage."""
    assert baseline.main(["show"], ask=lambda: {"cards": [card()]}) == 0
    assert json.loads(capsys.readouterr().out)["cards"][0]["width"] == 16
    assert baseline.main(["forget"]) == 2
    assert list(tmp_path.iterdir()) == []
