"""The way back in short: there, what is kept, back with no package source, and back by itself when nobody comes.

It begins with a driver of NVIDIA's own installer (a stand-in of its uninstaller), which makes way.

One host of Debian 12 with a driver of stand-ins (tests/lab/standins.py) that DKMS builds in seconds. The long stories,
with NVIDIA's own modules, are test_wayback.py and test_trial.py. Every run has the beginning, and the way back by
itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from provisioner.adapters.lab import Lab
from tests.lab import standins
from tests.lab.conftest import ssh
from tests.lab.ground import Ground
from tests.lab.operator import LONG, Operator

pytestmark = pytest.mark.lab
long = pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")

HOST = "rig-back"
OLD, NEW = "580.95.05", "580.159.03"
AWAY = (
    f"mv /etc/apt/sources.list /root/; mv {standins.WHERE} /root/standins; "
    "rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb"
)
HERE = f"mv /root/sources.list /etc/apt/; mv /root/standins {standins.WHERE}; apt-get update -qq"
# What NVIDIA's .run file leaves behind; it says which of the packages were there before it when it ran.
UNINSTALL = """#!/bin/sh
{ echo "$@"; dpkg-query -W -f '${Package}\\n' libcuda1 nvidia-kernel-dkms 2>/dev/null; } >/root/uninstalled
rm /usr/bin/nvidia-uninstall
"""


@pytest.fixture(scope="module")
def ground(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("operator")
    repository = standins.build(tmp_path_factory.mktemp("standins"))
    key = folder / "stand-ins.asc"
    key.write_text(repository.key, encoding="utf-8")
    lab = lab_factory(f"{HOST}=bookworm:rtx-3090")
    unpack = f"sudo mkdir -p {standins.WHERE} && sudo tar xz -C {standins.WHERE}"
    unpacked = ssh(lab, HOST, unpack, given=repository.packed())
    assert unpacked.rc == 0, unpacked.stderr
    source = {
        "id": "stand-ins",
        "uri": f"copy:{standins.WHERE}",
        "suite": "/",
        "key": str(key),
        "fingerprint": repository.fingerprint,
    }
    yield Ground(Operator(lab, folder), HOST, NEW, {"sources": [source], "driver_source": "vendor"})


def test_00_nvidias_own_installer_makes_way(ground: Ground) -> None:
    """It is found, the plan says that its driver goes, and its uninstaller runs before the first package comes."""
    ground.root(f"cat >/usr/bin/nvidia-uninstall <<'EOF'\n{UNINSTALL}EOF\nchmod 755 /usr/bin/nvidia-uninstall")
    ground.operator.want(HOST, networks=["golem"], driver=OLD, policy=ground.policy)
    assert "of NVIDIA's installer (.run) goes first; a rollback cannot bring it back" in ground.operator.run("plan")
    ground.begin(OLD)

    assert ground.on("cat /root/uninstalled") == "--silent\n"
    ground.root("! test -e /usr/bin/nvidia-uninstall")


@long
def test_01_there_and_kept(ground: Ground) -> None:
    """The newer driver is loaded, verified and enrolled; what it replaced lies on the host as archives."""
    assert OLD in ground.before.partition("# running")[2]
    ground.wish(15)
    assert f"{HOST}  enrolled" in ground.operator.run("apply", "--yes")

    assert ground.on("cat /sys/module/nvidia/version").strip() == NEW
    entries = json.loads(ground.operator.run("history", HOST, "--json"))["hosts"][HOST]
    assert [entry["done"] for entry in entries] == [True, True]
    kept = entries[1]["packages"]["nvidia-kernel-dkms"]
    archive = f"/var/lib/provision/history/{entries[1]['run']}/debs/nvidia-kernel-dkms_{OLD}-1_amd64.deb"
    assert (kept["version"], ground.on(f"sha256sum {archive}").split()[0]) == (f"{OLD}-1", kept["sha256"])


@long
def test_02_back_with_no_package_source(ground: Ground) -> None:
    """The host is what it was, package for package and file for file."""
    ground.root(AWAY)
    try:
        assert f"{HOST}  enrolled" in ground.operator.run("rollback", HOST, "--yes")
    finally:
        ground.root(HERE)
    assert not ground.changed()


def test_03_back_by_itself(ground: Ground) -> None:
    """The controller dies during the reboot and nobody comes back: within the limit the host serves as before."""
    ground.wish(1)
    ground.died_during_the_reboot()
    assert ground.came_to("back") == "back"

    assert not ground.changed()
    ground.root("/usr/local/sbin/provision-gate check golem")
    assert "nobody confirmed within 1 min of the boot" in ground.operator.run("status")
