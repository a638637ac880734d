"""The wording of `why`: the answer for one value, its reasons with their sources, and what to type next."""

from __future__ import annotations

from provisioner.model.stack import HostLock
from provisioner.resolve.conflict import Conflict
from provisioner.resolve.explain import (
    in_words,
    reason_lines,
    repair_lines,
    sentence,
    sources,
    stack_in_words,
    with_source,
    wrapped,
)
from provisioner.resolve.options import named_parts
from provisioner.resolve.why import Answer


def answer_text(answer: Answer, again: str) -> str:
    """The whole text; `again` is how `provision resolve` is typed for this host."""
    tell = {"chosen": _chosen, "possible": _possible, "impossible": _impossible, "not-seen": _not_seen}
    lines = tell[answer.verdict](answer, again)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _not_seen(answer: Answer, again: str) -> list[str]:
    lines = [f"{answer.host} did not show {what}." for what in answer.unseen]
    return [*lines, "", f"Look closer: provision facts {answer.host}"]


def _chosen(answer: Answer, again: str) -> list[str]:
    assert answer.stack is not None
    lines = [f"{answer.host} gets {_with_what_it_is(answer)}: {stack_in_words(answer.stack)}.", ""]
    width = max(len(label) for label, _ in answer.choices)
    for label, choice in answer.choices:
        lines.append(f"  {label:<{width}}  {choice.value}")
        lines += reason_lines("because", choice.because, width)
        lines += reason_lines("not newer", choice.not_newer, width)
    return lines


def _with_what_it_is(answer: Answer) -> str:
    """`driver 535 (535.309.01)`: a branch or condition with the version that was chosen."""
    stack = answer.stack
    assert stack is not None
    choices = {
        "driver": stack.driver_version,
        "cuda": stack.cuda,
        "runtime": stack.runtime,
        "toolkit": stack.toolkit,
    }
    value = choices.get(answer.question.variable)
    if value is None or value.value == answer.question.value:
        return answer.subject
    if answer.question.variable == "cuda":
        return f"{answer.subject} (as part of {value.value})"
    return f"{answer.subject} ({value.value})"


def _possible(answer: Answer, again: str) -> list[str]:
    assert answer.stack is not None
    lines = [f"{answer.host} could have {answer.subject}. Why it is not chosen:", ""]
    for claim in answer.because:
        lines += with_source(sentence(claim), sources(claim))
    lines.append("")
    if answer.now is None or stack_in_words(answer.now) != stack_in_words(answer.stack):
        lines += [*_stacks(answer.now, answer.stack, answer.host), ""]
    return [*lines, f"To have it: set {_setting(answer)} for {answer.host}, then {again}"]


def _stacks(now: HostLock | None, then: HostLock | None, host: str) -> list[str]:
    lines = [f"Now      {stack_in_words(now)}" if now is not None else f"Now      no set of versions serves {host}"]
    return lines if then is None else [*lines, f"With it  {stack_in_words(then)}"]


def _setting(answer: Answer) -> str:
    """The variable of the inventory that asks for the value."""
    variable, value = answer.question.variable, answer.question.value
    if variable in ("driver", "cuda", "modules", "runtime", "toolkit", "cdi"):
        return f'provision_{variable}: "{value}"'
    assert answer.stack is not None
    names = list(answer.stack.intent.networks)
    names = [f"{n.partition('@')[0]}@{value}" if named_parts(n)[0] == variable else n for n in names]
    return f"provision_networks: [{', '.join(names)}]"


def _impossible(answer: Answer, again: str) -> list[str]:
    head = f"{answer.host} can't have {answer.subject}."
    count = len(answer.conflicts)
    if count > 1:
        more = "" if answer.complete else ", and more"
        head += f" {in_words(count)} reasons, each enough by itself{more}:"
    lines = [head, ""]
    for claim in answer.because:
        otherwise = f"asked for {answer.subject}" if claim.kind == "asked-for" else "did"
        lines += with_source(f"{sentence(claim)}; this is answered as if it {otherwise}", sources(claim))
    for claim in answer.background:
        lines += with_source(sentence(claim), sources(claim))
    lines += [""] if lines[-1] else []
    for number, conflict in enumerate(answer.conflicts, 1):
        lines += _reason(number, conflict, answer.subject)
    if answer.repairs:
        lines += ["", "What would allow it, least downtime first:", *repair_lines(answer.repairs)]
    else:
        lines += ["", "No single change of the request or this host allows it."]
    return [*lines, "", *_stacks(answer.now, None, answer.host)]


def _reason(number: int, conflict: Conflict, subject: str) -> list[str]:
    claims = conflict.claims
    if len(claims) == 1:
        text = sentence(claims[0])
        rests = sources(claims[0])
        way_out = claims[0].word("way-out")
        return [
            *wrapped(f"{number}. ", text[:1].upper() + text[1:] + "."),
            *([f"   ({'; '.join(rests)})"] if rests else []),
            *(wrapped("   way out: ", way_out) if way_out else []),
        ]
    lines = [f"{number}. Together these leave no {subject}:"]
    for claim in claims:
        lines += with_source(sentence(claim), sources(claim))
    return lines
