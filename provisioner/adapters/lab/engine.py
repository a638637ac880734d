"""The Docker engine that carries the lab."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from provisioner.errors import ProvisionError

if TYPE_CHECKING:
    from docker import DockerClient


def ensure_engine() -> DockerClient:
    """Return a client of the running engine, or say how to get one."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        raise ProvisionError(
            "lab-no-engine",
            "no Docker engine answers, and lab hosts are containers",
            context=[str(error).splitlines()[0]],
            hint="start it: sudo systemctl start docker   (scripts/setup installs it; be root or in group docker)",
        ) from error
    return client


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
    """Put what the engine refuses into words; labels make it safe to run the same command again."""
    from docker.errors import DockerException

    try:
        yield
    except DockerException as error:
        raise ProvisionError(
            "lab-engine-refused",
            "the Docker engine refused a step of the lab",
            context=[str(error)],
            hint="the same command may be run again; provision lab down clears what is half made",
        ) from error


INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
ENOUGH_INOTIFY = 1024


def ensure_inotify(say: Callable[[str], None], setting: Path = INOTIFY) -> None:
    """Every systemd of a lab takes some inotify instances of root's; the usual 128 are gone after about 20 hosts."""
    now = int(setting.read_text())
    if now >= ENOUGH_INOTIFY:
        return
    try:
        setting.write_text(str(ENOUGH_INOTIFY))
    except OSError:
        say(f"fs.inotify.max_user_instances is {now}: enough for about {now // 6} hosts on this machine")
        return
    say(f"raised fs.inotify.max_user_instances on this machine: {now} → {ENOUGH_INOTIFY}, until it restarts")
