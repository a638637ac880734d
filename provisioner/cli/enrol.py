"""`provision enrol`: check hosts, let in those that pass, close those that do not."""

from __future__ import annotations

import argparse
from datetime import timedelta

from provisioner.cli import options, verify
from provisioner.errors import BadInput


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="only these hosts, by name")
    options.inventory(parser)
    options.lock(parser)
    options.json_output(parser)
    verify.output(parser)
    parser.add_argument(
        "--days", type=int, default=30, metavar="N", help="days until the record ends and its gate closes (default 30)"
    )


def run(args: argparse.Namespace) -> int:
    if not 1 <= args.days <= 366:
        raise BadInput("bad-argument", f"--days {args.days}: between 1 and 366")
    return verify.checked(args, enrol_for=timedelta(days=args.days))
