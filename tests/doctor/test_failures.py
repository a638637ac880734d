"""Real failures of GPU hosts, 76 of them, and as many again in other words: the right mechanism comes first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.model.capture import CommandOutput
from tests.doctor.variants import VARIANTS, Variant
from tests.doctor.world import EXPECTED, failure, ids, look, mechanisms
from tests.facts.hosts import capture


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_right_mechanism_is_among_the_first_three(name: str) -> None:
    """Of every recorded failure."""
    assert EXPECTED[name] in ids(look(failure(name)))[:3]


def test_the_right_mechanism_is_the_first_in_nearly_all() -> None:
    """A driver that is too old and a tag that was pushed anew look the same, and the first is the likelier."""
    second = {name for name, mechanism in EXPECTED.items() if ids(look(failure(name)))[:1] != [mechanism]}

    assert len(EXPECTED) == 76
    assert second == {"retagged-cuda-image-raised-requirement"}


def test_no_recorded_failure_has_a_second_finding_that_is_not_meant() -> None:
    """Consequences are folded into their cause."""
    several = {name: ids(look(failure(name)))[1:] for name in EXPECTED if len(ids(look(failure(name)))) > 1}

    assert several == {"retagged-cuda-image-raised-requirement": ["image-tag-was-pushed-anew"]}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_other_words_and_versions_are_found_as_well(variant: Variant) -> None:
    """On a host of which everything else was seen and is well; nothing else is found there."""
    found = ids(look(variant.capture))

    assert found[:1] == [variant.first]
    assert set(found) - {variant.first} <= set(variant.others)


def test_every_mechanism_is_shown_on_a_whole_host() -> None:
    """Causes and symptoms, not only by their own proof; a few symptoms are always named by a cause on a whole host."""
    shown = {variant.first for variant in VARIANTS.values()} | set(EXPECTED.values())
    always_explained = {
        "no-module-for-running-kernel",
        "smi-driver-not-loaded",
        "smi-library-not-found",
        "smi-version-mismatch",
    }

    assert set(mechanisms()) - shown == always_explained


THREADS = yaml.safe_load((Path(__file__).parent / "threads.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("thread", THREADS, ids=[thread["thread"] for thread in THREADS])
def test_lines_of_other_threads_are_understood(thread: dict[str, Any]) -> None:
    """A few lines are all there is: the cause where they have it, else the symptom, and nothing beside it."""
    commands = {
        line: CommandOutput(**given) if isinstance(given, dict) else given for line, given in thread["commands"].items()
    }

    assert ids(look(capture(files=thread.get("files"), commands=commands))) == [thread["first"]]
