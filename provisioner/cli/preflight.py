"""`provision preflight`: what would go wrong if the plan were carried out; nothing is changed."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from provisioner.cli import options
from provisioner.errors import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    options.inventory(parser)
    options.lock(parser)
    options.json_output(parser)
    options.captures(parser, "to look ahead for")
    parser.add_argument("--matrix", type=Path, metavar="DIR", help="read mechanisms from this folder instead")


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    hosts_aside = options.hosts_aside(args)
    from provisioner.actions.plan import make_plan
    from provisioner.actions.preflight import preflight
    from provisioner.adapters.runs import SystemClock
    from provisioner.adapters.signing import Keyring
    from provisioner.cli.views.plan import plan_json
    from provisioner.cli.views.preflight import preflight_text
    from provisioner.cli.wiring import prober_for

    lock = options.read_lock_in_use(args.lock)
    hosts, prober = prober_for(hosts_aside(), args)
    catalogue = options.mechanisms(args.matrix)
    planned = preflight(
        hosts,
        lambda: make_plan(
            hosts,
            lock,
            prober=prober,
            clock=SystemClock(),
            signatures=Keyring(),
            sources=tuple(args.inventory),
            limit=args.limit,
            environment=os.environ.keys(),
        ),
        prober,
        catalogue,
    )
    if args.json:
        print(plan_json(planned.plan))
    else:
        print(preflight_text(planned, time.monotonic() - began, len(catalogue.mechanisms), tuple(args.inventory)))
    plans = planned.plan.hosts.values()
    bad = any(plan.blocked or any(item.new for item in plan.ahead) for plan in plans)
    return Exit.FAILED if planned.failed or bad else Exit.OK
