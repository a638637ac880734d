"""A release of the matrix as one file: JSON with every entry's text, so that unpacking can write nothing else.

A bundle is data that came over a network: paths are held against the rooms, sizes against the limits, and what it is
taken to be is the digest of its content, not its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from provisioner.errors import BadInput
from provisioner.matrix.files import FILE_LIMIT, ROOM_NAMES, TOTAL_LIMIT

FORMAT = 1
RELEASE = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,39}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(rf"({'|'.join(ROOM_NAMES)})/[0-9A-Za-z][0-9A-Za-z._+-]*\.yaml")


@dataclass(frozen=True)
class Release:
    """One line of a source's index: its name (`2026.11.25`), the digest of the matrix, the file that holds it."""

    name: str
    digest: str
    file: str


def bundle_of(release: str, contents: Mapping[str, bytes]) -> bytes:
    """Return the bytes of a bundle; the same contents give the same bytes."""
    files = {name: contents[name].decode("utf-8") for name in sorted(contents)}
    value = {"format": FORMAT, "release": release, "files": files}
    return (json.dumps(value, ensure_ascii=False, indent=0) + "\n").encode()


def read_bundle(data: bytes, where: str) -> dict[str, bytes]:
    """Return path → text of a bundle. Raises BadInput `matrix-bad-bundle` for anything that is not one."""
    value = _json(data, where)
    files = value.get("files")
    if not isinstance(files, dict) or not files or value.keys() != {"format", "release", "files"}:
        raise _bad(where, "it does not hold files alone")
    found = {}
    for name, text in files.items():
        if not _PATH.fullmatch(name) or not isinstance(text, str):
            raise _bad(where, f"{name!r} is no entry of the matrix")
        found[name] = text.encode()
        if len(found[name]) > FILE_LIMIT:
            raise _bad(where, f"{name} has {len(found[name])} bytes; an entry may have {FILE_LIMIT}")
    if sum(map(len, found.values())) > TOTAL_LIMIT:
        raise _bad(where, f"it holds more than {TOTAL_LIMIT} bytes")
    return found


def index_of(releases: tuple[Release, ...]) -> bytes:
    """Return the index of a source, oldest release first."""
    listed = [{"release": one.name, "digest": one.digest, "file": one.file} for one in releases]
    return (json.dumps({"format": FORMAT, "releases": listed}, indent=1) + "\n").encode()


def read_index(data: bytes, where: str) -> tuple[Release, ...]:
    """Return the releases of an index, oldest first. Raises BadInput `matrix-bad-bundle`."""
    listed = _json(data, where).get("releases")
    if not isinstance(listed, list) or not listed:
        raise _bad(where, "it lists no release")
    return tuple(_release(item, where) for item in listed)


def _release(item: object, where: str) -> Release:
    if not isinstance(item, dict) or item.keys() != {"release", "digest", "file"}:
        raise _bad(where, "a release has a name, a digest and a file")
    name, digest, file = (str(item[key]) for key in ("release", "digest", "file"))
    if (
        not RELEASE.fullmatch(name)
        or not _DIGEST.fullmatch(digest)
        or not RELEASE.fullmatch(file.removesuffix(".json"))
    ):
        raise _bad(where, f"the release {name!r} cannot be read")
    return Release(name, digest, file)


def _json(data: bytes, where: str) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as problem:
        raise _bad(where, "it is not JSON") from problem
    if not isinstance(value, dict):
        raise _bad(where, "it is not a mapping")
    if value.get("format") != FORMAT:
        raise _bad(where, f"its format is {value.get('format')!r}; this version reads {FORMAT}")
    return value


def _bad(where: str, why: str) -> BadInput:
    return BadInput("matrix-bad-bundle", f"{where} is no release of the matrix: {why}")
