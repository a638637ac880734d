"""Each check of the linter finds its fault in a tiny matrix, and names file, line and field."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from provisioner.matrix.lint import CHECKS, lint

TODAY = dt.date(2026, 11, 24)
CLAIM = 'sources: [https://example.org]\nseen: "2026-11-24"\nconfidence: high\n'

SOUND = {
    "architectures/pascal.yaml": """\
id: pascal
title: Pascal
capabilities: ["6.1"]
chip_prefixes: [GP1]
first_driver: "570"
last_driver: "580"
modules: [proprietary]
modules_confidence: high
first_cuda: null
last_cuda: "12.9"
windows:
  - capabilities: ["6.1"]
""",
    "drivers/570.yaml": """\
id: "570"
title: Branch 570
branch: "570"
type: production
first: {version: "570.86.15", date: "2025-01-27"}
latest: {version: "570.211.01", date: "2026-01-13"}
versions: ["570.86.15", "570.211.01"]
eol: {date: "2027-02", basis: NVIDIA}
native_cuda: "12.8"
architectures: [pascal]
modules: {proprietary: true, open: true}
kernel_floor: "4.15"
packages:
  - os: [debian-12]
    origin: debian
    flavour: proprietary
    install: [nvidia-kernel-dkms]
    kernel_package: nvidia-kernel-dkms
    versions: ["570.211.01-1"]
    names_pin_the_branch: false
""",
    "drivers/580.yaml": """\
id: "580"
title: Branch 580
branch: "580"
type: LTSB
first: {version: "580.65.06"}
latest: {version: "580.178.04"}
versions: ["580.65.06", "580.178.04"]
eol: {date: "2028-06", basis: NVIDIA}
native_cuda: "12.9"
architectures: [pascal]
modules: {proprietary: true, open: true}
kernel_floor: "4.15"
""",
    "cuda/12.8.yaml": """\
id: "12.8"
title: CUDA 12.8
level: "12.8"
released: true
native_branch: "570"
minor_floor: "525.60.13"
releases:
  - version: "12.8.1"
    label: 12.8 Update 1
    driver_branch: "570"
    driver: "570.124.06"
    minor_floor: "525.60.13"
capabilities:
  min: "5.0"
  max: "6.1"
  all: ["5.0", "6.1"]
""",
    "cuda/12.9.yaml": """\
id: "12.9"
title: CUDA 12.9
level: "12.9"
released: false
native_branch: "580"
minor_floor: "525.60.13"
releases: []
capabilities: null
""",
    "gpus/gtx-1080.yaml": """\
id: gtx-1080
title: GTX 1080
name: GeForce GTX 1080
family: GeForce 10
brand: geforce
segment: geforce
architecture: pascal
compute_capability: "6.1"
memory_gib: [8]
pci:
  - {vendor: 10de, device: "1b80", name: GP104}
modules: [proprietary]
last_driver: "580"
last_cuda: "12.9"
field_confidence: {}
""",
    "os/debian-12.yaml": """\
id: debian-12
title: Debian 12
name: Debian 12
family: debian
version: "12"
codename: bookworm
released: "2023-06-10"
eol: {date: "2028-06-30", basis: endoflife.date}
state: supported
nvidia_repo: {}
docker_engine: {}
toolkit_listed: null
""",
    "networks/a.yaml": """\
id: a
title: A
name: A
kind: worker
as_of: today
profiles:
  - id: one
    title: One
    requirements:
      - driver: ">=570"
        because: it says so
      - gpu.model: [gtx-1080]
        because: it says so
      - os: [debian-12]
        because: it says so
""",
    "conflicts/c.yaml": """\
id: c
title: C
about: driver
parties:
  - {network: a, profile: one}
statement: They disagree.
basis: sourced
exclusive: true
""",
}


def matrix(tmp_path: Path, file: str | None = None, change: tuple[str, str] = ("", "")) -> Path:
    for name, text in SOUND.items():
        whole = text + CLAIM
        if name == file:
            assert change[0] in whole
            whole = whole.replace(*change, 1)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(whole)
    return tmp_path


def test_the_tiny_matrix_is_sound(tmp_path: Path) -> None:
    assert lint(matrix(tmp_path), TODAY) == []


@pytest.mark.parametrize(
    ("file", "change", "found"),
    [
        ("gpus/gtx-1080.yaml", ("architecture: pascal", "architecture: paskal"),
         "error gpus/gtx-1080.yaml:7: architecture: there is no architectures/paskal.yaml"),
        ("drivers/570.yaml", ("os: [debian-12]", "os: [debian-99]"),
         "error drivers/570.yaml:14: packages.0.os.0: there is no os/debian-99.yaml"),
        ("networks/a.yaml", ("[gtx-1080]", "[gtx-1080, gtx-1081]"),
         "error networks/a.yaml:12: profiles.0.requirements.1.gpu.model: there is no gpus/gtx-1081.yaml"),
        ("networks/a.yaml", ("[debian-12]", "[debian-7]"),
         "warning networks/a.yaml:14: profiles.0.requirements.2.os: debian-7 is not in the room os: "
         "it has ended or is not described"),
        ("conflicts/c.yaml", ("network: a", "network: b"),
         "error conflicts/c.yaml:5: parties.0.network: there is no networks/b.yaml"),
        ("conflicts/c.yaml", ("profile: one", "profile: two"),
         "error conflicts/c.yaml:5: parties.0.profile: a has no profile 'two'"),
        ("drivers/580.yaml", ('native_cuda: "12.9"', 'native_cuda: "13.0"'),
         "error drivers/580.yaml:9: native_cuda: there is no cuda/13.0.yaml"),
        ("drivers/570.yaml", ('native_cuda: "12.8"', 'native_cuda: "12.9"'),
         "error drivers/570.yaml:9: native_cuda: branch 570 can't carry CUDA 12.9: that came with 580"),
        ("drivers/580.yaml", ('native_cuda: "12.9"', 'native_cuda: "12.8"'),
         "error drivers/580.yaml:9: native_cuda: CUDA 12.8 names branch 570 as its own"),
        ("drivers/570.yaml", ('["570.86.15", "570.211.01"]', '["570.86.15", "575.211.01"]'),
         "error drivers/570.yaml:7: versions.1: 575.211.01 is of branch 575, not 570"),
        ("drivers/570.yaml", ('["570.86.15", "570.211.01"]', '["570.211.01", "570.86.15"]'),
         "error drivers/570.yaml:7: versions: versions stand in ascending order, each once"),
        ("drivers/570.yaml", ('"570.211.01-1"', '"535.211.01-1"'),
         "error drivers/570.yaml:19: packages.0.versions.0: 535.211.01-1 packages another branch than 570"),
        ("drivers/570.yaml",
         ("    names_pin",
          '    does_not_build: [{versions: ["570.211.01-2"], kernels: ">=6.1", why: x}]\n    names_pin'),
         "error drivers/570.yaml:20: packages.0.does_not_build.0.versions.0: 570.211.01-2 is no version of this set: "
         "of what would it hold?"),
        ("drivers/570.yaml",
         ("    names_pin",
          '    does_not_build: [{versions: ["570.211.01-1"], kernels: ">=6.2,<6.1", why: x}]\n    names_pin'),
         "error drivers/570.yaml:20: packages.0.does_not_build.0.kernels: no kernel satisfies this specifier"),
        ("architectures/pascal.yaml", ('last_driver: "580"', 'last_driver: "570"'),
         "error architectures/pascal.yaml:6: last_driver: the last branch that lists pascal is 580"),
        ("architectures/pascal.yaml", ('first_driver: "570"', 'first_driver: "580"'),
         "error architectures/pascal.yaml:5: first_driver: the first branch that lists pascal is 570"),
        ("architectures/pascal.yaml",
         ('  - capabilities: ["6.1"]', '  - capabilities: ["6.1"]\n  - capabilities: ["6.1"]'),
         "error architectures/pascal.yaml:11: windows: two windows overlap: a capability stands in both"),
        ("architectures/pascal.yaml", ('  - capabilities: ["6.1"]', '  - capabilities: ["6.0"]'),
         "error architectures/pascal.yaml:11: windows: the windows leave a gap: "
         "together they must have exactly the capabilities"),
        ("gpus/gtx-1080.yaml", ('compute_capability: "6.1"', 'compute_capability: "6.2"'),
         "error gpus/gtx-1080.yaml:8: compute_capability: pascal has no capability 6.2"),
        ("gpus/gtx-1080.yaml", ("modules: [proprietary]", "modules: [open]"),
         "error gpus/gtx-1080.yaml:12: modules: pascal takes proprietary modules alone"),
        ("cuda/12.8.yaml", ('version: "12.8.1"', 'version: "12.7.1"'),
         "error cuda/12.8.yaml:8: releases.0.version: 12.7.1 is not a release of 12.8"),
        ("cuda/12.8.yaml", ('driver: "570.124.06"', 'driver: "520.124.06"'),
         "error cuda/12.8.yaml:11: releases.0.driver: the floor for all features, 520.124.06, is below 525.60.13"),
        ("cuda/12.8.yaml", ("released: true", "released: false"),
         "error cuda/12.8.yaml:4: released: a released level has releases, one that never was has none"),
        ("cuda/12.8.yaml", ('max: "6.1"', 'max: "7.0"'),
         "error cuda/12.8.yaml:15: capabilities.max: 7.0 is not the max of the list, 6.1 is"),
        ("networks/a.yaml", ('      - gpu.model', '      - driver: "<570"\n        because: no\n      - gpu.model'),
         "error networks/a.yaml:7: profiles.0: no version satisfies every requirement on driver"),
        ("networks/a.yaml", ('      - gpu.model',
                             '      - cdi: present\n        because: x\n      - cdi: absent\n        because: y\n'
                             '      - gpu.model'),
         "error networks/a.yaml:7: profiles.0: no host satisfies every requirement on cdi"),
        ("networks/a.yaml", ('      - gpu.model',
                             '      - arch: [x86_64]\n        because: x\n      - arch: [aarch64]\n        because: y\n'
                             '      - gpu.model'),
         "error networks/a.yaml:7: profiles.0: no host satisfies every requirement on arch"),
        ("networks/a.yaml", ('driver: ">=570"', 'driver: ">=9000"'),
         "error networks/a.yaml:10: profiles.0.requirements.0.driver: "
         "no branch of the room drivers can satisfy >=9000"),
        ("networks/a.yaml", ('      - gpu.model', '      - driver: ">=580"\n        with_client: ">=2"\n'
                             '        because: no\n      - gpu.model'),
         "error networks/a.yaml:13: profiles.0.requirements.1.with_client: no version that a lists is in '>=2'"),
        ("networks/a.yaml",
         ("as_of: today", 'as_of: today\nclients: [{name: c, versions: [{version: "1"}, {version: "2"}]}]'),
         "error networks/a.yaml:6: clients.0.versions: the versions of c stand newest first, each once"),
        ("networks/a.yaml", ("as_of: today", "as_of: today\nparent: a"),
         "error networks/a.yaml:6: parent: a cycle: a → a"),
        ("networks/a.yaml", ('driver: ">=570"', 'ram_gib: ">=64GB"'),
         "error networks/a.yaml:10: profiles.0.requirements.0.ram_gib: '64GB' in '>=64GB' is not a number: "
         "write it without a unit, GiB are meant"),
        ("gpus/gtx-1080.yaml", ("memory_gib: [8]", "memory_gib: [8192]"),
         "error gpus/gtx-1080.yaml:9: memory_gib.0: Input should be less than or equal to 1024"),
        ("os/debian-12.yaml", ("sources: [https://example.org]", "sources: []"),
         "error os/debian-12.yaml:13: sources: a claim names where it comes from"),
        ("drivers/570.yaml",
         ("    names_pin_the_branch: false", "    names_pin_the_branch: false\n    confidence: low"),
         "error drivers/570.yaml:21: packages.0.confidence: it states a confidence and no source"),
        ("os/debian-12.yaml", ('date: "2028-06-30"', 'date: "2026-06-30"'),
         "warning os/debian-12.yaml:8: eol: support ended on 2026-06-30 (endoflife.date)"),
        ("os/debian-12.yaml", ('seen: "2026-11-24"', 'seen: "2036-11-24"'),
         "error os/debian-12.yaml:14: seen: 2036-11-24 has not come yet"),
        ("os/debian-12.yaml", ("state: supported", "state: supported\nsate: x"),
         "error os/debian-12.yaml:10: sate: this key is not known here"),
        ("networks/a.yaml", ('driver: ">=570"', 'driver: ">=570,<560"'),
         "error networks/a.yaml:10: profiles.0.requirements.0: driver: no version satisfies this specifier"),
        ("networks/a.yaml", ('driver: ">=570"', 'driver: "570+"'),
         "error networks/a.yaml:10: profiles.0.requirements.0.driver: '570+' in '570+' is not a condition: "
         "write >=, >, <=, <, ==, != and a version"),
        ("drivers/570.yaml", ("type: production", "type: [production"), "error drivers/570.yaml:5: entry: not YAML"),
    ],
)  # fmt: skip
def test_each_fault_is_found_where_it_stands(tmp_path: Path, file: str, change: tuple[str, str], found: str) -> None:
    findings = [f"{f.level} {f}" for f in lint(matrix(tmp_path, file, change), TODAY)]
    assert any(text.startswith(found) for text in findings), findings


def test_what_different_clients_ask_for_need_not_hold_together(tmp_path: Path) -> None:
    """Version 1 wants an old driver, version 2 a new one: each host has one of them."""
    text = SOUND["networks/a.yaml"].replace(
        "profiles:", 'clients: [{name: c, versions: [{version: "2"}, {version: "1"}]}]\nprofiles:'
    )
    either = (
        '      - driver: "<580"\n        with_client: "<2"\n        because: old\n'
        '      - driver: ">=580"\n        with_client: ">=2"\n        because: new\n      - gpu.model'
    )
    place = matrix(tmp_path) / "networks/a.yaml"
    place.write_text(
        text.replace('      - driver: ">=570"\n        because: it says so\n', "").replace("      - gpu.model", either)
        + CLAIM
    )

    assert [str(f) for f in lint(tmp_path, TODAY)] == []


def test_a_branch_that_skips_an_architecture_is_a_gap(tmp_path: Path) -> None:
    where = matrix(tmp_path, "drivers/570.yaml", ("architectures: [pascal]", "architectures: []"))
    older = (
        (where / "drivers/570.yaml")
        .read_text()
        .replace("570", "560")
        .replace("architectures: []", "architectures: [pascal]")
    )
    (where / "drivers/560.yaml").write_text(older)
    findings = [str(f) for f in lint(where, TODAY)]
    assert (
        "drivers/570.yaml:10: architectures: a gap: branches before and after list pascal, this one does not"
        in findings
    )


def test_a_missing_level_between_two_is_a_gap(tmp_path: Path) -> None:
    where = matrix(tmp_path)
    text = (where / "cuda/12.9.yaml").read_text().replace("12.9", "12.11")
    (where / "cuda/12.11.yaml").write_text(text)
    assert "cuda/12.11.yaml:3: level: a gap: nothing between 12.9 and 12.11" in [str(f) for f in lint(where, TODAY)]


def test_two_architectures_cannot_share_a_chip_prefix(tmp_path: Path) -> None:
    where = matrix(tmp_path)
    (where / "architectures/volta.yaml").write_text(
        (where / "architectures/pascal.yaml").read_text().replace("id: pascal", "id: volta")
    )
    assert any("'GP1' is also a prefix of pascal" in str(f) for f in lint(where, TODAY))


def test_networks_that_are_parts_of_each_other_are_a_cycle_at_each_of_them(tmp_path: Path) -> None:
    """a → b → c → b: b and c are the cycle, a only leads to it."""
    where = matrix(tmp_path)
    text = (where / "networks/a.yaml").read_text()
    for name, parent in (("a", "b"), ("b", "c"), ("c", "b")):
        changed = text.replace("id: a", f"id: {name}", 1).replace("as_of: today", f"as_of: today\nparent: {parent}")
        (where / f"networks/{name}.yaml").write_text(changed)
    assert [str(f) for f in lint(where, TODAY)] == [
        "networks/b.yaml:6: parent: a cycle: b → c → b",
        "networks/c.yaml:6: parent: a cycle: c → b → c",
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: &a [x, x]\nb: [*a, *a]\n", "networks/a.yaml:1: entry: anchors and aliases are not read"),
        ("x" * (2 << 20), "networks/a.yaml:1: entry: 2097152 bytes; an entry may have"),
        ("id: a\nid: b\n", "networks/a.yaml:2: entry: 'id' stands here twice"),
    ],
)
def test_what_the_reader_refuses_is_one_finding(tmp_path: Path, text: str, found: str) -> None:
    where = matrix(tmp_path)
    (where / "networks/a.yaml").write_text(text)
    (finding,) = lint(where, TODAY)
    assert str(finding).startswith(found)


def test_errors_come_before_warnings(tmp_path: Path) -> None:
    where = matrix(tmp_path, "os/debian-12.yaml", ('date: "2028-06-30"', 'date: "2026-06-30"'))
    text = (where / "gpus/gtx-1080.yaml").read_text().replace("architecture: pascal", "architecture: x")
    (where / "gpus/gtx-1080.yaml").write_text(text)
    assert [f.level for f in lint(where, TODAY)] == ["error", "warning"]


def test_every_check_has_a_purpose() -> None:
    assert all(check.__doc__ for check in CHECKS)
