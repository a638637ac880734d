"""A question about one value (`driver=580`, `akash=0.16.2`): read from words, and asked as one more rule."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from provisioner.errors import BadInput
from provisioner.matrix.entries import Flavour
from provisioner.matrix.reader import Matrix
from provisioner.model.intent import Intent
from provisioner.model.version import CudaVersion, DottedVersion, DriverVersion, Specifier
from provisioner.resolve.conflict import Claim, Source, entry, from_host
from provisioner.resolve.containers import ENGINE_KINDS, TOOLKIT_ID, toolkit_specifier
from provisioner.resolve.host import Driver, quick
from provisioner.resolve.options import (
    cuda_level,
    driver_specifier,
    named_parts,
    older,
    oldest_client,
    versioned_client,
)
from provisioner.resolve.rules import CDI, CUDA, DRIVER, FIRST_NETWORK, RUNTIME, TOOLKIT
from provisioner.resolve.wishes import Wishes

VARIABLES = ("driver", "cuda", "modules", "runtime", "toolkit", "cdi")


@dataclass(frozen=True)
class Question:
    """`variable` is one of VARIABLES or the id of a network, whose client version is then asked about."""

    variable: str
    value: str

    @property
    def drivers(self) -> Specifier[DriverVersion] | None:
        return driver_specifier(Intent(driver=self.value)) if self.variable == "driver" else None

    @property
    def level(self) -> CudaVersion | None:
        return cuda_level(Intent(cuda=self.value)) if self.variable == "cuda" else None

    @property
    def toolkits(self) -> Specifier[DottedVersion] | None:
        return toolkit_specifier(Intent(toolkit=self.value)) if self.variable == "toolkit" else None

    @property
    def network(self) -> str | None:
        return None if self.variable in VARIABLES else self.variable


def read_question(text: str, matrix: Matrix) -> Question:
    """Read `driver=580`, `driver>=580`, `cuda=13.0`, `modules=open`, `toolkit=1.19.1`, `akash=0.16.2` and so on."""
    name, sign, value = text.partition("=")
    if name[-1:] in "<>!" and name[:-1] in ("driver", "toolkit"):
        name, value = name[:-1], f"{name[-1]}={value}"
    if not sign or not name or not value:
        raise BadInput(
            "question-not-read",
            f"'{text}' is no question",
            hint="write driver=580, cuda=13.0, modules=open, runtime=docker-ce, toolkit=1.19.1, cdi=present or "
            "NETWORK=VERSION",
        )
    known = (*VARIABLES, *matrix.networks)
    if name not in known:
        close = difflib.get_close_matches(name, known, 3, 0.5)
        raise BadInput(
            "question-not-read",
            f"'{name}' is nothing that is chosen for a host",
            context=[f"did you mean {' or '.join(close)}?"] if close else [],
            hint=f"ask about {', '.join(VARIABLES)} or a network of: provision matrix list networks",
        )
    question = Question(name, value)
    _check(question, matrix)
    return question


def _check(question: Question, matrix: Matrix) -> None:
    """Refuse a value that means nothing; one that means something and is not known is an answer of its own."""
    value = question.value
    try:
        _ = question.drivers, question.level, question.toolkits
    except BadInput as problem:
        said = problem.message.partition(": ")[2]
        raise BadInput("question-not-read", f"{question.variable}={value}: {said}", hint=problem.hint) from problem
    if question.variable == "modules" and value not in get_args(Flavour):
        raise BadInput("question-not-read", f"modules={value}: kernel modules are open or proprietary")
    if question.variable == "cdi" and value not in ("present", "absent"):
        raise BadInput("question-not-read", f"cdi={value}: CDI specs are present or absent")
    if question.variable == "toolkit" and question.toolkits is None:
        raise BadInput("question-not-read", f"toolkit={value}: this is no version of the container toolkit")
    known = [runtime.id for runtime in matrix.runtimes.values() if runtime.kind in ENGINE_KINDS]
    if question.variable == "runtime" and value not in known:
        raise BadInput(
            "question-not-read",
            f"runtime={value}: the matrix has no such runtime",
            context=[f"known: {', '.join(known)}"],
        )


def posed(intent: Intent, question: Question) -> Intent:
    """The request in which the question has a meaning: another runtime is used, a network is served."""
    variable = question.variable
    if variable == "runtime" and intent.runtime not in ("auto", question.value):
        return intent.model_copy(update={"runtime": question.value})
    if variable == "cdi" and intent.cdi not in ("auto", question.value):
        return intent.model_copy(update={"cdi": question.value})
    if variable == "toolkit" and intent.toolkit == "none":
        return intent.model_copy(update={"toolkit": "auto"})
    served = {named_parts(name)[0] for name in intent.networks}
    if question.network is not None and question.network not in served:
        return intent.model_copy(update={"networks": (*intent.networks, question.network)})
    return intent


def subject(question: Question, matrix: Matrix) -> str:
    """`driver 580`, `CUDA 13.0`, `open kernel modules`, `provider-services 0.16.2`."""
    if question.variable == "cuda":
        return f"CUDA {question.value}"
    if question.variable == "modules":
        return f"{question.value} kernel modules"
    if question.variable == "runtime":
        return question.value
    if question.variable == "driver":
        return f"driver {question.value}"
    if question.variable == "toolkit":
        return f"container toolkit {question.value}"
    if question.variable == "cdi":
        return f"CDI specs {question.value}"
    client = versioned_client(matrix.networks[question.variable])
    return f"{client.name if client is not None else question.variable} {question.value}"


def pose(rules: Wishes, question: Question) -> None:
    """Add the question as a rule, with what the matrix says of the value itself."""
    asked = Claim("asked", subject(question, rules.matrix))
    if question.variable == "modules":
        _of_the_driver(rules, asked, lambda d: d.flavour == question.value)
    elif (drivers := question.drivers) is not None:
        allows = quick(drivers)
        _of_the_driver(rules, asked, lambda d: allows(d.version))
    elif (level := question.level) is not None:
        if not rules.host.cards:
            _without_gpu(rules, asked)
            return
        carried = max(branch.native_cuda.level for branch in rules.matrix.drivers.values())
        if level > carried:
            known = f"the highest level that a driver branch carries is {carried.text}"
            asked = Claim("asked-unknown", asked.about, (("known", known),))
        rules.rule(asked, (CUDA,), ((i,) for i, have in enumerate(rules.levels) if have is None or have < level))
    elif question.variable == "runtime":
        _of_the_runtime(rules, asked, question.value)
    elif (toolkits := question.toolkits) is not None:
        _of_the_toolkit(rules, asked, toolkits)
    elif question.variable == "cdi":
        _of_cdi(rules, asked, question.value)
    elif question.network is not None:
        _of_a_client(rules, asked, question)


def pin(rules: Wishes, question: Question) -> None:
    """Add that the request pins the client of a network."""
    claim = Claim("wanted-client", subject(question, rules.matrix), (), (Source("request: provision_networks"),))
    _of_a_client(rules, claim, question)


def _of_the_driver(rules: Wishes, asked: Claim, fits: Callable[[Driver], bool]) -> None:
    if not rules.host.cards:
        _without_gpu(rules, asked)
        return
    bad = [i for i, driver in enumerate(rules.drivers) if driver is None or not fits(driver)]
    if len(bad) == len(rules.drivers):
        branches = sorted((branch.branch for branch in rules.matrix.drivers.values()), key=int)
        known = f"its driver branches go from {branches[0]} to {branches[-1]}"
        asked = Claim("asked-unknown", asked.about, (("known", known),))
    rules.rule(asked, (DRIVER,), ((i,) for i in bad))


def _without_gpu(rules: Wishes, asked: Claim) -> None:
    claim = Claim("asked-without-gpu", asked.about, (), (from_host("PCI bus"),))
    rules.rule(claim, (DRIVER,), ((i,) for i in range(len(rules.drivers))))


def _of_the_runtime(rules: Wishes, asked: Claim, wanted: str) -> None:
    bad = [i for i, runtime in enumerate(rules.runtimes) if runtime is None or runtime.id != wanted]
    if len(bad) == len(rules.runtimes):
        words = (("os", rules.host.os),)
        asked = Claim(
            "runtime-not-offered", wanted, words, (from_host("package sources"), Source(f"runtimes/{wanted}"))
        )
    rules.rule(asked, (RUNTIME,), ((i,) for i in bad))


def _of_the_toolkit(rules: Wishes, asked: Claim, wanted: Specifier[DottedVersion]) -> None:
    if not rules.host.cards:
        _without_gpu(rules, asked)
        return
    bad = [i for i, one in enumerate(rules.toolkits) if one is None or not wanted.allows(one.version)]
    if len(bad) == len(rules.toolkits):
        offered = dict.fromkeys(one.version.text for one in rules.toolkits if one is not None)
        rests = (from_host("package sources"), Source(f"runtimes/{TOOLKIT_ID}"))
        asked = Claim("asked-not-offered", asked.about, (("offered", ", ".join(offered)),), rests)
    rules.rule(asked, (TOOLKIT,), ((i,) for i in bad))


def _of_cdi(rules: Wishes, asked: Claim, wanted: str) -> None:
    if wanted == "absent" and not rules.sets_up_cdi:
        return  # nothing here writes specs
    bad = [i for i, value in enumerate(rules.cdi) if value != wanted]
    if len(bad) == len(rules.cdi):
        rests = (from_host("package sources"), Source(f"runtimes/{TOOLKIT_ID}"))
        asked = Claim("asked-cdi-alone", asked.about, (), rests)
    rules.rule(asked, (CDI,), ((i,) for i in bad))


def _of_a_client(rules: Wishes, asked: Claim, question: Question) -> None:
    place = next((i for i, options in enumerate(rules.options) if options[0].network.id == question.network), None)
    if place is None:
        return  # a repair that serves without this network has no answer: why.py sees to that
    variable, options = FIRST_NETWORK + place, rules.options[place]
    network = options[0].network
    client = versioned_client(network)
    rests = (entry("networks", network, network.id),)
    everything = [(o,) for o in range(len(options))]
    if client is None:
        rules.rule(Claim("unversioned-client", network.name, (), rests), (variable,), everything)
        return
    versions = [v.version for v in client.versions]
    words = (("program", client.name), ("asked", question.value), ("newest", versions[0]))
    if question.value not in versions:
        rules.rule(Claim("client-unknown", network.name, words, rests), (variable,), everything)
        return
    rules.rule(asked, (variable,), ((o,) for o, option in enumerate(options) if option.client != question.value))
    oldest = oldest_client(client)
    if oldest is not None and older(question.value, oldest):
        claim = Claim("client-ended", network.name, (*words, ("oldest", oldest)), rests)
        rules.rule(claim, (variable,), ((o,) for o, option in enumerate(options) if option.client == question.value))
