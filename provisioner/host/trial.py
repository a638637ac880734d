"""The trial of a change across its reboot: the host goes back by itself unless it is sound and somebody confirms.

    run arm        begin: from wish.json beside this program; the reboot comes next
    run watch      look, decide, act, until the trial ends (the unit calls this)
    run confirm    the change stays; nothing of the trial is left. Exit 75: the host is going back already
    run cancel     the same for somebody who takes the change back otherwise

What is done about what is seen is decided by `decide` and `came`, which are pure. A change is taken back once and never
again; every state is written before it is acted on, so that power may fail between any two lines. It needs no
controller and no network, and brings the record of the enrolment before back, which the host's gate then judges.
"""

# Python 3.6 has no pathlib that renames; text paths all the way.
# ruff: noqa: PTH103, PTH104, PTH108, PTH110, PTH120, PTH123, PTH208

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

from provisioner.host import fallback, grub

MYPY = False
if MYPY:
    from typing import Any

    Json = dict[str, Any]

STATE = "/var/lib/provision"
FOLDER = STATE + "/trial"
UNIT = "provision-trial.service"
UNIT_PATH = "/etc/systemd/system/" + UNIT
DROP_IN = "/etc/default/grub.d/zz-provision-trial.cfg"
GRUB = "/boot/grub"
LEASE = STATE + "/apply.lock"
LEASE_GUARD = STATE + "/apply.guard"
LOCK = "/run/provision-trial.lock"

BUSY = 75  # EX_TEMPFAIL
SETTLE_S = 180  # a host that is sound says so within this time after its boot
LOOK_S = 5.0
MOST_BOOTS = 3
MOST_TRIES = 3  # of an undo that a power cut ended each time
REBOOT_S = 600
SMI_S = 60.0
LEASE_S = 3600  # the longest run seen on a slow rig was under ten minutes; an hour is safe, and --break-lock ends it

LIVE = ("armed", "trying", "sound")
GOING = ("falling", "rebooting", "returned", "releasing")
ENDS = ("back", "gave-up")

SSH = ("ssh.service", "sshd.service", "ssh.socket", "sshd.socket")

UNIT_TEXT = """# Written by provision: a trial of a change is going on. Goes when it ends.
[Unit]
Description=Take the last change back unless the host is sound and somebody confirms
After=local-fs.target
StartLimitIntervalSec=0

[Service]
ExecStart={folder}/run watch
Restart=on-failure
RestartSec=10
KillMode=process

[Install]
WantedBy=multi-user.target
"""

# panic: a kernel that cannot go on restarts the host, and initramfs-tools does so too when there is no root.
DROP_IN_TEXT = """# Written by provision: a kernel is tried once, the default stays. Goes when the trial ends.
GRUB_DEFAULT=saved
GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX panic=30"
"""


# What is decided.


def decide(state: "Json", boot: str, up_s: float, hard: "list[str]", soft: "list[str]") -> "tuple[Json, str]":
    """The state as it is now, and what to do: wait, undo, reboot, release, or end.

    `boot` names this boot, `up_s` is its age in seconds. `hard` is what is wrong and will stay so, `soft` what may
    still come while the host starts; both against what is expected in this state.
    """
    now = dict(state)
    if boot != now["boot"]:
        now.update(boot=boot, boots=now["boots"] + 1)
        if now["state"] == "sound":
            now["state"] = "trying"
    if now["state"] in ENDS:
        return now, "end"
    if now["state"] in LIVE:
        why = verdict(now, up_s, hard, soft)
        if why:
            now.update(state="falling", why=why, tries=1)
            return now, "undo"
        if now["boots"] and now["state"] != "sound":
            now["state"] = "trying" if hard or soft else "sound"
        return now, "wait"
    if now["state"] == "falling":
        return again(now, "undo")
    if now["state"] == "rebooting":
        if boot == now["left"]:
            if up_s < now["asked_s"] + REBOOT_S:
                return now, "reboot"
            return given_up(now, "the reboot after it did not come"), "end"
        now["state"] = "returned"
    if now["state"] == "returned":
        if not hard and not soft:
            now.update(state="releasing", tries=1)
            return now, "release"
        if up_s > SETTLE_S + (now["asked_s"] if boot == now["left"] else 0):
            return given_up(now, "; ".join(hard + soft)), "end"
        return now, "wait"
    return again(now, "release")


def verdict(state: "Json", up_s: float, hard: "list[str]", soft: "list[str]") -> str:
    """Why the change has to go; empty while it may stay."""
    limit_s = state["limit_s"]
    if not state["boots"]:
        waited = up_s - state["armed_s"]
        return f"the reboot did not come within {minutes(limit_s)}" if waited > limit_s else ""
    if state["boots"] > MOST_BOOTS:
        return f"the host was started {state['boots']} times, and nobody confirmed"
    if state["state"] != "sound":
        if hard:
            return "; ".join(hard + soft)
        if soft and up_s > min(SETTLE_S, limit_s):
            return "; ".join(soft)
    return f"nobody confirmed within {minutes(limit_s)} of the boot" if up_s > limit_s else ""


def again(state: "Json", action: str) -> "tuple[Json, str]":
    """What was cut short is done again, but not for ever."""
    if state["tries"] >= MOST_TRIES:
        return given_up(state, "it was cut short each time"), "end"
    return dict(state, tries=state["tries"] + 1), action


def came(state: "Json", action: str, problem: str, reboot: bool, up_s: float) -> "Json":
    """The state after an undo or a release: what it said when it failed, and whether the undo asks for a reboot."""
    if problem:
        return given_up(state, problem)
    if action == "release":
        return dict(state, state="back")
    return dict(state, state="rebooting" if reboot else "returned", left=state["boot"], asked_s=up_s)


def given_up(state: "Json", problem: str) -> "Json":
    return dict(state, state="gave-up", problem=problem)


def minutes(seconds: float) -> str:
    return f"{seconds / 60:g} min"


# What is seen.


class Host:
    """The world as the trial meets it; tests have their own."""

    def __init__(self, root: str = "") -> None:
        self.root = root

    def path(self, path: str) -> str:
        return self.root + path

    def boot(self) -> str:
        """This boot: the kernel's id, and when process 1 began, for a container has its machine's kernel."""
        return f"{(self.read('/proc/sys/kernel/random/boot_id') or '').strip()}/{self.began()}"

    def began(self) -> int:
        return int((self.read("/proc/1/stat") or "").rpartition(")")[2].split()[19])

    def up_s(self) -> float:
        return float((self.read("/proc/uptime") or "0").split()[0]) - self.began() / os.sysconf("SC_CLK_TCK")

    def kernel(self) -> str:
        return os.uname().release

    def read(self, path: str) -> "str | None":
        try:
            with open(self.path(path), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return None

    def run(self, words: "list[str]", limit_s: float = 120) -> "tuple[int, str]":
        """Exit code and what was said. A process that cannot be ended is left: a sick card makes one wait for ever."""
        environment = dict(os.environ, LC_ALL="C", DEBIAN_FRONTEND="noninteractive", NEEDRESTART_SUSPEND="1")
        environment.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        with tempfile.TemporaryFile() as said:
            try:
                child = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=environment
                )
            except OSError as problem:
                return 127, str(problem)
            ends_at = time.monotonic() + limit_s
            while child.poll() is None and time.monotonic() < ends_at:
                time.sleep(0.1)
            if child.returncode is None:
                child.kill()
                return 124, f"no answer within {limit_s:g} s"
            said.seek(0)
            return child.returncode, said.read().decode("utf-8", "replace")

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def baseline(host: "Host") -> "Json":
    """What is there before the reboot and has to be there after it; what never was is not missed."""
    return {"ssh": any_active(host, SSH), "route": routed(host), "whole": whole(host)}


def problems(host: "Host", state: "Json") -> "tuple[list[str], list[str]]":
    """What is wrong after a boot: what will stay so, and what may still come."""
    hard, soft = [], []
    wanted = state["before"] if state["state"] in GOING else state["expect"]
    if wanted["kernel"] and host.kernel() != wanted["kernel"]:
        hard.append(f"kernel {host.kernel()} runs, not {wanted['kernel']}")
    if wanted["driver"]:
        loaded = (host.read("/sys/module/nvidia/version") or "").strip()
        if loaded and loaded != wanted["driver"]:
            hard.append(f"driver {loaded} is loaded, not {wanted['driver']}")
        elif not loaded:
            soft.append(f"driver {wanted['driver']} is not loaded")
        else:
            rc, said = host.run(["nvidia-smi", "-L"], SMI_S)
            if rc != 0 or "GPU 0" not in said:
                soft.append(f"nvidia-smi: {last_line(said) or f'exit code {rc}'}")
    had = state["had"]
    if had["ssh"] and not any_active(host, SSH):
        soft.append("sshd does not run")
    if had["route"] and not routed(host):
        soft.append("there is no default route")
    if had["whole"] and not whole(host):
        soft.append("dpkg has half-installed packages")
    return hard, soft


def any_active(host: "Host", units: "tuple[str, ...]") -> bool:
    return any(host.run(["systemctl", "is-active", "--quiet", unit])[0] == 0 for unit in units)


def routed(host: "Host") -> bool:
    """Whether IPv4 or IPv6 has a way out: a destination of zeroes that is not the kernel's own `lo` entry."""
    four = [line.split() for line in (host.read("/proc/net/route") or "").splitlines()[1:]]
    six = [line.split() for line in (host.read("/proc/net/ipv6_route") or "").splitlines()]
    return any(len(words) > 7 and words[1] == words[7] == "00000000" for words in four) or any(
        len(words) > 9 and words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo" for words in six
    )


def whole(host: "Host") -> bool:
    rc, said = host.run(["dpkg", "--audit"])
    try:
        left = [name for name in os.listdir(host.path("/var/lib/dpkg/updates")) if name.isdigit()]
    except OSError:
        left = []
    return rc == 0 and not said.strip() and not left


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


# What is done.


class Failed(Exception):
    """What was asked cannot be done; the text says why."""


def arm(host: "Host") -> str:
    """Begin the trial that wish.json asks for; what it said is for the run's screen."""
    wish = json.loads(host.read(FOLDER + "/wish.json") or "null")
    record = json.loads(host.read(f"{STATE}/history/{wish['run']}/record.json") or "null")
    if record is None or not record.get("from"):
        raise Failed(f"nothing is kept of run {wish['run']} that this host could go back to")
    state = {
        "format": 1,
        "run": wish["run"],
        "state": "armed",
        "at": stamp(),
        "what": wish["what"],
        "limit_s": wish["limit_s"],
        "expect": {"driver": wish["driver"], "kernel": wish["once"]},
        "before": {
            "driver": (record["driver"] or {}).get("version"),
            "kernel": host.kernel() if wish["once"] else None,
        },
        "had": baseline(host),
        "boot": host.boot(),
        "boots": 0,
        "armed_s": host.up_s(),
        "grub": None,
        "why": "",
        "problem": "",
        "tries": 0,
    }
    write(host.path(UNIT_PATH), UNIT_TEXT.format(folder=FOLDER), 0o644)
    if wish["once"]:
        state["grub"] = {"saved_entry": grub.variables(host.read(GRUB + "/grubenv") or "").get("saved_entry", "")}
        save(host, state)
        try:
            try_once(host, host.kernel(), wish["once"])
        except Failed:
            as_it_was(host, state["grub"])
            os.unlink(host.path(FOLDER + "/state.json"))
            raise
    save(host, state)
    must(host, ["systemctl", "daemon-reload"])
    must(host, ["systemctl", "enable", UNIT])
    must(host, ["systemctl", "restart", "--no-block", UNIT])
    return f"armed: back by itself unless confirmed within {minutes(wish['limit_s'])} of the boot"


def try_once(host: "Host", running: str, fresh: str) -> None:
    """Let GRUB boot a kernel once, and stay with the one that runs. Raises Failed when it would boot anything else."""
    os.makedirs(os.path.dirname(host.path(DROP_IN)), mode=0o755, exist_ok=True)
    write(host.path(DROP_IN), DROP_IN_TEXT, 0o644)
    must(host, ["update-grub"], 300)
    config = host.read(GRUB + "/grub.cfg") or ""
    for kernel, program in ((running, "grub-set-default"), (fresh, "grub-reboot")):
        name = grub.path_of(config, kernel)
        if name is None:
            raise Failed(f"GRUB has no entry for kernel {kernel}")
        must(host, [program, name])
    environment = host.read(GRUB + "/grubenv") or ""
    after = "\n".join(line for line in environment.splitlines() if not line.startswith("next_entry="))
    booted = (grub.default_kernel(config, environment), grub.default_kernel(config, after))
    if booted != (fresh, running):
        raise Failed(f"GRUB would boot {booted[0]} and then {booted[1]}, not {fresh} once and then {running}")


def as_it_was(host: "Host", kept: "Json") -> None:
    """Give GRUB its own default back."""
    if os.path.exists(host.path(DROP_IN)):
        os.unlink(host.path(DROP_IN))
        must(host, ["update-grub"], 300)
    saved = kept["saved_entry"]
    must(host, ["grub-editenv", "-", *(["set", f"saved_entry={saved}"] if saved else ["unset", "saved_entry"])])
    must(host, ["grub-editenv", "-", "unset", "next_entry"])


def stay(host: "Host", state: "Json") -> None:
    """GRUB stays with the kernel that is known to come up, also after the trial; its own file says why."""
    host.run(["grub-editenv", "-", "unset", "next_entry"])
    if os.path.exists(host.path(DROP_IN)):
        why = f"# kernel {state['expect']['kernel']} was tried and taken back ({state['why']}).\n"
        todo = "# To let GRUB take the newest kernel again: remove this file, then update-grub.\n"
        write(host.path(DROP_IN), "# Written by provision: " + why[2:] + todo + DROP_IN_TEXT.partition("\n")[2], 0o644)


def must(host: "Host", words: "list[str]", limit_s: float = 120) -> None:
    rc, said = host.run(words, limit_s)
    if rc != 0:
        raise Failed(f"{' '.join(words)}: {last_line(said) or f'exit code {rc}'}")


def end(host: "Host", word: str) -> int:
    """Confirm or cancel: the change stays as far as this program goes, and nothing of it is left."""
    with Lock(host):
        state = load(host)
        if state is not None and state["state"] in GOING:
            sys.stderr.write(f"the host is going back by itself: {state['why']}\n")
            return BUSY
        if state is not None:
            if state["grub"] is not None and state["state"] not in ENDS:
                as_it_was(host, state["grub"])
            say(f"{word}: {state['what']}")
        drop_unit(host)
        shutil.rmtree(host.path(FOLDER))
    return 0


def drop_unit(host: "Host") -> None:
    """The unit goes. It is not stopped by name: this may be called from within it."""
    if os.path.exists(host.path(UNIT_PATH)):
        host.run(["systemctl", "disable", UNIT])
        os.unlink(host.path(UNIT_PATH))
        host.run(["systemctl", "daemon-reload"])


def watch(host: "Host") -> int:
    """Look, decide and act until the trial ends; a trial that was confirmed meanwhile has no state any more."""
    while True:
        with Lock(host):
            state = load(host)
            if state is None:
                return 0
            boot, up_s = host.boot(), host.up_s()
            looks = judged(state, boot)
        hard, soft = problems(host, state) if looks else ([], [])  # outside the lock: a card may take a minute
        with Lock(host):
            if load(host) != state:
                continue  # confirmed or cancelled while it was looked at
            now, action = decide(state, boot, up_s, hard, soft)
            tell(state, now)
            if now != state:
                save(host, now)
            if now["state"] in GOING:
                take_lease(host, now)
        if action == "wait":
            host.sleep(LOOK_S)
        elif action == "reboot":
            host.run(["systemctl", "reboot"])
            host.sleep(LOOK_S)
        elif action == "end":
            drop_lease(host, now)
            drop_unit(host)
            return 0
        else:
            act(host, now, action)


def judged(state: "Json", boot: str) -> bool:
    """Whether this is a boot that is judged, and has not been found sound yet."""
    if boot != state["boot"]:
        return state["state"] not in ENDS
    return state["state"] in ("trying", "returned")


def act(host: "Host", state: "Json", action: str) -> None:
    """Undo or release, and what came of it."""
    problem, reboot = "", False
    try:
        if state["grub"] is not None:
            stay(host, state)
        if action == "undo":
            other = state["before"]["kernel"] not in (None, host.kernel())
            reboot = fallback.take_back(host, state["run"], reboot=other)
        else:
            fallback.release(host, state["run"])
    except (fallback.Failed, OSError, ValueError, KeyError) as failed:
        problem = str(failed) if isinstance(failed, fallback.Failed) else f"{type(failed).__name__}: {failed}"
    now = came(state, action, problem, reboot, host.up_s())
    tell(state, now)
    with Lock(host):
        save(host, now)


# State, lease, words.


class Lock:
    """One decision at a time: a confirmation may come in while the unit looks."""

    def __init__(self, host: "Host") -> None:
        self.place = host.path(LOCK)

    def __enter__(self) -> "Lock":
        self.file = open(self.place, "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def load(host: "Host") -> "Json | None":
    try:
        return dict(json.loads(host.read(FOLDER + "/state.json") or "null"))
    except (ValueError, TypeError):
        return None


def save(host: "Host", state: "Json") -> None:
    state["at"] = stamp()
    write(host.path(FOLDER + "/state.json"), json.dumps(state, indent=1, sort_keys=True) + "\n", 0o600)


def write(path: str, text: str, mode: int) -> None:
    """Whole or not at all, also after a power cut."""
    handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.rename(path + ".new", path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def take_lease(host: "Host", state: "Json") -> None:
    """No other run may change the host while it goes back; the one that armed the trial has lost it."""
    lines = [f"run={state['run']}", "user=the host itself", f"controller=its trial of {state['run']}"]
    lines += [f"pid={os.getpid()}", f"until={int(time.time()) + LEASE_S}"]
    with open(host.path(LEASE_GUARD), "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        write(host.path(LEASE), "\n".join(lines) + "\n", 0o644)


def drop_lease(host: "Host", state: "Json") -> None:
    with open(host.path(LEASE_GUARD), "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if f"controller=its trial of {state['run']}" in (host.read(LEASE) or "").splitlines():
            os.unlink(host.path(LEASE))


def tell(before: "Json", now: "Json") -> None:
    """The journal hears of every turn."""
    if now["state"] == before["state"]:
        return
    words = {
        "sound": "the host's own checks passed; waiting for the controller",
        "falling": f"taking {now['what']} back: {now['why']}",
        "rebooting": "taken back; rebooting",
        "back": "the host is as it was before",
        "gave-up": f"could not go back by itself: {now['problem']}",
    }
    if now["state"] in words:
        say(words[now["state"]], level=2 if now["state"] == "gave-up" else 4)


def say(line: str, level: int = 5) -> None:
    sys.stderr.write(f"<{level}>{line}\n")
    sys.stderr.flush()


def stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def main(argv: "list[str]", host: "Host | None" = None) -> int:
    here = host or Host()
    os.umask(0o077)
    if argv == ["arm"]:
        try:
            print(arm(here))
        except Failed as problem:
            sys.stderr.write(f"{problem}\n")
            return 1
        return 0
    if argv in (["confirm"], ["cancel"]):
        return end(here, "confirmed" if argv == ["confirm"] else "cancelled")
    if argv == ["watch"]:
        return watch(here)
    sys.stderr.write((__doc__ or "").partition("\n\n")[2])
    return 2


def entry() -> None:
    sys.exit(main(sys.argv[1:]))
