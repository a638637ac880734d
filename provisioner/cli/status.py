"""`provision status`: arguments, one look, a view."""

from __future__ import annotations

import argparse
import time

from provisioner.cli import options
from provisioner.errors import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="only these hosts, by name")
    options.inventory(parser)
    options.lock(parser)
    parser.add_argument("--live", action="store_true", help="also what each client does now, and what the watchdog saw")
    options.json_output(parser)
    options.captures(parser, "to read")


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    hosts_aside = options.hosts_aside(args)
    from provisioner.actions.status import status
    from provisioner.adapters.signing import Keyring
    from provisioner.cli.verify import named
    from provisioner.cli.views.status import status_json, status_text
    from provisioner.cli.wiring import prober_for

    hosts, prober = prober_for(named(hosts_aside(), args.hosts), args)
    lock = options.read_lock_in_use(args.lock) if args.lock.exists() or str(args.lock) != options.LOCK else None
    states = status(hosts, lock, prober=prober, signatures=Keyring(), now=args.live)
    if args.json:
        print(status_json(states))
    else:
        known = str(args.lock) if lock is not None else None
        print(status_text(states, seconds=time.monotonic() - began, lock=known, inventory=args.inventory))
    return Exit.FAILED if any(one.state == "not seen" for one in states) else Exit.OK
