"""The table of commands and the one error boundary: every exception becomes words and an exit code here."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence

from provisioner import __version__
from provisioner.errors import Exit, ProvisionError

# Command → module and one line of help. The module is imported only when its command runs, so that
# `provision --help` does not pay for Ansible, Docker or pydantic.
COMMANDS: dict[str, tuple[str, str]] = {
    "resolve": ("provisioner.cli.resolve", "choose one consistent set of versions per host and write provision.lock"),
    "why": ("provisioner.cli.why", "say why a value is chosen for a host, or why it is not"),
    "why-not": ("provisioner.cli.why", "the same question, as one asks it of what is missing"),
    "upgrade": ("provisioner.cli.upgrade", "move a network's client to a version: pins first, then the client"),
    "plan": ("provisioner.cli.plan", "show what would change, phase by phase, and what it costs"),
    "charts": ("provisioner.cli.charts", "write what kubectl and helm take for a network that Kubernetes runs"),
    "preflight": ("provisioner.cli.preflight", "say what would go wrong if the plan were carried out"),
    "apply": ("provisioner.cli.apply", "do what the plan says, verify, and enrol"),
    "history": ("provisioner.cli.history", "show the changes that a host keeps and that can be taken back"),
    "rollback": ("provisioner.cli.rollback", "bring a host back to what it was before a change"),
    "verify": ("provisioner.cli.verify", "check hosts against the lock, independently of planning"),
    "enrol": ("provisioner.cli.enrol", "check hosts and let in those that pass, close those that do not"),
    "unenrol": ("provisioner.cli.unenrol", "stop the clients of hosts and take their enrolment back"),
    "attest": ("provisioner.cli.attest", "check an enrolment record with a public key, or make a page of it"),
    "status": ("provisioner.cli.status", "show every host and its state"),
    "facts": ("provisioner.cli.facts", "show what a host is, or record it in a file"),
    "doctor": ("provisioner.cli.doctor", "say what is wrong with hosts, why, and what mends it"),
    "capture": ("provisioner.cli.capture", "record one host in a file without secrets, to show it to others"),
    "trust": ("provisioner.cli.trust", "record a host's ssh key after showing its fingerprint"),
    "rehearse": ("provisioner.cli.rehearse", "try a new lock on throwaway hosts: each stack of the fleet, up and back"),
    "invite": ("provisioner.cli.invite", "let a rig behind a router join: a file for its owner, good once"),
    "guard": ("provisioner.cli.guard", "put files on a host that go back by themselves unless ssh still works"),
    "tunnel": ("provisioner.cli.tunnel", "show the tunnels of the lock, make a new key, take a host out"),
    "matrix": ("provisioner.cli.matrix", "read and check the compatibility matrix"),
    "lab": ("provisioner.cli.lab", "throwaway hosts with simulated GPUs, for trying things out"),
}


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only the command that is named gets its arguments, for that imports its module."""
    top = _Parser(
        prog="provision",
        description="Keeps GPU hosts of decentralized compute networks serving: resolve, plan, apply, verify, enrol.",
        epilog="First steps: provision resolve, then provision plan, then provision apply. "
        "With no -i, this machine itself is the host.",
    )
    top.add_argument("--version", action="version", version=f"provision {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, (module, line) in COMMANDS.items():
        sub = commands.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        if name == only:
            importlib.import_module(module).arguments(sub)
    return top


class _Parser(argparse.ArgumentParser):
    """argparse exits with 2 on a wrong argument; here 2 means "there is something to change"."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        print(f"error: {message}{' ' * 8}[bad-argument]\n\nAll options: {self.prog} --help", file=sys.stderr)
        raise SystemExit(int(Exit.BAD_INPUT))


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    named = next((word for word in argv if word in COMMANDS), None)
    try:
        args = parser(named).parse_args(argv)
        if args.command is None:
            parser().print_help()
            return Exit.OK
        return int(importlib.import_module(COMMANDS[args.command][0]).run(args))
    except ProvisionError as problem:
        from provisioner.cli.words import error_text

        print(error_text(problem), file=sys.stderr)
        return int(problem.exit_code)
    except KeyboardInterrupt:
        print("\ninterrupted: the next run goes on from what it finds on the hosts", file=sys.stderr)
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has gone (`provision plan | head`); that is no failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.OK)
    except Exception:
        from provisioner.cli.words import defect_text

        print(defect_text(argv), file=sys.stderr)
        return int(Exit.INTERNAL)


def entry() -> None:
    """Entry point of the `provision` script."""
    # Commands are short and make much that lives to their end: looking for cycles all the time costs a tenth.
    gc.set_threshold(50_000)
    # A polite kill ends a run as Ctrl-C does: playbooks are stopped, hosts given back.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    sys.exit(main(sys.argv[1:]))
