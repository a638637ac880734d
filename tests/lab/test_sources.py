"""Package sources, runtimes and kernels on real hosts, with stand-ins for what only NVIDIA and Docker offer.

One story in numbered steps on one host of Debian 12; each step needs those before it. The driver is a stand-in of a few
lines that DKMS really builds, so the story takes minutes, not the half hour that NVIDIA's own modules take on a slow
machine. What is proven is what apt, dpkg, DKMS, systemd and Docker do; nothing of NVIDIA's or docker-ce's programs is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from provisioner.resolve.lock import read_lock
from tests.lab import standins
from tests.lab.conftest import ssh
from tests.lab.operator import LONG, Operator

pytestmark = pytest.mark.lab

HOST = "rig-src"
SLOW = ("--timeout", "400")  # apt reads an index anew, on a machine that may be busy
NOW = ("--yes", "--interrupt", *SLOW)  # no client of a network is on the host that could be asked whether a job runs
QUIET = "sudo DEBIAN_FRONTEND=noninteractive"


class Sources(Operator):
    """An operator whose host is to have one more package source."""

    def __init__(self, lab: Lab, folder: Path, repository: standins.Repository) -> None:
        super().__init__(lab, folder)
        self.repository = repository
        self.key = folder / "stand-ins.asc"
        self.key.write_text(repository.key, encoding="utf-8")

    def wish(self, *, runtime: str = "docker-io", fingerprint: str | None = None, **policy: object) -> None:
        source = {
            "id": "stand-ins",
            "uri": f"copy:{standins.WHERE}",
            "suite": "/",
            "key": str(self.key),
            "fingerprint": fingerprint or self.repository.fingerprint,
        }
        variables = {
            "provision_networks": ["akash"],
            "provision_runtime": runtime,
            "provision_policy": {"sources": [source], **policy},
        }
        path = self.lab.folder / "host_vars" / f"{HOST}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(variables), encoding="utf-8")

    def said(self, code: int = Exit.OK) -> str:
        """The plan's screen; a plan that differs is no failure, one that is blocked is."""
        return self.run("plan", *SLOW, code=code)

    def plan_of_host(self) -> dict[str, object]:
        hosts: dict[str, dict[str, object]] = json.loads(self.run("plan", "--json", *SLOW))["hosts"]
        return hosts[HOST]


@pytest.fixture(scope="module")
def operator(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    repository = standins.build(tmp_path_factory.mktemp("standins"))
    lab = lab_factory(f"{HOST}=bookworm:rtx-3090")
    unpacked = ssh(
        lab,
        HOST,
        f"sudo mkdir -p {standins.WHERE} && sudo tar xz -C {standins.WHERE}",
        given=repository.packed(),
    )
    assert unpacked.rc == 0, unpacked.stderr
    yield Sources(lab, tmp_path_factory.mktemp("operator"), repository)


def test_01_a_key_that_is_not_the_stated_one_is_refused(operator: Sources) -> None:
    """Nothing is asked of the host's apt, and both fingerprints are shown."""
    operator.wish(fingerprint="A" * 40)
    refusal = operator.run("resolve", *SLOW, code=Exit.BAD_INPUT)

    assert "[source-key-differs]" in refusal
    assert operator.repository.fingerprint in refusal


def test_02_a_source_that_another_key_signs_is_not_read(operator: Sources, tmp_path: Path) -> None:
    """The key is sound and is not the one that signs: the host's own apt refuses, in its own words."""
    other = standins.build(tmp_path, packages=())
    mine = operator.key.read_text(encoding="utf-8")
    operator.key.write_text(other.key, encoding="utf-8")
    try:
        operator.wish(fingerprint=other.fingerprint)
        refusal = operator.run("resolve", *SLOW, code=Exit.FAILED)
    finally:
        operator.key.write_text(mine, encoding="utf-8")

    assert "[source-not-read]" in refusal
    assert "NO_PUBKEY" in refusal or "not signed" in refusal


def test_03_what_it_offers_is_in_the_lock_and_nothing_on_the_host(operator: Sources) -> None:
    """Vendor's driver and toolkit, from a source that is not there yet; the host has no new file."""
    operator.wish(driver_source="vendor")
    operator.run("resolve", *SLOW)
    entry = read_lock(operator.folder / "provision.lock").hosts[HOST]

    assert entry.driver_version is not None
    assert entry.driver_version.value == "580.159.03"
    assert entry.vendor_driver
    versions = {p.name: p.version for p in entry.packages}
    assert {versions[name] for name in versions if "container" in name and "nvidia" in name} == {"1.20.0-1"}
    assert operator.on(HOST, "ls /etc/apt/sources.list.d /etc/apt/keyrings").find("provision") < 0


def test_04_apply_puts_source_packages_pins_and_kernel_holds(operator: Sources) -> None:
    """One run: key, source, transaction, reboot into the module that DKMS built, checks."""
    plan = operator.said()
    assert "package source" in plan
    assert "systemd reloads" in plan
    operator.run("apply", *NOW)

    assert operator.on(HOST, "cat /sys/module/nvidia/version").strip() == "580.159.03"
    held = operator.on(HOST, "apt-mark showhold").split()
    assert {"nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container1"} <= set(held)
    assert {"linux-image-amd64", "cuda-drivers", "docker.io"} <= set(held)
    settings = json.loads(operator.on(HOST, "cat /etc/docker/daemon.json"))
    assert settings["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
    assert "Nothing to change" in operator.run("plan", "--exit-code", *SLOW)


def test_05_held_means_held(operator: Sources) -> None:
    """full-upgrade, autoremove and a foreign `apt-get install cuda-drivers` move nothing."""
    operator.on(HOST, f"{QUIET} apt-get update -qq; {QUIET} apt full-upgrade -y; {QUIET} apt-get autoremove -y")
    operator.on(HOST, f"{QUIET} apt-get install -y cuda-drivers")

    assert "Nothing to change" in operator.run("plan", "--exit-code", *SLOW)


def test_06_a_foreign_script_changes_daemon_json(operator: Sources) -> None:
    """The plan shows three sides; apply puts ours back and leaves what the script added."""
    operator.wish(driver_source="vendor", default_runtime="runc", cgroup_driver="cgroupfs")
    operator.run("resolve", *SLOW)
    operator.run("apply", *NOW)
    operator.on(
        HOST,
        'sudo python3 -c \'import json; p="/etc/docker/daemon.json"; v=json.load(open(p));'
        ' v["default-runtime"]="nvidia"; v["data-root"]="/var/lib/docker"; json.dump(v, open(p, "w"))\'',
    )
    plan = operator.said()
    assert 'default-runtime: provision wrote "runc", "nvidia" stands there now, "runc" is wanted' in plan
    operator.run("apply", *NOW)

    settings = json.loads(operator.on(HOST, "cat /etc/docker/daemon.json"))
    assert (settings["default-runtime"], settings["data-root"]) == ("runc", "/var/lib/docker")


def test_07_the_cgroup_driver_changes_under_a_running_container(operator: Sources) -> None:
    """Docker restarts with the other driver; the container lives on, started as it was."""
    operator.on(
        HOST,
        # sleep with the libraries that it names, links followed: an image that needs no registry
        "sudo tar chP /bin/sleep $(ldd /bin/sleep | grep -o '/lib[^ ]*') | sudo docker import - held:1"
        " && sudo docker run -d --name held held:1 /bin/sleep 3600",
    )
    assert operator.on(HOST, "sudo docker inspect -f '{{.State.Running}}' held").strip() == "true"
    operator.wish(driver_source="vendor", default_runtime="runc", cgroup_driver="systemd")
    operator.run("resolve", *SLOW)
    assert "native.cgroupdriver=systemd" in operator.said()
    operator.run("apply", *NOW)

    assert operator.on(HOST, "sudo docker info --format '{{.CgroupDriver}}'").strip() == "systemd"
    assert operator.on(HOST, "sudo docker inspect -f '{{.State.Running}}' held").strip() == "true"
    operator.on(HOST, "sudo docker rm -f held")


def test_08_a_kernel_without_headers_is_stopped_before_the_reboot(operator: Sources) -> None:
    """Somebody brings a kernel past the hold; the plan is blocked, and so is a run that was rendered before."""
    kernel = operator.on(HOST, "uname -r").strip()
    other = kernel.replace("6.1.0-", "6.1.0-9")
    operator.on(HOST, f"sudo cp /boot/vmlinuz-{kernel} /boot/vmlinuz-{other}; sudo mkdir -p /lib/modules/{other}")
    plan = operator.said(Exit.FAILED)
    assert f"blocked: kernel {other} boots next, and has neither a module of driver 580.159.03 nor headers" in plan

    guard = next(
        task["ansible.builtin.shell"]["cmd"]
        for run in sorted((operator.folder / ".provision" / "runs").iterdir())
        for task in _tasks(run / "group_1.yml")
        if task["name"].startswith("Check that the kernel that boots next")
    )
    refused = ssh(operator.lab, HOST, "sudo bash -s", given=guard.encode())
    assert refused.rc != 0
    assert f"kernel {other} boots next and has no module" in refused.stderr
    operator.on(HOST, f"sudo rm -rf /boot/vmlinuz-{other} /lib/modules/{other}")
    assert ssh(operator.lab, HOST, "sudo bash -s", given=guard.encode()).rc == 0


def test_09_back_to_the_distributions_side_takes_away_what_would_mix(operator: Sources) -> None:
    """Only the plan, which apt's own simulation stands behind: the vendor's root goes, Debian's driver comes."""
    operator.wish(driver_source="distribution")
    operator.run("resolve", *SLOW)
    plan = operator.plan_of_host()

    transaction = plan["transaction"]
    assert isinstance(transaction, list)
    moves = {move["name"]: move for move in transaction}
    assert moves["cuda-drivers"]["action"] in ("remove", "purge")
    assert moves["nvidia-kernel-dkms"]["after"].startswith("535.")
    assert not plan["blocked"]


def test_10_docker_ce_takes_the_place_of_docker_io(operator: Sources) -> None:
    """The transaction, from apt itself: Docker's five packages come, docker.io goes, and the plan asked for both."""
    operator.wish(driver_source="vendor", runtime="docker-ce")
    operator.run("resolve", *SLOW)
    plan = operator.plan_of_host()

    transaction = plan["transaction"]
    assert isinstance(transaction, list), plan["blocked"]
    moves = {move["name"]: move["action"] for move in transaction}
    assert moves["docker-ce"] == "install"
    assert moves["docker.io"] in ("remove", "purge")


@pytest.mark.skipif(not LONG, reason="two kernels more are installed: minutes")
def test_11_a_kernel_upgrade_with_headers(operator: Sources) -> None:
    """The older kernel of Debian runs; the newer comes, first without headers (stopped), then with them."""
    host = operator.lab.host(HOST)
    newer = operator.on(HOST, "uname -r").strip()
    names = operator.on(HOST, "apt-cache pkgnames linux-headers-6.1.0-").split()
    older = next(n for n in (name.removeprefix("linux-headers-") for name in sorted(names)) if _is_older(n, newer))
    apt = f"{QUIET} apt-get -y --allow-change-held-packages"
    operator.wish(driver_source="vendor")
    operator.on(HOST, f"{apt} install linux-image-{older} linux-headers-{older}")
    operator.on(
        HOST,
        f"{apt} purge linux-image-{newer} linux-image-amd64 linux-headers-{newer} linux-headers-amd64",
    )
    host.reboot()
    assert operator.on(HOST, "uname -r").strip() == older
    operator.run("resolve", *SLOW)
    operator.run("apply", *NOW)
    assert f"linux-image-{older}" in operator.on(HOST, "apt-mark showhold").split()

    operator.on(HOST, f"{apt} install linux-image-{newer}")
    assert f"blocked: kernel {newer} boots next" in operator.said(Exit.FAILED)
    operator.on(HOST, f"{apt} install linux-headers-{newer}")
    operator.run("resolve", *SLOW)
    operator.run("apply", *NOW)
    host.reboot()

    assert operator.on(HOST, "uname -r").strip() == newer
    assert operator.on(HOST, "cat /sys/module/nvidia/version").strip() == "580.159.03"


def _is_older(release: str, than: str) -> bool:
    def key(text: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", text)]

    return release.endswith("-amd64") and "cloud" not in release and "rt-" not in release and key(release) < key(than)


def _tasks(playbook: Path) -> Iterator[dict[str, dict[str, str]]]:
    for play in yaml.safe_load(playbook.read_text(encoding="utf-8")):
        yield from play.get("tasks", ())
