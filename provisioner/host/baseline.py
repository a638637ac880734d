"""provision-baseline: note how the cards are when the host is let in, so that it can be told what became worse since.

    provision-baseline note    merge with what was noted before, and write /var/lib/provision/baseline.json
    provision-baseline show    how the cards are now, as JSON; writes nothing

Of a card in its slot the best link that was ever noted stays: a link that lost lanes must not become the measure by
being noted again. Counts of remapped rows stay for thirty days, so that a change of the host in between does not hide
that they grow. A card in another slot, or another card, begins anew; so does everything when the file is removed.
"""

# pathlib, argparse and datetime cost more to import than the work takes.
# ruff: noqa: PTH103, PTH105, PTH120, PTH123

import json
import os
import sys
import time

from provisioner.host import gate, nvml

MYPY = False
if MYPY:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

PATH = gate.STATE + "/baseline.json"
FORMAT = 1
ROWS_STAY_S = 30 * 86400
LIMIT_S = 20.0


def merged(old: "Json", now: "list[Json]", at: float) -> "Json":
    """What is noted: `now` (cards as `nvml.links` gives them), with what of the last note still counts."""
    stamp = gate.stamp(at)
    cards = {}
    for card in now:
        if not card["uuid"]:
            continue
        before = old.get(card["uuid"])
        noted = dict(card, since=stamp, rows_at=stamp)
        del noted["uuid"]
        if isinstance(before, dict) and before.get("slot") == card["slot"]:
            noted["since"] = before.get("since") or stamp
            for key in ("width", "generation"):
                noted[key] = greater(before.get(key), card[key])
            if card["rows"] is None or (before.get("rows") and recent(before.get("rows_at"), at)):
                noted["rows"], noted["rows_at"] = before.get("rows"), before.get("rows_at")
        cards[card["uuid"]] = noted
    return {"format": FORMAT, "at": stamp, "cards": cards}


def greater(one: "Any", other: "Any") -> "int | None":
    known = [value for value in (one, other) if isinstance(value, int)]
    return max(known) if known else None


def recent(stamp: "Any", at: float) -> bool:
    """Times are UTC in one spelling, so text compares as time does."""
    return isinstance(stamp, str) and stamp >= gate.stamp(at - ROWS_STAY_S)


def noted(root: str = "") -> "Json":
    """The cards of the last note; none when there is no note that can be read."""
    try:
        cards = json.loads(gate.read(root + PATH) or "{}")["cards"]
        return dict(cards)
    except (ValueError, KeyError, TypeError):
        return {}


def note(root: str = "", ask: "Callable[[], Json]" = nvml.links, clock: "Callable[[], float]" = time.time) -> str:
    """Write the note, whole or not at all; the reason why not, or nothing."""
    seen = gate.apart(ask, LIMIT_S)
    if "error" in seen:
        return f"NVML: {seen['error']}"
    text = json.dumps(merged(noted(root), seen["cards"], clock()), indent=1, sort_keys=True)
    path = root + PATH
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(path + ".new", "w") as out:
        out.write(text + "\n")
        out.flush()
        os.fsync(out.fileno())
    os.replace(path + ".new", path)
    return ""


def main(argv: "list[str]", **with_: "Any") -> int:
    if argv == ["show"]:
        print(json.dumps(gate.apart(with_.get("ask", nvml.links), LIMIT_S), indent=1, sort_keys=True))
        return 0
    if argv != ["note"]:
        sys.stderr.write((__doc__ or "").partition("\n\n")[2])
        return 2
    try:
        problem = note(**with_)
    except OSError as error:
        problem = str(error)
    if problem:
        sys.stderr.write(f"nothing is noted of the cards: {problem}\n")
    return 1 if problem else 0


def entry() -> None:
    sys.exit(main(sys.argv[1:]))
