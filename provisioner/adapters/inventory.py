"""Reads an ordinary Ansible inventory through Ansible itself, and the intent that stands in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from provisioner.adapters import ansible_inventory
from provisioner.adapters.ansible_inventory import PREFIX
from provisioner.adapters.paths import overlaid
from provisioner.errors import BadInput
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost

LOCAL_INTENT = ("provision.yml", "/etc/provision/provision.yml")
_KNOWN = {PREFIX + name for name in Intent.model_fields}
_SECRETS = {"provision_tunnel_preshared", "provision_tunnel_secret"}
"""Variables that only a run reads, from a vault: their values are no part of the request, and get into no lock."""


def read(sources: tuple[str, ...], limit: str | None = None) -> tuple[InventoryHost, ...]:
    """Return the hosts of `sources` in inventory order, or the machine itself when there is no source.

    Raises BadInput when a source cannot be parsed, a pattern matches nothing, or an intent is not valid.
    """
    if not sources:
        return (_this_machine(),)
    return typed(sources, ansible_inventory.read(sources, limit))


def typed(sources: tuple[str, ...], hosts: Iterable[ansible_inventory.Raw]) -> tuple[InventoryHost, ...]:
    """Return the hosts with their intent read. Raises BadInput when an intent is not valid."""
    return tuple(
        overlaid(
            InventoryHost(name, variables, intent_of(name, variables, _Origin(sources, name, groups)), groups, hubs)
        )
        for name, variables, groups, hubs in hosts
    )


def _this_machine() -> InventoryHost:
    """The rig's owner runs provision on the rig: no inventory, a local connection, intent in a file of variables."""
    import socket

    from provisioner.adapters.yaml_files import read_yaml

    variables: dict[str, Any] = {"ansible_connection": "local"}
    origin = "this machine (no provision.yml here or in /etc/provision)"
    for candidate in LOCAL_INTENT:
        if Path(candidate).is_file():
            origin = candidate
            loaded = read_yaml(Path(candidate))
            if not isinstance(loaded, Mapping):
                raise BadInput("intent-not-valid", f"{candidate} must be a mapping of provision_ variables")
            variables |= {str(key): value for key, value in loaded.items()}
            break
    name = socket.gethostname()
    return InventoryHost(name, variables, intent_of(name, variables, lambda _key: origin))


class _Origin:
    """Finds the file in which a variable of a host was most likely written, so that an error can name it."""

    def __init__(self, sources: Iterable[str], host: str, groups: tuple[str, ...]) -> None:
        self._candidates = list(_variable_files(sources, host, groups))

    def __call__(self, key: str) -> str:
        wanted = re.compile(rf"""^\s*["']?{re.escape(key)}["']?\s*[:=]|\s{re.escape(key)}=""", re.MULTILINE)
        for path in self._candidates:
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            found = wanted.search(text)
            if found:
                return f"{path}:{text.count(chr(10), 0, found.end()) + 1}"
        return "the inventory"


def _variable_files(sources: Iterable[str], host: str, groups: tuple[str, ...]) -> Iterable[Path]:
    """In Ansible's order of precedence, strongest first: host_vars, group_vars, the sources themselves."""
    roots = [Path(s) if Path(s).is_dir() else Path(s).parent for s in sources if "," not in s]
    for folder, names in (("host_vars", (host,)), ("group_vars", tuple(reversed(groups)))):
        for root in roots:
            for name in names:
                base = root / folder / name
                for suffix in ("", ".yml", ".yaml", ".json"):
                    path = base.with_name(base.name + suffix)
                    if path.is_file():
                        yield path
                if base.is_dir():
                    yield from sorted(p for p in base.rglob("*") if p.is_file())
    for source in sources:
        path = Path(source)
        if path.is_file():
            yield path
        elif path.is_dir():
            yield from sorted(p for p in path.iterdir() if p.is_file())


def intent_of(host: str, variables: Mapping[str, Any], origin: Any) -> Intent:
    """Read the `provision_` variables of a host; `origin(key)` says where a key was written.

    Raises BadInput that names file, key and the nearest known key.
    """
    given = {key: value for key, value in variables.items() if key.startswith(PREFIX) and key not in _SECRETS}
    for key in given:
        if key not in _KNOWN:
            near = difflib.get_close_matches(key, sorted(_KNOWN), n=1)
            raise BadInput(
                "intent-unknown-key",
                f"{host}: {key} is not a variable that provision knows",
                context=[f"written in {origin(key)}", "known: " + ", ".join(sorted(_KNOWN | _SECRETS))],
                hint=f"did you mean {near[0]}?" if near else None,
            )
    try:
        return Intent.model_validate({key[len(PREFIX) :]: value for key, value in given.items()})
    except ValidationError as problem:
        first = problem.errors()[0]
        key = PREFIX + str(first["loc"][0]) if first["loc"] else PREFIX
        path = ".".join([key, *(str(part) for part in first["loc"][1:])])
        raise BadInput(
            "intent-not-valid",
            f"{host}: {path}: {first['msg'].lower()}",
            context=[f"written in {origin(key)}", f"value {first.get('input')!r}"[:200]],
            hint="docs/reference/intent.md lists every provision_ variable with an example",
        ) from problem
