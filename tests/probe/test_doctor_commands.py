"""The longer commands of doctor's look, run here on a folder in the place of the host's own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from provisioner.probe.request import ALLOCATABLE, CDI_GONE, HANDED_OUT, IN_CONTAINERS, PROVIDER, Command

ONE, OTHER, HOST = "1" * 64, "2" * 64, "f" * 64


def run(command: Command, root: Path, **tools: str) -> subprocess.CompletedProcess[str]:
    """The command with the folders below `root`, and programs that answer as given."""
    folder = root / "bin"
    folder.mkdir(exist_ok=True)
    for name, script in tools.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    line = command.line
    for place in ("/proc/", "/etc/", "/var/run/"):
        line = line.replace(place, f"{root}{place}")
    environment = {**os.environ, "PATH": f"{folder}:/usr/bin:/bin", "HOME": str(root)}
    return subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, timeout=30, env=environment, check=False
    )


def write(root: Path, path: str, text: str = "") -> None:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def test_every_path_of_every_cdi_spec_is_looked_for(tmp_path: Path) -> None:
    """Mounts, devices and hooks, in YAML and on one line of JSON; what is there is not told."""
    here = tmp_path / "libcuda.so.1"
    here.touch()
    write(
        tmp_path,
        "/etc/cdi/nvidia.yaml",
        f"""\
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /nowhere/dev/nvidia0
containerEdits:
  hooks:
  - hookName: createContainer
    path: /nowhere/nvidia-cdi-hook
  mounts:
  - containerPath: /inside/only
    hostPath: {here}
  - hostPath: "/nowhere/lib with.so.1"
""",
    )
    write(
        tmp_path,
        "/var/run/cdi/other.json",
        f'{{"containerEdits":{{"mounts":[{{"containerPath":"/x","hostPath":"/nowhere/b"}},{{"hostPath":"{here}"}}]}}}}',
    )
    done = run(CDI_GONE, tmp_path)

    assert done.stdout.replace(str(tmp_path), "").splitlines() == [
        "/etc/cdi/nvidia.yaml /nowhere/dev/nvidia0",
        "/etc/cdi/nvidia.yaml /nowhere/lib with.so.1",
        "/etc/cdi/nvidia.yaml /nowhere/nvidia-cdi-hook",
        "/var/run/cdi/other.json /nowhere/b",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_host_without_cdi_says_nothing(tmp_path: Path) -> None:
    """Which is an answer: there is no path that could be gone."""
    done = run(CDI_GONE, tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_libraries_in_containers_are_told_with_container_and_program(tmp_path: Path) -> None:
    """Not those of the host's own processes; a host that is itself a container counts as the host."""
    line = "7f00-7f01 r-xp 0 08:01 42   /usr/lib/x86_64-linux-gnu/libcuda.so.550.90.07{}\n"
    for pid, group, program in (
        ("10", f"0::/system.slice/docker-{ONE}.scope", "python3 -u"),
        ("11", f"12:devices:/docker/{HOST}/kubepods/pod1/cri-containerd-{OTHER}", "serve|&r"),
        ("12", f"0::/docker/{HOST}/system.slice/nvidia-persistenced.service", "persistenced"),
        ("13", "0::/user.slice", "smi"),
    ):
        write(tmp_path, f"/proc/{pid}/maps", line.format(" (deleted)" if pid == "10" else ""))
        write(tmp_path, f"/proc/{pid}/cgroup", f"{group}\n")
        write(tmp_path, f"/proc/{pid}/comm", f"{program}\n")
    write(tmp_path, "/proc/1/cgroup", f"0::/docker/{HOST}/init.scope\n")
    write(tmp_path, "/proc/1/maps", "7f00 /usr/lib/systemd\n")
    done = run(IN_CONTAINERS, tmp_path)

    assert done.stdout.splitlines() == [
        f"{ONE} python3-u /usr/lib/x86_64-linux-gnu/libcuda.so.550.90.07",
        f"{OTHER} server /usr/lib/x86_64-linux-gnu/libcuda.so.550.90.07",
    ]
    assert done.stderr == ""


def test_the_cards_of_running_containers_are_counted(tmp_path: Path) -> None:
    """With the network that a container belongs to, where it has that label."""
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        write(tmp_path, f"/proc/77/root/dev/{name}")
    docker = f'[ "$1" = container ] && {{ echo {ONE}; exit; }}\necho "77 /akash-node akash"; echo "78 /web "'
    done = run(HANDED_OUT, tmp_path, docker=docker)

    assert done.stdout.splitlines() == ["/akash-node akash 2", "/web - 0"]


def test_the_cluster_is_asked_with_what_the_node_has(tmp_path: Path) -> None:
    """kubectl, else k3s's own; the kubelet's credentials where root has none."""
    write(tmp_path, "/etc/kubernetes/kubelet.conf", "x")
    kubectl = 'case "$*" in *raw*) echo "{\\"cluster\\": {}}";; *) echo "$KUBECONFIG" >&2; printf 8;; esac'
    asked = run(ALLOCATABLE, tmp_path, kubectl=kubectl, hostname="echo Node-1")
    told = run(PROVIDER, tmp_path, kubectl=kubectl, hostname="echo Node-1")

    assert asked.stdout == "8"
    assert asked.stderr.strip().endswith("/etc/kubernetes/kubelet.conf")
    assert told.stdout == 'node-1\n{"cluster": {}}\n'


def test_a_host_without_kubernetes_has_no_such_command(tmp_path: Path) -> None:
    """As a shell says it: 127."""
    for command in (ALLOCATABLE, PROVIDER):
        done = subprocess.run(
            ["/bin/sh", "-c", command.line], capture_output=True, env={"PATH": str(tmp_path)}, check=False
        )
        assert done.returncode == 127
