"""Versions that keep their text and compare as numbers, and a closed algebra of sets of versions.

Theory of `Specifier`: a set of versions is a sorted tuple of disjoint, non-touching intervals with open or
closed ends, over an order without gaps (between any two versions another one could appear). Intersection,
union and complement of such sets are again such sets, so every question (does it allow, is it empty, what is
left) has one exact answer. An exact list is a union of one-point intervals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

S = TypeVar("S", bound="Version")
V = TypeVar("V", bound="Version")


class Version:
    """Text that is ordered by a key; two versions with one key are equal however they are written.

    `DriverVersion("535.261.03") == DriverVersion("535.261.3")`, and each prints as it was given.
    """

    __slots__ = ("_hash", "_key", "text")
    text: str
    _key: tuple[Any, ...]
    _hash: int
    kind: ClassVar[str] = "version"
    example: ClassVar[str] = "1.2.3"

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ValueError(f"a {self.kind} is text in quotes such as '{self.example}', not {text!r}")
        key = self._read(text)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_hash", hash(key))

    @classmethod
    def _read(cls, text: str) -> tuple[Any, ...]:
        raise NotImplementedError

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.text,))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.text!r})"

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._key == other._key

    def __lt__(self: S, other: S) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._key < other._key

    def __le__(self: S, other: S) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._key <= other._key

    def __gt__(self: S, other: S) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._key > other._key

    def __ge__(self: S, other: S) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._key >= other._key

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any) -> Version:
            return value if isinstance(value, cls) else cls(value)

        return core_schema.no_info_plain_validator_function(
            read,
            json_schema_input_schema=core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )


def _without_trailing_zeros(numbers: Iterable[str]) -> tuple[int, ...]:
    parts = [int(part) for part in numbers]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


class DriverVersion(Version):
    """An NVIDIA driver version: `535.261.03`, or a bare branch such as `580` where a table gives no more.

    Numbers compare inside a branch; across branches a higher number is not a later date.
    """

    __slots__ = ()
    kind: ClassVar[str] = "driver version"
    example: ClassVar[str] = "535.261.03"
    _SHAPE: ClassVar[re.Pattern[str]] = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5}){0,3}")

    @classmethod
    def _read(cls, text: str) -> tuple[Any, ...]:
        if not cls._SHAPE.fullmatch(text):
            raise ValueError(f"'{text}' is not a driver version (like {cls.example})")
        return _without_trailing_zeros(text.split("."))

    @property
    def branch(self) -> str:
        """`535.261.03` belongs to branch `535`."""
        return self.text.partition(".")[0]


class CudaVersion(Version):
    """A CUDA level or release: `12.2`, `12.2.1`."""

    __slots__ = ()
    kind: ClassVar[str] = "CUDA version"
    example: ClassVar[str] = "12.2"
    _SHAPE: ClassVar[re.Pattern[str]] = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,5})?")

    @classmethod
    def _read(cls, text: str) -> tuple[Any, ...]:
        if not cls._SHAPE.fullmatch(text):
            raise ValueError(f"'{text}' is not a CUDA version (like {cls.example} or {cls.example}.1)")
        return _without_trailing_zeros(text.split("."))

    @property
    def major(self) -> int:
        return int(self.text.split(".")[0])

    @property
    def minor(self) -> int:
        return int(self.text.split(".")[1])

    @property
    def level(self) -> CudaVersion:
        """What a driver reports: `12.2.1` is of level `12.2`."""
        return CudaVersion(".".join(self.text.split(".")[:2]))


class DottedVersion(Version):
    """Any other dotted version: a kernel, a runtime, a network's client, a compute capability.

    `v1.2.0-rc1` comes before `1.2.0`; what stands behind a `+` does not order.
    """

    __slots__ = ()
    kind: ClassVar[str] = "version"
    example: ClassVar[str] = "1.19.1"
    _SHAPE: ClassVar[re.Pattern[str]] = re.compile(
        r"v?([0-9]{1,12}(?:\.[0-9]{1,12}){0,5})(?:[-~]?([A-Za-z0-9.~-]*[A-Za-z0-9]))?(?:\+[A-Za-z0-9.+~-]+)?"
    )

    @classmethod
    def _read(cls, text: str) -> tuple[Any, ...]:
        match = cls._SHAPE.fullmatch(text)
        if match is None:
            raise ValueError(f"'{text}' is not a version (like {cls.example})")
        numbers = _without_trailing_zeros(match[1].split("."))
        pre = tuple(
            (0, int(part), "") if part.isdigit() else (1, 0, part.lower())
            for part in re.findall(r"[0-9]+|[A-Za-z]+", match[2] or "")
        )
        return (numbers, (1,)) if not pre else (numbers, (0, pre))


class KernelRelease(Version):
    """A kernel as `uname -r` says it: `6.1.0-57-amd64`, `6.12.117+deb13-amd64`, `5.14.0-427.13.1.el9_4.x86_64`.

    Its numbers order it, then those behind the first dash, which count the distribution's builds of that kernel
    (6.1.0-57 is Debian's 57th of its 6.1, and contains far more than kernel.org's 6.1.0). The flavour and what else
    follows do not: `6.1.0-57-cloud-amd64 == 6.1.0-57`. Such a count compares inside one distribution alone, and a
    kernel that somebody built from kernel.org's 6.1.192 has none: it stands after every 6.1.0-N, whatever it contains.
    """

    __slots__ = ()
    kind: ClassVar[str] = "kernel release"
    example: ClassVar[str] = "6.1.0-57"
    _SHAPE: ClassVar[re.Pattern[str]] = re.compile(
        r"([0-9]{1,9}(?:\.[0-9]{1,9}){1,3})(?:-([0-9]{1,9}(?:\.[0-9]{1,9})*)(?![0-9A-Za-z]))?(?:[-+._~][A-Za-z0-9.+~_-]*)?"
    )

    @classmethod
    def _read(cls, text: str) -> tuple[Any, ...]:
        match = cls._SHAPE.fullmatch(text)
        if match is None:
            raise ValueError(f"'{text}' is not a kernel release (like {cls.example})")
        builds = tuple(int(part) for part in match[2].split(".")) if match[2] else ()
        return (_without_trailing_zeros(match[1].split(".")), builds)


def _debian_order(text: str) -> tuple[Any, ...]:
    """Turn `1.0~rc1` into a tuple that Python orders as dpkg does.

    Runs of non-digits and digits alternate. In a run `~` sorts before the end of the run, the end before
    letters, letters before the rest; the closing (0,) lets a shorter version meet the `~` of a longer one.
    """
    key: list[Any] = []
    for letters, digits in re.findall(r"([^0-9]*)([0-9]*)", text):
        if not letters and not digits and key:
            break
        key.append((*(-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in letters), 0))
        key.append(int(digits or "0"))
    key.append((0,))
    return tuple(key)


class DebianVersion(Version):
    """A version of a Debian or Ubuntu package, ordered exactly as `dpkg --compare-versions` orders it."""

    __slots__ = ()
    kind: ClassVar[str] = "package version"
    example: ClassVar[str] = "535.261.03-1~deb12u1"
    _SHAPE: ClassVar[re.Pattern[str]] = re.compile(
        r"(?:([0-9]{1,9}):)?" r"([0-9][A-Za-z0-9.+~:-]*?)" r"(?:-([A-Za-z0-9+.~]+))?"
    )

    @classmethod
    def _parts(cls, text: str) -> tuple[int, str, str]:
        match = cls._SHAPE.fullmatch(text)
        if match is None or (match[1] is None and ":" in text):
            raise ValueError(f"'{text}' is not a package version (like {cls.example})")
        return int(match[1] or 0), match[2], match[3] or ""

    @classmethod
    def _read(cls, text: str) -> tuple[Any, ...]:
        epoch, upstream, revision = cls._parts(text)
        return (epoch, _debian_order(upstream), _debian_order(revision))

    @property
    def epoch(self) -> int:
        return self._parts(self.text)[0]

    @property
    def upstream(self) -> str:
        """`535.261.03-1~deb12u1` packages `535.261.03`."""
        return self._parts(self.text)[1]

    @property
    def revision(self) -> str:
        """`535.261.03-1~deb12u1` is revision `1~deb12u1`."""
        return self._parts(self.text)[2]


def _rpm_order(text: str) -> tuple[Any, ...]:
    """Turn `1.0~rc1` into a tuple that Python orders as rpm does (rpmvercmp).

    Only runs of letters and of digits count, whatever stands between them: `~` sorts before the end of the text, the
    end before `^`, that before letters, letters before digits.
    """
    ranks = {"~": -1, "^": 1}
    key: list[tuple[int, int, str]] = []
    for part in re.findall(r"~|\^|[0-9]+|[A-Za-z]+", text):
        if part in ranks:
            key.append((ranks[part], 0, ""))
        else:
            key.append((3, int(part), "") if part.isdecimal() else (2, 0, part))
    return (*key, (0, 0, ""))


class RpmVersion(DebianVersion):
    """Epoch, version and release of an RPM, `3:580.95.05-1.el9`, ordered exactly as rpm orders them.

    It is asked the same things as a Debian package's version, so it is one; where the two meet, rpm's order counts.
    """

    __slots__ = ()
    example: ClassVar[str] = "3:580.95.05-1.el9"
    _SHAPE: ClassVar[re.Pattern[str]] = re.compile(
        r"(?:([0-9]{1,9}):)?" r"([0-9A-Za-z][A-Za-z0-9.+~^_]*?)" r"-([A-Za-z0-9.+~^_]+)"
    )

    @classmethod
    def _read(cls, text: str) -> tuple[Any, ...]:
        epoch, upstream, revision = cls._parts(text)
        return (epoch, _rpm_order(upstream), _rpm_order(revision))

    def __lt__(self, other: DebianVersion) -> bool:
        return self._key < self._of(other)._key

    def __le__(self, other: DebianVersion) -> bool:
        return self._key <= self._of(other)._key

    def __gt__(self, other: DebianVersion) -> bool:
        return self._key > self._of(other)._key

    def __ge__(self, other: DebianVersion) -> bool:
        return self._key >= self._of(other)._key

    @classmethod
    def _of(cls, other: DebianVersion) -> DebianVersion:
        return other if isinstance(other, cls) else cls(other.text if "-" in other.text else f"{other.text}-0")


@dataclass(frozen=True)
class _Interval(Generic[V]):
    """One stretch of versions; `None` is "no end on this side", `closed` that the end itself belongs."""

    low: V | None
    low_closed: bool
    high: V | None
    high_closed: bool

    def allows(self, version: V) -> bool:
        if self.low is not None and not (self.low < version or (self.low_closed and self.low == version)):
            return False
        return self.high is None or version < self.high or (self.high_closed and self.high == version)

    def is_empty(self) -> bool:
        if self.low is None or self.high is None or self.low < self.high:
            return False
        return not (self.low == self.high and self.low_closed and self.high_closed)

    def meet(self, other: _Interval[V]) -> _Interval[V]:
        """>=1,<5 meets >2,<=5 in >2,<5."""
        low, low_closed = self.low, self.low_closed
        if other.low is not None and (low is None or other.low > low or (other.low == low and not other.low_closed)):
            low, low_closed = other.low, other.low_closed
        high, high_closed = self.high, self.high_closed
        if other.high is not None and (
            high is None or other.high < high or (other.high == high and not other.high_closed)
        ):
            high, high_closed = other.high, other.high_closed
        return _Interval(low, low_closed, high, high_closed)

    def touches(self, later: _Interval[V]) -> bool:
        """<2 and >=2 touch, <2 and >2 do not (2 lies between); `later` must not begin before self."""
        if self.high is None or later.low is None or later.low < self.high:
            return True
        return later.low == self.high and (later.low_closed or self.high_closed)

    def __str__(self) -> str:
        if self.low is not None and self.low == self.high:
            return f"=={self.low}"
        ends = []
        if self.low is not None:
            ends.append(f"{'>=' if self.low_closed else '>'}{self.low}")
        if self.high is not None:
            ends.append(f"{'<=' if self.high_closed else '<'}{self.high}")
        return ",".join(ends) or "*"


def _starts_before(a: _Interval[V], b: _Interval[V]) -> bool:
    if a.low is None or b.low is None:
        return a.low is None and b.low is not None
    return a.low < b.low or (a.low == b.low and a.low_closed and not b.low_closed)


def _ends_before(a: _Interval[V], b: _Interval[V]) -> bool:
    if a.high is None or b.high is None:
        return a.high is not None and b.high is None
    return a.high < b.high or (a.high == b.high and not a.high_closed and b.high_closed)


def _normal(intervals: Iterable[_Interval[V]]) -> tuple[_Interval[V], ...]:
    """Sort, drop what is empty, and join what overlaps or touches, so that equal sets are equal values."""
    waiting = [interval for interval in intervals if not interval.is_empty()]
    ordered: list[_Interval[V]] = []
    for interval in waiting:
        place = len(ordered)
        while place and _starts_before(interval, ordered[place - 1]):
            place -= 1
        ordered.insert(place, interval)
    joined: list[_Interval[V]] = []
    for interval in ordered:
        if joined and joined[-1].touches(interval):
            last = joined[-1]
            wider = interval if _ends_before(last, interval) else last
            joined[-1] = _Interval(last.low, last.low_closed, wider.high, wider.high_closed)
        else:
            joined.append(interval)
    return tuple(joined)


_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*([^\s,|<>=!]+)\s*")


@dataclass(frozen=True)
class Specifier(Generic[V]):
    """A set of versions: `>=550.54.14,<571`, `==535.*`, `==1.2 || >=2`, exact versions, `*`, `none`."""

    intervals: tuple[_Interval[V], ...]

    @classmethod
    def any(cls) -> Specifier[V]:
        return cls((_Interval(None, False, None, False),))

    @classmethod
    def none(cls) -> Specifier[V]:
        return cls(())

    @classmethod
    def exact(cls, versions: Iterable[V]) -> Specifier[V]:
        """Exactly these: `Specifier.exact([DriverVersion("535.161.07")])`."""
        return cls(_normal(_Interval(v, True, v, True) for v in versions))

    @classmethod
    def parse(cls, text: str, version: type[V]) -> Specifier[V]:
        """Read the text of a specifier; a comma is "and", `||` is "or" and binds weaker."""
        whole: Specifier[V] = cls.none()
        for alternative in text.split("||"):
            part: Specifier[V] = cls.any()
            word = alternative.strip()
            if word == "none":
                continue
            for clause in [] if word == "*" else word.split(","):
                part = part.intersect(cls._clause(clause, version, text))
            whole = whole.union(part)
        return whole

    @classmethod
    def _clause(cls, clause: str, version: type[V], text: str) -> Specifier[V]:
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise ValueError(
                f"'{clause.strip()}' in '{text}' is not a condition: write >=, >, <=, <, ==, != and a version"
            )
        sign, word = match.groups()
        if word.endswith(".*"):
            if sign not in ("==", "!="):
                raise ValueError(f"'{word}' in '{text}' may stand only behind == or !=")
            head = word[:-2].split(".")
            if not head[-1].isdigit():
                raise ValueError(f"'{word}' in '{text}' does not end in a number and .*")
            after = ".".join([*head[:-1], str(int(head[-1]) + 1)])
            block = cls((_Interval(_whole(version, head), True, _whole(version, after.split(".")), False),))
            return block if sign == "==" else block.complement()
        bound = version(word)
        if sign in ("==", "!="):
            point = cls.exact([bound])
            return point if sign == "==" else point.complement()
        closed = "=" in sign
        if sign[0] == ">":
            return cls((_Interval(bound, closed, None, False),))
        return cls((_Interval(None, False, bound, closed),))

    def allows(self, version: V) -> bool:
        return any(interval.allows(version) for interval in self.intervals)

    def is_empty(self) -> bool:
        return not self.intervals

    def is_any(self) -> bool:
        return len(self.intervals) == 1 and self.intervals[0].low is None and self.intervals[0].high is None

    def exact_versions(self) -> tuple[V, ...] | None:
        """The versions of an exact list in ascending order; None when the set is not such a list."""
        points = [i.low for i in self.intervals if i.low is not None and i.low == i.high]
        return tuple(points) if points and len(points) == len(self.intervals) else None

    def intersect(self, other: Specifier[V]) -> Specifier[V]:
        return Specifier(_normal(a.meet(b) for a in self.intervals for b in other.intervals))

    def union(self, other: Specifier[V]) -> Specifier[V]:
        return Specifier(_normal((*self.intervals, *other.intervals)))

    def complement(self) -> Specifier[V]:
        return Specifier(_normal(self._holes()))

    def _holes(self) -> Iterator[_Interval[V]]:
        low: V | None = None
        low_closed = False
        for interval in self.intervals:
            if interval.low is not None:
                yield _Interval(low, low_closed, interval.low, not interval.low_closed)
            if interval.high is None:
                return
            low, low_closed = interval.high, not interval.high_closed
        yield _Interval(low, low_closed, None, False)

    def difference(self, other: Specifier[V]) -> Specifier[V]:
        return self.intersect(other.complement())

    def is_subset(self, other: Specifier[V]) -> bool:
        return self.difference(other).is_empty()

    def __str__(self) -> str:
        return " || ".join(str(interval) for interval in self.intervals) or "none"


def _whole(version: type[V], parts: list[str]) -> V:
    """A version from few parts: CUDA wants two, so `12` becomes `12.0`."""
    try:
        return version(".".join(parts))
    except ValueError:
        return version(".".join([*parts, "0"]))


@dataclass(frozen=True)
class _AsText:
    """Tells pydantic that a specifier of this kind of version is written as text or as a list."""

    version: type[Version]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: Any) -> Specifier[Any]:
            if isinstance(value, Specifier):
                return value
            if isinstance(value, list):
                return Specifier.exact([self.version(item) for item in value])
            if not isinstance(value, str):
                raise ValueError(f"a specifier is text such as '>={self.version.example}', not {value!r}")
            return Specifier.parse(value, self.version)

        text = core_schema.str_schema()
        return core_schema.no_info_plain_validator_function(
            read,
            json_schema_input_schema=core_schema.union_schema([text, core_schema.list_schema(text)]),
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=text),
        )


DriverSpecifier = Annotated[Specifier[DriverVersion], _AsText(DriverVersion)]
CudaSpecifier = Annotated[Specifier[CudaVersion], _AsText(CudaVersion)]
DottedSpecifier = Annotated[Specifier[DottedVersion], _AsText(DottedVersion)]
KernelSpecifier = Annotated[Specifier[KernelRelease], _AsText(KernelRelease)]
