"""RHEL-likes: what real dnf 4.14 and rpm 4.18 printed of a repository of stand-ins, read."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioner.facts import dnf_table, os_release, rpm_packages
from provisioner.model.capture import Capture, CommandOutput
from provisioner.model.facts import OsRelease
from provisioner.model.version import RpmVersion

RECORDED = Path(__file__).parent / "dnf"
LOCK = "nvidia-driver-cuda-3:580.95.05-1.el9.*"


def text(name: str) -> str:
    return (RECORDED / name).read_text(encoding="utf-8")


def test_a_point_release_is_its_release() -> None:
    found = os_release.parse('ID="rocky"\nVERSION_ID="9.6"\nPRETTY_NAME="Rocky Linux 9.6"\n', "amd64")
    assert found == OsRelease("rocky-9", "Rocky Linux 9.6", "", "amd64")


def test_installed_packages_keep_their_epoch_in_the_text() -> None:
    found = rpm_packages.parse(text("installed.txt"), (LOCK,))
    assert found["nvidia-driver-cuda"].version == "3:580.95.05-1.el9"
    assert found["kernel-devel"].version == "5.14.0-570.12.1.el9_6"
    assert [name for name, package in found.items() if package.held] == ["nvidia-driver-cuda"]
    assert all(package.whole for package in found.values())


def test_kernels_stand_side_by_side_and_nothing_else_may() -> None:
    lines = "kernel-core\t5.14.0-570.9.1.el9\tx86_64\nkernel-core\t5.14.0-570.12.1.el9\tx86_64\n"
    kernels = rpm_packages.parse(lines)["kernel-core"]
    assert (kernels.version, kernels.others, kernels.whole) == (
        "5.14.0-570.12.1.el9",
        ("5.14.0-570.9.1.el9",),
        True,
    )
    twice = rpm_packages.parse("runc\t1.2.5-2.el9\tx86_64\nrunc\t1.2.4-1.el9\tx86_64\n")["runc"]
    assert not twice.whole
    libraries = rpm_packages.parse("libnvidia-ml\t3:580.1-1.el9\tx86_64\nlibnvidia-ml\t3:580.1-1.el9\ti686\n")
    assert libraries["libnvidia-ml"].whole


@pytest.mark.parametrize(
    ("entry", "holds"),
    [
        ("runc-0:1.2.5-2.el9.*", True),
        ("runc-1.2.5-2.el9.*", True),
        ("runc-1.2.4-2.el9.*", False),
        ("!runc-0:1.2.5-2.el9.*", False),
        ("# runc-0:1.2.5-2.el9.*", False),
    ],
)
def test_a_lock_counts_for_its_version_alone(entry: str, holds: bool) -> None:
    capture = Capture.model_validate(
        {
            "format": 1,
            "host": "a",
            "probe": "0",
            "taken_at": "2026-11-30T00:00:00Z",
            "files": {rpm_packages.LOCKS: f"{entry}\n", rpm_packages.PLUGIN: "[main]\nenabled = 1\n"},
            "commands": {
                "rpm -qa --qf x": {"rc": 0, "stdout": "runc\t1.2.5-2.el9\tx86_64\n", "stderr": ""},
            },
        }
    )
    packages, _ = rpm_packages.read(capture)
    assert isinstance(packages, dict)
    assert packages["runc"].held is holds
    off = capture.model_copy(update={"files": {**capture.files, rpm_packages.PLUGIN: "[main]\nenabled = 0\n"}})
    packages, _ = rpm_packages.read(off)
    assert isinstance(packages, dict)
    assert not packages["runc"].held


def test_offers_carry_checksums_and_what_they_need() -> None:
    found = rpm_packages.parse_offers(text("offers.jsonl"))
    [one] = [o for o in found if o.name == "nvidia-driver-cuda" and o.version == "3:580.95.05-1.el9"]
    assert (one.architecture, one.origin, len(one.sha256), one.size > 0) == ("x86_64", "cuda-rhel9-x86_64", 64, True)
    assert "nvidia-driver-cuda-libs = 3:580.95.05" in one.depends
    assert {o.version for o in found if o.name == "kernel-devel"} == {"5.14.0-570.12.1.el9_6", "5.14.0-570.17.1.el9_6"}


def test_an_offer_without_a_sha256_or_with_odd_words_is_none() -> None:
    lines = [
        '{"name": "a", "evr": "1-1", "arch": "x86_64", "sha256": "", "size": 1}',
        '{"name": "a b", "evr": "1-1", "arch": "x86_64", "sha256": "' + "0" * 64 + '", "size": 1}',
        '{"name": "a", "evr": "{{ x }}", "arch": "x86_64", "sha256": "' + "0" * 64 + '", "size": 1}',
        "no json",
        "[]",
    ]
    assert rpm_packages.parse_offers("\n".join(lines)) == []


def table(name: str, rc: int = 1, error: str = "") -> CommandOutput:
    return CommandOutput(rc=rc, stdout=text(name), stderr=text(error) if error else "Operation aborted.\n")


def test_a_table_with_a_name_too_long_for_its_column() -> None:
    moves = {move.name: move for move in dnf_table.parse(table("upgrade.txt")).moves}
    assert moves["nvidia-container-toolkit-base"].after == "1.19.1-1"
    assert moves["nvidia-driver-cuda"].action == "upgrade"
    assert moves["nvidia-driver-cuda"].after == "3:580.159.03-1.el9"
    assert moves["docker-ce"].action == "install"
    assert (moves["runc"].action, moves["runc"].before, moves["runc"].after) == ("remove", "1.2.5-2.el9", None)
    assert len(moves) == 14


def test_what_is_replaced_goes() -> None:
    moves = {move.name: move for move in dnf_table.parse(table("wrapped.txt")).moves}
    assert (moves["runc"].action, moves["runc"].instead) == (
        "remove",
        "a-driver-with-quite-a-long-name-indeed-for-a-column",
    )
    assert moves["docker-ce-cli"].after == "1:29.3.0-1.el9"
    assert len(moves) == 3


def test_dependants_that_go_are_told() -> None:
    assert [move.name for move in dnf_table.parse(table("remove.txt")).moves if move.action == "remove"] == [
        "nvidia-kmod-common",
        "runc",
        "kmod-nvidia-open-dkms",
    ]


def test_a_word_that_dnf_does_not_know_is_a_problem_even_when_it_goes_on_without_it() -> None:
    """`dnf shell` leaves such a word out, makes the rest of the transaction and ends well."""
    assert dnf_table.parse(table("shell.txt", 0, "shell.err")).problem == ("No match for argument: nosuchone",)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("conflict", "problem with installed package runc-1.2.5-2.el9.x86_64"),
        ("locked", "filtered out by exclude filtering for argument: nvidia-driver-cuda-3:580.159.03-1.el9"),
        ("nomatch", "No match for argument: nosuch-1.0"),
    ],
)
def test_a_refusal_is_told_in_dnfs_words(name: str, says: str) -> None:
    found = dnf_table.parse(table(f"{name}.out", 1, f"{name}.err"))
    assert not found.moves
    assert any(says in line for line in found.problem), found.problem


def test_a_section_that_nobody_knows_is_a_problem() -> None:
    said = text("kernel.txt").replace("Installing dependencies:", "Enabling module streams:")
    found = dnf_table.parse(CommandOutput(rc=1, stdout=said, stderr=""))
    assert found.problem == (
        "Enabling module streams: kernel-core x86_64 5.14.0-570.17.1.el9_6 cuda-rhel9-x86_64 6.1 k",
    )


def test_nothing_to_do_is_no_problem() -> None:
    said = CommandOutput(rc=0, stdout="Dependencies resolved.\nNothing to do.\nComplete!\n", stderr="")
    assert dnf_table.parse(said) == dnf_table.Simulation()


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("3:580.95.05-1.el9", "3:580.159.03-1.el9"),
        ("2:999-1", "3:1-1"),
        ("5.14.0-570.el9", "5.14.0-570.12.1.el9_6"),  # a number is newer than letters
        ("1.0~rc1-1", "1.0-1"),
        ("1.0-1", "1.0^git1-1"),
        ("1.0^git1-1", "1.0.1-1"),
        ("1.0-1.el9", "1.0-1.el9_6"),
    ],
)
def test_versions_are_ordered_as_rpm_orders_them(older: str, newer: str) -> None:
    assert RpmVersion(older) < RpmVersion(newer)
    assert RpmVersion(newer) > RpmVersion(older)
    assert RpmVersion(newer).upstream == newer.rpartition(":")[2].rpartition("-")[0]
