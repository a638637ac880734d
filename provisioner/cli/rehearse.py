"""`provision rehearse`: two locks, a throwaway host per distinct stack, a verdict for each, and reports for CI."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.cli import options
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.model.rehearsal import Case, StepName
    from provisioner.model.stack import Lock

ROOT = Path(".provision/rehearsal")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--from", dest="before", type=Path, default=Path(options.LOCK), metavar="LOCK", help="the lock in use"
    )
    parser.add_argument("--to", dest="after", type=Path, required=True, metavar="LOCK", help="the candidate")
    parser.add_argument(
        "-i",
        "--inventory",
        action="append",
        default=[],
        metavar="SOURCE",
        help="only hosts of this Ansible inventory; it is read, no host of it is touched",
    )
    parser.add_argument("-l", "--limit", metavar="PATTERN", help="only these hosts of the inventory")
    parser.add_argument("-n", "--dry-run", action="store_true", help="name the stacks to rehearse, start nothing")
    parser.add_argument("-j", "--jobs", type=int, metavar="N", help="hosts at once (default: what this machine bears)")
    parser.add_argument("--fresh", action="store_true", help="rehearse also what passed before")
    parser.add_argument(
        "--tolerate-unrehearsed",
        action="store_true",
        help="end with 0 although a stack could not be rebuilt here; it is still named",
    )
    parser.add_argument("--name", default="rehearse", metavar="NAME", help="begins the names of the labs (%(default)s)")
    options.json_output(parser)
    parser.add_argument("--junit", type=Path, metavar="FILE", help="JUnit XML: a suite per stack, a case per step")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a report with plan, differences and logs; one file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="a summary to post under a pull request")


def run(args: argparse.Namespace) -> int:
    from provisioner.cli.views import rehearse as view
    from provisioner.resolve.rehearsal import ways

    if args.jobs is not None and args.jobs < 1:
        raise BadInput("rehearse-jobs", "--jobs must be 1 or more")
    for path in (args.junit, args.html, args.markdown):
        if path is not None and not path.absolute().parent.is_dir():  # said before an hour of work, not after
            raise BadInput("report-not-written", f"no report can be written to {path}: there is no such folder")
    before, after = _narrowed(args)
    found = ways(before, after)
    if args.dry_run:
        print(view.ways_json(found) if args.json else view.ways_text(found), end="\n" if args.json else "")
        return Exit.OK
    from provisioner.actions.rehearse import rehearse
    from provisioner.adapters.rehearsal import LabTheatre
    from provisioner.adapters.rehearsal_memory import CaseFiles, jobs_here, only_one
    from provisioner.adapters.runs import SystemClock

    out = sys.stderr if args.json else sys.stdout
    jobs = args.jobs or jobs_here()
    print(view.opening(found, jobs), file=out, flush=True)
    with only_one(ROOT):
        done = rehearse(
            before,
            after,
            theatre=LabTheatre(ROOT, args.name),
            memory=CaseFiles(ROOT),
            clock=SystemClock(),
            jobs=jobs,
            fresh=args.fresh,
            say=_Said(out),
        )
    for path, text in ((args.junit, view.junit_text), (args.html, view.html_text), (args.markdown, view.markdown_text)):
        if path is not None:
            _write(path, text(done))
    print(view.rehearsed_json(done) if args.json else view.rehearsed_text(done, str(args.after)), end="")
    if done.named("failed"):
        return Exit.FAILED
    return Exit.FAILED if done.named("not-rehearsed") and not args.tolerate_unrehearsed else Exit.OK


class _Said:
    """One line per step that begins; several cases are under way at once."""

    def __init__(self, out: object) -> None:
        self._out = out
        self._lock = threading.Lock()

    def __call__(self, case: Case, step: StepName | None, text: str) -> None:
        from provisioner.cli.words import safe

        words = "  ".join(part for part in (step or "", safe(text)) if part)
        with self._lock:
            print(f"{time.strftime('%H:%M:%S')}  {case.name}  {words}", file=self._out, flush=True)  # type: ignore[call-overload]  # stdout or stderr


def _narrowed(args: argparse.Namespace) -> tuple[Lock, Lock]:
    """Both locks, of the hosts that were asked for. One that the candidate does not hold is an error, not less work."""
    from provisioner.resolve.lock import read_lock

    before, after = read_lock(args.before), read_lock(args.after)
    if not args.inventory:
        if args.limit:
            raise BadInput("rehearse-limit", "--limit narrows an inventory", hint="Name it with -i")
        return before, after
    from provisioner.adapters import inventory

    names = [host.name for host in inventory.read(tuple(args.inventory), args.limit)]
    missing = [name for name in names if name not in after.hosts]
    if missing:
        raise BadInput(
            "rehearse-host-not-locked",
            f"{args.after} holds no entry for {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}",
            hint=f"provision resolve -o {args.after} makes it, or leave the host out with --limit",
        )
    keep = set(names)
    return (
        before.model_copy(update={"hosts": {name: entry for name, entry in before.hosts.items() if name in keep}}),
        after.model_copy(update={"hosts": {name: after.hosts[name] for name in sorted(keep)}}),
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise BadInput("report-not-written", f"the report cannot be written to {path}: {problem}") from problem
