"""The gate opens for a host that is as its signed record says, and for nothing else."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioner.actions.enrol import Observation
from provisioner.adapters.signing import Signer, load_or_make, trusted_lines
from provisioner.host import gate
from provisioner.model.enrolment import PAYLOAD, EnrolledStack, EnrolmentRecord
from tests.enrolments import GPU, record
from tests.world import DRIVER, WHEN

NOW = WHEN.timestamp() + 3600
PROC = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {DRIVER}  Thu Feb 20\n"
CDI = f"- hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{DRIVER}\n"


def healthy(**changes: Any) -> dict[str, Any]:
    return {"driver": DRIVER, "gpus": [{**GPU, "temperature_c": 61, "slowdown_c": 90}], **changes}


@dataclass
class Host:
    """A host that is a folder: what the gate reads lies below `root`, what NVML answers is `nvml`."""

    root: Path
    signer: Signer
    nvml: dict[str, Any]
    at: float = NOW

    def write(self, path: str, text: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")

    def remove(self, path: str) -> None:
        (self.root / path.lstrip("/")).unlink()

    def observe(self) -> Observation:
        return Observation.model_validate(gate.observe(str(self.root), self.ask))

    def ask(self) -> dict[str, Any]:
        return self.nvml

    def enrol(self, signer: Signer | None = None, **changes: Any) -> EnrolmentRecord:
        """Sign what is seen, and write it where the gate looks."""
        seen = self.observe()
        by = signer or self.signer
        stack = EnrolledStack(driver=seen.driver, flavour=seen.flavour, gpus=[GPU], docker=seen.docker, cdi=seen.cdi)  # type: ignore[arg-type]
        values = {
            "bound_to": {"machine": seen.machine, "host_key": seen.host_key},
            "stack": stack,
            "key": by.fingerprint,
        }
        made = record(**(values | changes))
        made = made.model_copy(update={"signature": base64.b64encode(by.sign(made.signed_bytes)).decode()})
        self.write(gate.RECORD, made.text)
        return made

    def check(self, network: str | None = "akash") -> list[str]:
        return gate.check(network, str(self.root), self.ask, lambda: self.at)


@contextmanager
def docker_at(path: Path, version: list[str]) -> Iterator[None]:
    """Docker's socket, as far as the gate asks it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(8)

    def serve() -> None:
        while True:
            try:
                line, _ = server.accept()
            except OSError:
                return
            with line:
                line.recv(4096)
                body = json.dumps({"Version": version[0]}).encode()
                line.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


@pytest.fixture
def docker_version() -> list[str]:
    return ["20.10.24+dfsg1"]


@pytest.fixture
def host(tmp_path: Path, docker_version: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """An enrolled host."""
    root = tmp_path / "r"
    signer = load_or_make(tmp_path / "keys")
    one = Host(root, signer, healthy())
    one.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    one.write("/etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHR1 root@rig-01\n")
    one.write("/sys/module/nvidia/version", f"{DRIVER}\n")
    one.write("/proc/driver/nvidia/version", PROC)
    one.write("/etc/cdi/nvidia.yaml", CDI)
    one.write(gate.KEYS, trusted_lines(tmp_path / "keys"))
    monkeypatch.setattr(gate, "clock_kept", lambda: True)
    with docker_at(root / "run/docker.sock", docker_version):
        one.enrol()
        yield one


def test_open(host: Host) -> None:
    """As it was enrolled: for the networks it is enrolled for, and as a whole."""
    assert host.check("akash") == []
    assert host.check(None) == []


def silent_tunnel(host: Host, *peers: dict[str, Any]) -> None:
    """A host with these far ends, whose keeper noted that hub-01 does not answer."""
    host.write(gate.TUNNEL, json.dumps({"peers": peers}))
    host.write(gate.TUNNEL_NOTES, '{"peers": [{"host": "hub-01", "loss_pct": 100.0}]}')


CHANGES: dict[str, tuple[Callable[[Host], Any], str]] = {
    "foreign driver upgrade": (
        lambda host: host.write("/sys/module/nvidia/version", "535.309.01\n"),
        "the loaded driver is 535.309.01, enrolled with 535.261.03",
    ),
    "module not loaded": (
        lambda host: host.remove("/sys/module/nvidia/version"),
        "the loaded driver is none, enrolled with 535.261.03",
    ),
    "other flavour": (
        lambda host: host.write("/proc/driver/nvidia/version", PROC.replace("Kernel", "Open Kernel")),
        "the loaded module is open, enrolled with proprietary",
    ),
    "library newer than module": (
        lambda host: host.nvml.update({"error": "Driver/library version mismatch (18)"}),
        "NVML: Driver/library version mismatch (18)",
    ),
    "nvml of another driver": (
        lambda host: host.nvml.update(driver="535.309.01"),
        "NVML reports driver 535.309.01, enrolled with 535.261.03",
    ),
    "card gone": (lambda host: host.nvml.update(gpus=[]), "NVIDIA GeForce RTX 4090 (GPU-1) is gone"),
    "card added": (
        lambda host: host.nvml["gpus"].append({**GPU, "uuid": "GPU-2", "temperature_c": 40, "slowdown_c": 90}),
        "NVIDIA GeForce RTX 4090 (GPU-2) was not there when the host was enrolled",
    ),
    "hot": (
        lambda host: host.nvml["gpus"][0].update(temperature_c=95),
        "NVIDIA GeForce RTX 4090 is at 95 °C; it slows down at 90 °C",
    ),
    "cdi of another driver": (
        lambda host: host.write("/etc/cdi/nvidia.yaml", CDI.replace(DRIVER, "535.216.03")),
        "/etc/cdi/nvidia.yaml names driver 535.216.03, enrolled with 535.261.03",
    ),
    "silent tunnel": (
        lambda host: silent_tunnel(host, {"host": "hub-01", "endpoint": "203.0.113.1:51820"}),
        "the tunnel carries nothing: hub-01 does not answer",
    ),
    "cdi gone": (lambda host: host.remove("/etc/cdi/nvidia.yaml"), "/etc/cdi/nvidia.yaml is gone"),
    "expired": (
        lambda host: setattr(host, "at", NOW + 30 * 86400),
        "the enrolment ended at 2026-12-24T03:07:00Z",
    ),
    "clock set back": (
        lambda host: setattr(host, "at", NOW - 86400),
        "the clock says 2026-11-23T04:07:00Z, before the enrolment at 2026-11-24T03:07:00Z",
    ),
    "other machine": (
        lambda host: host.write("/etc/machine-id", "f" * 32 + "\n"),
        "the record was made for another machine (rig-01): its machine-id is not this host's",
    ),
    "no machine-id": (
        lambda host: host.remove("/etc/machine-id"),
        "the record was made for another machine (rig-01): its machine-id is not this host's",
    ),
    "no record": (lambda host: host.remove(gate.RECORD), "this host is not enrolled"),
    "no keys": (lambda host: host.remove(gate.KEYS), f"{gate.KEYS} names no key that may sign"),
    "drained": (
        lambda host: host.write(f"{gate.DRAINED}/akash", "2026-11-24T04:00:00Z for new memory\n"),
        "drained: 2026-11-24T04:00:00Z for new memory",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_closed(host: Host, name: str) -> None:
    """Each disagreement alone closes the gate, and is the one that is told."""
    change, said = CHANGES[name]
    change(host)

    assert host.check() == [said]


@pytest.mark.parametrize(
    "peers",
    [
        pytest.param([{"host": "hub-01", "endpoint": None}], id="it dials this host and may be switched off"),
        pytest.param(
            [{"host": "hub-02", "endpoint": "203.0.113.2:51820"}], id="it was a far end of the tunnel of before"
        ),
    ],
)
def test_a_silent_end_that_keeps_nothing_closed(host: Host, peers: list[dict[str, Any]]) -> None:
    """Only the way that this host opens itself is its own to keep."""
    silent_tunnel(host, *peers)

    assert host.check() == []


def test_notes_of_a_tunnel_that_was_taken_away(host: Host) -> None:
    """They stay until the next boot, for nobody writes them any more."""
    silent_tunnel(host, {"host": "hub-01", "endpoint": "203.0.113.1:51820"})
    host.remove(gate.TUNNEL)

    assert host.check() == []


def test_a_host_key_that_changed(host: Host) -> None:
    """Reinstalled, or the record was copied together with the machine-id."""
    host.write("/etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHR2 root@rig-01\n")

    [told] = host.check()
    assert told.startswith("the ssh host key is SHA256:")


def test_docker_of_another_version_and_none(host: Host, docker_version: list[str]) -> None:
    """The client would start containers with what nobody checked."""
    docker_version[0] = "29.0.0"
    assert host.check() == ["Docker is 29.0.0, enrolled with 20.10.24+dfsg1"]
    host.remove("/run/docker.sock")
    assert host.check() == ["Docker does not answer, enrolled with 20.10.24+dfsg1"]


def test_another_network(host: Host) -> None:
    """A host is enrolled for what its lock names."""
    assert host.check("ionet") == ["this host is enrolled for akash, not for ionet"]


def test_nothing_keeps_the_clock(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for only where something kept it at enrolment; what cannot be told does not count against the host."""
    monkeypatch.setattr(gate, "clock_kept", lambda: False)
    assert host.check() == []
    host.enrol(stack=EnrolledStack(driver=None, flavour=None, clock_kept=True))
    assert "nothing keeps the clock now; something did when the host was enrolled" in host.check()
    monkeypatch.setattr(gate, "clock_kept", lambda: None)
    assert not any("clock" in told for told in host.check())


def test_all_disagreements_are_told(host: Host) -> None:
    """Who mends one must not find the next at the next start."""
    host.write("/sys/module/nvidia/version", "535.309.01\n")
    host.remove("/etc/cdi/nvidia.yaml")

    assert len(host.check()) == 2


# Records that must not open it.


def edited(host: Host, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the statement inside the envelope, and keep the signature."""
    envelope = json.loads((host.root / gate.RECORD[1:]).read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(statement["predicate"])
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    host.write(gate.RECORD, json.dumps(envelope))


WRONG = "the signature of the enrolment record is wrong: it was edited or damaged"


def test_an_edited_record(host: Host) -> None:
    """To name the new driver in it does not open the gate."""
    host.write("/sys/module/nvidia/version", "535.309.01\n")
    edited(host, lambda predicate: predicate["stack"].update(driver="535.309.01"))
    assert host.check() == [WRONG]


def test_a_record_made_longer(host: Host) -> None:
    """Nor does another end."""
    edited(host, lambda predicate: predicate.update(expires_at="2036-01-01T00:00:00Z"))
    assert host.check() == [WRONG]


def test_a_forged_record(host: Host, tmp_path: Path) -> None:
    """A key of one's own is not trusted, whatever name it is given."""
    forger = load_or_make(tmp_path / "forger")
    host.enrol(forger)
    assert host.check() == [
        f"the enrolment record is signed with a key that this host does not trust ({forger.fingerprint})"
    ]
    host.enrol(forger, key=host.signer.fingerprint)
    assert host.check() == [WRONG]


def test_a_record_of_another_host(host: Host, tmp_path: Path) -> None:
    """Good signature, other machine."""
    text = (host.root / gate.RECORD[1:]).read_text()
    host.write("/etc/machine-id", "e" * 32)
    host.write("/etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHR3 root@rig-02\n")
    host.write(gate.RECORD, text)

    assert len(host.check()) == 2


def test_a_signature_over_something_else(host: Host) -> None:
    """The type is under the signature: what was signed as one thing is not read as another."""
    envelope = json.loads((host.root / gate.RECORD[1:]).read_text())
    host.write(gate.RECORD, json.dumps({**envelope, "payloadType": "text/plain"}))
    assert host.check() == [f"{gate.RECORD} holds text/plain, not an in-toto statement"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "null",
        "{}",
        '{"format": 1}',
        '{"payload": 1}',
        "\0",
        json.dumps({"payload": "", "payloadType": PAYLOAD, "signatures": []}),
    ],
)
def test_what_is_no_record(host: Host, text: str) -> None:
    """Rubbish closes the gate with words, not with a traceback."""
    host.write(gate.RECORD, text)
    [told] = host.check()
    assert told.startswith(("/var/lib/provision/enrolment.json is no", "the enrolment record", "the record"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(min_value=0), byte=st.integers(0, 255))
def test_any_byte_changed(host: Host, place: int, byte: int) -> None:
    """A record that differs in any byte of its statement or signature does not open the gate."""
    made = host.enrol()
    envelope = json.loads(made.text)
    payload = bytearray(base64.b64decode(envelope["payload"]))
    if payload[place % len(payload)] == byte:
        byte ^= 1
    payload[place % len(payload)] = byte
    envelope["payload"] = base64.b64encode(bytes(payload)).decode()
    host.write(gate.RECORD, json.dumps(envelope))

    assert host.check() == [WRONG]


# The command.


def test_the_words_of_the_journal(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line per reason, with its level for the journal and without for a person."""
    host.write("/sys/module/nvidia/version", "535.309.01\n")
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    arguments: dict[str, Any] = {"root": str(host.root), "ask": host.ask, "clock": lambda: NOW}
    assert gate.main(["check", "akash"], **arguments) == 1
    line = "akash stays stopped: the loaded driver is 535.309.01, enrolled with 535.261.03\n"
    assert capsys.readouterr().err == line
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    assert gate.main(["check", "akash"], **arguments) == 1
    assert capsys.readouterr().err == "<3>" + line
    host.write("/sys/module/nvidia/version", f"{DRIVER}\n")
    assert gate.main(["check", "akash"], **arguments) == 0
    assert capsys.readouterr().err == "<6>akash may start: the host is as it was enrolled\n"
    assert gate.main([]) == gate.main(["open"]) == 2


def test_what_may_pass_is_asked_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit learns it by 255, which systemd retries: clock, heat, engine; no other reason beside it."""
    arguments: dict[str, Any] = {"root": str(host.root), "ask": host.ask, "clock": lambda: NOW}
    assert gate.main(["admit", "akash"], **arguments) == 0
    host.enrol(stack=EnrolledStack(driver=DRIVER, flavour="proprietary", gpus=[GPU], clock_kept=True))  # type: ignore[list-item]
    monkeypatch.setattr(gate, "clock_kept", lambda: False)
    assert gate.main(["admit", "akash"], **arguments) == 255
    assert gate.main(["check", "akash"], **arguments) == 1
    host.write("/sys/module/nvidia/version", "535.309.01\n")
    assert gate.main(["admit", "akash"], **arguments) == 1
    assert gate.main(["admit"], **arguments) == 2


def test_an_error_of_the_gate_keeps_it_closed(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it was."""

    def clock() -> float:
        raise RuntimeError("no clock")

    assert gate.main(["check"], root=str(host.root), ask=host.ask, clock=clock) == 1
    assert "the clients stay stopped: the gate itself failed: RuntimeError: no clock" in capsys.readouterr().err


def test_a_card_that_hangs() -> None:
    """NVML of a sick card may never return: the gate does."""

    def hang() -> dict[str, Any]:
        threading.Event().wait()
        return {}

    assert gate.apart(hang, 0.2) == {"error": "no answer within 0.2 s"}


def test_an_nvml_that_crashes() -> None:
    """So does one that takes the process with it."""

    def crash() -> dict[str, Any]:
        import os

        os.kill(os.getpid(), 9)
        return {}

    assert gate.apart(crash, 5) == {"error": "the process that asked ended without an answer"}
