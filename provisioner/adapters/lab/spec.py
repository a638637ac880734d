"""What a lab host is asked to be: `rig-02=bookworm:rtx-3090*2`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from provisioner.errors import BadInput

_HOST = re.compile(r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")
_GPU = re.compile(r"^(?P<id>[a-z0-9][a-z0-9.-]*?)(\*(?P<count>[0-9]+))?$")
MOST_GPUS = 8


@dataclass(frozen=True)
class HostSpec:
    """One throwaway host: its name, its Debian suite, and the ids of its simulated GPUs in slot order."""

    name: str
    suite: str
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}={self.suite}" + (f":{','.join(grouped(self.gpus))}" if self.gpus else "")

    def as_label(self) -> str:
        """The value of the container's label; two equal specs give the same text."""
        return json.dumps({"suite": self.suite, "gpus": list(self.gpus)}, sort_keys=True)


def grouped(gpus: Iterable[str]) -> list[str]:
    """Write equal neighbours once: ("a", "a", "b") is ["a*2", "b"]."""
    runs: list[tuple[str, int]] = []
    for gpu in gpus:
        if runs and runs[-1][0] == gpu:
            runs[-1] = (gpu, runs[-1][1] + 1)
        else:
            runs.append((gpu, 1))
    return [gpu if count == 1 else f"{gpu}*{count}" for gpu, count in runs]


def parse(text: str, suites: Iterable[str], models: Iterable[str]) -> HostSpec:
    """Read `NAME=SUITE[:GPU[*N][,GPU…]]`; raises BadInput naming the part that is wrong."""
    name, equals, rest = text.partition("=")
    if not equals or not rest:
        raise _bad(text, "it has no suite", "write NAME=SUITE[:GPU[*N],…], for example rig-01=bookworm:rtx-3090*2")
    if not _HOST.match(name):
        raise _bad(text, f"{name!r} is no host name", "use small letters, digits and dashes, 40 at most")
    suite, colon, cards = rest.partition(":")
    known = sorted(suites)
    if suite not in known:
        raise _bad(text, f"the lab has no suite {suite!r}", f"suites: {', '.join(known)}")
    if colon and not cards:
        raise _bad(text, "nothing stands after the colon", "name a GPU, or leave the colon out")
    return HostSpec(name, suite, tuple(_cards(text, cards, set(models))) if cards else ())


def parse_all(texts: Iterable[str], suites: Iterable[str], models: Iterable[str]) -> tuple[HostSpec, ...]:
    """Read all hosts of a command line; a name given twice is an error."""
    suites, models = tuple(suites), tuple(models)
    hosts = tuple(parse(text, suites, models) for text in texts)
    seen: set[str] = set()
    for host in hosts:
        if host.name in seen:
            raise BadInput("lab-host-twice", f"{host.name} is given twice", hint="give each host once")
        seen.add(host.name)
    return hosts


def _cards(text: str, cards: str, models: set[str]) -> Iterable[str]:
    total = 0
    for card in cards.split(","):
        match = _GPU.match(card)
        if match is None or match["id"] not in models:
            close = [model for model in sorted(models) if match and match["id"] in model][:4]
            hint = f"perhaps {', '.join(close)}" if close else "provision lab up --help lists the models"
            raise _bad(text, f"there is no GPU model {card!r} in the matrix", hint)
        count = int(match["count"] or 1)
        total += count
        if count < 1 or total > MOST_GPUS:
            raise _bad(text, f"a lab host has 1 to {MOST_GPUS} GPUs", "change the number after *")
        yield from [match["id"]] * count


def _bad(text: str, why: str, hint: str) -> BadInput:
    return BadInput("lab-host-not-valid", f"{text!r} is no lab host: {why}", hint=hint)
