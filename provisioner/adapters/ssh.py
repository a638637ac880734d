"""Reaches hosts through OpenSSH with shared connections, or this machine without; probes all at once, with a bound.

One ssh session carries a whole probe. The connection behind it stays open for a minute (ControlPersist) at a path that
`ansible_ssh_settings` tells Ansible too, so the run that may follow logs in nowhere again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import signal
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from provisioner.adapters.ssh_errors import Login, explain_become, explain_python, explain_ssh, tail
from provisioner.errors import BadInput, HostError
from provisioner.model.capture import Capture, CommandOutput
from provisioner.probe.payload import BOOTSTRAP, Garbled, capture_from, nvml_calls, payload
from provisioner.probe.request import STATE, Request

PERSIST_S = 60
CONNECT_TIMEOUT_S = 10
PYTHON = "/usr/bin/python3"
_SHARING = (
    *("-o", "ControlMaster=auto"),
    *("-o", f"ControlPersist={PERSIST_S}s"),
    # A master whose host went away must not make the next command wait for TCP to notice.
    *("-o", "ServerAliveInterval=5"),
    *("-o", "ServerAliveCountMax=3"),
)
_SOCKET_LIMIT = 104  # of BSD and macOS; Linux has 108
_NAME_LENGTH = 1 + 40 + 17  # "/" + %C + the suffix that ssh adds while it binds

Done = Callable[[str, "Capture | HostError"], None]


@dataclass(frozen=True)
class Target:
    """Where a host is and how to act there, as its Ansible variables say."""

    name: str
    address: str
    port: int | None = None
    user: str | None = None
    key_file: str | None = None
    ssh_args: tuple[str, ...] = ()
    ssh: str = "ssh"
    local: bool = False
    become: bool = False
    become_user: str = "root"
    become_password: str | None = field(default=None, repr=False)
    python: str = PYTHON

    @classmethod
    def from_variables(cls, name: str, variables: Mapping[str, Any]) -> Target:
        """Read the variables that Ansible's ssh, local and sudo plugins read.

        Raises BadInput for a connection or become method that provision does not speak.
        """
        connection = str(variables.get("ansible_connection", "ssh"))
        if connection not in ("ssh", "smart", "local", "ansible.builtin.ssh", "ansible.builtin.local"):
            raise BadInput(
                "connection-not-supported",
                f"{name} has ansible_connection={connection}; provision speaks ssh and local",
                hint="remove ansible_connection, or leave this host out with --limit",
            )
        become = _truth(variables.get("ansible_become", False))
        method = str(variables.get("ansible_become_method", "sudo"))
        if become and method not in ("sudo", "ansible.builtin.sudo"):
            raise BadInput(
                "become-not-supported",
                f"{name} has ansible_become_method={method}; provision speaks sudo",
                hint="set ansible_become_method=sudo, or log in as root",
            )
        port = _first(variables, "ansible_port", "ansible_ssh_port")
        python = str(variables.get("ansible_python_interpreter") or PYTHON)
        password = _first(
            variables, "ansible_become_password", "ansible_become_pass", "ansible_sudo_password", "ansible_sudo_pass"
        )
        key = _first(variables, "ansible_private_key_file", "ansible_ssh_private_key_file")
        user = _first(variables, "ansible_user", "ansible_ssh_user")
        return cls(
            name=name,
            address=str(_first(variables, "ansible_host", "ansible_ssh_host") or name),
            port=_port(name, port),
            user=str(user) if user else None,
            key_file=str(Path(str(key)).expanduser()) if key else None,
            ssh_args=tuple(
                word
                for variable in ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
                for word in _words(name, variable, variables.get(variable))
            ),
            ssh=str(variables.get("ansible_ssh_executable") or "ssh"),
            local=connection.endswith("local"),
            become=become,
            become_user=str(variables.get("ansible_become_user") or "root"),
            become_password=str(password) if password is not None else None,
            python=python if python.startswith("/") else PYTHON,  # "auto" and its kin
        )

    @property
    def login(self) -> Login:
        return Login(self.name, self.address, self.port, self.user, self.python)

    @property
    def needs_sudo(self) -> bool:
        """A login as the wanted user needs none; Ansible reasons the same way for root."""
        if not self.become:
            return False
        if self.local:
            return not (self.become_user == "root" and os.geteuid() == 0)
        return self.user is None or self.user != self.become_user


def _first(variables: Mapping[str, Any], *names: str) -> Any:
    return next((variables[name] for name in names if variables.get(name) not in (None, "")), None)


def _truth(value: Any) -> bool:
    return value.strip().lower() in ("yes", "true", "on", "1", "y", "t") if isinstance(value, str) else bool(value)


def _port(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if str(value).isdigit() and 0 < int(value) < 65536:
        return int(value)
    raise BadInput("bad-port", f"{name} has ansible_port={value}, which is no port", hint="a port is 1 to 65535")


def _words(name: str, variable: str, value: Any) -> list[str]:
    try:
        return shlex.split(str(value)) if value else []
    except ValueError as error:
        raise BadInput("bad-ssh-args", f"{name} has a broken {variable}: {error}", context=(str(value),)) from error


# Shared connections.


def control_dir() -> Path:
    """The folder of the shared connections' sockets: ours alone, and short enough for a socket's path.

    `/run/user/1000/provision`, else `~/.cache/provision/ssh`, else a private folder below the temporary one.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    candidates = [
        *([Path(runtime) / "provision"] if runtime else []),
        Path(cache).expanduser() / "provision" / "ssh",
        Path(tempfile.gettempdir()) / f"provision-{os.getuid()}",
        Path("/tmp") / f"provision-{os.getuid()}",
    ]
    for folder in candidates:
        if len(str(folder)) + _NAME_LENGTH < _SOCKET_LIMIT and _private(folder):
            return folder
    raise BadInput(
        "no-place-for-sockets",
        "no folder can hold the sockets of shared ssh connections",
        context=tuple(str(folder) for folder in candidates),
        hint="set XDG_RUNTIME_DIR to a short path that only you can write to",
    )


def _private(folder: Path) -> bool:
    """Made, owned by us, closed to others: whoever can write there could answer in a host's place."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        seen = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and not seen.st_mode & 0o077


def ansible_ssh_settings() -> dict[str, str]:
    """Environment variables with which ansible-playbook takes the same connections."""
    return {
        "ANSIBLE_SSH_ARGS": shlex.join(_SHARING),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(control_dir()),
        "ANSIBLE_SSH_CONTROL_PATH": "%(directory)s/%%C",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_PIPELINING": "True",
    }


def ssh_argv(target: Target) -> tuple[str, ...]:
    """The ssh command up to and with the host's address; a remote command may follow.

    ssh takes the first value it meets for an option: what must hold stands first (host keys are checked, nobody is
    asked anything), then the host's own arguments, then the defaults.
    """
    argv = [target.ssh, "-T", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
    if target.port is not None:
        argv += ["-o", f"Port={target.port}"]
    if target.user is not None:
        argv += ["-o", f"User={target.user}"]
    if target.key_file is not None:
        argv += ["-o", f'IdentityFile="{target.key_file}"']
    argv += target.ssh_args
    argv += [*_SHARING, "-o", f"ControlPath={control_dir()}/%C", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"]
    return (*argv, "--", target.address) if target.address.startswith("-") else (*argv, target.address)


def explain(target: Target, rc: int, stderr: str) -> HostError | None:
    """The error behind what ssh or sudo printed; None when the command itself ran and failed."""
    if rc == 255 and not target.local:
        return explain_ssh(target.login, stderr)
    return explain_become(target.login, stderr) if rc != 0 and target.needs_sudo else None


# Sessions.


@dataclass(frozen=True)
class Session:
    """What is started here, and what goes to its standard input before the caller's own bytes."""

    argv: tuple[str, ...]
    before: bytes = b""


def session(target: Target, command: Sequence[str]) -> Session:
    """Wrap `command` in sudo and ssh as the target needs.

    A sudo password goes through standard input. Should sudo not ask for it (NOPASSWD), nobody reads it, so a shell
    skips all lines up to a mark; the command then gets the rest untouched, because `read` takes a byte at a time.
    """
    argv, before = list(command), b""
    if target.needs_sudo:
        sudo = ["sudo", "-n"]
        if target.become_password is not None:
            mark = secrets.token_hex(16)
            before = f"{target.become_password}\n{mark}\n".encode()
            sudo = ["sudo", "-k", "-S", "-p", ""]
            skip = f'while IFS= read -r line; do [ "$line" = {mark} ] && exec "$@"; done; exit 125'
            argv = ["sh", "-c", skip, "sh", *argv]
        user = [] if target.become_user == "root" else ["-u", target.become_user]
        argv = ["env", "LC_ALL=C", *sudo, *user, "--", *argv]
    if target.local:
        return Session(tuple(argv), before)
    return Session((*ssh_argv(target), "exec " + shlex.join(argv)), before)


async def _exchange(session: Session, data: bytes, timeout_s: float) -> tuple[int, bytes, bytes] | None:
    """Run to the end and return exit code, stdout and stderr; None when time ran out (then it is killed)."""
    process = await asyncio.create_subprocess_exec(
        *session.argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
        start_new_session=True,  # Ctrl-C must reach us alone: we end the sessions in our own order
    )
    try:
        stdout, stderr = await asyncio.wait_for(process.communicate(session.before + data), timeout_s)
    except (asyncio.TimeoutError, asyncio.CancelledError) as error:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # a ProxyCommand or a shell's children hold the pipes open too
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(process.wait(), 2)
        if isinstance(error, asyncio.CancelledError):
            raise
        return None
    return process.returncode if process.returncode is not None else 255, stdout, stderr


async def run(
    target: Target, command: Sequence[str] | str, stdin: bytes = b"", *, timeout_s: float = 60
) -> CommandOutput:
    """Run an argument list, or a text as a shell script, on the host and as its become user.

    Raises HostError when the host cannot be reached or sudo refuses. A command that fails is no error: look at `rc`;
    124 means that time ran out.
    """
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    try:
        done = await _exchange(session(target, argv), stdin, timeout_s)
    except OSError as error:
        raise _no_program(target, error) from error
    if done is None:
        return CommandOutput(rc=124, stderr=f"stopped after {timeout_s:g} s")
    rc, stdout, stderr = done[0], done[1].decode("utf-8", "replace"), done[2].decode("utf-8", "replace")
    failure = explain(target, rc, stderr)
    if failure is not None:
        raise failure
    return CommandOutput(rc=rc, stdout=stdout, stderr=stderr)


def _no_program(target: Target, error: OSError) -> HostError:
    return HostError(
        "program-not-found",
        target.name,
        f"cannot start {error.filename or target.ssh} on this machine to reach {target.name}",
        context=(str(error),),
        hint="apt-get install openssh-client" if not target.local else "apt-get install python3 sudo",
    )


async def close(target: Target) -> None:
    """End the shared connection, if there is one."""
    if target.local:
        return
    argv = ssh_argv(target)
    with contextlib.suppress(OSError):
        await _exchange(Session((*argv[:1], "-O", "exit", *argv[1:])), b"", 5)


# Probing.


async def probe_one(target: Target, request: Request, *, timeout_s: float = 60) -> Capture:
    """One session, one capture. Raises HostError with what went wrong and what to do."""
    data = payload(request, shaken_pynvml(health=request.profile.nvml_health) if request.profile.nvml else None)
    try:
        done = await _exchange(session(target, (target.python, "-IS", "-c", BOOTSTRAP)), data, timeout_s)
    except OSError as error:
        if target.local and str(error.filename) == target.python:
            raise explain_python(target.login, 127, str(error)) or _no_program(target, error) from error
        raise _no_program(target, error) from error
    if done is None:
        await close(target)  # the connection may be the reason; the next attempt shall not inherit it
        raise HostError(
            "probe-timed-out",
            target.name,
            f"{target.name} did not finish answering within {timeout_s:g} s",
            context=(f"address  {target.login.words}",),
            hint="a sick disk or card can hang a host: look at its load and dmesg, then try again",
        )
    rc, answer, errors = done
    stderr = errors.decode("utf-8", "replace")
    if rc != 0:
        failure = explain(target, rc, stderr) or explain_python(target.login, rc, stderr)
        if failure is not None:
            raise failure
    try:
        return capture_from(answer, target.name, datetime.now(timezone.utc))
    except Garbled as error:
        raise HostError(
            "probe-garbled",
            target.name,
            f"{target.name} answered, but not as the probe does: {error}",
            context=(f"exit code {rc}", *tail(stderr, 3), *tail(answer[:2000].decode("utf-8", "replace"), 2)),
            hint=f"does the login shell run something that ends it? ssh {target.address} true",
        ) from error


async def probe_all(
    hosts: Sequence[Target],
    request: Mapping[str, Request] | Request,
    *,
    limit: int = 50,
    timeout_s: float = 60,
    on_done: Done | None = None,
) -> dict[str, Capture | HostError]:
    """Probe all hosts, `limit` at a time; each gets its capture or its own error, in the order given."""
    places = asyncio.Semaphore(limit)

    async def one(target: Target) -> Capture | HostError:
        asked = request if isinstance(request, Request) else request.get(target.name, Request(STATE))
        async with places:
            result: Capture | HostError
            try:
                result = await probe_one(target, asked, timeout_s=timeout_s)
            except HostError as error:
                result = error
        if on_done is not None:
            on_done(target.name, result)
        return result

    results = await asyncio.gather(*(one(target) for target in hosts))
    return {target.name: result for target, result in zip(hosts, results, strict=True)}


def probe(
    hosts: Sequence[Target],
    request: Mapping[str, Request] | Request,
    *,
    limit: int = 50,
    timeout_s: float = 60,
    on_done: Done | None = None,
) -> dict[str, Capture | HostError]:
    """`probe_all` for callers without an event loop."""
    return asyncio.run(probe_all(hosts, request, limit=limit, timeout_s=timeout_s, on_done=on_done))


def shaken_pynvml(*, health: bool = False) -> str | None:
    """The part of the installed pynvml that the probe calls, kept in the cache by digest; None when not installed."""
    import importlib.util

    from provisioner.probe.nvml import digest, roots_of, shake

    spec = importlib.util.find_spec("pynvml")
    if spec is None or spec.origin is None:
        return None
    source = Path(spec.origin).read_text(encoding="utf-8")
    roots = roots_of(nvml_calls(health=health))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "provision"
    kept = cache / f"pynvml-{digest(source, roots)}.py"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return kept.read_text(encoding="utf-8")
    text = shake(source, roots)
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = kept.with_suffix(f".{os.getpid()}")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(kept)
    return text
