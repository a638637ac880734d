"""Puts a host's differences into phases: what can be done while serving, what needs the drain, what needs a reboot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from provisioner.model.capture import UNKNOWN
from provisioner.model.history import Keep
from provisioner.model.intent import Policy
from provisioner.model.plan import Change, HostPlan, Phase
from provisioner.model.resource import (
    Absent,
    AbsentFile,
    AbsentPackage,
    CdiSpec,
    ContainerdRuntime,
    ContainerImages,
    Difference,
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
from provisioner.model.settings import at, merged, told
from provisioner.model.stack import HostLock
from provisioner.plan.cost import not_serving_s

CONTAINERS = "/etc/provision/containers"
"""What clients in containers are started from lies here."""


def host_plan(host: str, lock: HostLock, differences: Sequence[Difference], *, enrolled: bool) -> HostPlan:
    """Return the plan of one host. `enrolled`: a record for this very lock is on the host."""
    policy = lock.intent.policy
    plan = plan_from(host, differences, policy=policy, networks=tuple(lock.networks), enrolled=enrolled)
    keep = Keep(changes=policy.history, mib=policy.history_mib)
    return plan.model_copy(update={"keep": keep, "reasons": _reasons(lock, plan.changes)})


def plan_from(
    host: str, differences: Sequence[Difference], *, policy: Policy, networks: tuple[str, ...], enrolled: bool
) -> HostPlan:
    """Return the plan that makes up for differences, wherever the wish comes from.

    What could not be seen blocks it, but for a module where packages are not whole: DKMS puts it there before it notes
    which version it is. That comes out when dpkg has finished, which a run lets it do first, and looks again.
    """
    half = any(isinstance(d.wanted, WholePackages) and not d.unseen for d in differences)
    left = [d for d in differences if d.unseen and not (half and isinstance(d.wanted, KernelModule))]
    seen = [d for d in differences if d not in left]
    blocked = [_unseen(d) for d in left]
    blocked += [_not_alone(d.wanted) for d in seen if isinstance(d.wanted, ReplacedSource) and d.wanted.also]
    reboot = any(isinstance(d.wanted, RunningDriver) for d in seen)
    if reboot and policy.reboot == "never":
        blocked.append("a reboot is due to load the driver, and provision_policy.reboot is never")
    changes = tuple(_change(d, reboot=reboot) for d in seen)
    changes = tuple(sorted(changes, key=lambda change: _RANK[change.phase]))
    drains = any(_interrupts(change) for change in changes)
    return HostPlan(
        host=host,
        changes=changes,
        reboot=reboot,
        drain=networks if drains else (),
        download_bytes=sum(p.size for c in changes if isinstance(p := c.moves, Package) and p.archive is None),
        not_serving_s=not_serving_s(changes, drains=drains),
        enrolled=enrolled and not changes,
        blocked=tuple(blocked),
    )


def mending(plan: HostPlan) -> HostPlan:
    """Return the part of a plan that comes first where dpkg was interrupted: drain, and let it finish."""
    changes = tuple(change for change in plan.changes if isinstance(change.wanted, WholePackages))
    return HostPlan(host=plan.host, changes=changes, drain=plan.drain, not_serving_s=plan.not_serving_s)


_RANK: dict[Phase, int] = {"stage": 0, "drain": 1, "change": 2, "reboot": 3, "guard": 4, "verify": 5, "enrol": 6}


def _phase(wanted: Resource, *, reboot: bool) -> Phase:
    """Only what no running job can notice is staged; the rest waits for the drain."""
    if isinstance(wanted, (Directory, PackageSource, ReplacedSource, VersionLock)) or (
        isinstance(wanted, (File, KeptFile, AbsentFile)) and wanted.pins
    ):
        return "stage"
    if isinstance(wanted, Guarded):
        return "guard"
    if (
        isinstance(wanted, RunningDriver)
        or (isinstance(wanted, CdiSpec) and reboot)
        or (isinstance(wanted, Service) and wanted.after_reboot and reboot)
    ):
        return "reboot"
    return "change"


def _brings_ahead(d: Difference) -> bool:
    """Images for a host that has brought some before: its engine and the program for it are there, and it serves."""
    return isinstance(d.wanted, ContainerImages) and isinstance(d.observed, ContainerImages)


_JOBS_USE: tuple[Unit, ...] = ("driver", "runtime", "toolkit")


def _interrupts(change: Change) -> bool:
    """Whether the change can end a running job: packages of driver and runtime, their settings, a reboot.

    What a client was started from is among it when there was something before: the client must start anew with it.
    """
    wanted = change.wanted
    if isinstance(wanted, PythonEnvironment) or (isinstance(wanted, File) and wanted.of_client):
        return change.before is not None
    if isinstance(wanted, Package):
        return wanted.unit in _JOBS_USE and change.moves is not None
    if isinstance(wanted, AbsentPackage):
        return wanted.unit in _JOBS_USE
    if isinstance(wanted, (KeptFile, AbsentFile)):
        return bool(wanted.restarts) or wanted.path.startswith(f"{CONTAINERS}/")
    return isinstance(wanted, (ContainerdRuntime, NoRunFile, Settings, RunningDriver, WholePackages))


def _unseen(d: Difference) -> str:
    if isinstance(d.wanted, Settings):
        return (
            f"{d.wanted.path} is no JSON object, or holds a secret that provision does not read: it is left alone; "
            f"set {describe(d.wanted)} there by hand"
        )
    return f"{d.wanted.key} could not be seen"


def _not_alone(wanted: ReplacedSource) -> str:
    return (
        f"{wanted.path} names the package source {wanted.by} beside {', '.join(wanted.also)}: apt refuses two keys for "
        "one address; take the line out of that file by hand"
    )


def _change(d: Difference, *, reboot: bool) -> Change:
    before = None if d.observed is UNKNOWN or isinstance(d.observed, Absent) else describe(d.observed)
    if isinstance(d.wanted, NoRunFile) and isinstance(d.observed, File):
        before = f"installed{f', {d.observed.content}' if d.observed.content else ''}"
    after = _moved(d.wanted, d.observed) if isinstance(d.observed, Guarded) else describe(d.wanted)
    if isinstance(d.wanted, SecretFile) and isinstance(d.observed, SecretFile):
        before, after = d.observed.mode, d.wanted.mode
    if isinstance(d.wanted, Settings) and isinstance(d.observed, Settings):
        before, after = (_keyed(values, d.keys) for values in (d.observed.values, d.wanted.values))
    return Change(
        phase="stage" if _brings_ahead(d) else _phase(d.wanted, reboot=reboot),
        what=d.wanted.key,
        before=before,
        after=after,
        wanted=d.wanted,
        keys=d.keys,
        content=_merged(d) if isinstance(d.wanted, Settings) else None,
        notes=_notes(d),
    )


def _merged(d: Difference) -> str:
    assert isinstance(d.wanted, Settings)
    theirs = d.observed.values if isinstance(d.observed, Settings) else {}
    return json.dumps(merged(theirs, d.wanted.values), indent=4, sort_keys=True) + "\n"


def _keyed(values: Mapping[str, JsonValue], keys: Sequence[str]) -> str:
    """Only what differs: the rest of an owner's file is nobody's news."""
    return ", ".join(f"{key}={json.dumps(at(values, key))}" for key in keys)


def _notes(d: Difference) -> tuple[str, ...]:
    if isinstance(d.wanted, Settings) and isinstance(d.observed, Settings):
        seen = d.observed
        return told(d.keys, wrote=seen.wrote, there=seen.values, wanted=d.wanted.values)
    if isinstance(d.wanted, SecretFile) and isinstance(d.observed, SecretFile):
        mode = d.observed.mode.partition(" ")[0]
        if mode[-2:] != "00":
            return (f"with mode {mode} others on the host could read it: exchange the secret too",)
    if isinstance(d.wanted, NoRunFile):
        version = f" {d.observed.content}" if isinstance(d.observed, File) and d.observed.content else ""
        return (f"driver{version} of NVIDIA's installer (.run) goes first; a rollback cannot bring it back",)
    return ()


def describe(resource: Resource) -> str:
    """Return a resource's state in a few words, as a plan shows it before or after the arrow."""
    if isinstance(resource, Package):
        return f"{resource.version}{', held' if resource.held else ''}"
    if isinstance(resource, Service):
        return f"{'enabled' if resource.enabled else 'not enabled'}, {'active' if resource.active else 'not active'}"
    if isinstance(resource, (KernelModule, RunningDriver)):
        return f"{resource.version} ({resource.flavour})" if resource.version else "none"
    if isinstance(resource, CdiSpec):
        return f"of driver {resource.version}"
    if isinstance(resource, AbsentPackage):
        return "not installed"
    if isinstance(resource, ContainerdRuntime):
        return "configured by nvidia-ctk, in a drop-in"
    if isinstance(resource, Hold):
        return "held"
    if isinstance(resource, VersionLock):
        return f"{len(resource.lines)} entries"
    if isinstance(resource, NoRunFile):
        return "taken away by its own uninstaller"
    if isinstance(resource, AbsentFile):
        return "not there"
    if isinstance(resource, PackageSource):
        return f"{resource.source.uri}, signed by …{resource.source.fingerprint[-16:]}"
    if isinstance(resource, ReplacedSource):
        return f"replaced by the package source {resource.by} of the lock"
    if isinstance(resource, ContainerImages):
        count = len(resource.images)
        return f"{count} image{'' if count == 1 else 's'} by digest, {resource.sha256[:12]}"
    if isinstance(resource, PythonEnvironment):
        return f"requirements {resource.sha256[:12]}, pinned by hash (python3-venv is installed for it)"
    if isinstance(resource, KeptFile):
        return f"{resource.sha256[:12]}, mode {resource.mode}"
    if isinstance(resource, WholePackages):
        if resource.broken:
            return f"half-installed {', '.join(resource.broken)}"
        return "interrupted" if resource.interrupted else "whole"
    if isinstance(resource, Settings):
        return ", ".join(f"{key}={json.dumps(value)}" for key, value in sorted(resource.values.items())) or "empty"
    if isinstance(resource, File):
        lines = resource.content.count("\n")
        return f"{lines} line{'' if lines == 1 else 's'}"
    if isinstance(resource, Tool):
        return "installed"
    if isinstance(resource, KeyPair):
        return "made on the host"
    if isinstance(resource, SecretFile):
        return f"from the inventory, {resource.mode}"
    if isinstance(resource, Guarded):
        return _guarded(resource)
    return resource.mode


def _moved(wanted: Resource, now: Guarded) -> str:
    """Which files of a guarded change will read otherwise, by their last names; the whole count for anything else."""
    assert isinstance(wanted, Guarded)
    moved = [file.path.rpartition("/")[2] for file in wanted.files if file not in now.files]
    if not moved or (wanted.units, wanted.absent, wanted.stop) != (now.units, now.absent, now.stop):
        return _guarded(wanted)
    return f"{', '.join(moved)} anew"


def _guarded(resource: Guarded) -> str:
    """`8 files, 3 units`; what is taken away counts too."""
    counts = [
        (len(resource.files), "file", "files"),
        (len(resource.absent), "file taken away", "files taken away"),
        (len(resource.units), "unit", "units"),
        (len(resource.stop), "unit stopped", "units stopped"),
    ]
    return ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in counts if n) or "nothing of it"


def _reasons(lock: HostLock, changes: Sequence[Change]) -> tuple[str, ...]:
    """Why the lock asks for the driver that the host does not have."""
    moves = any(isinstance(c.wanted, Package) and c.wanted.unit == "driver" for c in changes)
    if not moves or lock.driver_version is None:
        return ()
    return tuple(reason.text for reason in lock.driver_version.because[:2])
