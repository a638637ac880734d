"""`provision resolve --assume`: marked in every output, and never in a lock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from provisioner.cli.main import main
from provisioner.errors import Exit
from tests.facts.hosts import CAPTURES

BARE = str(CAPTURES / "debian-12-bare.json")


def test_the_whole_screen_and_no_lock(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lock = tmp_path / "provision.lock"

    assert main(["resolve", "--capture", BARE, "-o", str(lock), "--assume", "os=debian-13"]) == Exit.OK

    assert capsys.readouterr().out == (
        "WHAT IF, and it is not so:\n"
        "   · the host runs debian-13, freshly installed, with its archive as the matrix lists it\n"
        "\n"
        "pd-b  debian-13  2 × rtx-3090  driver 550.163.01  CUDA 12.4  no network\n"
        "\n"
        "! pd-b: driver branch 550 is past its end of life (2025-04-17), and nothing that is still supported fits "
        "this\n"
        "  host (drivers/550, seen 2026-11-24)\n"
        "! pd-b: toolkit: not offered by this host's sources, so nothing here gives containers a GPU; NVIDIA's\n"
        "  repository for the container toolkit would offer it (host: package sources;\n"
        "  runtimes/nvidia-container-toolkit, seen 2026-11-24)\n"
        "\n"
        "Assumed: 1 of 1 hosts would have a stack. No lock was written.\n"
    )
    assert not lock.exists()


def test_a_lock_that_is_there_keeps_every_byte(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lock = tmp_path / "provision.lock"
    main(["resolve", "--capture", BARE, "-o", str(lock)])
    before = lock.read_bytes()

    assert main(["resolve", "--capture", BARE, "-o", str(lock), "--assume", "driver=580"]) == Exit.OK
    assert lock.read_bytes() == before


def test_json_says_what_was_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["resolve", "--capture", BARE, "--json", "--assume", "gpu-=0", "--assume", "driver=580"])

    answer = json.loads(capsys.readouterr().out)
    assert answer["assumed"] == ["gpu-=0", "driver=580"]
    assert answer["hosts"]["pd-b"]["gpus"] == ["rtx-3090"]


def test_a_card_that_is_not_there_names_the_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resolve", "--capture", BARE, "--assume", "gpu-=7"]) == Exit.BAD_INPUT

    assert capsys.readouterr().err == (
        "error: pd-b: --assume gpu-=7: there is no such card                             [no-such-card]\n"
        "  0: rtx-3090 in slot 0000:01:00.0\n"
        "  1: rtx-3090 in slot 0000:21:00.0\n"
        "\n"
        "write its number, its slot or its model\n"
    )
