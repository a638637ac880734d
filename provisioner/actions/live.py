"""What `provision status --live` adds: which clients serve now, since when, why not; and what the watchdog saw last."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provisioner.actions.ports import HostShell
from provisioner.errors import HostError
from provisioner.model.inventory import InventoryHost

WATCHDOG = "/usr/local/sbin/provision-watchdog"
ASK = f"[ -x {WATCHDOG} ] || exit 127; {WATCHDOG} serves"
LIMIT_S = 90
"""The gate may wait 20 s for a sick card and a client's own check 30 s, one network after the other."""


class Serving(BaseModel):
    """A client now. `why` tells what keeps it from serving, or, of one that serves, what will when it has stopped."""

    model_config = ConfigDict(frozen=True)

    serves: bool
    since: datetime | None = None
    why: str = ""


class Live(BaseModel):
    """A host now; `problem`: it did not tell. `watchdog` is its last round, as it stands in its file."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    clients: dict[str, Serving] = Field(default_factory=dict)
    watchdog: dict[str, Any] | None = None
    problem: str = ""


def live(
    hosts: Sequence[InventoryHost], networks: Mapping[str, Sequence[str]], *, shell: HostShell, forks: int = 50
) -> dict[str, Live]:
    """Ask each host about its networks, all at once; a host that cannot be asked says so in its answer."""
    with ThreadPoolExecutor(max(1, min(forks, len(hosts)))) as pool:
        answers = pool.map(lambda host: _ask(host, networks.get(host.name, ()), shell), hosts)
        return {host.name: answer for host, answer in zip(hosts, answers, strict=True)}


def _ask(host: InventoryHost, networks: Sequence[str], shell: HostShell) -> Live:
    try:
        answer = shell.run(host, " ".join([ASK, *map(shlex.quote, networks)]), timeout_s=LIMIT_S)
    except HostError as problem:
        return Live(problem=problem.message)
    if answer.rc == 127:
        return Live(problem="nothing of provision is on it yet")
    if answer.rc == 2:
        return Live(problem="its programs are older than this: provision apply brings them up to date")
    try:
        return Live.model_validate_json(answer.stdout)
    except ValidationError:
        said = (answer.stderr.strip() or answer.stdout.strip() or f"exit code {answer.rc}").splitlines()[-1]
        return Live(problem=f"it does not tell what it serves: {said}")
