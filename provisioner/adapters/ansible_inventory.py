"""The part of reading an inventory that Ansible does, alone: importing Ansible takes as long as all the rest of a look.

`start` lets another process do it while the caller imports what it needs itself; on two cores that halves the start of
`provision plan`. What comes back are plain names, variables and groups.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from provisioner.adapters.path_files import stored
from provisioner.errors import BadInput

PREFIX = "provision_"
_NOT_THE_HOSTS = {"groups", "ansible_facts", "ansible_version", "ansible_playbook_python", "playbook_dir", "omit"}


class Raw(NamedTuple):
    """A host as Ansible knows it."""

    name: str
    variables: dict[str, Any]
    groups: tuple[str, ...]
    hubs: dict[str, dict[str, Any]] = {}  # noqa: RUF012  # a NamedTuple's default, never written to


def start(sources: tuple[str, ...], limit: str | None) -> Callable[[], list[Raw]]:
    """Begin to read in a process of its own and return what waits for the answer; that raises BadInput as `read`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "provisioner.adapters.ansible_inventory"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(pickle.dumps((sources, limit)))
    process.stdin.close()

    def wait() -> list[Raw]:
        assert process.stdout is not None
        answer = process.stdout.read()
        if process.wait() != 0:
            # Whatever ended it, the plain way says what is wrong in its own words.
            return read(sources, limit)
        return [Raw(*host) for host in pickle.loads(answer)]

    return wait


def read(sources: tuple[str, ...], limit: str | None) -> list[Raw]:
    """Return the hosts in inventory order. Raises BadInput when a source cannot be parsed or nothing matches."""
    for source in sources:
        if "," not in source and not Path(source).exists():
            raise BadInput(
                "inventory-not-found",
                f"there is no inventory at {source}",
                hint="give a file or folder that ansible-inventory -i takes, or none for this machine itself",
            )
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
            hosts.append(Raw(host.name, variables, tuple(sorted(group.name for group in host.get_groups()))))
        return _with_hubs(hosts, inventory, loader, variable_manager)
    except AnsibleError as problem:
        raise BadInput(
            "inventory-not-valid",
            f"the inventory {', '.join(sources)} cannot be read",
            context=[line for line in str(problem).splitlines() if line.strip()][:6],
            hint="ansible-inventory -i " + " -i ".join(sources) + " --list must work first",
        ) from problem


def _with_hubs(hosts: list[Raw], inventory: Any, loader: Any, variable_manager: Any) -> list[Raw]:
    """The hosts with how their hubs are reached, which --limit may leave out: a hub is the way to its spokes."""
    known: dict[str, dict[str, Any]] = {}
    found = []
    for host in hosts:
        wish = host.variables.get(f"{PREFIX}tunnel")
        names = {str(wish["hub"])} if isinstance(wish, Mapping) and wish.get("hub") else set()
        if names:
            with contextlib.suppress(ValueError):
                names.add(str(stored(host.name).get("hub") or ""))
        for name in names - set(known):
            for hub in inventory.get_hosts(name, ignore_limits=True, ignore_restrictions=True) if name else ():
                seen = variable_manager.get_vars(host=hub, include_hostvars=False)
                plain = _plain({key: value for key, value in seen.items() if key.startswith("ansible_")})
                known[hub.name] = {**_settings(), **_templated(loader, plain)}
        found.append(host._replace(hubs={name: known[name] for name in names if name in known}))
    return found


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


def _aside() -> None:
    sources, limit = pickle.load(sys.stdin.buffer)
    answer = pickle.dumps([tuple(host) for host in read(sources, limit)])
    sys.stdout.buffer.write(answer)
    sys.stdout.flush()


if __name__ == "__main__":
    gc.disable()  # this process lives for half a second; looking for cycles while Ansible is imported costs a tenth
    try:
        _aside()
    except (BadInput, KeyboardInterrupt, BrokenPipeError):  # told by who asked, or nobody asks any more
        os._exit(1)
