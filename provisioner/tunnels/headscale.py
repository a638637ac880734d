"""headscale: the coordination server on a host of your own, which Tailscale's clients log in to."""

from __future__ import annotations

from provisioner.model.resource import Directory, Guarded, GuardedFile, Resource
from provisioner.model.tunnel import split_endpoint
from provisioner.tunnels import tailscale
from provisioner.tunnels.contract import HEADER, STATE, Own, Question
from provisioner.tunnels.host import guard_program

CONFIG = "/etc/headscale/config.yaml"


def resources(me: Own) -> tuple[Resource, ...]:
    """A hub gets the server's config; any other host is a client of Tailscale with this server."""
    if me.lock.role != "hub":
        return tailscale.resources(me)
    return (
        Directory(path=STATE),
        Directory(path="/etc/headscale"),
        *guard_program(),
        Guarded(
            name="tunnel headscale",
            files=(GuardedFile(path=CONFIG, content=config(me), mode="0640"),),
            units=("headscale.service",),
            confirm_s=me.wish.confirm_s,
        ),
    )


def config(me: Own) -> str:
    """The text of config.yaml; keys that the example file of 0.29 marks as needed."""
    host, port = split_endpoint(me.wish.endpoint or f"{me.host}:443")
    prefix = me.wish.range or "100.64.0.0/10"
    return (
        HEADER
        + f"server_url: https://{host}:{port}\nlisten_addr: 0.0.0.0:{port}\nmetrics_listen_addr: 127.0.0.1:9090\n"
        + "noise:\n  private_key_path: /var/lib/headscale/noise_private.key\n"
        + f"prefixes:\n  v4: {prefix}\n  allocation: sequential\n"
        + "derp:\n  urls: [https://controlplane.tailscale.com/derpmap/default]\n  auto_update_enabled: true\n"
        + "database:\n  type: sqlite\n  sqlite:\n    path: /var/lib/headscale/db.sqlite\n"
        + f'tls_letsencrypt_hostname: "{host}"\ndns:\n  magic_dns: false\n  override_local_dns: false\n'
        + "unix_socket: /var/run/headscale/headscale.sock\n"
    )


def questions(me: Own) -> tuple[Question, ...]:
    if me.lock.role != "hub":
        return tailscale.questions(me)
    return (Question("the server", "headscale health", "exit code 0"),)
