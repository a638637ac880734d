"""`provision doctor`: what is wrong with hosts, why, and what mends it; the same from recorded captures."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.cli import options
from provisioner.errors import BadInput, Exit, HostError, ProvisionError

if TYPE_CHECKING:
    from provisioner.doctor.diagnose import Catalogue, Diagnosis

FORMAT = 1


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", nargs="*", metavar="HOST", help="names or patterns of the inventory; none: all of it")
    options.inventory(parser)
    options.json_output(parser)
    parser.add_argument(
        "--capture",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="recorded host to read, or a folder of them; no ssh; may be repeated",
    )
    parser.add_argument("--matrix", type=Path, metavar="DIR", help="read this folder instead of the matrix shipped")
    parser.add_argument("--fix", action="store_true", help="mend what a plan can mend: show the plan, ask, apply it")
    options.lock(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="with --fix: do not ask")
    parser.add_argument(
        "--interrupt", action="store_true", help="with --fix: stop the clients at once, running jobs are lost"
    )
    parser.add_argument("--break-lock", action="store_true", help="with --fix: take over hosts that a dead run holds")


def run(args: argparse.Namespace) -> int:
    if args.capture and (args.host or args.inventory):
        raise BadInput("host-and-capture", "--capture reads a recorded host: give no HOST and no inventory with it")
    if args.capture and args.fix:
        raise BadInput(
            "fix-needs-a-host",
            "a recorded host cannot be mended",
            hint="name the host itself: provision doctor HOST --fix",
        )
    catalogue = options.mechanisms(args.matrix)
    if args.fix:
        from provisioner.cli.doctor_fix import fix

        return fix(args, catalogue)
    answers = _recorded(args.capture, catalogue) if args.capture else _live(args, catalogue)
    return _json(answers) if args.json else _text(answers, recorded=bool(args.capture), inventory=args.inventory)


def _live(args: argparse.Namespace, catalogue: Catalogue) -> Iterator[Diagnosis | ProvisionError]:
    from provisioner.actions.doctor import doctor
    from provisioner.adapters import inventory
    from provisioner.cli.wiring import SshProber

    hosts = inventory.read(tuple(args.inventory), limit_of(args))
    yield from doctor(hosts, SshProber(forks=args.forks, timeout_s=args.timeout), catalogue)


def limit_of(args: argparse.Namespace) -> str | None:
    """The hosts that are named, as a pattern of the inventory; None for all of it."""
    return ",".join([*args.host, *([args.limit] if args.limit else [])]) or None


def _recorded(paths: list[Path], catalogue: Catalogue) -> Iterator[Diagnosis | ProvisionError]:
    """One capture at a time: memory does not grow with their number. One that can't be read does not stop the rest."""
    from provisioner.adapters.captures import load_capture
    from provisioner.doctor.diagnose import diagnose

    files = [file for path in paths for file in (_captures_in(path) if path.is_dir() else [path])]
    for file in files:
        try:
            yield diagnose(load_capture(file), catalogue)
        except BadInput as problem:
            if len(files) == 1:
                raise
            yield problem


def _captures_in(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in (".json", ".yaml", ".yml") and file.is_file())


def _text(answers: Iterator[Diagnosis | ProvisionError], *, recorded: bool, inventory: list[str]) -> int:
    from provisioner.cli.views.doctor import diagnosis_text
    from provisioner.cli.words import error_text

    code = Exit.OK
    bad = False
    first = True
    for answer in answers:
        if isinstance(answer, ProvisionError):
            print(error_text(answer), file=sys.stderr)
            bad = bad or not isinstance(answer, HostError)
            code = Exit.FAILED
            continue
        print(("" if first else "\n") + diagnosis_text(answer, recorded=recorded, inventory=inventory), flush=True)
        first = False
        code = Exit.FAILED if answer.serious else code
    return Exit.BAD_INPUT if bad else code


def _json(answers: Iterator[Diagnosis | ProvisionError]) -> int:
    """Written as the hosts come, so that a thousand of them need no more room than one."""
    from provisioner.cli.views.doctor import diagnosis_json

    code = Exit.OK
    bad = False
    failures = []
    sys.stdout.write(f'{{"format": {FORMAT}, "hosts": [')
    between = "\n"
    for answer in answers:
        if isinstance(answer, ProvisionError):
            failures.append(
                {"host": getattr(answer, "host", None), "reference": answer.reference, "message": answer.message}
            )
            bad = bad or not isinstance(answer, HostError)
            code = Exit.FAILED
            continue
        sys.stdout.write(between + json.dumps(diagnosis_json(answer)))
        between = ",\n"
        code = Exit.FAILED if answer.serious else code
    sys.stdout.write(f'\n], "failures": {json.dumps(failures)}}}\n')
    return Exit.BAD_INPUT if bad else code
