"""The matrix that ships: complete, sound, and saying what its sources say."""

from __future__ import annotations

import datetime as dt
import json
import re

import pytest

from provisioner.cli.views.matrix import schema_text
from provisioner.matrix.entries import ROOMS
from provisioner.matrix.lint import lint
from provisioner.matrix.reader import Matrix, load, problems_of, read_documents
from provisioner.model.paths import data_dir
from provisioner.model.version import DriverVersion

SOURCED_BEYOND_THE_RESEARCH = {"tesla-k80", "tesla-k40m", "gtx-980-ti", "gtx-970", "tesla-m40"}
SUB_NETWORKS = {"lium", "chutes", "targon", "ni-compute", "compute-horde", "basilica"}


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load()


def test_everything_that_was_researched_is_there(matrix: Matrix) -> None:
    """25 branches, 63 toolkits, 118 models, 15 systems, 19 networks, 18 conflicts, 62 requirement strings."""
    found = {
        "branches": len(matrix.drivers),
        "toolkits": sum(len(level.releases) for level in matrix.cuda.values()),
        "models": len(set(matrix.gpus) - SOURCED_BEYOND_THE_RESEARCH),
        "systems": len(matrix.os),
        "networks": len(set(matrix.networks) - SUB_NETWORKS),
        "sub-networks": len(SUB_NETWORKS & set(matrix.networks)),
        "conflicts": len(matrix.conflicts),
        "strings": sum(len(images.requirements) for images in matrix.container_images.values()),
        "toolkit releases": len(matrix.runtimes["nvidia-container-toolkit"].releases),
        "holes": len(matrix.runtimes["nvidia-container-toolkit"].vulnerabilities),
        "docker lines": len(matrix.runtimes["docker-ce"].releases),
        "containerd lines": len(matrix.runtimes["containerd"].releases),
        "exact drivers of Lium": len(_lium_drivers(matrix)),
        "forward-compatibility rows": sum(c.forward_compat is not None for c in matrix.cuda.values()),
        "PCI ids": sum(len(matrix.gpus[g].pci) for g in set(matrix.gpus) - SOURCED_BEYOND_THE_RESEARCH),
        "rules": len(matrix.rules),
    }
    assert found == {
        "branches": 25,
        "toolkits": 63,
        "models": 118,
        "systems": 15,
        "networks": 19,
        "sub-networks": 6,
        "conflicts": 18,
        "strings": 62,
        "toolkit releases": 24,
        "holes": 10,
        "docker lines": 10,
        "containerd lines": 6,
        "exact drivers of Lium": 75,
        "forward-compatibility rows": 12,
        "PCI ids": 159,
        "rules": 68,
    }


def _lium_drivers(matrix: Matrix) -> tuple[DriverVersion, ...]:
    profile = matrix.networks["lium"].default_profile
    assert profile is not None
    listed = next(item for item in profile.requirements if item.key == "driver")
    assert listed.listed_on == "2026-07-24"
    assert listed.forbids
    versions: tuple[DriverVersion, ...] = listed.value.exact_versions()
    return versions


def test_no_error_is_left(matrix: Matrix) -> None:
    findings = lint(data_dir("matrix"), dt.date(2026, 11, 24))
    assert [str(f) for f in findings if f.level == "error"] == []


def test_every_file_is_an_entry_that_the_schema_accepts(matrix: Matrix) -> None:
    """Each file of each room by itself, nothing from a cache; and all of them are what `load` gives."""
    documents = read_documents(data_dir("matrix"))
    assert {document.path: problems_of(document) for document in documents if problems_of(document)} == {}
    read = {(document.path.partition("/")[0], document.data["id"]) for document in documents}
    assert read == {(room, entry_id) for room in ROOMS for entry_id in matrix.room(room)}
    assert {path.name for path in data_dir("matrix").iterdir() if path.is_dir()} - {"cases", "failures"} == set(ROOMS)


@pytest.mark.tools
@pytest.mark.parametrize("room", sorted(ROOMS))
def test_editors_accept_every_file_by_the_schema_they_are_given(room: str) -> None:
    """`provision matrix schema ROOM`, held by a validator that knows nothing of pydantic."""
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json.loads(schema_text(room)))
    documents = [d for d in read_documents(data_dir("matrix")) if d.path.startswith(f"{room}/")]
    assert documents
    wrong = {d.path: error.message for d in documents for error in validator.iter_errors(d.data)}
    assert wrong == {}
    first = documents[0].data
    assert not validator.is_valid(first | {"colour": "red"})
    assert not validator.is_valid({key: value for key, value in first.items() if key != "title"})


def test_every_entry_is_named_by_its_file_and_says_where_it_comes_from(matrix: Matrix) -> None:
    for room in ("drivers", "cuda", "architectures", "gpus", "os", "runtimes", "networks", "conflicts", "rules"):
        for entry in matrix.room(room).values():
            assert entry.sources, f"{room}/{entry.id}"
            assert (data_dir("matrix") / room / f"{entry.id}.yaml").is_file()


def test_kepler_ends_with_470_and_pascal_with_580(matrix: Matrix) -> None:
    assert matrix.architectures["kepler"].last_driver == "470"
    assert {matrix.architectures[a].last_driver for a in ("maxwell", "pascal", "volta")} == {"580"}
    assert str(matrix.architectures["pascal"].last_cuda) == "12.9"


def test_blackwell_takes_open_modules_and_no_driver_of_debians_own(matrix: Matrix) -> None:
    assert matrix.architectures["blackwell"].modules == ("open",)
    assert matrix.architectures["blackwell"].first_driver == "570"
    for release in ("debian-11", "debian-12", "debian-13"):
        assert "blackwell" in matrix.os[release].unsupported_architectures
        for branch in matrix.drivers.values():
            offered = [p for p in branch.packages if release in p.os and p.origin.startswith("debian")]
            assert not offered or "blackwell" not in branch.architectures


def test_620_has_no_proprietary_modules_and_615_is_not_confirmed(matrix: Matrix) -> None:
    assert (matrix.drivers["620"].modules.proprietary, matrix.drivers["615"].modules.proprietary) == (False, None)


def test_security_floors_come_from_bulletins_and_low_confidence_does_not_count(matrix: Matrix) -> None:
    assert str(matrix.drivers["535"].security_floor) == "535.309.01"
    assert str(matrix.drivers["580"].security_floor) == "580.159.03"
    assert matrix.drivers["570"].latest_bulletin_omits_it
    assert not matrix.drivers["580"].latest_bulletin_omits_it
    assert matrix.drivers["470"].security_floor is None


def test_cuda_12_7_is_reported_and_was_never_released(matrix: Matrix) -> None:
    assert (matrix.cuda["12.7"].released, matrix.cuda["12.7"].releases) == (False, ())
    assert str(matrix.cuda["13.4"].releases[0].version) == "13.4.1"


def test_debian_offers_what_its_index_says(matrix: Matrix) -> None:
    """Branch, release and flavour of every set of packages of Debian's own, and the version each was seen at."""
    offered = sorted(
        (release, branch.id, packages.flavour, packages.source, version.upstream)
        for branch in matrix.drivers.values()
        for packages in branch.packages
        if packages.origin == "debian"
        for release in packages.os
        for version in packages.versions
    )
    graphics, opened = "nvidia-graphics-drivers", "nvidia-open-gpu-kernel-modules"
    assert offered == [
        ("debian-11", "470", "proprietary", graphics, "470.256.02"),
        ("debian-11", "470", "proprietary", f"{graphics}-tesla-470", "470.256.02"),
        ("debian-11", "535", "proprietary", graphics, "535.309.01"),
        ("debian-12", "470", "proprietary", f"{graphics}-tesla-470", "470.256.02"),
        ("debian-12", "535", "open", opened, "535.261.03"),
        ("debian-12", "535", "proprietary", graphics, "535.261.03"),
        ("debian-12", "535", "proprietary", graphics, "535.309.01"),
        ("debian-12", "535", "proprietary", f"{graphics}-tesla-535", "535.216.03"),
        ("debian-13", "535", "proprietary", f"{graphics}-tesla-535", "535.274.02"),
        ("debian-13", "550", "open", opened, "550.163.01"),
        ("debian-13", "550", "proprietary", graphics, "550.163.01"),
    ]


def test_a_headless_set_names_its_kernel_package_and_no_display_server(matrix: Matrix) -> None:
    for branch in matrix.drivers.values():
        for packages in branch.packages:
            if packages.origin.startswith("debian"):
                assert packages.kernel_package in packages.install
                assert set(packages.independent) < set(packages.install)
                assert not [name for name in packages.install if re.search("xorg|xserver|libgl|vulkan", name)]


def test_lium_and_akash_meet_in_580(matrix: Matrix) -> None:
    """The newest driver is the wrong one: the list ends its 580 at 580.173.02, and 580.178.04 is not on it."""
    on_580 = [v for v in _lium_drivers(matrix) if v.branch == "580"]
    assert str(max(on_580)) == "580.173.02"
    assert matrix.drivers["580"].latest.version not in on_580
    assert DriverVersion("535.309.01") not in _lium_drivers(matrix)


def test_ids_that_two_boards_share_are_told_apart_by_subsystem(matrix: Matrix) -> None:
    both = matrix.gpus_with_pci("10de", "1e30")
    assert [m.id for m in both] == ["quadro-rtx-6000", "quadro-rtx-8000"]
    assert [m.id for m in matrix.gpus_with_pci("10DE", "1E30", "10de:129e")] == ["quadro-rtx-8000"]
    assert [m.id for m in matrix.gpus_with_pci("10de", "1e30", "10de:1234")] == ["quadro-rtx-6000"]
    assert matrix.gpus_with_pci("10de", "ffff") == ()


def test_an_unknown_card_falls_back_to_its_chip(matrix: Matrix) -> None:
    found = matrix.architecture_of_chip("AD102GL [some card of tomorrow]")
    assert found is not None
    assert found.id == "ada"
    assert matrix.architecture_of_chip("XY100") is None


def test_four_networks_have_a_default_profile_with_the_keys_that_decide(matrix: Matrix) -> None:
    for name, keys in {
        "akash": {"host_driver", "cdi", "swap", "ports", "gpu.same_model"},
        "ionet": {"cuda", "host_driver", "client", "gpu.model", "cgroup_driver", "gpu.exclusive"},
        "render": {"gpu.model", "runtime", "host_driver"},
        "lium": {"driver", "cdi", "kernel", "cgroup_driver", "gpu.exclusive", "ports"},
    }.items():
        profile = matrix.networks[name].default_profile
        assert profile is not None
        assert keys <= {item.key for item in profile.requirements}


def test_low_confidence_and_undated_claims_never_forbid(matrix: Matrix) -> None:
    for network in matrix.networks.values():
        for profile in network.profiles:
            for item in profile.requirements:
                assert item.seen is not None
                assert item.sources
                if item.confidence == "low":
                    assert not item.forbids


def test_the_digest_is_of_the_content(matrix: Matrix) -> None:
    assert re.fullmatch("[0-9a-f]{64}", matrix.digest)
    assert load().digest == matrix.digest


def test_a_matrix_can_be_sent_to_another_process(matrix: Matrix) -> None:
    import pickle

    again = pickle.loads(pickle.dumps(matrix))
    assert again.digest == matrix.digest
    assert again.gpus["rtx-4090"] == matrix.gpus["rtx-4090"]
    with pytest.raises(TypeError):
        matrix.drivers["535"] = matrix.drivers["470"]  # type: ignore[index]  # that it refuses is the point


def test_entries_survive_json(matrix: Matrix) -> None:
    for entry in (matrix.drivers["535"], matrix.networks["akash"], matrix.gpus["a16"], matrix.cuda["12.4"]):
        text = json.dumps(entry.model_dump(mode="json", by_alias=True, exclude_none=True))
        assert json.loads(text)["id"] == entry.id


def test_every_network_answers_the_contract(matrix: Matrix) -> None:
    """Install, start, healthy, busy, drain, resume, deregister, upgrade: where nothing was read, it says so."""
    assert [name for name, network in matrix.networks.items() if network.contract is None] == []


def test_a_drain_with_a_command_can_be_undone(matrix: Matrix) -> None:
    """A job that does not end leaves the client serving, so what was done must be taken back; and the reverse."""
    for network in matrix.networks.values():
        assert network.contract is not None
        drain = network.contract.drain
        assert bool(drain.command) == bool(drain.undo), network.id
        if drain.kind == "none":
            assert drain.penalty is not None, network.id


def test_a_container_pattern_has_its_star_at_the_end(matrix: Matrix) -> None:
    """The program on the host knows no other."""
    patterns = [
        n.contract.busy.containers for n in matrix.networks.values() if n.contract and n.contract.busy.containers
    ]
    assert patterns
    assert all("*" not in pattern[:-1] for pattern in patterns)
