"""`why`: whole answers for one value, and what holds for every answer on random hosts."""

from __future__ import annotations

from pathlib import Path

import oracle
import pytest
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resolver import WORLDS, hosts, intents

from provisioner.errors import BadInput
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock
from provisioner.model.version import CudaVersion, DriverVersion
from provisioner.resolve import NoSolution, solve
from provisioner.resolve.explain_why import answer_text
from provisioner.resolve.host import prepare
from provisioner.resolve.problem import build
from provisioner.resolve.question import Question, read_question
from provisioner.resolve.repairs import apply
from provisioner.resolve.solver import best, refute
from provisioner.resolve.why import Answer, why
from tests.examples import examples

WRITTEN = Path(__file__).with_name("why.txt")
AGAIN = "provision resolve rig-01"
BOOKWORM = ("debian-12", "rtx-3090")


def asked(question: str, facts: HostFacts, **intent: object) -> Answer:
    matrix = worlds.matrix()
    return why(facts, Intent.model_validate(intent), matrix, read_question(question, matrix))


def told(question: str, facts: HostFacts, **intent: object) -> str:
    return answer_text(asked(question, facts, **intent), AGAIN)


CASES: tuple[tuple[str, HostFacts, dict[str, object]], ...] = (
    ("driver=535", worlds.host(*BOOKWORM, suites=("", "-security")), {"networks": ["akash"]}),
    ("driver=535.261.03", worlds.host(*BOOKWORM, suites=("", "-security")), {"networks": ["akash"]}),
    ("driver=580", worlds.host(*BOOKWORM), {"networks": ["lium"], "policy": {"forbid_branches": ["580"]}}),
    ("driver=535.309.01", worlds.host(*BOOKWORM, suites=("", "-security")), {"networks": ["lium"]}),
    ("cuda=12.4", worlds.host("debian-12", "gtx-1080"), {}),
    ("cuda=13.0", worlds.host("debian-12", "gtx-1080"), {}),
    ("cuda=14.0", worlds.host(*BOOKWORM), {}),
    ("modules=open", worlds.host("debian-12", "gtx-1080"), {}),
    ("modules=open", worlds.host(*BOOKWORM, suites=("", "-security")), {}),
    ("runtime=docker-ce", worlds.host(*BOOKWORM), {}),
    ("akash=0.16.2", worlds.host(*BOOKWORM), {"networks": ["akash"]}),
    ("akash=0.16.0", worlds.host(*BOOKWORM), {"networks": ["akash"]}),
    ("akash=0.16.2", worlds.host(*BOOKWORM), {"networks": ["lium"]}),
    ("lium=0.0.25", worlds.host(*BOOKWORM, suites=("", "-security")), {}),
    ("akash=9.9", worlds.host(*BOOKWORM), {"networks": ["akash"]}),
    ("driver=535", worlds.host("debian-12"), {}),
    ("driver=535", worlds.host(*BOOKWORM), {"networks": ["lium"], "driver": ">=535.262"}),
    ("driver=999", worlds.host(*BOOKWORM), {}),
)


def whole() -> str:
    """Every answer under its question, as a person would see it."""
    parts = []
    for question, facts, intent in CASES:
        cards = ", ".join(card.device for card in facts.gpus) if facts.gpus else "no GPU"
        parts.append(f"$ provision why rig-01 {question}    # {cards}; {intent}\n{told(question, facts, **intent)}")
    return "\n".join(parts)


def test_whole_answers() -> None:
    """`python tests/resolve/test_why.py` writes the file anew, for git diff to show and a person to judge."""
    assert whole() == WRITTEN.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("driver", "'driver' is no question"),
        ("driver=", "'driver=' is no question"),
        ("drivr=580", "'drivr' is nothing that is chosen for a host"),
        ("driver=five", "driver=five: "),
        ("cuda=thirteen", "cuda=thirteen: "),
        ("modules=closed", "modules=closed: kernel modules are open or proprietary"),
        ("runtime=rocket", "runtime=rocket: the matrix has no such runtime"),
    ],
)
def test_what_is_no_question_is_bad_input(text: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_question(text, worlds.matrix())

    assert caught.value.message.startswith(said)
    assert caught.value.reference == "question-not-read"


def test_a_condition_is_a_question_too() -> None:
    assert read_question("driver>=580", worlds.matrix()) == Question("driver", ">=580")


def test_a_host_that_did_not_show_its_sources_is_not_answered_for() -> None:
    import dataclasses

    from provisioner.model.capture import UNKNOWN

    facts = dataclasses.replace(worlds.host(*BOOKWORM), offers=UNKNOWN)

    assert told("driver=580", facts) == (
        "rig-01 did not show what its package sources offer.\n\nLook closer: provision facts rig-01\n"
    )


def test_a_pinned_client_is_chosen_and_a_pin_that_nobody_knows_is_a_conflict() -> None:
    """`akash@0.16.0` in provision_networks: what `why` says to type must work."""
    facts = worlds.host(*BOOKWORM)
    lock = solve(facts, Intent(networks=("akash@0.16.0",)), worlds.matrix())
    assert isinstance(lock, HostLock)
    assert lock.networks["akash"].value == "0.16.0"

    answer = solve(facts, Intent(networks=("akash@9.9",)), worlds.matrix())
    assert isinstance(answer, NoSolution)
    assert [claim.kind for conflict in answer.conflicts for claim in conflict.claims] == ["client-unknown"]
    assert [[e.kind for e in repair.edits] for repair in answer.repairs] == [["free-client"], ["drop-network"]]


questions = st.one_of(
    st.sampled_from(["470", "535", "535.261.03", "550", "580", ">=535.261.03"]).map(lambda v: Question("driver", v)),
    st.sampled_from(["11.4", "12.2", "12.4", "13.0"]).map(lambda v: Question("cuda", v)),
    st.sampled_from(["open", "proprietary"]).map(lambda v: Question("modules", v)),
)


def has(lock: HostLock, question: Question) -> bool:
    """Whether a stack has the value; written apart from why.py."""
    if question.variable == "modules":
        return lock.modules is not None and lock.modules.value == question.value
    if question.variable == "cuda":
        return lock.cuda is not None and CudaVersion(lock.cuda.value) >= CudaVersion(question.value)
    if lock.driver_version is None:
        return False
    version = lock.driver_version.value
    if question.value.startswith(">="):
        return DriverVersion(version) >= DriverVersion(question.value[2:])
    return version == question.value or version.partition(".")[0] == question.value


@settings(WORLDS, max_examples=examples(100))
@given(hosts(), intents, questions)
def test_the_verdict_is_that_of_solving_with_the_value_in_the_request(
    facts: HostFacts, intent: Intent, question: Question
) -> None:
    """A request that leaves the variable open and then asks for the value has a stack exactly when `why` says so."""
    open_value = {"driver": None, "cuda": None, "modules": "auto"}[question.variable]
    free = intent.model_copy(update={question.variable: open_value})
    matrix = worlds.matrix()
    now = solve(facts, free, matrix)
    then = solve(facts, free.model_copy(update={question.variable: question.value}), matrix)

    answer = why(facts, free, matrix, question)

    if isinstance(then, NoSolution):
        assert answer.verdict == "impossible"
        assert answer.conflicts and all(conflict.claims for conflict in answer.conflicts)
    else:
        chosen = isinstance(now, HostLock) and has(now, question)
        assert answer.verdict == ("chosen" if chosen else "possible")
        assert answer.stack is not None and has(answer.stack, question)
        assert answer.stack.driver_version is not None and then.driver_version is not None
        assert answer.stack.driver_version.value == then.driver_version.value


@settings(WORLDS, max_examples=examples(40))
@given(hosts(), intents, questions)
def test_each_reason_is_one_and_loses_nothing(facts: HostFacts, intent: Intent, question: Question) -> None:
    """By enumeration: with the question the rules of a reason leave nothing; without any one of them something is."""
    model = build(prepare(facts, worlds.matrix()), intent, worlds.matrix(), beside="telling", asked=question)
    if best(model.problem) is not None:
        return
    always = [(rule.scope, rule.forbids) for rule in model.problem.always]
    for conflict in refute(model.problem).conflicts[:3]:
        rules = [(model.problem.rules[n].scope, model.problem.rules[n].forbids) for n in sorted(conflict)]
        touched = {variable for scope, _ in (*rules, *always) for variable in scope}
        domains = tuple(size if v in touched else 1 for v, size in enumerate(model.problem.domains))
        assert not oracle.solutions(domains, [*rules, *always])
        for left_out in range(len(rules)):
            assert oracle.solutions(domains, [*rules[:left_out], *rules[left_out + 1 :], *always])


@settings(WORLDS, max_examples=examples(60))
@given(hosts(), intents, questions)
def test_what_would_allow_a_value_really_does(facts: HostFacts, intent: Intent, question: Question) -> None:
    matrix = worlds.matrix()

    answer = why(facts, intent, matrix, question)

    for repair in answer.repairs:
        assert has(repair.stack, question)
        after = why(*apply(facts, intent, repair.edits, matrix), matrix, question)
        assert after.verdict in ("chosen", "possible")


if __name__ == "__main__":
    WRITTEN.write_text(whole(), encoding="utf-8")
    print(f"{WRITTEN.name} written; git diff shows what changed")
