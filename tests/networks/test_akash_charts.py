"""Akash's files for kubectl and helm: what is in them, that they stay as they are, and what is refused."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioner.actions.charts import charts, settings_of
from provisioner.cli.main import main
from provisioner.errors import BadInput, Exit
from provisioner.matrix.files import digest_in_use
from provisioner.matrix.reader import load
from provisioner.model.intent import Intent
from provisioner.model.stack import Choice, HostLock, Lock
from provisioner.resolve.lock import lock_text
from tests.kube_api import kube_api, kubeconfig
from tests.world import entry

KUBECTL = os.environ.get("PROVISION_KUBECTL") or shutil.which("kubectl")
YAMLLINT = Path(sys.executable).with_name("yamllint")
SETTINGS: dict[str, Any] = {
    "address": "akash1" + "q" * 38,
    "domain": "rigs.example.com",
    "organization": "Rigs & Sons",
    "attributes": {"region": "us-west"},
    "prices": {"cpu": 1.6, "memory": 0.3},
    "gpu_prices": {"*": 500, "rtx3090": 210},
}


def rendered(hosts: dict[str, HostLock] | None = None, *only: str, **settings: Any) -> dict[str, str]:
    lock = Lock(made_by="0.1.0", matrix="m", hosts=hosts or {"rig-01": entry(), "rig-02": entry()})
    return charts(lock, only, load(), settings_of("akash.yml", {**SETTINGS, **settings}))


def values(files: dict[str, str], release: str) -> dict[str, Any]:
    return dict(yaml.safe_load(files[f"values/{release}.yaml"]))


def attributes(files: dict[str, str]) -> dict[str, str]:
    return {one["key"]: one["value"] for one in values(files, "akash-provider")["attributes"]}


def operated(**changes: Any) -> HostLock:
    """A host whose driver the GPU Operator brings."""
    return entry(
        intent=Intent(networks=("akash/gpu-operator",)),
        **dict.fromkeys(("driver_branch", "driver_version", "modules", "cuda")),
        **changes,
    )


def commands(files: dict[str, str]) -> list[list[str]]:
    blocks = re.findall(r"```\n(.*?)```", files["README.md"], re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_the_provider_offers_what_the_lock_has() -> None:
    """Its cards as Akash's list calls them, the CUDA level of the lock, the client of the lock."""
    files = rendered()
    found = values(files, "akash-provider")

    assert (found["from"], found["domain"]) == (SETTINGS["address"], "rigs.example.com")
    assert found["image"] == {"tag": "0.16.2"}
    assert (found["price_target_cpu"], found["price_target_gpu_mappings"]) == (1.6, "rtx3090=210,*=500")
    assert "key" not in found and "keysecret" not in found
    assert attributes(files) == {
        "capabilities/gpu/vendor/nvidia/model/rtx3090": "true",
        "capabilities/gpu/vendor/nvidia/model/rtx3090/interface/pcie": "true",
        "capabilities/gpu/vendor/nvidia/model/rtx3090/interface/pcie/ram/24Gi": "true",
        "capabilities/gpu/vendor/nvidia/model/rtx3090/ram/24Gi": "true",
        "cuda": "12.2",
        "host": "akash",
        "organization": "Rigs & Sons",
        "region": "us-west",
        "tier": "community",
    }


def test_a_driver_of_the_host_gets_a_device_plugin() -> None:
    """By CDI, on nodes that have the label, under the runtime class."""
    files = rendered()
    plugin = values(files, "nvdp")
    assert (plugin["deviceListStrategy"], plugin["runtimeClassName"]) == ("cdi-cri", "nvidia")
    assert plugin["nodeSelector"] == {"allow-nvdp": "true"}
    assert yaml.safe_load(files["nodes/rig-01.yaml"]) == {"metadata": {"labels": {"allow-nvdp": "true"}}}
    assert yaml.safe_load(files["runtime-class.yaml"])["handler"] == "nvidia"
    assert "values/gpu-operator.yaml" not in files


@pytest.mark.parametrize(("model", "fabric"), [("rtx-3090", False), ("h100-sxm5-80gb", True)])
def test_the_gpu_operator_brings_its_own(model: str, fabric: bool) -> None:
    """No plugin beside it, no label, no CUDA level of a host that has no driver; a fabric manager where NVSwitch is."""
    files = rendered({"rig-01": operated(gpus=(model,))})
    assert values(files, "gpu-operator")["fabricManager"] == {"enabled": fabric}
    assert {"values/nvdp.yaml", "runtime-class.yaml", "nodes/rig-01.yaml"} & set(files) == set()
    assert "cuda" not in attributes(files)
    first = [words[:3] for words in commands(files) if words[:2] == ["helm", "install"]]
    assert first == [["helm", "install", "gpu-operator"]]


def test_a_cluster_offers_what_each_host_carries() -> None:
    hosts = {"rig-01": entry(), "rig-02": entry(cuda=Choice(value="12.10")), "rig-03": entry(gpus=("rtx-4090",))}
    files = rendered(hosts)
    assert attributes(files)["cuda"] == "12.2"
    assert "capabilities/gpu/vendor/nvidia/model/rtx4090" in attributes(files)
    assert attributes(rendered(hosts, "rig-02"))["cuda"] == "12.10"
    assert "nodes/rig-01.yaml" not in rendered(hosts, "rig-02")


def test_what_is_optional() -> None:
    files = rendered(storage_class="beta3", reclamation="24h", nodes={"rig-01": "node1"}, node="http://rpc:26657")
    assert values(files, "inventory-operator")["inventoryConfig"] == {"cluster_storage": ["default", "beta3", "ram"]}
    assert attributes(files)["capabilities/storage/1/class"] == "beta3"
    found = values(files, "akash-provider")
    assert (found["reclamationWindow"], found["node"]) == ("24h", "http://rpc:26657")
    assert "nodes/node1.yaml" in files and "nodes/rig-01.yaml" not in files
    assert "reclamationWindow" not in values(rendered(), "akash-provider")


def test_the_same_wish_gives_the_same_bytes() -> None:
    """Whatever the order of hosts and settings: the files are meant for git."""
    hosts = {"rig-01": entry(), "rig-02": entry(gpus=("rtx-4090",))}
    turned = dict(reversed(hosts.items()))
    lock = Lock(made_by="0.1.0", matrix="m", hosts=turned)
    again = charts(lock, (), load(), settings_of("x", dict(reversed(SETTINGS.items()))))
    assert rendered(hosts) == again


@pytest.mark.tools
@pytest.mark.skipif(not YAMLLINT.exists(), reason="yamllint comes with ansible-lint, in the dev extra")
def test_it_is_yaml_as_linters_want_it(tmp_path: Path) -> None:
    files = {**rendered(), **{f"b/{n}": t for n, t in rendered({"rig-01": operated()}).items()}}
    for name, text in files.items():
        if name.endswith(".yaml"):
            (tmp_path / name.replace("/", "_")).write_text(text, encoding="utf-8")
    rules = "{extends: default, rules: {line-length: disable}}"
    done = subprocess.run([YAMLLINT, "--strict", "-d", rules, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.kubectl
@pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl (Debian: kubernetes-client)")
def test_kubectl_takes_its_part(tmp_path: Path) -> None:
    """Every line of the page that is kubectl's and comes before helm's, against the tests' own API server."""
    assert KUBECTL is not None
    files = rendered()
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    with kube_api() as api:
        for name in ("rig-01", "rig-02"):
            api.node(name, boot=name, machine=name)
        (tmp_path / "config").write_text(kubeconfig(api.url), encoding="utf-8")
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "config")}
        ran = 0
        for words in commands(files):
            if words[0] != "kubectl" or "get" in words:
                continue
            more = ["--validate=false"] if words[1] == "apply" else []  # that wants the server's whole OpenAPI
            done = subprocess.run(
                [KUBECTL, *words[1:], *more], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            ran += 1
        assert ran == 4
        assert api.get("v1", "namespaces", "lease")["metadata"]["labels"] == {"akash.network": "true"}
        assert api.get("node.k8s.io/v1", "runtimeclasses", "nvidia")["handler"] == "nvidia"
        assert api.get("v1", "nodes", "rig-02")["metadata"]["labels"] == {"allow-nvdp": "true"}

        wrong = [KUBECTL, *("patch", "node", "no-such", "--type", "merge", "--patch-file", "nodes/rig-01.yaml")]
        done = subprocess.run(wrong, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert "NotFound" in done.stderr, "a wrong name must not make a node"


def test_helm_gets_every_chart_in_its_version() -> None:
    """In an order in which each finds what it needs; only the provider reads the wallet's key, from its own file."""
    lines = [words for words in commands(rendered()) if words[0] == "helm" and words[1] in ("upgrade", "install")]
    assert all("--version" in words and "--create-namespace" in words for words in lines)
    assert [words[3] for words in lines] == [
        "nvdp",
        "akash-node",
        "akash-gateway",
        "akash-hostname-operator",
        "inventory-operator",
        "akash-provider",
    ]
    assert [words[3] for words in lines if "/etc/provision/secrets/akash.keys" in words] == ["akash-provider"]
    for words in lines:
        assert words[words.index("-f") + 1] in rendered()


def test_another_client_wants_its_charts_named() -> None:
    """Which chart carries it is not known, and a wrong one would install another client."""
    hosts = {"rig-01": entry(networks={"akash": Choice(value="0.14.2")})}
    with pytest.raises(BadInput, match=r"client 0\.14\.2, and akash/akash-hostname-operator 19\.0\.2 carries 0\.16\.2"):
        rendered(hosts)
    named = dict.fromkeys(
        ("akash/akash-hostname-operator", "akash/akash-inventory-operator", "akash/provider"), "15.0.0"
    )
    files = rendered(hosts, charts=named)
    assert values(files, "akash-provider")["image"] == {"tag": "0.14.2"}
    assert sum("15.0.0" in words for words in commands(files)) == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"address": "cosmos1xyz"}, "address: String should match"),
        ({"domain": "https://x"}, "domain: String should match"),
        ({"organization": "a\nb"}, "organization: String should match"),
        ({"key": "secret"}, "key: Extra inputs"),
        ({"attributes": {"cuda": "99"}}, "cuda: that is taken from the lock"),
        ({"prices": {"cpu": -1}}, "greater than or equal"),
        ({"reclamation": "30m"}, "reclamation: String should match"),
        ({"charts": {"akash/provider": "newest"}}, "charts.akash/provider: String should match"),
    ],
)
def test_settings_that_can_not_be_used(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        rendered(**change)
    assert caught.value.reference == "settings-not-valid"
    assert words in "\n".join([caught.value.message, *caught.value.context])


@pytest.mark.parametrize(
    ("hosts", "only", "change", "reference"),
    [
        ({"rig-01": entry(networks={})}, (), {}, "does-not-serve"),
        ({"rig-01": entry()}, ("rig-09",), {}, "unknown-host"),
        ({"rig-01": entry(), "rig-02": entry(networks={})}, ("rig-02",), {}, "does-not-serve"),
        ({"rig-01": entry(), "rig-02": entry(networks={"akash": Choice(value="0.14.2")})}, (), {}, "cluster-differs"),
        ({"rig-01": entry(), "rig-02": operated()}, (), {}, "cluster-differs"),
        ({"rig-01": entry(gpus=("l40s",))}, (), {}, "gpu-not-named"),
        ({"Rig_01": entry()}, (), {}, "node-name"),
        ({"rig-01": entry()}, (), {"charts": {"akash/x": "1.0.0"}}, "unknown-chart"),
    ],
)
def test_what_is_refused(
    hosts: dict[str, HostLock], only: tuple[str, ...], change: dict[str, Any], reference: str
) -> None:
    with pytest.raises(BadInput) as caught:
        rendered(hosts, *only, **change)
    assert caught.value.reference == reference


def test_a_card_that_the_list_names_otherwise() -> None:
    files = rendered(
        {"rig-01": entry(gpus=("l40s",))}, gpus={"l40s": {"name": "l40s", "interface": "pcie", "ram": "48Gi"}}
    )
    assert "capabilities/gpu/vendor/nvidia/model/l40s/ram/48Gi" in attributes(files)


def test_cards_of_the_matrix_are_cards_of_the_matrix() -> None:
    """An id that leads nowhere would never be asked for; memory is what the card has."""
    matrix = load()
    deployment = matrix.networks["akash"].deployment
    assert deployment is not None
    for model, offered in deployment.gpus.items():
        assert [f"{size:g}Gi" for size in matrix.gpus[model].memory_gib] == [offered.ram], model
        assert offered.interface == ("sxm" if "sxm" in model else "pcie"), model


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Writes what differs, and says when nothing does; --check writes nothing."""
    lock = Lock(made_by="0.1.0", matrix=digest_in_use(), hosts={"rig-01": entry()})
    (tmp_path / "provision.lock").write_text(lock_text(lock), encoding="utf-8")
    (tmp_path / "akash.yml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    out = tmp_path / "akash"
    argv = ["charts", "akash", "--settings", str(tmp_path / "akash.yml"), "-o", str(out)]
    argv += ["--lock", str(tmp_path / "provision.lock")]

    assert main([*argv, "--check"]) == Exit.DIFFERS
    assert not out.exists()
    assert main(argv) == Exit.OK
    assert "Next: what stands in" in capsys.readouterr().out
    assert main([*argv, "--check"]) == Exit.OK
    assert "as they should be" in capsys.readouterr().out
    (out / "values" / "nvdp.yaml").write_text("x", encoding="utf-8")
    assert main(argv) == Exit.OK
    assert "wrote values/nvdp.yaml\n" in capsys.readouterr().out

    (tmp_path / "akash.yml").write_text("- a\n", encoding="utf-8")
    assert main(argv) == Exit.BAD_INPUT
