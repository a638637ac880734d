"""`provision invite`: a file for the owner of a rig that cannot be reached yet; later, taking the rig in."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.cli import lockfile, options
from provisioner.cli.words import next_command, safe
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.actions.invite import Joined
    from provisioner.model.inventory import InventoryHost


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="name as in the inventory; its hub is set up already")
    options.inventory(parser)
    options.lock(parser)
    parser.add_argument("--hours", type=float, default=24, metavar="N", help="how long it is good (default 24)")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="where to write it (default HOST.invite)")
    parser.add_argument("--key", type=Path, metavar="FILE", help="the public ssh key that the rig is to let in")
    parser.add_argument("--hub-address", metavar="HOST[:PORT]", help="where the rig finds the hub's ssh, if not there")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--accept", action="store_true", help="take in the rig that came with the invitation")
    what.add_argument("--revoke", action="store_true", help="take back an invitation that was not used yet")
    parser.add_argument(
        "--fingerprint", metavar="SHA256:…", help="with --accept: only if the rig's host key has it; asks nothing"
    )


def run(args: argparse.Namespace) -> int:
    from provisioner.actions import invite as action
    from provisioner.cli.wiring import SshShell

    host, hub = _hosts(args)
    shell = SshShell()
    if args.revoke:
        count = action.revoke(host, hub, shell)
        print(f"{count} invitation{'' if count == 1 else 's'} of {host.name} taken back")
        return Exit.OK
    if args.accept:
        return _accept(args, host, hub)
    return _invite(args, host, hub)


def _hosts(args: argparse.Namespace) -> tuple[InventoryHost, InventoryHost]:
    from provisioner.actions.invite import hub_name
    from provisioner.adapters import inventory

    (host,) = inventory.read(tuple(args.inventory), args.host)
    name = hub_name(host)
    hubs = [h for h in inventory.read(tuple(args.inventory), name) if h.name == name]
    if not hubs:
        raise BadInput("tunnel-hub-unknown", f"{host.name}: its hub {name} is not in the inventory")
    return host, hubs[0]


def _invite(args: argparse.Namespace, host: InventoryHost, hub: InventoryHost) -> int:
    from provisioner.actions import invite as action
    from provisioner.adapters import hostkeys, ssh
    from provisioner.adapters.invitations import make_secrets, operator_keys, write_invitation
    from provisioner.adapters.names import resolves
    from provisioner.cli.wiring import SshShell
    from provisioner.model.tunnel import split_endpoint
    from provisioner.resolve.lock import read_lock

    if args.hours <= 0 or args.hours > 24 * 30:
        raise BadInput("bad-argument", f"--hours {args.hours:g}: between a few minutes and 720 hours")
    out = args.out or Path(f"{host.name}.invite")
    if out.exists():
        raise BadInput("invite-file-exists", f"{out} is there already", hint="remove it, or name another with -o FILE")
    target, far = (ssh.Target.from_variables(h.name, h.variables) for h in (host, hub))
    keys = hostkeys.recorded(far) if not far.local else hostkeys.own_keys()
    if not keys:
        raise BadInput(
            "invite-hub-not-trusted", f"no ssh key of {hub.name} is on record here", hint=f"provision trust {hub.name}"
        )
    endpoint = split_endpoint(hub.intent.tunnel.endpoint or "")[0]
    if args.hub_address is None and not resolves(endpoint):
        raise BadInput(
            "tunnel-endpoint-unresolved",
            f"{host.name}: the endpoint of {hub.name}, {hub.intent.tunnel.endpoint}, does not resolve to an address",
            hint=f"correct provision_tunnel.endpoint of {hub.name}; if only rigs know that name: --hub-address HOST",
        )
    where = args.hub_address or f"{endpoint}:{far.port or 22}"
    ssh_host, _, ssh_port = where.rpartition(":") if where.count(":") == 1 else (where, "", "")
    before = read_lock(args.lock)
    invitation, lock = action.invite(
        host,
        action.Hub(hub, ssh_host or where, int(ssh_port or far.port or 22), keys),
        before,
        SshShell(),
        make_secrets(),
        expires=int(time.time() + args.hours * 3600),
        user=target.user or "root",
        keys=operator_keys(target, args.key),
    )
    write_invitation(out, invitation.text)
    lockfile.write(args.lock, lock, before)
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(invitation.expires))
    code = f"{invitation.code[:4]}-{invitation.code[4:]}"
    print(f"Invitation for {host.name}, which will be {invitation.address} behind {hub.name}: good once, until {until}")
    print(f"\n  Send its owner the file {out}, to run there:   sudo python3 {out.name}")
    print(f"  Tell them the code by another way (a call):    {code}")
    print("\nWithout the code the file opens nothing, and three wrong ones end it.")
    print(f"\nNext, when they have told you the fingerprint: {_again(args)} --accept")
    return Exit.OK


def _accept(args: argparse.Namespace, host: InventoryHost, hub: InventoryHost) -> int:
    from provisioner.actions import invite as action
    from provisioner.adapters import hostkeys, ssh
    from provisioner.adapters.paths import TunnelPaths, store
    from provisioner.cli.wiring import SshShell
    from provisioner.model.tunnel import TunnelLock
    from provisioner.resolve.lock import read_lock

    lock = read_lock(args.lock)
    came = action.joined(host, hub, SshShell())
    key = hostkeys.named_key(host.name, came.host_keys[0])
    _show(came, key.fingerprint)
    if args.fingerprint is not None:
        if args.fingerprint != key.fingerprint:
            raise BadInput(
                "fingerprint-differs",
                f"who joined as {host.name} does not have {args.fingerprint}; nothing was recorded",
                hint=f"somebody else may have used it: provision tunnel remove {host.name}, then invite it anew",
            )
    elif not _agreed():
        raise BadInput("not-confirmed", f"{host.name} was not taken in; nothing was recorded")
    paths = TunnelPaths()

    def keep(member: InventoryHost, tunnel: TunnelLock, host_key: str) -> None:
        hostkeys.record_named(ssh.Target.from_variables(member.name, member.variables), key)
        store(member.name, paths.way(member, tunnel, alias=member.name))

    lockfile.write(args.lock, action.take_in(host, came, lock, keep), lock)
    print(
        f"{host.name} is taken in: its ssh key is on record, and commands reach it at {came.address} through {hub.name}"
    )
    both = ",".join(sorted((host.name, hub.name)))
    print(f"\nNext: {next_command('resolve', args.inventory, [both])}, then provision apply for both")
    return Exit.OK


def _show(came: Joined, fingerprint: str) -> None:
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(came.at))
    print(f"{came.host} joined on {at} from {safe(came.came_from)}, as the machine {safe(came.machine)!r}")
    print(f"  address      {came.address}")
    print(f"  ssh host key {fingerprint}")


def _agreed() -> bool:
    return sys.stdin.isatty() and input("Is this the fingerprint that its owner told you? [y/N] ").lower() in (
        "y",
        "yes",
    )


def _again(args: argparse.Namespace) -> str:
    words = ["provision", "invite", args.host]
    for source in args.inventory:
        words += ["-i", source]
    return shlex.join(words)
