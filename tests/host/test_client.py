"""A client stops without ending a job: the gate closes, a job is waited for, and a busy one is left in peace."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from provisioner.host import client, cluster, gate


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def marked(root: Path, network: str = "lium") -> bool:
    return (root / gate.DRAINED[1:] / network).exists()


def drain(root: Path, left: list[list[str]], wait_s: float = 60, **options: Any) -> tuple[int, float, list[Any]]:
    """Drain while `left` tells, look by look, what runs; its last answer stays."""
    time, ran = Time(), []
    looks = iter(left)
    last: list[str] = []

    def look() -> list[str]:
        nonlocal last
        assert marked(root), "the gate must be closed before anybody waits"
        last = next(looks, last)
        return last

    def run(words: tuple[str, ...]) -> int:
        ran.append(words)
        return options.get("rc", 0)  # type: ignore[no-any-return]

    rc = client.drain(
        "lium",
        wait_s,
        None,
        options.get("do", ()),
        options.get("undo", ()),
        str(root),
        look,
        run,
        time.clock,
        time.sleep,
        options.get("then", ()),
        options.get("interrupt", False),
    )
    return rc, time.now - 1000.0, ran


def test_idle(tmp_path: Path) -> None:
    """Nothing to wait for, and the gate stays closed until it is taken back."""
    assert drain(tmp_path, [[]]) == (0, 0.0, [])
    assert marked(tmp_path)
    assert client.resume("lium", (), str(tmp_path)) == 0
    assert not marked(tmp_path)
    assert client.resume("lium", (), str(tmp_path)) == 0


def test_a_job_is_waited_for(tmp_path: Path) -> None:
    """As long as it takes, within the limit."""
    rc, took, _ = drain(tmp_path, [["process 7"], ["process 7"], []])
    assert (rc, took) == (0, 10.0)


def test_a_job_that_does_not_end_serves_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The gate opens again and what was done is undone: as if nobody had asked."""
    rc, took, ran = drain(tmp_path, [["container pod_7"]], wait_s=62, do=("scale", "0"), undo=("scale", "1"))

    assert (rc, took, ran) == (3, 62.0, [("scale", "0"), ("scale", "1")])
    assert not marked(tmp_path)
    assert "lium: still busy after 1.03333 min (container pod_7); it serves on" in capsys.readouterr().err


def test_a_command_that_fails_drains_nothing(tmp_path: Path) -> None:
    """Nobody waits, and the gate opens again."""
    assert drain(tmp_path, [[]], do=("kubectl",), rc=1) == (4, 0.0, [("kubectl",)])
    assert not marked(tmp_path)


def test_what_takes_a_drain_back_is_kept_until_it_was_done(tmp_path: Path) -> None:
    """The run may die and the host reboot in between; enrolment runs it, once, and again while it fails."""
    ran: list[tuple[str, ...]] = []
    rc = 0

    def run(words: tuple[str, ...]) -> int:
        ran.append(words)
        return rc

    assert drain(tmp_path, [[]], do=("scale", "0"), undo=("scale", "1"))[0] == 0
    rc = 1
    assert client.resume_all(str(tmp_path), run) == 4
    rc = 0
    assert client.resume_all(str(tmp_path), run) == 0
    assert client.resume_all(str(tmp_path), run) == 0
    assert ran == [("scale", "1"), ("scale", "1")]


def test_a_drain_that_came_to_nothing_leaves_nothing_to_take_back(tmp_path: Path) -> None:
    """A busy client was resumed already."""
    assert drain(tmp_path, [["process 7"]], do=("scale", "0"), undo=("scale", "1"))[0] == 3
    assert client.kept("lium", str(tmp_path)) == ()


def test_what_cannot_be_seen_is_not_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker does not answer: there may be a job."""
    time = Time()
    rc = client.drain("lium", 10, "pod_*", (), (), str(tmp_path), None, None, time.clock, time.sleep)

    assert rc == 3
    assert not marked(tmp_path)


@contextmanager
def docker(path: Path, names: list[str]) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        line, _ = server.accept()
        with line:
            assert line.recv(4096).startswith(b"GET /containers/json ")
            body = json.dumps([{"Names": [f"/{name}"]} for name in names]).encode()
            line.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        server.close()


def test_containers_that_carry_a_job(tmp_path: Path) -> None:
    """Those whose name fits; the client's own do not count."""
    with docker(tmp_path / "run/docker.sock", ["executor-executor-1", "pod_9", "pod_3"]):
        assert client.jobs("pod_*", str(tmp_path)) == ["container pod_3", "container pod_9"]


def test_compute_processes(tmp_path: Path) -> None:
    """Those that NVML names and those that hold the device, each once; NVML need not answer."""
    folder = tmp_path / "proc" / "42" / "fd"
    folder.mkdir(parents=True)
    (folder / "0").symlink_to("/dev/null")
    (folder / "5").symlink_to(client.COMPUTE)
    (folder / "6").symlink_to(client.COMPUTE)
    (tmp_path / "proc" / "43" / "fd").mkdir(parents=True)
    (tmp_path / "proc" / "self").mkdir()

    assert client.jobs(None, str(tmp_path), lambda: {"pids": [7, 42]}) == ["process 7", "process 42"]
    assert client.jobs(None, str(tmp_path), lambda: {"error": "no"}) == ["process 42"]


def test_the_last_command_comes_when_no_job_is_left(tmp_path: Path) -> None:
    """And not while one runs; that it fails changes nothing, for there is nothing left to lose."""
    assert drain(tmp_path, [["pod a"], []], do=("hold",), then=("evict",)) == (0, 5.0, [("hold",), ("evict",)])
    client.resume("lium", ("release",), str(tmp_path), lambda _: 0)

    rc, _, ran = drain(tmp_path, [["pod a"]], do=("hold",), undo=("release",), then=("evict",))
    assert (rc, ran) == (3, [("hold",), ("release",)])

    assert drain(tmp_path, [[]], then=("evict",), rc=1) == (0, 0.0, [("evict",)])


@pytest.mark.parametrize("mends", [True, False])
def test_a_drain_that_fails_half_way_is_taken_back(tmp_path: Path, mends: bool) -> None:
    """The client serves on; what could not be taken back stays noted for the next enrolment."""
    ran: list[tuple[str, ...]] = []

    def run(words: tuple[str, ...]) -> int:
        ran.append(words)
        return 0 if mends and words == ("release",) else 4

    rc = client.drain("lium", 60, None, ("hold",), ("release",), str(tmp_path), list, run)
    assert (rc, ran, marked(tmp_path)) == (4, [("hold",), ("release",)], False)
    assert client.kept("lium", str(tmp_path)) == (() if mends else ("release",))


def test_a_node_is_given_out_by_its_unit(tmp_path: Path) -> None:
    """After a boot the API server comes up later than the enrolment ends; the unit goes on trying, this would not."""
    config = tmp_path / "etc/provision/cluster/akash.json"
    ran: list[tuple[str, ...]] = []

    def run(words: tuple[str, ...]) -> int:
        ran.append(words)
        return 4

    undo = ("/usr/local/sbin/provision-cluster", "release", "akash")
    client.keep("akash", undo, str(tmp_path))
    assert client.resume("akash", (), str(tmp_path), run) == 4, "without a node it is a command like any other"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    assert client.resume_all(str(tmp_path), run) == 0
    assert (ran, client.kept("akash", str(tmp_path))) == ([undo], ())
    assert client.resume("akash", undo, str(tmp_path), run) == 4, "who asks for it by hand gets it"


def test_an_operator_who_does_not_wait(tmp_path: Path) -> None:
    """The node is held back and its pods are told to end; nothing that fails stops it. The way back is kept."""
    found = drain(tmp_path, [["pod a"]], do=("hold",), undo=("release",), then=("evict",), interrupt=True, rc=4)
    assert found == (0, 0.0, [("hold",), ("evict",)])
    assert marked(tmp_path)
    assert client.kept("lium", str(tmp_path)) == ("release",)


def test_pods_are_jobs_where_kubernetes_runs_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the processes, for a lease may be idle; a cluster that does not answer may have one."""
    (tmp_path / "proc").mkdir()
    config = tmp_path / "etc/provision/cluster/akash.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    monkeypatch.setattr(cluster, "jobs", lambda network, root: [f"pod of {network}"])
    ask = lambda: {"pids": [7]}  # noqa: E731
    assert client.jobs(None, str(tmp_path), ask, ("akash", "lium")) == ["pod of akash", "process 7"]
    assert client.jobs(None, str(tmp_path), ask, ("lium",)) == ["process 7"]

    def no(problem: Exception) -> None:
        def jobs(network: str, root: str) -> list[str]:
            raise problem

        monkeypatch.setattr(cluster, "jobs", jobs)

    no(cluster.Refused("connection refused"))
    with pytest.raises(client.Unseen, match="connection refused"):
        client.jobs(None, str(tmp_path), ask, ("akash",))
    no(cluster.Absent("no kubelet"))
    assert client.jobs(None, str(tmp_path), ask, ("akash",)) == ["process 7"]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["drain"],
        ["drain", "../etc"],
        ["drain", ".x"],
        ["drain", "a/b"],
        ["drain", "a", "--force"],
        ["open", "a"],
        ["jobs", "a"],
    ],
    ids=" ".join,
)
def test_what_is_not_understood_does_nothing(argv: list[str]) -> None:
    """A network's id is a file's name here, and no path."""
    assert client.main(argv) == 2


def test_commands_take_words_that_look_like_options() -> None:
    """`kubectl … --replicas=0` is passed on as it is."""
    argv = ["drain", "akash", "--wait", "60", "--undo", "kubectl", "--replicas=1", "--do", "kubectl", "--replicas=0"]
    assert client.parsed(argv) == {
        "": ["drain", "akash"],
        "--wait": ["60"],
        "--undo": ["kubectl", "--replicas=1"],
        "--do": ["kubectl", "--replicas=0"],
    }
    argv = ["drain", "akash", "--interrupt", "--then", "a", "--interrupt", "--do", "b"]
    assert client.parsed(argv) == {
        "": ["drain", "akash"],
        "--interrupt": [],
        "--then": ["a", "--interrupt"],
        "--do": ["b"],
    }
