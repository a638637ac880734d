"""`NVIDIA_REQUIRE_CUDA` with its true semantics: what a CUDA image asks of a host, read and answered.

The text is a list of alternatives, separated by spaces; each is a list of conditions, separated by commas, that must
all hold: `cuda>=12.4 brand=tesla,driver>=470,driver<471` is "CUDA 12.4, or a Tesla on driver 470". Keys and brands
compare without case. `cuda` is the level that the host's driver reports, never that of compat libraries in the image.

Only the legacy path (nvidia-container-cli) checks it; CDI does not, so that a container may start and then fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from provisioner.matrix.entries import GpuModel
from provisioner.matrix.specifier import Answer
from provisioner.model.version import CudaVersion, DottedVersion, DriverVersion, Specifier, Version

Key = Literal["cuda", "driver", "brand", "arch"]
_KEYS: dict[str, Key] = {"cuda": "cuda", "driver": "driver", "brand": "brand", "arch": "arch"}
_CONDITION = re.compile(r"([A-Za-z]+)(>=|<=|!=|=|>|<)([A-Za-z0-9.]+)")
_VERSIONS: dict[str, type[Version]] = {"driver": DriverVersion, "arch": DottedVersion, "cuda": DottedVersion}


@dataclass(frozen=True)
class Condition:
    """`driver>=470`: a key as written, a sign, and a version or brand as written."""

    key_text: str
    sign: str
    value: str

    @property
    def key(self) -> Key:
        return _KEYS[self.key_text.lower()]

    def __str__(self) -> str:
        return f"{self.key_text}{self.sign}{self.value}"


@dataclass(frozen=True)
class Expression:
    """Alternatives of conjunctions; `str` gives the text back."""

    alternatives: tuple[tuple[Condition, ...], ...]

    def __str__(self) -> str:
        return " ".join(",".join(str(c) for c in terms) for terms in self.alternatives)


@dataclass(frozen=True)
class Host:
    """What the check sees of one GPU; None is unknown."""

    cuda: CudaVersion | None = None
    driver: DriverVersion | None = None
    brand: str | None = None
    arch: DottedVersion | None = None


@dataclass(frozen=True)
class Outcome:
    """An answer; for *yes* the alternative that holds, for the rest the conditions that stand against each one."""

    answer: Answer
    holds: tuple[Condition, ...] = ()
    against: tuple[tuple[Condition, ...], ...] = ()


def parse(text: str) -> Expression:
    """Read the value of the variable; ValueError says which condition cannot be read."""
    alternatives = tuple(tuple(_read(part, text) for part in term.split(",")) for term in text.split(" ") if term)
    if not alternatives:
        raise ValueError("an empty requirement asks for nothing; leave the variable out")
    return Expression(alternatives)


def _read(part: str, text: str) -> Condition:
    match = _CONDITION.fullmatch(part)
    if match is None:
        raise ValueError(f"'{part}' in '{text}' is not a condition such as driver>=535")
    condition = Condition(*match.groups())
    key = condition.key_text.lower()
    if key not in _KEYS:
        raise ValueError(f"'{part}' in '{text}': the keys are cuda, driver, brand and arch")
    if key == "brand":
        if condition.sign not in ("=", "!="):
            raise ValueError(f"'{part}' in '{text}': a brand is compared with = or != alone")
    else:
        _VERSIONS[key](condition.value)
    return condition


def evaluate(expression: Expression, host: Host) -> Outcome:
    """Yes when one alternative holds; unknown when one may; no when each has a condition that fails."""
    against: list[tuple[Condition, ...]] = []
    open_end = False
    for terms in expression.alternatives:
        answers = [(term, _holds(term, host)) for term in terms]
        if all(answer is True for _, answer in answers):
            return Outcome(Answer.YES, holds=terms)
        failed = tuple(term for term, answer in answers if answer is False)
        open_end = open_end or not failed
        against.append(failed or tuple(term for term, answer in answers if answer is None))
    return Outcome(Answer.UNKNOWN if open_end else Answer.NO, against=tuple(against))


def _holds(term: Condition, host: Host) -> bool | None:
    found = getattr(host, term.key)
    if found is None:
        return None
    if term.key == "brand":
        return (str(found).lower() == term.value.lower()) is (term.sign == "=")
    kind = _VERSIONS[term.key]
    return _as_set(term, kind).allows(kind(str(found)))


def _as_set(term: Condition, kind: type[Version]) -> Specifier[Any]:
    sign = "==" if term.sign == "=" else term.sign
    return Specifier.parse(f"{sign}{term.value}", kind)


def cuda_floor(expression: Expression) -> CudaVersion | None:
    """The CUDA level that suffices by itself: `cuda>=12.4 …` gives 12.4."""
    for terms in expression.alternatives:
        if len(terms) == 1 and terms[0].key == "cuda" and terms[0].sign == ">=":
            return CudaVersion(terms[0].value)
    return None


def fallback_drivers(expression: Expression, brand: str) -> Specifier[DriverVersion]:
    """Drivers below the CUDA floor that alternatives admit for a brand: `brand=tesla,driver>=470,driver<471`."""
    admitted: Specifier[DriverVersion] = Specifier.none()
    for terms in _without_cuda(expression):
        if any(t.key == "brand" and _holds(t, Host(brand=brand)) is False for t in terms):
            continue
        part: Specifier[DriverVersion] = Specifier.any()
        for term in terms:
            if term.key == "driver":
                part = part.intersect(_as_set(term, DriverVersion))
        admitted = admitted.union(part)
    return admitted


def _without_cuda(expression: Expression) -> Iterator[tuple[Condition, ...]]:
    for terms in expression.alternatives:
        if any(t.key == "driver" for t in terms) and not any(t.key == "cuda" for t in terms):
            yield terms


_OLD_BRANDS = {"quadro": "quadro", "tesla": "tesla", "geforce": "geforce", "titan": "titan"}
_NEW_BRANDS = {**_OLD_BRANDS, "rtx": "nvidiartx", "datacenter": "nvidia"}
_BRANDS_SINCE = DottedVersion("1.9.0")


def brand_of(model: GpuModel, toolkit: DottedVersion | None) -> str | None:
    """The brand that the check sees on a card: toolkits before 1.9.0 call newer brands `unknown`.

    A GeForce RTX is `geforce`, because NVML does not use its brands for GeForce RTX and TITAN RTX.
    """
    if model.brand == "integrated":
        return None
    if model.brand in _OLD_BRANDS and not model.name.startswith("Quadro RTX"):
        return _OLD_BRANDS[model.brand]
    new = "quadrortx" if model.name.startswith("Quadro RTX") else _NEW_BRANDS[model.brand]
    if toolkit is None:
        return None
    return new if toolkit >= _BRANDS_SINCE else "unknown"
