"""Checks of packages on RHEL-likes: the looks with an rpm and a dnf that print what real ones printed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from provisioner.checks import packages
from provisioner.checks.check import Seen, Verdict
from provisioner.checks.packages import AUDIT, CHECKS, INSTALLED, UPGRADE
from provisioner.model.stack import Choice, HostLock
from tests.dnf_world import RECORDED
from tests.world import entry, locked

BY_ID = {check.id: check for check in CHECKS}
EVR = "3:580.95.05-1.el9"
NAMES = ("nvidia-driver-cuda", "libnvidia-ml", "kmod-nvidia-open-dkms")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder of programs: those of a minimal system but for dpkg, and an rpm that prints the recorded list."""
    for name in ("awk", "sort", "grep", "printf", "uniq", "timeout", "tail", "cat", "sh"):
        found = next(Path(folder, name) for folder in ("/usr/bin", "/bin") if Path(folder, name).exists())
        (tmp_path / name).symlink_to(found)
    rows = ""
    for line in (RECORDED / "installed.txt").read_text(encoding="utf-8").splitlines():
        name, version, _ = line.split("\t")
        rows += f"{name}\t{version}\t{name}-{version if ':' in version else '0:' + version}.*\n"
    (tmp_path / "rows").write_text(rows, encoding="utf-8")
    program(tmp_path, "rpm", f"case $* in *ARCH*) cut -f 1 {tmp_path}/rows ;; *) cat {tmp_path}/rows ;; esac")
    (tmp_path / "cut").symlink_to("/usr/bin/cut")
    program(tmp_path, "dnf", "echo 'Nothing to do.'")
    (tmp_path / "versionlock.list").write_text("".join(f"{name}-{EVR}.*\n" for name in NAMES), encoding="utf-8")
    (tmp_path / "versionlock.conf").write_text("[main]\nenabled = 1\n", encoding="utf-8")
    return tmp_path


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


def wanted() -> HostLock:
    driver = Choice(value="580.95.05")
    return entry(os="rocky-9", driver_version=driver, packages=tuple(locked(name, EVR) for name in NAMES))


def look(host: Path, text: str) -> Seen:
    script = text.replace("/etc/dnf/plugins/", f"{host}/")
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=False, env={**os.environ, "PATH": str(host)}
    )
    return Seen(done.returncode, done.stdout, done.stderr)


def made(check: str, host: Path) -> Verdict:
    return BY_ID[check].make(wanted(), tuple(look(host, text) for text in BY_ID[check].looks))


def test_a_host_that_is_as_locked(host: Path) -> None:
    told = {check.id: made(check.id, host).status for check in CHECKS}
    assert told == {
        "packages-version": "passed",
        "packages-held": "passed",
        "packages-pinned": "not-applicable",
        "upgrade-leaves": "passed",
        "unattended-upgrades": "not-applicable",
        "packages-whole": "passed",
        "dpkg-finished": "not-applicable",
        "dpkg-free": "not-applicable",
        "one-driver": "passed",
    }


def test_another_version_is_seen(host: Path) -> None:
    rows = (host / "rows").read_text(encoding="utf-8").replace(f"libnvidia-ml\t{EVR}", "libnvidia-ml\t3:590.1-1.el9")
    (host / "rows").write_text(rows, encoding="utf-8")
    verdict = made("packages-version", host)
    assert (verdict.status, verdict.detail) == ("failed", f"libnvidia-ml 3:590.1-1.el9, lock {EVR}")


@pytest.mark.parametrize("conf", ["[main]\nenabled = 0\n", None])
def test_a_version_lock_that_is_not_read_holds_nothing(host: Path, conf: str | None) -> None:
    (host / "versionlock.conf").unlink()
    if conf is not None:
        (host / "versionlock.conf").write_text(conf, encoding="utf-8")
    assert made("packages-held", host).status == "failed"


def test_an_entry_that_is_gone_is_seen(host: Path) -> None:
    (host / "versionlock.list").write_text(f"libnvidia-ml-{EVR}.*\n", encoding="utf-8")
    assert made("packages-held", host).detail == "not held: nvidia-driver-cuda, kmod-nvidia-open-dkms"


def test_what_an_upgrade_would_do_is_read_from_dnfs_own_table(host: Path) -> None:
    program(host, "dnf", f"cat {RECORDED / 'upgrade.txt'}; exit 1")
    verdict = made("upgrade-leaves", host)
    assert verdict.status == "failed"
    assert verdict.detail.startswith("dnf upgrade would install kmod-nvidia-open-dkms")
    program(host, "dnf", "echo 'Error: Failed to download metadata' >&2; exit 1")
    assert made("upgrade-leaves", host).status == "unknown"


def test_a_package_that_is_there_twice_is_half_a_transaction(host: Path) -> None:
    rows = (host / "rows").read_text(encoding="utf-8")
    (host / "rows").write_text(
        f"{rows}dkms\t3.2.0-1.el9\tdkms-0:3.2.0-1.el9.*\nkernel-core\t5-1\tx\n", encoding="utf-8"
    )
    verdict = made("packages-whole", host)
    assert verdict.status == "failed"
    assert verdict.detail == "installed in two versions: dkms"


def test_looks_are_those_of_the_table() -> None:
    assert {INSTALLED, AUDIT, UPGRADE} <= {text for check in packages.CHECKS for text in check.looks}
