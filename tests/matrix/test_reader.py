"""Reading: an error names file, line and field; a bomb is refused; a cache is fast and never stale."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioner.errors import BadInput, Exit
from provisioner.matrix import reader
from provisioner.matrix.reader import load, parse

RULE = """\
# A rule.
id: {id}
title: A title
about: drivers
statement: A statement.
sources: [https://example.org/a]
seen: "2026-11-24"
confidence: high
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROVISION_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def folder(tmp_path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tmp_path / "matrix" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "matrix"


def refused(tmp_path: Path, files: dict[str, str]) -> BadInput:
    with pytest.raises(BadInput) as caught:
        load(folder(tmp_path, files))
    assert caught.value.exit_code is Exit.BAD_INPUT
    return caught.value


def test_a_sound_entry_is_read(tmp_path: Path) -> None:
    matrix = load(folder(tmp_path, {"rules/a.yaml": RULE.format(id="a")}))
    assert matrix.rules["a"].statement == "A statement."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("statement: A", "statment: A"), "rules/a.yaml:2: statement: this field is missing"),
        (("confidence: high", "confidence: high\ncolour: red"), "rules/a.yaml:9: colour: this key is not known here"),
        (("confidence: high", "confidence: sure"), "rules/a.yaml:8: confidence: Input should be 'high'"),
        (("title: A title", "title: 7"), "rules/a.yaml:3: title: Input should be a valid string"),
        (('seen: "2026-11-24"', "seen: yesterday"), "rules/a.yaml:7: seen: String should match"),
        (("id: a", "id: b"), "rules/a.yaml:2: id: 'b' must be the name of the file"),
        (("about: drivers", "about: drivers\nabout: cuda"), "rules/a.yaml:5: 'about' stands here twice"),
        (("sources: [", "sources: &s ["), "rules/a.yaml:6: anchors and aliases are not read"),
        (("title: A title", "title: !!python/name:os.system"), "rules/a.yaml:3: the tag"),
        (("title: A title", "title: 'A"), "rules/a.yaml:3: not YAML"),
        (("# A rule.", "- a\n---\n- b"), "rules/a.yaml"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_field(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = RULE.format(id="a").replace(*change)
    problem = refused(tmp_path, {"rules/a.yaml": text})
    assert message in "\n".join([problem.message, *problem.context])


def test_two_entries_of_one_id_name_both_files(tmp_path: Path) -> None:
    text = RULE.format(id="a")
    assert refused(tmp_path, {"rules/a.yaml": text, "rules/b.yaml": text}).message == (
        "rules/b.yaml:2: id: 'a' is also the id of rules/a.yaml"
    )


def test_a_yaml_bomb_is_refused_at_its_first_anchor(tmp_path: Path) -> None:
    levels = [f"{c}: &{c} [*{p},*{p},*{p}]" for p, c in zip("abcdefgh", "bcdefghi", strict=True)]
    bomb = "\n".join(['a: &a ["x","x"]', *levels])
    assert refused(tmp_path, {"rules/a.yaml": bomb}).reference == "matrix-yaml-alias"


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    assert "nested deeper" in refused(tmp_path, {"rules/a.yaml": "a: " + "[" * 40 + "]" * 40}).message
    assert "nesting depth" in refused(tmp_path, {"rules/a.yaml": "a: " + "[" * 5000 + "]" * 5000}).message


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    where = folder(tmp_path, {"rules/a.yaml": ""})
    with (where / "rules/a.yaml").open("wb") as stream:
        stream.truncate(100 << 20)  # sparse: takes no room
    with pytest.raises(BadInput, match=r"rules/a\.yaml:1: 104857600 bytes"):
        load(where)


def test_not_utf8_and_stray_files_are_refused(tmp_path: Path) -> None:
    where = folder(tmp_path, {"rules/a.yaml": RULE.format(id="a")})
    (where / "rules/a.yaml").write_bytes(b"id: a\ntitle: \xff\n")
    with pytest.raises(BadInput, match=r"rules/a\.yaml:2: this is not UTF-8"):
        load(where)
    with pytest.raises(BadInput, match=r"rules/b\.yml:1"):
        load(folder(tmp_path / "two", {"rules/b.yml": "a: b"}))
    with pytest.raises(BadInput, match="no room of this name"):
        load(folder(tmp_path / "three", {"rulez/a.yaml": "a: b"}))
    with pytest.raises(BadInput, match="there is no matrix at"):
        load(tmp_path / "nowhere")


def test_nothing_is_written_when_the_matrix_is_broken(tmp_path: Path, cache: Path) -> None:
    refused(tmp_path, {"rules/a.yaml": "id: a"})
    assert not cache.exists()


def test_a_second_start_parses_no_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = folder(tmp_path, {"rules/a.yaml": RULE.format(id="a")})
    first = load(where)

    def forbidden(name: str, text: bytes) -> reader.Document:
        raise AssertionError(f"{name} was parsed again")

    monkeypatch.setattr(reader, "parse", forbidden)
    second = load(where)
    assert (second.rules, second.digest) == (first.rules, first.digest)


def test_one_changed_byte_is_seen(tmp_path: Path) -> None:
    where = folder(tmp_path, {"rules/a.yaml": RULE.format(id="a")})
    before = load(where)
    (where / "rules/a.yaml").write_text(RULE.format(id="a").replace("A statement", "B statement"))
    after = load(where)
    assert after.rules["a"].statement == "B statement."
    assert after.digest != before.digest


def test_a_comment_does_not_change_the_digest(tmp_path: Path) -> None:
    where = folder(tmp_path, {"rules/a.yaml": RULE.format(id="a")})
    before = load(where)
    (where / "rules/a.yaml").write_text("# Another comment.\n" + RULE.format(id="a"))
    assert load(where).digest == before.digest


@pytest.mark.parametrize("spoil", ["content", "mode", "link", "folder"])
def test_a_cache_that_is_not_ours_alone_is_ignored(tmp_path: Path, cache: Path, spoil: str) -> None:
    where = folder(tmp_path, {"rules/a.yaml": RULE.format(id="a")})
    load(where)
    (file,) = cache.glob("matrix-*.json")
    if spoil == "content":
        file.write_text(file.read_text().replace("A statement", "A lie"))
    elif spoil == "mode":
        file.write_text(file.read_text())
        file.chmod(0o666)
    elif spoil == "link":
        other = tmp_path / "elsewhere.json"
        file.replace(other)
        file.symlink_to(other)
    else:
        file.unlink()
        file.mkdir()
    assert load(where).rules["a"].statement == "A statement."


def test_on_and_no_are_words_and_days_are_text() -> None:
    assert parse("x", b"a: on\nb: no\nc: 2026-11-24\nd: 1.10\ne: true\nf: ~\ng: '7'\nh: -3\n").data == {
        "a": "on",
        "b": "no",
        "c": "2026-11-24",
        "d": 1.10,
        "e": True,
        "f": None,
        "g": "7",
        "h": -3,
    }
