"""An operator whose hosts take driver and toolkit from the stand-ins' source, and serve stand-ins of clients."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from provisioner.adapters.lab import Lab
from tests.lab import images, standins
from tests.lab.conftest import ssh
from tests.lab.operator import BIN, Operator

SLOW = ("--timeout", "400")  # apt reads an index anew, on a machine that may be busy
DATA = "/srv/stand-in"


class Serving(Operator):
    """`images` is the image of each stand-in by its name, as `made` gave it."""

    def __init__(self, lab: Lab, folder: Path, repository: standins.Repository) -> None:
        super().__init__(lab, folder)
        self.key = folder / "stand-ins.asc"
        self.key.write_text(repository.key, encoding="utf-8")
        self.fingerprint = repository.fingerprint
        self.images: dict[str, str] = {}

    def variables(self, host: str, network: str, clients: list[dict[str, Any]], **more: Any) -> Path:
        """State a host's intent in its host_vars."""
        source = {
            "id": "stand-ins",
            "uri": f"copy:{standins.WHERE}",
            "suite": "/",
            "key": str(self.key),
            "fingerprint": self.fingerprint,
        }
        policy = {"sources": [source], "driver_source": "vendor", **more.pop("policy", {})}
        variables = {
            "provision_networks": [network],
            "provision_runtime": "docker-io",
            "provision_policy": policy,
            "provision_clients": clients,
            **more,
        }
        path = self.lab.folder / "host_vars" / f"{host}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(variables), encoding="utf-8")
        return path

    def stand_in(self, network: str, name: str, port: int, answers: str = "index.html", **more: Any) -> dict[str, Any]:
        """A container of a stand-in: its answer is its health, and its heartbeat a file in DATA."""
        image = {} if "images" in more else {"image": self.images[name]}
        return {
            "network": network,
            "name": name,
            "mirror": images.REGISTRY,
            "ports": [f"{port}:8080"],
            "volumes": [f"{DATA}/{name}:/data"],
            "environment": {"ANSWERS": answers},
            "health_url": f"http://127.0.0.1:{port}/{answers}",
            "heartbeat": f"{DATA}/{name}/heartbeat",
            "heartbeat_s": 10,
            **image,
            **more,
        }

    def as_root(self, host: str, command: str, rc: int = 0) -> str:
        done = self.lab.host(host).exec(command)
        assert done.rc == rc, f"{host}: {command}: exit {done.rc}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def alone(self, *words: str) -> str:
        """A command that takes no inventory."""
        argv = [str(BIN / "provision"), *words]
        done = subprocess.run(
            argv, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def serves(self, host: str, network: str) -> bool:
        return self.lab.host(host).exec(f"/usr/local/lib/provision/health/{network}").rc == 0

    @staticmethod
    def wait_for(what: Callable[[], bool], seconds: float, why: str) -> None:
        ends = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < ends, f"{why}: not within {seconds:g} s"
            time.sleep(1)


def unpacked(lab: Lab, host: str, repository: standins.Repository) -> None:
    """Bring the stand-ins' source to a host, and start a registry there for the images."""
    command = f"sudo mkdir -p {standins.WHERE} && sudo tar xz -C {standins.WHERE}"
    done = ssh(lab, host, command, given=repository.packed())
    assert done.rc == 0, done.stderr
    images.registry(lab, host)
