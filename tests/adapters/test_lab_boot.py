"""The simulated boot decides as GRUB, modprobe and NVIDIA's module do; here its decisions, without a host."""

from __future__ import annotations

import importlib.util
import ipaddress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from provisioner.adapters.lab import gpus
from provisioner.adapters.lab.engine import ensure_inotify
from provisioner.adapters.lab.hosts import free_subnet
from provisioner.adapters.lab.image import ASSETS


@pytest.fixture(scope="module")
def boot() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lab_boot", ASSETS / "boot.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def card(**changes: Any) -> dict[str, Any]:
    """An Ampere card, or a change of one."""
    return {"bus": "0000:01:00.0", "device": "2204", "open": "yes", "first_branch": 450, "last_branch": None} | changes


def module(version: str, *, is_open: bool = False) -> dict[str, Any]:
    return {"version": version, "open": is_open}


PASCAL = card(device="1b80", open="no", first_branch=None, last_branch=580)
KEPLER = card(device="102d", open="no", first_branch=None, last_branch=470)
BLACKWELL = card(device="2b85", open="only", first_branch=570)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("6.1.0-9-amd64", "6.1.0-10-amd64"),
        ("5.10.0-40-amd64", "6.1.0-1-amd64"),
        ("6.12.48+deb13-amd64", "6.12.57+deb13-amd64"),
    ],
)
def test_the_newest_kernel_boots(boot: ModuleType, older: str, newer: str) -> None:
    """Numbers compare as numbers."""

    assert max([newer, older], key=boot.version_key) == newer


@pytest.mark.parametrize(
    ("gpu", "driver", "fits"),
    [
        (card(), module("535.261.03"), True),
        (card(), module("535.261.03", is_open=True), True),
        (card(), module("390.157"), False),
        (PASCAL, module("470.256.02"), True),
        (PASCAL, module("550.163.01", is_open=True), False),
        (PASCAL, module("590.48.01"), False),
        (KEPLER, module("535.261.03"), False),
        (BLACKWELL, module("550.163.01", is_open=True), False),
        (BLACKWELL, module("580.95.05", is_open=True), True),
        (BLACKWELL, module("580.95.05"), False),
    ],
)
def test_a_module_takes_the_cards_of_its_branch_and_flavour(
    boot: ModuleType, gpu: dict[str, Any], driver: dict[str, Any], fits: bool
) -> None:
    assert (boot.refusal(gpu, driver) is None) == fits


def test_module_without_any_card_does_not_stay(boot: ModuleType) -> None:
    """NVIDIA's init gives ENODEV when no card was initialised."""

    assert boot.probe(module("550.163.01"), [KEPLER]) == {}


def test_module_stays_for_the_cards_it_can_drive(boot: ModuleType) -> None:
    loaded = boot.probe(module("535.261.03"), [KEPLER, card(), PASCAL])

    assert loaded["nvidia"]["bound"] == [1, 2]


def test_proprietary_module_on_blackwell_is_loaded_and_shows_no_device(boot: ModuleType) -> None:
    """The module claims the card and fails to start it: `No devices were found`."""
    loaded = boot.probe(module("580.95.05"), [BLACKWELL])

    assert loaded["nvidia"]["bound"] == []


def test_modprobe_rules_follow_the_order_of_folders(
    boot: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in /etc hides its namesake elsewhere; `install … /bin/false` blocks like a blacklist."""
    etc, lib = tmp_path / "etc", tmp_path / "lib"
    for folder in (etc, lib):
        folder.mkdir()
    (lib / "gpu.conf").write_text("blacklist nvidia\n")
    (etc / "gpu.conf").write_text("# blacklist all\nblacklist nouveau\ninstall nvidia-drm /bin/false\n")
    (etc / "gone.conf").symlink_to(tmp_path / "nowhere")
    (lib / "more.conf").write_text("options nouveau modeset=0 debug=1\n")
    monkeypatch.setattr(boot, "MODPROBE_D", [etc, lib])

    blocked, options = boot.modprobe_rules()

    assert blocked == {"nouveau", "nvidia_drm"}
    assert options == {"nouveau": ["modeset=0", "debug=1"]}


def test_every_card_of_the_matrix_can_be_shown() -> None:
    """Each model has what boot.py and nvml.c read, and no two cards of a lab share a UUID or a slot."""
    models = gpus.gpu_models()
    for model in models.values():
        (shown,) = gpus.hardware("lab", "rig-01", [model])["gpus"]
        assert len(shown["device"]) == 4 and shown["nvml"]["memory_total_mib"] > 1000, model.id
    eight = gpus.hardware("lab", "rig-01", [models["rtx-3090"]] * 8)["gpus"]

    assert len({c["uuid"] for c in eight}) == len({c["bus"] for c in eight}) == 8
    assert eight == gpus.hardware("lab", "rig-01", [models["rtx-3090"]] * 8)["gpus"]


def test_facts_of_known_cards() -> None:
    models = gpus.gpu_models()

    assert (models["gtx-1080"].open, models["gtx-1080"].last_branch) == ("no", 580)
    assert (models["rtx-3090"].open, models["rtx-3090"].name) == ("yes", "NVIDIA GeForce RTX 3090")
    assert (models["rtx-5090"].open, models["rtx-5090"].first_branch) == ("only", 570)
    assert models["tesla-t4"].name == "Tesla T4"


def test_labs_get_networks_of_their_own() -> None:
    """The first /24 that overlaps no network of the engine and no route."""
    taken = [ipaddress.IPv4Network(n) for n in ("10.213.0.0/24", "10.213.1.128/25", "172.17.0.0/16")]

    assert str(free_subnet(taken)) == "10.213.2.0/24"


def test_inotify_limit_is_raised_once_and_said(tmp_path: Path) -> None:
    """A change to the machine is never silent."""
    setting = tmp_path / "max_user_instances"
    setting.write_text("128\n")
    said: list[str] = []

    for _ in range(2):
        ensure_inotify(said.append, setting)

    assert setting.read_text() == "1024"
    assert said == ["raised fs.inotify.max_user_instances on this machine: 128 → 1024, until it restarts"]
