"""provision-end-containers: when the host goes down, end Docker's containers as the daemon itself would have.

docker.service calls it when its daemon has stopped. With live-restore the daemon leaves containers running, also when
the host goes down; then nobody tells them, and one whose program does not listen to SIGTERM (process 1 of a container
has to ask for that) holds the shutdown up until systemd kills it, 90 s later. Here each gets the signal that it wants
to be stopped by, and the time that it was given. Docker has not stopped them, so it starts again what is to come back
after a boot. Where the host does not go down nothing is done.
"""

# pathlib and contextlib cost more to import than the work takes; capture_output came with Python 3.7.
# ruff: noqa: PTH118, PTH123, PTH208, SIM105

import json
import os
import signal
import subprocess
import time

MYPY = False
if MYPY:
    from collections.abc import Callable
    from typing import Any

SETTINGS = "/etc/docker/daemon.json"
DATA = "/var/lib/docker"
SHIM = "containerd-shim"  # as /proc/PID/comm has it, which holds 15 characters
GRACE_S = 10.0  # Docker's own, for a container that names none
MOST_S = 60.0  # systemd gives docker.service 90 s for all of its stopping
KILLED_S = 3.0
POLL_S = 0.1


def goes_down() -> bool:
    """Whether systemd is on its way to a reboot, a halt or the like."""
    try:
        done = subprocess.run(
            ["systemctl", "is-system-running"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == b"stopping"


def read(path: str) -> "Any":
    """A JSON object; empty when there is none that can be read."""
    try:
        with open(path) as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def in_shim(pid: int, root: str = "") -> bool:
    """Whether a process is a container's own: its parent is containerd's shim. A number alone may be another's."""
    try:
        with open(f"{root}/proc/{pid}/stat") as file:
            parent = file.read().rpartition(")")[2].split()[1]
        with open(f"{root}/proc/{parent}/comm") as file:
            return file.read().strip() == SHIM
    except (OSError, IndexError):
        return False


def number(name: "Any") -> int:
    """`SIGQUIT`, `quit` and `3` are 3, `SIGRTMIN+3` is what systemd halts by; SIGTERM for what names no signal."""
    text = str(name or "SIGTERM").upper()
    if text.isdigit():
        found = int(text)
    else:
        text = text if text.startswith("SIG") else "SIG" + text
        base, sign, step = text[:8], text[8:9], text[9:]
        if base in ("SIGRTMIN", "SIGRTMAX") and sign in ("+", "-") and step.isdigit():
            found = int(getattr(signal, base)) + int(sign + step)
        else:
            known = getattr(signal, text, None)
            found = int(known) if isinstance(known, signal.Signals) else 0
    return found if 0 < found < signal.NSIG else int(signal.SIGTERM)


def running(root: str = "") -> "list[tuple[int, int, float]]":
    """Process, signal and seconds of each container that runs."""
    data = read(root + SETTINGS).get("data-root")
    folder = root + (data if isinstance(data, str) and data.startswith("/") else DATA) + "/containers"
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    found = []
    for name in names:
        seen = read(os.path.join(folder, name, "config.v2.json"))
        state, config = seen.get("State"), seen.get("Config")
        if not isinstance(state, dict) or not isinstance(config, dict) or state.get("Running") is not True:
            continue
        pid, grace = state.get("Pid"), config.get("StopTimeout")
        if type(pid) is int and pid > 1 and in_shim(pid, root):
            # Below zero is Docker's word for as long as it takes.
            grace = (float(grace) if grace >= 0 else MOST_S) if type(grace) is int else GRACE_S
            found.append((pid, number(config.get("StopSignal")), min(grace, MOST_S)))
    return found


def send(pid: int, what: int) -> None:
    try:
        os.kill(pid, what)
    except OSError:
        pass


def end(
    containers: "list[tuple[int, int, float]]",
    lives: "Callable[[int], bool]" = in_shim,
    clock: "Callable[[], float]" = time.monotonic,
    wait: "Callable[[float], None]" = time.sleep,
) -> "list[int]":
    """Tell all at once, kill each whose time is over; returns those that had to be killed."""
    began = clock()
    for pid, what, _ in containers:
        send(pid, what)
    left = [(pid, began + grace) for pid, _, grace in containers]
    killed = []
    while left:
        left = [(pid, until) for pid, until in left if lives(pid)]
        for pid, until in left:
            if clock() >= until:
                send(pid, int(signal.SIGKILL))
                killed.append(pid)
        left = [(pid, until) for pid, until in left if pid not in killed]
        if left:
            wait(POLL_S)
    gone = clock() + KILLED_S
    while any(lives(pid) for pid in killed) and clock() < gone:
        wait(POLL_S)
    return killed


def entry() -> None:
    if not goes_down():
        return
    containers = running()
    killed = end(containers)
    if containers:
        print(f"the host goes down: {len(containers)} containers ended, {len(killed)} of them killed")
