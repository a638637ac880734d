"""The machine's apt configuration decides where lab hosts get Debian from, in either of its two notations."""

from __future__ import annotations

import pytest

from provisioner.adapters.lab.mirror import (
    Mirror,
    Source,
    carried_settings,
    choose,
    parse_deb822,
    parse_one_line,
    source_lines,
)
from provisioner.errors import ProvisionError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ONE_LINE = f"""# the archive
deb [arch=amd64 signed-by={KEYRING}] http://mirror.example/debian bookworm main contrib  # nearest
deb-src http://mirror.example/debian bookworm main
deb http://mirror.example/debian-security bookworm-security main
deb http://other.example/tools stable main
"""
DEB822 = f"""Types: deb deb-src
# a comment between the keys
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: {KEYRING}

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: sid
Components: main
"""


def test_one_line_sources() -> None:
    """`deb` lines count, with their options; source packages and comments do not."""

    assert parse_one_line(ONE_LINE)[:2] == [
        Source("http://mirror.example/debian", "bookworm", ("main", "contrib"), KEYRING),
        Source("http://mirror.example/debian-security", "bookworm-security", ("main",)),
    ]


def test_deb822_sources() -> None:
    """Each suite of a stanza is a source; a stanza that is off is none; a key written out is no keyring file."""

    assert parse_deb822(DEB822) == [
        Source("http://mirror.example/debian", "bookworm", ("main",), KEYRING),
        Source("http://mirror.example/debian", "bookworm-updates", ("main",), KEYRING),
        Source("http://mirror.example/debian-security", "bookworm-security", ("main",)),
    ]


@pytest.mark.parametrize("sources", [parse_one_line(ONE_LINE), parse_deb822(DEB822)])
def test_choice_is_the_same_from_both(sources: list[Source]) -> None:
    expected = Mirror("http://mirror.example/debian", "http://mirror.example/debian-security", KEYRING)

    assert choose(sources, ()) == expected


def test_machine_without_debian() -> None:
    """An Ubuntu machine has no Debian archive; the error says how to give one."""
    with pytest.raises(ProvisionError) as caught:
        choose([Source("http://mirror.example/ubuntu", "jammy", ("main",))], ())

    assert "PROVISION_LAB_MIRROR" in str(caught.value.hint)


def test_settings_of_the_way_are_carried_and_no_others() -> None:
    dump = "\n".join(
        [
            'APT::Architecture "amd64";',
            'Acquire "";',
            'Acquire::Check-Valid-Until "false";',
            'Acquire::http::Proxy "http://proxy.example:3142";',
            'Acquire::http "";',
            'Acquire::Languages "none";',
        ]
    )

    assert carried_settings(dump) == (
        'Acquire::Check-Valid-Until "false";',
        'Acquire::http::Proxy "http://proxy.example:3142";',
    )


def test_source_lines_name_the_right_address_for_each_pocket() -> None:
    mirror = Mirror("http://mirror.example/debian", "http://mirror.example/security", KEYRING)

    text = source_lines(mirror, "trixie", ("main", "non-free"), ("trixie-updates", "trixie-security"))

    assert text.splitlines() == [
        f"deb [signed-by={KEYRING}] http://mirror.example/debian trixie main non-free",
        f"deb [signed-by={KEYRING}] http://mirror.example/debian trixie-updates main non-free",
        f"deb [signed-by={KEYRING}] http://mirror.example/security trixie-security main non-free",
    ]
