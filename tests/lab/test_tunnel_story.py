"""A tunnel in short: a rig behind a symmetric router joins by invitation, and no wrong change locks it out.

The long story is test_tunnels.py: two routers, every fault, fifty wrong changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from tests.lab.behind_nat import WRONGS, Tunnels

pytestmark = pytest.mark.lab

CONFIRM_S = 20
HOMES = {"rig-b": "gate-b"}


@pytest.fixture(scope="module")
def op(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tunnels]:
    lab = lab_factory(*(f"{name}=bookworm" for name in ("hub", "gate-b", "rig-b")))
    with Tunnels(lab, tmp_path_factory.mktemp("operator"), HOMES, CONFIRM_S) as operator:
        yield operator


def test_01_a_stolen_invitation_gets_nowhere(op: Tunnels) -> None:
    op.set_up_hub()
    op.guess_in_vain("gate-b", "rig-b")


def test_02_the_rig_joins_and_its_invitation_is_good_for_nobody_else(op: Tunnels) -> None:
    code = op.let_in("rig-b")
    op.replay("gate-b", "rig-b", code)


def test_03_it_is_applied_and_enrolled_over_the_tunnel(op: Tunnels) -> None:
    op.run("resolve", "--limit", "hub,rig-b")
    assert "rig-b  enrolled" in op.run("apply", "--yes", "--limit", "hub,rig-b")

    assert op.guard("rig-b")["came"] == op.address("rig-b")
    assert "Nothing to change" in op.run("plan", "--limit", "hub,rig-b")


def test_04_a_wrong_change_goes_back_by_itself(op: Tunnels) -> None:
    """A firewall that shuts ssh out."""
    value = op.lock()
    WRONGS[2](value["hosts"]["rig-b"]["tunnel"])
    (op.folder / "provision.lock").write_text(json.dumps(value), encoding="utf-8")
    said = op.run("apply", "--yes", "--limit", "rig-b", code=Exit.FAILED)

    assert "[change-reverted]" in said
    assert op.guard("rig-b")["state"] == "reverted"
    op.nat.carries(op.address("rig-b"), within=60)
