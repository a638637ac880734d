"""What a failed task had to say is told in the order that helps."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from provisioner.adapters.runner import AnsibleRunner, printed
from provisioner.errors import ProvisionError
from provisioner.model.run import HostOutcome
from provisioner.render.project import Group, Project


class Playbooks(AnsibleRunner):
    """Groups that end when a test says so."""

    def __init__(self, *names: str) -> None:
        super().__init__({})
        self.project = Project({}, tuple(Group(name, f"{name}.yml", (f"rig-{name}",)) for name in names))
        self.may_end = {name: threading.Event() for name in names}
        self.told: list[tuple[str, ...]] = []

    def _group(self, folder: Path, group: Group, *rest: object) -> None:
        assert self.may_end[group.name].wait(10)

    def go(self, first: str, then: str, trouble: ProvisionError | None = None) -> dict[str, HostOutcome]:
        """`first` ends, and the other one only when the first was told of."""

        def on_done(outcomes: Mapping[str, HostOutcome]) -> None:
            self.told.append(tuple(outcomes))
            self.may_end[then].set()
            if trouble is not None:
                raise trouble

        self.may_end[first].set()
        return self.run(Path(), self.project, sources=(), on_event=lambda event: None, on_done=on_done)


def test_a_group_that_has_ended_is_told_while_others_run() -> None:
    """In the order in which they end, each host once."""
    playbooks = Playbooks("a", "b")
    outcomes = playbooks.go("b", "a")

    assert playbooks.told == [("rig-b",), ("rig-a",)]
    assert sorted(outcomes) == ["rig-a", "rig-b"]


def test_trouble_with_one_group_does_not_cut_off_the_others() -> None:
    """It is raised when all have ended."""
    playbooks = Playbooks("a", "b")
    with pytest.raises(ProvisionError, match="no"):
        playbooks.go("a", "b", ProvisionError("x", "no"))

    assert playbooks.told == [("rig-a",)]
    assert playbooks.may_end["b"].is_set()


def test_errors_come_before_the_end_of_the_output() -> None:
    """apt prints the failed download to stderr and fifty good ones to stdout: the failed one is told first."""
    result = {
        "msg": "non-zero return code",
        "stderr": "E: Failed to fetch nvidia-modprobe.deb  404  Not Found\nE: Some files failed to download\n",
        "stdout": "".join(f"Get:{n} package\n" for n in range(50)),
    }

    assert printed(result).splitlines() == [
        "non-zero return code",
        "E: Failed to fetch nvidia-modprobe.deb  404  Not Found",
        "E: Some files failed to download",
        *(f"Get:{n} package" for n in range(44, 50)),
    ]


def test_nothing_is_told_twice() -> None:
    """Modules repeat stderr in their message; a line stands there once."""
    assert printed({"msg": "dpkg was interrupted", "stderr": "dpkg was interrupted\n"}) == "dpkg was interrupted"


def test_the_reason_that_dpkg_gives_in_the_middle_is_told() -> None:
    """As apt 2.6 printed it when the disk was full: the end of the output only names the archive."""
    output = [
        "Unpacking nvidia-kernel-dkms (535.261.03-1) over (535.216.03-2~bpo12+1) ...",
        "dpkg: error processing archive /tmp/apt-dpkg-install-t/14-firmware_535.261.03-1_amd64.deb (--unpack):",
        " cannot copy extracted data for './lib/x' to '/lib/x.dpkg-new': failed to write (No space left on device)",
        "dpkg-deb: error: paste subprocess was killed by signal (Broken pipe)",
        *(f"Unpacking package {number} ..." for number in range(8)),
        "Errors were encountered while processing:",
        " /tmp/apt-dpkg-install-t/14-firmware_535.261.03-1_amd64.deb",
    ]
    said = printed({"stderr": "E: Sub-process /usr/bin/dpkg returned an error code (1)", "stdout": "\n".join(output)})

    assert said.splitlines() == [
        "E: Sub-process /usr/bin/dpkg returned an error code (1)",
        output[1],
        output[2],
        *output[-6:],
    ]


def test_the_environment_is_in_no_file_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a real run, while the playbook runs and afterwards; the playbook itself has it."""
    monkeypatch.setenv("RIG_TOKEN", "planted-token")
    tasks = [
        {
            "name": "Look",
            "ansible.builtin.shell": 'test "$RIG_TOKEN" = planted-token && ! grep -rlF planted-token artifacts',
            "args": {"chdir": str(tmp_path)},
        }
    ]
    play = {"name": "Look", "hosts": "rig-a", "gather_facts": False, "tasks": tasks}
    (tmp_path / "a.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    hosts = {"rig-a": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}), encoding="utf-8")
    (tmp_path / "ansible.cfg").write_text("", encoding="utf-8")
    runner = AnsibleRunner({})
    project = Project({}, (Group("a", "a.yml", ("rig-a",)),))

    outcomes = runner.run(tmp_path, project, sources=(), on_event=lambda event: None)

    assert outcomes["rig-a"].ok, outcomes["rig-a"].detail
    command = json.loads((tmp_path / "artifacts" / "a" / "command").read_text(encoding="utf-8"))
    assert sorted(command) == ["command", "cwd"] and "a.yml" in command["command"]
