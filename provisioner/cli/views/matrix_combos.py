"""How combinations to rehearse look: a table, JSON, the matrix of a GitHub workflow, platforms of Molecule."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import yaml

from provisioner.errors import BadInput
from provisioner.resolve.combos import NO_DRIVER, Combo, Upgrade, Upgrades

FORMAT = 1
MOST_JOBS = 256
"""A matrix of GitHub Actions generates at most so many jobs per workflow run."""
MOST_HOST_NAME = 40
"""A lab host's name has at most so many characters."""
_COLUMNS = ("OS", "GPU", "DRIVER", "MODULES", "RUNTIME", "NETWORKS", "HOSTS")


def covering_words(rows: int, strength: int) -> str:
    what = {2: "pair", 3: "triple"}[strength]
    return f"every {what} of values that fits stands in one of them; {rows} combinations fit in all"


def combos_as(form: str, combos: Sequence[Combo], about: str) -> str:
    names = _unique([combo.name for combo in combos])
    if form == "json":
        listed = [{"name": name, **_fields(combo)} for name, combo in zip(names, combos, strict=True)]
        return _json({"format": FORMAT, "combos": listed})
    if form == "github":
        return _github([{"name": name, **_flat(combo)} for name, combo in zip(names, combos, strict=True)])
    if form == "molecule":
        return _molecule(names, [_variables(combo) for combo in combos])
    fleet = any(combo.hosts for combo in combos)
    head = f"{len(combos)} combination{'' if len(combos) == 1 else 's'}: {about}\n"
    if not combos:
        return head
    columns = _COLUMNS if fleet else _COLUMNS[:-1]
    return head + "\n" + _table([columns, *(_cells(combo)[: len(columns)] for combo in combos)])


def upgrades_as(form: str, upgrades: Upgrades) -> str:
    pairs = upgrades.pairs
    names = _unique([_upgrade_name(pair) for pair in pairs])
    if form == "json":
        listed = [
            {"name": name, "from": _fields(pair.before), "to": _fields(pair.after), "hosts": list(pair.hosts)}
            for name, pair in zip(names, pairs, strict=True)
        ]
        rest = {name: list(getattr(upgrades, name)) for name in ("unchanged", "only_before", "only_after")}
        return _json({"format": FORMAT, "upgrades": listed, **rest})
    if form == "github":
        return _github(
            [
                {"name": name, "from": _flat(pair.before), "to": _flat(pair.after)}
                for name, pair in zip(names, pairs, strict=True)
            ]
        )
    if form == "molecule":
        return _molecule(names, [_variables(pair.before) | {"upgrade_to": _variables(pair.after)} for pair in pairs])
    same = len(upgrades.unchanged)
    lines = [
        f"{len(pairs)} upgrade{'' if len(pairs) == 1 else 's'} to rehearse, "
        f"{same} host{'' if same == 1 else 's'} unchanged"
    ]
    for pair in pairs:
        lines += ["", f"{pair.after.os}  {' '.join(pair.after.gpus) or 'no GPU'}    {_hosts(pair.hosts)}"]
        lines += [f"  {_moved(pair)}"]
    for words, left in (("only in the first lock", upgrades.only_before), ("only in the second", upgrades.only_after)):
        if left:
            lines += ["", f"{words}: {_hosts(left)}"]
    return "\n".join(lines) + "\n"


def _moved(pair: Upgrade) -> str:
    """What differs, in words; where the names agree, it is package or client versions."""
    before, after = _cells(pair.before), _cells(pair.after)
    moved = [
        f"{title.lower()} {old or 'none'} → {new or 'none'}"
        for title, old, new in zip(_COLUMNS[:-1], before, after, strict=False)
        if old != new
    ]
    return " · ".join(moved) or "versions of packages or clients alone"


def _upgrade_name(pair: Upgrade) -> str:
    to = pair.after.driver if pair.after.driver != pair.before.driver else pair.after.branch
    return f"{pair.before.name}-to-{to.replace('.', '-')}"


def _cells(combo: Combo) -> tuple[str, ...]:
    driver = combo.driver or "none on the host"
    return (
        combo.os,
        " ".join(combo.gpus) or "none",
        driver,
        "" if combo.modules == NO_DRIVER else combo.modules,
        combo.runtime,
        ", ".join(combo.networks),
        _hosts(combo.hosts),
    )


def _hosts(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _fields(combo: Combo) -> dict[str, Any]:
    return {
        "os": combo.os,
        "architectures": list(combo.architectures),
        "gpus": list(combo.gpus),
        "branch": None if combo.branch == NO_DRIVER else combo.branch,
        "modules": None if combo.modules == NO_DRIVER else combo.modules,
        "driver": combo.driver or None,
        "runtime": combo.runtime,
        "networks": list(combo.networks),
        "hosts": list(combo.hosts),
    }


def _flat(combo: Combo) -> dict[str, Any]:
    """Texts alone: a step of a workflow takes `${{ matrix.networks }}` as it stands."""
    found = {key: ",".join(v) if isinstance(v, list) else v or "" for key, v in _fields(combo).items()}
    found.pop("hosts")
    return found | ({"hosts": len(combo.hosts)} if combo.hosts else {})


def _variables(combo: Combo) -> dict[str, Any]:
    """The combination as variables of the inventory: `provision resolve` on such a host gives this stack."""
    found: dict[str, Any] = {"provision_networks": list(combo.networks), "provision_runtime": combo.runtime}
    if combo.driver:
        found |= {"provision_driver": combo.driver, "provision_modules": combo.modules}
    return found | {"lab_os": combo.os, "lab_gpus": list(combo.gpus)}


def _github(include: Sequence[dict[str, Any]]) -> str:
    if len(include) > MOST_JOBS:
        raise BadInput(
            "combos-too-many-jobs",
            f"{len(include)} jobs are more than the {MOST_JOBS} that one GitHub workflow takes",
            hint="--pairwise needs fewer than --all; --only network=akash,lium or --only os=debian-12 narrows either",
        )
    return json.dumps({"include": list(include)}, ensure_ascii=False, separators=(",", ":")) + "\n"


def _molecule(names: Sequence[str], variables: Sequence[dict[str, Any]]) -> str:
    """`platforms` and host variables for `molecule --base-config FILE test -s combos`, which starts them in the lab."""
    names = [_host_name(name) for name in names]
    content = {
        "platforms": [{"name": name, "groups": ["rigs"]} for name in names],
        "provisioner": {
            "name": "ansible",
            "inventory": {"host_vars": dict(zip(names, variables, strict=True))},
        },
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)


def _host_name(name: str) -> str:
    """A name that the lab takes for a host; of a longer one the beginning, and a digest that tells it from others."""
    if len(name) <= MOST_HOST_NAME:
        return name.replace(".", "-")
    return f"{name[: MOST_HOST_NAME - 7].replace('.', '-').rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _unique(names: Sequence[str]) -> list[str]:
    """Two combinations can differ in what their name does not say; the later ones get a number."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return found


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
