"""How a diagnosis reads: the state, the evidence as it stands on the host, why, what mends it and what that costs."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from provisioner.cli.words import next_command, paint, safe, table
from provisioner.doctor.agreement import Chain
from provisioner.doctor.diagnose import Diagnosis, Finding, Suspicion
from provisioner.doctor.foresee import Mend
from provisioner.doctor.mechanism import Mechanism, Repair
from provisioner.doctor.truth import Evidence, Look

_MOST_EVIDENCE = 7
_MOST_SUSPICIONS = 3
_MOST_LOOKS = 6
_ALIGNED = 76  # characters of a text up to which the places behind it are aligned
_LONGEST_PLACE = 72
_LONGEST = 110  # characters of a line of evidence
_MARKS = {"down": ("✗", "red"), "degraded": ("✗", "yellow"), "risk": ("!", "yellow"), "notice": ("·", "dim")}


def diagnosis_text(
    diagnosis: Diagnosis, *, recorded: bool = False, inventory: Sequence[str] = (), mends: Sequence[Mend] | None = None
) -> str:
    """One host: its findings with the dearest first, then what may be, then what was not seen.

    With `mends` each finding says what of the plan mends it, and no command is offered as the next.
    """
    by_id = {mend.finding.mechanism.id: mend for mend in mends or ()}
    blocks = [_head(diagnosis)]
    blocks += ["\n".join(_finding(finding, by_id.get(finding.mechanism.id))) for finding in diagnosis.findings]
    rest = list(_rest(diagnosis, recorded or mends is not None, inventory))
    if rest:
        blocks.append("\n".join(rest))
    return ("\n" if diagnosis.state == "clean" else "\n\n").join(blocks)


def _head(diagnosis: Diagnosis) -> str:
    host = " ".join(safe(diagnosis.host).split())
    count = len(diagnosis.findings)
    if count:
        return f"{count} finding{'s' if count > 1 else ''} on {host}"
    if diagnosis.state == "clean":
        noted = f"links and memory as noted on {safe(diagnosis.baseline)}" if diagnosis.baseline else ""
        facts = ", ".join(filter(None, (_agreed(diagnosis.agreement), _counted(diagnosis.counts), noted)))
        return f"{host}  nothing is wrong" + (f": {facts}" if facts else "")
    return f"{host}  nothing was found in what could be seen"


def _agreed(chain: Chain) -> str:
    known = [link for link in chain.links if link.agrees]
    return (
        f"driver {safe(str(known[0].value))} agrees in {len(known)} places" if len(known) > 1 and chain.agrees else ""
    )


def _counted(chain: Chain) -> str:
    known = [link for link in chain.links if link.agrees]
    if not known or not chain.agrees:
        return ""
    value = known[0].value
    return f"{value} card{'' if value == '1' else 's'} on the bus and in NVML"


_BY_HAND = {
    "by hand": "",
    "no plan": "no plan could be made, see below; by hand:",
    "blocked": "the plan is blocked, see below; by hand:",
    "as locked": "as locked in this, and the plan has nothing for it (provision resolve chooses anew); by hand:",
    "not enough": "the plan changes part of it, and the cause would stay; by hand:",
}
_MOST_CHANGES = 4


def _mended(mend: Mend) -> str:
    packages = [change for change in mend.changes if change.what.startswith("package ")]
    few = packages if len(packages) <= 2 else []
    names = [f"{len(packages)} packages"] if len(packages) > 2 else []
    names += [safe(change.what) for change in mend.changes if change not in packages or change in few]
    more = f" and {len(names) - _MOST_CHANGES} more" if len(names) > _MOST_CHANGES else ""
    return f"by the plan below: {', '.join(names[:_MOST_CHANGES])}{more}"


def _finding(finding: Finding, mend: Mend | None = None) -> Iterator[str]:
    mechanism = finding.mechanism
    mark, colour = _MARKS[mechanism.costs.level]
    sure = {"certain": "", "likely": "likely: ", "possible": "possibly: "}[finding.certainty]
    title = sure + (mechanism.title if not sure else mechanism.title[0].lower() + mechanism.title[1:])
    yield paint(f"{mark} {title}", colour)
    rows = [("costs", mechanism.costs.words)]
    yield from _labelled(rows)
    distinct = {(item.text, item.where): item for item in reversed(finding.evidence)}
    evidence = tuple(item for item in finding.evidence if distinct[item.text, item.where] is item)[:_MOST_EVIDENCE]
    yield from _evidence(evidence)
    if len(finding.evidence) > _MOST_EVIDENCE:
        yield f"  … and {len(finding.evidence) - _MOST_EVIDENCE} more lines (--json has them all)"
    yield from _labelled(
        [
            ("cause", safe(finding.cause)),
            *([("follows", " · ".join(safe(item.words) for item in finding.follows))] if finding.follows else []),
            *(
                ("may be", _may_be(item))
                for item in finding.may_come_from[:_MOST_SUSPICIONS]
                if mechanism.kind == "symptom"
            ),
        ]
    )
    if mend is not None and mend.by_plan:
        yield from _labelled([("mend", _mended(mend))])
    else:
        yield from _steps(finding, _BY_HAND[mend.why] if mend is not None else "")
    yield from _labelled([("prevent", safe(mechanism.prevention[0])), ("more", f"docs/failures/{mechanism.id}.md")])


def _steps(finding: Finding, before: str) -> Iterator[str]:
    """What to do, step by step, and what it costs."""
    if before:
        yield from _labelled([("mend", before)])
    for number, step in enumerate(finding.steps):
        label = "mend" if number == 0 and not before else ""
        yield from _labelled([(label, f"{number + 1}. {safe(step.do)}")])
        if step.run:
            yield f"  {'':8}   $ {safe(step.run)}"
    yield from _labelled([("", _cost(finding.mechanism.repair))])


def _evidence(items: tuple[Evidence, ...]) -> Iterator[str]:
    """Label, the very text, where it stands; a long text does not push the places of the others away."""
    rows = [(safe(item.label), _line(item.text, item.part), _where(item.where)) for item in items]
    label = max(8, *(len(row[0]) for row in rows)) if rows else 8
    width = max((len(row[1]) for row in rows if len(row[1]) <= _ALIGNED), default=0)
    for name, text, where in rows:
        yield f"  {name:<{label}} {text:<{width}}  {where}"


def _where(where: str) -> str:
    where = safe(where)
    return where if len(where) <= _LONGEST_PLACE else where[: _LONGEST_PLACE - 1] + "…"


def _line(text: str, part: str = "") -> str:
    """A long line is cut so that what is telling in it stays on the screen."""
    text = safe(text)
    at = text.find(safe(part)) if part else 0
    if at + len(part) >= _LONGEST:  # some words before it say what it is about
        text = "…" + text[max(1, min(at - 24, len(text) - _LONGEST + 1)) :]
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _may_be(suspicion: Suspicion) -> str:
    looks = " or ".join(dict.fromkeys(f"`{safe(look.show)}`" for look in suspicion.missing[:2]))
    return f"{suspicion.mechanism.title} (not seen; {looks} would tell)"


def _cost(repair: Repair) -> str:
    parts = {"yes": "drain first", "no": "no drain", "that card": "drain that card", "containers": "containers stop"}
    boots = {"yes": "reboot", "no": "no reboot", "maybe": "perhaps a reboot", "cold": "power off and on"}
    time = f"~{repair.minutes} min not serving" if repair.minutes else "serving all along"
    where = {"console": "at the console", "hardware": "at the machine", "firmware": "in the firmware's settings"}
    return " · ".join(filter(None, (parts[repair.drain], boots[repair.reboot], time, where.get(repair.where))))


def _labelled(rows: list[tuple[str, str]]) -> Iterator[str]:
    """`  cause    text`, wrapped to the terminal with its label hanging."""
    width = max(60, min(shutil.get_terminal_size((110, 24)).columns, 130))
    for label, text in rows:
        yield textwrap.fill(
            text,
            width=width,
            initial_indent=f"  {label:<8} ",
            subsequent_indent=" " * 11,
            break_long_words=False,
            break_on_hyphens=False,
        )


def _rest(diagnosis: Diagnosis, recorded: bool, inventory: Sequence[str]) -> Iterator[str]:
    shown = diagnosis.suspicions[:_MOST_SUSPICIONS]
    if shown:
        yield "May be, but could not be settled:"
        for item in shown:
            yield from _labelled([("", f"{item.mechanism.title}: {_looks(item.missing[:2])} would tell")])
        if len(diagnosis.suspicions) > len(shown):
            yield f"           and {len(diagnosis.suspicions) - len(shown)} more (--json lists them)"
    for title, asked in (("Not seen:", True), ("Not tried, for doctor changes and starts nothing:", False)):
        looks = [look for look in diagnosis.not_seen if look.asked is asked]
        if looks:
            yield title
            yield table([(safe(look.what), _where(look.show)) for look in looks[:_MOST_LOOKS]], indent=2)
        if len(looks) > _MOST_LOOKS:
            yield f"  … and {len(looks) - _MOST_LOOKS} more (--json lists them; provision capture looks at all of it)"
    if diagnosis.findings and not recorded:
        plans = sorted(
            {finding.mechanism.repair.plan for finding in diagnosis.findings if finding.mechanism.repair.plan}
        )
        if plans:
            words = next_command(["doctor", safe(diagnosis.host), "--fix"], inventory)
            yield f"\nNext: {words}     (shows the plan first; mends: {', '.join(plans)})"


def _looks(looks: tuple[Look, ...]) -> str:
    return " and ".join(dict.fromkeys(f"`{safe(look.show)}`" for look in looks))


# JSON.


def diagnosis_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Format 1 of docs/reference/doctor.md."""
    return {
        "host": diagnosis.host,
        "state": diagnosis.state,
        "findings": [_finding_json(finding) for finding in diagnosis.findings],
        "suspicions": [_suspicion_json(item) for item in diagnosis.suspicions],
        "not_seen": [_look_json(look) for look in diagnosis.not_seen],
        "agreement": _chain_json(diagnosis.agreement),
        "counts": _chain_json(diagnosis.counts),
        "baseline": diagnosis.baseline,
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    mechanism = finding.mechanism
    repair = mechanism.repair
    return {
        "mechanism": mechanism.id,
        "title": mechanism.title,
        "area": mechanism.area,
        "kind": mechanism.kind,
        "certainty": finding.certainty,
        "costs": {"level": mechanism.costs.level, "words": mechanism.costs.words},
        "score": round(finding.score, 1),
        "evidence": [_evidence_json(item) for item in finding.evidence],
        "cause": finding.cause,
        "follows": [
            {"mechanism": item.id, "words": item.words, "evidence": [_evidence_json(line) for line in item.evidence]}
            for item in finding.follows
        ],
        "covers": list(finding.covers),
        "may_come_from": [_suspicion_json(item) for item in finding.may_come_from],
        "looks_like": list(mechanism.looks_like),
        "prevention": list(mechanism.prevention),
        "repair": {
            "plan": repair.plan,
            "where": repair.where,
            "steps": [{"do": step.do, "run": step.run} for step in finding.steps],
            "drain": repair.drain,
            "reboot": repair.reboot,
            "minutes": repair.minutes,
        },
        "sources": list(_sources(mechanism)),
    }


def _sources(mechanism: Mechanism) -> tuple[str, ...]:
    return mechanism.sources


def _evidence_json(item: Evidence) -> dict[str, str]:
    return {"label": item.label, "text": item.text, "where": item.where}


def _look_json(look: Look) -> dict[str, Any]:
    return {"what": look.what, "show": look.show, "asked": look.asked}


def _suspicion_json(item: Suspicion) -> dict[str, Any]:
    return {
        "mechanism": item.mechanism.id,
        "title": item.mechanism.title,
        "evidence": [_evidence_json(line) for line in item.evidence],
        "missing": [_look_json(look) for look in item.missing],
    }


def _chain_json(chain: Chain) -> dict[str, Any]:
    return {
        "agrees": chain.agrees,
        "places": [
            {
                "fact": link.name,
                "words": link.words,
                "value": link.value,
                "seen": link.seen,
                "agrees": link.agrees,
                "where": link.where,
            }
            for link in chain.links
        ],
    }
