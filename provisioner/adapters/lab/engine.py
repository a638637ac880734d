"""The Docker engine that carries the lab."""

from __future__ import annotations

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
