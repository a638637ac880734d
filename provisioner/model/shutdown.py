"""A shutdown that somebody gave a time: `shutdown +MIN`, or unattended-upgrades' Automatic-Reboot-Time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from provisioner.host.trial import LEASE_S

NOTED = "/run/systemd/shutdown/scheduled"
"""Where logind writes it down: USEC=, MODE=; shutdown's own wall message beside them. Gone when it is cancelled."""

_DOES = {"poweroff": "power off", "shutdown": "shut down"}


@dataclass(frozen=True)
class Shutdown:
    """What comes, `reboot`, `poweroff`, `halt` or `kexec`, and when, in seconds since 1970 by the host's clock."""

    mode: str
    at_s: int

    @property
    def does(self) -> str:
        """`reboot`, `power off`."""
        return _DOES.get(self.mode, self.mode)

    @property
    def when(self) -> str:
        """`2026-11-30 04:00 UTC`."""
        return f"{datetime.fromtimestamp(self.at_s, timezone.utc):%Y-%m-%d %H:%M} UTC"

    def too_soon(self, now_s: float) -> bool:
        """Whether a change that begins now may be cut off: it is nearer than the time a run may hold a host."""
        return self.at_s - now_s < LEASE_S


def scheduled(note: str) -> Shutdown | None:
    """Read logind's note; of a mode that begins with `dry-` (`shutdown -k`) only the terminals are told."""
    given = dict(line.split("=", 1) for line in note.splitlines() if "=" in line)
    at, mode = given.get("USEC", ""), given.get("MODE", "")
    if not at.isdigit() or mode.startswith("dry-"):
        return None
    return Shutdown(mode or "shutdown", int(at) // 1_000_000)
