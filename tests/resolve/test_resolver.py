"""Whole hosts against a second opinion, and the promises of `solve`: pure, deterministic, minimal, quick."""

from __future__ import annotations

import dataclasses
from typing import Literal

import host_oracle
import oracle
import pytest
import worlds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioner.errors import BadInput
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.model.version import DebianVersion
from provisioner.resolve import NoSolution, explain, solve
from provisioner.resolve.host import prepare
from provisioner.resolve.problem import build
from provisioner.resolve.repairs import apply
from provisioner.resolve.solver import refute
from tests.examples import examples

WORLDS = settings(
    max_examples=examples(200, at_length=2000),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
CARDS = (
    "tesla-k80", "gtx-980-ti", "gtx-1080-ti", "tesla-t4", "rtx-3090", "rtx-4090", "a100-pcie-80gb", "h100-pcie",
    "rtx-5090",
)  # fmt: skip
INSTALLED = {
    "debian-11": (("470.256.02-2", "470.256.02"), ("535.309.01-0+deb11u1", "535.309.01")),
    "debian-12": (
        ("535.261.03-1", "535.261.03"),
        ("535.309.01-0+deb12u1", "535.309.01"),
        ("535.216.03-2~bpo12+1", "535.216.03"),
    ),
    "debian-13": (("550.163.01-2", "550.163.01"), ("550.163.01-4~bpo13+1", "550.163.01")),
}


VENDORS: tuple[dict[str, tuple[str, ...]], ...] = (
    {},
    {},
    {"toolkit": ("1.17.4",)},
    {"toolkit": ("1.17.4", "1.19.1", "1.20.0")},
    {"toolkit": ("1.19.1",), "docker-ce": ("28.0.4", "29.8.2")},
    {"docker-ce": ("27.5.1",), "podman": ("4.3.1",)},
    {"toolkit": ("1.20.0",), "podman": ("5.4.2",), "cuda-compat-13-0": ("580.95.05",)},
    {
        "cuda-compat-12-8": ("570.124.06", "570.86.10"),
        "cuda-compat-13-0": ("580.95.05",),
        "cuda-compat-12-4": ("550.54.15",),
    },
)
"""What repositories beside the archive offer."""

ENGINES_THERE: tuple[dict[str, str], ...] = (
    {},
    {},
    {"docker-ce": "5:29.8.2-1~debian.12~bookworm"},
    {"nvidia-container-toolkit": "1.19.1-1"},
    {"nvidia-container-toolkit": "1.17.4-1", "podman": "4.3.1-1"},
    {"cuda-compat-13-0": "580.95.05-1"},
)
"""What is on the host beside its driver."""

NETWORKS = (
    "akash", "ionet", "render", "lium", "nosana", "compute-horde", "prime-intellect-worker", "livepeer",
    "livepeer@v0.9.1", "livepeer@v0.7.2", "akash@0.12.0",
)  # fmt: skip


KERNELS = {
    "debian-11": (None,),
    "debian-12": (None, "6.1.0-50-amd64", "6.1.0-56-amd64"),
    "debian-13": (None,),
}
"""Kernels that run or boot next; the security suite has headers of 6.1.0-56, for which one module does not build."""


def often(usual: object, *others: object) -> st.SearchStrategy[object]:
    """Three times of four what is usual: with a wish under every key hardly any world would have a stack."""
    return st.sampled_from([usual] * 3 * len(others) + list(others))


def once(names: list[str]) -> tuple[str, ...]:
    """Each network once, whichever client is pinned first."""
    return tuple({name.partition("@")[0]: name for name in reversed(names)}.values())


@st.composite
def hosts(draw: st.DrawFn) -> HostFacts:
    name = draw(st.sampled_from(sorted(worlds.RELEASES)))
    gpus = draw(st.lists(st.sampled_from(CARDS), min_size=1, max_size=2))
    suites = tuple(sorted({"", *draw(st.lists(st.sampled_from(["-security", "-backports"]), max_size=2))}))
    there = draw(st.one_of(st.none(), st.sampled_from(INSTALLED[name])))
    installed = {} if there is None else {"nvidia-kernel-dkms": there[0]}
    vendor = draw(st.sampled_from(VENDORS))
    installed |= draw(st.sampled_from(ENGINES_THERE))
    running, boots = draw(st.sampled_from(KERNELS[name])), draw(st.sampled_from(KERNELS[name]))
    return worlds.host(
        name,
        *gpus,
        kernel=running,
        next_boot=boots,
        suites=suites,
        installed=installed,
        loaded=None if there is None else there[1],
        vendor=vendor,
    )


intents = st.builds(
    Intent,
    networks=st.lists(st.sampled_from(NETWORKS), max_size=2, unique=True).map(once),
    driver=often(None, "470", "535", "550", ">=535.261.03", "<=535.261.03"),
    modules=often("auto", "open", "proprietary"),
    cuda=often(None, "11.0", "12.2", "12.4", "12.6", "13.0"),
    runtime=often("auto", "docker-io", "docker-ce", "podman"),
    toolkit=often("auto", "none", "1.19.1", ">=1.20", "1.17.4"),
    cdi=often("auto", "present", "absent"),
    policy=st.builds(
        dict,
        past_end_of_life=often("upgrade", "keep", "refuse"),
        forbid_branches=often((), ("550",), ("470", "535")),
    ),
)


def chosen(lock: HostLock) -> str | None:
    """The package version of the module in a lock."""
    return next((p.version for p in lock.packages if p.unit == "driver" and p.name.endswith("-dkms")), None)


def whole(lock: HostLock) -> host_oracle.Stack:
    """A lock in the words of the second opinion."""
    values = {
        key: choice.value if (choice := getattr(lock, key)) is not None else None
        for key in ("compat", "cuda", "runtime", "toolkit", "cdi")
    }
    return host_oracle.Stack(
        chosen(lock) or "",
        values["compat"],
        values["cuda"],
        values["runtime"] or "",
        values["toolkit"].partition(" ")[2] if values["toolkit"] is not None else None,
        values["cdi"],
        tuple((name, "" if c.value == "unversioned" else c.value) for name, c in lock.networks.items()),
    )


@WORLDS
@given(hosts(), intents)
def test_a_host_gets_the_stack_that_trying_everything_gives(facts: HostFacts, intent: Intent) -> None:
    """Same satisfiable or not, same optimum in every variable, as the second opinion."""
    expected = host_oracle.best(facts, intent, worlds.matrix())

    answer = solve(facts, intent, worlds.matrix())

    assert (None if isinstance(answer, NoSolution) else whole(answer)) == expected


MODULES = (
    ("470", "nvidia-kernel-dkms", "470.256.02-2"),
    ("535", "nvidia-kernel-dkms", "535.309.01-0+deb11u1"),
    ("535", "nvidia-kernel-dkms", "535.261.03-1"),
    ("535", "nvidia-kernel-dkms", "535.309.01-0+deb12u1"),
    ("535", "nvidia-open-kernel-dkms", "535.261.03-1"),
    ("550", "nvidia-kernel-dkms", "550.163.01-2"),
    ("550", "nvidia-open-kernel-dkms", "550.163.01-2"),
)
SERIES = (">=5.10.0-30,<5.11", ">=6.1.0-53,<6.1.1", ">=6.1.0-20,<6.1.0-56", ">=6.12.100", "<6.12.117", ">=7.0")

failures = st.lists(
    st.tuples(st.sampled_from(MODULES), st.sampled_from(SERIES), often("high", "low")), min_size=1, max_size=4
)


@settings(WORLDS, max_examples=examples(100, at_length=1000))
@given(hosts(), intents, failures)
def test_a_module_that_does_not_build_is_in_no_stack(
    facts: HostFacts, intent: Intent, known: list[tuple[tuple[str, str, str], str, str]]
) -> None:
    """Whatever the matrix knows against building which module for which kernel; what it is not sure of only warns."""
    told, sure = worlds.matrix(), worlds.matrix()
    for (branch, package, version), kernels, confidence in known:
        told = worlds.with_failure(told, branch, package, version, kernels, confidence)
        if confidence != "low":
            sure = worlds.with_failure(sure, branch, package, version, kernels, confidence)

    answer = solve(facts, intent, told)

    assert (None if isinstance(answer, NoSolution) else whole(answer)) == host_oracle.best(facts, intent, sure)


@settings(WORLDS, max_examples=examples(40, at_length=400))
@given(hosts(), intents)
def test_each_conflict_of_a_host_is_one_and_loses_nothing(facts: HostFacts, intent: Intent) -> None:
    """By enumeration: the rules of a conflict leave nothing, and leaving any one out leaves something."""
    model = build(prepare(facts, worlds.matrix()), intent, worlds.matrix(), beside="telling")
    always = [(rule.scope, rule.forbids) for rule in model.problem.always]
    for conflict in refute(model.problem).conflicts[:3]:
        rules = [(model.problem.rules[n].scope, model.problem.rules[n].forbids) for n in sorted(conflict)]
        touched = {variable for scope, _ in (*rules, *always) for variable in scope}
        domains = tuple(size if v in touched else 1 for v, size in enumerate(model.problem.domains))
        assert not oracle.solutions(domains, [*rules, *always])
        for left_out in range(len(rules)):
            assert oracle.solutions(domains, [*rules[:left_out], *rules[left_out + 1 :], *always])


@settings(WORLDS, max_examples=examples(40, at_length=400))
@given(hosts(), intents)
def test_each_repair_really_repairs_and_no_subset_does(facts: HostFacts, intent: Intent) -> None:
    answer = solve(facts, intent, worlds.matrix())
    if not isinstance(answer, NoSolution):
        return
    assert answer.conflicts
    for repair in answer.repairs:
        mended = solve(*apply(facts, intent, repair.edits, worlds.matrix()), worlds.matrix())
        assert isinstance(mended, HostLock)
        assert mended.driver_version == repair.stack.driver_version
        for left_out in repair.edits:
            less = [edit for edit in repair.edits if edit != left_out]
            again = solve(*apply(facts, intent, less, worlds.matrix()), worlds.matrix())
            assert isinstance(again, NoSolution)


@settings(WORLDS, max_examples=examples(40, at_length=400))
@given(hosts(), intents)
def test_the_answer_is_the_same_every_time_and_for_every_order_of_offers(facts: HostFacts, intent: Intent) -> None:
    """Same inputs, same bytes; the order in which apt lists packages is not an input."""
    first = solve(facts, intent, worlds.matrix())
    turned = dataclasses.replace(facts, offers=tuple(reversed(facts.offers or ())))
    second = solve(turned, intent, worlds.matrix())

    if isinstance(first, HostLock):
        assert isinstance(second, HostLock)
        assert first.model_dump_json() == second.model_dump_json()
    else:
        assert isinstance(second, NoSolution)
        assert explain.no_solution("rig", first) == explain.no_solution("rig", second)


def test_every_package_of_the_driver_unit_has_the_version_of_the_driver() -> None:
    """No package that the driver's source builds is left out, and none has another version."""
    facts = worlds.host("debian-12", "rtx-3090", suites=("", "-security"))

    lock = solve(facts, Intent(), worlds.matrix())

    assert isinstance(lock, HostLock)
    sources = {(o.name, o.version): o.source for o in facts.offers or ()}
    unit = [p for p in lock.packages if p.unit == "driver"]
    moving = [p for p in unit if sources[p.name, p.version] == "nvidia-graphics-drivers"]
    assert {p.version for p in moving} == {"535.309.01-0+deb12u1"}
    assert {"libcuda1", "nvidia-smi", "nvidia-kernel-dkms", "nvidia-alternative", "firmware-nvidia-gsp"} <= {
        p.name for p in moving
    }
    assert all(len(p.sha256) == 64 and p.size > 0 and p.hold for p in unit)


def test_an_installed_library_of_the_driver_moves_with_it() -> None:
    """nvidia-driver-libs-32 or libnvidia-fbc1: what is there of the driver's source is part of the unit."""
    facts = worlds.host(
        "debian-12",
        "rtx-3090",
        suites=("", "-security"),
        installed={"nvidia-kernel-dkms": "535.261.03-1", "libnvidia-fbc1": "535.261.03-1"},
        loaded="535.261.03",
    )

    lock = solve(facts, Intent(), worlds.matrix())

    assert isinstance(lock, HostLock)
    assert ("libnvidia-fbc1", "535.309.01-0+deb12u1") in {(p.name, p.version) for p in lock.packages}


@pytest.mark.parametrize("modules", ["open", "proprietary"])
def test_the_module_package_of_the_other_flavour_does_not_move_along(modules: Literal["open", "proprietary"]) -> None:
    """Debian lets both stand side by side in one version, and each brings its modules; nvidia-driver takes either."""
    both = ("nvidia-kernel-dkms", "nvidia-kernel-support", "nvidia-open-kernel-dkms", "nvidia-open-kernel-support")
    facts = worlds.host(
        "debian-12",
        "rtx-3090",
        installed=dict.fromkeys((*both, "nvidia-driver"), "535.261.03-1"),
        loaded="535.261.03",
    )

    lock = solve(facts, Intent(driver="535.261.03", modules=modules), worlds.matrix())

    assert isinstance(lock, HostLock)
    names = {package.name for package in lock.packages}
    assert "nvidia-driver" in names
    assert names & set(both) == set(both[2:] if modules == "open" else both[:2])


def test_headers_come_for_each_kernel_and_are_held_with_the_driver() -> None:
    """The running kernel and the one that boots next both get headers, and the meta package of the latter."""
    facts = worlds.host(
        "debian-12",
        "rtx-3090",
        suites=("", "-security"),
        kernel="6.1.0-50-amd64",
        next_boot="6.1.0-56-amd64",
    )

    lock = solve(facts, Intent(), worlds.matrix())

    assert isinstance(lock, HostLock)
    assert lock.kernels == ("6.1.0-50-amd64", "6.1.0-56-amd64")
    kernel = {p.name: p.version for p in lock.packages if p.unit == "kernel"}
    assert kernel == {
        "linux-headers-6.1.0-50-amd64": "6.1.176-1",
        "linux-headers-6.1.0-56-amd64": "6.1.192-2",
        "linux-headers-amd64": "6.1.192-2",
    }
    assert all(p.hold for p in lock.packages if p.unit == "kernel")


def test_docker_on_debian_13_brings_its_client() -> None:
    """Debian 13 splits docker-cli off and docker.io only recommends it."""
    lock = solve(worlds.host("debian-13", "rtx-4090"), Intent(), worlds.matrix())

    assert isinstance(lock, HostLock)
    runtime = {p.name: p.version for p in lock.packages if p.unit == "runtime"}
    assert {"docker.io", "docker-cli", "containerd", "runc"} <= set(runtime)
    assert runtime["docker-cli"] == runtime["docker.io"]


def test_open_modules_on_a_geforce_of_535_get_their_option() -> None:
    lock = solve(worlds.host("debian-12", "rtx-3090"), Intent(modules="open"), worlds.matrix())

    assert isinstance(lock, HostLock)
    assert lock.module_options == ("NVreg_OpenRmEnableUnsupportedGpus=1",)


@pytest.mark.parametrize(
    ("request_", "reference"),
    [
        ({"networks": ["akahs"]}, "unknown-network"),
        ({"networks": ["akash/path-z"]}, "unknown-profile"),
        ({"runtime": "dokcer"}, "unknown-runtime"),
        ({"driver": ">535 or so"}, "driver-specifier"),
        ({"cuda": "twelve"}, "cuda-level"),
    ],
)
def test_a_request_that_cannot_be_read_is_bad_input(request_: dict[str, object], reference: str) -> None:
    with pytest.raises(BadInput) as caught:
        solve(worlds.host("debian-12", "rtx-3090"), Intent.model_validate(request_), worlds.matrix())
    assert caught.value.reference == reference


def test_a_misspelt_network_is_told_the_right_one() -> None:
    with pytest.raises(BadInput) as caught:
        solve(worlds.host("debian-12", "rtx-3090"), Intent(networks=("akahs",)), worlds.matrix())
    assert caught.value.context == ("did you mean akash?",)


def test_versions_of_debian_are_those_of_the_archive() -> None:
    """The lock never invents a version: each package in it stands in the host's own offers."""
    facts = worlds.host("debian-13", "rtx-4090", suites=("", "-backports"))

    lock = solve(facts, Intent(), worlds.matrix())

    assert isinstance(lock, HostLock)
    there = {(o.name, o.version, o.sha256, o.size) for o in facts.offers or ()}
    assert {(p.name, p.version, p.sha256, p.size) for p in lock.packages} <= there
    assert lock.driver_version is not None
    assert DebianVersion(chosen(lock) or "").upstream == lock.driver_version.value


def test_an_engine_that_must_make_way_is_told() -> None:
    """docker-ce and docker.io cannot both be installed, and whoever has the one should hear it before the plan."""
    facts = worlds.host("debian-12", "rtx-3090", installed={"docker-ce": "5:28.5.1-1~debian.12~bookworm"})

    lock = solve(facts, Intent(), worlds.matrix())

    assert isinstance(lock, HostLock)
    assert any("docker-ce is on this host and makes way for docker.io" in text for text in lock.warnings)


def test_what_is_no_version_is_never_chosen() -> None:
    """A hand-made package may call itself anything; it is passed over, not stumbled upon."""
    facts = worlds.host("debian-12", "rtx-3090")
    odd = dataclasses.replace(next(o for o in facts.offers or () if o.name == "libcuda1"), version="not a version")
    worse = dataclasses.replace(facts, offers=(odd, *(facts.offers or ())))

    assert solve(worse, Intent(), worlds.matrix()) == solve(facts, Intent(), worlds.matrix())


def test_tools_of_their_own_version_stay_in_the_driver_branch() -> None:
    """nvidia-modprobe 470 goes with driver 470, though the security suite's index names 535.309.01."""
    facts = worlds.host("debian-11", "tesla-k80", suites=("", "-security"))

    answer = solve(facts, Intent(networks=("akash",)), worlds.matrix())

    assert isinstance(answer, HostLock)
    versions = {p.name: p.version for p in answer.packages if p.unit == "driver"}
    assert versions["nvidia-kernel-dkms"] == "470.256.02-2"
    assert versions["nvidia-modprobe"] == "470.182.03-1"


def test_a_driver_offers_its_level_whatever_package_for_compatibility_is_offered() -> None:
    """One that works on no driver of this host changes nothing: 470 carries CUDA 11.4, and io.net wants 11.8."""
    beside = worlds.host("debian-11", "tesla-t4", vendor={"cuda-compat-13-0": ("580.95.05",)})
    alone = worlds.host("debian-11", "tesla-t4")
    wish = Intent(networks=("ionet",))

    assert isinstance(solve(alone, wish, worlds.matrix()), NoSolution)
    assert isinstance(solve(beside, wish, worlds.matrix()), NoSolution)
    lock = solve(beside, Intent(), worlds.matrix())
    assert isinstance(lock, HostLock) and lock.cuda is not None
    assert lock.cuda.value == "11.4"
