"""What the documents tell people to type exists: every `provision …` line parses, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from provisioner.cli.main import COMMANDS, parser
from provisioner.model.intent import Intent

ROOT = Path(__file__).resolve().parents[2]
# The changelog tells of what was; pages of failures and of the matrix quote other people's words.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """Lines of fenced blocks, and inline code; true: in a block, where it is to be typed as it stands."""
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for block in fenced:
        for line in block.replace("\\\n", " ").splitlines():
            yield line.strip().removeprefix("$ ").removeprefix("sudo "), True
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from ((code, False) for code in re.findall(r"`([^`\n]+)`", rest))


def words_of(line: str) -> list[str] | None:
    """None: no command line of ours, or a form with brackets that stands for several."""
    bare = re.sub(r"\s{2,}#.*|\s#\s.*|\s{2,}\(.*", "", line).partition(" | ")[0].partition(" && ")[0].rstrip()
    if not re.match(r"provision [a-z]", bare) or re.search(r"[…\[\]|<>]|\.\.\.", bare):
        return None
    words = shlex.split(bare)
    return words[1:] if len(words) > 1 and words[1] in COMMANDS else None


def typed() -> Iterator[tuple[str, str, list[str], bool]]:
    for page in PAGES:
        for line, whole in commands(page.read_text(encoding="utf-8")):
            words = words_of(line)
            if words is not None:
                yield str(page.relative_to(ROOT)), line, words, whole


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_what_is_to_be_typed_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In running text a command may stand without what it takes: `provision matrix` speaks of all its parts."""
    wrong = []
    for page, line, words, whole in typed():
        if words[0] != command:
            continue
        try:
            parser(command).parse_args(words)
        except SystemExit as stop:
            said = capsys.readouterr().err.strip()
            if stop.code and (whole or "arguments are required" not in said):
                wrong.append(f"{page}: {line}: {said.splitlines()[-3]}")
    assert wrong == []


def test_there_is_something_to_check() -> None:
    """A change of the pages' form must not empty the test."""
    assert len(list(typed())) > 250
    pages = {page for page, *_ in typed()}
    for network in ("akash", "io-net", "render", "bittensor"):
        assert f"docs/networks/{network}.md" in pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Files and the headings in them; what is elsewhere in the world is not asked for."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def anchors(page: Path) -> set[str]:
    """As GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}


def intents() -> Iterator[tuple[str, dict[str, Any]]]:
    for page in PAGES:
        for block in re.findall(r"^```ya?ml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            if re.search(r"…|DIGEST", block):
                continue  # a form to be filled in
            found = yaml.safe_load(block)
            if isinstance(found, dict) and found and all(str(key).startswith("provision_") for key in found):
                yield str(page.relative_to(ROOT)), {key.removeprefix("provision_"): found[key] for key in found}


def test_intents_are_intents() -> None:
    """What stands in a block of variables is taken; an example may leave out what another one beside it has."""
    told = []
    for page, value in intents():
        try:
            Intent.model_validate(value)
        except ValidationError as problem:
            told += [f"{page}: {one['loc']}: {one['msg']}" for one in problem.errors()]
    assert told == []
    assert len(list(intents())) > 8
