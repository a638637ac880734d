"""Plan → a folder that plain ansible-playbook runs: one playbook per distinct plan, inventory, files. Pure text."""

from __future__ import annotations

import hashlib
import json
import pprint
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard, get_args

import yaml

from provisioner.host import programs
from provisioner.host.programs import CLIENT
from provisioner.host.trial import FOLDER as TRIAL
from provisioner.model.history import BUILD, CLEAR_BUILD, HISTORY, Keep
from provisioner.model.manager import Manager, beside_each_other
from provisioner.model.paths import data_dir
from provisioner.model.plan import Change, DrainStep, HostPlan, Phase, Trial
from provisioner.model.requirements import requirements
from provisioner.model.resource import (
    CONTAINERD_FILES,
    AbsentFile,
    AbsentPackage,
    CdiSpec,
    ContainerdRuntime,
    ContainerImages,
    Directory,
    File,
    Guarded,
    Hold,
    KeptFile,
    KernelModule,
    KeyPair,
    NoRunFile,
    Package,
    PackageSource,
    PythonEnvironment,
    ReplacedSource,
    Resource,
    RunningDriver,
    SecretFile,
    Service,
    Settings,
    Tool,
    Unit,
    VersionLock,
    WholePackages,
)
from provisioner.model.source import KEYRINGS
from provisioner.model.transaction import argv, dnf_call, dnf_given, rpm_name
from provisioner.model.units import megabytes
from provisioner.render.templates import fill

ARCHIVES = "/var/cache/apt/archives"


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
    paths: Mapping[str, Mapping[str, Any]] | None = None,
) -> Project:
    """Return the whole rendered run. `variables` are each host's; those of the connection go into its inventory.

    `paths` are variables that must win over the operator's own files: the way through a tunnel.
    """
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
    for host in (host for group in groups for host in group.hosts if paths and paths.get(host)):
        # Beside the playbook, where Ansible lets them win over the inventory's host_vars.
        text = yaml.safe_dump(_connection((paths or {})[host]), sort_keys=True, width=1000)
        files[f"host_vars/{host}.yml"] = "---\n" + text
    for name in ("ansible.cfg", "drain.yml", "reboot.yml"):
        files[name] = (data_dir("playbooks") / name).read_text(encoding="utf-8")
    return Project(files, tuple(groups))


def _fingerprint(plan: HostPlan) -> str:
    shown = {"changes", "drain", "drains", "reboot", "transaction", "keep", "takes_back", "trial"}
    same = plan.model_dump(mode="json", include=shown if plan.manager == "apt" else {*shown, "manager"})
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()


def _playbook(group: Group, plan: HostPlan, *, run: str, made_by: str, made_at: str) -> dict[str, str]:
    files: dict[str, str] = {}
    plays = [
        _play("stage", _stage(plan, group.name, run, files)),
        {"title": TITLES["drain"], "static": "drain.yml", "drains": _drains(plan)} if plan.drain else None,
        _play("change", [*_change(plan, group.name, files), *_cleared(plan), *_boot_guard(plan), *_armed(plan)]),
        {"title": TITLES["reboot"], "static": "reboot.yml", "drains": []} if plan.reboot else None,
        _play("ready", _ready(plan.in_phase("reboot"))),
        _play("guard", _guarded(plan, group.name, run, files)),
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


def _boot_guard(plan: HostPlan) -> list[str]:
    """A reboot into a kernel without the module leaves a host without GPU, and nobody near it."""
    running = [c.wanted for c in plan.changes if isinstance(c.wanted, RunningDriver) and c.wanted.version]
    name = "boot_guard" if plan.manager == "apt" else "dnf_boot_guard"
    return [fill(f"tasks/{name}.yml.j2", version=driver.version) for driver in running if plan.reboot]


def _trial(trial: Trial, group: str, run: str, files: dict[str, str]) -> str:
    """Bring what the trial needs while the host still serves; it begins right before the reboot."""
    wish = {"run": run, "what": trial.what, "driver": trial.driver, "once": trial.once, "limit_s": trial.minutes * 60}
    folder = f"files/{group}/trial"
    brought = {**programs.trial(), "wish.json": json.dumps(wish, indent=1, sort_keys=True) + "\n"}
    files |= {f"{folder}/{path}": text for path, text in brought.items()}
    return fill("tasks/trial.yml.j2", source=folder, folder=TRIAL, names=list(brought))


def _armed(plan: HostPlan) -> list[str]:
    return [fill("tasks/armed.yml.j2", trial=plan.trial, folder=TRIAL)] if plan.trial is not None else []


def _ready(changes: Sequence[Change]) -> list[str]:
    services = [_service(change) for change in changes if isinstance(change.wanted, Service)]
    return services + _specs(changes)


def _specs(changes: Sequence[Change]) -> list[str]:
    return [fill("tasks/cdi_spec.yml.j2", change=change) for change in changes if isinstance(change.wanted, CdiSpec)]


TITLES = {
    "stage": "Stage while serving",
    "drain": "Drain the clients",
    "change": "Change the host",
    "reboot": "Reboot into the new driver",
    "ready": "Start what needs the driver",
    "guard": "Switch what could cut the host off",
}
"""Names of the plays; those of drain and reboot stand in playbooks/ too."""

PHASES_OF_PLAYS: dict[str, Phase] = {
    TITLES["stage"]: "stage",
    TITLES["drain"]: "drain",
    TITLES["change"]: "change",
    TITLES["reboot"]: "reboot",
    TITLES["ready"]: "reboot",
    TITLES["guard"]: "guard",
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
    wait = ["--interrupt"] if step.interrupt else ["--wait", str(step.wait_s if step.sees_jobs else 0)]
    words = [CLIENT, "drain", step.network, *wait]
    words += ["--containers", step.containers] if step.containers else []
    words += ["--undo", *step.undo] if step.undo else []
    words += ["--then", *step.then] if step.then else []
    return [*words, "--do", *step.command] if step.command else words


def _stage(plan: HostPlan, group: str, run: str, files: dict[str, str]) -> list[str]:
    """Keep, pin, fetch, compare: whatever can fail or take long does so while the host still serves."""
    tasks = [_keep(plan, plan.keep, group, run, files)] if plan.keep is not None and plan.changes else []
    if plan.trial is not None:
        tasks.append(_trial(plan.trial, group, run, files))
    if plan.takes_back:
        tasks.append(fill("tasks/reopen.yml.j2", marks=[f"{HISTORY}/{run}/done" for run in plan.takes_back]))
    tasks += _sources(plan.in_phase("stage"), group, files)
    tasks += _files_and_folders(plan.in_phase("stage"), group, files)
    if plan.reloads:
        tasks.append(fill("tasks/device_links.yml.j2"))
    if plan.manager == "dnf":
        return tasks + _staged_by_dnf(plan, group, files) + _images(plan.in_phase("stage"))
    packages = plan.moving
    fetched = [p for p in packages if isinstance(p, Package) and p.archive is None]
    kept = [p for p in packages if isinstance(p, Package) and p.archive is not None]
    if fetched:
        tasks.append(fill("tasks/index.yml.j2"))
    if plan.transaction:
        expected = f"files/{group}/transaction"
        files[expected] = "".join(f"{line}\n" for line in sorted(move.text for move in plan.transaction))
        tasks.append(fill("tasks/simulate.yml.j2", argv=argv(packages, "--simulate"), expected=expected))
    if fetched:
        words = argv(packages, "--download-only")
        tasks.append(fill("tasks/download.yml.j2", count=len(fetched), size=megabytes(plan.download_bytes), argv=words))
    if fetched or kept:
        sums = f"files/{group}/SHA256SUMS"
        lines = [f"{p.sha256}  {ARCHIVES}/{archive_name(p)}" for p in fetched]
        lines += [f"{p.sha256}  {p.archive}" for p in kept]
        files[sums] = "".join(f"{line}\n" for line in lines)
        tasks.append(fill("tasks/sums.yml.j2", sums=sums, where="the lock" if fetched else "what was kept"))
    return tasks + _images(plan.in_phase("stage")) + _prebuilt(plan)


RPMS = "/var/lib/provision/rpms"
"""Where a host keeps the RPMs of what it has: without them no change after this one could be taken back."""


def _staged_by_dnf(plan: HostPlan, group: str, files: dict[str, str]) -> list[str]:
    """As for apt: dnf is asked once more, and everything is there before the drain."""
    packages = plan.moving
    fetched = [p for p in packages if isinstance(p, Package) and p.archive is None]
    kept = [p for p in packages if isinstance(p, Package) and p.archive is not None]
    tasks = [fill("tasks/dnf_index.yml.j2")] if fetched else []
    if plan.transaction:
        expected = f"files/{group}/transaction"
        lines = sorted(f"{move.name} {move.after or '-'}" for move in plan.transaction)
        files[expected] = "".join(f"{line}\n" for line in lines)
        call, _ = dnf_call(packages, asks=True)
        tasks.append(fill("tasks/dnf_simulate.yml.j2", given=dnf_given(packages), argv=call, expected=expected))
    if fetched:
        call, stdin = dnf_call(packages, options=("--downloadonly",))
        size = megabytes(plan.download_bytes)
        tasks.append(fill("tasks/dnf_download.yml.j2", count=len(fetched), size=size, argv=call, stdin=stdin))
    if kept:
        sums = f"files/{group}/SHA256SUMS.kept"
        files[sums] = "".join(f"{p.sha256}  {p.archive}\n" for p in kept)
        tasks.append(fill("tasks/sums.yml.j2", sums=sums, where="what was kept"))
    for some, where in ((fetched, "the lock"), (kept, "what was kept")):
        if some:
            # What was kept goes with the change that is taken back, and would be missing before the next one.
            sums = f"files/{group}/SHA256SUMS{'' if some is fetched else '.put-by'}"
            lines = [f"{p.sha256} {rpm_name(p.name, p.version, p.architecture)} {p.name}" for p in some]
            files[sums] = "".join(f"{line}\n" for line in lines)
            tasks.append(fill("tasks/dnf_sums.yml.j2", sums=sums, folder=RPMS, history=HISTORY, where=where))
    return tasks


def _sources(changes: Sequence[Change], group: str, files: dict[str, str]) -> list[str]:
    """Files of others go first: apt reads nothing at all while two keys stand for one address."""
    tasks = [
        fill("tasks/replaced_source.yml.j2", wanted=change.wanted)
        for change in changes
        if isinstance(change.wanted, ReplacedSource)
    ]
    for change in changes:
        if isinstance(change.wanted, PackageSource):
            source = change.wanted.source
            names = {"key": _source(source.key_path, group), "text": _source(source.path, group)}
            files[names["key"]], files[names["text"]] = source.key, source.text
            tasks.append(fill("tasks/package_source.yml.j2", source=source, names=names, folder=KEYRINGS))
    return tasks


def _prebuilt(plan: HostPlan) -> list[str]:
    """The module is most of the time that a change takes; with DKMS already there it is built before the drain."""
    source = plan.module_source
    if source is None:
        return []
    kernels = [change.wanted.kernel for change in plan.changes if isinstance(change.wanted, KernelModule)]
    archive = source.archive or f"{ARCHIVES}/{archive_name(source)}"
    return [fill("tasks/prebuild.yml.j2", kernels=kernels, archive=archive, folder=BUILD)]


def _cleared(plan: HostPlan) -> list[str]:
    return [fill("tasks/prebuilt_used.yml.j2", clear=CLEAR_BUILD)] if plan.module_source is not None else []


_PLAIN = {"initramfs": False, "pins": False, "restarts": []}


def _keep(plan: HostPlan, keep: Keep, group: str, run: str, files: dict[str, str]) -> str:
    """Return the task that keeps what the plan replaces: a program that stands whole in the run's folder."""
    named: dict[str, Unit] = {c.wanted.name: "kernel" for c in plan.changes if isinstance(c.wanted, Hold)}
    named |= {c.wanted.name: c.wanted.unit for c in plan.changes if isinstance(c.wanted, (Package, AbsentPackage))}
    moves = plan.transaction or ()
    files_of = [c.wanted for c in plan.changes if isinstance(c.wanted, Settings) or _is_kept_file(c.wanted)]
    spec = {
        "run": run,
        "to": {move.name: move.after for move in moves},
        "packages": {**{move.name: "other" for move in moves}, **named},
        "replaced": sorted({m.name for m in moves if m.before is not None} | _moving(plan)),
        "files": {
            f.path: {
                "initramfs": isinstance(f, File) and f.rebuilds_initramfs,
                "pins": isinstance(f, File) and f.pins,
                "restarts": list(f.restarts) if isinstance(f, Settings) else [],
            }
            for f in files_of
        }
        | {path: {"initramfs": False, "pins": True, "restarts": []} for path in (*_source_files(plan), *_locks(plan))}
        | {
            path: {**_PLAIN, "restarts": ["containerd.service"]}
            for path in (CONTAINERD_FILES if any(isinstance(c.wanted, ContainerdRuntime) for c in plan.changes) else ())
        }
        | {f.wrote_path: dict(_PLAIN) for f in files_of if isinstance(f, Settings)}
        # The former images are still there; the note that says which ones are wanted goes back with the rest.
        | {c.wanted.mark: dict(_PLAIN) for c in plan.changes if isinstance(c.wanted, ContainerImages)},
        "units": {
            c.wanted.name: {"after_reboot": c.wanted.after_reboot}
            for c in plan.changes
            if isinstance(c.wanted, Service) and c.wanted.kept
        },
        "most": keep.changes,
        "limit": keep.mib << 20,
        "staged": plan.download_bytes,
    }
    source = f"files/{group}/keep.py"
    program = (Path(__file__).parent / "keep.py").read_text(encoding="utf-8")
    if plan.manager == "dnf":
        program += "\n\n" + (Path(__file__).parent / "keep_rpm.py").read_text(encoding="utf-8")
    files[source] = f"{program}\n\nmain({pprint.pformat(spec, width=120, sort_dicts=False)})\n"
    return fill("tasks/keep.yml.j2", source=source, folder=f"{HISTORY}/{run}")


def _moving(plan: HostPlan) -> set[str]:
    """What may be there and moves. Of RPMs a kernel's package comes beside an older one, and replaces nothing."""
    return {p.name for p in plan.moving if plan.manager == "apt" or not beside_each_other(p.name)}


def _source_files(plan: HostPlan) -> list[str]:
    found: list[str] = []
    for change in plan.changes:
        if isinstance(change.wanted, PackageSource):
            found += [change.wanted.source.path, change.wanted.source.key_path]
        elif isinstance(change.wanted, ReplacedSource):
            found.append(change.wanted.path)
    return found


def _locks(plan: HostPlan) -> list[str]:
    return [change.wanted.path for change in plan.changes if isinstance(change.wanted, VersionLock)]


def _is_kept_file(wanted: Resource) -> TypeGuard[File]:
    return isinstance(wanted, File) and wanted.kept


def archive_name(package: Package) -> str:
    """Return the name under which apt keeps the archive; the `:` of an epoch is written `%3a`."""
    return f"{package.name}_{package.version.replace(':', '%3a')}_{package.architecture}.deb"


def _change(plan: HostPlan, group: str, files: dict[str, str]) -> list[str]:
    changes = plan.in_phase("change")
    tasks = [
        fill("tasks/whole_packages.yml.j2", change=change, history=HISTORY)
        for change in changes
        if isinstance(change.wanted, WholePackages)
    ]
    tasks += _files_and_folders(changes, group, files)
    tasks += [fill("tasks/run_file.yml.j2") for change in changes if isinstance(change.wanted, NoRunFile)]
    tasks += _packages(changes) if plan.manager == "apt" else _rpms(changes)
    tasks += _restored(changes, after_packages=True)
    if _needs_initramfs(changes, plan.manager):
        tasks.append(fill("tasks/initramfs.yml.j2" if plan.manager == "apt" else "tasks/dracut.yml.j2"))
    tasks += [
        fill("tasks/kernel_module.yml.j2", change=change)
        for change in changes
        if isinstance(change.wanted, KernelModule)
    ]
    tasks += _settings(changes, group, files)
    tasks += [fill("tasks/containerd_runtime.yml.j2") for c in changes if isinstance(c.wanted, ContainerdRuntime)]
    tools = [c.wanted.name for c in changes if isinstance(c.wanted, Tool)]
    if tools:
        # After the packages: what they bring along would make apt's transaction another one than the plan has shown.
        tasks += [fill("tasks/index.yml.j2"), fill("tasks/tools.yml.j2", tools=tools)]
    tasks += [fill("tasks/key_pair.yml.j2", change=c) for c in changes if isinstance(c.wanted, KeyPair)]
    tasks += [fill("tasks/secret_file.yml.j2", change=c) for c in changes if isinstance(c.wanted, SecretFile)]
    tasks += [_service(change) for change in changes if isinstance(change.wanted, Service)]
    return tasks + _specs(changes) + _images(changes)


def _images(changes: Sequence[Change]) -> list[str]:
    """Images come by Docker itself, which compares what it gets with the digest; after its service is there."""
    return [
        fill("tasks/container_images.yml.j2", wanted=change.wanted)
        for change in changes
        if isinstance(change.wanted, ContainerImages)
    ]


def _files_and_folders(changes: Sequence[Change], group: str, files: dict[str, str]) -> list[str]:
    tasks = []
    for change in changes:
        if isinstance(change.wanted, Directory):
            tasks.append(fill("tasks/directory.yml.j2", change=change))
        elif isinstance(change.wanted, VersionLock):
            tasks.append(fill("tasks/version_lock.yml.j2", wanted=change.wanted))
        elif isinstance(change.wanted, File):
            source = _source(change.wanted.path, group)
            files[source] = change.wanted.content
            tasks.append(fill("tasks/file.yml.j2", change=change, source=source))
        elif isinstance(change.wanted, PythonEnvironment):
            source = f"files/{group}/requirements/{change.wanted.network}.txt"
            files[source] = requirements(change.wanted.network) or ""
            tasks.append(fill("tasks/python_environment.yml.j2", wanted=change.wanted, source=source))
    return [*tasks, *_restored(changes, after_packages=False)]


def _restored(changes: Sequence[Change], *, after_packages: bool) -> list[str]:
    """Files as they were; those that a service reads come after the packages, which may bring the service back."""
    tasks = []
    for change in changes:
        wanted = change.wanted
        if not isinstance(wanted, (KeptFile, AbsentFile)) or bool(wanted.restarts) != after_packages:
            continue
        if isinstance(wanted, KeptFile):
            user, _, group = wanted.owner.partition(":")
            tasks.append(fill("tasks/kept_file.yml.j2", wanted=wanted, user=user, group=group))
        else:
            folder, _, name = wanted.path.rpartition("/")
            unit = name if folder == "/etc/systemd/system" else ""  # what lies deeper is a part of a unit
            tasks.append(fill("tasks/absent_file.yml.j2", wanted=wanted, unit=unit))
        tasks += [fill("tasks/restart.yml.j2", unit=unit) for unit in wanted.restarts]
    return tasks


def _source(path: str, group: str) -> str:
    return f"files/{group}{path}"


def _packages(changes: Sequence[Change]) -> list[str]:
    """One transaction, and the marks of apt that go with it."""
    moving = [package for change in changes if (package := change.moves) is not None]
    wanted = [(c.wanted, c.keys) for c in changes if isinstance(c.wanted, Package)]
    held = [package.name for package, _ in wanted if package.held]
    held += [change.wanted.name for change in changes if isinstance(change.wanted, Hold)]
    if not moving and not wanted and not held:
        return []
    return [
        fill(
            "tasks/package.yml.j2",
            title=_title(moving),
            argv=argv(moving) if moving else (),
            automatic=[p.name for p in moving if isinstance(p, Package) and p.auto],
            held=held,
            released=[package.name for package, keys in wanted if not package.held and "held" in keys],
        )
    ]


def _rpms(changes: Sequence[Change]) -> list[str]:
    """One transaction; the version lock was written while the host still served."""
    moving = [package for change in changes if (package := change.moves) is not None]
    if not moving:
        return []
    call, given = dnf_call(moving)
    return [fill("tasks/dnf_package.yml.j2", title=_title(moving), argv=call, stdin=given)]


def _title(moving: Sequence[Package | AbsentPackage]) -> str:
    units = sorted({package.unit for package in moving}, key=get_args(Unit).index)
    gone = sum(isinstance(package, AbsentPackage) for package in moving)
    parts = [f"install {len(moving) - gone}" if gone < len(moving) else "", f"remove {gone}" if gone else ""]
    title = f"{' and '.join(filter(None, parts))} packages of {' and '.join(units)}".capitalize()
    return title + (" (module builds take minutes)" if "driver" in units and gone < len(moving) else "")


def _needs_initramfs(changes: Sequence[Change], manager: Manager) -> bool:
    """Debian's driver packages build the boot image anew; only without them is a task of ours needed.

    Nothing says that NVIDIA's RPMs do.
    """
    file_changed = any(
        isinstance(c.wanted, (File, KeptFile, AbsentFile)) and c.wanted.rebuilds_initramfs for c in changes
    )
    driver_changed = any(isinstance(c.moves, Package) and c.moves.unit == "driver" for c in changes)
    return (file_changed or driver_changed) if manager == "dnf" else (file_changed and not driver_changed)


def _settings(changes: Sequence[Change], group: str, files: dict[str, str]) -> list[str]:
    tasks = []
    for change in changes:
        if isinstance(change.wanted, Settings):
            source = _source(change.wanted.path, group)
            files[source] = change.content or ""
            folder = str(PurePosixPath(change.wanted.path).parent)
            wrote = _source(change.wanted.wrote_path, group)
            files[wrote] = json.dumps(change.wanted.values, indent=4, sort_keys=True) + "\n"
            tasks.append(fill("tasks/settings.yml.j2", change=change, source=source, folder=folder, wrote=wrote))
            tasks += [fill("tasks/restart.yml.j2", unit=unit) for unit in change.wanted.restarts]
    return tasks


GUARD = "/usr/local/lib/provision/guard"


def _guarded(plan: HostPlan, group: str, run: str, files: dict[str, str]) -> list[str]:
    tasks = []
    for number, change in enumerate(plan.in_phase("guard"), start=1):
        if isinstance(change.wanted, Guarded):
            id_ = change_id(run, number)
            source = f"files/{group}/guard/{id_}.json"
            files[source] = guard_plan(change.wanted, id_)
            incoming = f"/var/lib/provision/{id_}.incoming"
            tasks.append(
                fill("tasks/guarded.yml.j2", change=change, source=source, incoming=incoming, id=id_, guard=GUARD)
            )
    return tasks


def change_id(run: str, number: int = 1) -> str:
    """The id of a guarded change on its host; a host has one run at a time, so a run's id tells it."""
    return f"{run}-{number}"


def guard_plan(change: Guarded, id_: str) -> str:
    """The JSON that the guard on the host reads (provisioner/tunnels/programs/guard.py)."""
    value = {**change.model_dump(mode="json", exclude={"kind", "name"}), "id": id_, "what": change.name}
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


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
