"""The bytes of the matrix and the cache of its parsed form; needs no schema, so that a digest costs little.

Parsing YAML costs ten times what validating does, so the parsed documents are kept as one JSON file in the user's
cache directory, named by a digest of all bytes of all files. The name changes with any byte, what is read is hashed
again and validated again, and anything odd about the file (owner, mode, content) means it is not used.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from provisioner import __version__
from provisioner.errors import BadInput
from provisioner.model.paths import FETCHED, data_dir

FILE_LIMIT = 1 << 20
TOTAL_LIMIT = 64 << 20
ROOM_NAMES = (
    "architectures",
    "conflicts",
    "container-images",
    "cuda",
    "drivers",
    "gpus",
    "networks",
    "os",
    "rules",
    "runtimes",
    "sources",
    "tunnels",
)
_OTHER_FOLDERS = {"cases", "failures"}


IN_USE = "in-use"
"""The file of FETCHED that names the release in use by its digest; without it the shipped matrix is."""


def matrix_dir() -> Path:
    """Return the folder of the matrix in use: a release that was fetched for this fleet, else the shipped one."""
    chosen = chosen_release()
    if chosen is None:
        return data_dir("matrix")
    folder = FETCHED / chosen
    if not folder.is_dir():
        raise BadInput(
            "matrix-release-gone",
            f"the matrix in use is release {chosen[:12]}, and {folder} is not there",
            hint="provision matrix update fetches it; provision matrix use shipped takes the one of the package",
        )
    return folder


def chosen_release() -> str | None:
    """The digest of the release in use; None: the shipped matrix."""
    try:
        text = (FETCHED / IN_USE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise BadInput(
            "matrix-release-gone", f"{FETCHED / IN_USE} names no release", hint="provision matrix use shipped"
        )
    return text


def refuse_altered(folder: Path, digest: str) -> None:
    """A fetched release is what its name says, or it is not used. Raises BadInput `matrix-release-altered`."""
    if folder.parent == FETCHED and folder.name != digest:
        raise BadInput(
            "matrix-release-altered",
            f"{folder} is no longer the release that was fetched: its content is {digest[:12]}",
            hint=f"remove the folder, then: provision matrix update --release {folder.name[:12]}",
        )


def digest_in_use(path: Path | None = None) -> str:
    """Return the digest of the matrix, as `Matrix.digest`; without validating when the cache has its parsed form."""
    folder = path or matrix_dir()
    cached = read_cache(bytes_digest(contents_of(folder)))
    if cached is not None:
        digest = hashlib.sha256(cached.encode()).hexdigest()
        refuse_altered(folder, digest)
        return digest
    from provisioner.matrix.reader import load

    return load(path).digest


def contents_of(folder: Path) -> dict[str, bytes]:
    """All files by their path below `folder`, sorted; what is too large is refused before it is read."""
    if not folder.is_dir():
        raise BadInput("matrix-not-found", f"there is no matrix at {folder}")
    found: dict[str, bytes] = {}
    total = 0
    for room in sorted(folder.iterdir()):
        if not room.is_dir() or room.name in _OTHER_FOLDERS or room.name.startswith("."):
            continue
        if room.name not in ROOM_NAMES:
            raise BadInput(
                "matrix-unknown-room",
                f"{room}: the matrix has no room of this name",
                hint=f"rooms are {', '.join(ROOM_NAMES)}",
            )
        for file in sorted(room.iterdir()):
            if file.name.startswith(".") or file.suffix == ".md":
                continue
            name = f"{room.name}/{file.name}"
            if file.suffix != ".yaml" or not file.is_file():
                raise BadInput("matrix-unknown-file", f"{name}:1: an entry is a file that ends in .yaml")
            size = file.stat().st_size
            total += size
            if size > FILE_LIMIT or total > TOTAL_LIMIT:
                raise BadInput(
                    "matrix-too-large",
                    f"{name}:1: {size} bytes; an entry may have {FILE_LIMIT}, the matrix {TOTAL_LIMIT}",
                )
            found[name] = file.read_bytes()
    return found


def bytes_digest(contents: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(f"provision {__version__} 2\n".encode())
    for name, text in contents.items():
        digest.update(f"{name} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


# --- the cache ----------------------------------------------------------------------------------------------------


def _cache_folder() -> Path | None:
    named = os.environ.get("PROVISION_CACHE_DIR")
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "provision"
    except RuntimeError:
        return None  # no home: then without a cache


def read_cache(key: str) -> str | None:
    """The canonical JSON that was made from exactly these bytes, or None when there is any doubt."""
    folder = _cache_folder()
    if folder is None:
        return None
    try:
        handle = os.open(folder / f"matrix-{key}.json", os.O_RDONLY | os.O_NOFOLLOW)
        with open(handle, encoding="utf-8") as stream:  # noqa: PTH123  # opened without following links
            state = os.fstat(handle)
            others_write = state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or others_write:
                return None
            head = stream.readline().rstrip("\n")
            body = stream.read()
    except (OSError, ValueError):
        return None
    return body if head == hashlib.sha256(f"{key}{body}".encode()).hexdigest() else None


def write_cache(key: str, canonical: str) -> None:
    """Leave the parsed matrix for the next start; failing to is not worth a word."""
    folder = _cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".matrix-")
        with open(handle, "w", encoding="utf-8") as stream:  # noqa: PTH123  # the handle comes from mkstemp
            stream.write(hashlib.sha256(f"{key}{canonical}".encode()).hexdigest() + "\n" + canonical)
        final = folder / f"matrix-{key}.json"
        Path(temporary).replace(final)
        for old in folder.glob("matrix-*.json"):
            if old != final and old.stat().st_mtime < final.stat().st_mtime - 30 * 86400:
                old.unlink(missing_ok=True)
    except OSError:
        return
