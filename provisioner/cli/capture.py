"""`provision capture`: one look at a host with doctor's eyes, in one file that may be shown to others."""

from __future__ import annotations

import argparse
from pathlib import Path

from provisioner.cli import options
from provisioner.errors import BadInput, Exit, HostError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", nargs="?", metavar="HOST", help="name in the inventory; none: this machine")
    options.inventory(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--capture", action="append", default=[], type=Path, metavar="FILE", help="take secrets out of this one instead"
    )


def run(args: argparse.Namespace) -> int:
    from provisioner.adapters import inventory
    from provisioner.adapters.captures import save
    from provisioner.cli.wiring import prober_for
    from provisioner.cli.words import safe
    from provisioner.doctor.scrub import scrub
    from provisioner.probe.request import DOCTOR, Request

    if args.capture and (args.host or args.inventory):
        raise BadInput("host-and-capture", "--capture reads a recorded host: give no HOST and no inventory with it")
    limit = ",".join([*([args.host] if args.host else []), *([args.limit] if args.limit else [])]) or None
    hosts, prober = prober_for(() if args.capture else inventory.read(tuple(args.inventory), limit), args)
    if len(hosts) != 1:
        raise BadInput(
            "capture-one-host", f"one file holds one host, and {len(hosts)} were named", hint="Name one HOST."
        )
    answer = prober.probe(hosts, {host.name: Request(DOCTOR) for host in hosts})[hosts[0].name]
    if isinstance(answer, HostError):
        raise answer
    capture, cut = scrub(answer)
    save(capture, args.output)
    size = args.output.stat().st_size // 1000
    taken = f"{cut} here" + (f", in {len(answer.redacted)} files on the host itself" if answer.redacted else "")
    looked = f"{len(capture.files)} files, {len(capture.commands)} commands"
    print(f"wrote {args.output}: {safe(capture.host)}, {looked}, {size} kB")
    print(f"secrets: none is left that was found; taken out: {taken}")
    print(f"\nIt still tells much about the host. See what it shows: provision doctor --capture {args.output}")
    return Exit.OK
