"""The container runtime: whether Docker runs, how it is configured, what it carries."""

from __future__ import annotations

import json
from typing import Any

from provisioner.facts.listing import commands_like
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import RuntimeFacts, UnitState

_SERVICE = "docker.service"


def read(capture: Capture, units: dict[str, UnitState] | Unknown) -> RuntimeFacts:
    info = _info(capture)
    active = _active(info, units)
    return RuntimeFacts(
        docker_active=active,
        docker_daemon_json=capture.file("/etc/docker/daemon.json"),
        docker_version=_version(info),
        containers_running=_running(info),
    )


def _info(capture: Capture) -> dict[str, Any] | Unknown | None:
    """What `docker info` says as JSON; {} when its daemon does not answer, None when there is no docker command."""
    for line in commands_like(capture, "docker info"):
        answer = capture.commands[line]
        if not answer.found:
            return None
        if answer.rc == 1 and "Cannot connect to the Docker daemon" in answer.stdout + answer.stderr:
            return {}
        try:
            data = json.loads(answer.stdout)
        except (ValueError, RecursionError):
            continue
        if isinstance(data, dict):
            return {} if data.get("ServerErrors") else data
    return UNKNOWN


def _active(info: dict[str, Any] | Unknown | None, units: dict[str, UnitState] | Unknown) -> bool | Unknown:
    if units is not UNKNOWN and _SERVICE in units:
        return units[_SERVICE].active in ("active", "reloading")
    return UNKNOWN if info is UNKNOWN else bool(info)


def _version(info: dict[str, Any] | Unknown | None) -> str | Unknown | None:
    if info is UNKNOWN or info is None:
        return info
    version = info.get("ServerVersion")
    return version if isinstance(version, str) and version else UNKNOWN


def _running(info: dict[str, Any] | Unknown | None) -> int | Unknown:
    if info is UNKNOWN:
        return UNKNOWN
    count = info.get("ContainersRunning") if info else 0
    return count if isinstance(count, int) else UNKNOWN
