"""`provision rollback HOST [RUN]`: show the way back, ask, take it, say what came of it."""

from __future__ import annotations

import argparse
import sys
import time

from provisioner.cli import options
from provisioner.errors import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="the host to bring back")
    parser.add_argument(
        "run", nargs="?", metavar="RUN", help="to what it was before this run; without it, before its last change"
    )
    options.inventory(parser)
    options.json_output(parser)
    parser.add_argument("-n", "--dry-run", action="store_true", help="show the plan and change nothing")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--interrupt", action="store_true", help="do not wait for running jobs: stop the clients at once, jobs are lost"
    )
    parser.add_argument("--break-lock", action="store_true", help="take over a host that a dead run still holds")


def run(args: argparse.Namespace) -> int:
    from provisioner.actions.apply import Who, apply
    from provisioner.actions.plan import interrupting
    from provisioner.actions.rollback import plan_rollback
    from provisioner.adapters import inventory
    from provisioner.adapters.runs import SystemClock
    from provisioner.adapters.signing import Keyring
    from provisioner.cli.confirm import ask
    from provisioner.cli.verify import named
    from provisioner.cli.views.apply import Progress, applied_json, applied_text
    from provisioner.cli.views.history import way_back_text
    from provisioner.cli.views.plan import plan_json
    from provisioner.cli.wiring import SshProber, apply_ports, who_am_i
    from provisioner.matrix.reader import load

    began = time.monotonic()
    hosts = named(inventory.read(tuple(args.inventory), args.limit), [args.host])
    planned = plan_rollback(
        hosts,
        args.run,
        prober=SshProber(forks=args.forks, timeout_s=args.timeout),
        clock=SystemClock(),
        signatures=Keyring(),
        sources=tuple(args.inventory),
        contracts=options.contracts,
        matrix=load,
    )
    for problem in planned.failed.values():
        raise problem
    if args.interrupt:
        planned = interrupting(planned)
    if args.json and args.dry_run:
        print(plan_json(planned.plan))
        return Exit.FAILED if planned.plan.hosts[args.host].blocked else Exit.OK
    out = sys.stderr if args.json else sys.stdout
    print(way_back_text(planned, seconds=time.monotonic() - began), file=out)
    plan = planned.plan.hosts[args.host]
    if args.dry_run:
        return Exit.FAILED if plan.blocked else Exit.OK
    if not plan.blocked and not args.yes:
        ask(f"Bring {args.host} back?", "provision rollback --yes")
    with Progress([args.host] if not plan.blocked else [], out) as progress:
        ports = apply_ports(forks=args.forks, timeout_s=args.timeout)
        applied = apply(planned, ports, Who(*who_am_i()), on_event=progress.on_event, break_lock=args.break_lock)
    print(applied_json(applied) if args.json else applied_text(applied))
    return applied.exit_code
