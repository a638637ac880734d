"""Tailscale, or its own server headscale: settings of the daemon and a unit that logs in with a key from the vault."""

from __future__ import annotations

from provisioner.model.resource import Directory, Guarded, GuardedFile, Resource, SecretFile
from provisioner.tunnels.contract import HEADER, STATE, Own, Question
from provisioner.tunnels.host import guard_program

KEY = f"{STATE}/tailscale.key"
UNIT = "provision-tailscale-up.service"


def resources(me: Own) -> tuple[Resource, ...]:
    """The program itself comes from the vendor's own packages, which are not installed for you."""
    return (
        Directory(path=STATE),
        *guard_program(),
        SecretFile(path=KEY, expression="provision_tunnel_secret"),
        Guarded(
            name="tunnel tailscale",
            files=(
                GuardedFile(path="/etc/default/tailscaled", content=HEADER + 'PORT="41641"\nFLAGS=""\n'),
                GuardedFile(path=f"/etc/systemd/system/{UNIT}", content=unit(me)),
            ),
            units=("tailscaled.service", UNIT),
            confirm_s=me.wish.confirm_s,
        ),
    )


def unit(me: Own) -> str:
    """`tailscale up` with the key read from its file: an argument could be seen by every user of the host."""
    server = f" --login-server={me.wish.server}" if me.wish.server else ""
    return (
        HEADER
        + "[Unit]\nDescription=Joins the tailnet\nAfter=tailscaled.service network-online.target\n"
        + "Wants=network-online.target\nRequires=tailscaled.service\n\n"
        + "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        + f"ExecStart=/usr/bin/tailscale up --auth-key=file:{KEY} --hostname={me.host}{server}"
        + " --accept-dns=false --accept-routes=false --timeout=60s\n\n[Install]\nWantedBy=multi-user.target\n"
    )


def questions(me: Own) -> tuple[Question, ...]:
    """What the daemon itself says."""
    return (
        Question("the daemon", "tailscale status --json", '"BackendState" is "Running" and .Self.Online is true'),
        Question("the path", "tailscale netcheck", "UDP is true; a relay costs latency"),
    )
