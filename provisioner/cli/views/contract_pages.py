"""Markdown of what each network's client needs of its operator: one table, and a checklist for each network."""

from __future__ import annotations

from collections.abc import Iterator

from provisioner.cli.views.marks import cell, marked
from provisioner.matrix.entries import Contract, Network
from provisioner.matrix.reader import Matrix
from provisioner.model.requirements import requirements

_INTRO = """# Networks and their clients

Written by `provision matrix reference` from the files of `matrix/`; don't edit it by hand.

Every network has its gate, its drain and its watchdog; they differ in who installs and starts the client. *Not read*
means that no source of ours says it, not that there is none. What a network requires of a host, with sources:
[networks](networks.md). What stands behind a box is yours to do.

| Means | |
| --- | --- |
| node | Kubernetes runs the client behind the gate of its node; `provision charts` writes what helm takes |
| commands | its command line, in an environment of its own, every file by its hash; what serves you install yourself |
| container | `provision_clients` runs its containers, by digest ([clients](../clients.md)) |
| starter | you install it; a file of yours starts it behind the gate ([serve](../../guide/serve.md)) |
| no | it owns the host, or runs on no Linux: nothing here starts it |
"""

MEANS = {"container": "container", "compose": "container", "helm": "node"}
NOT_HERE = {"desktop": "no", "vm-image": "no"}


def contracts_page(matrix: Matrix) -> str:
    """Return the page docs/reference/matrix/contracts.md."""
    networks = [network for network in matrix.networks.values() if network.contract is not None]
    lines = [_INTRO]
    lines += ["| Network | Client | Means | Healthy | A job is | Drain |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(_row(network, network.contract))} |" for network in networks if network.contract]
    for network in networks:
        if network.contract is not None:
            lines += ["", f"## {network.id}", "", *_checklist(network, network.contract)]
    return "\n".join(lines) + "\n"


def means(network: Network, contract: Contract) -> str:
    """Who installs and starts the client here: a word of the page's table."""
    if contract.cluster is not None:
        return "node"
    if requirements(network.id) is not None:
        return "commands"
    kind = contract.install.kind
    return NOT_HERE.get(kind, MEANS.get(kind, "starter"))


def _row(network: Network, contract: Contract) -> Iterator[str]:
    yield f"[{network.id}](#{network.id})"
    clients = [f"{one.name} {one.versions[0].version}" if one.versions else one.name for one in network.clients]
    yield cell(", ".join(clients) or "not read")
    yield means(network, contract)
    yield cell({"unknown": "not read", "page": "its page alone"}.get(contract.healthy.kind, contract.healthy.kind))
    jobs = {"unknown": "not seen from the host", "gpu-processes": "a compute process", "pods": "a tenant's pod"}
    yield cell(contract.busy.containers or jobs[contract.busy.kind])
    drain = contract.drain
    yield cell(("none known" if drain.kind == "none" else drain.kind) + (", by hand" if drain.by_hand else ""))


def _checklist(network: Network, contract: Contract) -> Iterator[str]:
    """Yield the duties in the order of a rig's life; what is done by hand has a box."""
    yield f"**{cell(network.title)}**, {means(network, contract)}"
    yield ""
    for secret in network.secrets:
        yield f"- [ ] secret: {marked(secret.name)}" + (f" ({marked(secret.where)})" if secret.where else "")
    word = means(network, contract)
    ours = word in ("node", "container") or (word == "commands" and contract.install.kind == "python")
    yield f"- {_box(not ours)}install: {marked(contract.install.how)}"
    yield f"- start: {marked(contract.start.how)}"
    yield f"- healthy: {marked(contract.healthy.how)}" + (f" `{contract.healthy.url}`" if contract.healthy.url else "")
    yield f"- a job: {marked(contract.busy.how)}"
    yield f"- {_box(contract.drain.by_hand)}drain: {marked(contract.drain.how)}"
    if contract.drain.penalty is not None:
        yield f"  - what it may cost all the same: {marked(contract.drain.penalty)}"
    for name in ("resume", "deregister", "upgrade"):
        duty = getattr(contract, name)
        yield f"- {_box(duty.by_hand)}{name}: {marked(duty.how)}"
    if network.gaps:
        yield f"- not read: {marked(', '.join(network.gaps))}"


def _box(by_hand: bool) -> str:
    return "[ ] " if by_hand else ""
