"""What the watchdog does about a cause, rung by rung: a pure function of what is seen, when, and what was done before.

Theory: each cause has a ladder. A rung is tried `tries` times, `wait_s` apart and twice as long each further time; then
the next rung's turn comes. The last rung is always `tell`: once, and then nothing until the cause has been gone for
CLEAR_S. A cause that is gone that long is forgotten and begins at the bottom when it comes again. Reboots have limits
of their own over all causes. What could end a job is held back while one runs.
"""

MYPY = False
if MYPY:
    from typing import Any

    Memory = dict[str, Any]

CLEAR_S = 300
DAY_S = 86400
REBOOTS_A_DAY = 2
REBOOT_GAP_S = 3600  # after the first; after the second twice that, and so on

# Actions that a running job would not survive. The others may be taken at any time.
ENDS_JOBS = frozenset(("restart-client", "stop-client", "reboot"))

# cause: rungs of (action, tries, seconds to wait after it); weightiest cause first.
LADDERS = {
    "gpu-gone": (("drain", 1, 60), ("reboot", 2, 600)),
    "xid-hardware": (("drain", 1, 60), ("reboot", 1, 600)),
    "hot": (("cap-power", 3, 120), ("drain", 1, 60), ("stop-client", 1, 600)),
    "gate-closed": (("drain", 1, 60), ("stop-client", 1, 600)),
    "disk-full": (("drain", 1, 600),),
    "tunnel-stale": (("restart-tunnel", 3, 60),),
    "client-down": (("start-client", 3, 60),),
    "heartbeat-stale": (("restart-client", 3, 120),),
    "throttling": (("cap-power", 3, 300),),
    "xid-application": (),
}


def decide(causes: "dict[str, str]", memory: "Memory", now: float, busy: bool, reboots: bool = True) -> "Decision":
    """The next step of every cause that is seen. `causes`: `cause` or `cause/NETWORK` -> words; `busy`: a job runs.

    The memory that comes back replaces the one that was given; it is plain data for a JSON file.
    """
    told = Decision({"causes": {}, "reboots": [at for at in memory.get("reboots", []) if now - at < DAY_S]})
    for name, known in memory.get("causes", {}).items():
        if name not in causes and now - known["seen"] < CLEAR_S:
            told.memory["causes"][name] = known
    for name in sorted(causes, key=weight):
        known = dict(
            memory.get("causes", {}).get(name) or {"since": now, "rung": 0, "tried": 0, "next": now, "told": False}
        )
        known["seen"] = now
        told.memory["causes"][name] = known
        if not told.rebooting:
            step(name, causes[name], known, told, now, busy, reboots)
    return told


class Decision:
    """Actions in order, as (action, cause, words); `held` says what waits, and for what."""

    def __init__(self, memory: "Memory") -> None:
        self.memory = memory
        self.actions = []  # type: list[tuple[str, str, str]]
        self.held = {}  # type: dict[str, str]

    @property
    def rebooting(self) -> bool:
        return any(action == "reboot" for action, _, _ in self.actions)


def weight(name: str) -> "tuple[int, str]":
    return list(LADDERS).index(name.partition("/")[0]), name


def step(name: str, words: str, known: "Memory", told: "Decision", now: float, busy: bool, reboots: bool) -> None:
    """Take at most one action for one cause."""
    rungs = LADDERS[name.partition("/")[0]]
    if now < known["next"]:
        return
    while known["rung"] < len(rungs):
        action, tries, wait_s = rungs[known["rung"]]
        if known["tried"] >= tries:
            known["rung"], known["tried"] = known["rung"] + 1, 0
            continue
        if action == "reboot":
            why = no_reboot(told.memory["reboots"], now, reboots)
            if why == "later":
                told.held[name] = "reboot: the last one was too short a time ago"
                return
            if why:
                known["rung"], known["tried"] = known["rung"] + 1, 0
                continue
        if busy and action in ENDS_JOBS:
            told.held[name] = f"{action}: a job runs"
            return
        known["tried"] += 1
        known["next"] = now + wait_s * 2 ** (known["tried"] - 1)
        if action == "reboot":
            told.memory["reboots"].append(now)
        told.actions.append((action, name, words))
        return
    if not known["told"]:
        known["told"] = True
        told.actions.append(("tell", name, words))


def no_reboot(before: "list[float]", now: float, allowed: bool) -> str:
    """Empty: it may be done; `later`: not yet; `never`: not today, or not at all."""
    if not allowed or len(before) >= REBOOTS_A_DAY:
        return "never"
    if before and now - before[-1] < REBOOT_GAP_S * 2 ** (len(before) - 1):
        return "later"
    return ""
