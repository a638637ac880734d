"""Imports go down only: each room stands on a floor, and a file never imports what stands above it or beside it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "provisioner"

FLOORS = {
    "cli": 5,
    "actions": 4,
    "adapters": 3,
    "doctor": 3,
    "resolve": 3,
    "checks": 2,
    "facts": 2,
    "matrix": 2,
    "networks": 2,
    "plan": 2,
    "probe": 2,
    "render": 2,
    "resources": 2,
    "rollout": 2,
    "tunnels": 2,
    "model": 1,
    "host": 0,
    "errors": 0,
}
# The only importers of what acts on the world.
EFFECTS = {"ansible", "ansible_runner", "asyncio", "docker", "subprocess", "testinfra", "tuf"}
ALLOWED_EFFECTS = {
    "cli/wiring.py": {"asyncio"},  # drives the adapters' coroutines for the synchronous actions
}


def _files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            found += [
                (node.lineno, f"{module}.{alias.name}" if module == "provisioner" else module) for alias in node.names
            ]
    return found


def _room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "provisioner" and len(parts) > 1 and parts[1] in FLOORS else None


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    """A file imports its own room and rooms on lower floors, nothing else of the project."""
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {room} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]})"
        for line, module in _imports(path)
        if (other := _room(module)) is not None and other != room and FLOORS[other] >= FLOORS[room]
    ]

    assert wrong == []


def test_every_room_has_a_floor() -> None:
    """A new folder must be put on a floor here before it can be imported."""
    rooms = {p.relative_to(PACKAGE).parts[0] for p in _files() if len(p.relative_to(PACKAGE).parts) > 1}

    assert rooms - {"data"} <= set(FLOORS)


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_effects_stand_at_the_edge(path: Path) -> None:
    """Only adapters import what acts on the world; what runs on the host is text to us."""
    name = str(path.relative_to(PACKAGE))
    if name.startswith(("adapters/", "host/", "tunnels/programs/")) or name in (
        "probe/script.py",
        "probe/initramfs_modules.py",
        "render/keep.py",
        "render/keep_rpm.py",
    ):
        return
    acting = {module.split(".")[0] for _, module in _imports(path)} & EFFECTS

    assert acting <= ALLOWED_EFFECTS.get(name, set())


def test_checks_share_nothing_with_what_they_judge() -> None:
    """Verification is a second opinion: no import of facts, resources, plan, resolve or render."""
    judged = {"facts", "resources", "plan", "resolve", "render", "probe"}
    shared = [
        f"{path.name}:{line}: {module}"
        for path in (PACKAGE / "checks").rglob("*.py")
        for line, module in _imports(path)
        if _room(module) in judged
    ]

    assert shared == []


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_first_line_says_the_purpose(path: Path) -> None:
    """Every file opens with a docstring."""
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_names_of_test_files_are_unique() -> None:
    """pytest imports them by their last name alone: of two alike it refuses one, and only when both are collected."""
    names = [path.name for path in Path(__file__).resolve().parent.rglob("test_*.py")]

    assert {name for name in names if names.count(name) > 1} == set()
