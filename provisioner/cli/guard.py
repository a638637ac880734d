"""`provision guard`: files of your own, put in force under guard: sshd's settings, an interface, a firewall."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from provisioner.cli import options
from provisioner.cli.words import paint, safe
from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.model.resource import GuardedFile


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", help="name or pattern of the inventory")
    parser.add_argument("file", nargs="+", metavar="LOCAL=REMOTE", help="a file here, and its absolute path there")
    options.inventory(parser)
    parser.add_argument("--unit", action="append", default=[], metavar="UNIT", help="reloaded or started afterwards")
    parser.add_argument("--mode", default="0644", metavar="MODE", help="of the files (default 0644)")
    parser.add_argument("--check", metavar="COMMAND", help="run there before the units, such as 'sshd -t'")
    parser.add_argument("--seconds", type=int, default=60, metavar="N", help="until it goes back (default 60)")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    from provisioner.actions import hostlock
    from provisioner.actions.guard import guarded
    from provisioner.adapters import inventory
    from provisioner.adapters.paths import TunnelPaths
    from provisioner.adapters.runs import RunFolders
    from provisioner.cli.views.apply import Progress
    from provisioner.cli.wiring import STATE_DIR, SshShell, alive, who_am_i
    from provisioner.model.resource import Guarded

    if not 20 <= args.seconds <= 3600:
        raise BadInput("bad-argument", f"--seconds {args.seconds}: 20 to 3600")
    change = Guarded(
        name=", ".join(text.partition("=")[2] for text in args.file),
        files=tuple(_file(text, args.mode) for text in args.file),
        units=tuple(args.unit),
        run=(("/bin/sh", "-c", args.check),) if args.check else (),
        confirm_s=args.seconds,
    )
    hosts = inventory.read(tuple(args.inventory), args.host)
    names = [host.name for host in hosts]
    print(f"{', '.join(names)}: {change.name}, then {', '.join(change.units) or 'no unit'}")
    print(f"It goes back by itself in {args.seconds} s unless a new session comes in.")
    if not args.yes:
        _ask()
    id_ = RunFolders(STATE_DIR / "runs").new_id()
    with Progress(names, sys.stdout) as progress:
        failed = guarded(
            hosts,
            change,
            id_,
            hostlock.Lease(id_, *who_am_i()),
            shell=SshShell(),
            paths=TunnelPaths(),
            alive=alive,
            on_event=progress.on_event,
        )
    print()
    for name in names:
        result = failed.get(name)
        print(f"{name}  {paint('confirmed: it stays', 'green') if result is None else paint('went back', 'red')}")
        if result is not None:
            print(f"  {safe(result.reason)}   [{result.reference}]")
            print("".join(f"    {safe(line)}\n" for line in result.context), end="")
    return Exit.FAILED if failed else Exit.OK


def _file(text: str, mode: str) -> GuardedFile:
    from provisioner.model.resource import GuardedFile

    local, equals, remote = text.partition("=")
    if not equals or not PurePosixPath(remote).is_absolute():
        raise BadInput("bad-argument", f"{text}: write LOCAL=REMOTE, such as sshd.conf=/etc/ssh/sshd_config.d/own.conf")
    try:
        content = Path(local).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise BadInput("file-not-readable", f"{local}: {problem}") from problem
    return GuardedFile(path=remote, content=content, mode=mode)


def _ask() -> None:
    if not sys.stdin.isatty():
        raise BadInput("not-confirmed", "nobody is there to agree; nothing was changed", hint="provision guard --yes …")
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise BadInput("not-confirmed", "not confirmed; nothing was changed")
