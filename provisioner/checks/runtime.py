"""Container runtime: is Docker up, configured, and does a container really run?"""

from __future__ import annotations

import json

from provisioner.checks.check import Check, NotMade, Seen, Verdict, cat, failed, found, not_applicable, passed
from provisioner.model.stack import HostLock

UNITS = (
    "docker.service",
    "docker.socket",
    "containerd.service",
    "chrony.service",
    "chronyd.service",
    "ntp.service",
    "ntpsec.service",
    "systemd-timesyncd.service",
    "provision-clients.target",
)
UNIT_STATES = f"systemctl show --property=Id,LoadState,ActiveState,UnitFileState {' '.join(UNITS)}"
DAEMON_JSON = cat("/etc/docker/daemon.json")
INFO = "timeout 20 docker info --format '{{json .}}'"

WORD = "provision-check-ran"
# No registry is asked: the image is the host's own /bin/echo with the libraries it loads, a few MB, gone afterwards.
CONTAINER = rf"""
timeout -k 5 90 sh -c '
image=provision-check:$$
trap "docker rmi -f $image >/dev/null 2>&1" EXIT
trap "exit 143" TERM INT HUP
tar -chf - -C / bin/echo $(ldd /bin/echo | grep -o "/[^ ]*" | sed "s,^/,,") 2>/dev/null |
  docker import - "$image" >/dev/null || exit 4
docker run --rm --network none "$image" /bin/echo {WORD}
'"""


def units(seen: Seen) -> dict[str, dict[str, str]]:
    """Unit name -> its properties, as `systemctl show` prints them in blocks."""
    states = {}
    for block in seen.output.strip().split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if "Id" in fields:
            states[fields["Id"]] = fields
    if not states:
        raise NotMade("systemctl showed no unit")
    return states


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
    if seen.rc == 127:
        return failed("there is no docker command")
    if seen.rc == 124:
        return failed("docker info did not answer within 20 s")
    try:
        info = json.loads(seen.stdout)
    except ValueError:
        info = {}
    errors = info.get("ServerErrors") or []
    if seen.rc != 0 or errors or not info.get("ServerVersion"):
        said = [*errors, *seen.stderr.strip().splitlines(), f"exit {seen.rc}"]
        return failed(f"docker info: {said[0]}")
    return passed(f"Docker {info['ServerVersion']}, {info.get('Driver', 'unknown storage')}")


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
    if WORD in seen.stdout.split() and seen.rc == 0:
        return passed()
    if seen.rc == 4:
        said = seen.stderr.strip().splitlines() or ["docker import failed"]
        return failed(f"no image could be made: {said[-1]}")
    if seen.rc in (124, 137, 143):
        return failed("no container ran within 90 s")
    said = [line for line in seen.stderr.strip().splitlines() if line] or [f"exit {seen.rc}"]
    return failed(f"docker run: {said[0]}")


CHECKS = (
    Check("docker-active", "Docker is running", active, (UNIT_STATES,)),
    Check("docker-enabled", "Docker starts at boot", enabled, (UNIT_STATES,)),
    Check("containerd-active", "containerd is running", containerd, (UNIT_STATES,)),
    Check("docker-answers", "Docker answers", answers, (INFO,)),
    Check("docker-config", "daemon.json can be read", configured, (DAEMON_JSON,)),
    Check("container-runs", "A container really runs", container_runs, (CONTAINER,)),
)
