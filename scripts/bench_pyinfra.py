"""The same resources as provision's lock entry, as a pyinfra deploy; a peer of scripts/bench noop."""

import json
from pathlib import Path

from pyinfra import host
from pyinfra.operations import apt, files, server, systemd

WANTED = json.loads(Path("wanted.json").read_text(encoding="utf-8"))[host.name]

server.shell(name="whole packages", commands=["dpkg --configure --pending"], _sudo=True)
for folder in WANTED["directories"]:
    files.directory(name=f"folder {folder}", path=folder, mode="755", user="root", group="root", _sudo=True)
for path, (source, mode) in WANTED["files"].items():
    files.put(name=f"file {path}", src=source, dest=path, mode=mode, user="root", group="root", _sudo=True)
apt.packages(
    name="packages",
    packages=[f"{name}={version}" if version else name for name, version in WANTED["packages"].items()],
    no_recommends=True,
    _sudo=True,
)
if WANTED["held"]:
    # pyinfra has no operation for holds; this is how its users hold packages.
    server.shell(name="holds", commands=[f"apt-mark hold {' '.join(WANTED['held'])}"], _sudo=True)
for kernel in WANTED["kernels"]:
    server.shell(name=f"module for {kernel}", commands=[f"dkms autoinstall -k {kernel}"], _sudo=True)
for unit in WANTED["services"]:
    systemd.service(name=f"service {unit}", service=unit, running=True, enabled=True, _sudo=True)
