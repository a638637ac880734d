"""A host as the operator's inventory names it: its variables, and the intent that stands among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provisioner.model.intent import Intent


@dataclass(frozen=True)
class InventoryHost:
    """One host of the inventory; `variables` are what Ansible would give a play, `groups` as in Ansible."""

    name: str
    variables: Mapping[str, Any]
    intent: Intent
    groups: tuple[str, ...] = field(default=())
    hubs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # variables of the hubs of its tunnel, by name
    path: Mapping[str, Any] = field(default_factory=dict)  # what a confirmed tunnel put among `variables`
