"""What a host must have to be what its lock entry says: lock → resources. Decides nothing that the lock left open."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable

from pydantic import JsonValue

from provisioner.host import programs
from provisioner.model.capture import UNKNOWN, Unknown
from provisioner.model.driver_package import branch_of
from provisioner.model.facts import Flavour
from provisioner.model.facts import Package as Installed
from provisioner.model.requirements import digest, requirements
from provisioner.model.resource import (
    AbsentPackage,
    Directory,
    File,
    KernelModule,
    Package,
    PythonEnvironment,
    Resource,
    RunningDriver,
    SecretFile,
    Service,
    Settings,
    WholePackages,
)
from provisioner.model.stack import HostLock, LockedPackage

STATE = "/var/lib/provision"
PREFERENCES = "/etc/apt/preferences.d/provision.pref"
UNATTENDED = "/etc/apt/apt.conf.d/52provision-unattended-upgrades"
NOUVEAU = "/etc/modprobe.d/provision-nouveau.conf"
MODULE_OPTIONS = "/etc/modprobe.d/provision-nvidia.conf"
DOCKER_SETTINGS = "/etc/docker/daemon.json"
CLIENTS_TARGET = "/etc/systemd/system/provision-clients.target"
CLIENT_UNIT = "/etc/systemd/system/provision-client@.service"
UNITS = "/etc/systemd/system"
WATCHDOG_CONFIG = "/etc/provision/watchdog.json"
POWER_CONFIG = "/etc/provision/power.json"
POWER_RULE = "/etc/udev/rules.d/90-provision-power.rules"
JOBS = {"lium": "pod_*", "prime-intellect-worker": "prime-task-*"}
"""Containers that carry a job, where the network's contract in the matrix names them; a test holds both together."""
CLIENTS = f"{programs.FOLDER}/clients"
"""What starts the client of a network lies here, an executable file under the network's id."""

# A priority above 1000 keeps the version even when it means a downgrade (apt_preferences(5)), so that a
# foreign repository with a higher number cannot win against the lock.
PIN_PRIORITY = 1001

# live-restore keeps containers running while the daemon restarts, so an upgrade of docker.io ends no job.
DOCKER_VALUES: dict[str, JsonValue] = {"live-restore": True}


def wanted(lock: HostLock) -> tuple[Resource, ...]:
    """Return the resources in the order in which they would be put in place."""
    resources: list[Resource] = [Directory(path=STATE), WholePackages()]
    held = [package for package in lock.packages if package.hold]
    if held:
        resources.append(File(path=PREFERENCES, content=preferences(held), pins=True))
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
        resources.append(Settings(path=DOCKER_SETTINGS, values=DOCKER_VALUES, restarts=("docker.service",)))
        resources.append(Service(name="docker.service"))
    elif lock.engine == "containerd":
        resources.append(Service(name="containerd.service"))
    resources += _gate(lock)
    resources += _watchdog(lock)
    resources += _secrets(lock)
    resources += [
        PythonEnvironment(network=network, sha256=digest(listed))
        for network in sorted(lock.networks)
        if (listed := requirements(network)) is not None
    ]
    if running is not None:
        resources.append(running)
        if any(package.name.startswith("nvidia") and "persistenced" in package.name for package in lock.packages):
            resources.append(Service(name="nvidia-persistenced.service", after_reboot=True))
    return tuple(resources)


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


def watchdog_config(lock: HostLock) -> str:
    """Return what the watchdog has to know of this host."""
    value = {
        "networks": sorted(lock.networks),
        "reboot": lock.intent.policy.reboot == "allow",
        "jobs": {network: JOBS[network] for network in sorted(lock.networks) if network in JOBS},
    }
    return json.dumps(value, indent=4, sort_keys=True) + "\n"


def clients_target(networks: Iterable[str]) -> str:
    """Return the unit that wants the client of each network."""
    wants = "".join(f"Wants=provision-client@{network}.service\n" for network in sorted(networks))
    return CLIENTS_TARGET_TEXT.format(wants=wants)


def strangers(lock: HostLock, installed: dict[str, Installed] | Unknown) -> tuple[AbsentPackage, ...]:
    """Return the packages of other driver branches; two branches side by side build two modules for one card.

    What the lock names stays; so do tools that Debian builds apart, which serve any branch.
    """
    if lock.driver_version is None or installed is UNKNOWN:
        return ()
    locked = {package.name for package in lock.packages}
    mine = lock.driver_version.value.partition(".")[0]
    return tuple(
        AbsentPackage(name=package.name)
        for package in sorted(installed.values(), key=lambda p: p.name)
        if package.name not in locked and branch_of(package.name, package.version) not in (None, mine)
    )


def flavour_of(value: str) -> Flavour:
    """Return the module flavour that a lock names."""
    return "open" if value == "open" else "proprietary"


def preferences(packages: list[LockedPackage]) -> str:
    """Return an apt_preferences(5) file that pins each package at its version, one stanza per version."""
    by_version: dict[str, list[str]] = defaultdict(list)
    for package in packages:
        by_version[package.version].append(package.name)
    stanzas = [
        f"Package: {' '.join(sorted(names))}\nPin: version {version}\nPin-Priority: {PIN_PRIORITY}\n"
        for version, names in sorted(by_version.items())
    ]
    return HEADER.format(comment="#") + "\n" + "\n".join(stanzas)


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
CLIENT_UNIT_TEXT = (
    HEADER.format(comment="#")
    + """[Unit]
Description=Client of %i
PartOf=provision-clients.target
Wants=network-online.target
After=network-online.target time-sync.target docker.service nvidia-persistenced.service
ConditionPathExists=/var/lib/provision/enrolment.json
ConditionFileIsExecutable=/usr/local/lib/provision/clients/%i

[Service]
ExecCondition=+/usr/local/sbin/provision-gate check %i
ExecStart=/usr/local/lib/provision/clients/%i
Restart=on-failure
RestartSec=30

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
