"""What a host has of the resources that are wanted of it: facts and capture → resources of the same kinds."""

from __future__ import annotations

import json
import re
import shlex

from pydantic import JsonValue

from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import HostFacts
from provisioner.model.resource import (
    ABSENT,
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
    Observed,
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
    VersionLock,
    WholePackages,
)
from provisioner.model.settings import lacking
from provisioner.resources.wanted import CDI_SPECS


def observed(wanted: Resource, facts: HostFacts, capture: Capture) -> Observed:
    """Return the resource with the key of `wanted` as the host has it; UNKNOWN when it could not be seen."""
    if isinstance(wanted, (File, Settings)):
        return _file(wanted, capture)
    if isinstance(wanted, KeptFile):
        return _kept(wanted, capture)
    if isinstance(wanted, AbsentFile):
        return _absent_file(wanted, capture)
    if isinstance(wanted, PackageSource):
        return _source(wanted, capture)
    if isinstance(wanted, ReplacedSource):
        return File(path=wanted.path, content="")
    if isinstance(wanted, Directory):
        return _directory(wanted, capture)
    if isinstance(wanted, (PythonEnvironment, ContainerImages)):
        return _marked(wanted, capture)
    if isinstance(wanted, Package):
        return _package(wanted, facts)
    if isinstance(wanted, AbsentPackage):
        return _absent_package(wanted, facts)
    if isinstance(wanted, WholePackages):
        return _whole(facts)
    if isinstance(wanted, VersionLock):
        return _version_lock(wanted, capture)
    if isinstance(wanted, Hold):
        return _hold(wanted, facts)
    if isinstance(wanted, NoRunFile):
        return UNKNOWN if facts.driver.run_file_install is UNKNOWN else _run_file(wanted, facts)
    if isinstance(wanted, KernelModule):
        return _module(wanted, facts)
    if isinstance(wanted, ContainerdRuntime):
        return _containerd(wanted, capture)
    if isinstance(wanted, CdiSpec):
        return _cdi(wanted, capture)
    if isinstance(wanted, Service):
        return _service(wanted, facts, capture)
    if isinstance(wanted, Tool):
        found = facts.package(wanted.name)
        return found if found is UNKNOWN else wanted if found is not None and found.whole else ABSENT
    if isinstance(wanted, KeyPair):
        return _key_pair(wanted, capture)
    if isinstance(wanted, SecretFile):
        mode = _mode(wanted.path, capture)
        return UNKNOWN if mode is UNKNOWN else ABSENT if mode is None else wanted.model_copy(update={"mode": mode})
    if isinstance(wanted, Guarded):
        return _guarded(wanted, facts, capture)
    return _running(wanted, facts)


def _file(wanted: File | Settings, capture: Capture) -> Observed:
    text = capture.file(wanted.path)
    if text is UNKNOWN:
        return UNKNOWN
    if text is None:
        return ABSENT
    if isinstance(wanted, File):
        mode = _mode(wanted.path, capture)
        return UNKNOWN if mode is UNKNOWN else wanted.model_copy(update={"content": text, "mode": mode})
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    # A file that is not a JSON object cannot be merged with: the plan stops there and says so. Nor can one from
    # which the probe left out a secret: written back, it would lose it.
    if not isinstance(values, dict):
        return UNKNOWN
    if lacking(values, wanted.values) and wanted.path in capture.redacted:
        return UNKNOWN
    return wanted.model_copy(update={"values": values, "wrote": _wrote(wanted, capture)})


def _wrote(wanted: Settings, capture: Capture) -> dict[str, JsonValue] | None:
    text = capture.file(wanted.wrote_path)
    try:
        values = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _source(wanted: PackageSource, capture: Capture) -> Observed:
    text, key = capture.file(wanted.source.path), capture.file(wanted.source.key_path)
    if text is UNKNOWN or key is UNKNOWN:
        return UNKNOWN
    if text is None and key is None:
        return ABSENT
    if text == wanted.source.text and key == wanted.source.key:
        return wanted
    return File(path=wanted.source.path, content=text or "")


def sum_command(path: str) -> str:
    """The command that tells whether a file is the one that was kept, without showing what is in it."""
    return f"sha256sum {shlex.quote(path)}"


def _kept(wanted: KeptFile, capture: Capture) -> Observed:
    answer, mode = capture.command(sum_command(wanted.path)), _mode(wanted.path, capture)
    if answer is UNKNOWN or mode is UNKNOWN:
        return UNKNOWN
    if mode is None:
        return ABSENT
    if answer.rc != 0:
        return UNKNOWN
    bits, _, owner = mode.partition(" ")
    found = {"sha256": answer.stdout.split()[0].lstrip("\\"), "mode": bits, "owner": owner or "root:root"}
    return wanted.model_copy(update=found)


def _marked(wanted: PythonEnvironment | ContainerImages, capture: Capture) -> Observed:
    """What was made from a list, or brought by one: the list itself gets its name when all is there."""
    answer = capture.command(sum_command(wanted.mark))
    if answer is UNKNOWN:
        return UNKNOWN
    return wanted.model_copy(update={"sha256": answer.stdout.split()[0]}) if answer.rc == 0 else ABSENT


def _absent_file(wanted: AbsentFile, capture: Capture) -> Observed:
    mode = _mode(wanted.path, capture)
    if mode is UNKNOWN:
        return UNKNOWN
    return wanted if mode is None else File(path=wanted.path, content="", mode=mode)


def _directory(wanted: Directory, capture: Capture) -> Observed:
    mode = _mode(wanted.path, capture)
    if mode is UNKNOWN:
        return UNKNOWN
    return ABSENT if mode is None else wanted.model_copy(update={"mode": mode})


def _mode(path: str, capture: Capture) -> str | Unknown | None:
    """Return the mode such as `0644`, with the owner behind it when that is not root; None when the path is absent."""
    answer = capture.command(f"stat -c '%a %U:%G %F' {path}")
    if answer is UNKNOWN:
        return UNKNOWN
    if answer.rc != 0:
        return None
    mode, owner, _kind = answer.stdout.split(None, 2)
    return mode.zfill(4) + ("" if owner == "root:root" else f" {owner}")


def _package(wanted: Package, facts: HostFacts) -> Observed:
    found = facts.package(wanted.name)
    if found is UNKNOWN:
        return UNKNOWN
    if found is None:
        return ABSENT
    if wanted.version in found.others:  # a kernel's package beside that of a newer one
        return wanted
    return wanted.model_copy(update={"version": found.version, "held": found.held})


def _version_lock(wanted: VersionLock, capture: Capture) -> Observed:
    """Our block of the file; without the plugin that reads it, none of it counts, and the plan says so."""
    text = capture.file(wanted.path)
    if text is UNKNOWN:
        return UNKNOWN
    match = re.search(r"(?ms)^# BEGIN provision$(.*?)^# END provision$", text or "")
    if match is None:
        return ABSENT
    lines = tuple(line for line in match[1].splitlines() if line and not line.startswith("#"))
    return wanted.model_copy(update={"lines": lines})


def _absent_package(wanted: AbsentPackage, facts: HostFacts) -> Observed:
    found = facts.package(wanted.name)
    if found is UNKNOWN:
        return UNKNOWN
    if found is None:
        return wanted
    return Package(name=found.name, version=found.version, held=found.held, unit=wanted.unit)


def _hold(wanted: Hold, facts: HostFacts) -> Observed:
    found = facts.package(wanted.name)
    if found is UNKNOWN:
        return UNKNOWN
    if found is None or found.held:
        return wanted
    return Package(name=found.name, version=found.version, held=False, unit="kernel")


def _run_file(wanted: NoRunFile, facts: HostFacts) -> Observed:
    if not facts.driver.run_file_install:
        return wanted
    library = facts.driver.library
    return File(path="/usr/bin/nvidia-uninstall", content="" if library is UNKNOWN else library or "")


def _whole(facts: HostFacts) -> Observed:
    if facts.packages is UNKNOWN or facts.dpkg_interrupted is UNKNOWN:
        return UNKNOWN
    broken = tuple(sorted(p.name for p in facts.packages.values() if not p.whole))
    return WholePackages(broken=broken, interrupted=facts.dpkg_interrupted)


def _module(wanted: KernelModule, facts: HostFacts) -> Observed:
    if facts.driver.modules is UNKNOWN:
        return UNKNOWN
    found = [build for build in facts.driver.modules if build.kernel == wanted.kernel]
    if not found:
        return ABSENT
    if any(build.version == wanted.version and build.flavour in (wanted.flavour, UNKNOWN) for build in found):
        return wanted
    build = found[0]
    if build.version is UNKNOWN and not build.noted:
        return ABSENT
    if build.version is UNKNOWN or build.flavour is UNKNOWN:
        return UNKNOWN
    return KernelModule(kernel=build.kernel, version=build.version, flavour=build.flavour)


def _cdi(wanted: CdiSpec, capture: Capture) -> Observed:
    """A spec mounts libraries by their real names, which end in the driver's version."""
    texts = [capture.file(path) for path in CDI_SPECS]
    if any(text is UNKNOWN for text in texts):
        return UNKNOWN
    versions = {version for text in texts if isinstance(text, str) for version in _LIBRARY.findall(text)}
    if not versions:
        return ABSENT
    return wanted if versions == {wanted.version} else CdiSpec(version=", ".join(sorted(versions)))


def _containerd(wanted: ContainerdRuntime, capture: Capture) -> Observed:
    """The drop-in names the runtime's program, and `imports` of the configuration has its folder."""
    config, drop_in = (capture.file(path) for path in CONTAINERD_FILES)
    if config is UNKNOWN or drop_in is UNKNOWN:
        return UNKNOWN
    imported = re.search(r"^imports\s*=\s*\[[^\]]*/etc/containerd/conf\.d/", config or "", re.MULTILINE)
    return wanted if imported and "nvidia-container-runtime" in (drop_in or "") else ABSENT


_LIBRARY = re.compile(r"/lib(?:cuda|nvidia-ml)\.so\.(\d{3}\.\d+(?:\.\d+)?)")


def _service(wanted: Service, facts: HostFacts, capture: Capture) -> Observed:
    if facts.units is UNKNOWN or wanted.name not in facts.units:
        # A unit of our own comes with a file of our own: looked for and not there, and neither is the unit.
        ours = wanted.name.startswith("provision-")
        return ABSENT if ours and capture.file(f"/etc/systemd/system/{wanted.name}") is None else UNKNOWN
    unit = facts.units[wanted.name]
    if unit.load == "not-found":
        return ABSENT if wanted.enabled or wanted.active else wanted
    # "static" and the like cannot be enabled and need not be: something else starts them.
    enabled = wanted.enabled if unit.enabled in ("static", "indirect", "generated") else unit.enabled == "enabled"
    return wanted.model_copy(update={"enabled": enabled, "active": unit.active in ("active", "reloading")})


def _key_pair(wanted: KeyPair, capture: Capture) -> Observed:
    """The public half tells; it is written last, so a key that was interrupted in the making is absent."""
    text = capture.file(wanted.public)
    if text is UNKNOWN:
        return UNKNOWN
    return wanted if text is not None and text.strip() else ABSENT


def _guarded(wanted: Guarded, facts: HostFacts, capture: Capture) -> Observed:
    """Files and units of the change as they are; with none of its files there, the whole change is absent."""
    files = []
    for file in wanted.files:
        if file.content is None:
            files.append(file)  # made by a command: it stands and falls with the others
            continue
        text, mode = capture.file(file.path), _mode(file.path, capture)
        if text is UNKNOWN or mode is UNKNOWN:
            return UNKNOWN
        if text is not None and mode is not None:
            files.append(file.model_copy(update={"content": text, "mode": mode}))
    modes = {path: _mode(path, capture) for path in wanted.absent}
    if UNKNOWN in modes.values():
        return UNKNOWN
    if any(file.content is not None for file in wanted.files) and not any(file.content is not None for file in files):
        return ABSENT
    units = facts.units
    if units is UNKNOWN or any(name not in units for name in (*wanted.units, *wanted.stop)):
        return UNKNOWN
    down = ("inactive", "failed")
    return wanted.model_copy(
        update={
            "files": tuple(files),
            "absent": tuple(path for path in wanted.absent if modes[path] is None),
            "units": tuple(n for n in wanted.units if units[n].active not in down and units[n].enabled != "disabled"),
            "stop": tuple(n for n in wanted.stop if units[n].load == "not-found" or units[n].active in down),
        }
    )


def _running(wanted: RunningDriver, facts: HostFacts) -> Observed:
    loaded, flavour = facts.driver.loaded, facts.driver.loaded_flavour
    if loaded is UNKNOWN or flavour is UNKNOWN:
        return UNKNOWN
    if loaded is None or flavour is None:
        return ABSENT if wanted.version is not None else wanted
    return RunningDriver(version=loaded, flavour=flavour)
