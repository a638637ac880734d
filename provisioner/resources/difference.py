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
    Hold,
    NoRunFile,
    Package,
    PackageSource,
    ReplacedSource,
    Resource,
    Settings,
)
from provisioner.model.settings import lacking
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
    if isinstance(wanted, Hold):
        return () if actual == wanted else ("held",)
    if isinstance(wanted, (AbsentFile, AbsentPackage, NoRunFile)):
        return () if actual == wanted else ("present",)
    if isinstance(wanted, PackageSource):
        return () if actual == wanted else ("content",)
    if isinstance(wanted, ReplacedSource):
        return ("present",)
    if isinstance(wanted, Settings):
        return lacking(actual.values, wanted.values)
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
