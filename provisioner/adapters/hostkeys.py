"""Fetches the key that a host shows now, and puts it on record in place of older ones: what `provision trust` does."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provisioner.adapters.ssh import CONNECT_TIMEOUT_S, Target, ssh_argv
from provisioner.adapters.ssh_errors import explain_ssh, fingerprint, tail
from provisioner.errors import BadInput, HostError

# The strongest first: one key is shown and recorded, the one that ssh itself would ask for.
_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


@dataclass(frozen=True)
class HostKey:
    """A public host key as a host showed it; `line` is what goes into known_hosts."""

    kind: str
    fingerprint: str
    line: str


@dataclass(frozen=True)
class _Resolved:
    """What the user's ssh configuration makes of a target (`ssh -G`)."""

    host: str
    port: str
    name: str
    jump: str | None
    known_hosts: Path


def fetch(target: Target) -> HostKey:
    """Return the key that the host shows. Nothing is sent to it, nothing recorded.

    Behind a ProxyJump the jump host asks in our place: its own key is checked as always.
    """
    if target.local:
        raise BadInput("nothing-to-trust", f"{target.name} is this machine itself: no ssh, no host key")
    seen = _resolve(target)
    scan = ["ssh-keyscan", "-T", str(CONNECT_TIMEOUT_S), "-p", seen.port, "-t", "ed25519,ecdsa,rsa", seen.host]
    if seen.jump is not None:
        jump, _, via = seen.jump.rpartition(",")[2], "", seen.jump.rpartition(",")[0]
        scan = [target.ssh, *(["-J", via] if via else []), "-o", "StrictHostKeyChecking=yes", jump, *scan]
    done = _run(target, scan)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) >= 3 and not line.startswith("#"):
            found.setdefault(words[1], words[2])
    kind = next((kind for kind in _KINDS if kind in found), None)
    if kind is None:
        problem = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("#"))
        raise explain_ssh(target.login, problem or "connection closed: it showed no key")
    return HostKey(kind, fingerprint(found[kind]), f"{seen.name} {kind} {found[kind]}")


def named_key(name: str, line: str) -> HostKey:
    """A key that came over an authenticated channel, as `ssh-ed25519 AAAA…`, under the name it is to be known by."""
    kind, _, rest = line.partition(" ")
    return HostKey(kind, fingerprint(rest.split()[0]), f"{name} {kind} {rest.split()[0]}")


def recorded(target: Target) -> tuple[str, ...]:
    """The keys that known_hosts has for a target, as `ssh-ed25519 AAAA…`; empty when it has none."""
    seen = _resolve(target)
    done = _run(target, ["ssh-keygen", "-F", seen.name, "-f", str(seen.known_hosts)])
    lines = [line.split() for line in done.stdout.splitlines() if line and not line.startswith("#")]
    return tuple(f"{words[1]} {words[2]}" for words in lines if len(words) >= 3 and not words[0].startswith("@"))


def remember_as(target: Target, name: str) -> str:
    """Put the keys that a target has on record under `name` too; return the name by which they are found.

    An address may be another host's tomorrow; a host's own name in the inventory is its own.
    """
    seen = _resolve(target)
    if seen.name == name:
        return name
    keys = recorded(target)
    there = _run(target, ["ssh-keygen", "-F", name, "-f", str(seen.known_hosts)]).stdout
    fresh = [key for key in keys if key not in there]
    if not keys:
        return seen.name
    if fresh:
        handle = os.open(seen.known_hosts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "ab") as file:
            file.write("".join(f"{name} {key}\n" for key in fresh).encode())
    return name


def own_keys() -> tuple[str, ...]:
    """The ssh host keys of this very machine."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path("/etc/ssh").glob("ssh_host_*_key.pub"))]
    return tuple(" ".join(text.split()[:2]) for text in texts)


def record(target: Target, key: HostKey) -> Path:
    """Put `key` on record as the host's only one, in the known_hosts file in force; return that file."""
    return _record(target, key, _resolve(target).name)


def record_named(target: Target, key: HostKey) -> Path:
    """The same under the name that stands in the key's own line, by which a tunnel's path looks for it."""
    return _record(target, key, key.line.split()[0])


def _record(target: Target, key: HostKey, name: str) -> Path:
    path = _resolve(target).known_hosts
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists():
            _run(target, ["ssh-keygen", "-R", name, "-f", str(path)])
            ending = path.read_bytes()[-1:]
        else:
            ending = b""
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "ab") as file:
            file.write((b"\n" if ending not in (b"", b"\n") else b"") + key.line.encode() + b"\n")
    except OSError as error:
        raise BadInput(
            "known-hosts-not-writable",
            f"the key of {target.name} could not be recorded in {path}",
            context=(str(error),),
            hint="set UserKnownHostsFile in ansible_ssh_common_args or in your ssh configuration to a file you own",
        ) from error
    return path


def recorded_name(target: Target) -> str:
    """The name under which known_hosts has the key of a target, such as `10.0.0.5` or `[10.0.0.5]:2222`."""
    return _resolve(target).name


def _resolve(target: Target) -> _Resolved:
    argv = ssh_argv(target)
    done = _run(target, [argv[0], "-G", *argv[1:]])
    options: dict[str, str] = {}
    for line in done.stdout.splitlines():
        word, _, value = line.partition(" ")
        options.setdefault(word.lower(), value)
    if done.returncode != 0 or "hostname" not in options:
        raise HostError(
            "ssh-config",
            target.name,
            f"ssh cannot make sense of how to reach {target.name}",
            context=tail(done.stderr),
            hint=f"ssh -G {target.address}",
        )
    host, port = options["hostname"], options.get("port", "22")
    alias = options.get("hostkeyalias", "none")
    name = alias if alias != "none" else (host if port == "22" else f"[{host}]:{port}")
    files = options.get("userknownhostsfile", "~/.ssh/known_hosts").split()
    jump = options.get("proxyjump", "none")
    known = Path(files[0].strip('"')).expanduser()
    return _Resolved(host, port, name, None if jump == "none" else jump, known)


def _run(target: Target, argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired as error:
        raise explain_ssh(target.login, "connection timed out") from error
    except OSError as error:
        raise HostError(
            "program-not-found",
            target.name,
            f"cannot start {argv[0]} on this machine",
            context=(str(error),),
            hint="apt-get install openssh-client",
        ) from error
