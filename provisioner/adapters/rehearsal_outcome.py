"""What a command of a rehearsal came to, from its exit code and what it printed with --json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from provisioner.errors import Exit
from provisioner.model.rehearsal import Outcome

_STATES = {
    "enrolled": "good",
    "unchanged": "good",
    "restored": "good",
    "out": "unverified",
    "rolled-back": "unverified",
}


def outcome_of(code: int, out: str, said: str, seconds: float, rig: str) -> Outcome:
    """Read what `apply --json` or `rollback --json` printed; without its shape, the last lines are the reason.

    Another host of the same lab that did not come to a good end is a failure too: nothing rests on half a lab.
    """
    hosts = _hosts_of(out)
    if code == Exit.INTERRUPTED:
        return Outcome("interrupted", seconds)
    if rig not in hosts:
        lines = [line.strip() for line in said.removesuffix(out).splitlines() if line.strip()]
        return Outcome(
            "failed", seconds, reference="command-failed", detail=tuple(lines[-6:]) or (f"exit code {code}",)
        )
    host = hosts[rig]
    state = _STATES.get(host["state"], "failed")
    other = next((name for name, one in hosts.items() if _STATES.get(one["state"]) != "good"), None)
    if state == "good" and other is not None:
        host = {**host, **{key: hosts[other][key] for key in ("reference", "reason", "context", "hint")}}
        state, host["reason"] = "failed", f"{other}: {host['reason'] or hosts[other]['state']}"
    return Outcome(
        state=state,  # type: ignore[arg-type]  # values of the table above
        seconds=seconds,
        verify_s=float(host["seconds"].get("verify", 0.0)),
        not_serving_s=float(host["not_serving_s"]),
        taken_back=host["state"] == "rolled-back",
        reference=host["reference"],
        detail=(host["reason"], *host["context"]) if host["reason"] else (),
        hint=host["hint"],
    )


def changed_in(out: str, rig: str) -> str:
    """The run that changed this host, or ''."""
    try:
        value = json.loads(out)
        return str(value["run"]) if value["folder"] and value["hosts"][rig]["state"] != "unchanged" else ""
    except (ValueError, KeyError, TypeError):
        return ""


def together(first: Outcome, second: Outcome) -> Outcome:
    """Two commands of one step: how the second ended, and the time of both."""
    return Outcome(
        state=second.state,
        seconds=round(first.seconds + second.seconds, 1),
        verify_s=first.verify_s + second.verify_s,
        not_serving_s=first.not_serving_s + second.not_serving_s,
        taken_back=second.taken_back,
        reference=second.reference,
        detail=second.detail,
        hint=second.hint,
    )


def _hosts_of(out: str) -> Mapping[str, Mapping[str, Any]]:
    try:
        found: Mapping[str, Mapping[str, Any]] = json.loads(out)["hosts"]
        return {name: dict(one) for name, one in found.items() if one["state"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
