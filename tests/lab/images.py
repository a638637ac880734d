"""Stand-ins for the networks' own client containers: images of one static busybox and a script, made on a lab host.

They behave as the matrix says that the clients do, seen from outside: a port that answers, a heartbeat, an end with an
exit code. They are nobody's client, and say so in their label. No registry is asked but the host's own, Debian's
docker-registry, to which the image is pushed by its HTTP interface.
"""

from __future__ import annotations

from provisioner.adapters.lab import Lab
from tests.lab.conftest import ssh

REGISTRY = "127.0.0.1:5000"

# Files in /data steer it: `hang` stops answer and heartbeat, `end` holds the exit code to end with.
CLIENT = """#!/bin/sh
trap 'exit 0' TERM
mkdir -p /www
echo "stand-in $STANDIN $VERSION gpus=$NVIDIA_VISIBLE_DEVICES" >/www/${ANSWERS:-index.html}
httpd -p ${PORT:-8080} -h /www
echo "stand-in $STANDIN $VERSION is up"
while :; do
  if [ -e /data/end ]; then code=$(cat /data/end); rm /data/end; echo "told to end"; exit $code; fi
  if [ -e /data/hang ]; then killall httpd 2>/dev/null; else date +%s >/data/heartbeat; fi
  sleep 1 & wait $!
done
"""

_MAKE = r"""
import hashlib, io, json, sys, tarfile, urllib.request

name, version, script = sys.argv[1], sys.argv[2], sys.stdin.read()
host = "http://127.0.0.1:5000/v2/" + name


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tree:
        for path, data in (("bin/busybox", open("/bin/busybox", "rb").read()), ("client", script.encode())):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o755
            tree.addfile(entry, io.BytesIO(data))
        for applet in "sh httpd killall date sleep cat mkdir rm ls".split():
            entry = tarfile.TarInfo("bin/" + applet)
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tree.addfile(entry)
    return buffer.getvalue()


def call(method, url, data=None, kind="application/octet-stream"):
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
    return urllib.request.urlopen(request, timeout=60)


def push(data):
    where = call("POST", host + "/blobs/uploads/", b"").headers["Location"]
    where += ("&" if "?" in where else "?") + "digest=" + sha(data)
    call("PUT", where, data)


tar = layer()
config = json.dumps({
    "architecture": "amd64", "os": "linux",
    "config": {"Cmd": ["/client"], "Env": ["PATH=/bin", "STANDIN=" + name, "VERSION=" + version],
               "Labels": {"title": "stand-in for " + name + ", only for lab hosts"}},
    "rootfs": {"type": "layers", "diff_ids": [sha(tar)]},
}).encode()
for blob in (tar, config):
    push(blob)
kind = "application/vnd.docker.distribution.manifest.v2+json"
manifest = json.dumps({
    "schemaVersion": 2, "mediaType": kind,
    "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config),
               "digest": sha(config)},
    "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar", "size": len(tar), "digest": sha(tar)}],
}).encode()
call("PUT", host + "/manifests/" + version, manifest, kind)
print(sha(manifest))
"""


# Debian's own asks for a password that nobody has set.
_CONFIG = b"""version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/docker-registry}}
http: {addr: "127.0.0.1:5000"}
"""


def registry(lab: Lab, host: str) -> None:
    """Start Debian's own registry on a host, and bring the static program that images are made of."""
    command = "sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -q docker-registry busybox-static"
    done = ssh(lab, host, f"sudo apt-get update -q && {command} && sudo tee /etc/docker/registry/config.yml", _CONFIG)
    assert done.rc == 0, done.stdout + done.stderr
    done = ssh(lab, host, "sudo systemctl enable docker-registry && sudo systemctl restart docker-registry")
    assert done.rc == 0, done.stdout + done.stderr
    ready = (
        "for n in $(seq 50); do python3 -c \"import socket; socket.create_connection(('127.0.0.1', 5000))\" && exit; "
    )
    assert ssh(lab, host, f"{ready} sleep 0.2; done; exit 1").rc == 0


def made(lab: Lab, host: str, name: str, version: str, script: str = CLIENT) -> str:
    """Make an image on the host and push it to its registry; `NAME@sha256:…`."""
    ssh(lab, host, "cat >/tmp/standin-image.py", given=_MAKE.encode())
    done = ssh(lab, host, f"python3 /tmp/standin-image.py {name} {version}", given=script.encode())
    assert done.rc == 0, done.stdout + done.stderr
    return f"{name}@{done.stdout.strip()}"
