"""`provision attest verify|report`: what an enrolment record says, for who has only the file and a public key."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.errors import BadInput, Exit

if TYPE_CHECKING:
    from provisioner.actions.attest import Examined


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, help="verify or report")
    for name, line in (
        ("verify", "check the signature of an enrolment record, and say what it states"),
        ("report", "write a page about the host of an enrolment record, which opens without a network"),
    ):
        sub = actions.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        sub.add_argument("file", type=Path, metavar="FILE", help="the record, such as .provision/enrolled/rig-01.json")
        sub.add_argument(
            "--key",
            type=Path,
            metavar="FILE",
            help="the operator's public key (signing.pub); without it, your own key and your trusted_keys",
        )
        if name == "verify":
            sub.add_argument("--json", action="store_true", help="machine-readable output on stdout")
        else:
            sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: HOST.html")


def run(args: argparse.Namespace) -> int:
    from provisioner.cli.views.attest import examined_json, examined_text, report_html

    examined = _examined(args.file, args.key)
    if args.action == "verify":
        print(examined_json(examined) if args.json else examined_text(examined))
        return Exit.OK if examined.holds else Exit.FAILED
    path = args.output or Path(f"{examined.record.host}.html")
    try:
        path.write_text(report_html(examined), encoding="utf-8")
    except OSError as problem:
        raise BadInput("report-not-written", f"{path}: {problem.strerror}") from problem
    print(f"{path}: {examined.record.host}, {'as enrolled' if examined.holds else 'NOT VALID'}")
    return Exit.OK if examined.holds else Exit.FAILED


def _examined(path: Path, key: Path | None) -> Examined:
    from provisioner.actions.attest import examine, past
    from provisioner.adapters.enrolled import past_records
    from provisioner.adapters.runs import SystemClock
    from provisioner.adapters.signing import Keyring, OneKey

    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as problem:
        raise BadInput("no-attestation", f"{path}: {problem.strerror}") from problem
    signatures = OneKey(key) if key is not None else Keyring()
    examined = examine(text, str(path), signatures=signatures, at=SystemClock().now())
    texts = past_records(path, examined.record.host)
    return replace(examined, past=past(examined, texts, signatures=signatures))
