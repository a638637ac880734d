"""The program that keeps what a run replaces, with a host of files and a dpkg that answers from a table."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from provisioner.model.history import Record
from provisioner.render import keep

DEB = "nvidia-smi_535.216.03-1_amd64.deb"


class Host:
    """A folder for the state, apt's cache beside it, and what dpkg and apt say."""

    def __init__(self, root: Path, program: ModuleType) -> None:
        self.root = root
        self.program = program
        self.installed = {"nvidia-smi": ("535.216.03-1", "hi "), "runc": ("1.1.5", "ii ")}
        self.auto = ["runc"]
        self.offered: dict[str, str] = {}
        self.calls: list[tuple[str, ...]] = []
        self.history = root / "state" / "history"
        (root / "archives").mkdir()

    def output(self, *argv: str) -> str:
        self.calls.append(argv)
        if argv[:2] == ("dpkg-query", "-W"):
            rows = [(name, version, "amd64", status, "100") for name, (version, status) in self.installed.items()]
            return "".join("\t".join(row) + "\n" for row in rows)
        if argv[0] == "dpkg-deb":
            return Path(argv[2]).name.split("_")[1].replace("%3a", ":") + "\n"
        if argv[:2] == ("apt-mark", "showauto"):
            return "\n".join(self.auto)
        if argv[0] == "systemctl":
            return "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n"
        return ""

    def cached(self, name: str = DEB, text: str = "an archive") -> Path:
        path = self.root / "archives" / name
        path.write_text(text)
        return path

    def keep(self, run: str, **more: Any) -> Record:
        spec: dict[str, Any] = {
            "run": run,
            "to": {"nvidia-smi": "535.261.03-1", "libfoo1": "1"},
            "packages": {"nvidia-smi": "driver", "libfoo1": "other"},
            "replaced": ["nvidia-smi"],
            "files": {},
            "units": {},
            "most": 3,
            "limit": 1 << 30,
            "staged": 0,
        }
        self.program.main({**spec, **more})
        return Record.model_validate_json((self.history / run / "record.json").read_text())

    def end(self, run: str) -> None:
        (self.history / run / "done").touch()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path, keep)
    monkeypatch.setattr(keep, "STATE", str(tmp_path / "state"))
    monkeypatch.setattr(keep, "ARCHIVES", str(tmp_path / "archives"))
    monkeypatch.setattr(keep, "SPARE", 0)
    monkeypatch.setattr(keep, "output", found.output)
    monkeypatch.setattr(keep, "loaded_driver", lambda: {"version": "535.216.03", "flavour": "proprietary"})
    before = os.umask(0o022)
    yield found  # type: ignore[misc]
    os.umask(before)


def test_a_record_of_what_is_there(host: Host) -> None:
    """Version, hold and archive of what is replaced; what comes newly was not there; for root alone."""
    archive = host.cached()
    record = host.keep("r1")

    smi = record.packages["nvidia-smi"]
    assert (smi.version, smi.held, smi.unit) == ("535.216.03-1", True, "driver")
    assert record.packages["libfoo1"].version is None
    assert (host.history / "r1" / "debs" / DEB).stat().st_ino == archive.stat().st_ino, "linked, not copied"
    assert record.driver is not None and record.driver.version == "535.216.03"
    assert host.history.stat().st_mode & 0o777 == 0o700


def test_files_and_units_as_they_are(host: Host, tmp_path: Path) -> None:
    """A copy with mode and owner; a file that is not there is remembered as not there."""
    path = tmp_path / "daemon.json"
    path.write_text('{"token": "x"}')
    path.chmod(0o640)
    host.cached()
    traits = {"initramfs": False, "pins": False, "restarts": ["docker.service"]}
    files = {str(path): traits, str(tmp_path / "gone"): traits}
    record = host.keep("r1", files=files, units={"docker.service": {"after_reboot": False}})

    assert record.files[str(path)].mode == "0640"
    assert (host.history / f"r1/files{path}").read_text() == '{"token": "x"}'
    assert record.files[str(tmp_path / "gone")].sha256 is None
    assert record.units["docker.service"].enabled and record.units["docker.service"].active


def test_an_unfinished_change_is_taken_over(host: Host) -> None:
    """The second run finds half of the new packages; what the first one found stays the state to go back to."""
    host.cached()
    host.keep("r1")
    host.installed["nvidia-smi"] = ("535.261.03-1", "hi ")
    host.installed["libfoo1"] = ("1", "ii ")
    record = host.keep("r2", packages={"nvidia-smi": "driver", "libfoo1": "other", "runc": "runtime"}, replaced=[])

    assert (record.run, record.began) == ("r2", "r1")
    assert not (host.history / "r1").exists()
    assert record.packages["nvidia-smi"].version == "535.216.03-1"
    assert record.packages["libfoo1"].version is None
    assert record.packages["runc"].version == "1.1.5"
    assert (host.history / "r2" / "debs" / DEB).exists()


@pytest.mark.parametrize("text", ["", '{"run": "r1", "pack', "[]", "{}"])
def test_an_unfinished_change_that_cannot_be_read_is_not_begun_anew(host: Host, text: str) -> None:
    """The state between would pass for the good one: the run ends before it changes anything, and says what to do."""
    host.cached()
    host.keep("r1")
    (host.history / "r1" / "record.json").write_text(text)
    with pytest.raises(SystemExit) as refused:
        host.keep("r2")

    assert str(refused.value).startswith(f"{host.history}/r2/record.json cannot be read")
    assert f"sudo mv {host.history}/r2 /root/" in str(refused.value)
    assert (host.history / "r2" / "record.json").read_text() == text


def test_a_finished_one_is_not(host: Host) -> None:
    """After a good end the next change has a record of its own, with the stack of that time."""
    host.cached()
    host.keep("r1")
    host.end("r1")
    (host.history / "now.json").write_text(json.dumps(None))
    host.keep("r2")

    assert sorted(p.name for p in host.history.iterdir()) == ["now.json", "r1", "r2"]


def test_again_is_the_same(host: Host) -> None:
    """The playbook may be run by hand a second time."""
    host.cached()
    first = host.keep("r1")

    assert host.keep("r1").packages == first.packages


def test_only_the_last_changes_stay(host: Host) -> None:
    """With three to keep, the fourth takes the oldest away, before it takes room of its own."""
    host.cached()
    for number in range(1, 6):
        host.keep(f"r{number}")
        host.end(f"r{number}")

    assert sorted(p.name for p in host.history.iterdir()) == ["r3", "r4", "r5"]


def test_bounded_in_bytes(host: Host) -> None:
    """Old changes make room; a single one that is larger than the bound ends the run, before anything is changed."""
    host.cached(text="x" * 1000)
    host.keep("r1", limit=10_000)
    host.end("r1")
    host.installed["nvidia-smi"] = ("535.261.03-1", "ii ")
    host.cached(DEB.replace("216", "261"), "y" * 1000)
    host.keep("r2", limit=2100)
    host.end("r2")
    assert sorted(p.name for p in host.history.iterdir()) == ["r2"]
    host.installed["nvidia-smi"] = ("535.309.01-1", "ii ")
    host.cached(DEB.replace("216.03", "309.01"), "z" * 1000)
    with pytest.raises(SystemExit, match=r"provision_policy\.history_mib"):
        host.keep("r3", limit=900)


def test_a_full_disk_is_seen_before(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be kept and what is to be downloaded must both fit, with room for the change itself."""
    host.cached()
    monkeypatch.setattr(keep, "SPARE", 1 << 60)
    with pytest.raises(SystemExit, match="MB free"):
        host.keep("r1")

    assert not (host.history / "r1" / "record.json").exists()


def test_what_was_cut_short_is_cleared(host: Host) -> None:
    """A run that died before it had a record leaves nothing that counts."""
    (host.history / "r0" / "debs").mkdir(parents=True)
    host.cached()
    host.keep("r1")

    assert not (host.history / "r0").exists()


def test_an_archive_of_another_version_is_no_archive(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """When neither the cache nor the sources have it, the archive is made from what is installed."""
    made = []

    def repack(name: str, package: dict[str, Any], target: str) -> None:
        made.append(name)
        Path(target).write_text("made")

    monkeypatch.setattr(keep, "repack", repack)
    record = host.keep("r1")

    assert made == ["nvidia-smi"]
    assert record.packages["nvidia-smi"].sha256 is not None


def test_made_from_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By dpkg itself, from its own records: same version, same files, folders that others may read.

    Where /usr is merged, /lib is a link of the host and a folder of the package.
    """
    if os.geteuid() != 0:
        monkeypatch.setattr(os, "chown", lambda *_: None)

    def dpkg(*argv: str) -> str:
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    version = dpkg("dpkg-query", "-W", "-f", "${Version}", "dpkg")
    target = tmp_path / "debs" / "made.deb"
    target.parent.mkdir()
    before = os.umask(0o077)  # as the program itself has it
    try:
        keep.repack("dpkg", {"version": version}, str(target))
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)

    assert dpkg("dpkg-deb", "--field", str(target), "Version").strip() == version
    rows = [line.split() for line in dpkg("dpkg-deb", "--contents", str(target)).splitlines()]
    modes = {row[5]: row[0] for row in rows}
    assert modes["./"] == modes["./usr/"] == modes["./usr/bin/"] == "drwxr-xr-x"
    assert modes["./usr/bin/dpkg"] == "-rwxr-xr-x"
    listed = {p for p in dpkg("dpkg-query", "-L", "dpkg").splitlines() if p != "/." and os.path.lexists(p)}
    assert {name.lstrip(".").rstrip("/") for name in modes} - {""} == listed
    scripts = tmp_path / "control"
    dpkg("dpkg-deb", "--control", str(target), str(scripts))
    assert oct((scripts / "postinst").stat().st_mode & 0o777) == "0o755"
    assert list(target.parent.iterdir()) == [target]
