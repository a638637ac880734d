"""`provision doctor --fix`: findings, the plan that mends them, one question, apply, and a second look."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from provisioner.cli import options
from provisioner.cli.doctor import limit_of
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from provisioner.actions.mend import Patient
    from provisioner.actions.plan import Planned
    from provisioner.doctor.diagnose import Catalogue
    from provisioner.model.inventory import InventoryHost


def fix(args: argparse.Namespace, catalogue: Catalogue) -> int:
    """Mend what plans can mend, and explain the rest. Returns the exit code."""
    from provisioner.actions.apply import Who, apply
    from provisioner.actions.mend import look, only, outcome, prescribe
    from provisioner.actions.plan import interrupting
    from provisioner.adapters import inventory
    from provisioner.cli.confirm import ask
    from provisioner.cli.views.apply import Progress, applied_text
    from provisioner.cli.views.doctor_fix import fixed_json, fixed_text, prescription_text
    from provisioner.cli.views.plan import plan_text
    from provisioner.cli.wiring import SshProber, apply_ports, who_am_i
    from provisioner.cli.words import error_text

    hosts = inventory.read(tuple(args.inventory), limit_of(args))
    prober = SshProber(forks=args.forks, timeout_s=args.timeout)
    patients, failed = look(hosts, prober, catalogue)
    for problem in failed.values():
        print(error_text(problem), file=sys.stderr)
    began = time.monotonic()
    planned, without = _planned(args, [p.host for p in patients.values() if p.wants_plan], catalogue)
    patients = prescribe(patients, planned, catalogue, without=without)
    treated = [name for name, patient in patients.items() if patient.treated]
    out = sys.stderr if args.json else sys.stdout
    print(prescription_text(tuple(patients.values())), file=out)
    if planned is None or not treated:
        if args.json:
            print(fixed_json(tuple(patients.values()), failed.values(), None, {}))
        return Exit.FAILED if failed or _serious(patients.values()) else Exit.OK
    planned = only(planned, treated)
    if args.interrupt:
        planned = interrupting(planned)
    seconds = time.monotonic() - began
    words = plan_text(planned, seconds=seconds, lock=str(args.lock), next_command="continues below")
    print(f"\n{words}", file=out)
    if not args.yes:
        hint = "provision doctor --fix --yes; or provision plan -o FILE, and apply that"
        ask(f"Apply this to {len(treated)} host{'' if len(treated) == 1 else 's'}?", hint)
    with Progress(treated, out) as progress:
        ports = apply_ports(forks=args.forks, timeout_s=args.timeout)
        applied = apply(planned, ports, Who(*who_am_i()), on_event=progress.on_event, break_lock=args.break_lock)
    print(applied_text(applied, following=""), file=out)
    again, _ = look([applied.moved.get(name, patients[name].host) for name in treated], prober, catalogue)
    outcomes = {name: outcome(patients[name].diagnosis, one.diagnosis) for name, one in again.items()}
    print(fixed_text(outcomes, tuple(args.inventory)), file=out)
    if args.json:
        print(fixed_json(tuple(patients.values()), failed.values(), applied, outcomes))
    left = _serious([patient for name, patient in patients.items() if name not in again] + list(again.values()))
    return applied.exit_code or (Exit.FAILED if failed or left else Exit.OK)


def _serious(patients: Iterable[Patient]) -> bool:
    return any(patient.diagnosis.serious for patient in patients)


def _planned(args: argparse.Namespace, hosts: list[InventoryHost], catalogue: Catalogue) -> tuple[Planned | None, str]:
    """The ordinary plan of these hosts; without a lock that can be used, the reason why there is none."""
    from provisioner.actions.plan import make_plan
    from provisioner.adapters.runs import SystemClock
    from provisioner.adapters.signing import Keyring
    from provisioner.cli.wiring import SshProber

    if not hosts:
        return None, ""
    try:
        lock = options.read_lock_in_use(args.lock)
    except BadInput as problem:
        return None, problem.message + (f" ({problem.hint})" if problem.hint else "")
    planned = make_plan(
        hosts,
        lock,
        prober=SshProber(forks=args.forks, timeout_s=args.timeout),
        clock=SystemClock(),
        signatures=Keyring(),
        sources=tuple(args.inventory),
        limit=",".join(host.name for host in hosts) if args.inventory else None,
        contracts=options.contracts,
        mechanisms=lambda: catalogue,
        environment=os.environ.keys(),
    )
    return planned, ""
