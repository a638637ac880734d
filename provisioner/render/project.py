"""Plan → a folder that plain ansible-playbook runs: one playbook per distinct plan, inventory, files. Pure text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from provisioner.host.programs import CLIENT
from provisioner.model.paths import data_dir
from provisioner.model.plan import Change, DrainStep, HostPlan, Phase
from provisioner.model.resource import (
    Directory,
    File,
    KernelModule,
    Package,
    Service,
    Settings,
    WholePackages,
)
from provisioner.model.units import megabytes
from provisioner.render.templates import fill

RUNS_ON_HOST = "/var/lib/provision/runs"


@dataclass(frozen=True)
class Group:
    """Hosts with the same plan, and the playbook they share."""

    name: str
    playbook: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Project:
    """Relative path → text, and the groups in order."""

    files: Mapping[str, str]
    groups: tuple[Group, ...]


def project(
    plans: Iterable[HostPlan],
    variables: Mapping[str, Mapping[str, Any]],
    *,
    run: str,
    made_by: str,
    made_at: str,
) -> Project:
    """Return the whole rendered run. `variables` are each host's; those of the connection go into its inventory."""
    alike: dict[str, list[HostPlan]] = {}
    for plan in plans:
        alike.setdefault(_fingerprint(plan), []).append(plan)
    files: dict[str, str] = {}
    groups = []
    for number, members in enumerate(alike.values(), start=1):
        name = f"group_{number}"
        group = Group(name, f"{name}.yml", tuple(plan.host for plan in members))
        groups.append(group)
        files |= _playbook(group, members[0], run=run, made_by=made_by, made_at=made_at)
    files["site.yml"] = _site(groups)
    files["inventory.yml"] = _inventory(groups, variables)
    for name in ("ansible.cfg", "drain.yml", "reboot.yml"):
        files[name] = (data_dir("playbooks") / name).read_text(encoding="utf-8")
    return Project(files, tuple(groups))


def _fingerprint(plan: HostPlan) -> str:
    same = plan.model_dump(mode="json", include={"changes", "drain", "drains", "reboot"})
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def _playbook(group: Group, plan: HostPlan, *, run: str, made_by: str, made_at: str) -> dict[str, str]:
    files: dict[str, str] = {}
    plays = [
        _play("stage", _stage(plan, group.name, run, files)),
        {"title": TITLES["drain"], "static": "drain.yml", "drains": _drains(plan)} if plan.drain else None,
        _play("change", _change(plan, group.name, files)),
        {"title": TITLES["reboot"], "static": "reboot.yml", "drains": []} if plan.reboot else None,
        _play("ready", [_service(c) for c in plan.in_phase("reboot") if isinstance(c.wanted, Service)]),
    ]
    text = fill(
        "playbook.yml.j2",
        title=f"What {', '.join(group.hosts)} needs"
        if len(group.hosts) == 1
        else f"What {len(group.hosts)} hosts need",
        made_by=made_by,
        made_at=made_at,
        hosts=group.hosts,
        file=group.playbook,
        group=group.name,
        plays=[play for play in plays if play is not None],
    )
    files[group.playbook] = text + "\n"
    return files


TITLES = {
    "stage": "Stage while serving",
    "drain": "Drain the clients",
    "change": "Change the host",
    "reboot": "Reboot into the new driver",
    "ready": "Start what needs the driver",
}
"""Names of the plays; those of drain and reboot stand in playbooks/ too."""

PHASES_OF_PLAYS: dict[str, Phase] = {
    TITLES["stage"]: "stage",
    TITLES["drain"]: "drain",
    TITLES["change"]: "change",
    TITLES["reboot"]: "reboot",
    TITLES["ready"]: "reboot",
}


def _play(name: str, tasks: Sequence[str]) -> dict[str, str] | None:
    return {"title": TITLES[name], "static": "", "tasks": "\n\n".join(tasks)} if tasks else None


def _drains(plan: HostPlan) -> list[dict[str, Any]]:
    """What drains each network on the host; where no job can be seen there is nothing to wait for."""
    return [
        {"network": step.network, "wait_s": step.wait_s, "argv": _drain_argv(step)}
        for step in plan.drains
        if step.sees_jobs or step.command
    ]


def _drain_argv(step: DrainStep) -> list[str]:
    words = [CLIENT, "drain", step.network, "--wait", str(step.wait_s if step.sees_jobs else 0)]
    words += ["--containers", step.containers] if step.containers else []
    words += ["--undo", *step.undo] if step.undo else []
    return [*words, "--do", *step.command] if step.command else words


def _stage(plan: HostPlan, group: str, run: str, files: dict[str, str]) -> list[str]:
    tasks = _files_and_folders(plan.in_phase("stage"), group, files)
    tools = [c.wanted.name for c in plan.in_phase("stage") if isinstance(c.wanted, Package)]
    fresh = [c.wanted for c in plan.in_phase("change") if isinstance(c.wanted, Package) and _installs(c)]
    if tools or fresh:
        sums = f"files/{group}/SHA256SUMS"
        if fresh:
            files[sums] = "".join(f"{p.sha256}  {archive_name(p)}\n" for p in fresh)
        tasks.append(
            fill(
                "tasks/stage.yml.j2",
                tools=tools,
                packages=fresh,
                folder=f"{RUNS_ON_HOST}/{run}",
                sums=sums,
                size=megabytes(plan.download_bytes),
                argv=[
                    *("apt-get", "--yes", "--option", "DPkg::Lock::Timeout=600"),
                    *("--download-only", "--no-install-recommends"),
                    *("--allow-downgrades", "--allow-change-held-packages", "install"),
                    *(_exact(package) for package in fresh),
                ],
            )
        )
    return tasks


def archive_name(package: Package) -> str:
    """Return the name under which apt keeps the archive; the `:` of an epoch is written `%3a`."""
    return f"{package.name}_{(package.version or '').replace(':', '%3a')}_{package.architecture}.deb"


def _installs(change: Change) -> bool:
    return not change.keys or "version" in change.keys


def _exact(package: Package) -> str:
    return f"{package.name}={package.version}" if package.version else package.name


def _change(plan: HostPlan, group: str, files: dict[str, str]) -> list[str]:
    changes = plan.in_phase("change")
    tasks = [
        fill("tasks/whole_packages.yml.j2", change=change)
        for change in changes
        if isinstance(change.wanted, WholePackages)
    ]
    tasks += _files_and_folders(changes, group, files)
    tasks += _packages([c for c in changes if isinstance(c.wanted, Package)])
    if _needs_initramfs(changes):
        tasks.append(fill("tasks/initramfs.yml.j2"))
    tasks += [
        fill("tasks/kernel_module.yml.j2", change=change)
        for change in changes
        if isinstance(change.wanted, KernelModule)
    ]
    tasks += _settings(changes, group, files)
    tasks += [_service(change) for change in changes if isinstance(change.wanted, Service)]
    return tasks


def _files_and_folders(changes: Sequence[Change], group: str, files: dict[str, str]) -> list[str]:
    tasks = []
    for change in changes:
        if isinstance(change.wanted, Directory):
            tasks.append(fill("tasks/directory.yml.j2", change=change))
        elif isinstance(change.wanted, File):
            source = _source(change.wanted.path, group)
            files[source] = change.wanted.content
            tasks.append(fill("tasks/file.yml.j2", change=change, source=source))
    return tasks


def _source(path: str, group: str) -> str:
    return f"files/{group}{path}"


def _packages(changes: Sequence[Change]) -> list[str]:
    wanted = [change.wanted for change in changes if isinstance(change.wanted, Package)]
    fresh = [c.wanted for c in changes if isinstance(c.wanted, Package) and _installs(c)]
    if not wanted:
        return []
    units = sorted(
        {package.unit for package in fresh}, key=["kernel", "driver", "compat", "runtime", "toolkit", "tool"].index
    )
    return [
        fill(
            "tasks/package.yml.j2",
            what=f"{len(fresh)} packages of {' and '.join(units)}",
            packages=[_exact(package) for package in fresh],
            held=[package.name for package in wanted if package.held],
            released=[p.name for p in wanted if not p.held and p not in fresh],
        )
    ]


def _needs_initramfs(changes: Sequence[Change]) -> bool:
    """The driver's own packages build the boot image anew; only without them is a task of ours needed."""
    file_changed = any(isinstance(c.wanted, File) and c.wanted.rebuilds_initramfs for c in changes)
    driver_changed = any(isinstance(c.wanted, Package) and c.wanted.unit == "driver" and _installs(c) for c in changes)
    return file_changed and not driver_changed


def _settings(changes: Sequence[Change], group: str, files: dict[str, str]) -> list[str]:
    tasks = []
    for change in changes:
        if isinstance(change.wanted, Settings):
            source = _source(change.wanted.path, group)
            files[source] = change.content or ""
            folder = str(PurePosixPath(change.wanted.path).parent)
            tasks.append(fill("tasks/settings.yml.j2", change=change, source=source, folder=folder))
            tasks += [fill("tasks/restart.yml.j2", unit=unit) for unit in change.wanted.restarts]
    return tasks


def _service(change: Change) -> str:
    assert isinstance(change.wanted, Service)
    title = "Enable and start" if change.wanted.active else "Stop"
    return fill("tasks/service.yml.j2", change=change, title=title)


def _site(groups: Sequence[Group]) -> str:
    head = "---\n# Everything in this run, one group of hosts after the other: ansible-playbook site.yml\n"
    imports = "\n".join(
        f"- name: Bring {group.name} to its plan\n  ansible.builtin.import_playbook: {group.playbook}\n"
        for group in groups
    )
    return head + imports


_CONNECTION = ("ansible_",)
_SECRET = ("password", "passphrase", "_pass")


def _inventory(groups: Sequence[Group], variables: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the run's inventory: how to reach each host, never a password (those stay in vault or environment)."""
    children = {
        group.name: {"hosts": {host: _connection(variables.get(host, {})) for host in group.hosts}} for group in groups
    }
    text = yaml.safe_dump({"all": {"children": children}}, sort_keys=False, default_flow_style=False, width=1000)
    return "---\n" + text


def _connection(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in sorted(variables.items())
        if key.startswith(_CONNECTION) and not any(word in key for word in _SECRET)
    }
