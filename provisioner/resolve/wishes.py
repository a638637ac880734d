"""The rules of networks: what each asks of host and stack, and what two of them ask against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from provisioner.matrix.entries import Conflict
from provisioner.matrix.reader import Matrix
from provisioner.matrix.specifier import Answer, Ports, Requirement, judge, text_of
from provisioner.model.capture import UNKNOWN
from provisioner.model.version import DottedVersion, DriverVersion, Specifier
from provisioner.resolve.conflict import Claim, Source, entry
from provisioner.resolve.containers import counts_as, engine_version
from provisioner.resolve.host import Card, Driver, Host, RuntimeVersion, kernel_version, quick, upstream
from provisioner.resolve.options import Option
from provisioner.resolve.rules import (
    CDI,
    CUDA,
    DRIVER,
    FIRST_NETWORK,
    RUNTIME,
    TOOLKIT,
    Rules,
    brings_its_own_driver,
)

CONFIGURED = {
    "cdi",
    "cgroup_driver",
    "swap",
    "sysctl",
    "unattended_upgrades",
    "gpu.exclusive",
    "dedicated",
    "gpu.binding",
}
"""Keys that a host does not have but is given: they matter only between two networks."""

SEEN_ON_HOST = {
    "os",
    "arch",
    "kernel",
    "ram_gib",
    "gpu.count",
    "gpu.same_model",
    "gpu.compute_capability",
    "gpu.memory_gib",
    "gpu.model",
    "gpu.architecture",
    "gpu.brand",
    "clock_skew_s",
}
"""Keys that the facts answer; all others are left to checks and to the network's own installer."""

CHOSEN = {"driver", "host_driver", "modules", "cuda", "runtime", "docker", "containerd", "client"}
"""Keys that the resolver itself decides, always."""

WITH_TOOLKIT = {"toolkit", "cdi"}
"""Keys that it decides where a sound container toolkit is offered."""


class Wishes(Rules):
    """Adds to the rules of the host those of its networks."""

    def of_a_network(self, place: int) -> None:
        options = self.options[place]
        variable = FIRST_NETWORK + place
        if self.host.cards and any(brings_its_own_driver(o) for network in self.options for o in network):
            network = options[0].network
            self.rule(
                Claim("network-needs-driver", network.name, (), (entry("networks", network, network.id),)),
                (DRIVER, variable),
                (
                    (d, o)
                    for d, driver in enumerate(self.drivers)
                    for o, option in enumerate(options)
                    if driver is None and "host_driver" not in option.wishes
                ),
            )
        for profile in {option.profile.id: option.profile for option in options}.values():
            chosen = [o for o, option in enumerate(options) if option.profile.id == profile.id]
            by_key: dict[str, list[Requirement]] = {}
            for requirement in profile.requirements:
                by_key.setdefault(requirement.key, []).append(requirement)
            for key, requirements in by_key.items():
                if key in CONFIGURED and not (key == "cdi" and self.sets_up_cdi):
                    continue
                for requirement in requirements:
                    asking = [o for o in chosen if id(requirement) in options[o].claims]
                    if asking:
                        self._of_a_requirement(options[asking[0]], key, requirement, variable, asking)

    def _of_a_requirement(
        self, option: Option, key: str, requirement: Requirement, variable: int, chosen: Sequence[int]
    ) -> None:
        claim = option.claims[id(requirement)]
        if key in ("driver", "host_driver", "modules", "cuda") and not self.host.cards:
            return  # "no GPU" says it all
        if key in CHOSEN or (key in WITH_TOOLKIT and self.sets_up_cdi):
            self._of_a_choice(option, requirement, claim, variable, chosen)
            return
        # The matrix outlives its hosts, so a requirement can be told by its identity.
        judgement = self.host.remembered.get(id(requirement))
        if judgement is None:
            judgement = self.host.remembered[id(requirement)] = judge(requirement, self._situation())
        if judgement.answer is Answer.YES:
            return
        if judgement.answer is Answer.UNKNOWN:
            if key in SEEN_ON_HOST and requirement.forbids and self._fact_is_unknown(key):
                unseen = Claim("not-seen", claim.about, claim.words, claim.rests_on)
                self.rule(unseen, (variable,), ((o,) for o in chosen))
            else:
                self._warn("not-checked", requirement, (), variable, chosen)
            return
        shown = judgement.found or ""
        if key == "gpu.same_model":
            shown = ", ".join(dict.fromkeys(card.name for card in self.host.cards))
        if requirement.forbids:
            found = Claim(claim.kind, claim.about, (*claim.words, ("found", shown)), claim.rests_on)
            self.rule(found, (variable,), ((o,) for o in chosen))
        else:
            self._warn(claim.kind, requirement, (("found", shown),), variable, chosen)

    def _warn(
        self,
        kind: str,
        requirement: Requirement,
        more: tuple[tuple[str, str], ...],
        variable: int,
        asking: Sequence[int],
    ) -> None:
        """Each version of a client says for itself what it asks for, and only the chosen one is told of."""
        options = self.options[variable - FIRST_NETWORK]
        for o in asking:
            claim = options[o].claims[id(requirement)]
            told = Claim(kind, claim.about, (*claim.words, *more), claim.rests_on)
            if len(options) == 1:
                self.warnings.append(told)
            else:
                self.only_with.append((variable, frozenset({o}), told))

    def _fact_is_unknown(self, key: str) -> bool:
        facts = self.host.facts
        if key == "kernel":
            return facts.kernel.running is UNKNOWN and facts.kernel.next_boot is UNKNOWN
        if key == "ram_gib":
            return facts.memory_mib is UNKNOWN
        return False

    def _of_a_choice(
        self, option: Option, requirement: Requirement, claim: Claim, variable: int, chosen: Sequence[int]
    ) -> None:
        key, wanted = requirement.key, requirement.value
        scope: tuple[int, ...]
        bad: list[tuple[int, ...]]
        if key in ("driver", "host_driver", "modules"):
            scope = (DRIVER, variable)
            if key == "driver":
                allows = quick(wanted)
                fits = [driver is None or allows(driver.version) for driver in self.drivers]
            else:
                fits = [_suits(key, wanted, driver) for driver in self.drivers]
            bad = [(d, o) for d, fit in enumerate(fits) if not fit for o in chosen]
        elif key == "cuda":
            scope = (CUDA, variable)  # no driver, no level: "needs a driver" is said by a rule of its own
            fits = [level is None or bool(wanted.allows(level)) for level in self.levels]
            bad = [(c, o) for c, fit in enumerate(fits) if not fit for o in chosen]
        elif key == "toolkit":
            scope = (TOOLKIT, variable)
            fits = [one is not None and bool(wanted.allows(one.version)) for one in self.toolkits]
            bad = [(t, o) for t, fit in enumerate(fits) if not fit for o in chosen]
        elif key == "cdi":
            scope = (CDI, variable)
            bad = [(c, o) for c, value in enumerate(self.cdi) if value != wanted for o in chosen]
        elif key in ("runtime", "docker", "containerd"):
            scope = (RUNTIME, variable)
            bad = [
                (r, o)
                for r, runtime in enumerate(self.runtimes)
                for o in chosen
                if not self._runs(key, wanted, runtime)
            ]
        else:
            scope = (variable,)
            options = self.options[variable - FIRST_NETWORK]
            bad = [(o,) for o in chosen if not _client_suits(wanted, options[o])]
        if requirement.forbids:
            if key == "driver":
                claim = self._with_latest_accepted(claim, wanted)
            self.rule(claim, scope, bad)
        # What does not forbid is asked again when the stack is known: reasons.unmet.

    def _with_latest_accepted(self, claim: Claim, wanted: Specifier[DriverVersion]) -> Claim:
        offered = [d.version for d in self.drivers if d is not None and d.package is not None]
        allows = quick(wanted)
        latest = max((v for v in offered if allows(v)), default=None)
        listed = wanted.exact_versions()
        branches = {v.branch for v in offered}
        near = [v.text for v in listed or () if v.branch in branches]
        words = [
            ("latest", latest.text if latest is not None else ""),
            (
                "too-new",
                ", ".join(sorted({v.text for v in offered if not allows(v)}, key=DriverVersion)),
            ),
            ("listed", str(len(listed)) if listed is not None and len(listed) > 1 else ""),
            ("near", near[-1] if near else ""),
        ]
        return Claim(claim.kind, claim.about, (*claim.words, *words), claim.rests_on)

    def _runs(self, key: str, wanted: Any, runtime: RuntimeVersion | None) -> bool:
        if runtime is None:
            return True  # "not offered" is said by a rule of its own
        if key == "runtime":
            return bool(set(counts_as(runtime.id)) & set(wanted))
        if key == "docker" and not runtime.id.startswith("docker"):
            return True
        version = engine_version(runtime)
        if key == "containerd" and runtime.id != "containerd":
            newest = self.host.offers.newest("containerd")
            if newest is None:
                return True
            version = kernel_version(upstream(newest.version))
        return version is None or bool(wanted.allows(version))

    def between_networks(self) -> None:
        """Two networks that want opposite things of one host."""
        for a in range(len(self.options)):
            for b in range(a + 1, len(self.options)):
                self._between(a, b)

    def _between(self, a: int, b: int) -> None:
        left, right = self.options[a], self.options[b]
        known = self.host.remembered.get((id(left), id(right)))
        if known is None:
            # With the options themselves, so that their identity stays theirs.
            known = self.host.remembered[id(left), id(right)] = (left, right, between(left, right, self.matrix))
        forbidden, warnings = known[2]
        for claim, pairs in forbidden:
            if self.sets_up_cdi and "cdi" in (claim.word("key"), claim.word("conflict")):
                # CDI is a variable then, and what each of the two wants of it is a rule of its own.
                pairs = [(i, j) for i, j in pairs if not (_must_cdi(left[i]) and _must_cdi(right[j]))]
            self.rule(claim, (FIRST_NETWORK + a, FIRST_NETWORK + b), pairs)
        self.warnings += warnings

    def _situation(self) -> dict[str, Any]:
        known = self.host.remembered
        if "situation" not in known:
            known["situation"] = situation(self.host)
        found: dict[str, Any] = known["situation"]
        return found


Between = tuple[list[tuple[Claim, list[tuple[int, ...]]]], list[Claim]]
"""Claims with the pairs of options that each forbids, and claims that only warn."""


def between(left: Sequence[Option], right: Sequence[Option], matrix: Matrix) -> Between:
    """What two networks want of one host and can't both have; no fact of the host plays a part."""
    told: set[str] = set()
    forbidden: list[tuple[Claim, list[tuple[int, ...]]]] = []
    warnings: list[Claim] = []
    for conflict in matrix.conflicts.values():
        pairs: list[tuple[int, ...]] = [
            (i, j) for i, one in enumerate(left) for j, other in enumerate(right) if _parties(conflict, one, other)
        ]
        # Which ports really meet is computed from the wishes themselves; the entry speaks of all at once.
        if not pairs or conflict.about == "ports":
            continue
        told.add(conflict.about)
        one, other = left[pairs[0][0]], right[pairs[0][1]]
        claim = Claim(
            "networks-conflict",
            f"{one.network.name} and {other.network.name}",
            (("statement", conflict.statement), ("way-out", conflict.way_out or ""), ("conflict", conflict.about)),
            (entry("conflicts", conflict, conflict.id),),
        )
        if conflict.exclusive and conflict.confidence != "low" and conflict.about not in CHOSEN:
            forbidden.append((claim, pairs))
        elif conflict.about not in CHOSEN:
            warnings.append(Claim("networks-disagree", claim.about, claim.words, claim.rests_on))
    for key in sorted((CONFIGURED | {"ports"}) - told):
        found = _opposite(left, right, key)
        if found is None:
            continue
        claim, pairs, hard = found
        if hard:
            forbidden.append((claim, pairs))
        else:
            warnings.append(claim)
    return forbidden, warnings


def _opposite(
    left: Sequence[Option], right: Sequence[Option], key: str
) -> tuple[Claim, list[tuple[int, ...]], bool] | None:
    """The claim that wishes under one key clash, the pairs of options whose do, and whether that forbids."""
    pairs: list[tuple[int, ...]] = []
    words: tuple[tuple[str, str], ...] = ()
    rests: tuple[Source, ...] = ()
    hard = True
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            clash = _clash(key, one, other)
            if clash is None:
                continue
            mine, theirs = clash
            pairs.append((i, j))
            hard = mine.forbids and theirs.forbids and key != "ports"  # ports can be moved
            words = (
                ("key", key),
                ("one", text_of(mine.value)),
                ("other", text_of(theirs.value)),
                ("first", one.network.name),
                ("second", other.network.name),
            )
            rests = (entry("networks", mine, one.network.id), entry("networks", theirs, other.network.id))
    if not pairs:
        return None
    names = f"{left[0].network.name} and {right[0].network.name}"
    return Claim("opposite-wishes", names, words, rests), pairs, hard


def _must_cdi(option: Option) -> bool:
    return any(wish.forbids for wish in option.wishes.get("cdi", ()))


def situation(host: Host) -> dict[str, Any]:
    """The host in the words of the requirement language; what is not known is left out."""
    facts = host.facts
    found: dict[str, Any] = {"os": host.os, "gpus": [_gpu(card, host) for card in host.cards]}
    if facts.os is not UNKNOWN:
        found["arch"] = {"amd64": "x86_64", "arm64": "aarch64"}.get(facts.os.architecture, facts.os.architecture)
    version = kernel_version(host.next_boot) if host.next_boot is not None else None
    if version is not None:
        found["kernel"] = version
    if facts.clock_skew_s is not UNKNOWN:
        found["clock_skew_s"] = DottedVersion(str(round(abs(facts.clock_skew_s))))
    if facts.memory_mib is not UNKNOWN:
        # A machine of 16 GiB shows a little less: the kernel and firmware keep some.
        found["ram_gib"] = DottedVersion(str(-(-facts.memory_mib // 1024)))
    return found


def _gpu(card: Card, host: Host) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if card.model is not None:
        found = {
            "model": card.model.id,
            "architecture": card.model.architecture,
            "brand": card.model.brand,
            "compute_capability": card.model.compute_capability,
        }
        if len(card.model.memory_gib) == 1:
            found["memory_gib"] = DottedVersion(f"{card.model.memory_gib[0]:g}")
    return found


def _suits(key: str, wanted: Any, driver: Driver | None) -> bool:
    if key == "host_driver":
        return (driver is not None) is bool(wanted == "present")
    if driver is None:
        return True  # "needs a driver" is said by a rule of its own
    return bool(driver.flavour == wanted)


def _client_suits(wanted: Mapping[str, Any], option: Option) -> bool:
    spec = wanted.get(option.program)
    if spec is None or not option.client:
        return True
    try:
        return bool(spec.allows(DottedVersion(option.client)))
    except ValueError:
        return True


def _parties(conflict: Conflict, one: Option, other: Option) -> bool:
    """Whether the options stand on two sides: two parties that want the same value are on one side."""

    def sides(option: Option) -> list[tuple[int, str | None]]:
        return [
            (place, party.value)
            for place, party in enumerate(conflict.parties)
            if party.network == option.network.id and party.profile in (None, option.profile.id)
        ]

    return any(
        here != there and (value is None or value != opposite)
        for here, value in sides(one)
        for there, opposite in sides(other)
    )


def _clash(key: str, one: Option, other: Option) -> tuple[Requirement, Requirement] | None:
    """The two wishes that cannot both be granted: swap absent beside swap present."""
    for left in one.wishes.get(key, ()):
        for right in other.wishes.get(key, ()):
            if _opposed(key, left, right):
                return left, right
    if key == "gpu.binding":
        # A GPU that is handed to a VM is gone for whoever uses the host's driver, whether or not it says so.
        for bound, free in ((one, other), (other, one)):
            vfio = next((r for r in bound.wishes.get(key, ()) if r.value == "vfio"), None)
            if vfio is not None and key not in free.wishes:
                return vfio, vfio
    return None


def _opposed(key: str, left: Requirement, right: Requirement) -> bool:
    if key in ("gpu.exclusive", "dedicated"):
        return bool(left.value or right.value)
    if key == "sysctl":
        return any(right.value.get(name, value) != value for name, value in left.value.items())
    if key == "ports":
        return _overlap(left.value, right.value)
    return bool(left.value != right.value)


def _overlap(left: Ports, right: Ports) -> bool:
    """Both take 443/tcp for themselves; what is only sent to others can be shared."""
    if "outbound" in (left.direction, right.direction):
        return False
    return any(
        low <= other_high and other_low <= high
        for protocol in ("tcp", "udp")
        for low, high in left.numbers(protocol)
        for other_low, other_high in right.numbers(protocol)
    )
