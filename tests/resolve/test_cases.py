"""Every file of matrix/cases: a host and a request give exactly the stack, or exactly the text, that stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import cases
import pytest
import worlds
import yaml

from provisioner.model.intent import Intent
from provisioner.resolve import NoSolution, solve
from provisioner.resolve.hypothetical import Shelf
from provisioner.resolve.question import read_question
from provisioner.resolve.repairs import apply
from provisioner.resolve.why import why

FILES = cases.files()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_case_gets_its_expected_answer(path: Path) -> None:
    case = yaml.safe_load(path.read_text(encoding="utf-8"))

    assert cases.told(cases.answer(case, worlds.matrix())) == case["expected"]


def test_the_cases_cover_every_architecture_release_and_network() -> None:
    """Nine architectures from Kepler to Blackwell on three Debian releases, and four networks on each."""
    seen = set()
    for path in FILES:
        case = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name in case["host"].get("gpus", []):
            model = worlds.matrix().gpus.get(name)
            if model is not None:
                for network in case.get("request", {}).get("networks", []):
                    seen.add((model.architecture, case["host"]["os"], network))

    architectures = ("kepler", "maxwell", "pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell")
    wanted = {
        (architecture, os, network)
        for architecture in architectures
        for os in ("debian-11", "debian-12", "debian-13")
        for network in ("akash", "ionet", "render", "lium")
    }
    assert wanted - seen == set()


def test_the_cases_cover_every_network_and_every_release_of_which_offers_are_known() -> None:
    """An entry that is added has no case yet: write title, host and request, and run cases.py."""
    matrix = worlds.matrix()
    read = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in FILES]
    networks = {
        name.partition("@")[0].partition("/")[0] for c in read for name in c.get("request", {}).get("networks", [])
    }
    ways = {"vendor": Shelf(matrix, "vendor"), "archive": Shelf(matrix, "archive")}

    assert set(matrix.networks) - networks == set()
    assert {os for shelf in ways.values() for os in shelf.releases()} - {c["host"]["os"] for c in read} <= RPM


RPM = {"rhel-8", "rhel-9", "rhel-10", "rocky-8", "rocky-9", "rocky-10", "opensuse-leap-15.6", "opensuse-leap-16.0"}
"""Releases whose packages are not read from a host yet."""


def test_what_no_solution_says_to_ask_has_an_answer() -> None:
    """Every `provision why-not HOST VALUE` at the end of an explanation can be asked, and has reasons."""
    asked = set()
    for path in FILES:
        case = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = re.search(r"Look closer: provision why-not rig-01 (.*)", case["expected"].get("explanation", ""))
        if found is not None:
            [value] = shlex.split(found[1])
            answer = why(cases.facts(case), cases.intent(case), worlds.matrix(), read_question(value, worlds.matrix()))
            assert answer.verdict == "impossible", path.stem
            assert answer.conflicts
            asked.add(value.partition("=")[0])
    assert asked == {"cuda", "driver"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_repair_of_a_case_repairs_and_no_subset_of_it_does(path: Path) -> None:
    case = yaml.safe_load(path.read_text(encoding="utf-8"))
    matrix = worlds.matrix()
    found = cases.answer(case, matrix)
    if not isinstance(found, NoSolution) or not found.repairs:
        return
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in case["host"].items()}
    facts = worlds.host(given.pop("os"), *given.pop("gpus", ()), **given)
    intent = Intent.model_validate(case.get("request", {}))
    for repair in found.repairs:
        assert not isinstance(solve(*apply(facts, intent, repair.edits, matrix), matrix), NoSolution)
        for left_out in repair.edits:
            less = [edit for edit in repair.edits if edit != left_out]
            assert isinstance(solve(*apply(facts, intent, less, matrix), matrix), NoSolution)
