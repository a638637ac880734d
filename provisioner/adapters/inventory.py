"""Reads an ordinary Ansible inventory through Ansible itself, and the intent that stands in it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from provisioner.errors import BadInput
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost

PREFIX = "provision_"
LOCAL_INTENT = ("provision.yml", "/etc/provision/provision.yml")
_NOT_THE_HOSTS = {"groups", "ansible_facts", "ansible_version", "ansible_playbook_python", "playbook_dir"}
_KNOWN = {PREFIX + name for name in Intent.model_fields}


def read(sources: tuple[str, ...], limit: str | None = None) -> tuple[InventoryHost, ...]:
    """Return the hosts of `sources` in inventory order, or the machine itself when there is no source.

    Raises BadInput when a source cannot be parsed, a pattern matches nothing, or an intent is not valid.
    """
    if not sources:
        return (_this_machine(),)
    for source in sources:
        if "," not in source and not Path(source).exists():
            raise BadInput(
                "inventory-not-found",
                f"there is no inventory at {source}",
                hint="give a file or folder that ansible-inventory -i takes, or none for this machine itself",
            )
    return _through_ansible(sources, limit)


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


def _through_ansible(sources: tuple[str, ...], limit: str | None) -> tuple[InventoryHost, ...]:
    # An inventory that Ansible cannot parse must stop us; by default Ansible warns and goes on with no hosts.
    os.environ.setdefault("ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED", "true")
    os.environ.setdefault("ANSIBLE_LOCALHOST_WARNING", "false")
    from ansible.errors import AnsibleError
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.vars.manager import VariableManager

    loader = DataLoader()
    try:
        _vault(loader)
        inventory = InventoryManager(loader=loader, sources=list(sources))
        if limit:
            inventory.subset(limit)
        found = inventory.get_hosts()
        if not found:
            raise BadInput(
                "no-host",
                f"no host matches --limit {limit}" if limit else f"no host in {', '.join(sources)}",
                hint="ansible-inventory -i " + " -i ".join(sources) + " --graph shows what is there",
            )
        variable_manager = VariableManager(loader=loader, inventory=inventory)
        hosts = []
        for host in found:
            seen = variable_manager.get_vars(host=host, include_hostvars=False)
            # `groups` lists the whole fleet once per host; a thousand hosts would carry a million names.
            variables = _plain({key: value for key, value in seen.items() if key not in _NOT_THE_HOSTS})
            variables = {**_settings(), **_templated(loader, variables)}
            groups = tuple(sorted(group.name for group in host.get_groups()))
            origin = _Origin(sources, host.name, groups)
            hosts.append(InventoryHost(host.name, variables, intent_of(host.name, variables, origin), groups))
        return tuple(hosts)
    except AnsibleError as problem:
        raise BadInput(
            "inventory-not-valid",
            f"the inventory {', '.join(sources)} cannot be read",
            context=[line for line in str(problem).splitlines() if line.strip()][:6],
            hint="ansible-inventory -i " + " -i ".join(sources) + " --list must work first",
        ) from problem


def _vault(loader: Any) -> None:
    """Hand Ansible the vault secrets it would use itself (ansible.cfg or ANSIBLE_VAULT_PASSWORD_FILE)."""
    from ansible import constants

    files = [constants.DEFAULT_VAULT_PASSWORD_FILE] if constants.DEFAULT_VAULT_PASSWORD_FILE else []
    identities = list(constants.DEFAULT_VAULT_IDENTITY_LIST or [])
    if files or identities:
        from ansible.cli import CLI

        loader.set_vault_secrets(
            CLI.setup_vault_secrets(loader, vault_ids=identities, vault_password_files=files, auto_prompt=False)
        )


def _settings() -> dict[str, Any]:
    """What the operator's ansible.cfg or environment says about logging in, as the variables that mean the same."""
    from ansible import constants

    said = {
        "ansible_user": constants.DEFAULT_REMOTE_USER,
        "ansible_ssh_private_key_file": constants.DEFAULT_PRIVATE_KEY_FILE,
        "ansible_become": constants.DEFAULT_BECOME or None,
        "ansible_become_user": constants.DEFAULT_BECOME_USER if constants.DEFAULT_BECOME else None,
        "ansible_become_method": constants.DEFAULT_BECOME_METHOD if constants.DEFAULT_BECOME else None,
    }
    return {key: value for key, value in said.items() if value is not None}


def _plain(value: Any) -> Any:
    """Ansible's tagged strings, lazy lists and vault values as plain ones."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str(value)
    return value


def _templated(loader: Any, variables: dict[str, Any]) -> dict[str, Any]:
    """Resolve Jinja expressions in the variables that provision reads; the others stay as they are."""
    mine = {k: v for k, v in variables.items() if k.startswith((PREFIX, "ansible_")) and "{{" in repr(v)}
    if not mine:
        return variables
    from ansible.template import Templar

    templar = Templar(loader=loader, variables=variables)
    try:
        from ansible.template import (
            trust_as_template,  # since ansible-core 2.19 only trusted text is a template
        )
    except ImportError:

        def trust_as_template(value: Any) -> Any:
            return value

    def render(value: Any) -> Any:
        if isinstance(value, str):
            return templar.template(trust_as_template(value)) if "{{" in value else value
        if isinstance(value, Mapping):
            return {key: render(item) for key, item in value.items()}
        if isinstance(value, list):
            return [render(item) for item in value]
        return value

    return variables | {key: _plain(render(value)) for key, value in mine.items()}


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
    given = {key: value for key, value in variables.items() if key.startswith(PREFIX)}
    for key in given:
        if key not in _KNOWN:
            near = difflib.get_close_matches(key, sorted(_KNOWN), n=1)
            raise BadInput(
                "intent-unknown-key",
                f"{host}: {key} is not a variable that provision knows",
                context=[f"written in {origin(key)}", "known: " + ", ".join(sorted(_KNOWN))],
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
