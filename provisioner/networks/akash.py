"""Akash's pieces in a Kubernetes cluster, as files that kubectl and helm take. Pure text; nothing secret is in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

KEYS = "/etc/provision/secrets/akash.keys"
"""The second values file of the provider: `key` and `keysecret`, written by provision_secrets."""

_Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
_Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$", max_length=200)]
_Price = Annotated[float, Field(ge=0, le=1e9)]


class OwnGpu(BaseModel):
    """How Akash's list calls a card that the matrix does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+$")]
    interface: Annotated[str, StringConstraints(pattern=r"^(pcie|sxm)$")]
    ram: Annotated[str, StringConstraints(pattern=r"^\d+Gi$")]


class Settings(BaseModel):
    """What only the provider knows; the file of `provision charts akash --settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Annotated[str, StringConstraints(pattern=r"^akash1[a-z0-9]{38,58}$")] = Field(
        description="of the provider's account"
    )
    domain: _Word = Field(description="provider.DOMAIN and *.ingress.DOMAIN lead to the cluster")
    organization: _Line
    email: _Line | None = None
    website: _Line | None = None
    attributes: dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9/_.-]*$")], _Line] = Field(
        default={}, description="more attributes, such as region: us-west"
    )
    node: _Line | None = Field(default=None, description="RPC node; default the one in the cluster")
    prices: dict[Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]*$")], _Price] = Field(
        default={}, description="cpu, memory, hd_ephemeral …: price_target_ of the chart"
    )
    gpu_prices: dict[Annotated[str, StringConstraints(pattern=r"^([a-z0-9]+|\*)$")], _Price] = Field(
        default={}, description="model → price; *: any other"
    )
    reclamation: Annotated[str, StringConstraints(pattern=r"^[1-9]\d*h$")] | None = Field(
        default=None, description="notice that a tenant may ask for, 1h or more; none: not offered"
    )
    storage_class: Annotated[str, StringConstraints(pattern=r"^beta[123]$")] | None = Field(
        default=None, description="class of persistent storage, where the cluster has one"
    )
    gpus: dict[_Word, OwnGpu] = Field(default={}, description="id of the model → how Akash's list calls it")
    nodes: dict[str, _Word] = Field(default={}, description="host → name of its node, where that is another one")
    charts: dict[str, Annotated[str, StringConstraints(pattern=r"^v?\d+\.\d+\.\d+\S*$")]] = Field(
        default={}, description="chart → version, for a client whose charts the matrix does not name"
    )

    @field_validator("attributes")
    @classmethod
    def _not_ours(cls, value: dict[str, str]) -> dict[str, str]:
        ours = [key for key in value if key.startswith("capabilities/gpu") or key in ("cuda", "organization")]
        if ours:
            raise ValueError(f"{', '.join(sorted(ours))}: that is taken from the lock and from the other settings")
        return value


@dataclass(frozen=True)
class Release:
    """A Helm release; `client` is the version of the client that it carries, None: none."""

    name: str
    namespace: str
    chart: str
    repository: str
    version: str
    client: str | None = None
    first_install: bool = False
    values: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Gpu:
    """A card as Akash's list calls it."""

    name: str
    interface: str
    ram: str


@dataclass(frozen=True)
class Node:
    """A host of the cluster, by the name that its node has."""

    host: str
    name: str
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True)
class Wanted:
    """Everything that the files are made from."""

    settings: Settings
    nodes: tuple[Node, ...]
    releases: tuple[Release, ...]
    namespaces: Mapping[str, Mapping[str, str]]
    node_labels: Mapping[str, str]
    runtime_class: str | None
    cuda: str | None
    kubernetes: str | None
    """What the network's own playbook installs, for the page."""


def files(wanted: Wanted) -> dict[str, str]:
    """Return relative path → text; the same for the same wish, whatever the order that it came in."""
    texts = {
        "namespaces.yaml": _yaml(*(_namespace(name, wanted.namespaces[name]) for name in sorted(wanted.namespaces)))
    }
    if wanted.runtime_class is not None:
        name = wanted.runtime_class
        made = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": name}
        texts["runtime-class.yaml"] = _yaml(made)
    for node in _labelled(wanted):
        texts[f"nodes/{node.name}.yaml"] = _yaml({"metadata": {"labels": dict(wanted.node_labels)}})
    for release in wanted.releases:
        texts[f"values/{release.name}.yaml"] = _yaml(values(release, wanted))
    texts["README.md"] = _page(wanted)
    return texts


def values(release: Release, wanted: Wanted) -> dict[str, Any]:
    """Return what a release is given: what the matrix has for it, and what is this provider's own."""
    found: dict[str, Any] = dict(release.values or {})
    settings = wanted.settings
    if release.client is not None:
        # The chart's own rule is the same; written out, it stays so when somebody moves the chart alone.
        found["image"] = {"tag": release.client}
    if release.name in ("akash-provider", "akash-gateway"):
        found["domain"] = settings.domain
    if release.name == "inventory-operator" and settings.storage_class is not None:
        found["inventoryConfig"] = {"cluster_storage": ["default", settings.storage_class, "ram"]}
    if release.name == "gpu-operator":
        sxm = any(gpu.interface == "sxm" for node in wanted.nodes for gpu in node.gpus)
        found["fabricManager"] = {"enabled": sxm}
    if release.name == "akash-provider":
        found |= _provider(wanted)
    return found


def _provider(wanted: Wanted) -> dict[str, Any]:
    settings = wanted.settings
    optional: dict[str, Any] = {
        "email": settings.email,
        "website": settings.website,
        "node": settings.node,
        "reclamationWindow": settings.reclamation,
        "price_target_gpu_mappings": _mappings(settings.gpu_prices) or None,
    }
    return {
        "from": settings.address,
        "organization": settings.organization,
        "attributes": [{"key": key, "value": value} for key, value in sorted(_attributes(wanted).items())],
        **{f"price_target_{key}": price for key, price in settings.prices.items()},
        **{key: value for key, value in optional.items() if value is not None},
    }


def _attributes(wanted: Wanted) -> dict[str, str]:
    settings = wanted.settings
    found = {"host": "akash", "tier": "community", **settings.attributes, "organization": settings.organization}
    if wanted.cuda is not None:
        found["cuda"] = wanted.cuda
    for gpu in {gpu for node in wanted.nodes for gpu in node.gpus}:
        model = f"capabilities/gpu/vendor/nvidia/model/{gpu.name}"
        for key in (
            model,
            f"{model}/ram/{gpu.ram}",
            f"{model}/interface/{gpu.interface}",
            f"{model}/interface/{gpu.interface}/ram/{gpu.ram}",
        ):
            found[key] = "true"
    if settings.storage_class is not None:
        found |= {"capabilities/storage/1/class": settings.storage_class, "capabilities/storage/1/persistent": "true"}
    return found


def _mappings(prices: Mapping[str, float]) -> str:
    """`h100=840,*=500`; what is for any other comes last."""
    return ",".join(f"{model}={prices[model]:g}" for model in sorted(prices, key=lambda model: (model == "*", model)))


def _namespace(name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}


def _labelled(wanted: Wanted) -> list[Node]:
    return [node for node in sorted(wanted.nodes, key=lambda node: node.name) if node.gpus and wanted.node_labels]


def _yaml(*documents: Mapping[str, Any]) -> str:
    head = "# Written by `provision charts akash`; made anew from the lock, the settings and the matrix.\n"
    return head + yaml.dump_all(
        [dict(one) for one in documents],
        Dumper=_Dumper,
        explicit_start=True,
        sort_keys=True,
        width=1000,
        default_flow_style=False,
    )


class _Dumper(yaml.SafeDumper):
    """Lists stand further in than their key, as linters want it."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


# The page.


def commands(wanted: Wanted) -> list[tuple[str, list[list[str]]]]:
    """What is typed, in order, each step under its title; run in the folder of the files."""
    repositories = dict(sorted({(one.chart.partition("/")[0], one.repository) for one in wanted.releases}))
    steps = [
        ("Namespaces", [["kubectl", "apply", "-f", "namespaces.yaml"]]),
        (
            "Charts",
            [*(["helm", "repo", "add", name, url] for name, url in repositories.items()), ["helm", "repo", "update"]],
        ),
    ]
    gpu: list[list[str]] = []
    if wanted.runtime_class is not None:
        gpu.append(["kubectl", "apply", "-f", "runtime-class.yaml"])
    gpu += [
        ["kubectl", "patch", "node", node.name, "--type", "merge", "--patch-file", f"nodes/{node.name}.yaml"]
        for node in _labelled(wanted)
    ]
    by_chart = {True: list[list[str]](), False: list[list[str]]()}
    for release in wanted.releases:
        by_chart[release.chart.startswith("akash/")].append(_helm(release))
    return [
        *steps,
        ("GPUs", gpu + by_chart[False]),
        ("Akash", by_chart[True]),
    ]


def _helm(release: Release) -> list[str]:
    verb = ["install"] if release.first_install else ["upgrade", "--install"]
    extra = ["-f", KEYS] if release.name == "akash-provider" else []
    return [
        *("helm", *verb, release.name, release.chart, "--namespace", release.namespace, "--create-namespace"),
        *("--version", release.version, "-f", f"values/{release.name}.yaml", *extra),
    ]


def _page(wanted: Wanted) -> str:
    parts = [
        "# Akash in this cluster",
        "Written by `provision charts akash`. What is not in here: the cluster itself"
        + (f" (Akash's own playbook installs k3s {wanted.kubernetes})" if wanted.kubernetes else "")
        + ", NGINX Gateway Fabric on ports 80, 443, 8443 and 8444, cert-manager, and the DNS records of "
        f"`provider.{wanted.settings.domain}` and `*.ingress.{wanted.settings.domain}`.",
        f"The wallet's key is in none of these files: `{KEYS}` is the values file with `key` and `keysecret`, written "
        "on the control plane by `provision_secrets` and readable by root alone.",
    ]
    for title, lines in commands(wanted):
        if lines:
            parts += [f"## {title}", "```\n" + "\n".join(shlex.join(words) for words in lines) + "\n```"]
    if any(release.first_install for release in wanted.releases):
        parts.append(
            "`helm install` is for the first time, for `upgrade` leaves the chart's definitions out; later it is "
            "`helm upgrade`."
        )
    parts += [
        "## See that it serves",
        "```\nkubectl -n akash-services get pods\nkubectl -n akash-gateway get gateway\n"
        "kubectl -n akash-services get tcproutes\n"
        f"curl --insecure https://provider.{wanted.settings.domain}:8443/status\n```",
        "On each host: `provision-cluster health akash`.",
    ]
    return "\n\n".join(parts) + "\n"


def safe_node_name(name: str) -> bool:
    """Whether it is a name that a node can have, and so a file here."""
    return re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name) is not None
