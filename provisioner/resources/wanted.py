"""What a host must have to be what its lock entry says: lock → resources. Decides nothing that the lock left open."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from pydantic import JsonValue

from provisioner.host import programs
from provisioner.model.capture import UNKNOWN, Unknown
from provisioner.model.driver_package import branch_of, module_flavour
from provisioner.model.facts import Flavour, HostFacts, SourceEntry
from provisioner.model.facts import Package as Installed
from provisioner.model.intent import ClientContainer
from provisioner.model.manager import manager_of
from provisioner.model.requirements import digest, requirements
from provisioner.model.resource import (
    AbsentFile,
    AbsentPackage,
    CdiSpec,
    ContainerdRuntime,
    ContainerImages,
    Directory,
    File,
    Hold,
    KernelModule,
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
    VersionLock,
    WholePackages,
)
from provisioner.model.source import LockedSource, same_place
from provisioner.model.stack import HostLock, LockedPackage

STATE = "/var/lib/provision"
PREFERENCES = "/etc/apt/preferences.d/provision.pref"
UNATTENDED = "/etc/apt/apt.conf.d/52provision-unattended-upgrades"
NOUVEAU = "/etc/modprobe.d/provision-nouveau.conf"
MODULE_OPTIONS = "/etc/modprobe.d/provision-nvidia.conf"
DOCKER_SETTINGS = "/etc/docker/daemon.json"
DEV_CHAR_RULE = "/etc/udev/rules.d/71-provision-nvidia-dev-char.rules"
CDI_SPECS = ("/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml")
CDI_OFF = "/etc/systemd/system/nvidia-cdi-refresh.service.d/provision.conf"
DOCKER_ENDS = "/etc/systemd/system/docker.service.d/provision.conf"
CLIENTS_TARGET = "/etc/systemd/system/provision-clients.target"
CLIENT_UNIT = "/etc/systemd/system/provision-client@.service"
UNITS = "/etc/systemd/system"
WATCHDOG_CONFIG = "/etc/provision/watchdog.json"
POWER_CONFIG = "/etc/provision/power.json"
POWER_RULE = "/etc/udev/rules.d/90-provision-power.rules"
JOBS = {"lium": "pod_*", "prime-intellect-worker": "prime-task-*"}
"""Containers that carry a job, where the network's contract in the matrix names them; a test holds both together."""
CLUSTERS = {
    "akash": {
        "namespace": "akash-services",
        "workload": "statefulset/akash-provider",
        "jobs": "akash.network/manifest-service",
    }
}
"""What Kubernetes runs for a network, as its contract in the matrix has it; a test holds both together."""
CLUSTER_CONFIGS = "/etc/provision/cluster"
CLIENTS = f"{programs.FOLDER}/clients"
"""What starts the client of a network lies here, an executable file under the network's id."""
HEALTH = f"{programs.FOLDER}/health"
CONTAINERS = "/etc/provision/containers"  # as in plan/order.py, which may not look here
_STARTER = """#!/bin/sh
# Written by provision from provision.lock; the next plan puts it back when it is changed.
exec {program} {verb} {network}
"""

# A priority above 1000 keeps the version even when it means a downgrade (apt_preferences(5)), so that a
# foreign repository with a higher number cannot win against the lock.
PIN_PRIORITY = 1001

# Packages that only NVIDIA's repository has, and that pull its driver in. The names of Debian begin alike
# (nvidia-open-kernel-dkms), so the patterns end in digits.
VENDOR_ROOTS = "cuda-drivers cuda-drivers-[0-9]* nvidia-open nvidia-open-[0-9]* nvidia-driver-pinning-[0-9]*"

# live-restore keeps containers running while the daemon restarts, so an upgrade of docker.io ends no job. It does so
# when the host goes down too, and there DOCKER_ENDS makes up for it.
DOCKER_VALUES: dict[str, JsonValue] = {"live-restore": True}


def wanted(lock: HostLock) -> tuple[Resource, ...]:
    """Return the resources in the order in which they would be put in place."""
    dnf = manager_of(lock.os) == "dnf"
    # An rpm that was cut short needs somebody who looks: there is nothing of it that could be finished by itself.
    resources: list[Resource] = [Directory(path=STATE), *([] if dnf else [WholePackages()])]
    resources += [PackageSource(source=source) for source in lock.sources]
    held = [package for package in lock.packages if package.hold]
    if held and dnf:
        resources.append(VersionLock(lines=version_locks(lock)))
    elif held:
        resources.append(File(path=PREFERENCES, content=preferences(held, vendor_driver=lock.vendor_driver), pins=True))
        resources.append(File(path=UNATTENDED, content=unattended(held), pins=True))
    if lock.driver_version is not None:
        resources.append(File(path=NOUVEAU, content=NOUVEAU_TEXT, rebuilds_initramfs=True))
        if lock.module_options:
            text = HEADER.format(comment="#") + "".join(f"{line}\n" for line in lock.module_options)
            resources.append(File(path=MODULE_OPTIONS, content=text, rebuilds_initramfs=True))
    resources += [
        Package(
            name=p.name,
            version=p.version,
            held=p.hold,
            unit=p.unit,
            architecture=p.architecture,
            sha256=p.sha256,
            size=p.size,
        )
        for p in lock.packages
    ]
    running: RunningDriver | None = None
    if lock.driver_version is not None and lock.modules is not None:
        running = RunningDriver(version=lock.driver_version.value, flavour=flavour_of(lock.modules.value))
        resources += [
            KernelModule(kernel=kernel, version=lock.driver_version.value, flavour=flavour_of(lock.modules.value))
            for kernel in lock.kernels
        ]
    if lock.engine.startswith("docker"):
        resources += [
            Directory(path=DOCKER_ENDS.rpartition("/")[0]),
            File(path=DOCKER_ENDS, content=DOCKER_ENDS_TEXT, pins=True),
        ]
        resources.append(Settings(path=DOCKER_SETTINGS, values=docker_values(lock), restarts=("docker.service",)))
        resources.append(Service(name="docker.service"))
    elif lock.engine == "containerd":
        if lock.toolkit is not None:
            resources.append(ContainerdRuntime())
        resources.append(Service(name="containerd.service"))
    resources += _cdi(lock)
    resources += _gate(lock)
    resources += _watchdog(lock)
    resources += _secrets(lock)
    resources += _clients(lock)
    resources += _clusters(lock)
    resources += [
        PythonEnvironment(network=network, sha256=digest(listed))
        for network in sorted(lock.networks)
        if (listed := requirements(network)) is not None
    ]
    if running is not None:
        if lock.toolkit is not None:
            resources.append(File(path=DEV_CHAR_RULE, content=DEV_CHAR_TEXT, pins=True))
        resources.append(running)
        for daemon in ("persistenced", "fabricmanager"):
            if any(package.name.startswith("nvidia") and daemon in package.name for package in lock.packages):
                resources.append(Service(name=f"nvidia-{daemon}.service", after_reboot=True))
    return tuple(resources)


def docker_values(lock: HostLock) -> dict[str, JsonValue]:
    """Return what Docker's daemon.json must hold: what the lock decided, and nothing that it left open.

    `features.cdi` is known from Docker 25.0 on, and CDI is on without it from 28.2 (matrix/runtimes/docker-ce).
    """
    values: dict[str, JsonValue] = dict(DOCKER_VALUES)
    if lock.toolkit is not None:
        values["runtimes"] = {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}
    if lock.default_runtime is not None:
        values["default-runtime"] = lock.default_runtime
    if lock.cgroup_driver is not None:
        values["exec-opts"] = [f"native.cgroupdriver={lock.cgroup_driver}"]
    version = _engine_version(lock)
    if lock.cdi is not None and version >= (25,) and (lock.cdi.value == "absent" or version < (28, 2)):
        values["features"] = {"cdi": lock.cdi.value == "present"}
    return values


def _engine_version(lock: HostLock) -> tuple[int, ...]:
    """`docker-ce 5:28.5.2-1~debian.12~bookworm` is (28, 5, 2); () where it is not said."""
    said = lock.runtime.value.partition(" ")[2] if lock.runtime is not None else ""
    match = re.match(r"(?:\d+:)?(\d+)\.(\d+)\.?(\d+)?", said)
    return tuple(int(part) for part in match.groups() if part) if match else ()


def _cdi(lock: HostLock) -> list[Resource]:
    """Specs of just the locked driver where CDI is on; none, and nobody who would write one, where it is off.

    The toolkit's package enables its unit when it is installed: what keeps the unit from running is there before that.
    """
    if lock.cdi is None or lock.toolkit is None or lock.driver_version is None:
        return []
    if lock.cdi.value == "present":
        return [AbsentFile(path=CDI_OFF), CdiSpec(version=lock.driver_version.value)]
    return [
        Directory(path=CDI_OFF.rpartition("/")[0]),
        File(path=CDI_OFF, content=CDI_OFF_TEXT, pins=True),
        *(AbsentFile(path=path) for path in CDI_SPECS),
    ]


def replaced_sources(lock: HostLock, entries: tuple[SourceEntry, ...] | Unknown) -> tuple[ReplacedSource, ...]:
    """Return the files of others that name a source of the lock."""
    return () if entries is UNKNOWN else replaced_by(lock.sources, entries)


def replaced_by(sources: Sequence[LockedSource], entries: Sequence[SourceEntry]) -> tuple[ReplacedSource, ...]:
    """Return the files of others that name one of the sources, each once."""
    mine = {same_place(source.uri): source for source in sources}
    ours = {source.path for source in sources}
    found = []
    for path in dict.fromkeys(entry.path for entry in entries if entry.path not in ours):
        uris = tuple(dict.fromkeys(same_place(entry.uri) for entry in entries if entry.path == path))
        named = [mine[uri].id for uri in uris if uri in mine]
        if named:
            found.append(ReplacedSource(path=path, by=named[0], also=tuple(uri for uri in uris if uri not in mine)))
    return tuple(found)


def _gate(lock: HostLock) -> list[Resource]:
    """The gate and the units behind it: a client starts through them or not at all."""
    return [
        *(Directory(path=path) for path in (*programs.folders(), CLIENTS)),
        *(File(path=path, content=text, pins=True) for path, text in programs.modules().items()),
        *(File(path=path, content=text, mode="0755", pins=True) for path, text in programs.commands().items()),
        File(path=CLIENT_UNIT, content=CLIENT_UNIT_TEXT),
        File(path=CLIENTS_TARGET, content=clients_target(lock.networks)),
    ]


def _watchdog(lock: HostLock) -> list[Resource]:
    """The timer that looks every minute, and the unit that holds the cards to their power policy."""
    resources: list[Resource] = [Directory(path="/etc/provision")]
    if lock.intent.watchdog == "act":
        resources += [
            File(path=WATCHDOG_CONFIG, content=watchdog_config(lock)),
            File(path=f"{UNITS}/provision-watchdog.service", content=WATCHDOG_SERVICE_TEXT),
            File(path=f"{UNITS}/provision-watchdog.timer", content=WATCHDOG_TIMER_TEXT),
            Service(name="provision-watchdog.timer"),
        ]
    if lock.intent.power:
        policies = {one.model: one.model_dump(exclude_none=True, exclude={"model"}) for one in lock.intent.power}
        resources += [
            File(path=POWER_CONFIG, content=json.dumps(policies, indent=4, sort_keys=True) + "\n"),
            File(path=f"{UNITS}/provision-power.service", content=POWER_SERVICE_TEXT),
            File(path=POWER_RULE, content=POWER_RULE_TEXT),
            Service(name="provision-power.service", after_reboot=True),
        ]
    return resources


def _secrets(lock: HostLock) -> list[Resource]:
    """The clients' secrets, each readable by its owner alone."""
    if not lock.intent.secrets:
        return []
    return [
        Directory(path="/etc/provision/secrets", mode="0711"),
        *(
            SecretFile(
                path=one.file,
                owner=one.owner,
                mode="0600" if one.owner == "root" else f"0600 {one.owner}:root",
                expression=one.variable or f"lookup('ansible.builtin.env', '{one.env}')",
            )
            for one in lock.intent.secrets
        ),
    ]


def _clients(lock: HostLock) -> list[Resource]:
    """What runs behind the gate, what starts it, what tells whether it serves, and its images."""
    by_network: dict[str, list[ClientContainer]] = defaultdict(list)
    for one in lock.intent.clients:
        by_network[one.network].append(one)
    if not by_network:
        return []
    resources: list[Resource] = [Directory(path=HEALTH), Directory(path=CONTAINERS)]
    for network, containers in sorted(by_network.items()):
        version = lock.networks[network].value if network in lock.networks else ""
        images = tuple(dict.fromkeys(image for one in containers if (image := one.taken(version)) is not None))
        text = json.dumps([container(one, version) for one in containers], indent=4, sort_keys=True) + "\n"
        resources += [
            ContainerImages(network=network, images=images, sha256=digest("".join(f"{i}\n" for i in images))),
            File(path=f"{CONTAINERS}/{network}.json", content=text, of_client=True),
            *(
                File(path=f"{folder}/{network}", content=_started(programs.CONTAINER, verb, network), mode="0755")
                for folder, verb in ((CLIENTS, "run"), (HEALTH, "health"))
            ),
        ]
    return resources


def _started(program: str, verb: str, network: str) -> str:
    return _STARTER.format(program=program, verb=verb, network=network)


def _clusters(lock: HostLock) -> list[Resource]:
    """Behind the gate of a network that Kubernetes runs stands its node: held back unless the unit runs."""
    own = {one.network for one in lock.intent.clients}
    networks = [network for network in sorted(lock.networks) if network in CLUSTERS and network not in own]
    if not networks:
        return []
    resources: list[Resource] = [Directory(path=HEALTH), Directory(path=CLUSTER_CONFIGS)]
    for network in networks:
        text = json.dumps(CLUSTERS[network], indent=4, sort_keys=True) + "\n"
        resources += [
            # Before the drain: it needs this to hold the node back.
            File(path=f"{CLUSTER_CONFIGS}/{network}.json", content=text, pins=True),
            *(
                File(path=f"{folder}/{network}", content=_started(programs.CLUSTER, verb, network), mode="0755")
                for folder, verb in ((CLIENTS, "run"), (HEALTH, "health"))
            ),
        ]
    return resources


def container(one: ClientContainer, version: str) -> dict[str, JsonValue]:
    """Return a container as `provision-container` reads it."""
    cards = {"all": ("all",), "none": ()}.get(one.gpus, ()) if isinstance(one.gpus, str) else one.gpus
    return {
        "name": one.called,
        "image": one.taken(version),
        "ports": [port if "/" in port else f"{port}/tcp" for port in one.ports],
        "volumes": list(one.volumes),
        # Names alone: `…/lium.api-key:/run/…` would be masked in every capture, and never be as it should.
        "mounted": list(one.secrets),
        "environment": dict(one.environment),
        "gpus": list(cards),
        "command": list(one.command),
        "health_url": one.health_url or "",
        "heartbeat": one.heartbeat or "",
        "heartbeat_s": one.heartbeat_s,
    }


def watchdog_config(lock: HostLock) -> str:
    """Return what the watchdog has to know of this host."""
    value = {
        "networks": sorted(lock.networks),
        "reboot": lock.intent.policy.watchdog_may_reboot and lock.intent.policy.reboot == "allow",
        "jobs": {network: JOBS[network] for network in sorted(lock.networks) if network in JOBS},
    }
    return json.dumps(value, indent=4, sort_keys=True) + "\n"


def clients_target(networks: Iterable[str]) -> str:
    """Return the unit that wants the client of each network."""
    wants = "".join(f"Wants=provision-client@{network}.service\n" for network in sorted(networks))
    return CLIENTS_TARGET_TEXT.format(wants=wants)


def strangers(lock: HostLock, installed: dict[str, Installed] | Unknown) -> tuple[AbsentPackage, ...]:
    """Return the packages of other driver branches; two branches side by side build two modules for one card.

    What the lock names stays; so do tools that Debian builds apart, which serve any branch. Of a driver from NVIDIA's
    own repository nothing else stays: what the distribution built beside it would mix, in whatever version. The other
    way round, the packages go by which that repository brought its driver.
    """
    if lock.driver_version is None or installed is UNKNOWN:
        return ()
    locked = {package.name for package in lock.packages}
    mine = lock.driver_version.value.partition(".")[0]
    strange = _strange_rpm if manager_of(lock.os) == "dnf" else _strange
    return tuple(
        AbsentPackage(name=package.name)
        for package in sorted(installed.values(), key=lambda p: p.name)
        if package.name not in locked and strange(package, mine, vendor=lock.vendor_driver)
    )


def beside_the_lock(lock: HostLock, facts: HostFacts) -> tuple[Resource, ...]:
    """Return what a host must have, or must not, because of what it is now: the lock cannot know of it."""
    return (
        *replaced_sources(lock, facts.sources),
        *strangers(lock, facts.packages),
        *_other_engines(lock, facts.packages),
        *_other_kernels(lock, facts),
        *_held_kernels(lock, facts.packages),
        *_profiles(lock, facts),
        *((NoRunFile(),) if lock.driver_version is not None and facts.driver.run_file_install is True else ()),
    )


def _profiles(lock: HostLock, facts: HostFacts) -> tuple[Tool, ...]:
    """What loads Docker's AppArmor profile, which Debian's docker.io only recommends.

    Docker 20.10 starts no container without it where the kernel has AppArmor on: "AppArmor enabled on system but the
    docker-default profile could not be loaded", seen with 20.10.24 on a machine of minimal packages.
    """
    old = lock.engine.startswith("docker") and () < _engine_version(lock) < (23,)
    if not old or manager_of(lock.os) == "dnf" or facts.kernel.apparmor is not True:
        return ()
    return (Tool(name="apparmor"),)


# matrix/runtimes/docker-ce: Docker's packages and the distribution's can't be installed together.
_EXCLUDES = {
    "docker-ce": ("docker.io", "docker-cli", "containerd", "runc"),
    "docker-io": ("docker-ce", "docker-ce-cli", "docker-ce-rootless-extras", "containerd.io"),
}


def _other_engines(lock: HostLock, installed: dict[str, Installed] | Unknown) -> tuple[AbsentPackage, ...]:
    """The engine that makes way for the locked one: in the same transaction, and named in the plan."""
    if installed is UNKNOWN:
        return ()
    locked = {package.name for package in lock.packages}
    names = [name for name in _EXCLUDES.get(lock.engine, ()) if name in installed and name not in locked]
    return tuple(AbsentPackage(name=name, unit="runtime") for name in names)


def _other_kernels(lock: HostLock, facts: HostFacts) -> tuple[KernelModule, ...]:
    """A kernel that came after the lock was made and boots next: its module is built where it has headers."""
    release, headers = facts.kernel.next_boot, facts.kernel.headers
    if lock.driver_version is None or lock.modules is None or release is UNKNOWN or release in lock.kernels:
        return ()
    if headers is UNKNOWN or release not in headers:
        return ()
    return (KernelModule(kernel=release, version=lock.driver_version.value, flavour=flavour_of(lock.modules.value)),)


def _held_kernels(lock: HostLock, installed: dict[str, Installed] | Unknown) -> tuple[Hold, ...]:
    """Kernels move only with the driver: held, so that no upgrade brings one without a module."""
    if lock.driver_version is None or installed is UNKNOWN or not lock.intent.policy.hold_kernel:
        return ()
    locked = {package.name for package in lock.packages}
    return tuple(Hold(name=name) for name in sorted(installed) if name not in locked and _KERNEL.match(name))


# Headers of one release come and go with it; what has no release in its name brings the next one.
_KERNEL = re.compile(r"linux-(image|modules|modules-extra|modules-nvidia)-|linux-headers-(?!\d)|linux-generic(-|$)")


def _strange(package: Installed, branch: str, *, vendor: bool) -> bool:
    if not vendor and any(fnmatchcase(package.name, root) for root in VENDOR_ROOTS.split()):
        return True
    if module_flavour(package.name) is not None:  # beside the locked ones: of the other flavour, or of another branch
        return True
    its = branch_of(package.name, package.version)
    return its is not None and (vendor or its != branch)


_RPM_FLAVOURS = re.compile(r"kmod-nvidia-(open|latest)-dkms|nvidia-open|cuda-drivers")


def _strange_rpm(package: Installed, branch: str, *, vendor: bool) -> bool:
    """The other flavour's module package, what would bring it back, and what is of another branch.

    A desktop's packages of the same version stay: the resolver has locked them along.
    """
    if _RPM_FLAVOURS.fullmatch(package.name):
        return True
    its = branch_of(package.name, package.version)
    return its is not None and its != branch


def flavour_of(value: str) -> Flavour:
    """Return the module flavour that a lock names."""
    return "open" if value == "open" else "proprietary"


def preferences(packages: list[LockedPackage], *, vendor_driver: bool = False) -> str:
    """Return an apt_preferences(5) file that pins each package at its version, one stanza per version.

    A host keeps one driver source: where the driver is the distribution's, the packages by which NVIDIA's own
    repository brings one cannot be installed, whoever asks for them.
    """
    by_version: dict[str, list[str]] = defaultdict(list)
    for package in packages:
        by_version[package.version].append(package.name)
    stanzas = [
        f"Package: {' '.join(sorted(names))}\nPin: version {version}\nPin-Priority: {PIN_PRIORITY}\n"
        for version, names in sorted(by_version.items())
    ]
    if not vendor_driver and any(package.unit == "driver" for package in packages):
        stanzas.append(f"Package: {VENDOR_ROOTS}\nPin: version *\nPin-Priority: -1\n")
    return HEADER.format(comment="#") + "\n" + "\n".join(stanzas)


def version_locks(lock: HostLock) -> tuple[str, ...]:
    """Return the entries of dnf's version lock: the locked packages, and the kernels that have the driver's module.

    An entry keeps every other version of its package away, so no upgrade brings a kernel without a module.
    """
    entries = {version_lock(package.name, package.version) for package in lock.packages if package.hold}
    if lock.driver_version is not None and lock.intent.policy.hold_kernel:
        for release in lock.kernels:
            version, _, architecture = release.rpartition(".")
            if architecture not in ("x86_64", "aarch64"):
                continue  # a kernel of no RPM
            entries |= {version_lock(name, version) for name in _RPM_KERNELS}
    return tuple(sorted(entries))


def version_lock(name: str, version: str) -> str:
    """`nvidia-driver-cuda-3:580.95.05-1.el9.*`, as `dnf versionlock add` writes it; an epoch always stands there."""
    return f"{name}-{version if ':' in version else f'0:{version}'}.*"


_RPM_KERNELS = (
    "kernel",
    "kernel-core",
    "kernel-modules",
    "kernel-modules-core",
    "kernel-modules-extra",
    "kernel-devel",
    "kernel-devel-matched",
)


def unattended(packages: list[LockedPackage]) -> str:
    """Return an apt.conf(5) file that keeps unattended-upgrades away; its entries are regular expressions."""
    names = "\n".join(f'    "^{_escaped(package.name)}$";' for package in sorted(packages, key=lambda p: p.name))
    return HEADER.format(comment="//") + "Unattended-Upgrade::Package-Blacklist {\n" + names + "\n};\n"


def _escaped(name: str) -> str:
    return name.replace(".", "\\.").replace("+", "\\+")


HEADER = "{comment} Written by provision from provision.lock; the next plan puts it back when it is changed.\n"

NOUVEAU_TEXT = (
    HEADER.format(comment="#")
    + "# nouveau binds the card before the NVIDIA module can, when the initramfs or udev loads it first.\n"
    + "blacklist nouveau\noptions nouveau modeset=0\n"
)

CDI_OFF_TEXT = (
    HEADER.format(comment="#")
    + "# What runs here wants no CDI spec. A unit whose condition does not hold is left out, and has not failed.\n"
    + "[Unit]\nConditionPathExists=/nonexistent\n"
)

# The minus: a host that goes down does so, whatever becomes of this.
DOCKER_ENDS_TEXT = (
    HEADER.format(comment="#")
    + "# With live-restore the daemon ends no container, and one that does not listen holds a reboot up for 90 s.\n"
    + f"[Service]\nExecStopPost=-{programs.ENDING}\n"
)

# What NVIDIA's documents advise against containers that lose their GPUs when systemd reloads (troubleshooting, "Failed
# to initialize NVML"): runc finds a device node by its numbers in /dev/char, where the driver makes no links.
DEV_CHAR_TEXT = (
    HEADER.format(comment="#")
    + 'ACTION=="add", DEVPATH=="/bus/pci/drivers/nvidia", '
    + 'RUN+="/usr/bin/nvidia-ctk system create-dev-char-symlinks --create-all"\n'
)

CLIENTS_TARGET_TEXT = (
    HEADER.format(comment="#")
    + """[Unit]
Description=Clients of compute networks, started only on an enrolled host
ConditionPathExists=/var/lib/provision/enrolment.json
{wants}
[Install]
WantedBy=multi-user.target
"""
)

# ExecCondition: a gate that stays closed is not a failed unit. The + runs it as root whatever user the client has.
# A gate that is closed for what may pass by itself, such as a clock that nobody has set yet, exits with 255: that is a
# failure, so systemd asks again after RestartSec, and does so for as long as it takes.
CLIENT_UNIT_TEXT = (
    HEADER.format(comment="#")
    + """[Unit]
Description=Client of %i
PartOf=provision-clients.target
Wants=network-online.target time-sync.target
After=network-online.target time-sync.target docker.service nvidia-persistenced.service nvidia-cdi-refresh.service
After=kubelet.service k3s.service k3s-agent.service rke2-server.service rke2-agent.service
ConditionPathExists=/var/lib/provision/enrolment.json
ConditionFileIsExecutable=/usr/local/lib/provision/clients/%i
StartLimitIntervalSec=0

[Service]
ExecCondition=+/usr/local/sbin/provision-gate admit %i
ExecStart=/usr/local/lib/provision/clients/%i
Restart=on-failure
RestartSec=30
TimeoutStopSec=300

[Install]
WantedBy=provision-clients.target
"""
)

WATCHDOG_SERVICE_TEXT = (
    HEADER.format(comment="#")
    + """[Unit]
Description=See what is wrong on this host, and take the next step

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/provision-watchdog run
TimeoutStartSec=300
"""
)

WATCHDOG_TIMER_TEXT = (
    HEADER.format(comment="#")
    + """[Unit]
Description=Look at this host every minute

[Timer]
OnBootSec=2min
OnUnitInactiveSec=1min
AccuracySec=5s

[Install]
WantedBy=timers.target
"""
)

POWER_SERVICE_TEXT = (
    HEADER.format(comment="#")
    + """[Unit]
Description=Hold each card to its power policy
After=nvidia-persistenced.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/provision-power apply

[Install]
WantedBy=multi-user.target
"""
)

# The driver forgets what it was told when it is loaded anew; restart, for the unit counts as active since the boot.
POWER_RULE_TEXT = (
    HEADER.format(comment="#")
    + """ACTION=="add", SUBSYSTEM=="module", KERNEL=="nvidia", """
    + """RUN+="/bin/systemctl --no-block restart provision-power.service"
"""
)
