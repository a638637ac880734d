"""provision-cluster: hold a Kubernetes node back from its network's tenants, and give it back, through kubectl.

    provision-cluster hold NETWORK       scale the network's provider to none and cordon this node; no pod is ended
    provision-cluster jobs NETWORK       the tenants' pods on this node; exit 1: there are some
    provision-cluster evict NETWORK      kubectl drain: end what still runs here, each pod with its time to end well
    provision-cluster release NETWORK    take back what `hold` did here, and nothing that somebody else did
    provision-cluster run NETWORK        what the client's unit starts: release, stay, and hold when told to stop
    provision-cluster health NETWORK     exit 0: the cluster can give this node's GPUs out; 1: why not
    provision-cluster open NETWORK       exit 0: this node takes pods, whoever allowed it

What a network runs is /etc/provision/cluster/NETWORK.json. Nodes of one cluster may be held at the same time: each
notes itself at the provider, and who lets go last scales it up again. A node that was cordoned before stays cordoned.
The notes are annotations in the cluster, so that they outlive this host's disk and whoever held it.
"""

# pathlib, argparse and subprocess cost more to import than the work takes.
# capture_output came with Python 3.7.
# ruff: noqa: PTH110, PTH208, UP022

import json
import os
import signal
import sys
import time

from provisioner.host import gate

MYPY = False
if MYPY:
    from collections.abc import Callable
    from typing import Any

    Json = dict[str, Any]

FOLDER = "/etc/provision/cluster"
KUBECTL = ("/usr/bin/kubectl", "/usr/local/bin/kubectl", "/snap/bin/kubectl")
K3S = ("/usr/local/bin/k3s", "/usr/bin/k3s", "/opt/bin/k3s")
KUBELETS = ("/usr/bin/kubelet", "/usr/local/bin/kubelet", "/usr/local/bin/rke2", "/snap/bin/microk8s")
# Where kubeadm, kubespray and RKE2 leave the administrator's credentials; `k3s kubectl` knows its own.
CREDENTIALS = ("/root/.kube/config", "/etc/kubernetes/admin.conf", "/etc/rancher/rke2/rke2.yaml")

HELD = "provision/held"  # on the node: it was cordoned here
REPLICAS = "provision/replicas"  # on the provider: how many it had
HOLDERS = "provision/hold-"  # on the provider, with the machine-id behind it: who needs it to be none
GPU = "nvidia.com/gpu"

REQUEST_S = 20
CALL_S = 60.0
STOP_S = 180.0  # a provider that is told to stop gets 30 s to end well, and its node may be slow
EVICT_S = 300
POLL_S = 3.0
LOOK_S = 15.0


class Refused(Exception):
    """The cluster, or kubectl, said no; the text is for the journal."""


class Absent(Refused):
    """Nothing of Kubernetes is on this host, or nothing of the network runs in it."""


class Missing(Refused):
    """The cluster does not have what was asked for."""


class Cluster:
    """kubectl as this host has it."""

    def __init__(self, words: "list[str]", environment: "dict[str, str]") -> None:
        self.words = words
        self.environment = environment

    def call(self, *arguments: str, **options: float) -> str:
        """What kubectl prints. Raises Refused with its own words, Missing where the object is not there."""
        import subprocess

        words = [*self.words, f"--request-timeout={REQUEST_S}s", *arguments]
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self.environment,
                timeout=options.get("limit_s", CALL_S),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Refused(f"kubectl {arguments[0]}: no answer within {options.get('limit_s', CALL_S):.0f} s") from None
        except OSError as problem:
            raise Refused(f"{self.words[0]}: {problem.strerror}") from None
        if done.returncode == 0:
            return done.stdout.decode("utf-8", "replace")
        said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        text = said[-1] if said else f"exit code {done.returncode}"
        raise (Missing if "(NotFound)" in text else Refused)(f"kubectl {arguments[0]}: {text}")

    def get(self, *arguments: str) -> "Json":
        try:
            return dict(json.loads(self.call("get", *arguments, "-o", "json")))
        except ValueError:
            raise Refused(f"kubectl get {' '.join(arguments)}: the answer is no JSON") from None


def cluster(root: str = "") -> "Cluster":
    """How this host reaches its cluster. Raises Absent where nothing of Kubernetes is here."""
    environment = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "HOME": root + "/root"}
    kubeconfig = os.environ.get("KUBECONFIG") or next((p for p in CREDENTIALS if os.path.exists(root + p)), "")
    if kubeconfig:
        environment["KUBECONFIG"] = kubeconfig
    for path in KUBECTL:
        if os.access(root + path, os.X_OK):
            return Cluster([root + path], environment)
    for path in K3S:
        if os.access(root + path, os.X_OK):
            return Cluster([root + path, "kubectl"], environment)
    if any(os.path.exists(root + path) for path in KUBELETS):
        raise Refused("there is a kubelet on this host and no kubectl: its node can not be held back from here")
    raise Absent("there is neither kubectl nor a kubelet on this host: nothing of Kubernetes serves from it")


def read(network: str, root: str = "") -> "Json":
    """What the network runs in the cluster: namespace, workload, and the label of its tenants' pods."""
    text = gate.read(f"{root}{FOLDER}/{network}.json")
    if text is None:
        raise Absent(f"{FOLDER}/{network}.json is not there: Kubernetes does not run this network's client here")
    try:
        return dict(json.loads(text))
    except ValueError as problem:
        raise Refused(f"{FOLDER}/{network}.json: {problem}") from None


def concerns(network: str, root: str = "") -> bool:
    """Whether the network's client is run by Kubernetes."""
    return os.path.exists(f"{root}{FOLDER}/{network}.json")


def served(root: str = "") -> "tuple[str, ...]":
    """The networks whose clients Kubernetes runs."""
    try:
        return tuple(sorted(name[:-5] for name in os.listdir(root + FOLDER) if name.endswith(".json")))
    except OSError:
        return ()


def own_node(kube: "Cluster", root: str = "") -> "Json":
    """The node that this host is: by the boot that its kubelet reported, else by its machine-id.

    A node may be called otherwise than its host, and machines that were copied from one image share a machine-id.
    """
    boot = (gate.read(root + "/proc/sys/kernel/random/boot_id") or "").strip()
    machine = (gate.read(root + "/etc/machine-id") or "").strip()
    nodes = kube.get("nodes")["items"]
    for key, value in (("bootID", boot), ("machineID", machine)):
        mine = [node for node in nodes if value and node["status"].get("nodeInfo", {}).get(key) == value]
        if len(mine) == 1:
            return dict(mine[0])
    raise Missing("no node of the cluster is this host (by boot id and machine-id)")


def annotations(thing: "Json") -> "dict[str, str]":
    return dict(thing["metadata"].get("annotations") or {})


def holders(workload: "Json") -> "list[str]":
    return sorted(key for key in annotations(workload) if key.startswith(HOLDERS))


def holder(root: str) -> str:
    return HOLDERS + ((gate.read(root + "/etc/machine-id") or "").strip()[:40] or "unknown")


# Hold and release.


def hold(
    network: str,
    root: str = "",
    kube: "Cluster | None" = None,
    clock: "Callable[[], float]" = time.monotonic,
    sleep: "Callable[[float], None]" = time.sleep,
) -> None:
    """No bid and no new pod from here on; what runs goes on. Safe to run again."""
    asked = read(network, root)
    kube = kube or cluster(root)
    node = own_node(kube, root)
    name = node["metadata"]["name"]
    place = ["-n", asked["namespace"]]
    try:
        workload = kube.get(*place, asked["workload"])
    except Missing:
        say(f"{network}: {asked['workload']} is not in {asked['namespace']}: there is no provider to scale down")
    else:
        before = workload["spec"].get("replicas", 1)
        notes = [f"{holder(root)}={name}"]
        # The number is noted before it is changed, and not overwritten by a second one who comes and finds none.
        if before and REPLICAS not in annotations(workload):
            notes.append(f"{REPLICAS}={before}")
        kube.call(*place, "annotate", "--overwrite", asked["workload"], *notes)
        kube.call(*place, "scale", asked["workload"], "--replicas=0")
        ends_at = clock() + STOP_S
        while kube.get(*place, asked["workload"])["status"].get("replicas", 0):
            if clock() >= ends_at:
                raise Refused(f"{asked['workload']} was scaled to none and still has a pod after {STOP_S:.0f} s")
            sleep(POLL_S)
        say(f"{network}: {asked['workload']} is scaled to none")
    if not node["spec"].get("unschedulable"):
        kube.call("annotate", "--overwrite", "node", name, f"{HELD}={network}")
        kube.call("cordon", name)
        say(f"{network}: node {name} is cordoned")
    elif HELD not in annotations(node):
        say(f"{network}: node {name} was cordoned already by somebody else, and will stay so")


def release(network: str, root: str = "", kube: "Cluster | None" = None) -> None:
    """Take back what `hold` did for this host; the node first, for the provider bids as soon as it is up."""
    asked = read(network, root)
    kube = kube or cluster(root)
    node = own_node(kube, root)
    name = node["metadata"]["name"]
    if HELD in annotations(node):
        kube.call("uncordon", name)
        kube.call("annotate", "node", name, HELD + "-")
        say(f"{network}: node {name} takes pods again")
    place = ["-n", asked["namespace"]]
    try:
        workload = kube.get(*place, asked["workload"])
    except Missing:
        return
    if holder(root) not in holders(workload):
        return
    # Who is last is seen after one's own note is gone: of two who let go at once, at least one then sees none left.
    kube.call(*place, "annotate", asked["workload"], holder(root) + "-")
    workload = kube.get(*place, asked["workload"])
    left = holders(workload)
    if left:
        others = ", ".join(annotations(workload)[key] for key in left)
        say(f"{network}: {asked['workload']} stays scaled to none for {others}")
        return
    wanted = annotations(workload).get(REPLICAS)
    if wanted is not None and wanted.isdigit():
        kube.call(*place, "scale", asked["workload"], f"--replicas={wanted}")
        kube.call(*place, "annotate", asked["workload"], REPLICAS + "-")
        say(f"{network}: {asked['workload']} is scaled to {wanted} again")


def jobs(network: str, root: str = "", kube: "Cluster | None" = None) -> "list[str]":
    """The tenants' pods on this node that have not ended."""
    asked = read(network, root)
    kube = kube or cluster(root)
    name = own_node(kube, root)["metadata"]["name"]
    pods = kube.get("pods", "--all-namespaces", "-l", asked["jobs"], "--field-selector", f"spec.nodeName={name}")
    return sorted(
        f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
        for pod in pods["items"]
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    )


def evict(network: str, root: str = "", kube: "Cluster | None" = None) -> None:
    """End what still runs on this node, but for what belongs to every node."""
    read(network, root)
    kube = kube or cluster(root)
    name = own_node(kube, root)["metadata"]["name"]
    options = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", f"--timeout={EVICT_S}s"]
    kube.call("drain", name, *options, limit_s=EVICT_S + CALL_S)
    say(f"{network}: node {name} is drained")


# What the unit runs, and what the watchdog asks.


class _Told(Exception):
    pass


def run(network: str, root: str = "", sleep: "Callable[[float], None]" = time.sleep) -> int:
    """Give the node out while this runs; an exit code."""
    said = ""
    try:
        while True:
            try:
                release(network, root)
                break
            except Refused as problem:
                # After a boot the API server comes up later than this; and Kubernetes may be installed only now.
                if str(problem) != said:
                    said = str(problem)
                    say(f"{network}: {said}; looked at again every {LOOK_S:.0f} s")
                sleep(LOOK_S)
        while True:
            sleep(LOOK_S)
    except _Told:
        pass
    try:
        hold(network, root)
    except Absent:
        pass
    except Refused as problem:
        say(f"{network}: {problem}; the node may still take pods")
        return 1
    return 0


def health(network: str, root: str = "", kube: "Cluster | None" = None) -> "list[str]":
    """Why the cluster can not give this node's GPUs out, in words."""
    asked = read(network, root)
    try:
        kube = kube or cluster(root)
        node = own_node(kube, root)
        told = of_node(node, cards(root))
        try:
            told += of_workload(kube.get("-n", asked["namespace"], asked["workload"]), asked, holder(root))
        except Missing:
            told.append(f"{asked['workload']} is not in {asked['namespace']}: the provider is not installed")
        return told
    except Refused as problem:
        return [str(problem)]


def of_node(node: "Json", wanted: int) -> "list[str]":
    name = node["metadata"]["name"]
    told = []
    ready = [one for one in node["status"].get("conditions", []) if one["type"] == "Ready"]
    if not ready or ready[0]["status"] != "True":
        why = ready[0].get("message", "") if ready else "its kubelet has not reported"
        told.append(f"node {name} is not ready: {why}")
    if node["spec"].get("unschedulable"):
        told.append(f"node {name} is cordoned: it takes no pods")
    given = int(node["status"].get("allocatable", {}).get(GPU, 0))
    if given < wanted:
        told.append(f"node {name} gives out {given} of {wanted} GPUs: look at the device plugin")
    return told


def of_workload(workload: "Json", asked: "Json", own: str) -> "list[str]":
    """A provider that another node holds is no fault of this one."""
    wanted = workload["spec"].get("replicas", 1)
    if not wanted:
        held = [key for key in holders(workload) if key != own]
        return [] if held else [f"{asked['workload']} is scaled to none"]
    ready = workload["status"].get("readyReplicas", 0)
    return [] if ready >= wanted else [f"{asked['workload']}: {ready} of {wanted} are ready"]


def cards(root: str) -> int:
    """How many GPUs this host was enrolled with."""
    try:
        record = gate.opened(gate.read(root + gate.RECORD) or "", gate.read(root + gate.KEYS) or "")
        return len(record["stack"]["gpus"])
    except (gate.Closed, KeyError, TypeError):
        return 0


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main(argv: "list[str]", root: str = "") -> int:
    verbs = ("hold", "release", "jobs", "evict", "run", "health", "open")
    if len(argv) != 2 or argv[0] not in verbs or not all(sign.isalnum() or sign == "-" for sign in argv[1]):
        sys.stderr.write((__doc__ or "").partition("\n\n")[2])
        return 2
    verb, network = argv
    try:
        if verb == "run":
            signal.signal(signal.SIGTERM, stop)
            return run(network, root)
        if verb in ("jobs", "health"):
            found = jobs(network, root) if verb == "jobs" else health(network, root)
            for line in found:
                print(line)
            return 1 if found else 0
        if verb == "open":
            return 1 if own_node(cluster(root), root)["spec"].get("unschedulable") else 0
        {"hold": hold, "release": release, "evict": evict}[verb](network, root)
        return 0
    except Absent as problem:
        say(f"{network}: {problem}")
        return 1 if verb == "open" else 0
    except Refused as problem:
        say(f"{network}: {problem}")
        return 4


def stop(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not end what holds the node back
    raise _Told


def entry() -> None:
    sys.exit(main(sys.argv[1:]))
