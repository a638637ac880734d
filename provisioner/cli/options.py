"""Arguments that many commands share, with the same names as in Ansible where Ansible has them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from provisioner.doctor.diagnose import Catalogue
    from provisioner.matrix.entries import Contract
    from provisioner.model.inventory import InventoryHost
    from provisioner.model.stack import Lock

LOCK = "provision.lock"


def inventory(parser: argparse.ArgumentParser) -> None:
    """Add -i, --limit and the bound on hosts at once."""
    parser.add_argument(
        "-i",
        "--inventory",
        action="append",
        default=[],
        metavar="SOURCE",
        help="Ansible inventory: file, folder, script or 'host1,host2,'; may be repeated. None: this machine itself",
    )
    parser.add_argument("-l", "--limit", metavar="PATTERN", help="only these hosts, as in ansible-playbook")
    parser.add_argument("-f", "--forks", type=int, default=50, metavar="N", help="hosts looked at at once (default 50)")
    parser.add_argument(
        "--timeout", type=float, default=60, metavar="S", help="seconds that one host may take to answer (default 60)"
    )


def lock(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lock", type=Path, default=Path(LOCK), metavar="FILE", help=f"the lock file (default {LOCK})")


def captures(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --capture; `what` is what is done with the recorded host, such as "to plan for"."""
    parser.add_argument(
        "--capture", action="append", default=[], type=Path, metavar="FILE", help=f"recorded host {what}, no ssh"
    )


def json_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="machine-readable output on stdout")


def read_lock_in_use(path: Path) -> Lock:
    """Return the lock, which must have been made with the matrix in use. Raises BadInput when it was not."""
    from provisioner.matrix.files import digest_in_use
    from provisioner.resolve.lock import check_matrix, read_lock

    found = read_lock(path)
    check_matrix(found, digest_in_use(), str(path))
    return found


def contracts() -> Mapping[str, Contract | None]:
    """Return the contract of each network of the matrix in use."""
    from provisioner.matrix.reader import load

    return {name: network.contract for name, network in load().networks.items()}


def mechanisms(folder: Path | None = None) -> Catalogue:
    """Return the mechanisms of failure, of the matrix shipped or of another folder."""
    from provisioner.doctor.diagnose import Catalogue
    from provisioner.doctor.reader import load
    from provisioner.matrix.reader import load as load_matrix

    return Catalogue(load(folder), load_matrix(folder))


def hosts_aside(args: argparse.Namespace) -> Callable[[], tuple[InventoryHost, ...]]:
    """Begin to read the inventory beside our own imports; what is returned waits for it. No -i: this machine."""
    from provisioner.adapters.ansible_inventory import start

    sources, limit = tuple(args.inventory), args.limit
    wait = start(sources, limit) if sources else None

    def hosts() -> tuple[InventoryHost, ...]:
        from provisioner.adapters import inventory

        return inventory.typed(sources, wait()) if wait is not None else inventory.read((), None)

    return hosts
