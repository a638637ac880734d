"""Whether a change is on trial on the host, or the host went back by itself; and whether it was enrolled before."""

from __future__ import annotations

import json

from provisioner.facts.listing import matching
from provisioner.host.trial import FOLDER
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import TrialFacts
from provisioner.model.history import NOW

STATE = f"{FOLDER}/state.json"


def read(capture: Capture) -> TrialFacts | Unknown | None:
    """Return what the host noted of its last trial; a note that cannot be read is unknown."""
    text = capture.file(STATE)
    if not isinstance(text, str):
        return text
    try:
        seen = json.loads(text)
        words = {key: str(seen[key]) for key in ("state", "what", "at", "why", "problem")}
        return TrialFacts(**words, limit_s=int(seen["limit_s"]))
    except (ValueError, KeyError, TypeError):
        return UNKNOWN


def enrolled_before(capture: Capture) -> bool | Unknown:
    """Whether the host keeps the stack of its last enrolment."""
    found = matching(capture, NOW)
    return UNKNOWN if found is UNKNOWN else bool(found)
