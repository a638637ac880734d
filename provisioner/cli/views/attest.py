"""How an enrolment record reads: on the screen, as JSON, and as a page that a provider hands to a buyer."""

from __future__ import annotations

import base64
import json
from collections import Counter
from html import escape
from pathlib import Path
from string import Template

from provisioner.actions.attest import Examined, Past
from provisioner.checks.table import CHECKS
from provisioner.cli.words import paint, safe, table
from provisioner.model.enrolment import EnrolmentRecord, RecordedCheck

_STATUS = {"passed": "passed", "failed": "failed", "unknown": "not made", "not-applicable": "not applicable"}


def examined_text(examined: Examined) -> str:
    """Return the whole screen of `provision attest verify`."""
    record = examined.record
    if examined.holds:
        head = f"{record.host}: {paint('the record holds', 'green')} until {record.expires_at:%Y-%m-%d %H:%M} UTC"
    else:
        head = f"{record.host}: {paint('the record does not hold', 'red')}"
    lines = [safe_but_colour(head), *(f"  ✗ {safe(reason)}" for reason in examined.wrong), ""]
    return "\n".join([*lines, table([[name, safe(value)] for name, value in facts(record)], indent=2)])


def safe_but_colour(text: str) -> str:
    """The host's name comes out of a file; the colour is ours."""
    return "\x1b".join(safe(part) for part in text.split("\x1b"))


def facts(record: EnrolmentRecord) -> list[tuple[str, str]]:
    """What the record states, a name and a line each."""
    stack = record.stack
    cards = Counter(card.name for card in stack.gpus)
    counts = Counter(check.status for check in record.checks)
    return [
        ("host", record.host),
        ("serves", ", ".join(f"{name} {version}" for name, version in sorted(record.networks.items())) or "no network"),
        ("GPUs", ", ".join(f"{count} × {name}" for name, count in sorted(cards.items())) or "none"),
        ("driver", f"{stack.driver} ({stack.flavour} modules)" if stack.driver else "none"),
        ("runtime", f"Docker {stack.docker}" if stack.docker else "none asked for"),
        ("checks", " · ".join(f"{count} {_STATUS[status]}" for status, count in counts.most_common()) or "none"),
        ("run", record.run),
        ("enrolled", f"{record.enrolled_at:%Y-%m-%d %H:%M} UTC, by provision {record.made_by}"),
        ("until", f"{record.expires_at:%Y-%m-%d %H:%M} UTC"),
        ("machine", record.bound_to.machine),
        ("host key", record.bound_to.host_key or "none"),
        ("lock entry", record.lock_digest),
        ("matrix", record.matrix_digest),
        ("signed with", record.key),
    ]


def examined_json(examined: Examined) -> str:
    """Return the versioned shape; `record` is the predicate as it was signed."""
    record = examined.record
    value = {
        "format": 1,
        "holds": examined.holds,
        "wrong": list(examined.wrong),
        "key": record.key,
        "record": record.model_dump(mode="json", exclude={"key", "signature"}),
    }
    return json.dumps(value, indent=2)


PAGE = Path(__file__).with_name("attest_page.html")


def report_html(examined: Examined) -> str:
    """Return the page of one host: no script, nothing fetched."""
    record = examined.record
    order = {"failed": 0, "unknown": 1, "passed": 2, "not-applicable": 3}
    checks = sorted(record.checks, key=lambda check: order[check.status])
    titles = {check.id: check.title for check in CHECKS}
    verdict = f"The record holds until {record.expires_at:%Y-%m-%d %H:%M} UTC."
    if not examined.holds:
        verdict = "The record does not hold: " + "; ".join(examined.wrong) + "."
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        host=escape(record.host),
        tone="good" if examined.holds else "bad",
        verdict=escape(verdict),
        at=f"{examined.at:%Y-%m-%d %H:%M}",
        facts="".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts(record)),
        gpus="".join(
            f"<tr><td>{escape(card.name)}</td><td>{escape(card.uuid)}</td></tr>" for card in record.stack.gpus
        ),
        checks="".join(_check_row(check, titles.get(check.id, check.id)) for check in checks),
        past="".join(_past_row(one) for one in examined.past)
        or '<tr><td colspan="5">No earlier record lies beside this one.</td></tr>',
        key=escape(record.key),
        data=base64.b64encode(record.text.encode()).decode(),
        envelope=escape(record.text.strip()),
    )


def _check_row(check: RecordedCheck, title: str) -> str:
    cells = (_STATUS[check.status], title, check.id, "required" if check.required else "advisory")
    return f'<tr class="{check.status}">' + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _past_row(one: Past) -> str:
    record = one.record
    serves = ", ".join(f"{name} {version}" for name, version in sorted(record.networks.items())) or "no network"
    passed = sum(check.status == "passed" for check in record.checks)
    cells = (
        f"{record.enrolled_at:%Y-%m-%d %H:%M}",
        record.stack.driver or "none",
        serves,
        f"{passed} passed",
        "signed with a trusted key" if one.signed else "NOT signed with a trusted key",
    )
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
