"""`provision apply`: show the plan, ask, do it, say what came of it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.cli import options
from provisioner.errors import BadInput

if TYPE_CHECKING:
    from provisioner.actions.apply import ApplyPorts
    from provisioner.actions.plan import Planned
    from provisioner.model.plan import Plan


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plan", nargs="?", type=Path, metavar="PLAN", help="a saved plan: do exactly that, or refuse")
    options.inventory(parser)
    options.lock(parser)
    options.json_output(parser)
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--interrupt", action="store_true", help="do not wait for running jobs: stop the clients at once, jobs are lost"
    )
    parser.add_argument("--break-lock", action="store_true", help="take over hosts that a dead run still holds")


def run(args: argparse.Namespace) -> int:
    from provisioner.actions.apply import Who, apply, refuse_if_moved
    from provisioner.actions.plan import interrupting
    from provisioner.cli.confirm import ask
    from provisioner.cli.views.apply import Progress, applied_json, applied_text
    from provisioner.cli.views.plan import plan_text
    from provisioner.cli.wiring import who_am_i

    saved = _saved(args.plan) if args.plan else None
    sources = tuple(args.inventory) or (saved.inventory if saved else ())
    limit = args.limit or (saved.limit if saved else None)
    began = time.monotonic()
    planned = _plan(args, sources, limit, saved)
    if saved is not None:
        refuse_if_moved(saved, planned)
    if args.interrupt:
        planned = interrupting(planned)
    out = sys.stderr if args.json else sys.stdout
    print(
        plan_text(planned, seconds=time.monotonic() - began, lock=str(args.lock), next_command="continues below"),
        file=out,
    )
    todo = [
        plan for plan in planned.plan.hosts.values() if not plan.blocked and not (plan.up_to_date and plan.enrolled)
    ]
    if todo and saved is None and not args.yes:
        ask(
            f"Apply this to {len(todo)} host{'' if len(todo) == 1 else 's'}?",
            "provision apply --yes, or save a plan with provision plan -o FILE and apply that",
        )
    with Progress([plan.host for plan in todo], out) as progress:
        applied = apply(planned, _ports(args), Who(*who_am_i()), on_event=progress.on_event, break_lock=args.break_lock)
    if args.json:
        print(applied_json(applied))
    elif todo or planned.failed or applied.exit_code:
        print(applied_text(applied))
    return applied.exit_code


def _saved(path: Path) -> Plan:
    from pydantic import ValidationError

    from provisioner.model.plan import Plan

    try:
        return Plan.model_validate_json(path.read_bytes())
    except OSError as problem:
        raise BadInput("plan-not-found", f"{path}: {problem.strerror}", hint="provision plan -o FILE") from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput("plan-not-valid", f"{path} is not a saved plan: {where}: {first['msg']}") from problem


def _plan(args: argparse.Namespace, sources: tuple[str, ...], limit: str | None, saved: Plan | None) -> Planned:
    from provisioner.actions.plan import make_plan
    from provisioner.adapters import inventory
    from provisioner.adapters.runs import SystemClock
    from provisioner.adapters.signing import Keyring
    from provisioner.cli.wiring import SshProber

    hosts = inventory.read(sources, limit)
    if saved is not None:
        hosts = tuple(host for host in hosts if host.name in saved.hosts)
    prober = SshProber(forks=args.forks, timeout_s=args.timeout)
    lock = options.read_lock_in_use(args.lock)
    return make_plan(
        hosts,
        lock,
        prober=prober,
        clock=SystemClock(),
        signatures=Keyring(),
        sources=sources,
        limit=limit,
        contracts=options.contracts,
        mechanisms=options.mechanisms,
        environment=os.environ.keys(),
    )


def _ports(args: argparse.Namespace) -> ApplyPorts:
    from provisioner.cli.wiring import apply_ports

    return apply_ports(forks=args.forks, timeout_s=args.timeout)
