"""What differs between two matrices: entries by name, claims by path."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from provisioner.matrix.changes import ClaimChange, _claims, changes
from provisioner.matrix.reader import load

RULE = """\
id: {id}
title: {title}
about: drivers
statement: a claim
seen: "2026-11-24"
confidence: high
sources: [https://docs.nvidia.com]
figures: {{floor: "{floor}", known: [{known}]}}
"""


def matrix(folder: Path, **rules: tuple[str, str]) -> Path:
    (folder / "rules").mkdir(parents=True)
    for name, (floor, known) in rules.items():
        text = RULE.format(id=name, title=f"Rule {name}", floor=floor, known=known)
        (folder / "rules" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_entries_come_go_and_change_by_claim(tmp_path: Path) -> None:
    old = load(matrix(tmp_path / "old", a=("1", "1, 2"), b=("1", "1"), c=("1", "1")))
    new = load(matrix(tmp_path / "new", a=("2", "2, 3"), c=("1", "1"), d=("1", "1")))

    found = changes(old, new)

    assert [(entry.name, entry.kind) for entry in found] == [
        ("rules/a", "changed"),
        ("rules/b", "removed"),
        ("rules/d", "added"),
    ]
    assert found[0].claims == (
        ClaimChange("figures.floor", "1", "2"),
        ClaimChange("figures.known", [1, 2], [2, 3]),
    )


def test_the_same_content_is_no_change_however_it_is_laid_out(tmp_path: Path) -> None:
    old = load(matrix(tmp_path / "old", a=("1", "1")))
    folder = matrix(tmp_path / "new", a=("1", "1"))
    file = folder / "rules/a.yaml"
    file.write_text("# A comment\n" + file.read_text(encoding="utf-8").replace("[1]", "[ 1 ]"), encoding="utf-8")
    new = load(folder)

    assert changes(old, new) == ()
    assert old.digest == new.digest


def test_items_with_a_name_are_compared_by_it() -> None:
    """A new release in front does not make a change of every release behind it."""
    before = {"releases": [{"version": "1", "date": "x"}, {"version": "2", "date": "y"}]}
    after = {"releases": [{"version": "3", "date": "z"}, {"version": "1", "date": "x"}, {"version": "2", "date": "w"}]}

    assert list(_claims(before, after, "")) == [
        ClaimChange("releases[2].date", "y", "w"),
        ClaimChange("releases[3]", None, {"version": "3", "date": "z"}),
    ]


def test_items_without_a_name_are_paired_in_order() -> None:
    """Requirements of a profile have none: those that both lists hold are left out, and the others are paired."""
    before = [{"driver": "1"}, {"os": "a"}, {"cuda": "1"}]
    after = [{"os": "a"}, {"driver": "2"}, {"cuda": "1"}]

    assert list(_claims(before, after, "r")) == [ClaimChange("r[0].driver", "1", "2")]


TREES = st.recursive(
    st.none() | st.integers(0, 3) | st.sampled_from("abc"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "a", "b"]), inner, max_size=3),
    max_leaves=12,
)


@given(TREES, TREES)
def test_nothing_is_reported_of_equal_values_and_something_of_others(before: object, after: object) -> None:
    """A reordered list of unnamed mappings says nothing: it holds the same claims. All else that differs is told."""
    found = list(_claims(before, after, ""))

    assert all(claim.before != claim.after for claim in found)
    if before == after:
        assert found == []
    elif not isinstance(before, (list, dict)) or not isinstance(after, (list, dict)):
        assert found
