"""`provision why HOST driver=580` and `why-not`: one look at one host, the answer for one value."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from provisioner.cli import options
from provisioner.cli.words import next_command
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provisioner.model.inventory import InventoryHost


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", nargs="?", metavar="HOST", help="the host; not needed when there is only one")
    parser.add_argument(
        "value",
        metavar="VALUE",
        help="what is asked: driver=580, cuda=13.0, modules=open, runtime=docker-ce, toolkit=1.19.1, cdi=present, "
        "NETWORK=VERSION",
    )
    options.inventory(parser)
    options.json_output(parser)
    options.captures(parser, "to ask about")


def run(args: argparse.Namespace) -> int:
    from provisioner.actions.why import ask
    from provisioner.adapters import inventory
    from provisioner.cli.views.why import answer_json
    from provisioner.cli.wiring import prober_for
    from provisioner.cli.words import safe
    from provisioner.matrix.reader import load
    from provisioner.resolve.explain_why import answer_text

    limit = args.limit or (args.host if args.inventory else None)
    hosts, prober = prober_for(inventory.read(tuple(args.inventory), limit), args)
    host = _one(hosts, args.host)
    answer = ask(host, args.value, load(), prober=prober)
    if args.json:
        print(answer_json(answer))
    else:
        print(safe(answer_text(answer, _again(args, host.name))), end="")
    return Exit.UNRESOLVABLE if answer.verdict == "not-seen" else Exit.OK


def _one(hosts: Sequence[InventoryHost], name: str | None) -> InventoryHost:
    """The host that was named, or the only one."""
    found = [host for host in hosts if name is None or host.name == name]
    if len(found) == 1:
        return found[0]
    raise BadInput(
        "no-host" if name is not None else "which-host",
        f"no host is called {name}" if name is not None else f"{len(hosts)} hosts could be meant",
        context=[f"known: {', '.join(host.name for host in hosts)}"],
        hint="give the inventory that names it with -i" if name is not None else "write the host before the value",
    )


def _again(args: argparse.Namespace, host: str) -> str:
    return " ".join(
        [
            next_command("resolve", args.inventory, [host] if args.inventory else []),
            *(f"--capture {capture}" for capture in args.capture),
        ]
    )
