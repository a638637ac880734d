"""`provision upgrade NETWORK --to VERSION`: arguments, one look, the lock, a view."""

from __future__ import annotations

import argparse
from pathlib import Path

from provisioner.cli import options
from provisioner.errors import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="id of a network, such as akash")
    parser.add_argument("--to", required=True, metavar="VERSION", help="version of its client")
    options.inventory(parser)
    options.json_output(parser)
    parser.add_argument(
        "-o",
        "--lock",
        "--out",
        dest="lock",
        type=Path,
        default=Path(options.LOCK),
        metavar="FILE",
        help=f"the lock to start from and to write (default {options.LOCK})",
    )
    parser.add_argument("--dry-run", action="store_true", help="show the steps, write no lock")
    parser.add_argument(
        "--capture", action="append", default=[], type=Path, metavar="FILE", help="recorded host to look at, no ssh"
    )


def run(args: argparse.Namespace) -> int:
    from provisioner.actions.upgrade import upgrade
    from provisioner.adapters import inventory
    from provisioner.cli.resolve import write_lock
    from provisioner.cli.views.upgrade import upgraded_json, upgraded_text
    from provisioner.cli.wiring import prober_for
    from provisioner.matrix.reader import load
    from provisioner.resolve.lock import lock_text

    before = options.read_lock_in_use(args.lock)
    hosts, prober = prober_for(inventory.read(tuple(args.inventory), args.limit), args)
    upgraded = upgrade(hosts, args.network, args.to, load(), before, prober=prober)
    text = lock_text(upgraded.lock)
    changed = text != lock_text(before)
    if changed and not args.dry_run:
        write_lock(args.lock, text)
    if args.json:
        print(upgraded_json(upgraded))
    else:
        written = None if args.dry_run else f"{args.lock}{'' if changed else ' (unchanged)'}"
        print(upgraded_text(upgraded, args.network, args.to, written, args.inventory, str(args.lock)), end="")
    if upgraded.named("cannot"):
        return Exit.UNRESOLVABLE
    return Exit.FAILED if upgraded.failed or upgraded.unlocked else Exit.OK
