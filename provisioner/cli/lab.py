"""`provision lab`: throwaway hosts with simulated GPUs, for trying things out and for tests."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.adapters.lab import Lab

DEFAULT_DIR = Path(".provision/lab")
DEFAULT_NAME = "lab"


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="lab_action", metavar="ACTION", required=True, help="what to do")
    up = actions.add_parser("up", help="start hosts that are not up yet, and write an inventory")
    up.add_argument(
        "hosts",
        nargs="+",
        metavar="HOST=SUITE[:GPU[*N],…]",
        help="for example rig-01=bullseye:gtx-1080 rig-02=bookworm:rtx-3090*2; "
        "suites bullseye, bookworm, trixie; GPUs by their id in matrix/gpus",
    )
    up.add_argument(
        "--dir", type=Path, default=DEFAULT_DIR, metavar="DIR", help="where keys and inventory go (%(default)s)"
    )
    _name(up)
    listing = actions.add_parser("list", help="show the hosts of every lab")
    listing.set_defaults(name=None)
    ssh = actions.add_parser("ssh", help="log into a host, or run a command there")
    ssh.add_argument("host", metavar="HOST")
    ssh.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="what to run; none: a shell")
    _name(ssh)
    down = actions.add_parser("down", help="remove the hosts, and exactly what up made")
    down.add_argument("--images", action="store_true", help="the cached images and the build cache too")
    _name(down)


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default=DEFAULT_NAME, metavar="NAME", help="of the lab (%(default)s)")


def run(args: argparse.Namespace) -> int:
    from provisioner.adapters.lab import engine_errors

    actions = {"up": _up, "list": _list, "ssh": _ssh, "down": _down}
    with engine_errors():
        return actions[args.lab_action](args)


class _Progress:
    """Lines with the seconds since the start, to stderr, from several threads."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        with self._lock:
            print(f"{time.monotonic() - self._began:5.1f} s  {text}", file=sys.stderr, flush=True)

    def seconds(self) -> float:
        return time.monotonic() - self._began


def _up(args: argparse.Namespace) -> int:
    from provisioner.adapters.lab import SUITES, Lab, gpu_models, parse_all

    _check_name(args.name)
    say = _Progress()
    needs_models = any(":" in text for text in args.hosts)
    wanted = parse_all(args.hosts, SUITES, gpu_models() if needs_models else ())
    lab = Lab.up(args.name, args.dir, wanted, say)
    hosts = lab.hosts()
    inventory = _shown(lab.inventory)
    print(f"{len(hosts)} host{'s' if len(hosts) != 1 else ''} up in {say.seconds():.1f} s · GPUs are simulated\n")
    _print_hosts(lab)
    print(f"\nNext: provision plan -i {inventory}        (or: {_lab_command(args.name, 'ssh', hosts[0].name)})")
    return Exit.OK


def _list(_args: argparse.Namespace) -> int:
    from provisioner.adapters.lab import labs

    found = labs()
    if not found:
        print("no lab is up\n\nNext: provision lab up rig-01=bookworm:rtx-3090")
    for number, lab in enumerate(found):
        print(f"{chr(10) if number else ''}lab {lab.name} · {_shown(lab.inventory)}")
        _print_hosts(lab)
    return Exit.OK


def _ssh(args: argparse.Namespace) -> int:
    from provisioner.adapters.lab import Lab

    lab = Lab.find(args.name)
    lab.host(args.host)
    words = args.words[1:] if args.words[:1] == ["--"] else args.words
    sys.stdout.flush()
    os.execvp("ssh", ["ssh", "-F", str(lab.folder / "ssh" / "config"), args.host, *words])


def _down(args: argparse.Namespace) -> int:
    from provisioner.adapters.lab import take_down

    removed = take_down(args.name, with_images=args.images)
    print(f"removed {', '.join(removed)}" if removed else f"nothing of a lab called {args.name} was there")
    return Exit.OK


def _print_hosts(lab: Lab) -> None:
    from provisioner.adapters.lab.spec import grouped

    rows = [
        (
            h.name,
            h.spec.suite,
            h.address,
            h.state,
            ", ".join(grouped(h.spec.gpus)) + " (simulated)" if h.spec.gpus else "no GPU",
        )
        for h in lab.hosts()
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row[:4], widths, strict=True)) + "  " + row[4])


def _check_name(name: str) -> None:
    if not name.replace("-", "").isalnum() or not name.isascii() or name != name.lower() or len(name) > 40:
        raise BadInput("lab-name-not-valid", f"{name!r} is no name for a lab", hint="small letters, digits and dashes")


def _lab_command(name: str, *words: str) -> str:
    return " ".join(["provision lab", *words, *([] if name == DEFAULT_NAME else ["--name", name])])


def _shown(path: Path) -> str:
    """Relative when that is shorter to type."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
