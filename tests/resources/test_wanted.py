"""The text of the files that pin: apt reads them, so every character counts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provisioner.host import programs
from provisioner.model.capture import UNKNOWN, CommandOutput
from provisioner.model.facts import Package as Installed
from provisioner.model.facts import SourceEntry
from provisioner.model.intent import ClientContainer, Intent, Policy, PowerPolicy
from provisioner.model.resource import (
    ABSENT,
    AbsentFile,
    AbsentPackage,
    File,
    Guarded,
    GuardedFile,
    Package,
    ReplacedSource,
    Service,
    Tool,
)
from provisioner.model.stack import Choice
from provisioner.resources.observed import observed
from provisioner.resources.wanted import (
    CDI_OFF,
    CLIENT_UNIT_TEXT,
    CLIENTS,
    HEALTH,
    beside_the_lock,
    clients_target,
    docker_values,
    preferences,
    replaced_sources,
    strangers,
    unattended,
    wanted,
    watchdog_config,
)
from tests.world import DRIVER_DEB, SOURCE, entry, fitting_capture, fitting_facts, locked

TOOLKIT = Choice(value="nvidia-container-toolkit 1.20.0-1")


def test_preferences_pin_each_package_at_its_version() -> None:
    """One stanza per version, above 1000 so that a foreign source cannot win."""
    text = preferences([locked("nvidia-smi"), locked("libcuda1"), locked("docker.io", "20.10.24+dfsg1-1", "runtime")])

    assert text == (
        "# Written by provision from provision.lock; the next plan puts it back when it is changed.\n"
        "\n"
        "Package: docker.io\nPin: version 20.10.24+dfsg1-1\nPin-Priority: 1001\n"
        "\n"
        "Package: libcuda1 nvidia-smi\nPin: version 535.261.03-1~deb12u1\nPin-Priority: 1001\n"
        "\n"
        "Package: cuda-drivers cuda-drivers-[0-9]* nvidia-open nvidia-open-[0-9]* nvidia-driver-pinning-[0-9]*\n"
        "Pin: version *\nPin-Priority: -1\n"
    )


def test_a_driver_of_nvidias_own_repository_may_have_its_roots() -> None:
    """What brings that driver is kept away only where the driver is the distribution's."""
    assert "cuda-drivers" not in preferences([locked("nvidia-smi")], vendor_driver=True)
    assert "cuda-drivers" not in preferences([locked("docker.io", "1", "runtime")])


def test_a_move_to_another_driver_source_takes_away_what_would_mix() -> None:
    """There: all of the distribution's driver that the new source does not have. Back: what only the vendor has."""
    lock = entry(vendor_driver=True)
    found = {
        "nvidia-smi": Installed("nvidia-smi", DRIVER_DEB, held=True),
        "nvidia-alternative": Installed("nvidia-alternative", DRIVER_DEB, held=True),
        "nvidia-modprobe": Installed("nvidia-modprobe", DRIVER_DEB, held=False),
        "cuda-drivers": Installed("cuda-drivers", "535.261.03-1", held=False),
    }

    assert [p.name for p in strangers(lock, found)] == ["nvidia-alternative"]
    assert [p.name for p in strangers(entry(), found)] == ["cuda-drivers"]


@pytest.mark.parametrize(
    "name",
    ["nvidia-open-kernel-dkms", "nvidia-open-kernel-support", "nvidia-dkms-535-open", "nvidia-kernel-source-535"],
)
def test_what_carries_or_sets_up_another_module_goes(name: str) -> None:
    """Of the same version as the locked driver, with the other flavour or under another name."""
    found = {
        name: Installed(name, DRIVER_DEB, held=False),
        "nvidia-smi": Installed("nvidia-smi", DRIVER_DEB, held=True),
    }

    assert [p.name for p in strangers(entry(), found)] == [name]
    assert strangers(entry(packages=(*entry().packages, locked(name))), found) == ()


def test_a_file_of_somebody_else_with_the_same_address_makes_way() -> None:
    """apt refuses two keys for one address; what else stands in the file is told, so that it is not lost."""
    lock = entry(sources=(SOURCE,))
    entries = (
        SourceEntry("/etc/apt/sources.list.d/docker.list", "https://docker.example/linux/debian/", "bookworm"),
        SourceEntry("/etc/apt/sources.list", "http://mirror.example/debian", "bookworm"),
        SourceEntry("/etc/apt/sources.list", "https://docker.example/linux/debian", "bookworm"),
        SourceEntry(SOURCE.path, SOURCE.uri, "bookworm"),
    )

    assert replaced_sources(lock, entries) == (
        ReplacedSource(path="/etc/apt/sources.list.d/docker.list", by="docker"),
        ReplacedSource(path="/etc/apt/sources.list", by="docker", also=("http://mirror.example/debian",)),
    )
    assert replaced_sources(lock, UNKNOWN) == ()


def test_unattended_upgrades_takes_regular_expressions() -> None:
    """Names are anchored and their dots and pluses escaped, so that no other package is meant."""
    text = unattended([locked("docker.io"), locked("libstdc++6")])

    assert text == (
        "// Written by provision from provision.lock; the next plan puts it back when it is changed.\n"
        "Unattended-Upgrade::Package-Blacklist {\n"
        '    "^docker\\.io$";\n'
        '    "^libstdc\\+\\+6$";\n'
        "};\n"
    )


@pytest.mark.parametrize(
    ("engine", "services"),
    [("docker.io 26.1.5", ["docker.service"]), ("containerd 1.7.24", ["containerd.service"]), ("podman 5.4.2", [])],
)
def test_each_engine_has_its_own_service(engine: str, services: list[str]) -> None:
    """Podman has no daemon, and a host without Docker is not to start one."""
    resources = wanted(entry(runtime=Choice(value=engine), driver_version=None))

    assert [r.name for r in resources if isinstance(r, Service)] == [*services, "provision-watchdog.timer"]


def test_the_toolkit_is_installed_and_held_like_the_rest() -> None:
    names = ("nvidia-container-toolkit", "libnvidia-container1")
    lock = entry(packages=tuple(locked(name, "1.19.1-1", "toolkit") for name in names))

    found = {r.name: r for r in wanted(lock) if isinstance(r, Package) and r.unit == "toolkit"}

    assert set(found) == set(names)
    assert all(package.held and package.version == "1.19.1-1" for package in found.values())


@pytest.mark.parametrize(
    ("runtime", "cdi", "features"),
    [
        ("docker.io 20.10.24+dfsg1-1", "present", None),
        ("docker.io 26.1.5+dfsg1-9", "present", {"cdi": True}),
        ("docker-ce 5:28.5.2-1~debian.12~bookworm", "present", None),
        ("docker-ce 5:28.5.2-1~debian.12~bookworm", "absent", {"cdi": False}),
    ],
)
def test_dockers_cdi_is_said_only_where_it_knows_of_it(runtime: str, cdi: str, features: object) -> None:
    """Known from 25.0 on, and on by itself from 28.2."""
    lock = entry(runtime=Choice(value=runtime), cdi=Choice(value=cdi), toolkit=TOOLKIT)

    assert docker_values(lock).get("features") == features


def test_docker_gets_what_the_lock_decided_and_nothing_else() -> None:
    """Cgroup driver and default runtime are the owner's where the lock leaves them open."""
    assert docker_values(entry()) == {"live-restore": True}
    assert docker_values(entry(toolkit=TOOLKIT, cgroup_driver="cgroupfs", default_runtime="nvidia")) == {
        "live-restore": True,
        "runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}},
        "default-runtime": "nvidia",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
    }


def test_specs_follow_the_driver_or_are_gone() -> None:
    """On: a spec of just this driver. Off: no spec, and nobody who would write one."""
    on = [r.key for r in wanted(entry(toolkit=TOOLKIT, cdi=Choice(value="present")))]
    off = [r.key for r in wanted(entry(toolkit=TOOLKIT, cdi=Choice(value="absent")))]

    assert "CDI spec" in on
    assert "CDI spec" not in off
    assert {"file /etc/cdi/nvidia.yaml", "file /var/run/cdi/nvidia.yaml", f"file {CDI_OFF}"} <= set(off)
    [told] = [r for r in wanted(entry(toolkit=TOOLKIT, cdi=Choice(value="absent"))) if r.key == f"file {CDI_OFF}"]
    [gone] = [r for r in wanted(entry(toolkit=TOOLKIT, cdi=Choice(value="present"))) if r.key == f"file {CDI_OFF}"]
    # The package enables its unit when it comes: what keeps it from running must be there before.
    assert isinstance(told, File) and told.pins and "ConditionPathExists=/nonexistent" in told.content
    assert isinstance(gone, AbsentFile)


def test_the_engine_that_makes_way_is_named() -> None:
    """Docker's own packages and Debian's exclude each other; containers stop, so nobody should learn it from apt."""
    facts = fitting_facts(entry())
    lock = entry(runtime=Choice(value="docker-ce 5:29.3.0-1"), packages=(locked("docker-ce", "5:29.3.0-1", "runtime"),))

    gone = [r for r in beside_the_lock(lock, facts) if isinstance(r, AbsentPackage) and r.unit == "runtime"]
    assert [r.name for r in gone] == ["docker.io"]
    assert not [r for r in beside_the_lock(entry(), facts) if isinstance(r, AbsentPackage)]


def test_a_power_policy_brings_its_unit() -> None:
    """Applied at boot, and by the rule whenever the module is loaded anew; without a policy nothing of it is there."""
    plain = {r.key for r in wanted(entry())}
    policy = PowerPolicy(model="NVIDIA GeForce RTX 4090", limit_w=350)
    held = [r for r in wanted(entry(intent=Intent(power=(policy,)))) if r.key not in plain]

    assert [r.key for r in held] == [
        "file /etc/provision/power.json",
        "file /etc/systemd/system/provision-power.service",
        "file /etc/udev/rules.d/90-provision-power.rules",
        "service provision-power.service",
    ]
    assert isinstance(held[0], File)
    assert json.loads(held[0].content) == {"NVIDIA GeForce RTX 4090": {"limit_w": 350.0}}


_NEVER = Policy(watchdog_may_reboot=True, reboot="never")


def test_the_watchdog_knows_its_host() -> None:
    """Networks, whether it may reboot, and what a job is; switched off it is not there."""
    lock = entry(networks={"lium": Choice(value="x"), "akash": Choice(value="y")})
    assert json.loads(watchdog_config(lock)) == {
        "networks": ["akash", "lium"],
        "reboot": False,
        "jobs": {"lium": "pod_*"},
    }
    for policy, reboots in ((Policy(watchdog_may_reboot=True), True), (_NEVER, False)):
        asked = entry(intent=Intent(policy=policy))
        assert json.loads(watchdog_config(asked))["reboot"] is reboots
    off = {r.key for r in wanted(entry(intent=Intent(watchdog="off")))}
    assert not [key for key in off if "provision-watchdog." in key]


def test_clients_start_through_the_gate() -> None:
    """The target wants one unit per network, and the unit asks the gate as root, whatever user its client has."""
    assert "Wants=provision-client@akash.service\nWants=provision-client@lium.service\n" in clients_target(
        ["lium", "akash"]
    )
    for line in (
        "PartOf=provision-clients.target",
        "ConditionPathExists=/var/lib/provision/enrolment.json",
        f"ExecCondition=+{programs.GATE} admit %i",
        f"ExecStart={CLIENTS}/%i",
    ):
        assert line in CLIENT_UNIT_TEXT.splitlines()


def test_a_network_of_kubernetes_stands_behind_the_gate() -> None:
    """Its node is what the unit gives out; who names containers of the network's own has no node."""
    lock = entry(networks={"akash": Choice(value="0.16.2")})
    files = {r.path: r for r in wanted(lock) if isinstance(r, File)}
    assert "exec /usr/local/sbin/provision-cluster run akash" in files[f"{CLIENTS}/akash"].content
    assert "exec /usr/local/sbin/provision-cluster health akash" in files[f"{HEALTH}/akash"].content
    held = files["/etc/provision/cluster/akash.json"]
    assert held.pins, "the drain needs it, so it comes before the drain"
    assert json.loads(held.content)["workload"] == "statefulset/akash-provider"

    own = ClientContainer(network="akash", image="a/b@sha256:" + "0" * 64)
    asked = entry(networks={"akash": Choice(value="1")}, intent=Intent(networks=("akash",), clients=(own,)))
    paths = {r.path: r for r in wanted(asked) if isinstance(r, File)}
    assert "/etc/provision/cluster/akash.json" not in paths
    assert "provision-container run akash" in paths[f"{CLIENTS}/akash"].content


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """systemd's own check finds nothing; programs that are not installed here stand for themselves."""
    lock = entry(intent=Intent(networks=("akash",), power=(PowerPolicy(limit_w=300),)))
    for resource in wanted(lock):
        if isinstance(resource, File) and resource.path.startswith("/etc/systemd/system/"):
            text = re.sub(r"(?m)^(Exec\w+=[+-]?)\S+", r"\1/bin/true", resource.content)
            place = tmp_path / resource.path[len("/etc/systemd/system/") :]
            place.parent.mkdir(exist_ok=True)
            place.write_text(text)
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")  # for what stands beside it
    units = [path for path in sorted(tmp_path.iterdir()) if path.is_file() and "@" not in path.name]
    shutil.copy(tmp_path / "provision-client@.service", tmp_path / "provision-client@akash.service")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units, tmp_path / "provision-client@akash.service"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    assert [line for line in done.stderr.splitlines() if "provision" in line] == []


def test_a_unit_of_our_own_is_absent_where_its_file_is() -> None:
    """A host that was recorded before the unit was thought of can be planned for; others' units stay unknown."""
    lock = entry()
    facts = fitting_facts(lock)
    assert isinstance(facts.units, dict)
    asked = {name: state for name, state in facts.units.items() if name != "provision-watchdog.timer"}
    older = replace(facts, units={name: state for name, state in asked.items() if name != "docker.service"})
    capture = fitting_capture(lock)
    bare = capture.model_copy(update={"files": {**capture.files, "/etc/systemd/system/provision-watchdog.timer": None}})
    services = [r for r in wanted(lock) if isinstance(r, Service)]
    found = {service.name: observed(service, older, bare) for service in services}

    assert found["provision-watchdog.timer"] == ABSENT
    assert found["docker.service"] is UNKNOWN
    assert observed(services[1], older, capture) is UNKNOWN


def test_a_change_whose_files_are_made_by_commands_is_done_when_all_else_is() -> None:
    """The end of a tunnel on a host with ufw has no file of its own that could be missing."""
    made = tuple(GuardedFile(path=f"/etc/ufw/{name}.rules", content=None) for name in ("user", "user6"))
    change = Guarded(name="tunnel", files=made, absent=("/etc/wireguard/prov0.conf",))
    own = GuardedFile(path="/etc/provision/own", content="x")
    paths = ("/etc/wireguard/prov0.conf", own.path)
    capture, facts = fitting_capture(entry()), replace(fitting_facts(entry()), units={})
    stats = {f"stat -c '%a %U:%G %F' {path}": CommandOutput(rc=1) for path in paths}
    update = {"files": capture.files | dict.fromkeys(paths), "commands": capture.commands | stats}
    gone = capture.model_copy(update=update)

    assert observed(change, facts, gone) == change
    assert observed(change.model_copy(update={"files": (*made, own)}), facts, gone) == ABSENT


@pytest.mark.parametrize(
    ("engine", "apparmor", "wants"),
    [
        ("docker.io 20.10.24+dfsg1-1+deb12u1+b6", True, True),
        ("docker.io 20.10.24+dfsg1-1+deb12u1+b6", False, False),
        ("docker.io 20.10.24+dfsg1-1+deb12u1+b6", UNKNOWN, False),
        ("docker.io 26.1.5+dfsg1-9+b9", True, False),
        ("docker-ce 5:28.5.2-1~debian.12~bookworm", True, False),
        ("containerd 1.6.20~ds1-1+deb12u3", True, False),
        ("docker.io", True, False),
    ],
)
def test_an_older_docker_gets_what_loads_its_profile(engine: str, apparmor: object, wants: bool) -> None:
    """Without it no container starts where the kernel has AppArmor on."""
    lock = entry(runtime=Choice(value=engine))
    facts = fitting_facts(lock)
    facts = replace(facts, kernel=replace(facts.kernel, apparmor=apparmor))  # type: ignore[arg-type]

    assert (Tool(name="apparmor") in beside_the_lock(lock, facts)) is wants
