"""Markdown of the matrix's schema: docs/reference/matrix.md is this text, and a test keeps it so."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from provisioner.matrix import entries, specifier
from provisioner.matrix.entries import ROOMS

_HEAD = """\
# The files of the matrix

Written by `provision matrix reference` from the classes that validate the files; don't edit it by hand. What the files
say, entry by entry: [what the matrix knows](matrix/README.md).

One entry is one file, `matrix/ROOM/ID.yaml`. A field without *may be left out* must be there. What a nested claim
leaves open (`sources`, `seen`, `confidence`) it takes from its entry. Requirements have a
[language of their own](requirement-language.md).
"""


def reference_text() -> str:
    """The whole page: a section for each room, then one for each part that rooms share."""
    texts = _texts(entries) | _texts(specifier)
    schemas: dict[str, Mapping[str, Any]] = {}
    for model in ROOMS.values():
        whole = model.model_json_schema(by_alias=True)
        schemas.setdefault(model.__name__, whole)
        for name, part in whole.get("$defs", {}).items():
            schemas.setdefault(name, part)
    rooms = {model.__name__: room for room, model in ROOMS.items()}
    parts = sorted(name for name in schemas if name not in rooms and name not in ("Requirement", "JsonValue"))
    lines = [_HEAD]
    for name, room in rooms.items():
        lines += _section(f"{room}/", name, schemas[name], texts)
    for name in parts:
        lines += _section(name, name, schemas[name], texts)
    return "\n".join(lines).rstrip() + "\n"


def _section(title: str, name: str, schema: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{texts.get(name, '')}\n"
    yield "| Field | Value | |"
    yield "| --- | --- | --- |"
    required = set(schema.get("required", ()))
    for field, part in schema.get("properties", {}).items():
        text = texts.get(f"{name}.{field}") or texts.get(f"Claim.{field}") or texts.get(f"Entry.{field}") or ""
        optional = "" if field in required else "may be left out" + (". " if text else "")
        yield f"| `{field}` | {_type(part)} | {optional}{text} |"
    yield ""


def _type(part: Mapping[str, Any]) -> str:
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        own = {"JsonValue": "anything", "Requirement": "[Requirement](requirement-language.md)"}
        return own.get(name, f"[{name}](#{name.lower()})")
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(_type(option) for option in part["anyOf"]))
    if "enum" in part:
        return ", ".join(f"`{word}`" for word in part["enum"])
    if "const" in part:
        return f"`{part['const']}`"
    if part.get("type") == "array":
        return f"list of {_type(part.get('items', {}))}"
    if part.get("type") == "object":
        return f"mapping to {_type(part.get('additionalProperties') or {})}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    return "null" if part.get("type") == "null" else words.get(str(part.get("type")), "anything")


def _texts(module: ModuleType) -> dict[str, str]:
    """Docstrings of classes and the strings below their fields, by `Class` and `Class.field` (as written in YAML)."""
    found: dict[str, str] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        found[node.name] = _one_line(ast.get_docstring(node) or "")
        for field, text in itertools.pairwise(node.body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                name = field.target.id.rstrip("_")
                found[f"{node.name}.{name}"] = _one_line(str(text.value.value))
    return found


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")
