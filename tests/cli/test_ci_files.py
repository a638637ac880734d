"""What docs/ci.md tells a fleet to copy: the plain script really runs, the workflows are what their formats allow."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from provisioner.actions.plan import goal_of, request_for
from provisioner.cli.main import main
from provisioner.resolve.lock import read_lock
from tests.facts.hosts import CAPTURES

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / "docs" / "ci"
BIN = Path(sys.executable).parent
HOSTS = {"pd-b": "debian-12-bare.json", "pd-c": "debian-13-bare.json"}


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=fleet", "-c", "user.email=fleet@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


class Fleet:
    """A fleet's repository in an otherwise empty folder."""

    def __init__(self, folder: Path, like: Path | None = None) -> None:
        """Made anew, or as a copy of one that was: each test changes its own."""
        self.folder = folder
        self.networks = {"pd-b": "lium", "pd-c": "ionet"}
        self.driver: dict[str, str] = {"pd-b": "535.216.03"}
        if like is None:
            self.make()
        else:
            shutil.copytree(like, folder, dirs_exist_ok=True)

    def make(self) -> None:
        folder = self.folder
        (folder / "captures").mkdir()
        (folder / "inventory").mkdir()
        (folder / "ci").mkdir()
        (folder / "bin").mkdir()
        shutil.copy(CI / "provision-ci.sh", folder / "ci")
        for name in HOSTS.values():
            shutil.copy(CAPTURES / name, folder / "captures")
        provision = folder / "bin" / "provision"
        provision.write_text(f'#!/bin/sh\nexec {sys.executable} -m provisioner.cli "$@"\n', encoding="utf-8")
        provision.chmod(0o755)
        git(folder, "init", "-q", "-b", "main")
        self.resolve()
        self.see_what_a_plan_needs()
        self.commit("a fleet of two")
        git(folder, "checkout", "-q", "-b", "change")

    def resolve(self) -> None:
        hosts: dict[str, dict[str, object]] = {n: {"provision_networks": [w]} for n, w in self.networks.items()}
        for name, driver in self.driver.items():
            hosts[name]["provision_driver"] = driver
        (self.folder / "inventory" / "rigs.yml").write_text(
            yaml.safe_dump({"rigs": {"hosts": hosts}}), encoding="utf-8"
        )
        captures = [word for name in HOSTS.values() for word in ("--capture", str(self.folder / "captures" / name))]
        lock = str(self.folder / "provision.lock")
        assert main(["resolve", "-i", str(self.folder / "inventory"), *captures, "-o", lock]) == 0

    def see_what_a_plan_needs(self) -> None:
        """The recorded hosts were not asked what a plan compares (facts --lock does): a bare host has none of it."""
        lock = read_lock(self.folder / "provision.lock")
        for name, file in HOSTS.items():
            path = self.folder / "captures" / file
            value = json.loads(path.read_text(encoding="utf-8"))
            for wanted in request_for(goal_of(lock.hosts[name], lock.matrix)).files:
                value["files"][wanted] = None
                value["commands"][f"stat -c '%a %U:%G %F' {wanted}"] = {"rc": 1}
            value["commands"]["ls /var/lib/dpkg/updates"] = {"rc": 0}
            path.write_text(json.dumps(value), encoding="utf-8")

    def commit(self, words: str) -> None:
        git(self.folder, "add", "inventory", "captures", "ci", "provision.lock")
        git(self.folder, "commit", "-q", "-m", words)

    def check(self, *words: str) -> tuple[int, str]:
        """Run the script as CI does; return its exit code and the summary."""
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{BIN}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "PROVISION_CONFIG_DIR": str(self.folder / "config"),
            "NO_COLOR": "1",
        }
        done = subprocess.run(
            ["sh", "ci/provision-ci.sh", "main", *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, (self.folder / "ci-report" / "summary.md").read_text(encoding="utf-8") + done.stderr


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No test changes this one."""
    return Fleet(tmp_path_factory.mktemp("fleet")).folder


@pytest.fixture
def fleet(first: Path, tmp_path: Path) -> Fleet:
    return Fleet(tmp_path, first)


def test_a_change_is_checked_from_an_empty_folder(fleet: Fleet) -> None:
    """The lock moves one host; the other is unchanged. --dry-run, for throwaway hosts are in tests/lab."""
    fleet.driver = {}
    fleet.resolve()
    fleet.commit("no longer held at 535.216.03")

    code, summary = fleet.check("--dry-run")

    assert code == 0, summary
    for title in ("the matrix", "the lock is what it should be", "plan against the last captures"):
        assert f"✅ {title}" in summary
    assert "1 stack to rehearse for 1 host" in summary
    assert "driver 535.216.03 → 535.261.03" in summary
    assert "1 unchanged: pd-c" in summary


def test_a_lock_that_was_edited_is_found(fleet: Fleet) -> None:
    lock = fleet.folder / "provision.lock"
    lock.write_text(lock.read_text(encoding="utf-8").replace("535.216.03", "535.216.01"), encoding="utf-8")
    fleet.commit("an edit by hand")

    code, summary = fleet.check("--dry-run")

    assert code == 1
    assert "❌ the lock is what it should be" in summary
    assert "is not what its inventory, captures and matrix resolve to" in summary


def test_a_forgotten_resolve_is_found(fleet: Fleet) -> None:
    fleet.networks["pd-c"] = "akash"
    hosts = {name: {"provision_networks": [network]} for name, network in fleet.networks.items()}
    (fleet.folder / "inventory" / "rigs.yml").write_text(yaml.safe_dump({"rigs": {"hosts": hosts}}), encoding="utf-8")
    fleet.commit("another network, and the lock as it was")

    code, summary = fleet.check("--dry-run")

    assert code == 1
    assert "❌ the lock is what it should be" in summary
    assert "❌ plan against the last captures" in summary


def test_a_repository_without_a_former_lock(fleet: Fleet) -> None:
    """The first pull request of a fleet: every host is new."""
    git(fleet.folder, "checkout", "-q", "--orphan", "empty")
    git(fleet.folder, "rm", "-q", "--cached", "provision.lock")
    git(fleet.folder, "commit", "-q", "-m", "no lock yet")
    git(fleet.folder, "branch", "-q", "-f", "main", "empty")

    code, summary = fleet.check("--dry-run")

    assert code == 0, summary
    assert "2 stacks to rehearse for 2 hosts" in summary


def test_nothing_changed_writes_every_report(fleet: Fleet) -> None:
    """Without --dry-run, and without a lab, for there is nothing to rehearse."""
    code, summary = fleet.check()

    assert code == 0, summary
    assert summary.startswith("### Rehearsal\n\nNothing to rehearse: 2 hosts stay as they are.\n")
    assert {"rehearsal.html", "rehearsal.xml", "plan.txt"} <= {p.name for p in (fleet.folder / "ci-report").iterdir()}


def test_a_summary_is_never_longer_than_a_comment_may_be(fleet: Fleet) -> None:
    """A plan of a large fleet: whole lines are left out, no fence and no fold stays open."""
    provision = fleet.folder / "bin" / "provision"
    long = f'[ "$1" != plan ] || {{ for n in $(seq 300); do echo "line $n {"é" * 300}"; done; exit 0; }}\n'
    provision.write_text(provision.read_text(encoding="utf-8").replace("exec", f"{long}exec"), encoding="utf-8")

    code, summary = fleet.check()

    assert code == 0, summary
    assert len(summary.encode()) < 65536
    assert summary.endswith("Shortened: all of it is in the files of the report.\n")
    assert summary.startswith("### Rehearsal\n")
    assert summary.count("\n```") % 2 == 0
    assert summary.count("<details") == summary.count("</details>")


def test_what_ci_installs_is_named_by_the_fleet_alone() -> None:
    """No bare name of a package: anybody may hold it on an index, and CI runs it as root."""
    lines = (CI / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []
    for file in ("github-workflow.yml", "gitlab-ci.yml"):
        assert "pip install -r ci/requirements.txt" in (CI / file).read_text(encoding="utf-8")


@pytest.mark.tools
@pytest.mark.parametrize(
    ("file", "schema"),
    [
        ("github-workflow.yml", ("vendor.github-workflows",)),
        ("gitlab-ci.yml", ("vendor.gitlab-ci", "--data-transform", "gitlab-ci")),
    ],
)
def test_the_workflow_files_fit_the_published_schemas(file: str, schema: tuple[str, ...]) -> None:
    tool = shutil.which("check-jsonschema", path=f"{BIN}:{os.environ['PATH']}")
    if tool is None:
        pytest.skip("check-jsonschema is not installed")
    done = subprocess.run(
        [tool, "--builtin-schema", *schema, str(CI / file)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", ["github-workflow.yml", "gitlab-ci.yml"])
def test_the_workflows_run_the_plain_script(file: str) -> None:
    """Both check the same; and no value of a pull request is put into a shell line."""
    text = (CI / file).read_text(encoding="utf-8")

    assert text.count("sh ci/provision-ci.sh ") == 1
    assert re.findall(r"run:.*\$\{\{", text) == []


def test_the_page_names_files_that_are_there() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", page)

    assert {f"ci/{path.name}" for path in CI.iterdir()} <= set(links)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
