"""`provision status`: arguments, one look, a view."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from provisioner.cli import options
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.actions.live import Live
    from provisioner.actions.status import HostStatus
    from provisioner.model.inventory import InventoryHost


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="only these hosts, by name")
    options.inventory(parser)
    options.lock(parser)
    options.json_output(parser)
    options.captures(parser, "to read")
    parser.add_argument(
        "--live", action="store_true", help="ask each host too which clients serve now, since when, and why not"
    )


def run(args: argparse.Namespace) -> int:
    if args.live and args.capture:
        raise BadInput("not-together", "--live asks the hosts themselves, and --capture none")
    began = time.monotonic()
    hosts_aside = options.hosts_aside(args)
    from provisioner.actions.status import status
    from provisioner.adapters.signing import Keyring
    from provisioner.cli.verify import named
    from provisioner.cli.views.status import status_json, status_text
    from provisioner.cli.wiring import prober_for

    hosts, prober = prober_for(named(hosts_aside(), args.hosts), args)
    lock = options.read_lock_in_use(args.lock) if args.lock.exists() or str(args.lock) != options.LOCK else None
    states = status(hosts, lock, prober=prober, signatures=Keyring())
    now = _now(hosts, states, args) if args.live else {}
    if args.json:
        print(status_json(states, now))
    else:
        known = str(args.lock) if lock is not None else None
        print(status_text(states, seconds=time.monotonic() - began, lock=known, inventory=args.inventory, now=now))
    return Exit.FAILED if any(one.state == "not seen" for one in states) else Exit.OK


def _now(hosts: Sequence[InventoryHost], states: Sequence[HostStatus], args: argparse.Namespace) -> dict[str, Live]:
    """Every host that was seen is asked once more, about what it is to serve."""
    from provisioner.actions.live import live
    from provisioner.cli.wiring import SshShell
    from provisioner.resolve.options import named_parts

    networks = {one.host: [named_parts(name)[0] for name in one.networks] for one in states if one.state != "not seen"}
    return live([host for host in hosts if host.name in networks], networks, shell=SshShell(), forks=args.forks)
