"""The program that keeps what a run replaces, as it stands in a run of a RHEL-like: rpm and dnf answer from a table."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from provisioner.model.history import Record
from provisioner.model.transaction import rpm_name
from provisioner.resources.undo import undo

RENDER = Path(__file__).parents[2] / "provisioner" / "render"
PROGRAM = "\n\n".join((RENDER / name).read_text(encoding="utf-8") for name in ("keep.py", "keep_rpm.py"))
OLD = "3:580.95.05-1.el9"
RPM = "nvidia-driver-cuda-580.95.05-1.el9.x86_64.rpm"


class Host:
    """A folder for the state, and what rpm and dnf say; a file is the package that its name says."""

    def __init__(self, root: Path) -> None:
        self.state = root / "state"
        self.locks = root / "versionlock.list"
        self.locks.write_text(f"nvidia-driver-cuda-{OLD}.*\n", encoding="utf-8")
        self.offered: set[str] = set()
        self.damaged: set[str] = set()
        self.program: dict[str, Any] = {"__name__": "kept"}
        exec(compile(PROGRAM, "keep.py", "exec"), self.program)
        self.program |= {
            "STATE": str(self.state),
            "LOCKS": str(self.locks),
            "SPARE": 0,
            "output": self.output,
            "download": self.download,
            "loaded_driver": lambda: None,
        }

    def output(self, *argv: str) -> str:
        if argv[:2] == ("rpm", "-qa"):
            return f"nvidia-driver-cuda\t{OLD}\tx86_64\t100\nrunc\t1.2.5-2.el9\tx86_64\t50\n"
        if argv[:2] == ("rpm", "--checksig"):
            return "" if Path(argv[-1]).name in self.damaged else "digests OK\n"
        if argv[:2] == ("rpm", "-qp"):
            return f"nvidia-driver-cuda {OLD}" if Path(argv[-1]).name == RPM else ""
        return ""

    def download(self, packages: dict[str, Any], folder: str) -> list[str]:
        for name in packages:
            if name in self.offered:
                Path(folder, RPM).write_text("downloaded", encoding="utf-8")
        return [name for name in packages if name in self.offered]

    def keep(self, run: str) -> Record:
        self.program["main"](
            {
                "run": run,
                "to": {"nvidia-driver-cuda": "3:580.159.03-1.el9", "dkms": "3.2.1-1.el9"},
                "packages": {"nvidia-driver-cuda": "driver", "dkms": "other"},
                "replaced": ["nvidia-driver-cuda"],
                "files": {str(self.locks): {"initramfs": False, "pins": True, "restarts": []}},
                "units": {},
                "most": 3,
                "limit": 1 << 30,
                "staged": 0,
            }
        )
        return Record.model_validate_json((self.state / "history" / run / "record.json").read_text(encoding="utf-8"))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_what_the_change_before_put_by_is_kept(host: Host) -> None:
    (host.state / "rpms").mkdir(parents=True)
    (host.state / "rpms" / RPM).write_text("put by", encoding="utf-8")
    record = host.keep("r1")
    kept = record.packages["nvidia-driver-cuda"]
    assert record.manager == "dnf"
    assert (kept.version, kept.held, kept.architecture) == (OLD, True, "x86_64")
    assert record.packages["dkms"].version is None
    assert (host.state / "history" / "r1" / "rpms" / RPM).read_text(encoding="utf-8") == "put by"


def test_the_way_back_names_the_kept_file(host: Host) -> None:
    host.offered.add("nvidia-driver-cuda")
    found = {resource.key: resource for resource in undo([host.keep("r1")], ())}
    package = found["package nvidia-driver-cuda"]
    assert package.archive == f"/var/lib/provision/history/r1/rpms/{RPM}"  # type: ignore[union-attr]
    assert "dpkg state" not in found
    assert rpm_name("nvidia-driver-cuda", OLD, "x86_64") == RPM


def test_a_damaged_file_is_none(host: Host) -> None:
    (host.state / "rpms").mkdir(parents=True)
    (host.state / "rpms" / RPM).write_text("half", encoding="utf-8")
    host.damaged.add(RPM)
    host.offered.add("nvidia-driver-cuda")
    host.keep("r1")
    assert (host.state / "history" / "r1" / "rpms" / RPM).read_text(encoding="utf-8") == "downloaded"


def test_without_a_way_back_it_ends_and_leaves_no_record(host: Host) -> None:
    with pytest.raises(SystemExit, match=f"there would be no way back: .*{RPM}"):
        host.keep("r1")
    assert not (host.state / "history" / "r1" / "record.json").exists()


def test_a_run_that_takes_over_goes_on_from_the_first_state(host: Host) -> None:
    host.offered.add("nvidia-driver-cuda")
    host.keep("r1")
    host.offered.clear()
    record = host.keep("r2")
    assert (record.began, record.run) == ("r1", "r2")
    assert record.packages["nvidia-driver-cuda"].version == OLD


def test_a_record_of_before_there_was_another_manager_is_of_apt(host: Host) -> None:
    host.offered.add("nvidia-driver-cuda")
    data = json.loads(host.keep("r1").model_dump_json(by_alias=True))
    del data["manager"]
    assert Record.model_validate(data).manager == "apt"


@pytest.mark.parametrize("path", ["render/keep_rpm.py", "probe/dnf_offers.py"])
def test_source_is_python_36(path: str) -> None:
    """RHEL 8 has no newer one of its own."""
    ast.parse((RENDER.parent / path).read_text(encoding="utf-8"), feature_version=(3, 6))
