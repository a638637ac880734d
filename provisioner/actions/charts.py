"""The steps of `provision charts`: lock, matrix and the provider's settings → the files of a network's cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from provisioner.errors import BadInput
from provisioner.matrix.entries import Chart, Deployment, Network, OfferedGpu
from provisioner.matrix.reader import Matrix
from provisioner.model.stack import HostLock, Lock
from provisioner.model.version import DottedVersion
from provisioner.networks import akash
from provisioner.resolve.options import network_named

NETWORK = "akash"


def settings_of(path: str, value: Any) -> akash.Settings:
    """Return the settings of a file. Raises BadInput with every complaint."""
    try:
        return akash.Settings.model_validate(value if value is not None else {})
    except ValidationError as problem:
        told = [f"{'.'.join(str(part) for part in one['loc']) or path}: {one['msg']}" for one in problem.errors()]
        raise BadInput(
            "settings-not-valid", f"{path}: {told[0]}", context=told[1:8], hint="docs/networks/akash.md has an example"
        ) from problem


def charts(lock: Lock, hosts: Sequence[str], matrix: Matrix, settings: akash.Settings) -> dict[str, str]:
    """Return the files for the cluster of these hosts; none named: of all that serve Akash. Raises BadInput."""
    serving = {name: lock.hosts[name] for name in _chosen(lock, hosts)}
    network = matrix.networks[NETWORK]
    if network.deployment is None:
        raise BadInput("no-deployment", f"the matrix in use does not say what {NETWORK} puts into a cluster")
    client = _one("client", {name: entry.networks[NETWORK].value for name, entry in serving.items()})
    profile = _one("way to serve", {name: _profile(entry, matrix) for name, entry in serving.items()})
    _known_chart(settings, network.deployment)
    host_driver = profile != "gpu-operator"
    return akash.files(
        akash.Wanted(
            settings=settings,
            nodes=tuple(_node(name, entry, network.deployment, settings) for name, entry in serving.items()),
            releases=tuple(
                _release(chart, client, settings)
                for chart in network.deployment.charts
                if chart.profile in (None, profile)
            ),
            namespaces=network.deployment.namespaces,
            node_labels=network.deployment.node_labels if host_driver else {},
            runtime_class=network.deployment.runtime_class if host_driver else None,
            cuda=_cuda(serving) if host_driver else None,
            kubernetes=_kubernetes(network),
        )
    )


def _chosen(lock: Lock, hosts: Sequence[str]) -> list[str]:
    every = [name for name, entry in lock.hosts.items() if NETWORK in entry.networks]
    for name in hosts:
        if name not in lock.hosts:
            raise BadInput("unknown-host", f"the lock has no {name}", hint="provision resolve locks a host")
        if name not in every:
            raise BadInput("does-not-serve", f"{name} does not serve {NETWORK}, says the lock")
    if not every:
        raise BadInput("does-not-serve", f"no host of the lock serves {NETWORK}", hint="provision_networks: [akash]")
    return list(dict.fromkeys(hosts)) or every


def _one(what: str, found: Mapping[str, str]) -> str:
    """What all hosts of one cluster have. Raises BadInput when they differ."""
    kinds = sorted(set(found.values()))
    if len(kinds) > 1:
        told = [f"{kind}: {', '.join(sorted(name for name in found if found[name] == kind))}" for kind in kinds]
        raise BadInput(
            "cluster-differs",
            f"these hosts can't share a cluster: their {what} differs",
            context=told,
            hint="name the hosts of one cluster: provision charts akash HOST…",
        )
    return kinds[0]


def _profile(entry: HostLock, matrix: Matrix) -> str:
    for named in entry.intent.networks:
        network, profile, _ = network_named(named, matrix)
        if network.id == NETWORK:
            default = network.default_profile
            return profile or (default.id if default is not None else "")
    return ""


def _known_chart(settings: akash.Settings, deployment: Deployment) -> None:
    known = sorted({chart.chart for chart in deployment.charts})
    for name in settings.charts:
        if name not in known:
            raise BadInput("unknown-chart", f"charts: {name} is none of {', '.join(known)}")


def _release(chart: Chart, client: str, settings: akash.Settings) -> akash.Release:
    """A chart carries one version of the client; for another one somebody has to say which chart carries it."""
    version = settings.charts.get(chart.chart, chart.version)
    if chart.client not in (None, client) and chart.chart not in settings.charts:
        raise BadInput(
            "chart-not-known",
            f"the lock has client {client}, and {chart.chart} {chart.version} carries {chart.client}",
            context=(f"which version of {chart.chart} carries {client} is not in the matrix",),
            hint=f"helm search repo {chart.chart} --versions, then charts: {{{chart.chart}: VERSION}} in the settings",
        )
    return akash.Release(
        name=chart.release,
        namespace=chart.namespace,
        chart=chart.chart,
        repository=chart.repository,
        version=version,
        client=client if chart.client is not None else None,
        first_install=chart.first_install,
        values=chart.values,
    )


def _node(host: str, entry: HostLock, deployment: Deployment, settings: akash.Settings) -> akash.Node:
    name = settings.nodes.get(host, host)
    if not akash.safe_node_name(name):
        raise BadInput(
            "node-name", f"{host} can't be the name of a node", hint=f"nodes: {{{host}: NAME}} in the settings"
        )
    return akash.Node(host, name, tuple(_gpu(host, model, deployment, settings) for model in entry.gpus))


def _gpu(host: str, model: str, deployment: Deployment, settings: akash.Settings) -> akash.Gpu:
    known: akash.OwnGpu | OfferedGpu | None = settings.gpus.get(model) or deployment.gpus.get(model)
    if known is None:
        raise BadInput(
            "gpu-not-named",
            f"{host}: how Akash's list calls a {model} is not in the matrix",
            context=("devices/pcie/gpus.json of provider-configs goes by PCI ids, and may have it under another name",),
            hint=f"look it up there; then in the settings, gpus: {{{model}: {{name: …, interface: pcie, ram: …Gi}}}}",
        )
    return akash.Gpu(known.name, known.interface, known.ram)


def _cuda(serving: Mapping[str, HostLock]) -> str | None:
    """The level that every host of the cluster carries."""
    levels = [entry.cuda.value for entry in serving.values() if entry.cuda is not None]
    return min(levels, key=lambda level: DottedVersion(level)) if len(levels) == len(serving) else None


def _kubernetes(network: Network) -> str | None:
    for profile in network.profiles:
        for requirement in profile.requirements:
            if requirement.kubernetes is not None and requirement.kubernetes.version is not None:
                return requirement.kubernetes.version.text
    return None
