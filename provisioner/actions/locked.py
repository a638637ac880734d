"""Which hosts a lock speaks for: those that have an entry, made with the matrix in use."""

from __future__ import annotations

from provisioner.errors import HostError
from provisioner.model.stack import Lock

OLDER = "its lock entry was made with another matrix"


def not_locked(host: str, lock: Lock) -> HostError | None:
    """Return why nothing may be done to a host by this lock, or None when its entry holds."""
    again = f"provision resolve --limit {host}"
    if host not in lock.hosts:
        return HostError("host-not-locked", host, f"{host} has no entry in the lock", hint=again)
    if host in lock.older:
        return HostError(
            "lock-other-matrix",
            host,
            f"{host}: {OLDER} than the one in use, so its reasons may no longer hold",
            context=[f"the entry says {lock.older[host][:12]}, the matrix in use is {lock.matrix[:12]}"],
            hint=again,
        )
    return None
