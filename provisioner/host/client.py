"""provision-client: stop a network's client without ending a job, and let it start again.

    provision-client drain NETWORK [--wait S] [--containers PATTERN] [--undo WORD…] [--then WORD…] [--do WORD…]
    provision-client drain NETWORK --interrupt [--then WORD…] [--do WORD…]
    provision-client resume NETWORK [--do WORD…]
    provision-client resume-all
    provision-client jobs [--containers PATTERN]

`drain` closes the gate of that network (/var/lib/provision/drained/NETWORK), runs the command behind --do, and
waits until no job runs. Exit 0: drained. Exit 3: a job still runs after the wait; the gate is opened again, the
command behind --undo is run, and the client serves on. Exit 4: the command failed; the gate is opened again. No job
is ended here, unless --interrupt says so: then nothing is waited for, and what fails is told and passed over. The
command behind --then is run at the end, when no job is left, or none counts. `--undo` is kept on the host until it has
been run: `resume` without `--do` runs it, `resume-all` does so for every network that has one left, as the last step of
an enrolment.

A job is a container whose name fits the pattern, or else a compute process: one that NVML names, or that has
/dev/nvidia-uvm open, which tells also while NVML does not answer. Where Kubernetes runs the client, a tenant's pod on
this node is one as well, whatever it does at the moment.
"""

# pathlib, argparse and subprocess cost more to import than the work takes.
# ruff: noqa: PTH103, PTH105, PTH108, PTH115, PTH123, PTH208, SIM105

import json
import os
import socket
import sys
import time

from provisioner.host import cluster, gate, nvml

MYPY = False
if MYPY:
    from collections.abc import Callable
    from typing import Any

POLL_S = 5.0
COMPUTE = "/dev/nvidia-uvm"
UNDO = gate.STATE + "/undo"


class Unseen(Exception):
    """Whether a job runs could not be seen; the text says why."""


# Is there a job?


def jobs(
    containers: "str | None",
    root: str = "",
    ask: "Callable[[], Any]" = nvml.compute_processes,
    networks: "tuple[str, ...]" = (),
) -> "list[str]":
    """What runs now, in words; with the pods of those `networks` that Kubernetes runs. Raises Unseen."""
    pods = [one for network in networks if cluster.concerns(network, root) for one in tenants(network, root)]
    return pods + of_host(containers, root, ask)


def tenants(network: str, root: str = "") -> "list[str]":
    try:
        return cluster.jobs(network, root)
    except cluster.Absent:
        return []
    except cluster.Refused as problem:
        raise Unseen(f"the cluster does not say which pods run here: {problem}") from None


def of_host(containers: "str | None", root: str, ask: "Callable[[], Any]") -> "list[str]":
    if containers is not None:
        return [f"container {name}" for name in running(root + gate.DOCKER) if fits(name, containers)]
    found = {pid: f"process {pid}" for pid in holders(COMPUTE, root)}
    seen = gate.apart(ask, gate.NVML_LIMIT_S)
    for pid in seen.get("pids", ()):
        found.setdefault(pid, f"process {pid}")
    return [found[pid] for pid in sorted(found)]


def fits(name: str, pattern: str) -> bool:
    """`pod_7` fits `pod_*`; a star stands at the end only."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def running(path: str) -> "list[str]":
    """Names of the containers that run, from Docker's own socket."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.settimeout(gate.DOCKER_LIMIT_S)
    try:
        line.connect(path)
        line.sendall(b"GET /containers/json HTTP/1.0\r\n\r\n")
        got = [line.recv(65536)]
        while got[-1]:
            got.append(line.recv(65536))
        body = json.loads(b"".join(got).partition(b"\r\n\r\n")[2].decode())
        return sorted(name.lstrip("/") for one in body for name in one["Names"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise Unseen(f"Docker does not say which containers run: {problem}") from None
    finally:
        line.close()


def holders(device: str, root: str = "") -> "list[int]":
    """Processes that have a device open, seen through /proc."""
    found = []
    try:
        names = os.listdir(root + "/proc")
    except OSError as problem:
        raise Unseen(f"/proc can not be read: {problem}") from None
    for name in names:
        if not name.isdigit():
            continue
        folder = f"{root}/proc/{name}/fd"
        try:
            descriptors = os.listdir(folder)
        except OSError:
            continue  # it has ended
        for descriptor in descriptors:
            try:
                if os.readlink(f"{folder}/{descriptor}") == device:
                    found.append(int(name))
                    break
            except OSError:
                continue
    return found


# Drain and resume.


def drain(
    network: str,
    wait_s: float,
    containers: "str | None" = None,
    do: "tuple[str, ...]" = (),
    undo: "tuple[str, ...]" = (),
    root: str = "",
    look: "Callable[[], list[str]] | None" = None,
    run: "Callable[[tuple[str, ...]], int] | None" = None,
    clock: "Callable[[], float]" = time.monotonic,
    sleep: "Callable[[float], None]" = time.sleep,
    then: "tuple[str, ...]" = (),
    interrupt: bool = False,
) -> int:
    """Close the gate, run the command, wait, run the last command; an exit code."""
    act = run or command
    close(network, root)
    if do:
        keep(network, undo, root)
        rc = act(do)
        if rc and interrupt:
            say(f"{network}: {' '.join(do)} failed with exit code {rc}; jobs may be lost, so it goes on")
        elif rc:
            reopen(network, root)
            # It may have failed half-way: a provider that is scaled to none and a node that is not cordoned.
            if undo and act(undo):
                say(f"{network}: {' '.join(undo)} failed too: run it by hand, or the client takes no jobs")
            else:
                forget(network, root)
            say(f"{network}: {' '.join(do)} failed with exit code {rc}; nothing was drained, and it serves on")
            return 4
    ends_at = clock() + wait_s
    while not interrupt:
        try:
            left = look() if look else jobs(containers, root, networks=(network,))
        except Unseen as problem:
            left = [str(problem)]
        if not left:
            say(f"{network}: no job runs")
            break
        if clock() >= ends_at:
            return busy(network, wait_s, left, do, undo, act, root)
        sleep(min(POLL_S, max(0.0, ends_at - clock())))
    if then and act(then):
        say(f"{network}: {' '.join(then)} failed; it goes on all the same")
    return 0


def busy(
    network: str,
    wait_s: float,
    left: "list[str]",
    do: "tuple[str, ...]",
    undo: "tuple[str, ...]",
    act: "Callable[[tuple[str, ...]], int]",
    root: str,
) -> int:
    """A job outlasts the wait: take back what was done, and let it serve on."""
    reopen(network, root)
    if undo and act(undo):
        say(f"{network}: {' '.join(undo)} failed: run it by hand, or the client takes no jobs")
    elif do:
        forget(network, root)
    say(f"{network}: still busy after {wait_s / 60:g} min ({', '.join(left[:4])}); it serves on")
    return 3


def resume(
    network: str,
    do: "tuple[str, ...]" = (),
    root: str = "",
    run: "Callable[[tuple[str, ...]], int] | None" = None,
) -> int:
    """Open the gate, and take back what a drain did; exit 4: that failed, and is tried again next time."""
    reopen(network, root)
    words = do or kept(network, root)
    if words and not do and cluster.concerns(network, root) and words[0].endswith("/provision-cluster"):
        # Its unit gives the node out, and goes on trying: right after a boot the API server is not up yet.
        words = ()
    if words and (run or command)(words):
        say(f"{network}: {' '.join(words)} failed: it takes no jobs until that is done")
        return 4
    forget(network, root)
    return 0


def resume_all(root: str = "", run: "Callable[[tuple[str, ...]], int] | None" = None) -> int:
    """Every network whose drain has not been taken back."""
    try:
        names = sorted(os.listdir(root + UNDO))
    except OSError:
        return 0
    return max([resume(name, (), root, run) for name in names if safe_name(name)], default=0)


def keep(network: str, undo: "tuple[str, ...]", root: str = "") -> None:
    """Note what takes the drain back before it is begun: a run that dies in between must not leave a client idle."""
    if not undo:
        return
    os.makedirs(root + UNDO, mode=0o755, exist_ok=True)
    path = f"{root}{UNDO}/{network}"
    with open(f"{root}{UNDO}/.{network}.new", "w") as out:
        json.dump(undo, out)
    os.replace(f"{root}{UNDO}/.{network}.new", path)


def kept(network: str, root: str = "") -> "tuple[str, ...]":
    try:
        return tuple(str(word) for word in json.loads(gate.read(f"{root}{UNDO}/{network}") or "[]"))
    except (ValueError, TypeError):
        return ()


def forget(network: str, root: str = "") -> None:
    try:
        os.unlink(f"{root}{UNDO}/{network}")
    except FileNotFoundError:
        pass


def close(network: str, root: str = "", why: str = "") -> None:
    """The mark lasts over a reboot: who drains means it until it is taken back."""
    os.makedirs(root + gate.DRAINED, mode=0o755, exist_ok=True)
    path = f"{root}{gate.DRAINED}/{network}"
    with open(path + ".new", "w") as out:
        out.write(f"{why or 'by provision'}, since {gate.stamp(time.time())}\n")
    os.replace(path + ".new", path)


def reopen(network: str, root: str = "") -> None:
    try:
        os.unlink(f"{root}{gate.DRAINED}/{network}")
    except FileNotFoundError:
        pass


def command(words: "tuple[str, ...]") -> int:
    import subprocess

    try:
        return subprocess.call(list(words), stdin=subprocess.DEVNULL)
    except OSError as problem:
        say(f"{words[0]}: {problem.strerror}")
        return 127


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


# The command line.


def parsed(argv: "list[str]") -> "dict[str, list[str]] | None":
    """`drain lium --wait 60` is {"": ["drain", "lium"], "--wait": ["60"]}; None: an option that is not known.

    What follows --do, --undo or --then are words of a command, whatever they look like, up to the next of the three.
    """
    commands = ("--do", "--undo", "--then")
    found = {"": []}  # type: dict[str, list[str]]
    name = ""
    for word in argv:
        if word in commands or (word.startswith("--") and name not in commands):
            if word not in ("--wait", "--containers", "--interrupt", *commands):
                return None
            name = word
            found[name] = []
        else:
            found[name].append(word)
    return found


def main(argv: "list[str]") -> int:
    options = parsed(argv)
    words = options[""] if options is not None else []
    alone = words[:1] in (["jobs"], ["resume-all"])
    if options is None or len(words) != (1 if alone else 2) or not safe_name(words[-1]):
        return usage()
    containers = next(iter(options.get("--containers", ())), None)
    do, undo = tuple(options.get("--do", ())), tuple(options.get("--undo", ()))
    if words[0] == "jobs":
        try:
            found = jobs(containers, networks=cluster.served())
        except Unseen as problem:
            say(str(problem))
            return 2
        sys.stdout.write("".join(one + "\n" for one in found))
        return 1 if found else 0
    if words[0] == "resume-all":
        return resume_all()
    if words[0] == "resume":
        return resume(words[1], do)
    if words[0] != "drain":
        return usage()
    wait_s = float((options.get("--wait") or ["1800"])[0])
    then = tuple(options.get("--then", ()))
    return drain(words[1], wait_s, containers, do, undo, then=then, interrupt="--interrupt" in options)


def safe_name(word: str) -> bool:
    """A network's id is the name of a file here."""
    return bool(word) and all(sign.isalnum() or sign in "-." for sign in word) and not word.startswith(".")


def usage() -> int:
    sys.stderr.write((__doc__ or "").partition("\n\n")[2])
    return 2


def entry() -> None:
    sys.exit(main(sys.argv[1:]))
