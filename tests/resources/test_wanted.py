"""The text of the files that pin: apt reads them, so every character counts."""

from __future__ import annotations

from provisioner.resources.wanted import preferences, unattended
from tests.world import locked


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
