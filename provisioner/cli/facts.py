"""`provision facts`: what hosts are, as one look shows it; --save records a host in a file, --capture reads one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.cli import options
from provisioner.errors import BadInput, Exit, HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from provisioner.model.inventory import InventoryHost


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", nargs="*", metavar="HOST", help="names or patterns of the inventory; none: all of it")
    options.inventory(parser)
    options.json_output(parser)
    parser.add_argument(
        "--capture", action="append", default=[], type=Path, metavar="FILE", help="recorded host to read, no ssh"
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="record the one host; for several, a folder that gets HOST.json each"
    )


def run(args: argparse.Namespace) -> int:
    from provisioner import facts
    from provisioner.adapters import inventory
    from provisioner.cli.views.facts import facts_json, facts_text
    from provisioner.cli.wiring import prober_for
    from provisioner.cli.words import error_text
    from provisioner.probe.request import FULL, Request

    if args.capture and (args.host or args.inventory):
        raise BadInput("host-and-capture", "--capture reads a recorded host: give no HOST and no inventory with it")
    limit = ",".join([*args.host, *([args.limit] if args.limit else [])]) or None
    hosts: Sequence[InventoryHost] = () if args.capture else inventory.read(tuple(args.inventory), limit)
    hosts, prober = prober_for(hosts, args)
    answers = prober.probe(hosts, {host.name: Request(FULL) for host in hosts})
    captures = [answer for answer in answers.values() if not isinstance(answer, HostError)]
    failures = [answer for answer in answers.values() if isinstance(answer, HostError)]
    if args.save is not None:
        from provisioner.adapters.captures import save

        for capture, path in _places(args.save, [capture.host for capture in captures], len(hosts)):
            save(captures[capture], path)
            print(f"{captures[capture].host} recorded in {path}", file=sys.stderr)
    seen = [facts.read(capture) for capture in captures]
    if args.json:
        print(facts_json(seen, failures))
    elif seen and args.save is None:
        print("\n\n".join(facts_text(host) for host in seen))
    if not args.json:
        for failure in failures:
            print(error_text(failure), file=sys.stderr)
    return Exit.FAILED if failures else Exit.OK


def _places(path: Path, names: Sequence[str], asked: int) -> list[tuple[int, Path]]:
    """One host goes into the file that was named, several into a folder."""
    if path.is_dir():
        return [(number, path / f"{name.replace('/', '_')}.json") for number, name in enumerate(names)]
    if asked > 1:
        raise BadInput(
            "save-needs-folder",
            f"{asked} hosts cannot be recorded in one file",
            hint=f"mkdir -p {path} and run the same again, or name one HOST",
        )
    return [(number, path) for number, _ in enumerate(names)]
