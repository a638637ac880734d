"""Wanted against observed: which resources differ, and in which keys. A pure function; it decides nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from provisioner.model.capture import UNKNOWN, Capture
from provisioner.model.facts import HostFacts
from provisioner.model.resource import (
    ABSENT,
    AbsentFile,
    AbsentPackage,
    Difference,
    Guarded,
    Package,
    Resource,
    Settings,
)
from provisioner.resources.observed import observed


def difference(wanted: Iterable[Resource], facts: HostFacts, capture: Capture) -> tuple[Difference, ...]:
    """Return what differs, in the order of `wanted`; what could not be seen is a difference too."""
    found = []
    for resource in wanted:
        actual = observed(resource, facts, capture)
        if actual is UNKNOWN or actual == ABSENT:
            found.append(Difference(resource, actual))
            continue
        keys = _keys(resource, actual, facts)
        if keys:
            found.append(Difference(resource, actual, keys))
    return tuple(found)


def _keys(wanted: Resource, actual: Any, facts: HostFacts) -> tuple[str, ...]:
    if isinstance(wanted, (AbsentFile, AbsentPackage)):
        return () if actual == wanted else ("present",)
    if isinstance(wanted, Settings):
        return tuple(sorted(key for key, value in wanted.values.items() if actual.values.get(key) != value))
    if isinstance(wanted, Package):
        keys = tuple(key for key in ("version", "held") if getattr(wanted, key) != getattr(actual, key))
        found = facts.package(wanted.name)
        return (*keys, "whole") if found is not UNKNOWN and found is not None and not found.whole else keys
    if isinstance(wanted, Guarded):
        return tuple(
            key for key in ("files", "absent", "units", "stop") if getattr(wanted, key) != getattr(actual, key)
        )
    mine, theirs = wanted.model_dump(), actual.model_dump()
    return tuple(sorted(key for key in mine if mine[key] != theirs[key]))
