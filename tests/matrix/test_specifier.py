"""The requirement language: three answers, each with its rule; low confidence and missing dates never forbid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from provisioner.matrix.specifier import KEYS, Answer, Requirement, judge, os_family, os_matches, text_of
from provisioner.model.version import CudaVersion, DriverVersion

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/reference/requirement-language.md"


def item(**key: Any) -> Requirement:
    """A requirement of one key; `_` stands for the dot: gpu_model is gpu.model."""
    claim = {"because": "it says so", "sources": ["s"], "seen": "2026-11-24", "confidence": "high"}
    named = {(k if k in KEYS else k.replace("_", ".", 1)): v for k, v in key.items()}
    return Requirement.model_validate({**claim, **named})


GPUS = [
    {"compute_capability": "8.6", "memory_gib": 24, "model": "rtx-3090", "architecture": "ampere", "brand": "geforce"},
    {"compute_capability": "6.1", "memory_gib": 8, "model": "gtx-1080", "architecture": "pascal", "brand": "geforce"},
]
HOST: dict[str, Any] = {
    "driver": DriverVersion("535.261.03"),
    "cuda": CudaVersion("12.2"),
    "gpus": GPUS,
    "os": "debian-12",
    "arch": "x86_64",
    "kernel": "6.1.0-50-amd64",
    "runtime": {"docker-io"},
    "docker": "20.10.24+dfsg1",
    "host_driver": "present",
    "modules": "proprietary",
    "cdi": "absent",
    "swap": "present",
    "sysctl": {"vm.swappiness": "60"},
    "ports": {"tcp": [(80, 80), (31000, 31010)], "udp": []},
    "bandwidth": {"down_mbps": 200},
    "client": {"io-net-launcher": "2.1.1"},
    "kubernetes": {"distribution": "k3s"},
    "gpu.exclusive": False,
    "cgroup_driver": "systemd",
}


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ({"driver": ">=535,<536"}, "yes"),
        ({"driver": ">=550.54.14,<571"}, "no"),
        ({"driver": ["535.261.03", "580.95.05"]}, "yes"),
        ({"driver": ["535.309.01"]}, "no"),
        ({"cuda": ">=11.8"}, "yes"),
        ({"cuda": ">=12.4"}, "no"),
        ({"host_driver": "absent"}, "no"),
        ({"modules": "open"}, "no"),
        ({"gpu_compute_capability": ">=6.0"}, "yes"),
        ({"gpu_compute_capability": ">=7.0"}, "no"),
        ({"gpu_memory_gib": ">=8"}, "yes"),
        ({"gpu_memory_gib": ">=24"}, "no"),
        ({"gpu_model": ["rtx-3090", "gtx-1080"]}, "yes"),
        ({"gpu_model": ["rtx-3090"]}, "no"),
        ({"gpu_not_model": ["a40"]}, "yes"),
        ({"gpu_not_model": ["gtx-1080"]}, "no"),
        ({"gpu_architecture": ["ampere", "pascal"]}, "yes"),
        ({"gpu_brand": ["tesla"]}, "no"),
        ({"gpu_binding": "vfio"}, "unknown"),
        ({"gpu_count": "<=14"}, "yes"),
        ({"gpu_count": "<=1"}, "no"),
        ({"gpu_same_model": True}, "no"),
        ({"gpu_exclusive": True}, "no"),
        ({"gpu_exclusive": False}, "yes"),
        ({"os": ["ubuntu-24.04"]}, "no"),
        ({"os": ["ubuntu>=22.04", "debian>=12"]}, "yes"),
        ({"os": ["debian"]}, "yes"),
        ({"arch": ["x86_64"]}, "yes"),
        ({"kernel": ">=5.19"}, "yes"),
        ({"runtime": ["docker"]}, "yes"),
        ({"runtime": ["docker-ce", "podman"]}, "no"),
        ({"docker": ">=26.1.0"}, "no"),
        ({"toolkit": "*"}, "unknown"),
        ({"cdi": "present"}, "no"),
        ({"swap": "absent"}, "no"),
        ({"sysctl": {"vm.swappiness": "0"}}, "no"),
        ({"sysctl": {"vm.swappiness": "60", "vm.max_map_count": "262144"}}, "unknown"),
        ({"ports": {"tcp": ["443"]}}, "yes"),
        ({"ports": {"tcp": ["30000-32767"]}}, "no"),
        ({"bandwidth": {"down_mbps": 100}}, "yes"),
        ({"bandwidth": {"down_mbps": 500}}, "no"),
        ({"bandwidth": {"down_mbps": 100, "up_mbps": 100}}, "unknown"),
        ({"client": {"io-net-launcher": ">=3.0.0"}}, "no"),
        ({"client": {"other": ">=1"}}, "unknown"),
        ({"kubernetes": {"distribution": "k3s"}}, "yes"),
        ({"kubernetes": {"distribution": "kubespray"}}, "no"),
        ({"cgroup_driver": "cgroupfs"}, "no"),
        ({"ram_gib": ">=8"}, "unknown"),
        ({"tee": ["intel-tdx"]}, "unknown"),
    ],
)
def test_answers(key: dict[str, Any], answer: str) -> None:
    assert judge(item(**key), HOST).answer is Answer(answer)


def test_what_is_not_known_is_never_no() -> None:
    """An empty situation answers every key with unknown, and says of what nothing is known."""
    for key in ({"driver": ">=1"}, {"gpu_model": ["a40"]}, {"os": ["debian"]}, {"ports": {"tcp": ["80"]}}):
        judgement = judge(item(**key), {})
        assert judgement.answer is Answer.UNKNOWN
        assert judgement.why_unknown == f"nothing is known of {judgement.key} on this host"


def test_one_gpu_without_a_known_value_leaves_it_open_and_one_that_fails_decides() -> None:
    wanted = item(gpu_memory_gib=">=8")
    assert judge(wanted, {"gpus": [{"memory_gib": 24}, {}]}).answer is Answer.UNKNOWN
    assert judge(wanted, {"gpus": [{"memory_gib": 4}, {}]}).answer is Answer.NO
    assert judge(wanted, {"gpus": []}).answer is Answer.UNKNOWN


def test_the_reason_names_rule_and_finding() -> None:
    judgement = judge(item(driver=["535.309.01", "580.95.05"]), HOST)
    assert (judgement.required, judgement.found) == ("one of 535.309.01, 580.95.05", "535.261.03")
    assert (judgement.requirement.because, judgement.requirement.sources) == ("it says so", ("s",))


@pytest.mark.parametrize(
    "weak", [{"severity": "warn"}, {"confidence": "low"}, {"seen": None}], ids=["warns", "low confidence", "undated"]
)
def test_weak_claims_answer_and_never_forbid(weak: dict[str, Any]) -> None:
    strong = item(driver=">=550")
    claim = {**strong.model_dump(mode="json", by_alias=True, exclude_none=True), **weak}
    judgement = judge(Requirement.model_validate(claim), HOST)
    assert (judgement.answer, judgement.forbids, judge(strong, HOST).forbids) == (Answer.NO, False, True)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ({}, "exactly one key of the language, here: none"),
        ({"driver": ">=1", "cuda": ">=12.0"}, "here: driver and cuda"),
        ({"driver": ">=2,<1"}, "no version satisfies this specifier"),
        ({"gpu_model": []}, "an empty list can never hold"),
        ({"client": {"launcher": ">=3,<2"}}, "client.launcher: no version satisfies this specifier"),
        ({"os": ["ubuntu>=22.04,<20.04"]}, "no release satisfies 'ubuntu>=22.04,<20.04'"),
        ({"ports": {}}, "ports: it names none"),
        ({"ports": {"udp": []}}, "ports: it names none"),
        ({"bandwidth": {}}, "bandwidth: it names none"),
        ({"swap": "absent", "seen": "2026-13-01"}, "'2026-13-01' is no day of the calendar"),
        ({"ports": {"tcp": ["0"]}}, "not a range of ports"),
        ({"ports": {"tcp": ["90-80"]}}, "not a range of ports"),
        ({"ports": {"tcp": ["http"]}}, "is not a port"),
        ({"os": ["Debian 12"]}, "is not an OS"),
        ({"os": ["ubuntu>=jammy"]}, "is not a version"),
        ({"cdi": "on"}, "'present' or 'absent'"),
        ({"gpu_exclusive": "yes"}, "valid boolean"),
        ({"cuda": ">=12"}, "not a CUDA version"),
        ({"driver": 535}, "a specifier is text"),
        ({"ram_gib": "16 GB"}, "GiB are meant"),
        ({"toolkit": "1.17"}, "not a condition"),
        ({"ram_gib": ">=16GB"}, "'16GB' in '>=16GB' is not a number: write it without a unit, GiB are meant"),
        ({"disk_gib": ">=1.5T"}, "'1.5T' in .* GiB are meant"),
        ({"gpu_memory_gib": ">=24576"}, "24576 GiB are more than any host has .*another unit"),
        ({"gpu_memory_gib": ["24", "32G"]}, "'32G' in '32G' is not a number"),
        ({"clock_skew_s": "<=500ms"}, "seconds are meant"),
        ({"cpu_cores": ">=4c"}, "pieces are meant"),
        ({"bandwidth": {"down_mbps": 0}}, "greater than 0"),
        ({"bandwidth": {"down_mbps": "1 Gbit"}}, "valid number"),
    ],
)
def test_what_cannot_be_meant_is_refused(key: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        item(**key)


def test_systems() -> None:
    assert os_matches("ubuntu>=22.04", "ubuntu-24.04")
    assert not os_matches("ubuntu>=22.04", "ubuntu-20.04")
    assert not os_matches("ubuntu>=22.04", "debian-12")
    assert os_matches("opensuse-leap", "opensuse-leap-15.6")
    assert os_family("opensuse-leap-15.6") == "opensuse-leap"


def test_values_print_as_a_person_writes_them() -> None:
    assert text_of(item(toolkit="*").value) == "any version"
    assert text_of(item(ports={"tcp": ["80"], "udp": ["53"]}).value) == "80/tcp, 53/udp (inbound)"
    assert text_of(item(sysctl={"a.b": "1"}).value) == "a.b 1"
    assert text_of(item(gpu_exclusive=True).value) == "yes"
    assert text_of(item(os=["debian-12", "ubuntu"]).value) == "debian-12 or ubuntu"


def test_the_reference_page_describes_every_key_and_its_examples_are_read() -> None:
    """A key without a row in docs/reference/requirement-language.md, or an example that does not parse, fails here."""
    import yaml

    text = PAGE.read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(" `") for line in text.splitlines() if line.startswith("| `")}
    assert set(KEYS) <= rows
    blocks = [block.partition("```")[0] for block in text.split("```yaml\n")[1:]]
    read = [Requirement.model_validate(one) for block in blocks for one in yaml.safe_load(block)]
    assert len(read) >= 12
