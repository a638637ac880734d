"""`provision unenrol`: stop the clients of hosts and take their records back."""

from __future__ import annotations

import argparse
import sys

from provisioner.cli import options
from provisioner.errors import BadInput, Exit, HostError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("hosts", nargs="+", metavar="HOST", help="the hosts, by name")
    options.inventory(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    from provisioner.adapters import inventory
    from provisioner.cli.verify import named
    from provisioner.cli.wiring import SshShell, enroller
    from provisioner.cli.words import error_text

    hosts = named(inventory.read(tuple(args.inventory), args.limit), args.hosts)
    if not args.yes:
        _ask([host.name for host in hosts])
    closing = enroller(SshShell())
    failed = False
    for host in hosts:
        try:
            closing.withdraw(host)
        except HostError as problem:
            failed = True
            print(error_text(problem), file=sys.stderr)
        else:
            print(f"{host.name}: its clients are stopped, its record is taken back")
    return Exit.FAILED if failed else Exit.OK


def _ask(names: list[str]) -> None:
    """Ask on a terminal; without one, nobody can have agreed."""
    if not sys.stdin.isatty():
        raise BadInput(
            "not-confirmed", "nobody is there to confirm; nothing was changed", hint="provision unenrol HOST --yes"
        )
    answer = input(f"Stop the clients of {', '.join(names)}? A job that runs there is lost. [y/N] ")
    if answer.strip().lower() not in ("y", "yes"):
        raise BadInput("not-confirmed", "not confirmed; nothing was changed")
