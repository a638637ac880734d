"""A node is held back and given back through a real kubectl, against the tests' own API server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioner.host import cluster
from tests.kube_api import KubeApi, kube_api, kubeconfig

KUBECTL = os.environ.get("PROVISION_KUBECTL") or shutil.which("kubectl")
pytestmark = [
    pytest.mark.kubectl,
    pytest.mark.skipif(KUBECTL is None, reason="there is no kubectl (Debian: kubernetes-client)"),
]

SPACE, PROVIDER = "akash-services", "akash-provider"
LEASE = {"akash_network__manifest-service": "web"}
REPO = Path(__file__).parents[2]


def host(root: Path, url: str, *, boot: str = "boot-1", machine: str = "a" * 32) -> Path:
    """What of a host the program looks at, below `root`."""
    for path, text in {
        "etc/machine-id": machine + "\n",
        "proc/sys/kernel/random/boot_id": boot + "\n",
        "root/.kube/config": kubeconfig(url),
        "etc/provision/cluster/akash.json": json.dumps(
            {"namespace": SPACE, "workload": f"statefulset/{PROVIDER}", "jobs": "akash.network/manifest-service"}
        ),
    }.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    (root / "usr/bin").mkdir(parents=True, exist_ok=True)
    program = root / "usr/bin/kubectl"
    if not program.exists() and KUBECTL is not None:
        program.symlink_to(KUBECTL)
    return root


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with kube_api() as api:
        api.node("rig-01", boot="boot-1", machine="a" * 32)
        api.node("rig-02", boot="boot-2", machine="b" * 32)
        api.stateful_set(PROVIDER, SPACE)
        yield api


@pytest.fixture
def root(tmp_path: Path, api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "root/.kube/config"))
    monkeypatch.setattr(cluster, "POLL_S", 0.01)
    return host(tmp_path, api.url)


def cordoned(api: KubeApi, name: str) -> bool:
    return bool(api.get("v1", "nodes", name)["spec"].get("unschedulable"))


def replicas(api: KubeApi) -> int:
    return int(api.get("apps/v1", "statefulsets", PROVIDER, SPACE)["spec"]["replicas"])


def notes(api: KubeApi, group: str, plural: str, name: str, namespace: str = "") -> dict[str, str]:
    return dict(api.get(group, plural, name, namespace)["metadata"].get("annotations", {}))


def test_there_and_back(root: Path, api: KubeApi) -> None:
    """The provider is scaled to none before the node is cordoned; what comes back leaves no note behind."""
    assert cluster.main(["hold", "akash"], str(root)) == 0

    assert (replicas(api), cordoned(api, "rig-01"), cordoned(api, "rig-02")) == (0, True, False)
    first = next(line for line in api.changed() if "scale" in line or "nodes" in line)
    assert first.partition(" ")[2] == f"statefulsets/{PROVIDER}/scale"

    assert cluster.main(["release", "akash"], str(root)) == 0

    assert (replicas(api), cordoned(api, "rig-01")) == (1, False)
    assert notes(api, "apps/v1", "statefulsets", PROVIDER, SPACE) == {}
    assert notes(api, "v1", "nodes", "rig-01") == {}


def test_twice_is_once(root: Path, api: KubeApi) -> None:
    """A run that was killed is repeated; the number of before is not forgotten."""
    api.get("apps/v1", "statefulsets", PROVIDER, SPACE)["spec"]["replicas"] = 2
    for verb in ("hold", "hold", "release"):
        assert cluster.main([verb, "akash"], str(root)) == 0
    assert (replicas(api), cordoned(api, "rig-01")) == (2, False)

    before = len(api.changed())
    assert cluster.main(["release", "akash"], str(root)) == 0
    assert len(api.changed()) == before


def test_two_nodes_at_once(root: Path, api: KubeApi, tmp_path: Path) -> None:
    """The provider comes back with the last of them, whoever that is."""
    other = host(tmp_path / "other", api.url, boot="boot-2", machine="b" * 32)
    for where in (root, other):
        assert cluster.main(["hold", "akash"], str(where)) == 0
    assert cordoned(api, "rig-01") and cordoned(api, "rig-02")

    assert cluster.main(["release", "akash"], str(root)) == 0
    assert (replicas(api), cordoned(api, "rig-01"), cordoned(api, "rig-02")) == (0, False, True)
    assert cluster.health("akash", str(root)) == []  # that another one holds the provider is no fault here

    assert cluster.main(["release", "akash"], str(other)) == 0
    assert (replicas(api), cordoned(api, "rig-02")) == (1, False)


def test_somebody_elses_cordon_stays(root: Path, api: KubeApi, capsys: pytest.CaptureFixture[str]) -> None:
    api.get("v1", "nodes", "rig-01")["spec"]["unschedulable"] = True
    assert cluster.main(["hold", "akash"], str(root)) == 0
    assert "cordoned already by somebody else" in capsys.readouterr().err
    assert cluster.main(["release", "akash"], str(root)) == 0
    assert cordoned(api, "rig-01")


def test_a_provider_that_is_off_stays_off(root: Path, api: KubeApi) -> None:
    """Its owner scaled it to none before; that is not ours to change."""
    api.get("apps/v1", "statefulsets", PROVIDER, SPACE)["spec"]["replicas"] = 0
    for verb in ("hold", "release"):
        assert cluster.main([verb, "akash"], str(root)) == 0
    assert replicas(api) == 0


def test_no_provider_yet(root: Path, api: KubeApi, capsys: pytest.CaptureFixture[str]) -> None:
    """The node alone is held: a lease may run there all the same."""
    api.objects.pop(("apps/v1", "statefulsets", SPACE, PROVIDER))
    assert cluster.main(["hold", "akash"], str(root)) == 0
    assert cordoned(api, "rig-01")
    assert "there is no provider to scale down" in capsys.readouterr().err
    assert cluster.main(["release", "akash"], str(root)) == 0
    assert not cordoned(api, "rig-01")
    assert cluster.health("akash", str(root)) == [
        f"statefulset/{PROVIDER} is not in {SPACE}: the provider is not installed"
    ]


def test_jobs_are_tenants_pods_of_this_node(root: Path, api: KubeApi, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the cluster's own, nor those of another node, nor what has ended."""
    api.pod("web-1", "lease-1", "rig-01", **LEASE)
    api.pod("web-2", "lease-2", "rig-02", **LEASE)
    api.pod("done", "lease-3", "rig-01", **LEASE)["status"]["phase"] = "Succeeded"
    api.pod("coredns", "kube-system", "rig-01", k8s_app="kube-dns")

    assert cluster.main(["jobs", "akash"], str(root)) == 1
    assert capsys.readouterr().out == "pod lease-1/web-1\n"

    api.objects.pop(("v1", "pods", "lease-1", "web-1"))
    assert cluster.main(["jobs", "akash"], str(root)) == 0


def test_evict(root: Path, api: KubeApi) -> None:
    """kubectl drain ends what is here, and leaves what belongs to every node."""
    api.pod("web-1", "lease-1", "rig-01", **LEASE)
    api.pod("bare", "lease-1", "rig-01", owner="none", **LEASE)
    api.pod("plugin", "nvidia-device-plugin", "rig-01", owner="DaemonSet")
    api.pod("web-2", "lease-2", "rig-02", **LEASE)
    assert cluster.main(["hold", "akash"], str(root)) == 0

    assert cluster.main(["evict", "akash"], str(root)) == 0

    assert sorted(key[3] for key in api.objects if key[1] == "pods") == ["plugin", "web-2"]


def test_a_pod_that_may_not_be_evicted(
    root: Path, api: KubeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disruption budget is respected; the answer is kubectl's own."""
    api.pod("ceph", "rook-ceph", "rig-01")
    api.protected.add("ceph")
    monkeypatch.setattr(cluster, "EVICT_S", 2)
    assert cluster.main(["evict", "akash"], str(root)) == 4
    assert "akash: kubectl drain: " in capsys.readouterr().err
    assert ("v1", "pods", "rook-ceph", "ceph") in api.objects


def test_refusals_are_told(root: Path, api: KubeApi, capsys: pytest.CaptureFixture[str]) -> None:
    """kubectl's own words; and what was begun can be taken back."""
    api.refuse["/nodes/"] = 403
    assert cluster.main(["hold", "akash"], str(root)) == 4
    assert "forbidden" in capsys.readouterr().err
    api.refuse.clear()
    assert cluster.main(["release", "akash"], str(root)) == 0
    assert (replicas(api), cordoned(api, "rig-01")) == (1, False)


def test_a_provider_that_does_not_stop(
    root: Path, api: KubeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.sticky = True
    monkeypatch.setattr(cluster, "STOP_S", 0.05)
    assert cluster.main(["hold", "akash"], str(root)) == 4
    assert "still has a pod" in capsys.readouterr().err
    assert not cordoned(api, "rig-01")


def test_no_server(root: Path, api: KubeApi, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "root/.kube/config").write_text(kubeconfig("http://127.0.0.1:9"), encoding="utf-8")
    assert cluster.main(["hold", "akash"], str(root)) == 4
    assert "akash: kubectl get: " in capsys.readouterr().err
    assert cluster.health("akash", str(root))[0].startswith("kubectl get: ")


def test_which_node_this_is(root: Path, api: KubeApi) -> None:
    """By its boot where machines share a machine-id; by the machine-id where the kubelet has not reported the boot."""
    kube = cluster.cluster(str(root))
    for name in ("rig-01", "rig-02"):
        api.get("v1", "nodes", name)["status"]["nodeInfo"]["machineID"] = "a" * 32
    assert cluster.own_node(kube, str(root))["metadata"]["name"] == "rig-01"

    api.get("v1", "nodes", "rig-01")["status"]["nodeInfo"]["bootID"] = "the boot before"
    with pytest.raises(cluster.Missing, match="no node of the cluster is this host"):
        cluster.own_node(kube, str(root))

    api.get("v1", "nodes", "rig-02")["status"]["nodeInfo"]["machineID"] = "b" * 32
    assert cluster.own_node(kube, str(root))["metadata"]["name"] == "rig-01"


def test_health(root: Path, api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps the GPUs of this node from tenants, and nothing else."""
    monkeypatch.setattr(cluster, "cards", lambda _: 2)
    node = api.get("v1", "nodes", "rig-01")
    node["status"]["allocatable"]["nvidia.com/gpu"] = "2"
    assert cluster.health("akash", str(root)) == []
    assert cluster.main(["health", "akash"], str(root)) == 0

    node["status"]["allocatable"]["nvidia.com/gpu"] = "0"
    node["spec"]["unschedulable"] = True
    node["status"]["conditions"][0].update(status="Unknown", message="Kubelet stopped posting node status.")
    api.get("apps/v1", "statefulsets", PROVIDER, SPACE)["spec"]["replicas"] = 0
    assert cluster.health("akash", str(root)) == [
        "node rig-01 is not ready: Kubelet stopped posting node status.",
        "node rig-01 is cordoned: it takes no pods",
        "node rig-01 gives out 0 of 2 GPUs: look at the device plugin",
        f"statefulset/{PROVIDER} is scaled to none",
    ]
    assert cluster.main(["health", "akash"], str(root)) == 1


def test_nothing_of_kubernetes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing serves, so there is nothing to hold; a kubelet without kubectl is another matter."""
    where = host(tmp_path, "http://127.0.0.1:9")
    (where / "usr/bin/kubectl").unlink()
    assert cluster.main(["hold", "akash"], str(where)) == 0
    assert "neither kubectl nor a kubelet" in capsys.readouterr().err
    assert cluster.main(["health", "akash"], str(where)) == 1

    (where / "usr/bin/kubelet").write_text("", encoding="utf-8")
    assert cluster.main(["hold", "akash"], str(where)) == 4
    assert "can not be held back from here" in capsys.readouterr().err


def test_k3s_alone(tmp_path: Path) -> None:
    """Its kubectl is a word of k3s."""
    where = host(tmp_path, "http://127.0.0.1:9")
    (where / "usr/bin/kubectl").unlink()
    (where / "usr/local/bin").mkdir(parents=True)
    (where / "usr/local/bin/k3s").write_text("#!/bin/sh\n", encoding="utf-8")
    (where / "usr/local/bin/k3s").chmod(0o755)
    assert cluster.cluster(str(where)).words == [f"{where}/usr/local/bin/k3s", "kubectl"]


@pytest.mark.parametrize("argv", [[], ["hold"], ["hold", "../x"], ["stop", "akash"], ["hold", "akash", "more"]])
def test_wrong_words(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster.main(argv) == 2
    assert "provision-cluster hold NETWORK" in capsys.readouterr().err


def test_the_unit(root: Path, api: KubeApi) -> None:
    """While it runs the node takes pods; a stop holds it back, which outlasts a reboot."""
    api.get("v1", "nodes", "rig-01")["metadata"]["annotations"] = {cluster.HELD: "akash"}
    api.get("v1", "nodes", "rig-01")["spec"]["unschedulable"] = True
    program = (
        "from provisioner.host import cluster; cluster.POLL_S = 0.01; "
        f"raise SystemExit(cluster.main(['run', 'akash'], {str(root)!r}))"
    )
    unit = subprocess.Popen([sys.executable, "-c", program], cwd=REPO, stderr=subprocess.PIPE, text=True)
    try:
        ends = time.monotonic() + 30
        while cordoned(api, "rig-01") or cluster.HELD in notes(api, "v1", "nodes", "rig-01"):
            assert time.monotonic() < ends and unit.poll() is None
            time.sleep(0.05)
        unit.send_signal(signal.SIGTERM)
        _, said = unit.communicate(timeout=30)
    finally:
        unit.kill()
    assert unit.returncode == 0
    assert "node rig-01 is cordoned" in said
    assert (replicas(api), cordoned(api, "rig-01")) == (0, True)
