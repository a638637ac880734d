"""Doctor's own look: it reads and changes nothing, it is bounded, and nobody else pays for it."""

from __future__ import annotations

import ast
import re

from provisioner.probe.nvml import roots_of, shake
from provisioner.probe.payload import nvml_calls, payload
from provisioner.probe.request import DOCTOR, FULL, STATE, Request


def test_every_command_has_a_limit() -> None:
    """A sick card hangs nvidia-smi; a look never waits for it."""
    assert DOCTOR.nvml_limit_s <= 20
    assert all(0 < command.limit_s <= 30 for command in Request(DOCTOR).commands)
    assert next(c for c in Request(DOCTOR).commands if c.line == "nvidia-smi").limit_s <= 20


def test_no_command_changes_anything() -> None:
    """A closed list of programs, each with options that only read."""
    reading = {
        "systemctl show",
        "dpkg-query -W",
        "dkms status",
        "modinfo -F",
        "mokutil --sb-state",
        "mokutil --test-key",
        "nvidia-smi",
        "docker info",
        "docker ps",
        "systemd-detect-virt",
        "timedatectl show",
        "dmesg",
        "journalctl -q",
        "lspci -nnvv",
        "lspci -vv",
        "ip -o",
        "ps -eo",
        "iptables -S",
        "ufw status",
        "podman --version",
        "rpm -qa",
        "grubby --default-kernel",
        'lsinitramfs "/boot/initrd.img-$(uname',
        "grep -m",
        "grep -e",
        "grep -hoE",
        "sed -nE",
        "command -v",
        "python3 -IS",  # test_initramfs_modules.py holds that program to the same
        "set --",
        "for maps",
        "docker container",
        "k=$(command -v",
    }
    lines = [command.line for command in Request(DOCTOR).commands]

    assert [line for line in lines if " ".join(line.split()[:2]) not in reading and line not in reading] == []
    assert [line for line in lines if re.search(r"[^0-9]>(?!&|/dev/null)|\brm\b|\bsed -i|--clear|-C\b", line)] == []


def test_a_plan_does_not_pay_for_it() -> None:
    """The narrow looks run none of its commands, and ask no card how it feels."""
    for profile in (STATE, FULL):
        assert not profile.nvml_health
        assert {command.line for command in Request(profile).commands} & {"dmesg", "lspci -vv -d ::0604"} == set()
    assert "nvmlDeviceGetRemappedRows" not in nvml_calls()
    assert b"dmesg" not in payload(Request(STATE))


def test_the_health_of_cards_is_asked_in_syntax_of_old_hosts(pynvml_source: str) -> None:
    """Both texts run as one under Python 3.6, with what of pynvml they need."""
    text = nvml_calls(health=True)
    ast.parse(text, feature_version=(3, 6))
    shaken = shake(pynvml_source, roots_of(text))
    ast.parse(shaken, feature_version=(3, 6))

    assert "def nvmlDeviceGetRemappedRows" in shaken
    scope: dict[str, object] = {}
    exec(compile(text, "nvml_calls", "exec"), scope)
    assert len(scope["MORE"]) == 1  # type: ignore[arg-type]


def test_doctor_asks_for_no_offers() -> None:
    """apt-cache is the dearest of a full look, and doctor does not need it."""
    assert DOCTOR.offers == ()
