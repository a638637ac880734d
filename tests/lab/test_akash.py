"""Akash's node on a real host: Debian's own kubectl, systemd, gate, drain and reboot, against the tests' API server.

One story in numbered steps. Driver and toolkit are the stand-ins of `standins.py`; there is no Kubernetes beyond the
API server of `tests/kube_api.py`, to which the host's kubectl talks over the lab's network.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable, Iterator

import pytest

from provisioner.adapters.lab import Lab
from tests.kube_api import KubeApi, kube_api, kubeconfig
from tests.lab import standins
from tests.lab.conftest import ssh
from tests.lab.operator import LONG
from tests.lab.test_networks import HOST, SLOW, Rig

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

SPACE, PROVIDER = "akash-services", "akash-provider"
CLUSTER = "/usr/local/sbin/provision-cluster"
LEASE = {"akash_network__manifest-service": "web"}


@pytest.fixture(scope="module")
def rig(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    repository = standins.build(tmp_path_factory.mktemp("standins"))
    lab = lab_factory(f"{HOST}=bookworm:rtx-3090")
    unpacked = ssh(
        lab, HOST, f"sudo mkdir -p {standins.WHERE} && sudo tar xz -C {standins.WHERE}", given=repository.packed()
    )
    assert unpacked.rc == 0, unpacked.stderr
    yield Rig(lab, tmp_path_factory.mktemp("operator"), repository)


@pytest.fixture(scope="module")
def api(rig: Rig) -> Iterator[KubeApi]:
    """Reached by the lab network's own address of this machine."""
    gateway = ipaddress.ip_network(f"{rig.lab.host(HOST).address}/24", strict=False)[1]
    with kube_api(str(gateway)) as api:
        yield api


def cordoned(api: KubeApi) -> bool:
    return bool(api.get("v1", "nodes", "node1")["spec"].get("unschedulable"))


def replicas(api: KubeApi) -> int:
    return int(api.get("apps/v1", "statefulsets", PROVIDER, SPACE)["spec"]["replicas"])


def given_out(api: KubeApi) -> bool:
    return not cordoned(api) and replicas(api) == 1


def held(api: KubeApi) -> bool:
    return cordoned(api) and replicas(api) == 0


def scaled(lines: list[str]) -> bool:
    """kubectl has patched what it scales since one version or another; before, it put it."""
    return any(line.endswith(f" statefulsets/{PROVIDER}/scale") for line in lines)


def test_01_enrolled_before_there_is_a_cluster(rig: Rig) -> None:
    """The unit waits for Kubernetes and says so; health is honest; nothing differs afterwards."""
    rig.wish("akash")
    assert f"{HOST}  enrolled" in rig.run("apply", "--yes", *SLOW)
    assert rig.active("akash") == "active"
    assert "neither kubectl nor a kubelet" in rig.root("journalctl -u provision-client@akash -o cat")
    assert "neither kubectl nor a kubelet" in rig.root(f"{CLUSTER} health akash", rc=1)
    assert "Nothing to change" in rig.run("plan", "--exit-code", *SLOW)
    rig.root("systemctl stop provision-watchdog.timer")  # the steps below look when they choose to


def test_02_a_cluster_comes(rig: Rig, api: KubeApi) -> None:
    """Debian's kubectl, an administrator's credentials, a provider: the unit finds them by itself."""
    # Under a name that is not the host's; the boot is the machine's own, for a lab host has no kernel to itself.
    boot = rig.root("cat /proc/sys/kernel/random/boot_id").strip()
    api.node("node1", boot=boot, machine=rig.root("cat /etc/machine-id").strip())
    api.stateful_set(PROVIDER, SPACE)
    rig.root("apt-get install -y -qq --no-install-recommends kubernetes-client >/dev/null 2>&1")
    rig.root(f"mkdir -p /root/.kube && echo {shlex.quote(kubeconfig(api.url))} >/root/.kube/config")
    rig.wait_for(lambda: rig.healthy("akash"), 60, "the node is healthy")
    assert given_out(api)
    rig.forget_causes()
    assert re.search(r"akash +(serves )?since", rig.run("status", "--live", *SLOW))


def test_03_a_lease_is_left_in_peace(rig: Rig, api: KubeApi) -> None:
    """Held, waited for, and given out again: exit 3, and nobody was evicted."""
    api.pod("web-1", "lease-1", "node1", **LEASE)
    drain = f"/usr/local/sbin/provision-client drain akash --wait 6 --undo {CLUSTER} release akash"
    before = len(api.changed())
    assert "still busy" in rig.root(f"{drain} --then {CLUSTER} evict akash --do {CLUSTER} hold akash", rc=3)
    assert given_out(api)
    assert scaled(api.changed()[before:])
    assert ("v1", "pods", "lease-1", "web-1") in api.objects
    rig.root("/usr/local/sbin/provision-gate check akash")


def test_04_a_change_holds_the_node_and_gives_it_back(rig: Rig, api: KubeApi) -> None:
    """apply says it in the plan, drains when no lease is left, enrols, and the node takes pods again."""
    api.objects.pop(("v1", "pods", "lease-1", "web-1"))
    api.pod("coredns", "kube-system", "node1")
    rig.root("echo '{}' >/etc/docker/daemon.json")
    before = len(api.changed())
    output = rig.run("apply", "--yes", *SLOW)
    assert "akash: scale the provider to 0 and cordon the node, wait up to 30 min for the running job" in output
    assert f"{HOST}  enrolled" in output
    did = api.changed()[before:]
    assert scaled(did)
    assert "POST pods/coredns/eviction" in did
    rig.wait_for(lambda: given_out(api), 60, "the node is given out again")
    rig.wait_for(lambda: rig.healthy("akash"), 60, "it is healthy")


def test_05_a_foreign_driver_holds_the_node_back(rig: Rig, api: KubeApi) -> None:
    """What the watchdog does at 4 a.m.: the record no longer fits, so the node takes no more pods."""
    rig.root("systemctl stop provision-watchdog.timer; systemctl stop provision-client@akash")
    rig.wait_for(lambda: held(api), 60, "a stopped unit holds its node back")
    rig.root("systemctl start provision-client@akash")
    rig.wait_for(lambda: given_out(api), 60, "a started one gives it out")
    rig.root("mv /var/lib/provision/trusted_keys /var/lib/provision/trusted_keys.away")
    try:
        assert "gate-closed/akash" in rig.watched()["causes"]
        assert held(api)
    finally:
        rig.root("mv /var/lib/provision/trusted_keys.away /var/lib/provision/trusted_keys")
    rig.forget_causes()
    rig.root("systemctl restart provision-client@akash")
    rig.wait_for(lambda: given_out(api), 60, "the node is given out again")


def test_06_a_reboot(rig: Rig, api: KubeApi) -> None:
    """Held when the host goes down, and given out when its gate opens."""
    before = len(api.changed())
    rig.lab.host(HOST).reboot()
    rig.wait_for(lambda: rig.active("akash") == "active", 240, "the gate opens after the boot")
    rig.wait_for(lambda: given_out(api), 60, "the node is given out again")
    assert scaled(api.changed()[before:]), "the unit held the node when it stopped"


def test_07_unenrolled_it_takes_no_pods(rig: Rig, api: KubeApi) -> None:
    rig.run("unenrol", HOST, "--yes")
    assert held(api)
    assert "not enrolled" in rig.root("/usr/local/sbin/provision-gate check akash", rc=1)
