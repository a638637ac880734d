"""What ssh, sudo and the shell print when something fails, turned into an error that says what to type next."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from provisioner.errors import HostError

_UNREACHABLE = (
    ("could not resolve hostname", "its name cannot be resolved"),
    ("connection refused", "nothing listens on its ssh port"),
    ("no route to host", "there is no route to it"),
    ("network is unreachable", "there is no route to it"),
    ("connection reset", "it closed the connection before the login"),
    ("connection closed", "it closed the connection before the login"),
    ("broken pipe", "the connection broke"),
)
_TIMEOUTS = ("connection timed out", "operation timed out", "timed out during banner exchange", "timeout, server")


@dataclass(frozen=True)
class Login:
    """How a host is reached, in words: for messages only."""

    host: str
    address: str
    port: int | None = None
    user: str | None = None
    python: str = "/usr/bin/python3"

    @property
    def words(self) -> str:
        """`root@10.0.0.5 port 2222`."""
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.address}" + (f" port {self.port}" if self.port else "")


def tail(text: str, count: int = 4) -> tuple[str, ...]:
    """The last lines that say something; they go below a message as its context."""
    lines = [line.strip() for line in text.replace("\r", "").splitlines()]
    return tuple(line for line in lines if line and not set(line) <= {"@", " "})[-count:]


def explain_ssh(login: Login, stderr: str) -> HostError:
    """Why ssh itself gave up (exit code 255)."""
    low = stderr.lower()
    host = login.host
    if "remote host identification has changed" in low:
        return _key_changed(login, stderr)
    if "host key verification failed" in low or "host key is known for" in low:
        return HostError(
            "ssh-host-key-unknown",
            host,
            f"{host} showed a host key that is not on record",
            context=(f"address  {login.words}",),
            hint=f"provision trust {host}     (shows the key's fingerprint before it records it)",
        )
    if "permission denied" in low or "too many authentication failures" in low:
        return HostError(
            "ssh-auth-failed",
            host,
            f"{host} refused the login as {login.user or 'the user of your ssh configuration'}",
            context=(f"address  {login.words}", *tail(stderr, 2)),
            hint=f"ssh {_ssh_words(login)} true     (keys and agent only: passwords are never asked for)",
        )
    if any(word in low for word in _TIMEOUTS):
        return HostError(
            "ssh-timeout",
            host,
            f"{host} did not answer in time",
            context=(f"address  {login.words}", *tail(stderr, 1)),
            hint=f"is the rig on, and does a firewall let ssh through? ssh {_ssh_words(login)} true",
        )
    reason = next((words for word, words in _UNREACHABLE if word in low), "ssh could not connect")
    return HostError(
        "ssh-unreachable",
        host,
        f"{host} cannot be reached: {reason}",
        context=(f"address  {login.words}", *tail(stderr, 2)),
        hint=f"ssh {_ssh_words(login)} true     (or leave it out: --limit '!{host}')",
    )


def _ssh_words(login: Login) -> str:
    user = f"{login.user}@" if login.user else ""
    return (f"-p {login.port} " if login.port else "") + f"{user}{login.address}"


def _key_changed(login: Login, stderr: str) -> HostError:
    shown = re.search(r"(SHA256:[A-Za-z0-9+/]{43})", stderr)
    offending = re.search(r"Offending \S+ key in (.+):(\d+)", stderr)
    recorded = _recorded_fingerprint(offending[1], int(offending[2])) if offending else None
    on_record = f"the one on record ({recorded})" if recorded else "the one on record"
    context = [f"The key it showed ({shown[1] if shown else 'not readable'}) is not {on_record}."]
    if offending:
        context.append(f"on record in {offending[1]}, line {offending[2]}")
    context.append("Either the rig was reinstalled, or something answers in its place.")
    return HostError(
        "ssh-host-key-changed",
        login.host,
        f"{login.host} showed another host key than before; nothing was sent to it",
        context=context,
        hint=f"if you reinstalled it: provision trust {login.host}     (shows the new fingerprint first)",
    )


def _recorded_fingerprint(path: str, line: int) -> str | None:
    try:
        words = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[line - 1].split()
    except (OSError, IndexError):
        return None
    return next((fingerprint(word) for word in words if word.startswith("AAAA")), None)


def fingerprint(blob: str) -> str:
    """`SHA256:…` of a public key as it stands in known_hosts, as ssh prints it."""
    try:
        digest = hashlib.sha256(base64.b64decode(blob)).digest()
    except ValueError:
        return "not readable"
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def explain_become(login: Login, stderr: str) -> HostError | None:
    """Why sudo did not start the command; None when sudo is not what failed."""
    low = stderr.lower()
    host = login.host
    if "incorrect password attempt" in low or "no password was provided" in low:
        return HostError(
            "sudo-password-wrong",
            host,
            f"sudo on {host} did not take the password that was given",
            hint="check ansible_become_password of this host (vault, or the variable that sets it)",
        )
    if "a password is required" in low or "a terminal is required" in low or "no tty present" in low:
        return HostError(
            "sudo-password-needed",
            host,
            f"sudo on {host} asks {login.user or 'the login user'} for a password",
            hint="set ansible_become_password (from vault), or allow the user NOPASSWD in the host's sudoers",
        )
    if "is not in the sudoers" in low or "not allowed to execute" in low or "may not run sudo" in low:
        return HostError(
            "sudo-not-allowed",
            host,
            f"sudo on {host} does not let {login.user or 'the login user'} act as root",
            context=tail(stderr, 1),
            hint="log in as root, or add the user to the host's group sudo",
        )
    if re.search(r"(sudo: (command )?not found|sudo['’]?: no such file)", low):
        return HostError(
            "sudo-not-installed",
            host,
            f"{host} has no sudo, and the login is not as root",
            hint="set ansible_user=root, or install sudo there",
        )
    return None


def explain_python(login: Login, rc: int, stderr: str) -> HostError | None:
    """Why the interpreter did not start; None when it did."""
    low = stderr.lower()
    old = re.search(r"provision-python-too-old (\S+)", stderr)
    if old:
        return HostError(
            "no-python",
            login.host,
            f"{login.python} on {login.host} is Python {old[1]}; the probe needs 3.6 or newer",
            hint="set ansible_python_interpreter of this host to a newer one",
        )
    missing = "not found" in low or "no such file or directory" in low
    if rc in (126, 127) or (missing and login.python in stderr):
        return HostError(
            "no-python",
            login.host,
            f"{login.host} has no {login.python}",
            context=tail(stderr, 1),
            hint="apt-get install python3 on the host, or set ansible_python_interpreter",
        )
    return None
