"""How a rehearsal reads: the table of stacks and steps, what failed and what to do about it, and the reports for CI."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from provisioner.cli.words import duration, paint, safe, table
from provisioner.model.rehearsal import STEPS, TITLES, Case, CaseResult, Rehearsal, StepName
from provisioner.model.resource import File, PackageSource, Settings
from provisioner.model.stack import HostLock
from provisioner.resolve.moves import Moved
from provisioner.resolve.rehearsal import Ways, difference, stack_words
from provisioner.resources.wanted import wanted

PAGE = Path(__file__).with_name("rehearse_report.html")
_COLUMNS: dict[StepName, str] = {
    "present": "AS NOW",
    "upgrade": "UPGRADE",
    "verify": "VERIFY",
    "back": "BACK",
    "verify-back": "VERIFY",
}
_VERDICTS = {"passed": "green", "failed": "red", "not-rehearsed": "yellow"}
_SIGNS = {"passed": "✅", "failed": "❌", "not-rehearsed": "❔"}


# --- before -------------------------------------------------------------------------------------------------------


def opening(found: Ways, jobs: int) -> str:
    """`12 stacks to rehearse for 1,000 hosts, 2 at once · GPUs are simulated`."""
    if not found.cases:
        return _nothing(found)
    at_once = min(jobs, len(found.cases))
    return f"{_counted(found.cases)}, {at_once} at once · GPUs are simulated\n"


def _counted(cases: Sequence[Case]) -> str:
    hosts = sum(len(case.hosts) for case in cases)
    return f"{len(cases)} stack{'s' * (len(cases) != 1)} to rehearse for {hosts:,} host{'s' * (hosts != 1)}"


def _nothing(found: Ways) -> str:
    return f"nothing to rehearse: {_staying(len(found.unchanged))}\n"


def _staying(count: int) -> str:
    return "1 host stays as it is" if count == 1 else f"{count} hosts stay as they are"


def ways_text(found: Ways) -> str:
    """Return what `--dry-run` shows: each stack once, what moves on it, and its hosts."""
    if not found.cases:
        return _nothing(found)
    lines = [_counted(found.cases)]
    for case in found.cases:
        lines += ["", f"{case.name}    {_hosts(case.hosts)}", f"  {_way(case)}"]
        lines += [f"  {line}" for line in _moved(case)]
    if found.unchanged:
        lines += ["", f"{len(found.unchanged)} unchanged: {_hosts(found.unchanged)}"]
    if found.gone:
        lines += ["", f"only in the first lock, left out: {_hosts(found.gone)}"]
    return "\n".join(lines) + "\n"


def ways_json(found: Ways) -> str:
    cases = [
        {"id": c.id, "name": c.name, "hosts": list(c.hosts), "from": stack_words(c.before), "to": stack_words(c.after)}
        for c in found.cases
    ]
    rest = {"unchanged": list(found.unchanged), "gone": list(found.gone)}
    return json.dumps({"format": 1, "cases": cases, **rest}, indent=2, ensure_ascii=False)


def _way(case: Case) -> str:
    first, second = stack_words(case.before), stack_words(case.after)
    return f"{first} → {second}" if first != second else f"{second}: other packages or clients"


def _moved(case: Case) -> list[str]:
    move = difference(case)
    packages = [one for one in move.moved if one.what.startswith("package ")]
    others = [one for one in move.moved if not one.what.startswith("package ")]
    lines = [moved_text(one) for one in others]
    lines += [moved_text(one) for one in packages[:3]]
    return lines + ([f"and {len(packages) - 3} more packages"] if len(packages) > 3 else [])


def moved_text(one: Moved) -> str:
    return f"{one.what} {safe(one.before or 'none')} → {safe(one.after or 'none')}"


def _hosts(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4:,} more" if len(names) > 4 else shown


# --- after --------------------------------------------------------------------------------------------------------


def rehearsed_text(done: Rehearsal, candidate: str) -> str:
    """Return the table, then every stack that did not pass with its reason and what to do."""
    if not done.cases:
        return ""
    rows = [("STACK", "HOSTS", *(_COLUMNS[step] for step in STEPS), "NOT SERVING", "VERDICT")]
    rows += [(*_row(result), _verdict(result)) for result in done.cases]
    lines = ["", *table(rows).splitlines(), ""]
    for result in done.cases:
        if result.verdict != "passed":
            lines += [*_trouble(result), ""]
    lines.append(_summary(done))
    if not done.named("failed") and not done.named("not-rehearsed"):
        lines += ["", f"Next: mv {candidate} provision.lock && provision plan -i INVENTORY"]
    return "\n".join(lines) + "\n"


def _row(result: CaseResult) -> tuple[str, ...]:
    away = duration(result.not_serving_s) if result.not_serving_s else "–"
    return (result.case.name, str(len(result.case.hosts)), *(_cell(result, step) for step in STEPS), away)


def _cell(result: CaseResult, step: StepName) -> str:
    """`94 s`, `✗ 12 s`, `?` for what could not be made, `–` for what was not reached."""
    one = result.step(step)
    if one is None or one.status == "skipped":
        return "–"
    if one.status == "not-made":
        return "?"
    return f"{'✗ ' if one.status == 'failed' else ''}{duration(one.seconds)}"


def _verdict(result: CaseResult) -> str:
    words = result.verdict.replace("-", " ")
    more = " (earlier)" if result.earlier else " (kept image)" if result.cached else ""
    return paint(words, _VERDICTS[result.verdict]) + more


def _trouble(result: CaseResult) -> list[str]:
    lines = [f"{paint(result.case.name, 'bold')}  {paint(result.verdict.replace('-', ' '), _VERDICTS[result.verdict])}"]
    lines.append(f"  {safe(result.why)}")
    for one in result.steps:
        if one.status in ("failed", "not-made"):
            lines += [f"    {safe(line)}" for line in one.detail if line not in result.why]
            lines += [f"    [{one.reference}]"] if one.reference else []
    lines.append(f"  hosts: {_hosts(result.case.hosts)}")
    lines.append(f"  {advice(result)}")
    if result.log:
        lines.append(f"  log: {result.log}")
    return lines


def advice(result: CaseResult) -> str:
    """What to do about a stack that did not pass."""
    if result.verdict == "not-rehearsed":
        return "nothing is known of this one: try it on one host that is not needed (provision apply --limit HOST)"
    step = next((one.step for one in result.steps if one.status == "failed"), "upgrade")
    if step in ("back", "verify-back"):
        return "the upgrade itself passed; without a way back, take one host first and keep it drained"
    hosts = ",".join(result.case.hosts[:3]) + (",…" if len(result.case.hosts) > 3 else "")
    if result.case.before is None:
        return f"leave {hosts} out until this passes: there is nothing yet to leave as it is"
    held = held_by(result.case.before, result.case.after)
    if not held:
        return f"leave these hosts as they are: put their entries of the lock in use back into the candidate ({hosts})"
    return f"leave these hosts as they are: {', '.join(held)} for {hosts}, then provision resolve"


def held_by(before: HostLock, after: HostLock) -> list[str]:
    """The variables of the inventory that keep a host at what it has; [] when driver and clients stay as they are."""
    found = []
    old, new = (entry.driver_version.value if entry.driver_version is not None else "" for entry in (before, after))
    if old and old != new:
        found.append(f'provision_driver: "{old}"')
    moved = {name for name, choice in before.networks.items() if after.networks.get(name, choice).value != choice.value}
    if moved:
        names = [name.partition("@")[0] for name in before.intent.networks]
        kept = [f"{name}@{before.networks[name].value}" if name in moved else name for name in names]
        found.append(f"provision_networks: [{', '.join(kept)}]")
    return found


def _summary(done: Rehearsal) -> str:
    counts = [
        (len(done.named(verdict)), verdict.replace("-", " ")) for verdict in ("passed", "failed", "not-rehearsed")
    ]
    said = " · ".join(f"{count} {words}" for count, words in counts if count)
    earlier = sum(one.earlier for one in done.cases)
    more = f" · {earlier} of them in an earlier rehearsal" if earlier else ""
    return f"{said}{more} · {duration(done.seconds)}"


def rehearsed_json(done: Rehearsal) -> str:
    """Return the documented shape (docs/guide/rehearse.md); lock entries are left out, their stacks are named."""
    cases = [
        {
            **result.model_dump(mode="json", exclude={"case"}),
            "id": result.case.id,
            "name": result.case.name,
            "hosts": list(result.case.hosts),
            "from": stack_words(result.case.before),
            "to": stack_words(result.case.after),
            "not_serving_s": round(result.not_serving_s, 1),
            "advice": "" if result.verdict == "passed" else advice(result),
        }
        for result in done.cases
    ]
    return (
        json.dumps({**done.model_dump(mode="json", exclude={"cases"}), "cases": cases}, indent=2, ensure_ascii=False)
        + "\n"
    )


def junit_text(done: Rehearsal) -> str:
    """Return JUnit XML: a suite per stack, a case per step. What could not be made is an error, not a failure."""
    root = ElementTree.Element("testsuites", name="provision rehearse")
    for result in done.cases:
        suite = ElementTree.SubElement(root, "testsuite", name=result.case.name, time=f"{result.seconds:.1f}")
        for step in STEPS if result.case.before is not None else STEPS[1:3]:
            _step(suite, result, step)
        suite.set("tests", str(len(suite.findall("testcase"))))
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(key, str(len(suite.findall(f"testcase/{tag}"))))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _step(suite: ElementTree.Element, result: CaseResult, step: StepName) -> None:
    one = result.step(step)
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=result.case.name,
        name=TITLES[step],
        time=f"{one.seconds if one is not None else 0:.1f}",
    )
    if one is None or one.status == "skipped":
        ElementTree.SubElement(case, "skipped", message="not reached")
    elif one.status in ("failed", "not-made"):
        made = ElementTree.SubElement(
            case, "failure" if one.status == "failed" else "error", message=safe(result.why), type=one.reference or step
        )
        made.text = "\n".join(safe(line) for line in one.detail)


def markdown_text(done: Rehearsal) -> str:
    """Return a summary to post under a pull request; the words of hosts can't break out of their cells."""
    if not done.cases:
        return f"### Rehearsal\n\nNothing to rehearse: {_staying(len(done.unchanged))}.\n"
    bad = [one for one in done.cases if one.verdict != "passed"]
    head = "all stacks pass" if not bad else f"{len(bad)} of {len(done.cases)} stacks did not pass"
    lines = [
        f"### Rehearsal: {head}",
        "",
        "| | stack | hosts | way | would not be serving |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result in done.cases:
        away = duration(result.not_serving_s) if result.verdict == "passed" else "–"
        cells = (_SIGNS[result.verdict], result.case.name, str(len(result.case.hosts)), _way(result.case), away)
        lines.append(f"| {' | '.join(_plain(cell) for cell in cells)} |")
    for result in bad:
        lines += ["", f"**{_plain(result.case.name)}**: {result.verdict.replace('-', ' ')}. {_plain(result.why)}", ""]
        fenced = list(_fenced(result))
        lines += ["```", *fenced, "```", ""] if fenced else []
        lines.append(_plain(advice(result)[0].upper() + advice(result)[1:]) + ".")
    same = len(done.unchanged)
    rest = f"{same} host{'s' * (same != 1)} unchanged. " if same else ""
    lines += ["", f"{rest}{_summary(done)}. GPUs are simulated; packages and their installation are real."]
    return "\n".join(lines) + "\n"


def _fenced(result: CaseResult) -> Iterator[str]:
    for one in result.steps:
        if one.status in ("failed", "not-made"):
            yield from (
                safe(line).replace("`", "'")
                for line in (*one.detail[:8], *([f"[{one.reference}]"] if one.reference else []))
                if line not in result.why
            )


def _plain(text: str) -> str:
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return safe(text).replace("@", "@\N{ZERO WIDTH SPACE}").replace("\n", " ")


def html_text(done: Rehearsal) -> str:
    """Return the report: one file with plan, differences and log of each stack; no network, no script."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(PAGE.read_text(encoding="utf-8"))
    return template.render(
        done=done,
        summary=_summary(done),
        steps=[(_COLUMNS[step].lower(), TITLES[step]) for step in STEPS],
        cases=[_case(result) for result in done.cases],
    )


def _case(result: CaseResult) -> dict[str, Any]:
    return {
        "result": result,
        "way": _way(result.case),
        "cells": [_cell(result, step) for step in STEPS],
        "away": duration(result.not_serving_s) if result.not_serving_s else "–",
        "moved": [moved_text(one) for one in difference(result.case).moved],
        "files": [safe_lines(text) for text in file_diffs(result.case)],
        "advice": advice(result) if result.verdict != "passed" else "",
        "verdict": result.verdict.replace("-", " "),
        "log": _log(result),
        "why": safe(result.why),
        "plan": safe_lines(result.plan),
        "trouble": [safe(line) for one in result.steps if one.status in ("failed", "not-made") for line in one.detail],
    }


def file_diffs(case: Case) -> list[str]:
    """What the files that provision writes would say differently, as unified diffs; the locks alone decide that."""
    before = _files(case.before) if case.before is not None else {}
    after = _files(case.after)
    found = []
    for path in sorted({*before, *after}):
        old, new = (text.get(path, "").splitlines() for text in (before, after))
        lines = list(difflib.unified_diff(old, new, fromfile=path, tofile=path, n=2, lineterm=""))
        if lines:
            found.append("\n".join(lines))
    return found


def _files(entry: HostLock) -> dict[str, str]:
    texts = {}
    for resource in wanted(entry):
        if isinstance(resource, File):
            texts[resource.path] = resource.content
        elif isinstance(resource, Settings):
            texts[resource.path] = json.dumps(resource.values, indent=1, sort_keys=True)
        elif isinstance(resource, PackageSource):
            texts[resource.source.path] = resource.source.text
    return texts


def _log(result: CaseResult) -> str:
    try:
        return safe_lines(Path(result.log).read_text(encoding="utf-8", errors="replace")) if result.log else ""
    except OSError:
        return "(the log is no longer there)"


def safe_lines(text: str) -> str:
    return "\n".join(safe(line) for line in text.splitlines())
