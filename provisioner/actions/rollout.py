"""The steps of `upgrade --apply`: a canary, its health for a while, the rest in batches; stop and go back at a fault.

Pure but for the four things that it is handed: bring hosts to the lock, watch them serve, bring them back, tell.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from provisioner.actions.ports import HostShell
from provisioner.errors import HostError
from provisioner.model.inventory import InventoryHost
from provisioner.model.run import HostResult

State = Literal["done", "rolled-back", "failed", "left"]

SETTLE_S = 120
"""How long a client may take after its start until the time that it has to serve begins."""
LOOK_S = 5.0

# A client that nobody has put on the host cannot be watched: then the gate alone is asked.
SERVES = """
gate=/usr/local/sbin/provision-gate
said=$($gate check {network} 2>&1) || {{ echo "$said"; exit 1; }}
[ -x /usr/local/lib/provision/clients/{network} ] || exit 0
systemctl is-active --quiet provision-client@{network}.service || {{ echo "its unit does not run"; exit 1; }}
[ -x /usr/local/lib/provision/health/{network} ] || exit 0
/usr/local/lib/provision/health/{network} 2>&1
"""


@dataclass(frozen=True)
class Fate:
    """What became of one host; `left`: it was not touched, because one before it failed."""

    state: State
    reason: str = ""


@dataclass
class RolledOut:
    """Host by host, in the order in which they were taken."""

    fates: dict[str, Fate] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        return any(fate.state != "done" for fate in self.fates.values())

    def named(self, *states: State) -> tuple[str, ...]:
        return tuple(name for name, fate in self.fates.items() if fate.state in states)


class Means(Protocol):
    """What a rollout does to the world. Results are named by host; `watch` gives the reasons of those that failed."""

    def bring(self, hosts: Sequence[str]) -> Mapping[str, HostResult]: ...

    def watch(self, hosts: Sequence[str]) -> Mapping[str, str]: ...

    def back(self, hosts: Sequence[str]) -> Mapping[str, HostResult]: ...

    def tell(self, line: str) -> None: ...


def batches(hosts: Sequence[str], *, canary: int = 1, most: int = 0) -> tuple[tuple[str, ...], ...]:
    """The canary first, then at most `most` at a time (0: a quarter of what is left, one at least).

    Six hosts are 1, 1, 1, 1, 1, 1; with most=3 they are 1, 3, 2.
    """
    first, rest = hosts[:canary], hosts[canary:]
    size = most or max(1, len(rest) // 4)
    cut = [tuple(rest[at : at + size]) for at in range(0, len(rest), size)]
    return tuple(batch for batch in (tuple(first), *cut) if batch)


def roll_out(cut: Sequence[Sequence[str]], means: Means) -> RolledOut:
    """Take batch after batch; the first that does not serve as it should is brought back, and ends it."""
    out = RolledOut()
    for number, batch in enumerate(cut):
        if out.stopped:
            out.fates |= {name: Fate("left") for name in batch}
            continue
        means.tell(f"{'canary' if number == 0 else f'batch {number}'}: {', '.join(batch)}")
        out.fates |= _batch(batch, means)
    return out


def _batch(batch: Sequence[str], means: Means) -> dict[str, Fate]:
    results = means.bring(batch)
    fates: dict[str, Fate] = {}
    for name in batch:
        result = results.get(name)
        if result is None:
            fates[name] = Fate("failed", "nothing is known of it")
        elif result.state == "rolled-back":
            fates[name] = Fate("rolled-back", result.reason)
        elif not result.good:
            fates[name] = Fate("failed", result.reason)
    sound = [name for name in batch if name not in fates]
    if sound:
        means.tell(f"watch {', '.join(sound)}")
    unwell = means.watch(sound) if sound else {}
    for name in sound:
        if name not in unwell:
            fates[name] = Fate("done")
    if unwell:
        for name, why in unwell.items():
            means.tell(f"{name} does not serve: {why}")
        came = means.back(list(unwell))
        for name, why in unwell.items():
            again = came.get(name)
            good = again is not None and again.good
            fates[name] = Fate("rolled-back" if good else "failed", why)
    return {name: fates[name] for name in batch}


def watched(
    hosts: Sequence[InventoryHost],
    network: str,
    seconds: float,
    *,
    shell: HostShell,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Return why hosts did not serve for `seconds` without a gap; none of it: all did.

    A client may take SETTLE_S to come up; a gap after that, or one that never ends, counts.
    """
    script = SERVES.format(network=shlex.quote(network))
    began = clock()
    since = dict.fromkeys((host.name for host in hosts), began)
    last = dict.fromkeys((host.name for host in hosts), "")
    open_ = list(hosts)
    while open_:
        for host in open_:
            why = _why_not(host, script, shell)
            if why:
                last[host.name], since[host.name] = why, clock()
        now = clock()
        open_ = [host for host in open_ if now - since[host.name] < seconds]
        if now - began >= seconds + SETTLE_S:
            return {host.name: last[host.name] for host in open_}
        if open_:
            sleep(LOOK_S)
    return {}


def _why_not(host: InventoryHost, script: str, shell: HostShell) -> str:
    try:
        answer = shell.run(host, script)
    except HostError as problem:
        return problem.message
    if answer.rc == 0:
        return ""
    said = (answer.stdout.strip() or answer.stderr.strip()).splitlines()
    return said[0] if said else f"exit code {answer.rc}"
