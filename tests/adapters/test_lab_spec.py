"""How `NAME=SUITE:GPU*N` is read, and what is said of one that cannot be."""

from __future__ import annotations

import pytest

from provisioner.adapters.lab.spec import HostSpec, grouped, parse, parse_all
from provisioner.errors import BadInput

SUITES = ("bullseye", "bookworm")
MODELS = ("gtx-1080", "gtx-1080-ti", "rtx-3090")


def test_host_without_gpu() -> None:
    """A suite alone is a host without cards."""

    assert parse("rig-01=bookworm", SUITES, MODELS) == HostSpec("rig-01", "bookworm")


def test_cards_keep_their_slot_order() -> None:
    """A count repeats the card where it stands."""

    expected = HostSpec("a", "bullseye", ("rtx-3090", "rtx-3090", "gtx-1080"))

    assert parse("a=bullseye:rtx-3090*2,gtx-1080", SUITES, MODELS) == expected


def test_spec_reads_back() -> None:
    """What a spec prints is what makes it."""
    text = "a=bullseye:rtx-3090*2,gtx-1080,rtx-3090"

    assert str(parse(text, SUITES, MODELS)) == text


def test_grouped_joins_neighbours_only() -> None:
    assert grouped(["a", "a", "b", "a"]) == ["a*2", "b", "a"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rig-01", "it has no suite"),
        ("rig-01=", "it has no suite"),
        ("Rig_1=bookworm", "'Rig_1' is no host name"),
        ("=bookworm", "'' is no host name"),
        ("-a=bookworm", "'-a' is no host name"),
        ("a=sid", "the lab has no suite 'sid'"),
        ("a=bookworm:", "nothing stands after the colon"),
        ("a=bookworm:rtx-9999", "there is no GPU model 'rtx-9999' in the matrix"),
        ("a=bookworm:rtx-3090*0", "a lab host has 1 to 8 GPUs"),
        ("a=bookworm:rtx-3090*5,gtx-1080*4", "a lab host has 1 to 8 GPUs"),
        ("a=bookworm:rtx-3090*x", "there is no GPU model 'rtx-3090*x' in the matrix"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, why: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text, SUITES, MODELS)

    assert why in caught.value.message


def test_hint_names_close_models() -> None:
    """A part of a model's id leads to the models that have it."""
    with pytest.raises(BadInput) as caught:
        parse("a=bookworm:1080", SUITES, MODELS)

    assert caught.value.hint == "perhaps gtx-1080, gtx-1080-ti"


def test_name_given_twice() -> None:
    with pytest.raises(BadInput, match="a is given twice"):
        parse_all(["a=bookworm", "a=bullseye"], SUITES, MODELS)
