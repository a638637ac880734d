"""Reads and rewrites `matrix/cases/`: a host and a request in a few lines, and the answer that is expected.

After a change of the matrix or of wording: `python tests/resolve/cases.py` writes every expected answer anew,
for `git diff` to show and a person to judge.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import worlds
import yaml

from provisioner.matrix.reader import Matrix
from provisioner.model.capture import UNKNOWN
from provisioner.model.facts import HostFacts
from provisioner.model.intent import Intent
from provisioner.model.paths import data_dir
from provisioner.model.stack import HostLock
from provisioner.resolve import NoSolution, explain, solve

HOST_KEYS = {
    "os", "gpus", "suites", "components", "installed", "loaded", "kernel", "next_boot", "memory_gib",
    "secure_boot", "unseen", "vendor",
}  # fmt: skip


def files() -> list[Path]:
    return sorted(data_dir("matrix").joinpath("cases").glob("*.yaml"))


def facts(case: dict[str, Any]) -> HostFacts:
    """The host that a case describes. A key that is not known is an error, so that no wish is silently ignored."""
    given = dict(case["host"])
    unknown = set(given) - HOST_KEYS
    if unknown:
        raise ValueError(f"unknown keys of host: {', '.join(sorted(unknown))}")
    unseen = given.pop("unseen", [])
    os, gpus = given.pop("os"), given.pop("gpus", [])
    for key in ("suites", "components"):
        if key in given:
            given[key] = tuple(given[key])
    described = worlds.host(os, *gpus, **given)
    return dataclasses.replace(described, **dict.fromkeys(unseen, UNKNOWN)) if unseen else described


def intent(case: dict[str, Any]) -> Intent:
    return Intent.model_validate(case.get("request", {}))


def answer(case: dict[str, Any], matrix: Matrix) -> HostLock | NoSolution:
    """Solve what a case describes."""
    return solve(facts(case), intent(case), matrix)


def told(found: HostLock | NoSolution) -> dict[str, Any]:
    """The part of an answer that a case states: the stack in a few lines, or the whole explanation."""
    if isinstance(found, NoSolution):
        return {"explanation": explain.no_solution(found.host, found)}
    stack: dict[str, Any] = {}
    for key in ("driver_version", "modules", "cuda", "runtime"):
        choice = getattr(found, key)
        stack[key.removesuffix("_version")] = choice.value if choice is not None else None
    for key in ("compat", "toolkit", "cdi"):  # what most hosts do not have is left out
        if getattr(found, key) is not None:
            stack[key] = getattr(found, key).value
    stack["networks"] = {name: choice.value for name, choice in found.networks.items()}
    stack["driver_package"] = next(
        (f"{p.name} {p.version}" for p in found.packages if p.unit == "driver" and p.name.endswith("-dkms")), None
    )
    stack["kernels"] = list(found.kernels)
    stack["warnings"] = list(found.warnings)
    return {"stack": stack}


class _Text(str):
    """Long text that is written as a block, line by line."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Text, _block)


def written(case: dict[str, Any], expected: dict[str, Any]) -> str:
    """A case file: its title as the first line, then host, request and the answer."""
    if "explanation" in expected:
        expected = {"explanation": _Text(expected["explanation"])}
    body = {key: case[key] for key in ("host", "request") if key in case} | {"expected": expected}
    return f"# {case['title']}\n" + yaml.dump(
        {"title": case["title"], **body}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000
    )


def main() -> int:
    matrix = worlds.matrix()
    for path in files():
        case = yaml.safe_load(path.read_text(encoding="utf-8"))
        path.write_text(written(case, told(answer(case, matrix))), encoding="utf-8")
    print(f"{len(files())} cases written; git diff matrix/cases shows what changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
