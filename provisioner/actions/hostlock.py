"""One run at a time per host: a lease in a file on the host, taken atomically there.

The lease outlives the connection, because a run reboots its host. It ends when the run gives it back, when its time is
up, or when the controller that took it sees that the process behind it is gone (a killed run must not block the next).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

from provisioner.actions.ports import HostShell
from provisioner.actions.settle import UP, going_down
from provisioner.errors import Exit, HostError
from provisioner.host.trial import LEASE_S
from provisioner.model.inventory import InventoryHost

PATH = "/var/lib/provision/apply.lock"
_HELD = 75  # EX_TEMPFAIL
_GOING_DOWN = 76

_TAKE = """
{up} || exit {going_down}
set -eu
umask 022
mkdir -p /var/lib/provision
exec 9>/var/lib/provision/apply.guard
flock 9
lock={path}
if [ -e "$lock" ]; then
    until=$(sed -n 's/^until=//p' "$lock")
    if [ "$(date +%s)" -lt "${{until:-0}}" ] && [ "$(cat "$lock")" != {dead} ]; then
        cat "$lock"
        exit {held}
    fi
fi
printf '%s\\nuntil=%s\\n' {lease} "$(($(date +%s) + {seconds}))" > "$lock.new"
mv "$lock.new" "$lock"
"""

_GIVE_BACK = """
exec 9>/var/lib/provision/apply.guard && flock 9
if grep -qx {line} {path} 2>/dev/null; then rm -f {path}; fi
"""


@dataclass(frozen=True)
class Lease:
    """Who holds a host: run id, and the user, machine and process of the controller."""

    run: str
    user: str
    controller: str
    pid: int

    @property
    def text(self) -> str:
        return f"run={self.run}\nuser={self.user}\ncontroller={self.controller}\npid={self.pid}"


def take(host: InventoryHost, lease: Lease, shell: HostShell, alive: Callable[[int], bool], *, force: bool) -> None:
    """Take the host for this run. Raises HostError `host-busy` when another run holds it.

    Raises HostError `host-going-down` when it has been told to reboot: what is done there now may be cut off. A lease
    of this same controller whose process is gone is taken over, and with `force` any other too.
    """
    answer = shell.run(host, _take_script(lease, dead=""))
    if answer.rc == _HELD:
        held = answer.stdout.strip()
        if force or _left_behind(held, lease, alive):
            answer = shell.run(host, _take_script(lease, dead=held))
    if answer.rc == 0:
        return
    if answer.rc == _GOING_DOWN:
        raise going_down(host)
    if answer.rc == _HELD:
        raise _busy(host.name, _fields(answer.stdout))
    raise HostError(
        "host-lock-failed",
        host.name,
        f"{host.name}: the lock of the host could not be taken",
        context=(answer.stderr.strip() or f"exit code {answer.rc}",),
        hint="is /var/lib writable there, and not full?",
    )


def give_back(host: InventoryHost, lease: Lease, shell: HostShell) -> None:
    """Let go of the host; one that another run has taken over meanwhile stays as it is."""
    shell.run(host, _GIVE_BACK.format(line=shlex.quote(f"run={lease.run}"), path=PATH))


def _take_script(lease: Lease, *, dead: str) -> str:
    return _TAKE.format(
        path=PATH,
        dead=shlex.quote(dead),
        held=_HELD,
        lease=shlex.quote(lease.text),
        seconds=LEASE_S,
        up=UP,
        going_down=_GOING_DOWN,
    )


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key: value for key, _, value in pairs}


def _left_behind(held: str, mine: Lease, alive: Callable[[int], bool]) -> bool:
    fields = _fields(held)
    pid = fields.get("pid", "")
    return fields.get("controller") == mine.controller and pid.isdigit() and not alive(int(pid))


def _busy(host: str, fields: dict[str, str]) -> HostError:
    who = f"{fields.get('user', 'somebody')} on {fields.get('controller', 'another machine')}"
    return HostError(
        "host-busy",
        host,
        f"{host} is being changed by another run",
        context=(f"run {fields.get('run', 'unknown')} by {who}, process {fields.get('pid', '?')}",),
        hint=f"wait for it; if that run is dead: provision apply --limit {host} --break-lock",
        exit_code=Exit.BUSY,
    )
