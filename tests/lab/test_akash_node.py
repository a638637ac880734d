"""Akash's node on a real host, without a driver: Debian's kubectl, systemd, gate, drain, watchdog and reboot.

The host has the programs, the units and a signed record as enrolment leaves them, and nothing else; what a whole apply
does with them is the story of test_akash.py. The API server is that of `tests/kube_api.py`.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioner.adapters.lab import Lab
from provisioner.adapters.signing import load_or_make
from provisioner.host import programs
from provisioner.model.resource import File
from provisioner.model.stack import Choice
from provisioner.resources.wanted import wanted
from tests.enrolments import record, signed
from tests.kube_api import KubeApi, kube_api, kubeconfig
from tests.lab.conftest import ssh
from tests.lab.operator import LONG
from tests.world import entry

# Not in the short form before it was seen to pass as a whole.
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

HOST, SPACE, PROVIDER = "rig-node", "akash-services", "akash-provider"
CLUSTER = programs.CLUSTER
UNIT = "provision-client@akash"


class Node:
    """The host, and the cluster that it is a node of."""

    def __init__(self, lab: Lab, api: KubeApi) -> None:
        self.lab, self.api = lab, api

    def root(self, command: str, rc: int = 0) -> str:
        done = self.lab.host(HOST).exec(command)
        assert done.rc == rc, f"{command}: exit {done.rc}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def put(self, path: str, text: str, mode: str = "0644") -> None:
        made = ssh(self.lab, HOST, f"sudo install -D -m {mode} /dev/stdin {shlex.quote(path)}", given=text.encode())
        assert made.rc == 0, made.stderr

    def is_(self, *, held: bool) -> bool:
        node = self.api.get("v1", "nodes", "node1")["spec"]
        provider = self.api.get("apps/v1", "statefulsets", PROVIDER, SPACE)["spec"]
        return bool(node.get("unschedulable")) == held and (provider["replicas"] == 0) == held

    def becomes(self, *, held: bool, seconds: float = 90) -> None:
        ends = time.monotonic() + seconds
        while not self.is_(held=held):
            assert time.monotonic() < ends, f"not {'held' if held else 'given out'} within {seconds:g} s"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def node(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """An enrolled host: every file that a lock with Akash wants, and a record of what its own gate sees."""
    lab = lab_factory(f"{HOST}=bookworm")
    gateway = ipaddress.ip_network(f"{lab.host(HOST).address}/24", strict=False)[1]
    with kube_api(str(gateway)) as api:
        made = Node(lab, api)
        lock = entry(networks={"akash": Choice(value="0.16.2")}, gpus=())
        for resource in wanted(lock):
            if isinstance(resource, File) and ("/provision" in resource.path):
                made.put(resource.path, resource.content, resource.mode)
        enrol(made, tmp_path_factory.mktemp("keys"))
        made.root(
            "apt-get update -qq && apt-get install -y -qq --no-install-recommends kubernetes-client >/dev/null 2>&1"
        )
        made.put("/root/.kube/config", kubeconfig(api.url), "0600")
        # Under a name that is not the host's; the boot is the machine's own, for a lab host has no kernel to itself.
        boot = made.root("cat /proc/sys/kernel/random/boot_id").strip()
        api.node("node1", boot=boot, machine=made.root("cat /etc/machine-id").strip(), gpus=0)
        api.stateful_set(PROVIDER, SPACE)
        made.root("systemctl daemon-reload && systemctl enable --now provision-clients.target")
        yield made


def enrol(node: Node, keys: Path) -> None:
    seen = json.loads(node.root(f"{programs.GATE} observe"))
    signer = load_or_make(keys)
    made = record(
        host=HOST,
        bound_to={"machine": seen["machine"], "host_key": seen["host_key"]},
        stack={"driver": None, "flavour": None, "gpus": [], "docker": None},
        enrolled_at="2020-01-01T00:00:00Z",
        expires_at="2999-01-01T00:00:00Z",
    )
    node.put("/var/lib/provision/enrolment.json", signed(made, signer).text + "\n")
    node.put("/var/lib/provision/trusted_keys", (keys / "signing.pub").read_text(encoding="utf-8"))
    node.root(f"{programs.GATE} check akash")


def test_1_the_unit_gives_the_node_out_and_holds_it_back(node: Node) -> None:
    node.becomes(held=False)
    assert node.root("systemctl is-active " + UNIT).strip() == "active"
    node.root("/usr/local/lib/provision/health/akash")
    node.root(f"systemctl stop {UNIT}")
    node.becomes(held=True)
    assert "cordoned: it takes no pods" in node.root(f"{CLUSTER} health akash", rc=1)
    node.root(f"systemctl start {UNIT}")
    node.becomes(held=False)


def test_2_a_lease_is_left_in_peace(node: Node) -> None:
    """Held, waited for, given out again; with no lease left the rest of the node is evicted."""
    node.api.pod("web-1", "lease-1", "node1")
    node.api.get("v1", "pods", "web-1", "lease-1")["metadata"]["labels"] = {"akash.network/manifest-service": "web"}
    node.api.pod("coredns", "kube-system", "node1")
    drain = f"{programs.CLIENT} drain akash --wait 4 --undo {CLUSTER} release akash --then {CLUSTER} evict akash"
    assert "still busy" in node.root(f"{drain} --do {CLUSTER} hold akash", rc=3)
    assert node.is_(held=False)
    assert {"web-1", "coredns"} <= {key[3] for key in node.api.objects}

    node.api.objects.pop(("v1", "pods", "lease-1", "web-1"))
    node.root(f"{drain} --do {CLUSTER} hold akash")
    assert node.is_(held=True)
    assert "coredns" not in {key[3] for key in node.api.objects}
    node.root(f"systemctl stop {UNIT}; {programs.CLIENT} resume-all; systemctl start {UNIT}")
    node.becomes(held=False)


def test_3_what_the_watchdog_does_when_the_record_no_longer_fits(node: Node) -> None:
    node.root("mv /var/lib/provision/trusted_keys /var/lib/provision/trusted_keys.away")
    node.root("/usr/local/sbin/provision-watchdog run")
    assert "gate-closed/akash" in node.root("cat /var/lib/provision/watchdog.json")
    assert node.is_(held=True)
    node.root("mv /var/lib/provision/trusted_keys.away /var/lib/provision/trusted_keys")
    node.root(f"rm -rf /var/lib/provision/watchdog.json /var/lib/provision/drained; systemctl restart {UNIT}")
    node.becomes(held=False)


def test_4_a_reboot(node: Node) -> None:
    """Held when the host goes down, and given out when its gate opens."""
    before = len(node.api.changed())
    node.lab.host(HOST).reboot()
    node.becomes(held=False, seconds=240)
    assert any(line.endswith(f"statefulsets/{PROVIDER}/scale") for line in node.api.changed()[before:])
