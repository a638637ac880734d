"""A ground for faults: hosts that begin a journey on a kept disk, are met by a fault on the way, and are compared.

What clean runs leave is kept once, as text and as an image. Every story then begins on a fresh host from such an image,
so none depends on how another one ended, nothing has to be brought back, and several go on side by side.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from provisioner.adapters.lab import Host, Lab, ensure_engine
from tests.lab.operator import Operator, kill_tree
from tests.lab.state import difference, record, state

HOST = "rig-01"
SPEC = f"{HOST}=bookworm:rtx-3090"
OLD, NEW = "535.216.03", "535.261.03"
PATIENCE_S = 900
AT_ONCE = 3


# The three journeys; each is one command that is met by a fault and then given again.


@dataclass(frozen=True)
class Journey:
    """A command, the state that it starts from and the state that it leads to."""

    name: str
    words: tuple[str, ...]
    start: str
    end: str


UPGRADE = Journey("upgrade", ("apply", "--yes"), "old", "new")
ROLLBACK = Journey("rollback", ("rollback", HOST, "--yes"), "new", "old")
INSTALL = Journey("install", ("apply", "--yes"), "bare", "old")
JOURNEYS = (INSTALL, UPGRADE, ROLLBACK)


# A command that runs, and whose lines can be waited for.


class Running:
    """A command at work; its lines come as it says them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._coming: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._coming.put(line)
        self._coming.put(None)

    def until(self, pattern: str, seconds: float = PATIENCE_S) -> bool:
        """Wait for a line that matches; False when the time is up, or when the command has ended without one."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._coming.get(timeout=left)
            except queue.Empty:
                return False
            if line is None:
                self._coming.put(None)
                return False
            if re.search(pattern, line):
                return True
        return False

    def end(self) -> str:
        """Let it come to its end; returns all that it said."""
        self.process.wait(PATIENCE_S)
        self._reader.join(60)
        return "".join(self.lines)

    def kill(self) -> None:
        """Kill it and all that it started."""
        kill_tree(self.process)


# What clean runs leave.


@dataclass
class Clean:
    """By name of the state: the state as text, the image of the disk; by name of the journey: what dpkg did in it."""

    states: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)
    dpkg_lines: dict[str, int] = field(default_factory=dict)


DPKG_LOG = "/var/log/dpkg.log"


@dataclass
class Rig:
    """One host, the person who runs it, and what clean runs leave of it."""

    operator: Operator
    clean: Clean
    said: str = ""  # what the command that was met by the last fault had said

    @property
    def host(self) -> Host:
        return self.operator.lab.host(HOST)

    def now(self) -> str:
        return state(self.operator, HOST)

    def enrolled(self) -> bool:
        return record(self.operator, HOST)

    def want(self, name: str) -> None:
        """The lock is for the intent of the inventory; both change together, as in git."""
        (self.operator.folder / "provision.lock").write_text(self.clean.locks[name], encoding="utf-8")
        wish = f'provision_networks: ["golem"]\nprovision_driver: "{NEW if name == "new" else OLD}"\n'
        path = self.operator.lab.folder / "host_vars" / f"{HOST}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(wish, encoding="utf-8")

    def begin(self, journey: Journey) -> None:
        """A fresh host in the state that the journey starts from, and the wish for where it goes."""
        self.operator.lab.renew(HOST, self.clean.images.get(journey.start))
        # The wish of a host that is rolled back is still the newer one.
        self.want("new" if "new" in (journey.start, journey.end) else "old")

    def start(self, journey: Journey) -> Running:
        return Running(self.operator.start(*journey.words))

    def dpkg_lines(self) -> int:
        return int(self.host.told(f"cat {DPKG_LOG}* 2>/dev/null | wc -l"))


def go_clean(rig: Rig) -> None:
    """Install, upgrade and roll back without a fault: what is there each time counts as clean, and its disk is kept."""
    clean = rig.clean
    lock = rig.operator.folder / "provision.lock"
    for name, driver in (("new", NEW), ("old", OLD)):
        rig.operator.want(HOST, networks=["golem"], driver=driver)
        clean.locks[name] = lock.read_text(encoding="utf-8")
    for journey in JOURNEYS:
        rig.want("new" if "new" in (journey.start, journey.end) else "old")
        before = rig.dpkg_lines()
        rig.operator.run(*journey.words)
        clean.dpkg_lines[journey.name] = rig.dpkg_lines() - before
        seen = rig.now()
        assert clean.states.setdefault(journey.end, seen) == seen, f"a clean {journey.name} differs by itself"
        if journey.end not in clean.images:
            tag = f"provision-lab:faults-{os.getpid()}-{journey.end}"
            rig.host.keep_as(tag)
            clean.images[journey.end] = tag


def another(rig: Rig, lab: Lab, folder: Path) -> Rig:
    """The same person with another host: the same keys and locks, a folder and a lab of its own."""
    shutil.copytree(rig.operator.folder / "config", folder / "config")
    return Rig(Operator(lab, folder), rig.clean)


def drop_images(clean: Clean) -> None:
    for tag in clean.images.values():
        ensure_engine().images.remove(tag, force=True)


# Faults: each is handed the running command when its moment has come, and leaves the host reachable.

Fault = Callable[[Rig, Running], None]


def controller_killed(rig: Rig, running: Running) -> None:
    """Nothing of ours is left on the controller; what it had started on the host may go on for a while."""
    running.kill()


def power_cut(rig: Rig, running: Running) -> None:
    """No service stops in order. (A container's disk is the machine's page cache: what was written stays written.)"""
    rig.host.reboot_hard()
    running.end()


def ssh_cut(rig: Rig, running: Running) -> None:
    """Every connection ends at once, the host stays up, and what ran there loses its terminal."""
    rig.host.exec("pkill -9 -f 'sshd: operator'")
    running.end()


def dpkg_killed(rig: Rig, running: Running) -> None:
    """What an out-of-memory killer does."""
    rig.host.exec("pkill -9 dpkg; pkill -9 apt-get")
    running.end()


ANYWHERE: tuple[Fault, ...] = (controller_killed, power_cut, ssh_cut)
IN_DPKG: tuple[Fault, ...] = (*ANYWHERE, dpkg_killed)


@dataclass(frozen=True)
class Moment:
    """When a fault comes: at a line of the output, then at the n-th line of dpkg's log since, then some time later."""

    line: str
    dpkg_line: int = 0
    after_s: float = 0.0
    before: str = r"\A\Z"
    """A line of the output at which it is high time."""


def meet(rig: Rig, journey: Journey, fault: Fault, moment: Moment, began: int | None = None) -> None:
    """Start the journey, or go on with it, and bring the fault at its moment.

    `began`: the lines of dpkg's log when the journey began; now, unless it is gone on with. Raises AssertionError when
    the moment never comes.
    """
    began = rig.dpkg_lines() if began is None else began
    running = rig.start(journey)
    if not running.until(moment.line):
        running.kill()
        raise NeverCame(
            f"{journey.name} never said {moment.line!r}:\n{''.join(running.lines)}", running.process.returncode
        )
    if moment.dpkg_line:
        _wait_for_dpkg(rig, began + moment.dpkg_line)
    if moment.after_s:
        running.until(moment.before, moment.after_s)
    fault(rig, running)
    rig.said = "".join(running.lines)


class NeverCame(AssertionError):
    """The command ended, or time was up, without the line of the moment."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def _wait_for_dpkg(rig: Rig, lines: int) -> None:
    """A loop on the host itself, so that it ends within some hundredths of a second of the line."""
    counted = f"$(cat {DPKG_LOG}* | wc -l)"
    seen = rig.host.exec(f'for _ in $(seq 6000); do [ "{counted}" -lt {lines} ] || exit 0; sleep 0.05; done; exit 1')
    assert seen.rc == 0, f"dpkg never came to line {lines} of its log"


def recovered(rig: Rig, journey: Journey) -> None:
    """The same command once more ends well, and the host is what a clean run leaves, enrolled."""
    rig.host.wait()
    if not ended(rig, journey):
        rig.operator.run(*journey.words)
    arrived(rig, journey)


LEASE = "/var/lib/provision/apply.lock\n"


def arrived(rig: Rig, journey: Journey) -> None:
    """The host is what a clean run leaves, and enrolled."""
    now = rig.now()
    if ended(rig, journey):
        now = now.replace(LEASE, "")  # a killed run's, which the next one takes over; there was none here
    left = difference(rig.clean.states[journey.end], now)
    assert not left, f"not as after a clean {journey.name}:\n{left}\nwhat was met by the fault had said:\n{rig.said}"
    assert rig.enrolled()


def ended(rig: Rig, journey: Journey) -> bool:
    """Whether a rollback was met after its last step: given again, it would take back the change before that one."""
    if journey is not ROLLBACK:
        return False
    kept = json.loads(rig.operator.run("history", HOST, "--json"))["hosts"][HOST]
    return len(kept) == 1


# Stories side by side.

Story = Callable[[Rig], None]


class Outcomes:
    """What came of each story; they run ahead, a few at a time, each on a rig that nobody else has meanwhile."""

    def __init__(self, stories: Iterable[tuple[str, Story]], rigs: Iterable[Rig]) -> None:
        self._rigs: queue.SimpleQueue[Rig] = queue.SimpleQueue()
        count = 0
        for rig in rigs:
            self._rigs.put(rig)
            count += 1
        self._pool = ThreadPoolExecutor(count)
        self._futures: dict[str, Future[None]] = {
            name: self._pool.submit(self._tell, name, story) for name, story in stories
        }

    def _tell(self, name: str, story: Story) -> None:
        rig = self._rigs.get()
        began = time.monotonic()
        came = "ok"
        try:
            story(rig)
        except Exception as problem:
            came = "FAILED"
            print(f"{name}: {problem}", flush=True)  # at once: the report comes when all are told
            raise
        finally:
            self._rigs.put(rig)
            print(f"{time.strftime('%H:%M:%S')}  {came:6}  {time.monotonic() - began:4.0f} s  {name}", flush=True)

    def wait(self, name: str) -> None:
        """Wait for a story; raises what it raised."""
        self._futures[name].result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def outcomes(stories: Iterable[tuple[str, Story]], rigs: Iterable[Rig]) -> Iterator[Outcomes]:
    found = Outcomes(stories, rigs)
    try:
        yield found
    finally:
        found.close()
