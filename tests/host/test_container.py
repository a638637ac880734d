"""Containers of a client: brought by digest, started, watched and taken away, against a Docker that is a table."""

from __future__ import annotations

import json
import os
import re
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from provisioner.host import container, gate
from provisioner.model.intent import ClientContainer, Intent
from provisioner.model.stack import Choice
from provisioner.probe.script import without_secrets
from provisioner.resources import wanted
from tests.world import entry

IMAGE = "mirror:5000/lium/executor@sha256:" + "a" * 64


class Docker:
    """What it has, and what it was asked; `offers` are images that a registry would give."""

    def __init__(self) -> None:
        self.images: set[str] = set()
        self.offers: set[str] = {IMAGE}
        self.containers: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.taken_ports: set[str] = set()

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        if path == "/images/create":
            image = f"{query['fromImage'][0]}@{query['tag'][0]}"
            if image in self.offers:
                self.images.add(image)
                return 200, {"status": "done"}
            return 200, {"error": "manifest unknown"}
        if path.startswith("/images/"):
            return (200, {}) if unquote(path[8:-5]) in self.images else (404, {"message": "no such image"})
        if path == "/containers/json":
            [label] = json.loads(query["filters"][0])["label"]
            network = label.partition("=")[2]
            found = [c for c in self.containers.values() if c["Labels"] == {container.LABEL: network}]
            return 200, [{"Id": c["Id"], "Names": [f"/{c['Name']}"]} for c in found]
        if path == "/containers/create":
            name = query["name"][0]
            self.containers[f"id-{name}"] = {**body, "Id": f"id-{name}", "Name": name, "Running": False, "ExitCode": 0}
            return 201, {"Id": f"id-{name}"}
        match = re.fullmatch(r"/containers/([^/]+)(/\w+)?", path)
        assert match, path
        one = self.containers.get(match.group(1))
        if one is None:
            return 404, {"message": "no such container"}
        if method == "DELETE":
            del self.containers[match.group(1)]
            return 204, None
        if match.group(2) == "/start":
            outside = {b["HostPort"] for bindings in one["HostConfig"]["PortBindings"].values() for b in bindings}
            if outside & self.taken_ports:
                return 500, {"message": "port is already allocated"}
            one["Running"] = True
            return 204, None
        if match.group(2) == "/stop":
            one["Running"] = False
            return 204, None
        if match.group(2) == "/logs":
            return 200, b"\x01\0\0\0\0\0\0\x05last\n\x02\0\0\0\0\0\0\x05word\n"
        return 200, {"State": {"Running": one["Running"], "ExitCode": one["ExitCode"]}}


class _Server(socketserver.UnixStreamServer):
    def get_request(self) -> tuple[Any, Any]:
        line, _ = super().get_request()
        return line, ("here", 0)


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[Docker]:
    found = Docker()

    class Handler(BaseHTTPRequestHandler):
        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline(65537)
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            status, value = found.answer(
                self.command, parts.path, parse_qs(parts.query), json.loads(sent) if sent else None
            )
            data = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if data:
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    path = tmp_path / gate.DOCKER[1:]
    path.parent.mkdir(parents=True)
    server = _Server(str(path), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


def lium(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """A container as `wanted` writes it, where the program reads it."""
    asked = ClientContainer(
        network="lium",
        name="executor-executor-1",
        image=IMAGE,
        ports=("127.0.0.1:8001:8080", "2200:22/udp"),
        volumes=("/srv/lium:/data",),
        environment=(("A", "b"),),
    )
    one = {**wanted.container(asked, "1.2.0"), **changes}
    path = tmp_path / container.FOLDER[1:] / "lium.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([one]), encoding="utf-8")
    return one


def test_what_docker_is_asked_to_create(tmp_path: Path) -> None:
    """Ports, folders, cards by NVIDIA's runtime, and a label by which it is found again."""
    asked = container.wish("lium", lium(tmp_path))

    assert asked["Image"] == IMAGE
    assert asked["Labels"] == {"provision.network": "lium"}
    assert asked["HostConfig"]["PortBindings"] == {
        "8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8001"}],
        "22/udp": [{"HostIp": "", "HostPort": "2200"}],
    }
    assert asked["HostConfig"]["Binds"] == ["/srv/lium:/data"]
    assert asked["HostConfig"]["Runtime"] == "nvidia"
    assert asked["Env"] == ["A=b", "NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"]
    assert "Runtime" not in container.wish("lium", lium(tmp_path, gpus=[]))["HostConfig"]


@pytest.mark.parametrize("name", ["hotkey", "api-key", "token", "password", "secret-00", "wallet-secret"])
def test_a_mounted_secret_is_not_masked_in_a_capture(name: str, tmp_path: Path) -> None:
    """Its path before a colon reads like a secret's name before its value: the file never was as it should be."""
    asked = ClientContainer(network="lium", image=IMAGE, secrets=(name,))
    one = wanted.container(asked, "1.2.0")
    text = json.dumps([one], indent=4, sort_keys=True)
    assert without_secrets(text) == text
    assert container.wish("lium", one)["HostConfig"]["Binds"] == [
        f"/etc/provision/secrets/lium.{name}:/run/secrets/{name}:ro"
    ]


def test_an_image_is_brought_once_and_noted_when_all_are_there(docker: Docker, tmp_path: Path) -> None:
    """The note is what the plan compares; an image that does not come leaves none."""
    container.pull("lium", [IMAGE], str(tmp_path))
    container.pull("lium", [IMAGE], str(tmp_path))
    note = tmp_path / container.BROUGHT[1:] / "lium"

    assert docker.asked.count("POST /images/create") == 1
    assert note.read_text() == f"{IMAGE}\n"
    with pytest.raises(container.Refused, match="could not be brought: manifest unknown"):
        container.pull("akash", [IMAGE, "x@sha256:" + "b" * 64], str(tmp_path))
    assert not (note.parent / "akash").exists()


def test_it_stays_until_a_container_ends(docker: Docker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an earlier run left goes first; the exit code and the last words are those of the container."""
    lium(tmp_path)
    docker.containers["old"] = {"Id": "old", "Name": "old", "Labels": {container.LABEL: "lium"}}
    docker.containers["theirs"] = {"Id": "theirs", "Name": "theirs", "Labels": {}}

    def end(_: float) -> None:
        docker.containers["id-executor-executor-1"].update(Running=False, ExitCode=7)

    assert container.run("lium", str(tmp_path), end) == 7
    assert "ended with exit code 7" in (said := capsys.readouterr().err)
    assert "  last\n  word" in said
    assert list(docker.containers) == ["theirs"]


def test_told_to_stop(docker: Docker, tmp_path: Path) -> None:
    """systemd's SIGTERM ends it well, and takes the containers away."""
    lium(tmp_path)

    def told(_: float) -> None:
        container.stop(15, None)

    assert container.run("lium", str(tmp_path), told) == 0
    assert "POST /containers/id-executor-executor-1/stop" in docker.asked
    assert docker.containers == {}


def test_a_port_that_is_taken(docker: Docker, tmp_path: Path) -> None:
    """In Docker's own words, and nothing of it is left."""
    lium(tmp_path)
    docker.taken_ports = {"8001"}
    with pytest.raises(container.Refused, match="executor-executor-1 does not start: port is already allocated"):
        container.run("lium", str(tmp_path))
    assert docker.containers == {}


def test_without_docker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Words and an exit code, no traceback; words that mean nothing show the usage."""
    lium(tmp_path)
    assert container.main(["run", "lium"], str(tmp_path)) == 1
    assert "Docker does not answer" in capsys.readouterr().err
    assert container.main(["run", "../x"], str(tmp_path)) == container.main([], str(tmp_path)) == 2


def test_health(docker: Docker, tmp_path: Path) -> None:
    """There, running, answering, and its heart beats."""
    root = str(tmp_path)
    beat = tmp_path / "beat"
    one = lium(tmp_path, heartbeat="/beat", heartbeat_s=60)
    assert container.health("lium", root) == ["executor-executor-1 is not there"]
    docker.answer("POST", "/containers/create", {"name": [one["name"]]}, container.wish("lium", one))
    assert container.health("lium", root) == ["executor-executor-1 does not run"]
    docker.containers["id-executor-executor-1"]["Running"] = True
    assert container.health("lium", root) == ["/beat is not there: no heartbeat yet"]
    beat.write_text("x")
    os.utime(beat, (1000, 1000))
    assert container.health("lium", root, lambda: 1060.0) == []
    assert container.health("lium", root, lambda: 1061.0) == ["no heartbeat for 61 s (/beat)"]


def test_an_address_that_must_answer() -> None:
    """2xx, and nothing else."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204 if self.path == "/ok" else 503)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert container.answers({"health_url": f"{url}/ok"}) == ""
        assert container.answers({"health_url": f"{url}/no"}) == f"{url}/no answers 503"
        server.shutdown()
    assert "does not answer" in container.answers({"health_url": f"{url}/ok"})


# What is asked for.


def client(**changes: Any) -> dict[str, Any]:
    return {"network": "lium", "image": "lium/executor@sha256:" + "a" * 64, **changes}


@pytest.mark.parametrize(
    ("clients", "more", "words"),
    [
        ([client(image="lium/executor:1.2")], {}, "has no digest"),
        ([client(network="akash")], {}, "provision_networks does not name akash"),
        ([client(), client()], {}, "two containers are called lium"),
        ([client(ports=["80:80"]), client(name="b1", ports=["127.0.0.1:80:8080"])], {}, "both want port 80/tcp"),
        ([client(secrets=["hotkey"])], {}, "provision_secrets has no hotkey of lium"),
        ([client(image=None)], {}, "give image, or images"),
        ([client(gpus=["0"]), client(network="flux", gpus=["0"])], {"networks": ("lium", "flux")}, "both want GPU 0"),
        ([client(), client(network="flux")], {"networks": ("lium", "flux")}, "lium has all GPUs and flux wants all as"),
        (
            [client(network="flux", gpus=["1"]), client()],
            {"networks": ("lium", "flux")},
            "all GPUs and flux wants GPU 1",
        ),
    ],
)
def test_wishes_that_cannot_be(clients: list[dict[str, Any]], more: dict[str, Any], words: str) -> None:
    """Told from the request alone, before any host is looked at."""
    with pytest.raises(ValueError, match=words):
        Intent.model_validate({"networks": ("lium",), "clients": clients, **more})


def test_an_intent_with_clients_is_a_value() -> None:
    """The resolver groups hosts by it; mappings of the inventory become pairs, and read back as they are."""
    one = Intent.model_validate({"networks": ("lium",), "clients": [client(environment={"B": "2", "A": "1"})]})
    assert one.clients[0].environment == (("A", "1"), ("B", "2"))
    assert hash(Intent.model_validate_json(one.model_dump_json())) == hash(one)


def test_a_tag_where_the_policy_allows_it() -> None:
    """Somebody may want it."""
    Intent.model_validate({"networks": ("lium",), "clients": [client(image="a:1")], "policy": {"images": "any"}})


@pytest.mark.parametrize(
    ("image", "mirror", "taken"),
    [
        ("lium/executor", None, "lium/executor"),
        ("lium/executor", "10.0.0.5:5000", "10.0.0.5:5000/lium/executor"),
        ("ghcr.example/a/b", "10.0.0.5:5000", "10.0.0.5:5000/a/b"),
        ("busybox", "mirror.example/hub", "mirror.example/hub/library/busybox"),
    ],
)
def test_the_mirror_takes_the_place_of_the_registry(image: str, mirror: str | None, taken: str) -> None:
    """The digest stays: a mirror cannot give anything else under it."""
    digest = "@sha256:" + "a" * 64
    one = ClientContainer(network="lium", image=image + digest, mirror=mirror)
    assert one.taken("1") == taken + digest


def test_each_version_has_its_image() -> None:
    """An upgrade of the client is another image; a version without one has none."""
    one = ClientContainer(network="lium", images=(("1.2.0", "a@sha256:" + "a" * 64),))
    assert one.taken("1.2.0") == "a@sha256:" + "a" * 64
    assert one.taken("1.3.0") is None


def test_what_a_host_gets_for_a_client() -> None:
    """The list of containers, what starts them and tells whether they serve, and the note of their images."""
    lock = entry(
        intent=Intent.model_validate({"networks": ("lium",), "clients": [client()]}),
        networks={"lium": Choice(value="1.2.0")},
    )
    keys = [resource.key for resource in wanted.wanted(lock)]
    assert {
        "images lium",
        "file /etc/provision/containers/lium.json",
        "file /usr/local/lib/provision/clients/lium",
        "file /usr/local/lib/provision/health/lium",
    } <= set(keys)
