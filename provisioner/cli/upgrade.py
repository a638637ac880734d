"""`provision upgrade NETWORK --to VERSION`: arguments, one look, the lock, a view; with --apply the rollout too."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from provisioner.cli import lockfile, options
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.actions.plan import Planned
    from provisioner.model.inventory import InventoryHost
    from provisioner.model.run import HostResult
    from provisioner.model.stack import Lock


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="id of a network, such as akash")
    parser.add_argument("--to", required=True, metavar="VERSION", help="version of its client")
    options.inventory(parser)
    options.json_output(parser)
    lockfile.arguments(parser, "the steps")
    options.captures(parser, "to look at")
    rollout = parser.add_argument_group("rollout")
    rollout.add_argument(
        "--apply", action="store_true", help="apply it too: pins first, a canary, its health, the rest in batches"
    )
    rollout.add_argument("-y", "--yes", action="store_true", help="do not ask")
    rollout.add_argument("--canary", type=int, default=1, metavar="N", help="hosts that go first (%(default)s)")
    rollout.add_argument("--batch", type=int, default=0, metavar="N", help="hosts at a time after them (a quarter)")
    rollout.add_argument(
        "--watch", type=int, default=300, metavar="SECONDS", help="how long each must serve without a gap (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    if not args.apply:
        return _lock(args)
    if args.capture or args.dry_run or args.json:
        raise BadInput("not-together", "--apply does not go with --capture, --dry-run or --json")
    return _roll_out(args)


def _lock(args: argparse.Namespace) -> int:
    from provisioner.actions.upgrade import upgrade
    from provisioner.adapters import inventory
    from provisioner.cli.views.upgrade import upgraded_json, upgraded_text
    from provisioner.cli.wiring import prober_for
    from provisioner.matrix.reader import load

    before = options.read_lock_in_use(args.lock)
    hosts, prober = prober_for(inventory.read(tuple(args.inventory), args.limit), args)
    upgraded = upgrade(hosts, args.network, args.to, load(), before, prober=prober)
    written = None if args.dry_run else lockfile.write(args.lock, upgraded.lock, before)
    if args.json:
        print(upgraded_json(upgraded))
    else:
        print(upgraded_text(upgraded, args.network, args.to, written, args.inventory, str(args.lock)), end="")
    if upgraded.named("cannot"):
        return Exit.UNRESOLVABLE
    return Exit.FAILED if upgraded.failed or upgraded.unlocked else Exit.OK


def _roll_out(args: argparse.Namespace) -> int:
    """Those that must move first, then those that hold; each way canary, health, batches. A fault ends it."""
    from provisioner.actions.rollout import RolledOut, batches, roll_out
    from provisioner.actions.upgrade import upgrade
    from provisioner.adapters import inventory
    from provisioner.cli.confirm import ask
    from provisioner.cli.views.upgrade import rolled_out_text, upgraded_text
    from provisioner.cli.wiring import SshProber
    from provisioner.matrix.reader import load

    hosts = inventory.read(tuple(args.inventory), args.limit)
    prober = SshProber(forks=args.forks, timeout_s=args.timeout)
    matrix = load()
    whole = RolledOut()
    for states, words in (
        (("moves", "waits"), "driver and runtime first; the client stays"),
        (("holds", "done"), "the client"),
    ):
        before = options.read_lock_in_use(args.lock)
        upgraded = upgrade(hosts, args.network, args.to, matrix, before, prober=prober)
        if not whole.fates:
            told = upgraded_text(upgraded, args.network, args.to, None, args.inventory, str(args.lock))
            print(told.partition("\nFirst: ")[0].partition("\nNext: ")[0].partition("\nAny time: ")[0])
            if upgraded.named("cannot") or upgraded.failed or upgraded.unlocked:
                print("Not every host has its step: nothing was changed, and the lock is as it was.")
                return Exit.UNRESOLVABLE if upgraded.named("cannot") else Exit.FAILED
        # Both kinds of step stand in one lock; only the hosts of this half get theirs now.
        todo = upgraded.named(*states)
        if not todo:
            continue
        if not whole.fates and not args.yes:
            ask(f"Roll this out, {args.canary} first?", "provision upgrade --apply --yes")
        print(f"{words}: {len(todo)} host{'' if len(todo) == 1 else 's'}")
        means = _Means(args, hosts, before, upgraded.lock)
        out = roll_out(batches(todo, canary=args.canary, most=args.batch), means)
        whole.fates |= out.fates
        if out.stopped:
            break
    print(rolled_out_text(whole, args.network, args.to, args.inventory, str(args.lock)), end="")
    return Exit.FAILED if whole.stopped else Exit.OK


class _Means:
    """What a rollout does to the world. An entry is in the lock from the time its host is taken until it goes back."""

    def __init__(self, args: argparse.Namespace, hosts: Sequence[InventoryHost], before: Lock, after: Lock) -> None:
        from provisioner.cli.wiring import SshProber, SshShell

        self.args = args
        self.hosts = {host.name: host for host in hosts}
        self.before = before
        self.after = after
        self.taken: set[str] = set()
        self.runs: dict[str, str] = {}
        self.shell = SshShell()
        self.prober = SshProber(forks=args.forks, timeout_s=args.timeout)

    def bring(self, hosts: Sequence[str]) -> Mapping[str, HostResult]:
        from provisioner.actions.plan import make_plan
        from provisioner.adapters.runs import SystemClock
        from provisioner.adapters.signing import Keyring

        self.taken |= set(hosts)
        planned = make_plan(
            [self.hosts[name] for name in hosts],
            self._written(),
            prober=self.prober,
            clock=SystemClock(),
            signatures=Keyring(),
            sources=tuple(self.args.inventory),
            contracts=options.contracts,
            environment=os.environ.keys(),
        )
        results = self._applied(planned)
        gone = [name for name, result in results.items() if result.state == "rolled-back"]
        if gone:
            self.taken -= set(gone)
            self._written()
        return results

    def watch(self, hosts: Sequence[str]) -> Mapping[str, str]:
        from provisioner.actions.rollout import watched

        return watched([self.hosts[name] for name in hosts], self.args.network, self.args.watch, shell=self.shell)

    def back(self, hosts: Sequence[str]) -> Mapping[str, HostResult]:
        from provisioner.actions.plan import interrupting
        from provisioner.actions.rollback import plan_rollback
        from provisioner.adapters.runs import SystemClock
        from provisioner.adapters.signing import Keyring

        self.taken -= set(hosts)
        self._written()
        results: dict[str, HostResult] = {}
        for name in hosts:
            planned = plan_rollback(
                [self.hosts[name]],
                None,
                prober=self.prober,
                clock=SystemClock(),
                signatures=Keyring(),
                sources=tuple(self.args.inventory),
                made_in=self.runs[name],
            )
            # It does not serve: there is no job of its client to wait for.
            results |= self._applied(interrupting(planned))
        return results

    def tell(self, line: str) -> None:
        print(f"  {line}", flush=True)

    def _applied(self, planned: Planned) -> dict[str, HostResult]:
        from provisioner.actions.apply import Who, apply
        from provisioner.cli.views.apply import Progress
        from provisioner.cli.wiring import apply_ports, who_am_i

        todo = [plan.host for plan in planned.plan.hosts.values() if not plan.blocked]
        with Progress(todo, sys.stdout) as progress:
            ports = apply_ports(forks=self.args.forks, timeout_s=self.args.timeout)
            applied = apply(planned, ports, Who(*who_am_i()), on_event=progress.on_event)
        self.runs |= dict.fromkeys(applied.results, applied.run)
        return applied.results

    def _written(self) -> Lock:
        """The lock in which just the hosts that were taken have their new entry."""
        entries = {**self.before.hosts, **{name: self.after.hosts[name] for name in self.taken}}
        lock = self.before.model_copy(update={"hosts": entries})
        lockfile.write(self.args.lock, lock, None)
        return lock
