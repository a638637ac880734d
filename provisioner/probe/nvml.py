"""Cuts pynvml down to what the probe calls: all of it takes a host longer to compile than everything else takes to run.

Theory: a module is a list of top-level statements, each of which binds names and uses names. Starting from the names
that the calls use, every statement that binds a needed name is kept, and what it uses is needed too. Statements that
bind nothing (a call at top level) are kept. Text is cut by lines, so what travels is NVIDIA's own wording.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator

_ALWAYS = ("NVMLError", "NVML_SUCCESS")


def roots_of(calls: str) -> frozenset[str]:
    """`nvml.nvmlInit()` needs `nvmlInit`."""
    return frozenset(re.findall(r"\bnvml\.([A-Za-z_]\w*)", calls))


def digest(source: str, roots: frozenset[str]) -> str:
    """Names a shaken module: the same source and roots always give the same text."""
    return hashlib.sha256("\n".join((source, *sorted(roots))).encode()).hexdigest()[:24]


def shake(source: str, roots: frozenset[str]) -> str:
    """Return `source` without the top-level statements that `roots` do not reach."""
    statements = ast.parse(source).body
    binders: dict[str, list[int]] = {}
    needed: list[str] = [*roots, *_ALWAYS]
    kept: set[int] = set()
    for number, statement in enumerate(statements):
        for name in _binds(statement):
            binders.setdefault(name, []).append(number)
            if name.startswith("NVML_ERROR_"):  # looked up by prefix at run time, which no static reading sees
                needed.append(name)
        if _is_star_import(statement):
            kept.add(number)
        elif isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Constant):
            kept.add(number)
            needed += _uses(statement)
    seen: set[str] = set()
    while needed:
        name = needed.pop()
        if name in seen:
            continue
        seen.add(name)
        for number in binders.get(name, ()):
            if number not in kept:
                kept.add(number)
                needed += _uses(statements[number])
    lines = source.splitlines()
    return "\n".join("\n".join(_text(lines, statements[number])) for number in sorted(kept)) + "\n"


def _is_star_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names)


def _binds(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, (ast.Import, ast.ImportFrom)):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
    else:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                yield node.name


def _uses(statement: ast.stmt) -> list[str]:
    used = []
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            used.append(node.id)
        elif isinstance(node, ast.Global):
            used += node.names
    return used


def _text(lines: list[str], statement: ast.stmt) -> list[str]:
    decorators = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(decorator.lineno for decorator in decorators)])
    return lines[first - 1 : statement.end_lineno]
