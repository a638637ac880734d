"""The --json shape of `provision why`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from provisioner.cli.views.resolve import conflict_json, repair_json
from provisioner.model.stack import HostLock
from provisioner.resolve import explain
from provisioner.resolve.conflict import Claim
from provisioner.resolve.why import Answer

SHAPE = 1
"""Version of the shape; docs/guide/why.md describes it."""


def answer_json(answer: Answer) -> str:
    return json.dumps(
        {
            "format": SHAPE,
            "host": answer.host,
            "asked": {"variable": answer.question.variable, "value": answer.question.value},
            "verdict": answer.verdict,
            "choices": {label: choice.model_dump(mode="json") for label, choice in answer.choices},
            "because": _claims((*answer.because, *answer.background)),
            "conflicts": [conflict_json(conflict) for conflict in answer.conflicts],
            "all_conflicts": answer.complete,
            "repairs": [repair_json(repair) for repair in answer.repairs],
            "now": _stack(answer.now),
            "with_it": _stack(answer.stack),
            "not_seen": list(answer.unseen),
        },
        indent=2,
        ensure_ascii=False,
    )


def _claims(claims: Iterable[Claim]) -> list[dict[str, Any]]:
    return [
        {"rule": claim.kind, "text": explain.sentence(claim), "rests_on": list(explain.sources(claim))}
        for claim in claims
    ]


def _stack(stack: HostLock | None) -> dict[str, Any] | None:
    if stack is None:
        return None
    chosen = {
        "driver": stack.driver_version,
        "modules": stack.modules,
        "cuda": stack.cuda,
        "compat": stack.compat,
        "runtime": stack.runtime,
        "toolkit": stack.toolkit,
        "cdi": stack.cdi,
    }
    return {
        **{name: choice.value if choice is not None else None for name, choice in chosen.items()},
        "networks": {name: choice.value for name, choice in stack.networks.items()},
    }
