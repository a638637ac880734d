"""`NVIDIA_REQUIRE_CUDA`: all real strings round-trip and are answered as the legacy path answers them."""

from __future__ import annotations

import pytest

from provisioner.matrix.entries import ContainerRequirement
from provisioner.matrix.nvidia_require import (
    Host,
    brand_of,
    cuda_floor,
    evaluate,
    fallback_drivers,
    parse,
)
from provisioner.matrix.reader import load
from provisioner.matrix.specifier import Answer
from provisioner.model.version import CudaVersion, DottedVersion, DriverVersion

REAL = [
    pytest.param(item, id=f"{images.id}-{item.platform}-{item.images[0]}")
    for images in load().container_images.values()
    for item in images.requirements
]


def host(cuda: str, driver: str, brand: str, arch: str = "8.6") -> Host:
    return Host(CudaVersion(cuda), DriverVersion(driver), brand, DottedVersion(arch))


@pytest.mark.parametrize("item", REAL)
def test_every_real_string_round_trips_and_has_the_counted_alternatives(item: ContainerRequirement) -> None:
    expression = parse(item.require)
    assert str(expression) == item.require
    assert len(expression.alternatives) == item.alternatives
    brands = {c.value for terms in expression.alternatives for c in terms if c.key == "brand"}
    assert brands == set(item.fallback_brands)


@pytest.mark.parametrize("item", REAL)
def test_every_real_string_is_answered(item: ContainerRequirement) -> None:
    """Its own CUDA level suffices; below it the listed branches and brands do, and a GeForce as was counted."""
    expression = parse(item.require)
    floor = cuda_floor(expression)
    assert floor is not None
    assert evaluate(expression, host(str(floor), "999.1", "geforce")).answer is Answer.YES
    assert evaluate(expression, Host()).answer is Answer.UNKNOWN
    for branch in item.fallback_branches:
        admitted = {
            brand: evaluate(expression, host("9.0", f"{branch}.50", brand)).answer is Answer.YES
            for brand in (*item.fallback_brands, "geforce")
        }
        assert any(admitted.values()), branch
        for brand, served in admitted.items():
            assert fallback_drivers(expression, brand).allows(DriverVersion(f"{branch}.50")) is served
    served = [evaluate(expression, host("9.0", f"{b}.50", "geforce")).answer for b in item.fallback_branches]
    if item.geforce_accepted_by_fallback is None:
        assert served == []
    else:
        assert (Answer.YES in served) is item.geforce_accepted_by_fallback


def test_spaces_are_or_and_commas_are_and() -> None:
    expression = parse("cuda>=12.4 brand=tesla,driver>=470,driver<471")
    assert evaluate(expression, host("12.4", "550.1", "geforce")).answer is Answer.YES
    assert evaluate(expression, host("11.4", "470.256.02", "tesla")).answer is Answer.YES
    assert evaluate(expression, host("11.4", "470.256.02", "geforce")).answer is Answer.NO
    assert evaluate(expression, host("12.2", "535.261.03", "tesla")).answer is Answer.NO


def test_the_answer_names_what_holds_and_what_stands_against() -> None:
    expression = parse("cuda>=12.4 brand=tesla,driver>=470,driver<471")
    yes = evaluate(expression, host("11.4", "470.256.02", "TESLA"))
    assert [str(c) for c in yes.holds] == ["brand=tesla", "driver>=470", "driver<471"]
    no = evaluate(expression, host("12.2", "535.261.03", "geforce"))
    assert [[str(c) for c in terms] for terms in no.against] == [["cuda>=12.4"], ["brand=tesla", "driver<471"]]


def test_unknown_is_not_no() -> None:
    expression = parse("cuda>=12.4 brand=tesla,driver>=470,driver<471")
    assert evaluate(expression, Host(cuda=CudaVersion("12.2"))).answer is Answer.UNKNOWN
    assert evaluate(expression, Host(cuda=CudaVersion("12.2"), brand="geforce")).answer is Answer.NO


def test_keys_compare_without_case_and_print_as_given() -> None:
    assert str(parse("CUDA>=12.3")) == "CUDA>=12.3"
    assert evaluate(parse("CUDA>=12.3"), host("12.4", "550.1", "x")).answer is Answer.YES


def test_arch_is_a_compute_capability() -> None:
    expression = parse("cuda>=12.0,arch>=8.0")
    assert evaluate(expression, host("12.2", "535.1", "x", "8.9")).answer is Answer.YES
    assert evaluate(expression, host("12.2", "535.1", "x", "7.5")).answer is Answer.NO


def test_a_geforce_needs_the_images_own_level_from_12_5_on() -> None:
    older, newer = (load().container_images[f"cuda-{level}"].requirements for level in ("12.4", "12.5"))
    assert fallback_drivers(parse(older[0].require), "geforce").allows(DriverVersion("535.261.03"))
    assert all(fallback_drivers(parse(item.require), "geforce").is_empty() for item in newer)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "asks for nothing"),
        ("cuda", "is not a condition"),
        ("cuda>=twelve", "is not a version"),
        ("gpu=1", "the keys are cuda, driver, brand and arch"),
        ("brand>=tesla", "compared with = or != alone"),
        ("cuda>=12.0,", "is not a condition"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse(text)


def test_brands_depend_on_the_toolkit() -> None:
    gpus = load().gpus
    new, old = DottedVersion("1.19.1"), DottedVersion("1.8.0")
    assert brand_of(gpus["rtx-4090"], old) == "geforce"
    assert (brand_of(gpus["a40"], new), brand_of(gpus["a40"], old), brand_of(gpus["a40"], None)) == (
        "nvidia",
        "unknown",
        None,
    )
    assert brand_of(gpus["quadro-rtx-4000"], new) == "quadrortx"
    assert brand_of(gpus["rtx-a6000"], new) == "nvidiartx"
    assert brand_of(gpus["tesla-t4"], None) == "tesla"
    assert brand_of(gpus["gb10"], new) is None
