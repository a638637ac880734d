"""From proprietary modules to open ones and back: a plan of its own, with real packages, on one host of Debian 13."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from provisioner.adapters.lab import Lab
from tests.lab.operator import LONG, Operator
from tests.lab.state import state

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

HOST = "rig-mod"


@pytest.fixture(scope="module")
def operator(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    found = Operator(lab_factory(f"{HOST}=trixie:rtx-4090"), tmp_path_factory.mktemp("operator"))
    found.want(HOST, networks=["golem"], driver="550", modules="proprietary")
    found.run("apply", "--yes")
    yield found


def test_01_to_open_modules_and_back(operator: Operator) -> None:
    """The version stays; the other package comes and the first goes, with a reboot that the plan named."""
    before = state(operator, HOST)
    banner = "cat /proc/driver/nvidia/version"
    assert "Open Kernel Module" not in operator.on(HOST, banner)
    operator.want(HOST, networks=["golem"], driver="550", modules="open")
    plan = operator.plan()[HOST]
    moves = {move["name"]: move["action"] for move in plan["transaction"]}
    assert moves["nvidia-open-kernel-dkms"] == "install"
    assert moves["nvidia-kernel-dkms"] in ("remove", "purge")
    assert plan["reboot"]
    operator.run("apply", "--yes")
    assert "Open Kernel Module" in operator.on(HOST, banner)
    operator.run("rollback", HOST, "--yes")

    assert "Open Kernel Module" not in operator.on(HOST, banner)
    assert state(operator, HOST) == before
