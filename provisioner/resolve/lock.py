"""`provision.lock`: JSON meant for git. The same hosts give the same bytes; one package or reason is one line.

Hosts of one kind have one entry: it stands at the first of them, by name, and the others say `{"same_as": "rig-01"}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from provisioner import __version__
from provisioner.errors import BadInput
from provisioner.model.enrolment import lock_digest
from provisioner.model.stack import SAME, HostLock, Lock
from provisioner.tunnels.lock import all_tunnels

__all__ = ["check_matrix", "lock_digest", "lock_text", "make_lock", "parse_lock", "read_lock"]

LARGEST = 256 << 20
"""Bytes; an entry takes about 10 kB, so this is a fleet of 25,000 kinds of hosts, with any number of each."""


def make_lock(hosts: Mapping[str, HostLock], matrix_digest: str, before: Lock | None = None) -> Lock:
    """Return a lock of `hosts`. Entries of `before` for other hosts stay, marked when another matrix made them.

    A host without an entry stays joined: its tunnel is parked.
    """
    kept = {name: entry for name, entry in before.hosts.items() if name not in hosts} if before is not None else {}
    made_with = {name: before.matrix_of(name) for name in kept} if before is not None else {}
    together = {**kept, **hosts}
    parked = {name: one for name, one in all_tunnels(before).items() if name not in together}
    return Lock(
        made_by=__version__,
        matrix=matrix_digest,
        older={name: made_with[name] for name in sorted(kept) if made_with[name] != matrix_digest},
        hosts={name: together[name] for name in sorted(together)},
        tunnels={name: parked[name] for name in sorted(parked)},
    )


def lock_text(lock: Lock) -> str:
    """The lock as it is written; what is at its default is left out, so that a diff shows only what was decided."""
    parts = {key: _line(getattr(lock, key)) for key in ("format", "made_by", "matrix")}
    if lock.older:
        parts["older"] = _on_lines({name: _line(matrix) for name, matrix in lock.older.items()}, "  ")
    parts["hosts"] = _on_lines(dict(_entries(lock.hosts)), "  ") if lock.hosts else "{}"
    if lock.tunnels:
        kept = {name: one.model_dump(mode="json", exclude_defaults=True) for name, one in lock.tunnels.items()}
        parts["tunnels"] = _on_lines({name: _written(one, "    ") for name, one in kept.items()}, "  ")
    return _on_lines(parts, "") + "\n"


def _on_lines(texts: Mapping[str, str], indent: str) -> str:
    """A mapping of keys to texts that are JSON already, one key a line."""
    lines = [f"{indent}  {_line(key)}: {text}" for key, text in texts.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def _entries(hosts: Mapping[str, HostLock]) -> Iterator[tuple[str, str]]:
    """Each host with the text of its entry, or with the first host that has the same one."""
    texts: dict[int, str] = {}  # by identity: hosts that were solved or read together share the value
    first: dict[str, str] = {}
    for name, entry in hosts.items():
        text = texts.get(id(entry))
        if text is None:
            text = texts[id(entry)] = _written(entry.model_dump(mode="json", exclude_defaults=True), "    ")
        owner = first.setdefault(text, name)
        yield name, text if owner == name else _line({SAME: owner})


def _written(value: Any, indent: str) -> str:
    """Mappings one key a line; a mapping that holds no other mapping fits on one line, as a package does."""
    if isinstance(value, dict) and not _is_flat(value):
        return _on_lines({key: _written(item, indent + "  ") for key, item in value.items()}, indent)
    if isinstance(value, list) and any(isinstance(item, dict) or len(str(item)) > 60 for item in value):
        inner = indent + "  "
        return "[\n" + ",\n".join(inner + _written(item, inner) for item in value) + f"\n{indent}]"
    return _line(value)


def _is_flat(value: Mapping[str, Any]) -> bool:
    return not any(
        isinstance(item, dict) or (isinstance(item, list) and any(isinstance(i, dict) for i in item))
        for item in value.values()
    )


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
    shared = _shared(data, where, again)
    try:
        lock = Lock.model_validate(data)
    except ValidationError as problem:
        complaints = [_worded(where, error) for error in problem.errors(include_url=False)]
        raise BadInput("lock-not-valid", complaints[0], context=complaints[1:6], hint=again) from problem
    if not shared:
        return lock
    own = lock.hosts
    return lock.model_copy(update={"hosts": {n: own[shared.get(n, n)] for n in sorted((*own, *shared))}})


def _shared(data: Any, where: str, hint: str) -> dict[str, str]:
    """Take the hosts out of `data` that have the entry of another, and return that other; it needs one of its own."""
    hosts = data.get("hosts") if isinstance(data, dict) else None
    if not isinstance(hosts, dict):
        return {}
    found = {name: entry[SAME] for name, entry in hosts.items() if isinstance(entry, dict) and entry.keys() == {SAME}}
    for name, other in found.items():
        if not isinstance(other, str) or other not in hosts or other in found:
            why = f"{where}: hosts.{name}.{SAME}: {_line(other)} is no host with an entry of its own"
            raise BadInput("lock-not-valid", why, hint=hint)
        del hosts[name]
    return found


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
            hint=f"provision resolve -o {where} resolves with this matrix; git diff then shows what it changes. "
            f"Or use the matrix of the lock: provision matrix update --lock {where}",
        )
