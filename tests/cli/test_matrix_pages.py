"""The reference pages: what is committed is what the matrix says now, and nothing of the matrix is left out."""

from __future__ import annotations

import functools
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.cli.main import main
from provisioner.matrix.entries import ROOMS
from provisioner.model.paths import data_dir

LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
PAGES = Path(__file__).resolve().parent.parent.parent / "docs/reference"


@functools.cache
def files(room: str) -> dict[str, Any]:
    """Every file of a room by its id, read with nothing of the project: all scalars are text."""
    return {
        path.stem: yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER)
        for path in sorted((data_dir("matrix") / room).glob("*.yaml"))
    }


def mappings(data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, dict):
        yield data
    for inner in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from mappings(inner)


def leaves(data: Any) -> Iterator[str]:
    if isinstance(data, dict | list):
        for inner in data.values() if isinstance(data, dict) else data:
            yield from leaves(inner)
    else:
        yield data


def sections(room: str) -> dict[str, str]:
    """The text of each entry on the page of a room, as a reader sees it: no marks, no line breaks."""
    _, *parts = re.split(r"^## ", (PAGES / f"matrix/{room}.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {part.partition("\n")[0]: seen(part) for part in parts}


def seen(markdown: str) -> str:
    return re.sub(r"\s+", "", html.unescape(re.sub(r"\\([^a-zA-Z0-9\s])", r"\1", markdown)))


def test_the_committed_pages_are_what_the_matrix_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After a change of the matrix or its schema: provision matrix reference docs/reference."""
    assert main(["matrix", "reference", str(tmp_path), "--json"]) == 0
    names = set(json.loads(capsys.readouterr().out)["files"])
    committed = {f"matrix/{path.name}" for path in (PAGES / "matrix").iterdir()} | {"matrix.md"}
    assert names == committed
    stale = [
        name for name in sorted(names) if (PAGES / name).read_text("utf-8") != (tmp_path / name).read_text("utf-8")
    ]
    assert stale == []


def test_the_pages_count_what_the_files_hold() -> None:
    """Entries, claims and sources of every room, counted from the files alone."""
    rows = re.findall(
        r"^\| `([a-z-]+)/` \| .* \| (\d+) \| (\d+) \| (\d+) \|$",
        (PAGES / "matrix/README.md").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    stated = {room: tuple(map(int, numbers)) for room, *numbers in rows}
    counted = {}
    for room in ROOMS:
        parts = [part for entry in files(room).values() for part in mappings(entry)]
        sources = {source for part in parts for source in part.get("sources", ())}
        claims = sum("confidence" in part or "because" in part for part in parts)
        counted[room] = (len(files(room)), claims, len(sources))
    assert stated == counted


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_value_of_every_file_stands_on_its_page(room: str) -> None:
    """Put otherwise: true and false, null, a severity, `*` (any version), `==580.*` (>=580,<581)."""
    otherwise = {"true", "false", "null", "~", "", "must", "warn", "*", "==580.*"}
    texts = sections(room)
    assert set(texts) == set(files(room))
    missing = [
        f"{room}/{name}: {value}"
        for name, data in files(room).items()
        for value in leaves(data)
        if value not in otherwise and seen(value.removesuffix(".0")) not in texts[name]
    ]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_link_of_a_page_leads_somewhere(room: str) -> None:
    page = (PAGES / f"matrix/{room}.md").read_text(encoding="utf-8")
    headings = {re.sub(r"[^\w-]", "", line[3:].lower()) for line in page.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"^\| \[[^]]+\]\(#([^)]+)\)", page, flags=re.MULTILINE)) == headings


def test_pages_need_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "reference", str(tmp_path / "none")]) == 3
    assert "[page-not-written]" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_every_network_has_its_row_and_its_checklist() -> None:
    """At a glance and duty by duty; a box stands before what somebody does by hand, and nowhere else."""
    table, *lists = re.split(r"^## ", (PAGES / "matrix/contracts.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    rows = {row.split("](")[0].lstrip("| [") for row in table.splitlines() if row.startswith("| [")}
    checklists = {part.partition("\n")[0]: part for part in lists}
    assert set(checklists) == rows == set(files("networks"))
    for name, data in files("networks").items():
        contract = data["contract"]
        for duty in ("drain", "resume", "deregister", "upgrade"):
            line = next(x for x in checklists[name].splitlines() if re.match(rf"- (\[ \] )?{duty}: ", x))
            assert ("[ ]" in line) == (contract[duty].get("by_hand") == "true"), (name, duty)
        assert [secret["name"] for secret in data.get("secrets", [])] == [
            secret["name"] for secret in data.get("secrets", []) if seen(secret["name"]) in seen(checklists[name])
        ]
