"""A small Kubernetes API server of the tests' own: what kubectl asks for to scale, cordon, drain, label and apply.

It answers as the API reference documents (kubernetes.io/docs/reference/kubernetes-api): discovery, lists with label
and field selectors, merge patches, the scale and eviction subresources, 404, 409 and 429 as Status objects. It runs no
pods: a stateful set has as many as its scale says after the next look, and an evicted pod is gone. A real kubectl talks
to it.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]

# (group/version, plural) → kind, whether it lies in a namespace, short names
KINDS: dict[tuple[str, str], tuple[str, bool, list[str]]] = {
    ("v1", "nodes"): ("Node", False, ["no"]),
    ("v1", "namespaces"): ("Namespace", False, ["ns"]),
    ("v1", "pods"): ("Pod", True, ["po"]),
    ("apps/v1", "statefulsets"): ("StatefulSet", True, ["sts"]),
    ("apps/v1", "daemonsets"): ("DaemonSet", True, ["ds"]),
    ("apps/v1", "replicasets"): ("ReplicaSet", True, ["rs"]),
    ("node.k8s.io/v1", "runtimeclasses"): ("RuntimeClass", False, []),
}
VERBS = ["create", "delete", "get", "list", "patch", "update"]


class KubeApi:
    """The objects of the cluster, and what was asked of it."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str, str], Json] = {}
        self.requests: list[tuple[str, str]] = []
        self.protected: set[str] = set()  # pods that a disruption budget keeps
        self.refuse: dict[str, int] = {}  # part of a path of a request that changes something → status it gets
        self.sticky = False  # pods of a stateful set that was scaled to none do not end
        self.lock = threading.RLock()
        self.revision = 1
        self.url = ""

    def add(self, group: str, plural: str, name: str, namespace: str = "", **body: Any) -> Json:
        metadata = {"name": name, "uid": f"uid-{plural}-{name}", **body.pop("metadata", {})}
        if namespace:
            metadata["namespace"] = namespace
        kind = KINDS[group, plural][0]
        made = {"apiVersion": group, "kind": kind, "metadata": metadata, **body}
        self.put((group, plural, namespace, name), made)
        return made

    def put(self, key: tuple[str, str, str, str], thing: Json) -> None:
        self.revision += 1
        thing["metadata"]["resourceVersion"] = str(self.revision)
        self.objects[key] = thing

    def node(self, name: str, *, boot: str, machine: str, gpus: int = 1, **spec: Any) -> Json:
        return self.add(
            "v1",
            "nodes",
            name,
            spec=spec,
            status={
                "nodeInfo": {"bootID": boot, "machineID": machine},
                "conditions": [{"type": "Ready", "status": "True", "message": "kubelet is posting ready status"}],
                "allocatable": {"cpu": "8", "nvidia.com/gpu": str(gpus)},
            },
        )

    def pod(self, name: str, namespace: str, node: str, *, owner: str = "ReplicaSet", **labels: str) -> Json:
        reference = {"apiVersion": "apps/v1", "kind": owner, "name": f"{name}-owner", "uid": "u", "controller": True}
        if owner != "none":
            plural = f"{owner.lower()}s"
            self.add("apps/v1", plural, f"{name}-owner", namespace, spec={"replicas": 1}, status={})
        return self.add(
            "v1",
            "pods",
            name,
            namespace,
            metadata={
                "labels": {key.replace("__", "/").replace("_", "."): value for key, value in labels.items()},
                "ownerReferences": [reference] if owner != "none" else [],
            },
            spec={"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
            status={"phase": "Running"},
        )

    def stateful_set(self, name: str, namespace: str, replicas: int = 1) -> Json:
        return self.add(
            "apps/v1",
            "statefulsets",
            name,
            namespace,
            spec={"replicas": replicas, "serviceName": name, "selector": {"matchLabels": {"app": name}}},
            status={"replicas": replicas, "readyReplicas": replicas},
        )

    def get(self, group: str, plural: str, name: str, namespace: str = "") -> Json:
        return self.objects[group, plural, namespace, name]

    def changed(self) -> list[str]:
        """The requests that changed something, as `PATCH nodes/rig-01`."""
        return [f"{method} {path}" for method, path in self.requests if method != "GET"]


def discovery(path: str) -> Json | None:
    groups = sorted({group for group, _ in KINDS if "/" in group} | {"policy/v1"})
    if path == "/version":
        return {"major": "1", "minor": "35", "gitVersion": "v1.35.3+k3s1"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        listed = []
        for group in groups:
            version = {"groupVersion": group, "version": group.partition("/")[2]}
            listed.append({"name": group.partition("/")[0], "versions": [version], "preferredVersion": version})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    group = path.removeprefix("/apis/").removeprefix("/api/")
    resources: list[Json] = [
        {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": inside, "shortNames": short}
        | {"verbs": VERBS}
        for (of, plural), (kind, inside, short) in KINDS.items()
        if of == group
    ]
    if group == "v1":
        resources.append(
            {"name": "pods/eviction", "kind": "Eviction", "group": "policy", "version": "v1", "namespaced": True}
            | {"singularName": "", "verbs": ["create"]}
        )
    if group == "apps/v1":
        resources.append(
            {"name": "statefulsets/scale", "kind": "Scale", "group": "autoscaling", "version": "v1"}
            | {"singularName": "", "namespaced": True, "verbs": ["get", "patch", "update"]}
        )
    if group not in (*groups, "v1"):
        return None
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": resources}


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396; what is patched here has no lists that a strategic merge would treat otherwise."""
    if not isinstance(patch, dict):
        return patch
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def chosen(thing: Json, query: dict[str, list[str]]) -> bool:
    labels = thing["metadata"].get("labels", {})
    for term in filter(None, query.get("labelSelector", [""])[0].split(",")):
        key, equals, value = term.partition("=")
        if key not in labels or (equals and labels[key] != value.lstrip("=")):
            return False
    for term in filter(None, query.get("fieldSelector", [""])[0].split(",")):
        key, _, value = term.partition("=")
        at: Any = thing
        for part in key.split("."):
            at = at.get(part, {})
        if at != value:
            return False
    return True


class _Handler(BaseHTTPRequestHandler):
    api: KubeApi
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body go out as one: sent apart, the second waits 40 ms for the client's delayed ACK

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, body: Json) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refusal(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code}
        self.answer(code, {**status, "reason": reason, "message": message, "details": {"retryAfterSeconds": 1}})

    def body(self) -> Json:
        size = int(self.headers.get("Content-Length", 0))
        return dict(json.loads(self.rfile.read(size) or b"{}"))

    def handle_any(self) -> None:
        split = urlsplit(self.path)
        path, query = unquote(split.path), parse_qs(split.query)
        body = self.body() if self.command in ("POST", "PUT", "PATCH") else {}
        with self.api.lock:
            found = discovery(path) if self.command == "GET" else None
            if found is not None:
                self.answer(200, found)
                return
            self.serve(path, query, body)

    def serve(self, path: str, query: dict[str, list[str]], body: Json) -> None:
        api = self.api
        words = path.strip("/").split("/")
        group, words = ("v1", words[2:]) if words[0] == "api" else ("/".join(words[1:3]), words[3:])
        namespace = ""
        if words[:1] == ["namespaces"] and len(words) > 2:
            namespace, words = words[1], words[2:]
        plural, name, sub = (*words, "", "", "")[:3]
        api.requests.append((self.command, "/".join(filter(None, (plural, name, sub)))))
        for part, code in api.refuse.items():
            if self.command != "GET" and part in path:
                self.refusal(code, "Forbidden", f'{plural} "{name}" is forbidden: the tests say so')
                return
        if (group, plural) not in KINDS:
            self.refusal(404, "NotFound", "the server could not find the requested resource")
            return
        key = (group, plural, namespace, name)
        if not name:
            self.collection(group, plural, namespace, query, body)
        elif self.command == "POST" and sub == "eviction":
            self.evict(key)
        elif key not in api.objects:
            self.refusal(
                404, "NotFound", f'{plural}{"." + group.partition("/")[0] if "/" in group else ""} "{name}" not found'
            )
        elif sub == "scale":
            self.scale(key, body)
        elif self.command == "PATCH":
            wanted = body.get("metadata", {}).get("resourceVersion")
            if wanted is not None and wanted != api.objects[key]["metadata"]["resourceVersion"]:
                self.refusal(
                    409, "Conflict", "the object has been modified; please apply your changes to the latest version"
                )
                return
            if "dryRun" not in query:
                api.put(key, merged(api.objects[key], body))
            self.answer(200, api.objects[key])
        else:
            self.settle(api.objects[key])
            self.answer(200, api.objects[key])

    def collection(self, group: str, plural: str, namespace: str, query: dict[str, list[str]], body: Json) -> None:
        api = self.api
        if self.command == "POST":
            made = body["metadata"]["name"]
            made_in = namespace or body["metadata"].get("namespace", "")
            api.put((group, plural, made_in, made), body)
            self.answer(201, body)
            return
        items = [
            copy.deepcopy(thing)
            for (of, what, where, _), thing in sorted(api.objects.items())
            if (of, what) == (group, plural) and namespace in ("", where) and chosen(thing, query)
        ]
        kind = KINDS[group, plural][0]
        self.answer(
            200, {"kind": f"{kind}List", "apiVersion": group, "metadata": {"resourceVersion": "1"}, "items": items}
        )

    def scale(self, key: tuple[str, str, str, str], body: Json) -> None:
        thing = self.api.objects[key]
        if self.command in ("PUT", "PATCH"):
            thing["spec"]["replicas"] = body["spec"]["replicas"]
            self.api.put(key, thing)
        self.answer(
            200,
            {
                "kind": "Scale",
                "apiVersion": "autoscaling/v1",
                "metadata": {k: thing["metadata"][k] for k in ("name", "namespace", "uid", "resourceVersion")},
                "spec": {"replicas": thing["spec"]["replicas"]},
                "status": {"replicas": thing["status"]["replicas"], "selector": "app=x"},
            },
        )

    def settle(self, thing: Json) -> None:
        """What the controller would have done by the next look."""
        wanted = thing.get("spec", {}).get("replicas")
        if thing["kind"] == "StatefulSet" and not (self.api.sticky and not wanted):
            self.api.objects["apps/v1", "statefulsets", thing["metadata"]["namespace"], thing["metadata"]["name"]] = {
                **thing,
                "status": {"replicas": wanted, "readyReplicas": wanted},
            }

    def evict(self, key: tuple[str, str, str, str]) -> None:
        if key[3] in self.api.protected:
            self.refusal(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")
            return
        if self.api.objects.pop(key, None) is None:
            self.refusal(404, "NotFound", f'pods "{key[3]}" not found')
            return
        self.answer(201, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any


@contextmanager
def kube_api(address: str = "127.0.0.1") -> Iterator[KubeApi]:
    """A server on a port of its own; lab hosts reach it by the address that their network has for this machine."""
    api = KubeApi()
    handler = type("Handler", (_Handler,), {"api": api})
    server = ThreadingHTTPServer((address, 0), handler)
    api.url = f"http://{address}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kubeconfig(url: str) -> str:
    """The client configuration that leads to a server."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": {"server": url}}],
            "users": [{"name": "tests", "user": {"token": "none"}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }
    )
