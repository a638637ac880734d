"""Container runtime: is Docker up, configured, and does a container really run?"""

from __future__ import annotations

import json
import re

from provisioner.checks.check import Check, NotMade, Seen, Verdict, cat, failed, found, not_applicable, passed
from provisioner.checks.container import DOCKER, WORD, steps
from provisioner.checks.units import UNIT_STATES, units
from provisioner.model.stack import HostLock

CDI_ETC = cat("/etc/cdi/nvidia.yaml")
CDI_RUN = cat("/var/run/cdi/nvidia.yaml")
DAEMON_JSON = cat("/etc/docker/daemon.json")

STEPS = {
    "info": "Docker's socket",
    "image": "no image could be made",
    "create": "no container could be made",
    "start": "the container did not start",
    "wait": "the container did not end",
    "logs": "the container's output could not be read",
    "remove": "the container could not be removed",
}
"""What a step that failed means for the host."""

NO_DOCKER = not_applicable("the lock wants no Docker on this host")


def _wants_docker(wanted: HostLock) -> bool:
    return wanted.engine.startswith("docker")


def active(wanted: HostLock, seen: Seen) -> Verdict:
    if not _wants_docker(wanted):
        return NO_DOCKER
    state = units(seen).get("docker.service", {})
    if state.get("LoadState") == "not-found":
        return failed("docker.service is not installed")
    return found(state.get("ActiveState") == "active", f"docker.service is {state.get('ActiveState', 'not shown')}")


def enabled(wanted: HostLock, seen: Seen) -> Verdict:
    """An enabled socket starts the daemon only when somebody asks, so running containers would stay down."""
    if not _wants_docker(wanted):
        return NO_DOCKER
    state = units(seen).get("docker.service", {})
    value = state.get("UnitFileState") or "not installed"
    return found(value in ("enabled", "enabled-runtime"), f"docker.service is {value}")


def containerd(wanted: HostLock, seen: Seen) -> Verdict:
    if not _wants_docker(wanted):
        return NO_DOCKER
    state = units(seen).get("containerd.service", {})
    if state.get("LoadState") == "not-found":
        return not_applicable("Docker brings its own containerd")
    return found(state.get("ActiveState") == "active", f"containerd.service is {state.get('ActiveState', 'not shown')}")


def answers(wanted: HostLock, seen: Seen) -> Verdict:
    if not _wants_docker(wanted):
        return NO_DOCKER
    info = steps(seen).get("info")
    if info is None or not info.good:
        return failed(f"Docker's socket: {info.said if info else 'not asked'}")
    try:
        about = json.loads(info.body)
        return passed(f"Docker {about['ServerVersion']}, {about.get('Driver', 'unknown storage')}")
    except (ValueError, TypeError, KeyError):
        return failed("Docker answers with something else than its state")


def configured(wanted: HostLock, seen: Seen) -> Verdict:
    if not _wants_docker(wanted):
        return NO_DOCKER
    text = seen.content
    if text is None:
        return passed("there is no daemon.json")
    try:
        value = json.loads(text)
    except ValueError as error:
        return failed(f"daemon.json is not JSON: {error}")
    return found(isinstance(value, dict), f"{len(value)} keys" if isinstance(value, dict) else "not an object")


def container_runs(wanted: HostLock, seen: Seen) -> Verdict:
    if not _wants_docker(wanted):
        return NO_DOCKER
    if seen.rc in (124, 137, 143):
        return failed("no container ran within 90 s")
    made = steps(seen)
    for step, words in STEPS.items():
        if step in made and not made[step].good:
            return failed(f"{words}: {made[step].said}")
    if "logs" not in made:
        raise NotMade("no container was started")
    if WORD not in made["logs"].body:
        return failed(f"the container ended without its word: {made['wait'].body.strip()}")
    return passed()


def cdi_spec(wanted: HostLock, etc: Seen, run: Seen) -> Verdict:
    """Engines read both folders; a spec of another driver mounts libraries that are not there."""
    if wanted.cdi is None or wanted.toolkit is None or wanted.driver_version is None:
        return not_applicable("the lock decides nothing about CDI")
    texts = [seen.content for seen in (etc, run)]
    there = [text for text in texts if text is not None]
    if wanted.cdi.value == "absent":
        return found(not there, "a spec is there, and the lock wants none" if there else "no spec")
    named = sorted({version for text in there for version in LIBRARY.findall(text)})
    right = named == [wanted.driver_version.value]
    return found(right, f"names driver {', '.join(named)}" if named else "no spec names a driver's library")


LIBRARY = re.compile(r"libcuda\.so\.(\d{3}\.[\d.]*\d)")

CHECKS = (
    Check("docker-active", "Docker is running", active, (UNIT_STATES,)),
    Check("docker-enabled", "Docker starts at boot", enabled, (UNIT_STATES,)),
    Check("containerd-active", "containerd is running", containerd, (UNIT_STATES,)),
    Check("docker-answers", "Docker answers", answers, (DOCKER,)),
    Check("docker-config", "daemon.json can be read", configured, (DAEMON_JSON,)),
    Check("cdi-spec", "The CDI spec is of the locked driver", cdi_spec, (CDI_ETC, CDI_RUN)),
    Check("container-runs", "A container really runs", container_runs, (DOCKER,)),
)
