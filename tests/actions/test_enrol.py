"""Only a host that passed every required check, in this run and for this lock entry, is let in."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from provisioner.actions.enrol import (
    CLIENT,
    CLOSE,
    GATE,
    LATER,
    OBSERVE,
    RELEASE,
    SETTLE,
    HostEnroller,
    signed_record,
)
from provisioner.actions.verify import settle, verify
from provisioner.errors import HostError
from provisioner.model.capture import CommandOutput
from provisioner.model.enrolment import (
    RECORD,
    Binding,
    Card,
    EnrolledStack,
    EnrolmentRecord,
    lock_digest,
    read_record,
)
from provisioner.model.history import Stack
from provisioner.model.inventory import InventoryHost
from provisioner.model.results import CheckResult, Fault, HostVerification
from provisioner.model.stack import Choice, Lock, Reason
from provisioner.model.tunnel import TunnelLock
from tests.enrolments import GPU, HOST_KEY, MACHINE, observation
from tests.world import DRIVER, WHEN, entry, locked

HOST = InventoryHost("rig-01", {}, entry().intent)


class Key:
    fingerprint = "SHA256:test"

    def sign(self, data: bytes) -> bytes:
        return b"signed:" + data[:4]


class Noon:
    def now(self) -> datetime:
        return WHEN


@dataclass
class Ledger:
    records: dict[str, EnrolmentRecord] = field(default_factory=dict)

    def keep(self, record: EnrolmentRecord) -> None:
        self.records[record.host] = record

    def drop(self, host: str) -> None:
        self.records.pop(host, None)


def answer(**changes: object) -> CommandOutput:
    return CommandOutput(rc=0, stdout=observation(**changes).model_dump_json())


@dataclass
class Shell:
    """Remembers what was run; answers RELEASE and CLOSE with the codes given, and OBSERVE as a gate does."""

    release: int = 0
    close: int = 0
    gate: CommandOutput = field(default_factory=lambda: answer())
    ran: list[tuple[str, str]] = field(default_factory=list)

    def run(self, host: InventoryHost, script: str, stdin: str = "", timeout_s: float = 60) -> CommandOutput:
        self.ran.append((script, stdin))
        if script == OBSERVE:
            return self.gate
        rc = {SETTLE: 0, RELEASE: self.release, LATER + RELEASE: self.release, CLOSE: self.close}[script]
        return CommandOutput(rc=rc, stderr="Failed to enable unit\n" if rc else "")


def result(status: str = "passed", *, required: bool = True) -> CheckResult:
    return CheckResult("rig-01", "driver-loaded", "Loaded driver", status, required, "words")  # type: ignore[arg-type]


def verification(*results: CheckResult, fault: Fault | None = None) -> HostVerification:
    return HostVerification("rig-01", "r1", lock_digest(entry()), results or (result(),), fault)


def enroller(shell: Shell, ledger: Ledger | None = None) -> HostEnroller:
    return HostEnroller(shell, ledger or Ledger(), Key, Noon(), lambda: "ssh-ed25519 AAAA\n")


def test_a_host_that_passed_gets_its_record_and_its_clients() -> None:
    """The record names host, lock, matrix, run, checks, time and key, and goes to host and controller."""
    shell, ledger = Shell(), Ledger()
    enroller(shell, ledger).enrol(HOST, verification(), entry(), matrix="m1")
    [(look, _), (first, stack), (second, text)] = shell.ran
    line, keys = text.split("\n", 1)
    record = read_record(line)

    assert (look, first, second, keys) == (OBSERVE, SETTLE, RELEASE, "ssh-ed25519 AAAA\n")
    assert Stack.model_validate_json(stack).matrix == "m1"
    assert lock_digest(Stack.model_validate_json(stack).entry) == lock_digest(entry())
    assert record == ledger.records["rig-01"]
    assert record is not None
    assert (record.host, record.lock_digest, record.matrix_digest) == ("rig-01", lock_digest(entry()), "m1")
    assert (record.run, record.enrolled_at, record.key) == ("r1", WHEN, "SHA256:test")
    assert [(check.id, check.status, check.required) for check in record.checks] == [("driver-loaded", "passed", True)]
    assert record.signature
    assert record.bound_to == Binding(machine=MACHINE, host_key=HOST_KEY)
    assert record.networks == {"akash": "0.16.2"}
    assert record.expires_at - record.enrolled_at == timedelta(days=30)
    assert record.stack == EnrolledStack(
        driver=DRIVER, flavour="proprietary", gpus=(Card(**GPU),), docker="20.10.24+dfsg1", clock_kept=True
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"driver": "535.216.03"}, "loaded driver 535.216.03, locked 535.261.03"),
        ({"driver": None}, "loaded driver none, locked 535.261.03"),
        ({"flavour": "open"}, "loaded module open, locked proprietary"),
        ({"nvml": {"error": "Driver/library version mismatch (18)"}}, "NVML: Driver/library version mismatch (18)"),
        ({"nvml": {"driver": "535.309.01", "gpus": []}}, "NVML reports driver 535.309.01, locked 535.261.03"),
        ({"docker": None}, "Docker does not answer"),
        ({"machine": None}, "it has no machine-id to bind the record to"),
        (
            {"cdi": {"/etc/cdi/nvidia.yaml": ("535.216.03",)}},
            "/etc/cdi/nvidia.yaml names driver 535.216.03, loaded is 535.261.03: "
            "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_the_gate_is_asked_before_anything_is_signed(changes: dict[str, object], said: str) -> None:
    """A record that the gate would not honour is not written: the host may have changed since its checks."""
    shell = Shell(gate=answer(**changes))
    with pytest.raises(HostError) as caught:
        enroller(shell).enrol(HOST, verification(), entry(), matrix="m1")

    assert (caught.value.reference, caught.value.context) == ("gate-sees-otherwise", (said,))
    assert [script for script, _ in shell.ran] == [OBSERVE]


@pytest.mark.parametrize(
    ("gate", "reference"),
    [
        (CommandOutput(rc=127), "no-gate"),
        (CommandOutput(rc=1, stderr="Traceback\nImportError: x\n"), "gate-not-answering"),
        (CommandOutput(rc=0, stdout="{}"), "gate-not-answering"),
    ],
)
def test_a_host_without_a_gate_is_not_enrolled(gate: CommandOutput, reference: str) -> None:
    """One that an older provision set up gets it with the next apply."""
    shell = Shell(gate=gate)
    with pytest.raises(HostError) as caught:
        enroller(shell).enrol(HOST, verification(), entry(), matrix="m1")

    assert caught.value.reference == reference
    assert [script for script, _ in shell.ran] == [OBSERVE]


@pytest.mark.parametrize(
    ("results", "let_in"),
    [
        ((result("failed"),), False),
        ((result("unknown"),), False),
        ((result(), result("unknown")), False),
        ((result(), result("failed", required=False)), True),
        ((result(), result("unknown", required=False)), True),
        ((result(), result("not-applicable")), True),
    ],
    ids=["failed", "unknown", "one-unknown", "advisory-failed", "advisory-unknown", "not-applicable"],
)
def test_required_checks_decide(results: tuple[CheckResult, ...], let_in: bool) -> None:
    """A required check that failed, or could not be made, keeps the host out; an advisory one does not."""
    shell = Shell()
    if let_in:
        enroller(shell).enrol(HOST, verification(*results), entry(), matrix="m1")
        assert [script for script, _ in shell.ran] == [OBSERVE, SETTLE, RELEASE]
        return
    with pytest.raises(HostError) as caught:
        enroller(shell).enrol(HOST, verification(*results), entry(), matrix="m1")

    assert caught.value.reference == "not-verified"
    assert caught.value.context == ("Loaded driver: words",)
    assert [script for script, _ in shell.ran] == [OBSERVE]


def test_no_checks_at_all_is_no_pass() -> None:
    """An empty table must not let anybody in."""
    empty = replace(verification(), results=())
    with pytest.raises(HostError, match="no check was made"):
        signed_record(empty, entry(), observation(), matrix="m1", signer=Key(), clock=Noon())


def test_checks_for_another_lock_entry_do_not_count() -> None:
    """The lock may have been resolved anew between the checks and now."""
    with pytest.raises(HostError) as caught:
        signed_record(
            verification(),
            entry(kernels=("6.1.0-51-amd64",)),
            observation(),
            matrix="m1",
            signer=Key(),
            clock=Noon(),
        )

    assert caught.value.reference == "verified-for-another-lock"


def test_a_host_whose_units_do_not_start_is_closed_again() -> None:
    """No half-enrolled host: the record goes when the clients could not be released."""
    shell, ledger = Shell(release=1), Ledger()
    with pytest.raises(HostError) as caught:
        enroller(shell, ledger).enrol(HOST, verification(), entry(), matrix="m1")

    assert caught.value.reference == "not-released"
    assert [script for script, _ in shell.ran] == [OBSERVE, SETTLE, RELEASE, CLOSE]
    assert ledger.records == {}


def test_a_host_that_cannot_be_closed_is_an_error() -> None:
    """It may still serve, and somebody must know."""
    with pytest.raises(HostError) as caught:
        enroller(Shell(close=1)).withdraw(HOST)

    assert caught.value.reference == "not-withdrawn"


@dataclass
class Verifier:
    answers: dict[str, HostVerification]

    def verify(self, hosts, locked, *, run):  # type: ignore[no-untyped-def]
        return {host.name: self.answers[host.name] for host in hosts}


def test_settle_lets_in_closes_and_leaves_alone() -> None:
    """Passed: in. Failed: out. Not reached, or not in the lock: left as it is, for nothing is known of it."""
    hosts = [InventoryHost(name, {}, entry().intent) for name in ("good", "bad", "dark", "new")]
    lock = Lock(made_by="x", matrix="m1", hosts={name: entry() for name in ("good", "bad", "dark")})
    answers = {
        "good": replace(verification(), host="good"),
        "bad": replace(verification(result("failed")), host="bad"),
        "dark": HostVerification("dark", "r1", "", (), Fault("host-unreachable", "dark gave no shell")),
    }
    shell = Shell()
    verified = verify(hosts, lock, Verifier(answers), run="r1")
    settle(verified, hosts, lock, enroller(shell))

    assert (verified.enrolled, verified.withdrawn) == (["good"], ["bad"])
    assert [script for script, _ in shell.ran] == [OBSERVE, SETTLE, RELEASE, CLOSE]
    assert {name: problem.reference for name, problem in verified.failed.items()} == {"new": "host-not-locked"}
    assert not verified.passed


# The scripts themselves, with a systemctl that writes down what it was asked.


def run_script(
    tmp_path: Path, script: str, text: str = "", systemctl: str = "exit 0", gate: str = "exit 0"
) -> tuple[int, list[str]]:
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    log = tmp_path / "log"
    log.unlink(missing_ok=True)
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$*" >>{log}\n{systemctl}\n')
    (tools / "chown").write_text("#!/bin/sh\n")
    (tools / "provision-gate").write_text(f"#!/bin/sh\n{gate}\n")
    (tools / "provision-client").write_text(f'#!/bin/sh\necho "client $*" >>{log}\n')
    (tools / "sleep").write_text(f"#!/bin/sh\necho . >>{tmp_path}/slept\n")
    (tools / "date").write_text(f"#!/bin/sh\necho $((3 * $(wc -l <{tmp_path}/slept)))\n")
    (tmp_path / "slept").write_text("")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    here = script.replace("/var/lib/provision", str(tmp_path / "lib")).replace(GATE, str(tools / "provision-gate"))
    here = here.replace(CLIENT, str(tools / "provision-client")).replace("/usr/share", str(tmp_path / "share"))
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", here], input=text, text=True, env=environment, check=False)
    return done.returncode, log.read_text().splitlines() if log.exists() else []


def test_release_writes_the_record_whole_and_enables_the_target(tmp_path: Path) -> None:
    """The record is there, readable by all, with nothing beside it."""
    rc, asked = run_script(tmp_path, RELEASE, '{"a": "\\\\n"}\nssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n')
    record = tmp_path / "lib" / Path(RECORD).name

    assert (rc, asked) == (0, ["enable --now provision-clients.target", "client resume-all"])
    assert record.read_text() == '{"a": "\\\\n"}\n'
    assert record.stat().st_mode & 0o777 == 0o644
    assert (record.parent / "trusted_keys").read_text() == "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n"
    assert sorted(path.name for path in record.parent.iterdir()) == [record.name, "trusted_keys"]


def test_release_leaves_the_clients_stopped_when_the_gate_stays_closed(tmp_path: Path) -> None:
    """The enroller then closes the host again; only a tunnel is waited for."""
    rc, asked = run_script(tmp_path, RELEASE, "{}\n", gate="exit 1")

    assert (rc, asked, (tmp_path / "slept").read_text()) == (1, [], "")


SILENT = "echo 'the clients stay stopped: the tunnel carries nothing: hub-01 does not answer' >&2"


def test_release_waits_for_a_tunnel_that_was_switched_just_now(tmp_path: Path) -> None:
    """The keeper's note may be of a moment in which the far end was being switched too."""
    rc, asked = run_script(
        tmp_path, RELEASE, "{}\n", gate=f"[ $(wc -l <{tmp_path}/slept) -ge 5 ] && exit 0\n{SILENT}\nexit 1"
    )

    assert (rc, asked) == (0, ["enable --now provision-clients.target", "client resume-all"])


def test_release_does_not_wait_for_ever(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A far end that stays silent keeps the gate closed, with the gate's words."""
    rc, asked = run_script(tmp_path, RELEASE, "{}\n", gate=f"{SILENT}\nexit 1")

    assert (rc, asked) == (1, [])
    assert "hub-01 does not answer" in capfd.readouterr().err
    assert (tmp_path / "slept").read_text().count(".") == 15


@pytest.mark.parametrize(
    ("said", "rc"), [(SILENT, 0), (f"{SILENT}; echo 'the clients stay stopped: GPU-1 is gone' >&2", 1)]
)
def test_a_tunnel_that_is_still_to_come_is_not_waited_for(tmp_path: Path, said: str, rc: int) -> None:
    """What is silent then is the tunnel of before; any other reason of the gate keeps its weight."""
    done, asked = run_script(tmp_path, LATER + RELEASE, "{}\n", gate=f"{said}\nexit 1")

    assert (done, bool(asked), (tmp_path / "slept").read_text()) == (rc, rc == 0, "")


@pytest.mark.parametrize(("certificate", "script"), [(None, LATER + RELEASE), ("CERT", RELEASE)])
def test_which_tunnel_is_still_to_come(certificate: str | None, script: str) -> None:
    """A rig of Nebula that was removed and comes back: its hub has to sign before it can have its tunnel again."""
    tunnel = TunnelLock(kind="nebula", role="spoke", host="rig-01", public_key="KEY", certificate=certificate)
    one, shell = entry(tunnel=tunnel), Shell()
    assert tunnel.complete is (certificate is not None)
    enroller(shell).enrol(HOST, replace(verification(), lock_digest=lock_digest(one)), one, matrix="m1")

    assert [ran for ran, _ in shell.ran] == [OBSERVE, SETTLE, script]


def test_the_end_of_a_change_clears_away_what_a_killed_run_has_built(tmp_path: Path) -> None:
    """Its folder and its archive; what else a package has there stays, and nothing there is no error."""
    built = (tmp_path / "lib/build/dkms/x.ko", tmp_path / "share/nvidia-current-dkms/nvidia-current-535.dkms.tar.gz")
    other = tmp_path / "share/nvidia-dkms/README"
    for path in (*built, other):
        path.parent.mkdir(parents=True)
        path.touch()
    for _ in range(2):
        assert run_script(tmp_path, SETTLE, "{}\n") == (0, [])

    assert not any(path.parent.exists() for path in built)
    assert other.exists()
    assert (tmp_path / "lib/history/now.json").read_text() == "{}\n"


def test_close_stops_the_clients_before_it_takes_the_record(tmp_path: Path) -> None:
    """And it does both again without complaint."""
    run_script(tmp_path, RELEASE, "{}\n")
    record = tmp_path / "lib" / Path(RECORD).name
    rc, asked = run_script(tmp_path, CLOSE)

    assert rc == 0
    assert asked[1:] == ["stop provision-client@*.service", "disable --now provision-clients.target"]
    assert not record.exists()
    assert run_script(tmp_path, CLOSE)[0] == 0


def test_close_takes_the_record_even_when_a_unit_does_not_stop(tmp_path: Path) -> None:
    """It reports the failure, and the next boot releases nothing."""
    run_script(tmp_path, RELEASE, "{}\n")
    rc, _ = run_script(tmp_path, CLOSE, systemctl='[ "$1" != stop ]')

    assert rc == 1
    assert not (tmp_path / "lib" / Path(RECORD).name).exists()


def test_close_on_a_host_that_never_had_clients(tmp_path: Path) -> None:
    """No target there: nothing to stop, nothing to complain of."""
    rc, asked = run_script(tmp_path, CLOSE, systemctl='[ "$1" != cat ]')

    assert (rc, asked) == (0, ["cat provision-clients.target"])


def test_other_words_for_the_same_decision_keep_an_enrolment() -> None:
    """Resolving again tells the reasons anew; only what was decided counts, and any of that does."""
    decided = entry()
    reworded = entry(
        driver_version=Choice(value=DRIVER, because=(Reason(text="it is on this host already"),)),
        warnings=("driver branch 535 is past its end of life",),
    )
    moved = entry(driver_version=Choice(value="535.309.01"))
    unheld = entry(packages=(locked("nvidia-smi", hold=False),))

    assert lock_digest(reworded) == lock_digest(decided)
    assert len({lock_digest(decided), lock_digest(moved), lock_digest(unheld)}) == 3
