#!/usr/bin/python3
"""Confirm or revert: puts a change of files and units in force, and takes it back unless somebody confirms in time.

    guard arm PLAN.json     keep what is there, start the timer, put the change in force (in the background)
    guard confirm ID        the change stays; only over the path that the plan names
    guard revert ID         put everything back now (the timer calls this)
    guard boot              after a reboot: put back what was never confirmed, before the network comes up
    guard status [ID]       what became of a change, as JSON

A plan is JSON: {"id", "what", "confirm_s", "path", "files": [{"path", "content", "mode"}], "absent": [path],
"units": [name], "stop": [name], "run": [[argv]], "undo": [[argv]], "settle": [[argv]]}. `content` null means that the
file is made by `run`, whose commands come after the files; those of `undo` come after the kept files are back, those of
`settle` once the change is confirmed. A unit in `units` is
enabled, and reloaded or started; one in `stop` is stopped and disabled. `path` is the address on this host to which
the confirming ssh session must be connected; empty: any. At the host itself there is no session: then `peer`, the far
end of the path, has to answer.

State lies in /var/lib/provision/guard: a folder for each change with its plan, its state and the kept files, and a
file `pending` that names the one that waits. At most one waits at a time. Everything is written before it is relied
on, so that power may fail between any two lines.
"""

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import time

MYPY = False
if MYPY:  # never true: annotations stand in quotes for Python 3.6
    from typing import Any

ROOT = os.environ.get("PROVISION_GUARD_ROOT", "/var/lib/provision/guard")
BUSY = 75  # EX_TEMPFAIL: another change waits
SLACK_S = 2  # between arming and switching, so that whoever armed it hears the answer
KEEP = 10  # changes whose kept files stay


class Refused(Exception):
    """What was asked cannot be done; nothing was changed."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


# Small files that survive a power cut.


def write(path: str, text: str, mode: int = 0o600) -> None:
    fresh = path + ".new"
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, path)
    sync_folder(os.path.dirname(path))


def sync_folder(path: str) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: str) -> "Any":
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def folder(change: str) -> str:
    if not change or "/" in change or change.startswith("."):
        raise Refused("%r is no id of a change" % change)
    return os.path.join(ROOT, change)


def pending() -> "str | None":
    try:
        with open(os.path.join(ROOT, "pending")) as file:
            return file.read().strip() or None
    except OSError:
        return None


def set_pending(change: str) -> None:
    write(os.path.join(ROOT, "pending"), change + "\n")


def clear_pending(change: str) -> None:
    if pending() == change:
        os.unlink(os.path.join(ROOT, "pending"))
        sync_folder(ROOT)


def state_of(change: str) -> "Any":
    return read_json(os.path.join(folder(change), "state.json"))


def set_state(change: str, state: str, **more: "Any") -> "dict[str, Any]":
    known = state_of(change) or {"id": change}
    known.update(more, state=state, at=int(time.time()))
    write(os.path.join(folder(change), "state.json"), json.dumps(known, indent=1, sort_keys=True) + "\n", 0o644)
    # Beside it for the probe, which reads /var/lib/provision/*.json in one look.
    write(os.path.join(os.path.dirname(ROOT), "guard.json"), json.dumps(known, sort_keys=True) + "\n", 0o644)
    return known


class Lock:
    """One guard at a time: the timer may fire while a confirmation comes in."""

    def __enter__(self) -> "Lock":
        os.makedirs(ROOT, mode=0o700, exist_ok=True)
        self.file = open(os.path.join(ROOT, "lock"), "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


# Keeping and putting back.


def keep(change: str, plan: "dict[str, Any]") -> None:
    """Copy every file that the change touches, note those that are not there, and how the units stand."""
    backup = os.path.join(folder(change), "kept")
    os.makedirs(backup, mode=0o700)
    files = []
    paths = [item["path"] for item in plan["files"]] + list(plan.get("absent", []))
    for number, path in enumerate(dict.fromkeys(paths)):
        entry = {"path": path, "kept": None}  # type: dict[str, Any]
        try:
            seen = os.lstat(path)
        except OSError:
            entry["kind"] = "absent"
        else:
            entry.update(mode=stat.S_IMODE(seen.st_mode), uid=seen.st_uid, gid=seen.st_gid)
            if stat.S_ISLNK(seen.st_mode):
                entry.update(kind="link", target=os.readlink(path))
            elif stat.S_ISREG(seen.st_mode):
                entry.update(kind="file", kept=str(number))
                copy = os.path.join(backup, str(number))
                shutil.copyfile(path, copy)
                with open(copy) as file:
                    os.fsync(file.fileno())
            else:
                raise Refused("%s is no plain file; it is left alone" % path)
        files.append(entry)
    units = {}
    for name in list(plan.get("units", [])) + list(plan.get("stop", [])):
        units[name] = {"active": ask("is-active", name) in ("active", "activating"), "enabled": ask("is-enabled", name)}
    write(os.path.join(folder(change), "kept.json"), json.dumps({"files": files, "units": units}, indent=1))
    sync_folder(backup)


def ask(verb: str, unit: str) -> str:
    done = subprocess.run(
        ["systemctl", verb, unit], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True
    )
    return done.stdout.strip()


def call(argv: "list[str]", problems: "list[str]", limit_s: int = 60) -> bool:
    """Run one command; what went wrong is noted, and the next one still runs."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s
        )
    except (OSError, subprocess.SubprocessError) as error:
        problems.append("%s: %s" % (" ".join(argv), error))
        return False
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace").strip().splitlines()[-3:]
        problems.append("%s: exit %d %s" % (" ".join(argv), done.returncode, " | ".join(said)))
    return done.returncode == 0


def switch(plan: "dict[str, Any]") -> "list[str]":
    """Put the change in force; returns what went wrong, in words."""
    problems = []  # type: list[str]
    # First what ends, while its files still say how: wg-quick cannot take an interface down without its config.
    for name in plan.get("stop", []):
        call(["systemctl", "stop", name], [])
        call(["systemctl", "disable", name], [])
        call(["systemctl", "reset-failed", name], [])
        # A unit that is not there at all cannot be stopped, and need not be: what counts is that it does not run.
        if ask("is-active", name) in ("active", "activating"):
            problems.append("%s still runs" % name)
    for item in plan["files"]:
        os.makedirs(os.path.dirname(item["path"]), exist_ok=True)
        if item.get("content") is not None:
            write(item["path"], item["content"], int(item.get("mode", "0644"), 8))
    for path in plan.get("absent", []):
        try:
            os.unlink(path)
        except OSError:
            pass
    call(["systemctl", "daemon-reload"], problems)
    for argv in plan.get("run", []):
        if not call(argv, problems):
            return problems
    for name in plan.get("units", []):
        call(["systemctl", "enable", name], problems)
        call(["systemctl", "reload-or-restart", name], problems)
        if problems:
            return problems
    return problems


def put_back(change: str, at_boot: bool) -> "list[str]":
    """Restore files, then units, as they were kept; returns what went wrong."""
    kept = read_json(os.path.join(folder(change), "kept.json"))
    problems = []  # type: list[str]
    if kept is None:
        return ["nothing was kept for %s" % change]
    # Stop what was not there before while its new files still say how.
    for name, before in kept["units"].items():
        if not before["active"] and not at_boot:
            call(["systemctl", "stop", name], problems)
        if before["enabled"] in ("disabled", "", "not-found"):
            call(["systemctl", "disable", name], problems)
    del problems[:]  # a unit that never started cannot be stopped, and need not be
    for entry in kept["files"]:
        try:
            restore(change, entry)
        except OSError as error:
            problems.append("%s: %s" % (entry["path"], error))
    call(["systemctl", "daemon-reload"], problems)
    if not at_boot:  # then the services that these commands speak to are not up yet, and will read the old files
        for argv in (read_json(os.path.join(folder(change), "plan.json")) or {}).get("undo", []):
            call(argv, problems)
    for name, before in kept["units"].items():
        if before["enabled"] == "enabled":
            call(["systemctl", "enable", name], problems)
        if at_boot:
            # Its start may stand in the queue of this boot: what was down before stays down, the rest starts by itself.
            if not before["active"]:
                call(["systemctl", "stop", "--no-block", name], [])
        elif before["active"] and not call(["systemctl", "reload-or-restart", name], []):
            call(["systemctl", "restart", name], problems)
    return problems


def restore(change: str, entry: "dict[str, Any]") -> None:
    path = entry["path"]
    if entry["kind"] == "absent":
        if os.path.lexists(path):
            os.unlink(path)
        return
    if entry["kind"] == "link":
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink(entry["target"], path)
        return
    fresh = path + ".guard"
    shutil.copyfile(os.path.join(folder(change), "kept", entry["kept"]), fresh)
    os.chown(fresh, entry["uid"], entry["gid"])
    os.chmod(fresh, entry["mode"])
    with open(fresh) as file:
        os.fsync(file.fileno())
    os.rename(fresh, path)
    sync_folder(os.path.dirname(path))


# Who runs now, and over which path somebody came.


def boot_identity() -> str:
    """The kernel's boot id and the start of process 1: a system container shares the first with its machine."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    with open("/proc/1/stat") as file:
        return boot + ":" + file.read().rpartition(")")[2].split()[19]


def came_to() -> "str | None":
    """The address on this host that the caller's ssh session is connected to; None without a session (a console)."""
    process = os.getpid()
    while process > 1:
        try:
            with open("/proc/%d/environ" % process, "rb") as file:
                for item in file.read().split(b"\0"):
                    if item.startswith(b"SSH_CONNECTION="):
                        return item.decode("ascii", "replace").split("=", 1)[1].split()[2]
            with open("/proc/%d/stat" % process) as file:
                process = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            return None
    return None


def answers(address: str) -> bool:
    argv = ["ping", "-n", "-q", "-c", "3", "-i", "0.3", "-W", "2", address]
    return subprocess.call(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


# The commands.


def arm(path: str) -> "dict[str, Any]":
    """Answers with the deadline; the switch itself follows two seconds later, in a unit of its own."""
    plan = read_json(path)
    if plan is None or not isinstance(plan.get("files"), list):
        raise Refused("%s is no plan" % path)
    change = plan["id"]
    with Lock():
        waits = pending()
        if waits is not None and waits != change:
            known = state_of(waits) or {}
            raise Refused("the change %s still waits to be confirmed (until %s)" % (waits, known.get("until")), BUSY)
        if os.path.exists(folder(change)):
            raise Refused("the change %s was made before: %s" % (change, (state_of(change) or {}).get("state")))
        os.makedirs(folder(change), mode=0o700)
        write(os.path.join(folder(change), "plan.json"), json.dumps(plan))
        keep(change, plan)
        limit = int(plan["confirm_s"]) + SLACK_S
        known = set_state(
            change,
            "armed",
            what=plan.get("what", ""),
            path=plan.get("path", ""),
            peer=plan.get("peer", ""),
            confirm_s=int(plan["confirm_s"]),
            until=int(time.time()) + limit,
            boot=boot_identity(),
        )
        set_pending(change)
        try:
            # The timer first: from here on, whatever fails, the old state comes back.
            later("provision-revert-" + change, limit, ["revert", change])
            later("provision-switch-" + change, SLACK_S, ["switch", change])
        except (OSError, subprocess.SubprocessError) as error:
            set_state(change, "refused", why="no timer could be started: %s" % error)
            clear_pending(change)
            raise Refused("no timer could be started, so nothing was changed: %s" % error) from error
    tidy()
    try:
        os.unlink(path)
    except OSError:
        pass
    return known


def later(unit: str, seconds: int, words: "list[str]") -> None:
    timer = ["systemd-run", "--quiet", "--collect", "--unit=" + unit, "--on-active=%d" % seconds]
    subprocess.run(
        [*timer, "--timer-property=AccuracySec=200ms", sys.executable, os.path.abspath(__file__), *words],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def put_in_force(change: str) -> "Any":
    """What fails here is taken back at once: there is no need to wait for the timer."""
    with Lock():
        known = state_of(change)
        if pending() != change or known is None or known["state"] != "armed":
            return known
        problems = switch(read_json(os.path.join(folder(change), "plan.json")))
        if not problems:
            return set_state(change, "applied")
        return take_back(change, "could not be put in force: " + "; ".join(problems), at_boot=False)


def take_back(change: str, why: str, at_boot: bool) -> "dict[str, Any]":
    problems = put_back(change, at_boot)
    known = set_state(change, "reverted", why=why, problems=problems)
    clear_pending(change)
    return known


def confirm(change: str) -> "Any":
    with Lock():
        known = state_of(change)
        if known is None:
            raise Refused("there is no change %s" % change)
        if known["state"] == "confirmed":
            return known
        if known["state"] != "applied":
            raise Refused("the change %s is %s%s" % (change, known["state"], ": " + known.get("why", "")))
        wanted, came = known.get("path", ""), came_to()
        if wanted and came is None and known.get("peer") and answers(known["peer"]):
            came = "console"
        elif wanted and came != wanted:
            raise Refused(
                "the change %s must be confirmed over %s, and this session came to %s"
                % (change, wanted, came or "no address")
            )
        known = set_state(change, "confirmed", came=came)
        clear_pending(change)
        for argv in (read_json(os.path.join(folder(change), "plan.json")) or {}).get("settle", []):
            call(argv, [])
    subprocess.run(
        ["systemctl", "stop", "provision-revert-%s.timer" % change],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return known


def revert(change: str) -> "Any":
    with Lock():
        known = state_of(change)
        if known is None:
            raise Refused("there is no change %s" % change)
        if known["state"] not in ("armed", "applied"):
            return known
        return take_back(change, "nobody confirmed it within %s s" % known.get("confirm_s"), at_boot=False)


def boot() -> "Any":
    with Lock():
        change = pending()
        if change is None:
            return {"state": "nothing waits"}
        known = state_of(change)
        if known is None:
            clear_pending(change)
            return {"state": "nothing waits"}
        if known.get("boot") == boot_identity():
            return known  # started by hand in the middle of a change: the timer still runs
        return take_back(change, "the host was restarted before anybody confirmed it", at_boot=True)


def status(change: "str | None") -> "Any":
    if change is not None:
        return state_of(change) or {"id": change, "state": "unknown"}
    return read_json(os.path.join(os.path.dirname(ROOT), "guard.json")) or {"state": "nothing waits"}


def tidy() -> None:
    """Kept files of old changes go; those of the last few stay."""
    names = [n for n in os.listdir(ROOT) if os.path.isdir(os.path.join(ROOT, n))]
    names.sort(key=lambda n: os.stat(os.path.join(ROOT, n)).st_mtime)
    for name in names[:-KEEP]:
        if name != pending():
            shutil.rmtree(os.path.join(ROOT, name), ignore_errors=True)


def main(argv: "list[str]") -> int:
    commands = {"arm": arm, "confirm": confirm, "revert": revert, "switch": put_in_force}
    try:
        if argv[:1] == ["boot"]:
            answer = boot()
        elif argv[:1] == ["status"]:
            answer = status(argv[1] if len(argv) > 1 else None)
        elif len(argv) == 2 and argv[0] in commands:
            answer = commands[argv[0]](argv[1])
        else:
            sys.stderr.write(__doc__)
            return 2
    except Refused as problem:
        sys.stderr.write("guard: %s\n" % problem)
        return problem.code
    print(json.dumps(answer, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
