"""`provision history HOST`: the changes that a host keeps and that can be taken back."""

from __future__ import annotations

import argparse
import sys

from provisioner.cli import options
from provisioner.errors import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="only these hosts, by name")
    options.inventory(parser)
    options.json_output(parser)


def run(args: argparse.Namespace) -> int:
    from provisioner.actions.rollback import look_back
    from provisioner.adapters import inventory
    from provisioner.cli.verify import named
    from provisioner.cli.views.history import history_json, history_text
    from provisioner.cli.wiring import SshProber
    from provisioner.cli.words import error_text

    hosts = named(inventory.read(tuple(args.inventory), args.limit), args.hosts)
    kept = look_back(hosts, SshProber(forks=args.forks, timeout_s=args.timeout))
    if args.json:
        print(history_json(kept))
    else:
        if kept.entries:
            print(history_text(kept, args.inventory))
        for problem in kept.failed.values():
            print(error_text(problem), file=sys.stderr)
    return Exit.FAILED if kept.failed else Exit.OK
