"""How a verification reads: a line per host, what is wrong below it; JSON and JUnit for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from provisioner.actions.verify import Verified
from provisioner.cli.words import next_command, paint, safe, table
from provisioner.errors import HostError
from provisioner.model.results import CheckResult, Fault, HostVerification

_MARKS = {"passed": "✓", "failed": "✗", "unknown": "?", "not-applicable": "·"}


def verified_text(
    verified: Verified, *, seconds: float, lock: str, inventory: Sequence[str] = (), everything: bool = False
) -> str:
    """Return the whole screen of `provision verify`; `inventory` is what a next command has to name again."""
    names = [*verified.hosts, *(name for name in verified.failed if name not in verified.hosts)]
    count = f"{len(names)} host{'' if len(names) == 1 else 's'}"
    lines = [f"{count} checked in {seconds:.1f} s · lock {lock} · run {verified.run}", ""]
    width = max(map(len, names), default=0)
    for name in names:
        lines += _host(name, verified, width, everything)
    steps = _next(verified, inventory, lock)
    return "\n".join([*lines, *(["", *steps] if steps else [])])


def _host(name: str, verified: Verified, width: int, everything: bool) -> list[str]:
    one = verified.hosts.get(name)
    problem = verified.failed.get(name)
    head = paint(name.ljust(width), "bold")
    if one is None:
        return _fault(head, width, problem) if problem is not None else []
    if one.fault is not None:
        return _fault(head, width, one.fault)
    said = f"{head}  {_counts(one)}"
    if name in verified.enrolled:
        said += f" · {paint('enrolled', 'green')}"
    elif name in verified.withdrawn:
        said += f" · {paint('withdrawn', 'red')}"
    lines = [said]
    shown = [r for r in one.results if everything or r.status in ("failed", "unknown")]
    rows = [[f"{_MARKS[r.status]} {r.title}", f"{safe(_detail(r))}  [{r.id}]".lstrip()] for r in shown]
    if rows:
        lines += table(rows, indent=4).splitlines()
    if problem is not None:
        lines += _fault(" " * width, width, problem)
    return lines


def _detail(result: CheckResult) -> str:
    words = result.detail.removeprefix("not made: ")
    if result.status == "unknown":
        words = f"not made: {words}"
    return words if result.required or result.status in ("passed", "not-applicable") else f"{words} (advisory)"


def _counts(one: HostVerification) -> str:
    failed = sum(r.status == "failed" and r.required for r in one.results)
    unknown = sum(r.status == "unknown" and r.required for r in one.results)
    advisory = sum(r.status in ("failed", "unknown") and not r.required for r in one.results)
    parts = [f"{one.count('passed')} passed"]
    if failed:
        parts.append(paint(f"{failed} failed", "red"))
    if unknown:
        parts.append(paint(f"{unknown} not made", "red"))
    if advisory:
        parts.append(paint(f"{advisory} to look at", "yellow"))
    if aside := one.count("not-applicable"):
        parts.append(f"{aside} do not apply")
    return " · ".join(parts)


def _fault(head: str, width: int, problem: Fault | HostError) -> list[str]:
    lines = [f"{head}  {paint(safe(problem.message), 'red')}  [{problem.reference}]"]
    lines += [f"{' ' * width}    {safe(line)}" for line in problem.context]
    return lines + ([f"{' ' * width}    {safe(problem.hint)}"] if problem.hint else [])


def _next(verified: Verified, inventory: Sequence[str], lock: str) -> list[str]:
    out = [name for name, one in verified.hosts.items() if not one.passed and one.fault is None]
    if out:
        return [f"Next: {next_command('plan', inventory, out, lock)}"]
    if verified.passed and not verified.enrolled and verified.hosts:
        return ["Every required check passed."]
    return []


def verified_json(verified: Verified) -> str:
    """Return the versioned shape that docs/guide/verify.md describes."""
    hosts = {}
    for name in [*verified.hosts, *(name for name in verified.failed if name not in verified.hosts)]:
        one, problem = verified.hosts.get(name), verified.failed.get(name)
        fault = one.fault if one is not None and one.fault is not None else problem
        hosts[name] = {
            "passed": one is not None and one.passed and problem is None,
            "enrolled": name in verified.enrolled,
            "withdrawn": name in verified.withdrawn,
            "lock_digest": one.lock_digest if one is not None else None,
            "fault": _fault_json(fault) if fault is not None else None,
            "checks": [asdict(result) for result in one.results] if one is not None else [],
        }
    return json.dumps({"format": 1, "run": verified.run, "passed": verified.passed, "hosts": hosts}, indent=2)


def _fault_json(fault: Fault | HostError) -> dict[str, object]:
    return {
        "reference": fault.reference,
        "message": fault.message,
        "context": list(fault.context),
        "hint": fault.hint,
    }


def junit_text(verified: Verified) -> str:
    """Return JUnit XML: a suite per host, a case per check; what could not be made is an error, not a failure."""
    root = ElementTree.Element("testsuites", name="provision verify")
    for name, one in verified.hosts.items():
        suite = ElementTree.SubElement(root, "testsuite", name=name)
        for result in one.results:
            _case(suite, result)
        if one.fault is not None:
            _broken(suite, name, one.fault.message, one.fault.reference)
    for name, problem in verified.failed.items():
        known = [suite for suite in root if suite.get("name") == name]
        _broken(
            known[0] if known else ElementTree.SubElement(root, "testsuite", name=name),
            name,
            problem.message,
            problem.reference,
        )
    for suite in root:
        suite.set("tests", str(len(suite.findall("testcase"))))
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(key, str(len(suite.findall(f"testcase/{tag}"))))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, result: CheckResult) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=result.host, name=result.id, time=f"{result.seconds:.3f}"
    )
    words = safe(f"{result.title}: {result.detail or result.status}")
    if result.blocks:
        tag = "failure" if result.status == "failed" else "error"
        ElementTree.SubElement(case, tag, message=words, type=result.status)
    elif result.status != "passed":
        ElementTree.SubElement(case, "skipped", message=words if result.required else f"{words} (advisory)")


def _broken(suite: ElementTree.Element, host: str, message: str, reference: str) -> None:
    case = ElementTree.SubElement(suite, "testcase", classname=host, name=reference)
    ElementTree.SubElement(case, "error", message=safe(message), type=reference)
