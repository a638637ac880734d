"""A Rocky Linux 9 host for tests: a recorded Debian host with what dnf and rpm really printed put in apt's place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from provisioner.model.capture import Capture
from provisioner.probe.request import RPM, dnf_offers_command

RECORDED = Path(__file__).parent / "facts" / "dnf"
KERNEL = "5.14.0-570.12.1.el9_6.x86_64"
OS_RELEASE = 'NAME="Rocky Linux"\nID="rocky"\nVERSION_ID="9.6"\nPRETTY_NAME="Rocky Linux 9.6 (Blue Onyx)"\n'


def answer(stdout: str = "", rc: int = 0, stderr: str = "") -> dict[str, Any]:
    return {"rc": rc, "stdout": stdout, "stderr": stderr}


def rocky(
    installed: str | None = None, *, locks: str = "", plugin: str | None = "[main]\nenabled = 1\n", kernel: str = KERNEL
) -> Capture:
    """Return the host; `installed` is rpm's list, without one the recorded one without any driver."""
    base = Path(__file__).parent / "captures" / "debian-12-bare.json"
    capture = json.loads(base.read_text(encoding="utf-8"))
    commands = {
        line: answer(rc=127, stderr="not found") if "apt" in line or "dpkg" in line else given
        for line, given in capture["commands"].items()
    }
    recorded = (RECORDED / "installed.txt").read_text(encoding="utf-8")
    bare = "".join(f"{line}\n" for line in recorded.splitlines() if "nvidia" not in line)
    commands |= {
        RPM: answer(bare if installed is None else installed),
        dnf_offers_command().line: answer((RECORDED / "offers.jsonl").read_text(encoding="utf-8")),
        "grubby --default-kernel": answer(f"/boot/vmlinuz-{kernel}\n"),
        "ls /boot": answer(f"config-{kernel}\ngrub2\nvmlinuz-0-rescue-0123456789abcdef\nvmlinuz-{kernel}\n"),
        "uname -r": answer(f"{kernel}\n"),
        "ls -d /lib/modules/*/build/Makefile": answer(f"/lib/modules/{kernel}/build/Makefile\n"),
        "ls -d /lib/modules/*/updates/dkms/nvidia*": answer(rc=2, stderr="ls: No such file or directory"),
        "ls -d /lib/modules/*/extra/nvidia*": answer(rc=2, stderr="ls: No such file or directory"),
        "readlink -f /var/lib/dkms/*/kernel-*": answer(rc=1),
        "systemd-detect-virt": answer("none\n", 1),
    }
    files = {path: None if "/apt" in path or "dpkg" in path else text for path, text in capture["files"].items()}
    files |= {
        "/etc/os-release": OS_RELEASE,
        "/proc/sys/kernel/osrelease": f"{kernel}\n",
        "/etc/dnf/plugins/versionlock.list": locks,
        "/etc/dnf/plugins/versionlock.conf": plugin,
        "/boot/grub/grub.cfg": None,
        "/etc/debian_version": None,
    }
    return Capture.model_validate({**capture, "commands": commands, "files": files})
