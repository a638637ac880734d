"""Containers that end with their host: who is told, by which signal, who is killed, and when nothing is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from provisioner.host import ending, programs
from provisioner.resources import wanted
from tests.world import entry


def container(root: Path, name: str, pid: int, *, data: str = ending.DATA, **config: Any) -> None:
    """A container as Docker notes it, whose process is a shim's child."""
    running = config.pop("running", True)
    parent = config.pop("parent", "containerd-shim")
    folder = root / data.lstrip("/") / "containers" / name
    folder.mkdir(parents=True)
    (folder / "config.v2.json").write_text(json.dumps({"State": {"Running": running, "Pid": pid}, "Config": config}))
    for number, comm, above in ((pid, "a) b", pid + 1), (pid + 1, parent, 1)):
        place = root / "proc" / str(number)
        place.mkdir(parents=True, exist_ok=True)
        (place / "stat").write_text(f"{number} ({comm}) S {above} {number} 0\n")
        (place / "comm").write_text(f"{comm}\n")


def test_each_gets_its_own_signal_and_time(tmp_path: Path) -> None:
    container(tmp_path, "a", 100)
    container(tmp_path, "b", 200, StopSignal="SIGQUIT", StopTimeout=30)
    container(tmp_path, "c", 300, StopSignal="37", StopTimeout=0)
    container(tmp_path, "d", 400, StopSignal="nonsense", StopTimeout=10**6)
    container(tmp_path, "e", 500, StopTimeout=-1)

    assert ending.running(str(tmp_path)) == [
        (100, signal.SIGTERM, 10.0),
        (200, signal.SIGQUIT, 30.0),
        (300, 37, 0.0),
        (400, signal.SIGTERM, ending.MOST_S),
        (500, signal.SIGTERM, ending.MOST_S),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SIGQUIT", 3),
        ("quit", 3),
        ("3", 3),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-2", signal.SIGRTMAX - 2),
        ("SIGRTMIN", signal.SIGRTMIN),
        ("SIGRTMAX+9", 15),
        ("SIGRTMIN+x", 15),
        ("SIG_IGN", 15),
        ("0", 15),
        ("99", 15),
        ("", 15),
        (None, 15),
    ],
)
def test_names_of_signals(name: object, expected: int) -> None:
    """As an image or its owner writes them; systemd in a container halts by SIGRTMIN+3."""
    assert ending.number(name) == expected


def test_nothing_but_containers_that_run_is_touched(tmp_path: Path) -> None:
    """A number that another process has by now, one that has ended, and notes that nobody can read."""
    container(tmp_path, "a", 100, running=False)
    container(tmp_path, "b", 200, parent="systemd")
    container(tmp_path, "c", 1)
    container(tmp_path, "d", 400)
    (tmp_path / "var/lib/docker/containers/d/config.v2.json").write_text("{")
    container(tmp_path, "e", 500)
    (tmp_path / "proc/500/stat").unlink()

    assert ending.running(str(tmp_path)) == []
    assert ending.running(str(tmp_path / "none")) == []


@pytest.mark.parametrize(("root", "found"), [("/srv/docker", 1), ("srv", 0), (7, 0), (None, 0)])
def test_docker_may_keep_them_elsewhere(tmp_path: Path, root: object, found: int) -> None:
    container(tmp_path, "a", 100, data="/srv/docker")
    settings = tmp_path / ending.SETTINGS.lstrip("/")
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"data-root": root}))

    assert len(ending.running(str(tmp_path))) == found


def test_who_listens_ends_and_who_does_not_is_killed() -> None:
    """With real processes; the deaf one is told too, and has its time."""
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    good = "import time; print(1, flush=True); time.sleep(60)"
    processes = [subprocess.Popen([sys.executable, "-IS", "-c", text], stdout=subprocess.PIPE) for text in (deaf, good)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    began = time.monotonic()
    killed = ending.end(
        [(process.pid, int(signal.SIGTERM), 1.0) for process in processes],
        lives=lambda pid: next(p for p in processes if p.pid == pid).poll() is None,
    )

    assert killed == [processes[0].pid]
    assert time.monotonic() - began >= 1.0
    assert [process.wait() for process in processes] == [-signal.SIGKILL, -signal.SIGTERM]


def test_what_even_a_kill_does_not_end_is_not_waited_for() -> None:
    """A process that hangs in the kernel, as one does whose card has fallen off the bus."""
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    killed = ending.end([(2**22 + 1, 15, 5.0)], lives=lambda pid: True, clock=lambda: now[0], wait=wait)

    assert killed == [2**22 + 1]
    assert now[0] == pytest.approx(5.0 + ending.KILLED_S, abs=0.3)


@pytest.mark.parametrize(("says", "goes"), [("stopping", True), ("running", False), ("degraded", False), ("", False)])
def test_only_while_the_host_goes_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, goes: bool) -> None:
    """Somebody who restarts Docker wants the containers to stay."""
    asked: list[str] = []
    program = tmp_path / "systemctl"
    program.write_text(f"#!/bin/sh\n[ \"$*\" = is-system-running ] && echo {says}\n[ '{says}' = running ]\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(ending, "running", lambda: asked.append("looked") or [])
    ending.entry()

    assert (asked == ["looked"]) is goes


def test_without_systemd_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert not ending.goes_down()


def test_docker_calls_it_where_docker_is() -> None:
    lock = entry()
    files = {getattr(one, "path", ""): one for one in wanted.wanted(lock)}

    assert f"ExecStopPost=-{programs.ENDING}\n" in files[wanted.DOCKER_ENDS].content  # type: ignore[union-attr]
    assert programs.ENDING in files
    assert files[wanted.DOCKER_SETTINGS].values["live-restore"] is True  # type: ignore[union-attr]
    assert list(files).index(wanted.DOCKER_ENDS) < list(files).index(wanted.DOCKER_SETTINGS)  # it reloads systemd
