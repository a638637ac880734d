"""A planted secret is nowhere afterwards but in its file: not in plan, project, logs, capture or attestation."""

from __future__ import annotations

import json
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from provisioner.actions.plan import make_plan
from provisioner.cli.views.plan import plan_json, plan_text
from provisioner.model.capture import CommandOutput
from provisioner.model.intent import Intent, SecretSource
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import HostPlan
from provisioner.model.stack import Lock
from provisioner.plan.order import host_plan
from provisioner.probe.payload import BOOTSTRAP, capture_from, payload
from provisioner.probe.request import Profile, Request
from provisioner.render.project import project
from provisioner.resources.difference import difference
from provisioner.resources.wanted import wanted
from tests import world
from tests.enrolments import record

MARK = "planted-7f3a9c-secret"
USER = pwd.getpwuid(os.getuid()).pw_name
FROM_VARIABLE = SecretSource(network="lium", name="hotkey", variable="lium_hotkey")
FROM_ENV = SecretSource(network="vast-ai", name="api-key", env="VAST_API_KEY")


def planned_for(*sources: SecretSource) -> HostPlan:
    """The plan of a host that has everything but these secrets."""
    lock = world.entry(intent=Intent(networks=("akash",), secrets=sources))
    capture = world.fitting_capture(lock)
    absent = {f"stat -c '%a %U:%G %F' {one.file}": CommandOutput(rc=1, stderr="No such file\n") for one in sources}
    capture = capture.model_copy(update={"commands": {**capture.commands, **absent}})
    differences = difference(wanted(lock), world.fitting_facts(lock), capture)
    return host_plan("rig-01", lock, differences, enrolled=False)


def seen_secret(line: str) -> list[str]:
    lock = world.entry(intent=Intent(secrets=(FROM_VARIABLE,)))
    capture = world.fitting_capture(lock)
    command = f"stat -c '%a %U:%G %F' {FROM_VARIABLE.file}"
    capture = capture.model_copy(
        update={
            "commands": {**capture.commands, command: capture.commands[command].model_copy(update={"stdout": line})}
        }
    )
    return [d.wanted.key for d in difference(wanted(lock), world.fitting_facts(lock), capture)]


def test_mode_and_owner_are_compared_and_nothing_else() -> None:
    """A wallet file that others can read is put right."""
    assert seen_secret("600 root:root regular file\n") == []
    assert seen_secret("644 root:root regular file\n") == [f"secret {FROM_VARIABLE.file}"]
    assert seen_secret("600 lium:root regular file\n") == [f"secret {FROM_VARIABLE.file}"]


def test_the_rendered_run_names_the_variable(tmp_path: Path) -> None:
    """Every file of the project, and the plan as text and JSON, is free of the value; its task says no_log."""
    plan = planned_for(FROM_VARIABLE, FROM_ENV)
    variables = {"rig-01": {"ansible_host": "192.0.2.1", "lium_hotkey": MARK}}
    run = project([plan], variables, run="r1", made_by="0.1.0", made_at="2026-11-24T03:07:00Z")

    assert not [name for name, text in run.files.items() if MARK in text]
    assert MARK not in plan.model_dump_json()
    text = run.files["group_1.yml"]
    assert '"{{ lium_hotkey }}\\n"' in text
    assert "\"{{ lookup('ansible.builtin.env', 'VAST_API_KEY') }}\\n\"" in text
    assert text.count("no_log: true") == 2


def test_a_real_run_shows_it_nowhere(tmp_path: Path) -> None:
    """ansible-playbook at its most talkative: the file has the value, and nothing that was said has."""
    target = tmp_path / "host"
    target.mkdir()
    sources = (
        SecretSource(network="lium", name="hotkey", variable="lium_hotkey", path=f"{target}/hotkey", owner=USER),
        SecretSource(network="vast-ai", name="api-key", env="VAST_API_KEY", path=f"{target}/api-key", owner=USER),
    )
    plan = planned_for(*sources)
    plan = plan.model_copy(
        update={
            "changes": tuple(c for c in plan.changes if c.wanted.kind == "secret-file"),
            "drain": (),
            "reboot": False,
        }
    )
    variables = {"rig-01": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
    run = project([plan], variables, run="r1", made_by="0.1.0", made_at="2026-11-24T03:07:00Z")
    folder = tmp_path / "run"
    for name, text in run.files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.replace("become: true", "become: false"))
    vault = tmp_path / "inventory"
    (vault / "host_vars").mkdir(parents=True)
    (vault / "hosts.yml").write_text("all: {hosts: {rig-01: {}}}\n")
    (vault / "host_vars" / "rig-01.yml").write_text(f"lium_hotkey: {MARK}\n")
    done = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            *("-vvvv", "--diff", "-i", vault / "hosts.yml", "-i", "inventory.yml", "group_1.yml"),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "VAST_API_KEY": f"{MARK}-2", "ANSIBLE_LOG_PATH": str(tmp_path / "log")},
    )

    assert done.returncode == 0, done.stdout[-2000:]
    assert (target / "hotkey").read_text() == f"{MARK}\n"
    assert (target / "api-key").read_text() == f"{MARK}-2\n"
    assert {stat.S_IMODE((target / name).stat().st_mode) for name in ("hotkey", "api-key")} == {0o600}
    assert MARK not in done.stdout + done.stderr
    assert MARK not in (tmp_path / "log").read_text()
    assert not [path for path in folder.rglob("*") if path.is_file() and MARK in path.read_text(errors="replace")]


def test_a_capture_tells_its_mode_and_not_its_text(tmp_path: Path) -> None:
    """The real probe, asked as a plan asks."""
    file = tmp_path / "hotkey"
    file.write_text(MARK)
    file.chmod(0o600)
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", BOOTSTRAP],
        input=payload(Request(Profile(), stats=(str(file),))),
        capture_output=True,
        check=True,
    )
    capture = capture_from(done.stdout, "rig-01", world.WHEN)

    assert capture.command(f"stat -c '%a %U:%G %F' {file}").stdout.startswith("600 ")  # type: ignore[union-attr]
    assert MARK not in capture.model_dump_json()
    assert MARK.encode() not in done.stdout


def test_an_attestation_has_no_place_for_it() -> None:
    """What is signed names networks and versions; intent and secrets are not in it."""
    statement = json.loads(record().payload)
    assert set(statement["predicate"]) == {
        *("format", "host", "bound_to", "lock_digest", "matrix_digest", "networks", "stack", "run", "made_by"),
        *("checks", "enrolled_at", "expires_at"),
    }


@pytest.mark.parametrize(
    ("source", "sources", "said"),
    [
        (FROM_VARIABLE, ("hosts.yml",), "lium hotkey: the inventory has no variable lium_hotkey for rig-01"),
        (FROM_VARIABLE, (), "lium hotkey: variable lium_hotkey needs an inventory (-i); use env here"),
        (FROM_ENV, ("hosts.yml",), "vast-ai api-key: the environment has no VAST_API_KEY"),
    ],
)
def test_a_secret_that_is_missing(source: SecretSource, sources: tuple[str, ...], said: str) -> None:
    """Told before anything is looked at or changed, and it is that host's own failure."""
    intent = Intent(networks=("akash",), secrets=(source,))
    lock = Lock(made_by="x", matrix="m", hosts={"rig-01": world.entry(intent=intent)})

    class Nobody:
        def probe(self, hosts, requests):  # type: ignore[no-untyped-def]
            assert hosts == []
            return {}

        def now(self):  # type: ignore[no-untyped-def]
            return world.WHEN

        def verifies(self, record):  # type: ignore[no-untyped-def]
            return None

    found = make_plan(
        [InventoryHost("rig-01", {}, intent)],
        lock,
        prober=Nobody(),
        clock=Nobody(),
        signatures=Nobody(),
        sources=sources,
    )
    problem = found.failed["rig-01"]
    assert (problem.reference, problem.context) == ("secret-missing", (said,))
    assert "secret-missing" in plan_json(found.plan)
    assert said in plan_text(found, seconds=0.1, lock="provision.lock", next_command="x")


@pytest.mark.parametrize(
    "values",
    [
        {"variable": "a", "env": "b"},
        {},
        {"variable": "provision_networks"},
        {"variable": "a; id"},
        {"env": "A')}} {{x"},
        {"variable": "a", "path": "relative"},
        {"variable": "a", "path": "/etc/x y"},
        {"variable": "a", "owner": "Root:"},
    ],
)
def test_what_is_no_source(values: dict[str, str]) -> None:
    """Words that end up in a template are names, nothing else."""
    with pytest.raises(ValueError):
        SecretSource.model_validate({"network": "lium", "name": "hotkey", **values})
