"""A power policy holds, within each card's own limits and never beyond them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.host import power

WATTS = st.floats(1, 2000, allow_nan=False)


class Lib:
    """NVML as far as power goes: cards are dictionaries, a `stuck` one takes nothing."""

    def __init__(self, *cards: dict[str, Any]) -> None:
        self.them = [dict(card) for card in cards]

    def cards(self) -> list[dict[str, Any]]:
        return self.them

    def minute(self, card: dict[str, Any]) -> dict[str, Any]:
        return dict(card)

    def set_limit(self, card: dict[str, Any], limit_w: float) -> bool:
        assert card["least_w"] <= limit_w <= card["most_w"], "beyond the card's own limits"
        if card.get("stuck"):
            return False
        card["limit_w"] = limit_w
        return True

    def lock_clocks(self, card: dict[str, Any], least: int, most: int) -> bool:
        card["clocks"] = (least, most)
        return not card.get("stuck")

    def free_clocks(self, card: dict[str, Any]) -> bool:
        return card.pop("clocks", None) is not None


CARD = {"name": "A", "limit_w": 450.0, "default_w": 450.0, "least_w": 150.0, "most_w": 600.0}


@pytest.mark.parametrize(
    ("policy", "limit"),
    [
        ({}, None),
        ({"limit_w": 300}, 300.0),
        ({"limit_percent": 80}, 360.0),
        ({"limit_w": 100}, 150.0),
        ({"limit_w": 900}, 600.0),
        ({"clocks_mhz": [210, 2100]}, None),
    ],
)
def test_the_limit_for_a_card(policy: dict[str, Any], limit: float | None) -> None:
    """Watts, or percent of its default; what it does not allow is bent to what it does, and said."""
    got, bent = power.wanted_w(policy, CARD)
    assert got == limit
    assert bool(bent) == (policy.get("limit_w") in (100, 900))


def test_a_card_that_does_not_tell_its_limits_is_left_alone() -> None:
    """Nothing is known of what it could bear."""
    assert power.wanted_w({"limit_w": 300}, {**CARD, "least_w": None})[0] is None


@given(
    st.fixed_dictionaries({"limit_w": WATTS}) | st.fixed_dictionaries({"limit_percent": st.floats(1, 200)}),
    WATTS,
    WATTS,
    WATTS,
)
def test_never_beyond_the_cards_limits(policy: dict[str, Any], one: float, two: float, now: float) -> None:
    """Whatever the policy says; and a step down keeps to them as well."""
    least, most = sorted((one, two))
    card = {**CARD, "least_w": least, "most_w": most, "default_w": most, "limit_w": min(max(now, least), most)}
    limit, _ = power.wanted_w(policy, card)
    assert limit is not None
    assert least <= limit <= most
    lower = power.lower_w(card)
    assert lower is None or least <= lower < card["limit_w"]


def test_apply_show_and_undo() -> None:
    """Set, read back, nothing to do the second time, and back to the defaults on request."""
    lib = Lib(CARD, {**CARD, "name": "B"})
    policies = {"*": {"limit_percent": 80}, "B": {"limit_w": 200, "clocks_mhz": [210, 1500]}}
    assert power.show(policies, lib) == [
        "A: power limit 450.0 W, policy 360 W",
        "B: power limit 450.0 W, policy 200 W",
    ]
    assert power.apply(policies, lib) == []
    assert [card["limit_w"] for card in lib.them] == [360.0, 200.0]
    assert lib.them[1]["clocks"] == (210, 1500)
    assert power.show(policies, lib) == []
    assert power.undo(lib) == []
    assert [card["limit_w"] for card in lib.them] == [450.0, 450.0]
    assert "clocks" not in lib.them[1]


def test_what_a_card_refuses_is_told() -> None:
    """And the exit code says so."""
    wrong = power.apply({"*": {"limit_w": 200, "clocks_mhz": [1, 2]}}, Lib({**CARD, "stuck": True}))
    assert wrong == ["A: the power limit of 200 W was not taken", "A: clocks of 1 to 2 MHz were not taken"]


def test_caps_go_down_in_steps_and_end_at_the_least() -> None:
    """Ten percent a step."""
    lib = Lib({**CARD, "limit_w": 170.0})
    assert power.cap(lib) == ["A: power limit 170 W → 153 W"]
    assert power.cap(lib) == ["A: power limit 153 W → 150 W"]
    assert power.cap(lib) == []


def test_without_nvml(capsys: pytest.CaptureFixture[str]) -> None:
    """Words and exit 1, for the unit to show."""
    assert power.main(["apply"], library="no-such-library.so", path="/none") == 1
    assert "no-such-library.so is not there" in capsys.readouterr().err
    assert power.main([]) == 2


def test_a_cap_is_taken_back_to_what_was_before_it() -> None:
    """Also where no policy says what a card should have; a limit that the card does not allow any more stays away."""
    lib = Lib({**CARD, "uuid": "GPU-1", "limit_w": 400.0}, {**CARD, "uuid": "GPU-2"}, {**CARD, "uuid": "GPU-3"})
    power.cap(lib)
    power.cap(lib)
    assert power.restore({"GPU-1": 400.0, "GPU-2": 700.0}, lib) == ["A: power limit 324 W → 400 W"]
    assert [card["limit_w"] for card in lib.them] == [400.0, 364.5, 364.5]
