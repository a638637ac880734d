"""`provision matrix diff OLD NEW`: which claims changed, which hosts that would move, and why."""

from __future__ import annotations

import argparse
from pathlib import Path

from provisioner.cli import options
from provisioner.errors import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "old",
        metavar="OLD",
        help="a folder, the digest of a release that was fetched (its beginning is enough), 'in-use' or 'shipped'",
    )
    parser.add_argument("new", metavar="NEW", help="the same, of the matrix to move to")
    options.inventory(parser)
    parser.add_argument(
        "--lock",
        type=Path,
        metavar="FILE",
        help="hosts of this lock too: without a look, by what their entries rest on",
    )
    options.captures(parser, "to resolve with both")
    parser.add_argument(
        "--exit-code", action="store_true", help="exit with 0 when nothing would move, 2 when something would"
    )


def run(args: argparse.Namespace) -> int:
    from provisioner.actions.matrix_diff import matrix_diff
    from provisioner.adapters import inventory
    from provisioner.cli.views.matrix_diff import diff_json, diff_text
    from provisioner.cli.wiring import prober_for
    from provisioner.matrix.reader import load
    from provisioner.resolve.lock import read_lock

    old, new = (load(folder(name)) for name in (args.old, args.new))
    # Unlike elsewhere, no inventory means no host: two matrices can be compared without any.
    named = inventory.read(tuple(args.inventory), args.limit) if args.inventory else ()
    hosts, prober = prober_for(named, args) if args.inventory or args.capture else ((), prober_for((), args)[1])
    lock = read_lock(args.lock) if args.lock else None
    diff = matrix_diff(old, new, hosts, prober=prober, lock=lock)
    print(diff_json(diff) if args.json else diff_text(diff), end="\n" if args.json else "")
    if diff.failed:
        return Exit.FAILED
    return Exit.DIFFERS if args.exit_code and diff.moves else Exit.OK


def folder(name: str) -> Path:
    """The folder of a matrix by what a person calls it. Raises BadInput `matrix-not-found`."""
    from provisioner.cli.matrix_update import SHIPPED, fetched
    from provisioner.matrix.files import matrix_dir
    from provisioner.model.paths import FETCHED, data_dir

    if name == SHIPPED:
        return data_dir("matrix")
    if name == "in-use":
        return matrix_dir()
    return Path(name) if Path(name).is_dir() else FETCHED / fetched(name)
