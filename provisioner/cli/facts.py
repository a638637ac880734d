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
    from provisioner.model.stack import Lock
    from provisioner.probe.request import Request


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", nargs="*", metavar="HOST", help="names or patterns of the inventory; none: all of it")
    options.inventory(parser)
    options.json_output(parser)
    options.captures(parser, "to read")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="record the one host; for several, a folder that gets HOST.json each"
    )
    parser.add_argument(
        "--lock", type=Path, metavar="FILE", help="with --save: record also what a plan by this lock compares"
    )


def run(args: argparse.Namespace) -> int:
    from provisioner import facts
    from provisioner.adapters import inventory
    from provisioner.cli.views.facts import facts_json, facts_text
    from provisioner.cli.wiring import prober_for
    from provisioner.cli.words import error_text

    if args.capture and (args.host or args.inventory):
        raise BadInput("host-and-capture", "--capture reads a recorded host: give no HOST and no inventory with it")
    limit = ",".join([*args.host, *([args.limit] if args.limit else [])]) or None
    hosts: Sequence[InventoryHost] = () if args.capture else inventory.read(tuple(args.inventory), limit)
    hosts, prober = prober_for(hosts, args)
    if args.save is not None:
        _refuse_one_file(args.save, hosts)
    lock = _lock(args)
    answers = prober.probe(hosts, {host.name: _asked(host.name, lock) for host in hosts})
    captures = [answer for answer in answers.values() if not isinstance(answer, HostError)]
    failures = [answer for answer in answers.values() if isinstance(answer, HostError)]
    if args.save is not None:
        from provisioner.adapters.captures import save

        for capture in captures:
            path = args.save / f"{capture.host.replace('/', '_')}.json" if args.save.is_dir() else args.save
            save(capture, path)
            print(f"{capture.host} recorded in {path}", file=sys.stderr)
    seen = [facts.read(capture) for capture in captures]
    if args.json:
        print(facts_json(seen, failures))
    elif seen and args.save is None:
        print("\n\n".join(facts_text(host) for host in seen))
    if not args.json:
        for failure in failures:
            print(error_text(failure), file=sys.stderr)
    return Exit.FAILED if failures else Exit.OK


def _lock(args: argparse.Namespace) -> Lock | None:
    if args.lock is None:
        return None
    if args.save is None:
        raise BadInput("lock-and-no-save", "--lock says what to record: give --save with it")
    from provisioner.resolve.lock import read_lock

    return read_lock(args.lock)


def _asked(host: str, lock: Lock | None) -> Request:
    """All facts; for a host of the lock also the files and units that a plan would look at."""
    from provisioner.probe.request import FULL, Request

    if lock is None or host not in lock.hosts:
        return Request(FULL)
    from dataclasses import replace

    from provisioner.actions.plan import goal_of, request_for

    return replace(request_for(goal_of(lock.hosts[host], lock.matrix)), profile=FULL)


def _refuse_one_file(path: Path, hosts: Sequence[InventoryHost]) -> None:
    """One host goes into the file that was named, several into a folder."""
    if len(hosts) > 1 and not path.is_dir():
        raise BadInput(
            "save-needs-folder",
            f"{len(hosts)} hosts cannot be recorded in one file",
            hint=f"mkdir -p {path} and run the same again, or name one HOST",
        )
