"""`provision upgrade NETWORK --to VERSION`: arguments, one look, the lock, a view."""

from __future__ import annotations

import argparse

from provisioner.cli import lockfile, options
from provisioner.errors import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="id of a network, such as akash")
    parser.add_argument("--to", required=True, metavar="VERSION", help="version of its client")
    options.inventory(parser)
    options.json_output(parser)
    lockfile.arguments(parser, "the steps")
    options.captures(parser, "to look at")


def run(args: argparse.Namespace) -> int:
    from provisioner.actions.upgrade import upgrade
    from provisioner.adapters import inventory
    from provisioner.cli.views.upgrade import upgraded_json, upgraded_text
    from provisioner.cli.wiring import prober_for
    from provisioner.matrix.reader import load

    before = options.read_lock_in_use(args.lock)
    hosts, prober = prober_for(inventory.read(tuple(args.inventory), args.limit), args)
    upgraded = upgrade(hosts, args.network, args.to, load(), before, prober=prober)
    written = None if args.dry_run else lockfile.write(args.lock, upgraded.lock, before)
    if args.json:
        print(upgraded_json(upgraded))
    else:
        print(upgraded_text(upgraded, args.network, args.to, written, args.inventory, str(args.lock)), end="")
    if upgraded.named("cannot"):
        return Exit.UNRESOLVABLE
    return Exit.FAILED if upgraded.failed or upgraded.unlocked else Exit.OK
