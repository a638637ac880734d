"""provision-power: hold each card to its power policy. A reboot and a driver reload lose it; a unit applies it again.

    provision-power apply     set what /etc/provision/power.json says, and read it back
    provision-power show      what each card has, and what it should have; exit 1 when they differ
    provision-power undo      back to each card's defaults

The policy names models as NVML does, `*` for all others: {"*": {"limit_percent": 80}, "NVIDIA …": {"limit_w": 300,
"clocks_mhz": [210, 2100]}}. Never beyond the card's own limits: a policy that asks for more gets what the card allows,
and says so.
"""

import json
import sys

from provisioner.host import gate, nvml

MYPY = False
if MYPY:
    from typing import Any

POLICY = "/etc/provision/power.json"
NEAR_W = 1.0  # cards round


def wanted_w(policy: "dict[str, Any]", card: "dict[str, Any]") -> "tuple[float | None, str]":
    """The limit for a card in watts, within its own limits, and what had to be bent; None: the policy sets none."""
    asked = policy.get("limit_w")
    if asked is None and policy.get("limit_percent") is not None and card["default_w"] is not None:
        asked = card["default_w"] * policy["limit_percent"] / 100
    if asked is None:
        return None, ""
    least, most = card["least_w"], card["most_w"]
    if least is None or most is None:
        return None, "the card does not tell its limits: nothing is set"
    if asked < least:
        return float(least), f"{asked:g} W is below what the card allows, {least:g} W"
    if asked > most:
        return float(most), f"{asked:g} W is above what the card allows, {most:g} W"
    return float(asked), ""


def policy_of(policies: "dict[str, Any]", name: str) -> "dict[str, Any]":
    return dict(policies.get(name) or policies.get("*") or {})


def lower_w(card: "dict[str, Any]", percent: float = 10) -> "float | None":
    """A step down from the present limit, never below the card's least; None: there is none left, or no saying."""
    now, least = card["limit_w"], card["least_w"]
    if now is None or least is None or now - least < NEAR_W:
        return None
    return max(float(least), float(now) * (100 - percent) / 100)


def read_policies(path: str = POLICY) -> "dict[str, Any]":
    text = gate.read(path)
    return dict(json.loads(text)) if text is not None else {}


def apply(policies: "dict[str, Any]", lib: "Any") -> "list[str]":
    """Set every card; what could not be set, in words."""
    wrong = []
    for handle in lib.cards():
        card = lib.minute(handle)
        policy = policy_of(policies, card["name"])
        limit, bent = wanted_w(policy, card)
        if bent:
            say(f"{card['name']}: {bent}")
        if limit is not None and differs(card["limit_w"], limit):
            if not lib.set_limit(handle, limit) or differs(lib.minute(handle)["limit_w"], limit):
                wrong.append(f"{card['name']}: the power limit of {limit:g} W was not taken")
            else:
                say(f"{card['name']}: power limit {limit:g} W")
        clocks = policy.get("clocks_mhz")
        if clocks and not lib.lock_clocks(handle, int(clocks[0]), int(clocks[1])):
            wrong.append(f"{card['name']}: clocks of {clocks[0]} to {clocks[1]} MHz were not taken")
    return wrong


def undo(lib: "Any") -> "list[str]":
    wrong = []
    for handle in lib.cards():
        card = lib.minute(handle)
        if differs(card["limit_w"], card["default_w"]) and not lib.set_limit(handle, card["default_w"]):
            wrong.append(f"{card['name']}: the default power limit was not taken")
        lib.free_clocks(handle)
    return wrong


def show(policies: "dict[str, Any]", lib: "Any") -> "list[str]":
    """What differs, in words."""
    told = []
    for handle in lib.cards():
        card = lib.minute(handle)
        limit, _ = wanted_w(policy_of(policies, card["name"]), card)
        if limit is not None and differs(card["limit_w"], limit):
            told.append(f"{card['name']}: power limit {card['limit_w']} W, policy {limit:g} W")
    return told


def cap(lib: "Any") -> "list[str]":
    """A step down on every card that can take one; what was done, in words."""
    done = []
    for handle in lib.cards():
        card = lib.minute(handle)
        limit = lower_w(card)
        if limit is not None and lib.set_limit(handle, limit):
            done.append(f"{card['name']}: power limit {card['limit_w']:g} W → {limit:g} W")
    return done


def restore(limits: "dict[str, float]", lib: "Any") -> "list[str]":
    """Back to the limits, by uuid, that cards had before they were capped; what was done, in words."""
    done = []
    for handle in lib.cards():
        card = lib.minute(handle)
        limit, most = limits.get(card["uuid"]), card["most_w"]
        if limit is None or most is None or limit > most or not differs(card["limit_w"], limit):
            continue
        if lib.set_limit(handle, limit):
            done.append(f"{card['name']}: power limit {card['limit_w']:g} W → {limit:g} W")
    return done


def differs(one: "float | None", two: "float | None") -> bool:
    return one is not None and two is not None and abs(one - two) >= NEAR_W


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


def main(argv: "list[str]", library: str = nvml.LIBRARY, path: str = POLICY) -> int:
    if argv not in (["apply"], ["show"], ["undo"]):
        sys.stderr.write((__doc__ or "").partition("\n\n")[2])
        return 2
    try:
        policies = read_policies(path)
        with nvml.Nvml(library) as lib:
            wrong = undo(lib) if argv == ["undo"] else (apply if argv == ["apply"] else show)(policies, lib)
    except (nvml.Failed, ValueError) as problem:
        wrong = [str(problem)]
    for line in wrong:
        say(line)
    return 1 if wrong else 0


def entry() -> None:
    sys.exit(main(sys.argv[1:]))
