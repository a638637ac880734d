"""Chooses exact versions for a host, or says which few facts conflict and what would mend it.

Reading a lock needs nothing of the solver and its matrix, which take a tenth of a second to import: they come when
they are named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from provisioner.resolve.conflict import NoSolution
    from provisioner.resolve.resolver import solve

__all__ = ["NoSolution", "solve"]
_HOMES = {"NoSolution": "provisioner.resolve.conflict", "solve": "provisioner.resolve.resolver"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(_HOMES[name]), name)
