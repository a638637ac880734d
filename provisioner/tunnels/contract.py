"""What a kind of tunnel offers: resources and health questions for one host, from its lock entry alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from provisioner.model.resource import Resource
from provisioner.model.tunnel import Tunnel, TunnelLock

STATE = "/etc/provision"
PROGRAMS = "/usr/local/lib/provision"
HEADER = "# Written by provision from provision.lock; the next plan puts it back when it is changed.\n"


@dataclass(frozen=True)
class Own:
    """One host's tunnel: its name, what was asked, what was decided."""

    host: str
    wish: Tunnel
    lock: TunnelLock


@dataclass(frozen=True)
class Question:
    """One thing to ask the host about its tunnel's health: a command that only reads, and when its answer is good."""

    title: str
    command: str
    good: str  # in words, for the page and for a person at the host


Support = Literal["proven", "rendered"]
"""proven: real hosts in CI. rendered: the text is made and checked, the program was never run here."""


@dataclass(frozen=True)
class KindOfTunnel:
    """A row of the table in kinds.py; every sibling file has functions of these names."""

    resources: Callable[[Own], tuple[Resource, ...]]
    questions: Callable[[Own], tuple[Question, ...]]
    support: Support
    reaches_ssh: bool  # the operator's ssh can go through it
