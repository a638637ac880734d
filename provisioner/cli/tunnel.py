"""`provision tunnel`: what the lock says of each host's tunnel; a new key for a host; taking a host out."""

from __future__ import annotations

import argparse

from provisioner.cli import options
from provisioner.cli.words import safe, table
from provisioner.errors import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True, help="show, rotate or remove")
    show = what.add_parser("show", help="addresses, keys and peers, as the lock has them")
    show.add_argument("host", nargs="*", metavar="HOST", help="only these; with one, how to look after it by hand")
    rotate = what.add_parser("rotate", help="have a host make a new key; the old one serves until the new one is known")
    rotate.add_argument("host", metavar="HOST")
    remove = what.add_parser("remove", help="take a host out of its tunnel and of the lock, for good")
    remove.add_argument("host", metavar="HOST")
    for one in (show, rotate, remove):
        options.lock(one)


def run(args: argparse.Namespace) -> int:
    from provisioner.cli import lockfile
    from provisioner.resolve.lock import read_lock
    from provisioner.tunnels import lock as tunnels

    lock = read_lock(args.lock)
    if args.what == "show":
        return _show(args)
    if args.what == "rotate":
        lockfile.write(args.lock, tunnels.rotated(lock, args.host), lock)
        print(f"{args.host} is to make a new key; the old one serves until then.")
        print("\nNext:\n" + table([list(row) for row in tunnels.steps_of_rotation(lock, args.host)], indent=2))
        return Exit.OK
    from provisioner.adapters.paths import forget

    without = tunnels.removed(lock, args.host)
    lockfile.write(args.lock, without, lock)
    forget(args.host)
    print(f"{args.host} is out of the lock: its address is free, and its peers forget its key at their next apply.")
    told = [name for name, entry in without.hosts.items() if entry != lock.hosts[name]]
    if told:
        print(f"\nNext: provision apply --limit {','.join(told)}        (and take {args.host} out of the inventory)")
    return Exit.OK


def _show(args: argparse.Namespace) -> int:
    from provisioner.resolve.lock import read_lock
    from provisioner.tunnels.kinds import KINDS, questions
    from provisioner.tunnels.lock import all_tunnels

    lock = read_lock(args.lock)
    found = {name: one for name, one in all_tunnels(lock).items() if not args.host or name in args.host}
    rows = [["host", "kind", "role", "address", "MTU", "reached at", "peers", "public key"]]
    for name, one in found.items():
        tunnel = one.lock
        waits = f", waits for {', '.join(tunnel.waits_for)}" if tunnel.waits_for else ""
        support = "" if KINDS[tunnel.kind].support == "proven" else " (rendered)"
        address = tunnel.address if tunnel.kind != "ssh-reverse" else f"{tunnel.address}:{tunnel.port}"
        rows.append(
            [
                name,
                tunnel.kind + support,
                tunnel.role,
                address or "-",
                str(tunnel.mtu),
                one.wish.endpoint or "-",
                (", ".join(peer.host for peer in tunnel.peers) or "-") + waits,
                (tunnel.public_key or "not known yet").split("\n")[0],
            ]
        )
    print(table([[safe(cell) for cell in row] for row in rows]) if found else "no host of the lock has a tunnel")
    for name in args.host if len(args.host) == 1 else ():
        if name in lock.hosts:
            asked = questions(lock.hosts[name])
            print("\nBy hand, on the host:")
            print(table([[q.title, q.command, q.good] for q in asked], indent=2))
    return Exit.OK
