"""`provision.lock`: JSON meant for git. The same hosts give the same bytes; one package or reason is one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from provisioner import __version__
from provisioner.errors import BadInput
from provisioner.model.enrolment import lock_digest
from provisioner.model.stack import HostLock, Lock
from provisioner.tunnels.lock import all_tunnels

__all__ = ["check_matrix", "lock_digest", "lock_text", "make_lock", "parse_lock", "read_lock"]

LARGEST = 256 << 20
"""Bytes; an entry takes about 10 kB, so this is a fleet of 25,000 hosts."""


def make_lock(hosts: Mapping[str, HostLock], matrix_digest: str, before: Lock | None = None) -> Lock:
    """Return a lock of `hosts`; entries of `before` for other hosts stay when they were made with this matrix.

    The tunnels of hosts whose entries do not stay are parked: who is joined is no matter of the matrix.
    """
    kept = before.hosts if before is not None and before.matrix == matrix_digest else {}
    together = {**kept, **hosts}
    parked = {name: one for name, one in all_tunnels(before).items() if name not in together}
    return Lock(
        made_by=__version__,
        matrix=matrix_digest,
        hosts={name: together[name] for name in sorted(together)},
        tunnels={name: parked[name] for name in sorted(parked)},
    )


def lock_text(lock: Lock) -> str:
    """The lock as it is written; what is at its default is left out, so that a diff shows only what was decided."""
    return _written(lock.model_dump(mode="json", exclude_defaults=True) | {"format": lock.format}, "") + "\n"


def _written(value: Any, indent: str) -> str:
    """Mappings one key a line; a mapping that holds no other mapping fits on one line, as a package does."""
    if isinstance(value, dict) and not _is_flat(value):
        inner = indent + "  "
        lines = [f"{inner}{_line(key)}: {_written(item, inner)}" for key, item in _ordered(value)]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict) or len(str(item)) > 60 for item in value):
        inner = indent + "  "
        return "[\n" + ",\n".join(inner + _written(item, inner) for item in value) + f"\n{indent}]"
    return _line(value)


def _is_flat(value: Mapping[str, Any]) -> bool:
    return not any(
        isinstance(item, dict) or (isinstance(item, list) and any(isinstance(i, dict) for i in item))
        for item in value.values()
    )


def _ordered(value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The head of the file first, then as the model has it (a package reads name, version, hash)."""
    return sorted(value.items(), key=lambda pair: pair[0] != "format")


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def read_lock(path: Path) -> Lock:
    """Read the lock file. Raises BadInput that names file and key."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise BadInput("lock-too-large", f"{path} has {size} bytes; a lock may have {LARGEST}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as problem:
        raise BadInput(
            "lock-not-found", f"there is no lock at {path}", hint="provision resolve writes it; it belongs in git"
        ) from problem
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput("lock-not-readable", f"{path} cannot be read: {problem}") from problem
    return parse_lock(text, str(path))


def parse_lock(text: str, where: str) -> Lock:
    """Read a lock strictly: an unknown, missing or doubled key is an error, never a guess."""
    again = f"take the last good one from git, or move {where} away and let provision resolve make it anew"
    try:
        data = json.loads(text, object_pairs_hook=_without_doubles)
    except _DoubledKey as problem:
        raise BadInput("lock-not-valid", f"{where}: the key {problem} stands twice", hint=again) from problem
    except (json.JSONDecodeError, RecursionError) as problem:
        line = f":{problem.lineno}" if isinstance(problem, json.JSONDecodeError) else ""
        raise BadInput("lock-not-valid", f"{where}{line}: not the JSON of a lock", hint=again) from problem
    try:
        return Lock.model_validate(data)
    except ValidationError as problem:
        complaints = [_worded(where, error) for error in problem.errors(include_url=False)]
        raise BadInput("lock-not-valid", complaints[0], context=complaints[1:6], hint=again) from problem


class _DoubledKey(ValueError):
    """A key that stands twice in one mapping: which of the two was meant cannot be known."""


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DoubledKey(key)
        found[key] = value
    return found


def _worded(where: str, error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    why = {"extra_forbidden": "this key is not known", "missing": "this key is missing"}.get(
        error["type"], str(error["msg"])
    )
    return f"{where}: {key}: {why}"


def check_matrix(lock: Lock, digest: str, where: str) -> None:
    """Refuse a lock that was made with another matrix: its reasons may no longer hold."""
    if lock.matrix != digest:
        raise BadInput(
            "lock-other-matrix",
            f"{where} was made with another matrix than the one in use",
            context=[f"the lock says {lock.matrix[:12]}, the matrix in use is {digest[:12]}"],
            hint=f"provision resolve -o {where} resolves with this matrix; git diff then shows what it changes",
        )
