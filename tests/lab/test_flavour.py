"""From proprietary modules to open ones and back: a plan of its own, with real packages, on one host of Debian 12.

It runs a kernel of before 6.1.0-53: Debian's open modules 535.261.03 build on none after it, nor Debian 13's 550.163.01
on any that its archive has (pci_resize_resource has an argument more there).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from provisioner.adapters.lab import Lab
from tests.lab.operator import LONG, Operator
from tests.lab.state import state

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

HOST, DRIVER, BUILDS_BEFORE = "rig-mod", "535.261.03", 53
BANNER = "cat /proc/driver/nvidia/version"
APT = "sudo env DEBIAN_FRONTEND=noninteractive apt-get -y -q"


@pytest.fixture(scope="module")
def operator(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    found = Operator(lab_factory(f"{HOST}=bookworm:rtx-3090"), tmp_path_factory.mktemp("operator"))
    runs_an_older_kernel(found)
    found.want(HOST, networks=["golem"], driver=DRIVER, modules="proprietary")
    found.run("apply", "--yes")
    yield found


def runs_an_older_kernel(operator: Operator) -> None:
    """The newest one of the archive on which the open modules build, alone, and with headers."""
    newer = operator.on(HOST, "uname -r").strip()
    names = operator.on(HOST, "apt-cache pkgnames linux-headers-6.1.0-").split()
    numbers = [int(match[1]) for name in names if (match := re.fullmatch(r"linux-headers-6\.1\.0-(\d+)-amd64", name))]
    older = f"6.1.0-{max(number for number in numbers if number < BUILDS_BEFORE)}-amd64"
    operator.on(HOST, f"{APT} install linux-image-{older} linux-headers-{older}")
    operator.on(HOST, f"{APT} purge linux-image-{newer} linux-image-amd64")
    operator.lab.host(HOST).reboot()
    assert operator.on(HOST, "uname -r").strip() == older


def test_01_to_open_modules_and_back(operator: Operator) -> None:
    """The version stays; the other package comes and the first goes, with a reboot that the plan named."""
    before = state(operator, HOST)
    assert "Open Kernel Module" not in operator.on(HOST, BANNER)
    operator.want(HOST, networks=["golem"], driver=DRIVER, modules="open")
    plan = operator.plan()[HOST]
    moves = {move["name"]: move["action"] for move in plan["transaction"]}
    assert {name for name, action in moves.items() if action == "install"} == {
        "nvidia-open-kernel-dkms",
        "nvidia-open-kernel-support",
    }
    assert {name for name, action in moves.items() if action in ("remove", "purge")} == {
        "nvidia-kernel-dkms",
        "nvidia-kernel-support",
    }
    assert plan["reboot"]
    operator.run("apply", "--yes")
    assert "Open Kernel Module" in operator.on(HOST, BANNER)
    assert "Nothing to change" in operator.run("plan", "--exit-code")

    operator.run("rollback", HOST, "--yes")
    assert "Open Kernel Module" not in operator.on(HOST, BANNER)
    assert state(operator, HOST) == before
