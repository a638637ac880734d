"""`provision matrix combos`: which combinations CI should rehearse, as a table, JSON, a GitHub matrix or Molecule."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.cli import options
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.matrix.reader import Matrix
    from provisioner.model.stack import Lock

FORMATS = ("text", "json", "github", "molecule")


def arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--pairwise", action="store_true", help="a covering array over the matrix: every pair of values that fits"
    )
    what.add_argument("--all", action="store_true", dest="every", help="every combination of the matrix that fits")
    what.add_argument(
        "--upgrades", action="store_true", help="from which to which combination hosts move between locks"
    )
    parser.add_argument(
        "--strength", type=int, choices=(2, 3), default=2, help="with --pairwise: cover pairs (2) or triples (3)"
    )
    parser.add_argument("--from", dest="before", type=Path, metavar="LOCK", help="with --upgrades: the lock in use")
    parser.add_argument("--to", dest="after", type=Path, metavar="LOCK", help="with --upgrades: the candidate lock")
    options.lock(parser)
    parser.add_argument(
        "-i",
        "--inventory",
        action="append",
        default=[],
        metavar="SOURCE",
        help="only hosts of this Ansible inventory; it is read, no host is asked",
    )
    parser.add_argument("-l", "--limit", metavar="PATTERN", help="only these hosts of the inventory")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME=A,B",
        help="with --pairwise or --all: only these values of os, architecture, branch, modules, runtime or network",
    )
    parser.add_argument(
        "--sources",
        choices=("archive", "vendor"),
        default="archive",
        help="with --pairwise or --all: what hosts can install; archive (default) is the release's own as it was read, "
        "vendor adds the repositories of NVIDIA and Docker",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="how to print them (default text)")


def run(args: argparse.Namespace, matrix: Matrix) -> int:
    from provisioner.cli.views import matrix_combos as view
    from provisioner.resolve import combos

    form = "json" if args.json else args.format
    if args.upgrades:
        if args.before is None or args.after is None:
            raise BadInput(
                "combos-two-locks", "--upgrades compares two locks", hint="Name them: --upgrades --from LOCK --to LOCK"
            )
        before, after = (_lock(path, args) for path in (args.before, args.after))
        print(view.upgrades_as(form, combos.upgrades(before, after, matrix)), end="")
        return Exit.OK
    if args.every or args.pairwise:
        from provisioner.resolve.hypothetical import Shelf

        rows = combos.valid(matrix, Shelf(matrix, args.sources), _only(args.only))
        found = tuple(rows.values()) if args.every else combos.array(rows, args.strength)
        about = f"{len(rows)} combinations fit" if args.every else view.covering_words(len(rows), args.strength)
    else:
        found = combos.of_lock(_lock(args.lock, args), matrix)
        about = f"what {args.lock} holds"
    print(view.combos_as(form, found, about), end="")
    return Exit.OK


def _only(given: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given:
        name, sign, values = text.partition("=")
        listed = [value.strip() for value in values.split(",") if value.strip()]
        if not sign or not listed:
            raise BadInput(
                "combos-only", f"--only {text} names no values", hint="Write it as --only os=debian-12,debian-13"
            )
        found.setdefault(name.strip(), []).extend(listed)
    return found


def _lock(path: Path, args: argparse.Namespace) -> Lock:
    """The lock, of the hosts that were asked for. A host that the lock does not hold is an error, not less work."""
    from provisioner.resolve.lock import read_lock

    lock = read_lock(path)
    if not args.inventory:
        if args.limit:
            raise BadInput("combos-limit", "--limit narrows an inventory", hint="Name it with -i")
        return lock
    from provisioner.adapters import inventory

    names = [host.name for host in inventory.read(tuple(args.inventory), args.limit)]
    missing = [name for name in names if name not in lock.hosts]
    if missing:
        raise BadInput(
            "combos-host-not-locked",
            f"{path} holds no entry for {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}",
            hint="provision resolve makes it, or leave the host out with --limit",
        )
    return lock.model_copy(update={"hosts": {name: lock.hosts[name] for name in names}})
