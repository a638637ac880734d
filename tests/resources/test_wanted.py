"""The text of the files that pin: apt reads them, so every character counts."""

from __future__ import annotations

import pytest

from provisioner.model.resource import Package, Service
from provisioner.model.stack import Choice
from provisioner.resources.wanted import preferences, unattended, wanted
from tests.world import entry, locked


def test_preferences_pin_each_package_at_its_version() -> None:
    """One stanza per version, above 1000 so that a foreign source cannot win."""
    text = preferences([locked("nvidia-smi"), locked("libcuda1"), locked("docker.io", "20.10.24+dfsg1-1", "runtime")])

    assert text == (
        "# Written by provision from provision.lock; the next plan puts it back when it is changed.\n"
        "\n"
        "Package: docker.io\nPin: version 20.10.24+dfsg1-1\nPin-Priority: 1001\n"
        "\n"
        "Package: libcuda1 nvidia-smi\nPin: version 535.261.03-1~deb12u1\nPin-Priority: 1001\n"
    )


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

    assert [r.name for r in resources if isinstance(r, Service)] == services


def test_the_toolkit_is_installed_and_held_like_the_rest() -> None:
    names = ("nvidia-container-toolkit", "libnvidia-container1")
    lock = entry(packages=tuple(locked(name, "1.19.1-1", "toolkit") for name in names))

    found = {r.name: r for r in wanted(lock) if isinstance(r, Package) and r.unit == "toolkit"}

    assert set(found) == set(names)
    assert all(package.held and package.version == "1.19.1-1" for package in found.values())
