"""provision-container: bring, run and look after the containers of a network's client, through Docker's own socket.

    provision-container pull NETWORK IMAGE…    bring each image that is not here, and note that all are
    provision-container run NETWORK            start the containers; stay until one ends, or until told to stop
    provision-container health NETWORK         exit 0: all run, answer, and their heartbeat is fresh; 1: why not

What runs is /etc/provision/containers/NETWORK.json: a list of containers, each with its image by digest
(docs/reference/clients.md). `run` takes away what an earlier run left, and nothing else.
"""

# pathlib, argparse and subprocess cost more to import than the work takes.
# ruff: noqa: PTH103, PTH105, PTH116, PTH123

import http.client
import json
import os
import signal
import socket
import sys
import time
from urllib.parse import quote

from provisioner.host import client, gate

MYPY = False
if MYPY:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

FOLDER = "/etc/provision/containers"
BROUGHT = gate.STATE + "/images"
LABEL = "provision.network"
STOP_S = 30
PULL_LIMIT_S = 3600.0
LIMIT_S = 60.0
POLL_S = 2.0


class Refused(Exception):
    """Docker, or a file, said no; the text is for the journal."""


class _Line(http.client.HTTPConnection):
    def __init__(self, path: str, limit_s: float) -> None:
        super().__init__("docker", timeout=limit_s)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def docker(
    method: str, path: str, body: "Json | None" = None, limit_s: float = LIMIT_S, root: str = ""
) -> "tuple[int, bytes]":
    """One request; status and body. Raises Refused when Docker does not answer."""
    line = _Line(root + gate.DOCKER, limit_s)
    try:
        line.request(method, path, json.dumps(body or {}), {"Content-Type": "application/json"})
        answer = line.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as problem:
        raise Refused(f"Docker does not answer: {problem}") from None
    finally:
        line.close()


def must(what: str, answer: "tuple[int, bytes]", *also: int) -> bytes:
    """The body of an answer that is good, or one of `also`. Raises Refused with Docker's words."""
    status, body = answer
    if 200 <= status < 300 or status in also:
        return body
    try:
        said = str(json.loads(body.decode())["message"])
    except (ValueError, KeyError, TypeError):
        said = body.decode("utf-8", "replace").strip() or f"HTTP {status}"
    raise Refused(f"{what}: {said}")


# Images.


def pull(network: str, images: "list[str]", root: str = "") -> None:
    """Bring what is not here; the note is written last, so it says that all are."""
    for image in images:
        bring(image, root)
    os.makedirs(root + BROUGHT, mode=0o755, exist_ok=True)
    path = f"{root}{BROUGHT}/{network}"
    with open(path + ".new", "w") as out:
        out.write("".join(image + "\n" for image in images))
    os.replace(path + ".new", path)


def bring(image: str, root: str = "") -> None:
    """Docker compares what it gets with the digest; without one the tag is asked for anew by nobody once it is here."""
    if docker("GET", f"/images/{quote(image, safe='')}/json", root=root)[0] == 200:
        return
    name, at, digest = image.partition("@")
    tag = digest if at else image.rpartition(":")[2]
    bare = name if at else image.rpartition(":")[0]
    path = f"/images/create?fromImage={quote(bare, safe='')}&tag={quote(tag, safe='')}"
    body = must(f"{image} could not be brought", docker("POST", path, limit_s=PULL_LIMIT_S, root=root))
    # The answer is good as soon as it begins; what goes wrong later stands in its lines.
    for line in body.decode("utf-8", "replace").splitlines():
        if '"error"' in line:
            raise Refused(f"{image} could not be brought: {json.loads(line).get('error')}")
    if docker("GET", f"/images/{quote(image, safe='')}/json", root=root)[0] != 200:
        raise Refused(f"{image} was brought, and Docker does not have it")


# Containers.


def read(network: str, root: str = "") -> "list[Json]":
    text = gate.read(f"{root}{FOLDER}/{network}.json")
    if text is None:
        raise Refused(f"{FOLDER}/{network}.json is not there")
    try:
        return list(json.loads(text))
    except ValueError as problem:
        raise Refused(f"{FOLDER}/{network}.json: {problem}") from None


def wish(network: str, one: "Json") -> "Json":
    """What Docker is asked to create."""
    ports, exposed = {}, {}  # type: Json, Json
    for port in one["ports"]:
        outside, _, rest = port.rpartition("/")[0].rpartition(":")
        inside = f"{rest}/{port.rpartition('/')[2]}"
        address, _, number = outside.rpartition(":")
        ports.setdefault(inside, []).append({"HostIp": address, "HostPort": number})
        exposed[inside] = {}
    environment = [f"{key}={value}" for key, value in sorted(one["environment"].items())]
    mounted = [f"/etc/provision/secrets/{network}.{name}:/run/secrets/{name}:ro" for name in one.get("mounted", [])]
    host = {
        "PortBindings": ports,
        "Binds": [*one["volumes"], *mounted],
        "RestartPolicy": {"Name": "no"},
    }  # type: Json
    if one["gpus"]:
        host["Runtime"] = "nvidia"
        environment += ["NVIDIA_VISIBLE_DEVICES=" + ",".join(one["gpus"]), "NVIDIA_DRIVER_CAPABILITIES=compute,utility"]
    asked = {
        "Image": one["image"],
        "Env": environment,
        "ExposedPorts": exposed,
        "Labels": {LABEL: network},
        "HostConfig": host,
    }  # type: Json
    if one["command"]:
        asked["Cmd"] = one["command"]
    return asked


def ours(network: str, root: str = "") -> "dict[str, str]":
    """Containers that an earlier run made, id -> name."""
    chosen = quote(json.dumps({"label": [f"{LABEL}={network}"]}))
    body = must("Docker does not list", docker("GET", f"/containers/json?all=1&filters={chosen}", root=root))
    return {one["Id"]: one["Names"][0].lstrip("/") for one in json.loads(body.decode())}


def clear(network: str, root: str = "") -> None:
    """Stop what runs, with time to end well, and take it away."""
    for identity in ours(network, root):
        docker("POST", f"/containers/{identity}/stop?t={STOP_S}", limit_s=STOP_S + LIMIT_S, root=root)
        must("not taken away", docker("DELETE", f"/containers/{identity}?force=1", root=root), 404)


class _Told(Exception):
    pass


def run(network: str, root: str = "", sleep: "Callable[[float], None]" = time.sleep) -> int:
    """Start all and stay; an exit code: 0 when told to stop, else that of the container that ended first."""
    containers = read(network, root)
    clear(network, root)
    names = {}
    try:
        for one in containers:
            bring(one["image"], root)
        for one in containers:
            path = f"/containers/create?name={quote(one['name'], safe='')}"
            made = must(f"{one['name']} is not made", docker("POST", path, wish(network, one), root=root))
            identity = json.loads(made.decode())["Id"]
            names[identity] = one["name"]
            must(f"{one['name']} does not start", docker("POST", f"/containers/{identity}/start", root=root))
            say(f"{one['name']} runs {one['image']}")
        while True:
            sleep(POLL_S)
            for identity, name in names.items():
                state = json.loads(must(name, docker("GET", f"/containers/{identity}/json", root=root)).decode())[
                    "State"
                ]
                if not state["Running"]:
                    code = int(state["ExitCode"])
                    say(f"{name} ended with exit code {code}; the last it said:")
                    for line in last_words(identity, root):
                        say(f"  {line}")
                    return code or 1
    except _Told:
        return 0
    finally:
        clear(network, root)


def last_words(identity: str, root: str = "") -> "list[str]":
    """The end of a container's log; each part has a header of eight bytes, length last (Docker's attach format)."""
    status, body = docker("GET", f"/containers/{identity}/logs?stdout=1&stderr=1&tail=5", root=root)
    text = b""
    while status == 200 and len(body) >= 8:
        size = int.from_bytes(body[4:8], "big")
        text, body = text + body[8 : 8 + size], body[8 + size :]
    return text.decode("utf-8", "replace").splitlines()[-5:]


# Health.


def health(network: str, root: str = "", now: "Callable[[], float]" = time.time) -> "list[str]":
    """What is wrong, in words."""
    told = []
    running = {name: identity for identity, name in ours(network, root).items()}
    for one in read(network, root):
        identity = running.get(one["name"])
        if identity is None:
            told.append(f"{one['name']} is not there")
            continue
        state = json.loads(must(one["name"], docker("GET", f"/containers/{identity}/json", root=root)).decode())[
            "State"
        ]
        if not state["Running"]:
            told.append(f"{one['name']} does not run")
        elif (state.get("Health") or {}).get("Status") == "unhealthy":
            told.append(f"{one['name']} says itself that it is not well")
        else:
            told += [words for words in (answers(one), beats(one, root, now())) if words]
    return told


def answers(one: "Json") -> str:
    """Empty when the container's address answers with 2xx, or when it has none."""
    url = one["health_url"]
    if not url:
        return ""
    place, _, path = url.partition("://")[2].partition("/")
    line = http.client.HTTPConnection(place, timeout=10)
    try:
        line.request("GET", "/" + path)
        status = line.getresponse().status
        return "" if 200 <= status < 300 else f"{url} answers {status}"
    except (OSError, http.client.HTTPException) as problem:
        return f"{url} does not answer: {problem}"
    finally:
        line.close()


def beats(one: "Json", root: str, now: float) -> str:
    """Empty when the heartbeat's file was touched in time, or when there is none."""
    path, most = one["heartbeat"], one["heartbeat_s"]
    if not path:
        return ""
    try:
        age = now - os.stat(root + path).st_mtime
    except OSError:
        return f"{path} is not there: no heartbeat yet"
    return "" if age <= most else f"no heartbeat for {age:.0f} s ({path})"


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main(argv: "list[str]", root: str = "") -> int:
    words = argv[:2]
    if len(words) < 2 or not client.safe_name(words[1]) or words[0] not in ("pull", "run", "health"):
        sys.stderr.write((__doc__ or "").partition("\n\n")[2])
        return 2
    try:
        if words[0] == "pull":
            pull(words[1], argv[2:], root)
            return 0
        if words[0] == "health":
            told = health(words[1], root)
            for line in told:
                say(line)
            return 1 if told else 0
        signal.signal(signal.SIGTERM, stop)
        return run(words[1], root)
    except Refused as problem:
        say(str(problem))
        return 1


def stop(_number: int, _frame: object) -> None:
    raise _Told


def entry() -> None:
    sys.exit(main(sys.argv[1:]))
