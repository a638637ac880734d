"""Upgrades there and back on real hosts with real packages: what is kept, and the way back with no source left.

Debian 12 from 535.216.03 of the backports to 535.261.03 and from the tesla-470 packages to 535, Debian 13 from
tesla-535 to 550, docker.io to the build that the archive offers next, and Debian 11, which goes no further than its
archive does.
The short form is in test_back_story.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from tests.lab.operator import LONG, Operator
from tests.lab.state import record, state

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

# host → image and card, then the driver before and after; both of Debian 12 go to one version, which is built once
JOURNEYS = {
    "rig-12": ("bookworm:rtx-3090", "535.216.03", "535.261.03"),
    "rig-47": ("bookworm:rtx-3090", "470", "535.261.03"),
    "rig-13": ("trixie:rtx-4090", "535", "550"),
}
# Breaks the runtime while the newer driver is loaded: only a look after the reboot can see it.
SABOTAGE = """[Unit]
Before=docker.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'if grep -q {version} /sys/module/nvidia/version; then mv /usr/sbin/runc /usr/sbin/runc.away; \
elif [ -e /usr/sbin/runc.away ]; then mv /usr/sbin/runc.away /usr/sbin/runc; fi'
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def operator(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    lab = lab_factory(*(f"{name}={spec}" for name, (spec, _, _) in JOURNEYS.items()))
    found = Operator(lab, tmp_path_factory.mktemp("operator"))
    for name, (_, before, _) in JOURNEYS.items():
        found.want(name, networks=["golem"], driver=before)
    yield found


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    """What each host was with the driver before, as test 01 saw it."""
    return {}


def without_sources(operator: Operator, host: str) -> None:
    """The archive is gone, and so is everything that was downloaded from it."""
    operator.on(
        host,
        "sudo sh -c 'mv /etc/apt/sources.list /root/; rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb'",
    )


def with_sources(operator: Operator, host: str) -> None:
    operator.on(host, "sudo sh -c 'mv /root/sources.list /etc/apt/; apt-get update -qq'")


def test_01_the_driver_before(operator: Operator, before: dict[str, str]) -> None:
    """Every host is enrolled with the older driver; the plan named every package that came."""
    for name, plan in operator.plan().items():
        moves = {move["name"] for move in plan["transaction"]}
        assert {c["wanted"]["name"] for c in plan["changes"] if c["wanted"]["kind"] == "package"} <= moves, name
    operator.run("apply", "--yes")
    for name in JOURNEYS:
        before[name] = state(operator, name)
        assert JOURNEYS[name][1] in before[name].partition("# running")[2]


def test_02_there(operator: Operator) -> None:
    """The newer driver comes, the packages of another branch go, and the seconds are told host by host."""
    for name, (_, _, after) in JOURNEYS.items():
        operator.want(name, networks=["golem"], driver=after)
    said = operator.run("apply", "--yes", "--json")
    result, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])

    for name, (_, _, after) in JOURNEYS.items():
        host = result["hosts"][name]
        assert host["state"] == "enrolled"
        assert host["staged_s"] > 0 and host["rebooting_s"] > 0
        assert host["not_serving_s"] > host["rebooting_s"]
        assert operator.on(name, "cat /sys/module/nvidia/version").startswith(after.partition(".")[0])
    assert "Nothing to change" in operator.run("plan", "--exit-code")


def test_03_the_change_is_kept(operator: Operator) -> None:
    """Two changes, the newer one with archives of all that it replaced; readable for root alone.

    What Debian 13 has of its main archive beside tesla-535 stays as it is, and is held with 550: it has no archive.
    """
    for name in JOURNEYS:
        entries = json.loads(operator.run("history", name, "--json"))["hosts"][name]
        assert len(entries) == 2 and all(entry["done"] for entry in entries)
        rows = operator.on(name, "dpkg-query -W -f '${Package} ${Version}\\n'").splitlines()
        now = dict(row.split(" ", 1) for row in rows if row.count(" ") == 1)
        there = {n: package for n, package in entries[1]["packages"].items() if package["version"] is not None}
        assert any(package["sha256"] for package in there.values())
        assert {n for n, package in there.items() if not package["sha256"]} <= {
            n for n, package in there.items() if now.get(n) == package["version"]
        }
        operator.on(
            name,
            f"sudo sh -c 'ls /var/lib/provision/history/{entries[1]['run']}/debs/*.deb' && ! ls "
            "/var/lib/provision/history",
        )


def test_04_back_with_no_package_source(operator: Operator, before: dict[str, str]) -> None:
    """The host is what it was, package for package and file for file, verified and enrolled."""
    for name in JOURNEYS:
        without_sources(operator, name)
        try:
            operator.run("rollback", name, "--yes")
        finally:
            with_sources(operator, name)
        assert state(operator, name) == before[name]
        assert record(operator, name)


def test_05_a_driver_that_does_not_work_goes_by_itself(operator: Operator, before: dict[str, str]) -> None:
    """Without runc the engine does not start after the reboot: the host is brought back and serves again.

    The reason is told, and the exit code is a failure. A dockerd that starts all the same is caught by the checks.
    """
    name, (_, _, after) = next(iter(JOURNEYS.items()))
    unit = "/etc/systemd/system/sabotage.service"
    operator.lab.host(name).exec(["sh", "-c", f"cat >{unit} <<'EOF'\n{SABOTAGE.format(version=after)}\nEOF\n"])
    operator.on(name, "sudo systemctl enable sabotage.service")
    output = operator.run("apply", "--yes", "--limit", name, code=Exit.FAILED)

    assert "rolled back" in output and "docker" in output.partition("did not pass")[2]
    assert "[difference-left]" in output or "[not-verified]" in output
    assert record(operator, name)
    operator.on(name, "sudo systemctl disable sabotage.service && sudo rm " + unit)
    assert state(operator, name) == before[name]


def test_06_made_from_what_is_installed(operator: Operator, before: dict[str, str]) -> None:
    """With neither cache nor source for the old packages, archives are made of what is installed, and serve as well."""
    name = next(iter(JOURNEYS))
    operator.on(
        name,
        "sudo sh -c 'rm -f /var/cache/apt/archives/*216*; sed -i /backports/d /etc/apt/sources.list; apt-get update'",
    )
    operator.run("apply", "--yes", "--limit", name)
    operator.run("rollback", name, "--yes")

    assert state(operator, name) == before[name]


def test_07_what_apt_would_do_besides_is_refused(operator: Operator) -> None:
    """A package of somebody's that conflicts with the driver would go: the plan says so and is blocked."""
    name = next(iter(JOURNEYS))
    control = "Package: desk-tool\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n"
    operator.on(
        name,
        "mkdir -p /tmp/desk/DEBIAN && "
        f"printf '{control}Breaks: libcuda1 (>= 535.261)\\n' >/tmp/desk/DEBIAN/control && "
        "dpkg-deb -b /tmp/desk /tmp/desk.deb && sudo dpkg -i /tmp/desk.deb",
    )
    output = operator.run("plan", "--limit", name, code=Exit.FAILED)

    assert "blocked: apt would remove desk-tool 1, which the plan did not ask for" in output
    assert "[plan-blocked]" in operator.run("apply", "--yes", "--limit", name, code=Exit.FAILED)
    operator.on(name, "sudo dpkg -P desk-tool")


def test_08_docker_to_the_next_version_and_back(operator: Operator) -> None:
    """Debian 13 offers two builds of docker.io: the older one is locked by hand, then the newer one, then back."""
    name = "rig-13"
    lock_path = operator.folder / "provision.lock"
    newer = lock_path.read_text(encoding="utf-8")
    offered = operator.on(name, "apt-cache madison docker.io | awk '{print $3}'").split()
    assert len(set(offered)) > 1, "the archive offers only one build now"
    lock = json.loads(newer)
    for package in lock["hosts"][name]["packages"]:
        if package["name"] in ("docker.io", "docker-cli"):
            stanza = operator.on(name, f"apt-cache show {package['name']}={offered[-1]}")
            fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line)
            package |= {"version": offered[-1], "sha256": fields["SHA256"], "size": int(fields["Size"])}
    lock_path.write_text(json.dumps(lock), encoding="utf-8")
    operator.run("apply", "--yes", "--limit", name)
    old = state(operator, name)
    assert f"docker.io {offered[-1]} hi" in old
    lock_path.write_text(newer, encoding="utf-8")
    operator.run("apply", "--yes", "--limit", name)
    assert f"docker.io {offered[0]} hi" in state(operator, name)
    operator.run("rollback", name, "--yes")

    assert state(operator, name) == old


def test_09_debian_11_goes_no_further_than_its_archive(lab_factory: Callable[..., Lab], tmp_path: Path) -> None:
    """470 as it is resolves; what is newer than all that the release has is refused, with what would help."""
    operator = Operator(lab_factory("rig-11=bullseye:rtx-3090"), tmp_path)
    operator.want("rig-11", networks=["golem"], driver="470")
    driver = json.loads((tmp_path / "provision.lock").read_text())["hosts"]["rig-11"]["driver_version"]
    assert driver["value"].startswith("470.")
    madison = operator.on("rig-11", "apt-cache madison nvidia-driver").splitlines()
    newest = max(int(row.split("|")[1].strip().partition(".")[0]) for row in madison)
    wish = f'provision_networks: [golem]\nprovision_driver: ">={newest + 1}"\n'
    (operator.lab.folder / "host_vars" / "rig-11.yml").write_text(wish, encoding="utf-8")
    said = operator.run("resolve", code=Exit.UNRESOLVABLE)

    assert "this host's package sources" in said and "upgrade to Debian " in said
