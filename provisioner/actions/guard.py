"""Files of your own under guard: sshd's settings, an interface, a firewall; they go back unless ssh still works."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Sequence

from provisioner.actions import hostlock
from provisioner.actions.ports import HostShell, Paths
from provisioner.actions.switch import Switched, confirmed
from provisioner.errors import HostError
from provisioner.model.inventory import InventoryHost
from provisioner.model.resource import Guarded
from provisioner.model.run import HostResult, RunEvent
from provisioner.render.project import GUARD, change_id, guard_plan
from provisioner.tunnels.host import GUARD_UNIT, guard_program

_ARM = """
set -eu
umask 077
mkdir -p /var/lib/provision
cat >{incoming}
{guard} arm {incoming}
"""

_INSTALL = """
set -eu
umask 022
mkdir -p {folder}
cat >{path}.new
chmod {mode} {path}.new
mv {path}.new {path}
"""


def guarded(
    hosts: Sequence[InventoryHost],
    change: Guarded,
    run: str,
    lease: hostlock.Lease,
    *,
    shell: HostShell,
    paths: Paths,
    alive: Callable[[int], bool],
    on_event: Callable[[RunEvent], None],
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, HostResult]:
    """Switch the change on every host and confirm over new sessions; returns what failed, host by host."""
    failed: dict[str, HostResult] = {}
    armed = []
    for host in hosts:
        own = change.model_copy(update={"path": str(host.path.get("address") or "")})
        try:
            hostlock.take(host, lease, shell, alive, force=False)
            try:
                on_event(RunEvent(host.name, "guard", "start", f"switch {change.name}"))
                _arm(host, own, change_id(run), shell)
            finally:
                hostlock.give_back(host, lease, shell)
            armed.append(Switched(host, paths.fresh(host), own, change_id(run), False, None))
        except HostError as problem:
            failed[host.name] = HostResult(
                host.name, "failed", problem.reference, problem.message, problem.context, problem.hint or ""
            )
    _, lost = confirmed(armed, shell=shell, paths=paths, on_event=on_event, sleep=sleep)
    return failed | lost


def _arm(host: InventoryHost, change: Guarded, id_: str, shell: HostShell) -> None:
    """Bring the guard and its unit, then the change; the host answers before it switches."""
    for resource in guard_program():
        if resource.kind == "file":
            folder = shlex.quote(resource.path.rpartition("/")[0])
            script = _INSTALL.format(folder=folder, path=shlex.quote(resource.path), mode=resource.mode)
            _must(host, shell.run(host, script, stdin=resource.content).rc, "the guard could not be installed", "")
    started = shell.run(host, f"systemctl daemon-reload && systemctl enable --now {GUARD_UNIT}")
    _must(host, started.rc, "the guard's unit could not be started", started.stderr)
    script = _ARM.format(incoming=shlex.quote(f"/var/lib/provision/{id_}.incoming"), guard=GUARD)
    answer = shell.run(host, script, stdin=guard_plan(change, id_))
    _must(host, answer.rc, "the change was not taken", answer.stderr)
    json.loads(answer.stdout)


def _must(host: InventoryHost, rc: int, what: str, said: str) -> None:
    if rc != 0:
        raise HostError(
            "guard-refused",
            host.name,
            f"{host.name}: {what}; nothing was changed",
            context=tuple(said.strip().splitlines()[-3:]) or (f"exit code {rc}",),
        )
