"""systemd units as the checks see them: one call tells of the named ones and of every failed one."""

from __future__ import annotations

from provisioner.checks.check import NotMade, Seen

UNITS = (
    "docker.service",
    "docker.socket",
    "containerd.service",
    "nvidia-persistenced.service",
    "nvidia-fabricmanager.service",
    "chrony.service",
    "chronyd.service",
    "ntp.service",
    "ntpsec.service",
    "systemd-timesyncd.service",
    "provision-clients.target",
)
UNIT_STATES = f"systemctl show --property=Id,LoadState,ActiveState,UnitFileState --state=failed '*' {' '.join(UNITS)}"


def units(seen: Seen) -> dict[str, dict[str, str]]:
    """Unit name -> its properties, as `systemctl show` prints them in blocks."""
    states = {}
    for block in seen.output.strip().split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in fields:
            states[fields["Id"]] = fields
    if not states:
        raise NotMade("systemctl showed no unit")
    return states
