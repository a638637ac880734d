"""Programs of ours that run on hosts, as text, and the units that go with them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from provisioner.model.resource import Directory, File, Resource, Service
from provisioner.tunnels.contract import HEADER, PROGRAMS

_HERE = Path(__file__).parent / "programs"
GUARD = f"{PROGRAMS}/guard"
GUARD_UNIT = "provision-guard.service"


@lru_cache(maxsize=8)
def program(name: str) -> str:
    """The text of programs/NAME.py."""
    return (_HERE / f"{name}.py").read_text(encoding="utf-8")


def guard_program() -> list[Resource]:
    """The guard, and the unit that puts back at boot what nobody confirmed."""
    return [
        Directory(path=PROGRAMS),
        File(path=GUARD, content=program("guard"), mode="0755", kept=False),
        File(path=f"/etc/systemd/system/{GUARD_UNIT}", content=_GUARD_UNIT, kept=False),
        Service(name=GUARD_UNIT, kept=False),
    ]


_GUARD_UNIT = (
    HEADER
    + f"""[Unit]
Description=Puts back a change that nobody confirmed before the host was restarted
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target provision-firewall.service nftables.service ufw.service ssh.service wg-quick@prov0.service
Wants=network-pre.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={GUARD} boot

[Install]
WantedBy=multi-user.target
"""
)
