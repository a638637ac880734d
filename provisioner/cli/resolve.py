"""`provision resolve`: arguments, one look, the lock, a view."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.cli import options
from provisioner.cli.words import next_command
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.model.inventory import InventoryHost
    from provisioner.model.stack import Lock


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", nargs="*", metavar="HOST", help="only these hosts of the inventory (default: all)")
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
        help=f"the lock to write (default {options.LOCK}); entries of other hosts stay",
    )
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
    parser.add_argument("--dry-run", action="store_true", help="show the answer, write no lock")
    parser.add_argument(
        "--capture", action="append", default=[], type=Path, metavar="FILE", help="recorded host to resolve, no ssh"
    )


def run(args: argparse.Namespace) -> int:
    from provisioner.actions.resolve import resolve
    from provisioner.adapters import inventory
    from provisioner.adapters.names import resolves
    from provisioner.cli.views.resolve import resolved_json, resolved_text
    from provisioner.cli.wiring import prober_for
    from provisioner.matrix.reader import load
    from provisioner.resolve.assume import read_assumption
    from provisioner.resolve.lock import lock_text

    matrix = load()
    if args.unify and args.assume:
        raise BadInput("unify-and-assume", "--unify chooses for the fleet as it is; give no --assume with it")
    assumptions = [read_assumption(text, matrix) for text in args.assume]
    limit = args.limit or (",".join(args.host) if args.host and args.inventory else None)
    hosts = inventory.read(tuple(args.inventory), limit)
    hosts, prober = prober_for(_named(hosts, args), args)
    before = _before(args.lock)
    resolved = resolve(
        hosts, matrix, prober=prober, before=before, assumptions=assumptions, unify=args.unify, resolves=resolves
    )
    dry_run = args.dry_run or bool(assumptions)
    text = lock_text(resolved.lock)
    changed = before is None or lock_text(before) != text
    if resolved.stacks and changed and not dry_run:
        write_lock(args.lock, text)
    if args.json:
        print(resolved_json(resolved))
    else:
        written = None if dry_run or not resolved.stacks else f"{args.lock}{'' if changed else ' (unchanged)'}"
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


def _before(path: Path) -> Lock | None:
    """The lock that is there, for the hosts that are not asked now."""
    from provisioner.resolve.lock import read_lock

    return read_lock(path) if path.exists() else None


def write_lock(path: Path, text: str) -> None:
    """Beside the old file first, then in its place: a reader never meets half a lock."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as problem:
        raise BadInput("lock-not-written", f"the lock cannot be written to {path}: {problem}") from problem


def _next(args: argparse.Namespace) -> str:
    hosts = [args.limit] if args.limit else args.host if args.inventory else []
    return shlex.join(
        [
            *shlex.split(next_command("plan", args.inventory, hosts, str(args.lock))),
            *(word for capture in args.capture for word in ("--capture", str(capture))),
        ]
    )
