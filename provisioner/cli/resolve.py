"""`provision resolve`: arguments, one look, the lock, a view."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from provisioner.cli import lockfile, options
from provisioner.cli.words import next_command
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.model.inventory import InventoryHost


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", nargs="*", metavar="HOST", help="only these hosts of the inventory (default: all)")
    options.inventory(parser)
    options.json_output(parser)
    lockfile.arguments(parser, "the answer")
    parser.add_argument("--explain", action="store_true", help="for each choice, why it and why nothing newer")
    parser.add_argument(
        "--assume",
        action="append",
        default=[],
        metavar="WHAT",
        help="what if: os=debian-13, gpu+=rtx-5090, gpu-=0, components+=non-free, akash=0.16.2, driver=580 and others; "
        "may be repeated, writes no lock",
    )
    parser.add_argument(
        "--unify",
        action="store_true",
        help="give the hosts the fewest distinct stacks that serve all their networks, though some move for it",
    )
    options.captures(parser, "to resolve")


def run(args: argparse.Namespace) -> int:
    from provisioner.actions.resolve import resolve
    from provisioner.adapters import inventory
    from provisioner.adapters.keys import KeyFiles
    from provisioner.adapters.names import resolves
    from provisioner.cli.views.resolve import resolved_json, resolved_text
    from provisioner.cli.wiring import prober_for
    from provisioner.matrix.reader import load
    from provisioner.resolve.assume import read_assumption

    matrix = load()
    if args.unify and args.assume:
        raise BadInput("unify-and-assume", "--unify chooses for the fleet as it is; give no --assume with it")
    assumptions = [read_assumption(text, matrix) for text in args.assume]
    limit = args.limit or (",".join(args.host) if args.host and args.inventory else None)
    hosts = inventory.read(tuple(args.inventory), limit)
    hosts, prober = prober_for(_named(hosts, args), args)
    before = lockfile.before(args.lock)
    resolved = resolve(
        hosts,
        matrix,
        prober=prober,
        keys=KeyFiles(),
        before=before,
        assumptions=assumptions,
        unify=args.unify,
        resolves=resolves,
    )
    # An old answer must not pass for a new one: a host that no longer resolves loses its entry.
    says = resolved.stacks or (before is not None and before.hosts.keys() & resolved.unresolvable.keys())
    writes = says and not assumptions and not args.dry_run
    written = lockfile.write(args.lock, resolved.lock, before) if writes else None
    if args.json:
        print(resolved_json(resolved))
    else:
        print(resolved_text(resolved, explained=args.explain, written=written, next_command=_next(args)), end="")
    if resolved.unresolvable:
        return Exit.UNRESOLVABLE
    return Exit.FAILED if resolved.failed else Exit.OK


def _named(hosts: Sequence[InventoryHost], args: argparse.Namespace) -> tuple[InventoryHost, ...]:
    """The hosts that were named; a name that stands nowhere is an error, not an empty answer."""
    if not args.host or args.capture:
        return tuple(hosts)
    known = {host.name: host for host in hosts}
    missing = [name for name in args.host if name not in known]
    if missing:
        raise BadInput(
            "no-host",
            f"no host is called {', '.join(missing)}",
            context=[f"known: {', '.join(known)}"],
            hint="give the inventory that names it with -i",
        )
    return tuple(known[name] for name in args.host)


def _next(args: argparse.Namespace) -> str:
    hosts = [args.limit] if args.limit else args.host if args.inventory else []
    return shlex.join(
        [
            *shlex.split(next_command("plan", args.inventory, hosts, str(args.lock))),
            *(word for capture in args.capture for word in ("--capture", str(capture))),
        ]
    )
