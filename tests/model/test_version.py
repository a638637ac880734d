"""Versions order as numbers and print as given; specifiers obey the laws of a set algebra."""

from __future__ import annotations

import pickle
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from provisioner.model.version import (
    CudaVersion,
    DebianVersion,
    DottedVersion,
    DriverSpecifier,
    DriverVersion,
    KernelRelease,
    KernelSpecifier,
    Specifier,
)

D = DriverVersion
versions = st.builds(
    lambda parts: DriverVersion(".".join(parts)),
    st.lists(st.integers(0, 4).map(str), min_size=1, max_size=3),
)
clauses = st.builds(
    lambda sign, version: f"{sign}{version}", st.sampled_from([">=", ">", "<=", "<", "==", "!="]), versions
)
specifiers = st.lists(st.lists(clauses, min_size=1, max_size=3).map(",".join), min_size=1, max_size=3).map(
    lambda alternatives: Specifier.parse(" || ".join(alternatives), DriverVersion)
)


def spec(text: str) -> Specifier[DriverVersion]:
    return Specifier.parse(text, DriverVersion)


def test_a_driver_version_prints_as_given_and_compares_as_number() -> None:
    """535.261.03 and 535.261.3 are one version, and 535.261.03 is never rewritten."""
    assert str(D("535.261.03")) == "535.261.03"
    assert D("535.261.03") == D("535.261.3")
    assert hash(D("535.261.03")) == hash(D("535.261.3"))
    assert D("535.261.03") < D("535.1000")
    assert D("580") < D("580.65.06")
    assert D("535.261.03").branch == "535"


@pytest.mark.parametrize("text", ["", "535.", "v535", "535-1", "535.261.03-1", " 535", "5" * 9, "٣.1"])
def test_what_is_no_driver_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a driver version"):
        DriverVersion(text)


def test_a_version_is_frozen_and_survives_pickling() -> None:
    version = D("550.54.14")
    with pytest.raises(AttributeError):
        version.text = "1"
    assert pickle.loads(pickle.dumps(version)) == version


def test_versions_of_two_kinds_do_not_compare() -> None:
    assert D("12.2") != CudaVersion("12.2")
    with pytest.raises(TypeError):
        assert D("12.2") < CudaVersion("12.3")


def test_cuda_levels() -> None:
    assert CudaVersion("12.10") > CudaVersion("12.9.1")
    assert CudaVersion("12.2.1").level == CudaVersion("12.2")
    assert (CudaVersion("13.0").major, CudaVersion("13.4").minor) == (13, 4)


def test_a_release_candidate_comes_before_its_release() -> None:
    assert DottedVersion("v1.2.0-rc1") < DottedVersion("1.2.0")
    assert DottedVersion("20.10.24+dfsg1") == DottedVersion("20.10.24")
    assert DottedVersion("1.2.0-rc2") < DottedVersion("1.2.0-rc10")
    assert DottedVersion("6.1.0") < DottedVersion("6.1.140")


def test_the_upstream_part_of_a_package_version() -> None:
    assert DebianVersion("535.261.03-1~deb12u1").upstream == "535.261.03"
    assert DebianVersion("5:29.1.3-1~debian.12~bookworm").upstream == "29.1.3"
    assert DebianVersion("1:1.0-2-3").revision == "3"
    assert DebianVersion("1:1.0-2-3").epoch == 1


debian_text = st.from_regex(r"\A([0-2]:)?[0-9][a-c0-9.+~]{0,6}(-[a-c0-9+.~]{1,4})?\Z")


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is the judge here")
@settings(max_examples=60, deadline=None)
@given(debian_text, debian_text)
def test_package_versions_order_as_dpkg_orders_them(a: str, b: str) -> None:
    def dpkg(sign: str) -> bool:
        return subprocess.run(["dpkg", "--compare-versions", a, sign, b], check=False).returncode == 0

    x, y = DebianVersion(a), DebianVersion(b)
    assert (x < y, x == y, x > y) == (dpkg("lt"), dpkg("eq"), dpkg("gt"))


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("535.261.03-1~deb12u1", "535.261.03-1"),
        ("1.0~rc1", "1.0"),
        ("9", "1:1"),
        ("1.0-1", "1.0a-1"),
        ("1.0a", "1.0+"),
        ("1.9", "1.10"),
        ("470.256.02-1~deb11u1", "470.256.02-3"),
    ],
)
def test_known_orders(older: str, newer: str) -> None:
    assert DebianVersion(older) < DebianVersion(newer)


@given(versions, versions, versions)
def test_versions_are_totally_ordered(a: DriverVersion, b: DriverVersion, c: DriverVersion) -> None:
    assert [a < b, a == b, a > b].count(True) == 1
    if a <= b <= c:
        assert a <= c


@given(specifiers, specifiers, versions)
def test_the_algebra_means_what_it_says(
    a: Specifier[DriverVersion], b: Specifier[DriverVersion], v: DriverVersion
) -> None:
    assert a.intersect(b).allows(v) == (a.allows(v) and b.allows(v))
    assert a.union(b).allows(v) == (a.allows(v) or b.allows(v))
    assert a.complement().allows(v) == (not a.allows(v))
    assert a.difference(b).allows(v) == (a.allows(v) and not b.allows(v))


@given(specifiers, specifiers, specifiers)
def test_laws_hold_as_equality_of_values(
    a: Specifier[DriverVersion], b: Specifier[DriverVersion], c: Specifier[DriverVersion]
) -> None:
    assert a.complement().complement() == a
    assert a.intersect(b) == b.intersect(a)
    assert a.union(b) == b.union(a)
    assert a.intersect(b.union(c)) == a.intersect(b).union(a.intersect(c))
    assert a.union(b).complement() == a.complement().intersect(b.complement())
    assert a.intersect(a.complement()).is_empty()
    assert a.union(a.complement()).is_any()
    assert a.difference(b).union(a.intersect(b)) == a
    assert a.intersect(b).is_subset(a)


@given(specifiers)
def test_text_of_a_specifier_reads_back(a: Specifier[DriverVersion]) -> None:
    assert Specifier.parse(str(a), DriverVersion) == a


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (">=550.54.14,<571", ">=550.54.14,<571"),
        ("==535.*", ">=535,<536"),
        ("==535.161.*", ">=535.161,<535.162"),
        ("!=550.40.07", "<550.40.07 || >550.40.07"),
        ("<2 || >=2", "*"),
        (">=5,<3", "none"),
        (">=570.133.20,<=570.133.20", "==570.133.20"),
        ("*", "*"),
    ],
)
def test_how_a_specifier_prints(text: str, printed: str) -> None:
    assert str(spec(text)) == printed


@pytest.mark.parametrize("text", ["550", ">=", "~=5", ">=550;<571", "", ">=5,,<7", ">=550.*", ">=a"])
def test_what_is_no_specifier_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        spec(text)


def test_an_exact_list_knows_its_versions() -> None:
    listed = Specifier.exact([D("550.90.07"), D("535.161.07")])
    assert listed.exact_versions() == (D("535.161.07"), D("550.90.07"))
    assert spec(">=1").exact_versions() is None
    assert listed.intersect(spec(">=550")).exact_versions() == (D("550.90.07"),)


def test_pydantic_reads_and_writes_both_as_text() -> None:
    adapter = TypeAdapter[Specifier[DriverVersion]](DriverSpecifier)
    assert adapter.validate_python(["550.90.07", "550.90.12"]).allows(D("550.90.12"))
    assert adapter.dump_json(adapter.validate_python(">=550,<571")) == b'">=550,<571"'
    assert TypeAdapter(DriverVersion).validate_json('"535.261.03"').text == "535.261.03"
    with pytest.raises(ValidationError, match="in quotes"):
        TypeAdapter(DriverVersion).validate_python(535.1)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("6.1.0-9-amd64", "6.1.0-10-amd64"),
        ("6.1.0-57-amd64", "6.1.137"),
        ("6.1.0-57-amd64", "6.12.95+deb12-amd64"),
        ("6.12.95+deb12-amd64", "6.12.117+deb13-amd64"),
        ("5.14.0-427.13.1.el9_4.x86_64", "5.14.0-427.20.1.el9_4.x86_64"),
        ("5.14.0-427.13.1.el9_4.x86_64", "5.14.0-503.el9_4.x86_64"),
        ("6.8.0-45-generic", "6.8.0-101-generic"),
        ("6.1", "6.1.0-1-amd64"),
        ("6.14.4-arch1-2", "6.14.5-arch1-1"),
    ],
)
def test_kernels_order_by_their_numbers_and_then_by_their_builds(older: str, newer: str) -> None:
    assert KernelRelease(older) < KernelRelease(newer)


@pytest.mark.parametrize("text", ["6.1.0-57-amd64", "6.1.0-57-cloud-amd64", "6.1.0-57-rt-amd64", "6.1.0-57"])
def test_the_flavour_of_a_kernel_orders_nothing(text: str) -> None:
    """What holds for Debian's 57th build holds for each of its flavours."""
    assert KernelRelease(text) == KernelRelease("6.1-57")


@pytest.mark.parametrize(
    ("release", "within"),
    [
        ("6.1.0-50-amd64", False),
        ("6.1.0-53-amd64", True),
        ("6.1.0-57-cloud-amd64", True),
        ("6.1.0-157-amd64", True),
        ("6.1.137-custom", False),
        ("6.12.95+deb12-amd64", False),
        ("6.2.16-20-pve", False),
    ],
)
def test_a_floor_of_builds_ends_before_kernels_of_another_count(release: str, within: bool) -> None:
    floor = TypeAdapter[Specifier[KernelRelease]](KernelSpecifier).validate_python(">=6.1.0-53,<6.1.1")
    assert floor.allows(KernelRelease(release)) is within


@pytest.mark.parametrize("text", ["custom", "6", "6.1.0 57", "", "v6.1"])
def test_what_is_no_kernel_release_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        KernelRelease(text)
