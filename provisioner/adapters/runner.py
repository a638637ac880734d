"""Runs a rendered project with ansible-runner: one process per group, side by side, events as they come."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from provisioner.errors import ProvisionError
from provisioner.model.plan import Phase
from provisioner.model.run import HostOutcome, RunEvent
from provisioner.render.project import PHASES_OF_PLAYS, TITLES, Group, Project

_KINDS: dict[str, Any] = {
    "runner_on_start": "start",
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
}
AT_ONCE = 8  # groups; each is one ansible-playbook process of some 60 MB


class AnsibleRunner:
    """The PlaybookRunner that the command line uses. `forks` bounds the hosts of one group at a time."""

    def __init__(self, environment: Mapping[str, str], *, forks: int = 16) -> None:
        self._environment = dict(environment)
        self._forks = forks

    def run(
        self,
        folder: Path,
        project: Project,
        *,
        sources: Sequence[str],
        on_event: Callable[[RunEvent], None],
        on_done: Callable[[Mapping[str, HostOutcome]], None] = lambda outcomes: None,
    ) -> dict[str, HostOutcome]:
        """Run every group and return how it ended per host. Ctrl-C stops the playbooks, then is raised again.

        `on_done` is called here, not in the groups' threads; what it raises is raised when all groups have ended.
        """
        outcomes = {host: HostOutcome(ok=True) for group in project.groups for host in group.hosts}
        stop = threading.Event()
        slots = threading.BoundedSemaphore(AT_ONCE)
        lock = threading.Lock()

        def work(group: Group) -> None:
            with slots:
                if not stop.is_set():
                    self._group(folder, group, sources, outcomes, on_event, stop, lock)

        running = {group: threading.Thread(target=work, args=(group,), daemon=True) for group in project.groups}
        threads = list(running.values())
        for thread in threads:
            thread.start()
        trouble: ProvisionError | None = None
        try:
            while running:
                next(iter(running.values())).join(timeout=0.2)
                ended = [group for group, thread in running.items() if not thread.is_alive()]
                for group in ended:
                    del running[group]
                if ended and trouble is None:
                    try:
                        on_done({host: outcomes[host] for group in ended for host in group.hosts})
                    except ProvisionError as problem:
                        trouble = problem  # other hosts are in the middle of their change: it is not cut off
        except KeyboardInterrupt:
            stop.set()
            for thread in threads:
                thread.join(timeout=30)
            raise
        if trouble is not None:
            raise trouble
        return outcomes

    def _group(
        self,
        folder: Path,
        group: Group,
        sources: Sequence[str],
        outcomes: dict[str, HostOutcome],
        on_event: Callable[[RunEvent], None],
        stop: threading.Event,
        lock: threading.Lock,
    ) -> None:
        import ansible_runner

        follower = _Follower(outcomes, on_event, lock)
        noted = _Noted(folder / "artifacts" / group.name / "command")
        result = ansible_runner.run(
            private_data_dir=str(folder),
            project_dir=str(folder),
            playbook=group.playbook,
            inventory=[*map(_absolute, sources), str(folder / "inventory.yml")],
            ident=group.name,
            forks=self._forks,
            quiet=True,
            envvars=self._variables(folder),
            event_handler=follower,
            cancel_callback=stop.is_set,
            status_handler=noted,
            suppress_env_files=True,
        )
        noted.close()
        follower.finish()
        if result.rc != 0 and all(outcomes[host].ok for host in group.hosts) and not stop.is_set():
            # The playbook never got as far as a host: a syntax error, a missing interpreter.
            text = result.stdout.read() if result.stdout else ""
            for host in group.hosts:
                outcomes[host] = HostOutcome(ok=False, failed_task="start ansible-playbook", detail=text[-2000:])

    def _variables(self, folder: Path) -> dict[str, str]:
        # ansible-playbook of this very environment, also when its bin folder is not on the caller's path.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        return {**self._environment, "ANSIBLE_CONFIG": str(folder / "ansible.cfg"), "PATH": path}


def _absolute(source: str) -> str:
    """A list of hosts ("a,b,") is no path; any other source must be found from the run's own folder too."""
    return source if "," in source else str(Path(source).resolve())


class _Noted:
    """Keeps the environment, which has the operator's secrets, out of the `command` file of ansible-runner's artifacts.

    There is no option against it, and the next thing that is told after the file was written is that the playbook runs.
    Until then the file is a link to memory, so that no disk ever has it, also when the run is killed in between.
    """

    def __init__(self, path: Path) -> None:
        memory = Path("/dev/shm")
        self._path = path
        self._there = tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.unlink(missing_ok=True)
        path.symlink_to(Path(self._there.name) / path.name)

    def __call__(self, status: Mapping[str, Any], runner_config: object) -> None:
        if status["status"] == "running":
            self.close()

    def close(self) -> None:
        """Put what the file had to say, but for the environment, in its place; nothing, if it was never written."""
        if not self._path.is_symlink():
            return
        try:
            said = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            said = None
        self._path.unlink()
        if said is not None:
            kept = json.dumps({key: said[key] for key in ("command", "cwd")})
            self._path.write_text(kept, encoding="utf-8")
        self._there.cleanup()


class _Follower:
    """Turns ansible-runner's events of one group into RunEvents and outcomes; keeps each host's time per phase."""

    def __init__(
        self,
        outcomes: dict[str, HostOutcome],
        on_event: Callable[[RunEvent], None],
        lock: threading.Lock,
    ) -> None:
        self._outcomes = outcomes
        self._on_event = on_event
        self._lock = lock
        self._play = ""
        self._began: dict[str, float] = {}  # host -> its first event in this play
        self._last: dict[str, float] = {}

    @property
    def _phase(self) -> Phase:
        return PHASES_OF_PLAYS.get(self._play, "stage")

    def __call__(self, event: dict[str, Any]) -> bool:
        data = event.get("event_data") or {}
        if event.get("event") == "playbook_on_play_start":
            self.finish()
            self._play = str(data.get("name"))
        kind = _KINDS.get(str(event.get("event")))
        host = data.get("host")
        if kind is None or host not in self._outcomes:
            return True
        failed = kind in ("failed", "unreachable") and not data.get("ignore_errors")
        detail = printed(data.get("res") or {}) if failed else ""
        task = str(data.get("task") or "")
        now = time.monotonic()
        with self._lock:
            self._last[host] = now
            self._began.setdefault(host, now)
            outcome = self._outcomes[host]
            if outcome.away_since is None and self._phase in ("drain", "change"):
                outcome.away_since = now
            if failed:
                outcome.ok, outcome.failed_task, outcome.detail = False, task, detail
            self._on_event(RunEvent(host, self._phase, kind, task, detail))
        return True

    def finish(self) -> None:
        """Book what each host took in the play that ends."""
        for host, began in self._began.items():
            outcome = self._outcomes[host]
            took = self._last[host] - began
            outcome.seconds[self._phase] = round(outcome.seconds.get(self._phase, 0.0) + took, 1)
            if self._play == TITLES["reboot"]:
                outcome.rebooting = round(outcome.rebooting + took, 1)
        self._began, self._last = {}, {}


def printed(result: Mapping[str, Any]) -> str:
    """Return what a failed task had to say: its message and errors first, then how its output ended.

    dpkg tells in the middle of its output what went wrong, in two lines: `dpkg: error processing …` and the reason.
    """
    told: list[str] = []
    for key in ("msg", "stderr", "module_stderr"):
        told += [line for line in str(result.get(key) or "").splitlines() if line.strip() and line not in told]
    output = [line for line in str(result.get("stdout") or "").splitlines() if line.strip()]
    errors = [number for number, line in enumerate(output) if line.startswith("dpkg: error processing")]
    shown = sorted({*(n for at in errors[:2] for n in (at, at + 1)), *range(max(0, len(output) - 6), len(output))})
    return "\n".join([*told[:8], *(output[n] for n in shown if n < len(output) and output[n] not in told)])
