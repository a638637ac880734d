"""`provision plan`: arguments, one look, a view."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from provisioner.cli import options
from provisioner.cli.words import next_command
from provisioner.errors import BadInput, Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    options.inventory(parser)
    options.lock(parser)
    options.json_output(parser)
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="save the plan, for provision apply FILE")
    parser.add_argument(
        "--exit-code", action="store_true", help="exit with 0 when nothing differs, 2 when something does, 1 on failure"
    )
    options.captures(parser, "to plan for")


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    hosts_aside = options.hosts_aside(args)
    from provisioner.actions.plan import make_plan
    from provisioner.adapters.runs import SystemClock
    from provisioner.adapters.signing import Keyring
    from provisioner.cli.views.plan import plan_json, plan_text
    from provisioner.cli.wiring import prober_for

    lock = options.read_lock_in_use(args.lock)
    hosts, prober = prober_for(hosts_aside(), args)
    planned = make_plan(
        hosts,
        lock,
        prober=prober,
        clock=SystemClock(),
        signatures=Keyring(),
        sources=tuple(args.inventory),
        limit=args.limit,
        contracts=options.contracts,
        mechanisms=options.mechanisms,
        environment=os.environ.keys(),
    )
    if args.out is not None:
        _save(args.out, plan_json(planned.plan))
    if args.json:
        print(plan_json(planned.plan))
    else:
        print(plan_text(planned, seconds=time.monotonic() - began, lock=str(args.lock), next_command=_next(args)))
    if planned.failed or any(plan.blocked for plan in planned.plan.hosts.values()):
        return Exit.FAILED
    if args.exit_code and any(True for _ in planned.plan.differing()):
        return Exit.DIFFERS
    return Exit.OK


def _save(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as problem:
        raise BadInput("plan-not-written", f"the plan cannot be written to {path}: {problem}") from problem
    print(f"plan saved in {path}", file=sys.stderr)


def _next(args: argparse.Namespace) -> str:
    if args.out is not None:
        return shlex.join(["provision", "apply", str(args.out)])
    return next_command("apply", args.inventory, [args.limit] if args.limit else [], str(args.lock))
