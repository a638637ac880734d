"""`provision trust`: show a host's key fingerprint, and record the key once a person has agreed."""

from __future__ import annotations

import argparse
import sys

from provisioner.cli import options
from provisioner.errors import BadInput, Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", nargs="+", metavar="HOST", help="name as in the inventory")
    options.inventory(parser)
    parser.add_argument(
        "--fingerprint", metavar="SHA256:…", help="record only if the key has this fingerprint; asks nothing"
    )


def run(args: argparse.Namespace) -> int:
    from provisioner.adapters import inventory, ssh
    from provisioner.adapters.hostkeys import fetch, record

    for host in inventory.read(tuple(args.inventory), ",".join(args.host)):
        target = ssh.Target.from_variables(host.name, host.variables)
        shown = fetch(target)
        print(f"{host.name} at {target.address} shows {shown.kind} {shown.fingerprint}")
        if args.fingerprint is not None:
            if args.fingerprint != shown.fingerprint:
                raise BadInput(
                    "fingerprint-differs", f"{host.name} does not show {args.fingerprint}; nothing was recorded"
                )
        elif not _agreed():
            raise BadInput(
                "not-confirmed",
                f"the key of {host.name} was not recorded",
                hint="compare it at the host: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
            )
        print(f"recorded in {record(target, shown)}")
    return Exit.OK


def _agreed() -> bool:
    return sys.stdin.isatty() and input("Is this the fingerprint that the host itself states? [y/N] ").lower() in (
        "y",
        "yes",
    )
