"""`provision matrix`: what it prints, and with which code it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioner.cli.main import main
from provisioner.matrix.entries import ROOMS


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["matrix", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_list_shows_one_line_per_entry(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list", "os")
    assert code == 0
    assert out.startswith("os  15\n")
    assert "  debian-12           Debian 12 · long-term support only · until 2028-06-30" in out
    assert out.rstrip().endswith("Look closer: provision matrix show os/debian-11")


def test_list_as_json_has_every_room(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "list", "--json")
    listed = json.loads(out)
    assert (code, listed["format"], set(listed["rooms"])) == (0, 1, set(ROOMS))
    assert len(listed["digest"]) == 64


@pytest.mark.parametrize("word", ["lium", "networks/lium"])
def test_show_marks_what_is_needed_and_what_is_only_wanted(capsys: pytest.CaptureFixture[str], word: str) -> None:
    code, out, _ = run(capsys, "show", word)
    assert code == 0
    assert "  needs  driver         one of 535.54.03" in out
    assert "(high, list of 2026-07-24)" in " ".join(out.split())
    assert "  wants  os             ubuntu>=22.04" in out


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_every_entry_can_be_shown(capsys: pytest.CaptureFixture[str], room: str) -> None:
    _, out, _ = run(capsys, "list", room, "--json")
    for entry in json.loads(out)["rooms"][room]:
        code, text, _ = run(capsys, "show", f"{room}/{entry['id']}")
        assert code == 0
        assert text.startswith(f"{entry['title']}  ({room}/{entry['id']})")
        assert max(len(line) for line in text.splitlines() if "http" not in line and "github:" not in line) < 200


def test_show_as_json_is_the_entry(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "show", "drivers/535", "--json")
    shown = json.loads(out)
    assert (code, shown["room"], shown["entry"]["native_cuda"]) == (0, "drivers", "12.2")


@pytest.mark.parametrize(
    ("words", "reference", "hint"),
    [
        (("show", "rtx-409"), "matrix-unknown-id", "gpus/rtx-4090"),
        (("show", "nets/lium"), "matrix-unknown-room", "Rooms: drivers"),
        (("list", "cards"), "matrix-unknown-room", "Rooms: drivers"),
        (("show", "containerd/"), "matrix-unknown-room", "Rooms: drivers"),
    ],
)
def test_a_wrong_word_gets_a_hint(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], reference: str, hint: str
) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (3, "")
    assert reference in err
    assert hint in err


def test_lint_of_the_shipped_matrix_finds_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "lint")
    assert code == 0
    assert out.splitlines()[-1].startswith("0 errors, ")


def test_lint_of_a_broken_matrix_names_file_line_and_field(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/a.yaml").write_text("id: a\ntitle: A\n")
    code, out, _ = run(capsys, "lint", "--matrix", str(tmp_path), "--json")
    findings = json.loads(out)["findings"]
    assert code == 1
    assert {
        "level": "error",
        "file": "rules/a.yaml",
        "line": 1,
        "field": "about",
        "message": "this field is missing",
    } in (findings)


def test_the_schema_is_json_schema_of_every_room(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "schema")
    schema = json.loads(out)
    assert (code, set(schema["properties"])) == (0, set(ROOMS))
    for reference in schema["properties"].values():
        assert reference["$ref"].removeprefix("#/$defs/") in schema["$defs"]
    _, one, _ = run(capsys, "schema", "networks")
    item = json.loads(one)["$defs"]["Requirement"]
    assert "gpu.memory_gib" in item["properties"]
    assert item["additionalProperties"] is False


NETWORK = """\
# A network.
id: a
title: A
name: A
kind: docker-worker
as_of: "2026-11-24"
profiles:
  - id: one
    title: One
    requirements:
      - {wish}
        because: it says so
sources: [https://example.org]
seen: "2026-11-24"
confidence: high
"""


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"a": NETWORK.format(wish="colour: red")},
            "networks/a.yaml:11: profiles.0.requirements.0.colour: this key is",
        ),
        (
            {"a": NETWORK.format(wish="brand: [geforce]")},
            "networks/a.yaml:11: profiles.0.requirements.0.brand: this key is not known here",
        ),
        ({"a": NETWORK.format(wish='ram_gib: ">=64GB"')}, "networks/a.yaml:11: profiles.0.requirements.0.ram_gib: "),
        (
            {"a": NETWORK.format(wish='driver: ">=580,<570"')},
            "networks/a.yaml:11: profiles.0.requirements.0: driver: no",
        ),
        ({n: NETWORK.format(wish='driver: ">=570"') for n in "ab"}, "networks/b.yaml:2: id: 'a' is also the id of"),
        ({"a": "a: &a [x]\nb: [*a, *a]\n"}, "networks/a.yaml:1: anchors and aliases are not read"),
        ({"a": 100 << 20}, "networks/a.yaml:1: 104857600 bytes; an entry may have"),
        (
            {
                n: NETWORK.format(wish='driver: ">=570"').replace("id: a", f"id: {n}\nparent: {p}")
                for n, p in ("ab", "ba")
            },
            "networks/a.yaml:3: parent: a cycle: a → b → a",
        ),
        ({"a": NETWORK.format(wish='driver: ">=570"').replace("id: a", "id: a\nparent: a")}, "parent: a cycle: a → a"),
    ],
    ids=[
        "unknown key",
        "key without its dot",
        "wrong unit",
        "can never hold",
        "two of one id",
        "YAML bomb",
        "100 MB",
        "cycle",
        "own parent",
    ],
)
def test_a_bad_matrix_is_one_line_with_its_place_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    files: dict[str, str | int],
    said: str,
) -> None:
    monkeypatch.setenv("PROVISION_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "matrix/networks"
    folder.mkdir(parents=True)
    for name, content in files.items():
        with (folder / f"{name}.yaml").open("wb") as stream:
            if isinstance(content, int):
                stream.truncate(content)  # sparse: takes no room
            else:
                stream.write(content.encode())

    code, out, err = run(capsys, "list", "--matrix", str(tmp_path / "matrix"))

    assert (code, out) == (3, "")
    assert said in err.splitlines()[0]
    assert not (tmp_path / "cache").exists()
