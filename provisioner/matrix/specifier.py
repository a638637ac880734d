"""The requirement language of entries: one key, one value; answered yes, no or unknown, with a reason.

An item is a mapping with exactly one key of the language, and what makes it a claim:

    - driver: ">=550.54.14,<571"
      because: the client's image is built with CUDA 12.4
      sources: [https://…]
      confidence: high

`judge` compares one item with what is known of a host. What is not known gives *unknown*, never *no*; a claim
of low confidence, or one that says `severity: warn`, gives its answer but does not forbid.
docs/reference/requirement-language.md lists every key with examples.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    model_validator,
)

from provisioner.model.version import (
    CudaSpecifier,
    CudaVersion,
    DottedSpecifier,
    DottedVersion,
    DriverSpecifier,
    DriverVersion,
    Specifier,
    Version,
)

Confidence = Literal["high", "medium", "low"]


def _day(value: str) -> str:
    """A month or a day that is in no calendar is a typing error; parts may be missing."""
    year, month, day = [*map(int, value.split("-")), 1, 1][:3]
    try:
        dt.date(year, month, day)
    except ValueError as problem:
        raise ValueError(f"'{value}' is no day of the calendar: {problem}") from problem
    return value


Day = Annotated[str, StringConstraints(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$"), AfterValidator(_day)]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$", max_length=80)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class Frozen(BaseModel):
    """A value of the matrix: unknown keys are errors, nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Claim(Frozen):
    """Something that somebody stated: where, when it was read, and how far to trust it.

    What a nested claim leaves open is taken from the entry it stands in.
    """

    sources: tuple[Text, ...] = ()
    seen: Day | None = None
    confidence: Confidence | None = None
    why: Text | None = None


def _ports(value: Any) -> Any:
    """`80` and `30000-32767` are written as text; the ends must be ports and in order."""
    if not isinstance(value, str) or (match := re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", value)) is None:
        raise ValueError(f"{value!r} is not a port or a range of ports such as '80' or '30000-32767'")
    low, high = int(match[1]), int(match[2] or match[1])
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"'{value}' is not a range of ports between 1 and 65535")
    return value


PortRange = Annotated[str, BeforeValidator(_ports)]


class Ports(Frozen):
    """Ports that a network's client takes on the host."""

    tcp: tuple[PortRange, ...] = ()
    udp: tuple[PortRange, ...] = ()
    direction: Literal["inbound", "outbound", "local", "unstated"] = "inbound"

    def numbers(self, protocol: str) -> tuple[tuple[int, int], ...]:
        """`30000-32767` is (30000, 32767), `80` is (80, 80)."""
        found = []
        for text in getattr(self, protocol):
            low, _, high = text.partition("-")
            found.append((int(low), int(high or low)))
        return tuple(found)


class Bandwidth(Frozen):
    """Megabit per second that the network asks for."""

    down_mbps: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    up_mbps: Annotated[float, Field(gt=0, le=1_000_000)] | None = None


class Kubernetes(Frozen):
    """The cluster that a client lives in."""

    distribution: Literal["k3s", "kubespray", "any"] = "any"
    version: DottedVersion | None = None
    cluster_cidr: str | None = None


_OS = re.compile(r"([a-z]+(?:-[a-z]+)*)(?:-([0-9][0-9.]*)|\s*((?:>=|<=|==|>|<).+))?")


def _os_item(value: Any) -> Any:
    if not isinstance(value, str) or (match := _OS.fullmatch(value)) is None:
        raise ValueError(f"{value!r} is not an OS: write an id (debian-12), a family (windows) or ubuntu>=22.04")
    if match[3] and Specifier.parse(match[3], DottedVersion).is_empty():
        raise ValueError(f"no release satisfies '{value}'")
    return value


OsItem = Annotated[str, BeforeValidator(_os_item)]
Presence = Literal["present", "absent"]

RUNTIMES = Literal["docker", "docker-ce", "docker-io", "podman", "containerd", "cri-o", "sysbox", "kubernetes", "none"]


def _amount(unit: str, most: float) -> BeforeValidator:
    """A unit is never written, nor another meant: `>=16GB` would be a version before 16, `>=16384` so many GiB."""

    def check(value: Any) -> Any:
        for text in value if isinstance(value, list) else [value]:
            for word in re.findall(r"[^\s,|<>=!]+", text) if isinstance(text, str) else ():
                if word in ("*", "none"):
                    continue
                if not re.fullmatch(r"\d+(\.\d+)?", word):
                    raise ValueError(f"'{word}' in '{text}' is not a number: write it without a unit, {unit} are meant")
                if float(word) > most:
                    raise ValueError(f"{word} {unit} are more than any host has ({most:g}): is another unit meant?")
        return value

    return BeforeValidator(check)


GpuGib = Annotated[DottedSpecifier, _amount("GiB", 1024)]
RamGib = Annotated[DottedSpecifier, _amount("GiB", 32768)]
DiskGib = Annotated[DottedSpecifier, _amount("GiB", 4_194_304)]
Count = Annotated[DottedSpecifier, _amount("pieces", 4096)]
Seconds = Annotated[DottedSpecifier, _amount("seconds", 86400)]


class Requirement(Claim):
    """One item of the language: exactly one key, its value, and the claim behind it."""

    driver: DriverSpecifier | None = None
    driver_nvml_digests: dict[str, str] | None = Field(None, alias="driver.nvml_digests")
    host_driver: Presence | None = None
    modules: Literal["open", "proprietary"] | None = None
    cuda: CudaSpecifier | None = None
    compute_capability: DottedSpecifier | None = Field(None, alias="gpu.compute_capability")
    memory_gib: GpuGib | None = Field(None, alias="gpu.memory_gib")
    model: tuple[Id, ...] | None = Field(None, alias="gpu.model")
    not_model: tuple[Id, ...] | None = Field(None, alias="gpu.not_model")
    architecture: tuple[Id, ...] | None = Field(None, alias="gpu.architecture")
    brand: tuple[Id, ...] | None = Field(None, alias="gpu.brand")
    gpu_count: Count | None = Field(None, alias="gpu.count")
    gpu_same_model: Annotated[bool, Strict()] | None = Field(None, alias="gpu.same_model")
    gpu_exclusive: Annotated[bool, Strict()] | None = Field(None, alias="gpu.exclusive")
    gpu_binding: Literal["nvidia", "vfio"] | None = Field(None, alias="gpu.binding")
    gpu_ecc: Presence | None = Field(None, alias="gpu.ecc")
    os: tuple[OsItem, ...] | None = None
    arch: tuple[Literal["x86_64", "aarch64"], ...] | None = None
    kernel: DottedSpecifier | None = None
    runtime: tuple[RUNTIMES, ...] | None = None
    docker: DottedSpecifier | None = None
    containerd: DottedSpecifier | None = None
    toolkit: DottedSpecifier | None = None
    cdi: Presence | None = None
    cgroup_driver: Literal["systemd", "cgroupfs"] | None = None
    kubernetes: Kubernetes | None = None
    swap: Presence | None = None
    swap_gib: RamGib | None = None
    sysctl: dict[str, str] | None = None
    ports: Ports | None = None
    public_ip: Literal["static", "reachable", "same-as-egress", "not-needed"] | None = None
    bandwidth: Bandwidth | None = None
    ram_gib: RamGib | None = None
    disk_gib: DiskGib | None = None
    cpu_cores: Count | None = None
    unattended_upgrades: Presence | None = None
    dedicated: Annotated[bool, Strict()] | None = None
    tee: tuple[Literal["intel-tdx", "amd-sev-snp"], ...] | None = None
    clock_skew_s: Seconds | None = None
    client: dict[str, DottedSpecifier] | None = None
    severity: Literal["must", "warn"] = "must"
    with_client: DottedSpecifier | None = None
    """Versions of the network's client that ask for this; none named: all of them."""
    because: Text
    listed_on: Day | None = None
    """For lists that grow: the day the list was read, shown with every answer that rests on it."""

    @model_validator(mode="after")
    def _one_key(self) -> Requirement:
        given = [key for key, field in _LANGUAGE.items() if getattr(self, field) is not None]
        if len(given) != 1:
            named = " and ".join(given) or "none"
            raise ValueError(f"a requirement has exactly one key of the language, here: {named}")
        value = getattr(self, _LANGUAGE[given[0]])
        if isinstance(value, Specifier) and value.is_empty():
            raise ValueError(f"{given[0]}: no version satisfies this specifier")
        if isinstance(value, dict):
            for name, item in value.items():
                if isinstance(item, Specifier) and item.is_empty():
                    raise ValueError(f"{given[0]}.{name}: no version satisfies this specifier")
        if value in ((), {}):
            raise ValueError(f"{given[0]}: an empty list can never hold")
        if value == Bandwidth() or (isinstance(value, Ports) and not (value.tcp or value.udp)):
            raise ValueError(f"{given[0]}: it names none")
        return self

    @cached_property
    def key(self) -> str:
        """The key of the language as it is written in an entry, such as `gpu.memory_gib`."""
        return next(key for key, field in _LANGUAGE.items() if getattr(self, field) is not None)

    @property
    def value(self) -> Any:
        return getattr(self, _LANGUAGE[self.key])

    @property
    def forbids(self) -> bool:
        """Whether a *no* rules a stack out: a warning, low confidence or a missing date never do."""
        return self.severity == "must" and self.confidence != "low" and self.seen is not None


_NOT_LANGUAGE = {*Claim.model_fields, "severity", "with_client", "because", "listed_on"}
_LANGUAGE: dict[str, str] = {
    field.alias or name: name for name, field in Requirement.model_fields.items() if name not in _NOT_LANGUAGE
}
KEYS: tuple[str, ...] = tuple(_LANGUAGE)
"""Every key of the language, in the order of the reference page."""


class Answer(Enum):
    """Unknown is not no: a check that could not be made is reported as not made."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Judgement:
    """An answer with the rule and the source it rests on."""

    answer: Answer
    forbids: bool
    key: str
    found: str | None
    requirement: Requirement
    why_unknown: str | None = None

    @property
    def required(self) -> str:
        """In words; only who is told of the answer needs them."""
        return text_of(self.requirement.value)


Situation = Mapping[str, Any]
"""What is known of a host and a stack, by key of the language; a key that is missing is unknown.

`gpus` holds one mapping per GPU with `compute_capability`, `memory_gib`, `model`, `architecture`, `brand`,
`ecc`, `binding`; all other keys are those of the language (`driver`, `cuda`, `os`; `ports`: those taken).
"""


def text_of(value: Any) -> str:
    """The value of an item as a person writes it."""
    if isinstance(value, Specifier):
        if value.is_any():
            return "any version"
        listed = value.exact_versions()
        if listed is not None and len(listed) > 1:
            return "one of " + ", ".join(str(v) for v in listed)
        return str(value)
    if isinstance(value, Ports):
        parts = [f"{p}/{proto}" for proto in ("tcp", "udp") for p in getattr(value, proto)]
        return f"{', '.join(parts)} ({value.direction})"
    if isinstance(value, BaseModel):
        return ", ".join(f"{k} {v}" for k, v in value.model_dump(exclude_none=True).items())
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " or ".join(str(v) for v in value)
    return str(value)


@lru_cache(maxsize=1024)
def os_matches(item: str, os_id: str) -> bool:
    """`ubuntu>=22.04` matches `ubuntu-24.04`; `debian-12` only itself; `windows` any release of it."""
    match = _OS.fullmatch(item)
    if match is None:
        return False
    family, _, release = os_id.rpartition("-")
    if match[3]:
        if family != match[1]:
            return False
        return Specifier.parse(match[3], DottedVersion).allows(DottedVersion(release))
    return item == os_id or (match[2] is None and item in (family, os_id))


def os_family(item: str) -> str:
    """`ubuntu>=22.04` and `ubuntu-24.04` are of the family `ubuntu`."""
    match = _OS.fullmatch(item)
    return match[1] if match else item


def _as(kind: type[Version], found: Any) -> Version:
    return found if isinstance(found, kind) else kind(str(found))


def _in_set(kind: type[Version]) -> Callable[[Any, Any], bool | None]:
    def check(wanted: Any, found: Any) -> bool | None:
        try:
            return bool(wanted.allows(_as(kind, found)))
        except ValueError:
            return None

    return check


def _equal(wanted: Any, found: Any) -> bool | None:
    return bool(wanted == found)


def _one_of(wanted: Any, found: Any) -> bool | None:
    return found in wanted


def _none_of(wanted: Any, found: Any) -> bool | None:
    return found not in wanted


def _any_in_common(wanted: Any, found: Any) -> bool | None:
    return bool(set(wanted) & ({found} if isinstance(found, str) else set(found)))


def _runtime(wanted: Any, found: Any) -> bool | None:
    """`docker` is any packaging of it: docker-io and docker-ce serve it."""
    have = {found} if isinstance(found, str) else set(found)
    if have & {"docker-io", "docker-ce"}:
        have |= {"docker"}
    return _any_in_common(wanted, have)


def _os(wanted: Any, found: Any) -> bool | None:
    return any(os_matches(item, str(found)) for item in wanted)


def _subset(wanted: Any, found: Any) -> bool | None:
    """For sysctl and digests: each known value must agree; an unknown name leaves the answer open."""
    known = {name: value for name, value in wanted.items() if name in found}
    if any(str(found[name]) != str(value) for name, value in known.items()):
        return False
    return True if len(known) == len(wanted) else None


def _ports_free(wanted: Ports, found: Any) -> bool | None:
    """`found` is what others take: {"tcp": [(80, 80)], "udp": []}."""
    for protocol in ("tcp", "udp"):
        for low, high in wanted.numbers(protocol):
            if any(low <= taken_high and taken_low <= high for taken_low, taken_high in found.get(protocol, ())):
                return False
    return True


def _bandwidth(wanted: Bandwidth, found: Any) -> bool | None:
    answers = [
        None if found.get(name) is None else bool(found[name] >= least)
        for name, least in wanted.model_dump(exclude_none=True).items()
    ]
    return False if False in answers else None if None in answers else True


def _client(wanted: Any, found: Any) -> bool | None:
    answers = [
        None if found.get(name) is None else bool(spec.allows(_as(DottedVersion, found[name])))
        for name, spec in wanted.items()
    ]
    return False if False in answers else None if None in answers else True


def _kubernetes(wanted: Kubernetes, found: Any) -> bool | None:
    if wanted.distribution != "any" and found.get("distribution") not in (None, wanted.distribution):
        return False
    return True if found.get("distribution") else None


_PER_GPU: dict[str, tuple[str, Callable[[Any, Any], bool | None]]] = {
    "gpu.compute_capability": ("compute_capability", _in_set(DottedVersion)),
    "gpu.memory_gib": ("memory_gib", _in_set(DottedVersion)),
    "gpu.model": ("model", _one_of),
    "gpu.not_model": ("model", _none_of),
    "gpu.architecture": ("architecture", _one_of),
    "gpu.brand": ("brand", _one_of),
    "gpu.binding": ("binding", _equal),
    "gpu.ecc": ("ecc", _equal),
}
_WHOLE: dict[str, Callable[[Any, Any], bool | None]] = {
    "driver": _in_set(DriverVersion),
    "driver.nvml_digests": _subset,
    "cuda": _in_set(CudaVersion),
    "os": _os,
    "arch": _one_of,
    "runtime": _runtime,
    "tee": _any_in_common,
    "sysctl": _subset,
    "ports": _ports_free,
    "bandwidth": _bandwidth,
    "client": _client,
    "kubernetes": _kubernetes,
    **dict.fromkeys(
        (
            "kernel",
            "docker",
            "containerd",
            "toolkit",
            "swap_gib",
            "ram_gib",
            "disk_gib",
            "cpu_cores",
            "clock_skew_s",
            "gpu.count",
        ),
        _in_set(DottedVersion),
    ),
}


def _over_gpus(field: str, check: Callable[[Any, Any], bool | None], wanted: Any, gpus: Any) -> bool | None:
    answers = [None if gpu.get(field) is None else check(wanted, gpu[field]) for gpu in gpus]
    return False if False in answers else None if None in answers or not answers else True


def _found(key: str, situation: Situation) -> Any:
    gpus = situation.get("gpus")
    if key in _PER_GPU:
        return gpus
    if key == "gpu.count" and gpus is not None:
        return len(gpus)
    if key == "gpu.same_model" and gpus is not None:
        models = [gpu.get("model") for gpu in gpus]
        return None if None in models else len(set(models)) <= 1
    return situation.get(key)


def judge(requirement: Requirement, situation: Situation) -> Judgement:
    """Answer one item: `driver: ">=550"` with driver 535.261.03 is *no*, with no driver known *unknown*."""
    key, wanted = requirement.key, requirement.value
    found = _found(key, situation)
    if found is None:
        answer: Annotated[bool, Strict()] | None = None
    elif key in _PER_GPU:
        answer = _over_gpus(*_PER_GPU[key], wanted, found)
    elif key in ("gpu.same_model", "gpu.exclusive", "dedicated"):
        answer = True if wanted is False else bool(found)
    else:
        answer = _WHOLE.get(key, _equal)(wanted, found)
    shown = found
    if key in _PER_GPU and found is not None:
        shown = sorted({str(gpu.get(_PER_GPU[key][0], "unknown")) for gpu in found})
    return Judgement(
        answer=Answer.UNKNOWN if answer is None else Answer.YES if answer else Answer.NO,
        forbids=requirement.forbids,
        key=key,
        found=None if found is None else text_of(shown),
        requirement=requirement,
        why_unknown=None if answer is not None else f"nothing is known of {key} on this host",
    )
