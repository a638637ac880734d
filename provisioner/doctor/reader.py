"""Reads `matrix/failures/`: one YAML file per mechanism, checked against the schema, kept in the matrix's cache."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from provisioner.doctor.mechanism import Mechanism
from provisioner.errors import BadInput
from provisioner.matrix.files import FILE_LIMIT, bytes_digest, read_cache, write_cache
from provisioner.matrix.reader import Document, parse
from provisioner.model.paths import data_dir

ROOM = "failures"
_ALL: TypeAdapter[dict[str, Mechanism]] = TypeAdapter(dict[str, Mechanism])


def load(matrix: Path | None = None) -> dict[str, Mechanism]:
    """Every mechanism by id. Raises BadInput that names file, line and field of what the schema refuses."""
    contents = contents_of(matrix or data_dir("matrix"))
    key = bytes_digest(contents)
    cached = read_cache(key)
    if cached is not None:
        try:
            return dict(_validated(cached))
        except ValidationError:
            pass  # written by a version with another schema
    documents = [parse(name, text) for name, text in contents.items()]
    complaints = [line for document in documents for line in problems(document)]
    if complaints:
        raise BadInput(
            "matrix-bad-entry",
            complaints[0],
            context=complaints[1:20],
            hint="provision matrix lint lists every complaint",
        )
    canonical = json.dumps({document.data["id"]: document.data for document in documents}, ensure_ascii=False)
    found = dict(_validated(canonical))
    write_cache(key, canonical)
    return found


@functools.lru_cache(maxsize=2)
def _validated(canonical: str) -> Mapping[str, Mechanism]:
    """The mechanisms of one text; they are frozen, so that each text needs to be read once."""
    return _ALL.validate_json(canonical)


def contents_of(matrix: Path) -> dict[str, bytes]:
    """Bytes of the room's files by their path below the matrix, sorted."""
    folder = matrix / ROOM
    if not folder.is_dir():
        return {}
    found = {}
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.suffix == ".md":
            continue
        name = f"{ROOM}/{file.name}"
        if file.suffix != ".yaml" or not file.is_file():
            raise BadInput("matrix-unknown-file", f"{name}:1: an entry is a file that ends in .yaml")
        if file.stat().st_size > FILE_LIMIT:
            raise BadInput("matrix-too-large", f"{name}:1: larger than {FILE_LIMIT} bytes")
        found[name] = file.read_bytes()
    return found


def problems(document: Document) -> list[str]:
    """What the schema has against one document, each as `file:line: field: why`."""
    if not isinstance(document.data, dict):
        return [f"{document.path}:1: an entry is a mapping that begins with its id"]
    try:
        entry = Mechanism.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        return [_worded(document, item) for item in error.errors(include_url=False)]
    if f"{ROOM}/{entry.id}.yaml" != document.path:
        return [f"{document.path}:{document.line(('id',))}: id: '{entry.id}' must be the name of the file"]
    return []


def _worded(document: Document, error: Any) -> str:
    where = tuple(error["loc"])
    name = ".".join(str(part) for part in where) or "entry"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "this key is not known here"
    elif error["type"] == "missing":
        message = "this field is missing"
    return f"{document.path}:{document.line(where)}: {name}: {message}"
