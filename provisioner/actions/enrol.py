"""Lets a host in, or keeps it out: the signed record, and the gate before the client units that it opens."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from provisioner import __version__
from provisioner.actions import trial
from provisioner.errors import HostError
from provisioner.model.enrolment import (
    RECORD,
    Binding,
    Card,
    EnrolledStack,
    EnrolmentRecord,
    RecordedCheck,
    lock_digest,
)
from provisioner.model.history import CLEAR_BUILD, HISTORY, NOW, Stack
from provisioner.model.inventory import InventoryHost
from provisioner.model.results import HostVerification
from provisioner.model.stack import HostLock

if TYPE_CHECKING:
    from provisioner.actions.ports import Clock, HostShell

TARGET = "provision-clients.target"

GATE = "/usr/local/sbin/provision-gate"
CLIENT = "/usr/local/sbin/provision-client"
BASELINE = "/usr/local/sbin/provision-baseline"
KEYS = "/var/lib/provision/trusted_keys"
VALID = timedelta(days=30)
"""How long a record counts: a host that nobody looked at for a month is no longer known to be as it was."""

CARRY_S = 45
"""How long a host that passed its checks is given until its tunnel's keeper hears the far end again."""

OBSERVE = f"[ -x {GATE} ] || exit 127; {GATE} observe"

# Through stdin come the record, in one line, and the keys that may sign. Each gets its name when it is whole: a killed
# run leaves the old one or none. The gate has the last word; no client starts that it would not let start. A tunnel
# is waited for: its keeper looks four times a minute, and may have looked while the far end was being switched.
RELEASE = f"""
set -eu
umask 022
mkdir -p /var/lib/provision
new={RECORD}.$$
trap 'rm -f "$new" "$new.keys"' EXIT
IFS= read -r record
printf '%s\\n' "$record" >"$new"
cat >"$new.keys"
chown root:root "$new" "$new.keys"
chmod 0644 "$new" "$new.keys"
sync "$new" "$new.keys"
mv -f "$new.keys" {KEYS}
mv -f "$new" {RECORD}
limit=$(($(date +%s) + {CARRY_S}))
until said=$({GATE} check 2>&1); do
  others=$(printf '%s\\n' "$said" | grep -v 'the tunnel carries nothing' || :)
  if [ -n "$said" ] && [ -z "$others" ]; then
    # A tunnel that is still to come: the clients' own gates wait for it.
    [ "${{tunnel:-now}}" = now ] || break
    [ "$(date +%s)" -ge "$limit" ] || {{ sleep 3; continue; }}
  fi
  printf '%s\\n' "$said" >&2
  exit 1
done
systemctl enable --now {TARGET}
# How the cards are now is the measure for later looks; a host that serves well without it is let in all the same.
[ ! -x {BASELINE} ] || {BASELINE} note || :
# What a drain did is taken back last: a provider that was scaled to none bids again only on a host that may serve.
{CLIENT} resume-all
"""

LATER = "tunnel=later\n"
"""Before RELEASE on a host whose tunnel cannot be there yet: what carries nothing is the tunnel of before."""

# What a later change goes back to: this stack. Kept changes that led here have come to a good end, and first of all the
# trial of the last one has: from here on the host does not go back by itself. A run that was killed may have left
# what it built ahead, some hundred megabytes, and there is nothing left to do that would clear it away.
SETTLE = f"""
set -eu
{trial.CONFIRM}
umask 077
mkdir -p {HISTORY}
new={NOW}.$$
trap 'rm -f "$new"' EXIT
cat >"$new"
sync "$new"
mv -f "$new" {NOW}
for kept in {HISTORY}/*/record.json; do
  [ ! -e "$kept" ] || : >"${{kept%record.json}}done"
done
{CLEAR_BUILD}
"""

# Clients first, record last: a host must not serve a moment longer than its record says, nor lose it while serving.
CLOSE = f"""
{trial.CANCEL}
rc=0
if systemctl cat {TARGET} >/dev/null 2>&1; then
  systemctl stop 'provision-client@*.service' || rc=1
  systemctl disable --now {TARGET} || rc=1
fi
rm -f {RECORD} {HISTORY}/*/enrolment.json || rc=1
exit $rc
"""


# A unit that holds a node of a cluster back waits until the provider has stopped.
CLOSE_LIMIT_S = 360.0


class Signer(Protocol):
    """The operator's key."""

    @property
    def fingerprint(self) -> str: ...

    def sign(self, data: bytes) -> bytes: ...


class Observation(BaseModel):
    """What `provision-gate observe` answers; `nvml` is its answer, or `{"error": …}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machine: str | None
    host_key: str | None
    driver: str | None
    flavour: Literal["open", "proprietary"] | None
    nvml: dict[str, Any]
    docker: str | None
    cdi: dict[str, tuple[str, ...]]
    tunnel: tuple[str, ...] = ()  # far ends that do not answer
    clock_kept: bool | None


class Ledger(Protocol):
    """The controller's own copies of records."""

    def keep(self, record: EnrolmentRecord) -> None: ...

    def drop(self, host: str) -> None: ...


def signed_record(
    verification: HostVerification,
    locked: HostLock,
    seen: Observation,
    *,
    matrix: str,
    signer: Signer,
    clock: Clock,
    valid: timedelta = VALID,
) -> EnrolmentRecord:
    """Return the record of a host that passed.

    Raises HostError when it did not pass, passed for another lock entry, or the gate sees something else there.
    """
    host = verification.host
    if not verification.passed:
        raise HostError(
            "not-verified",
            host,
            f"{host} is not enrolled: {_why_not(verification)}",
            context=[f"{result.title}: {result.detail or result.status}" for result in verification.blocking],
            hint=f"provision verify {host} shows all checks",
        )
    digest = lock_digest(locked)
    if verification.lock_digest != digest:
        raise HostError(
            "verified-for-another-lock",
            host,
            f"{host} is not enrolled: its checks were made for another lock entry than the one in hand",
            context=(f"checked {verification.lock_digest}", f"in hand {digest}"),
            hint=f"provision verify {host} --enrol",
        )
    wrong = _sees_otherwise(locked, seen)
    if wrong or seen.machine is None:
        raise HostError(
            "gate-sees-otherwise",
            host,
            f"{host} passed its checks, but its gate would not open",
            context=wrong or ["it has no machine-id to bind the record to"],
            hint=f"provision plan --limit {host} shows what differs",
        )
    now = clock.now().replace(microsecond=0)
    record = EnrolmentRecord(
        host=host,
        bound_to=Binding(machine=seen.machine, host_key=seen.host_key),
        lock_digest=digest,
        matrix_digest=matrix,
        networks={name: choice.value for name, choice in locked.networks.items()},
        stack=_stack(locked, seen),
        run=verification.run,
        made_by=__version__,
        checks=tuple(RecordedCheck(id=r.id, status=r.status, required=r.required) for r in verification.results),
        enrolled_at=now,
        expires_at=now + valid,
        key=signer.fingerprint,
    )
    signature = base64.b64encode(signer.sign(record.signed_bytes)).decode()
    return record.model_copy(update={"signature": signature})


def _sees_otherwise(locked: HostLock, seen: Observation) -> list[str]:
    """In what the gate's own look contradicts the lock; the checks passed, so the host changed, or one of both errs."""
    wrong = []
    if locked.driver_version is not None:
        want = locked.driver_version.value
        if seen.driver != want:
            wrong.append(f"loaded driver {seen.driver or 'none'}, locked {want}")
        if "error" in seen.nvml:
            wrong.append(f"NVML: {seen.nvml['error']}")
        elif seen.nvml.get("driver") != want:
            wrong.append(f"NVML reports driver {seen.nvml.get('driver') or 'none'}, locked {want}")
        if locked.modules is not None and (seen.flavour == "open") != (locked.modules.value == "open"):
            wrong.append(f"loaded module {seen.flavour or 'none'}, locked {locked.modules.value}")
        wrong += [
            f"{path} names driver {version}, loaded is {seen.driver}: nvidia-ctk cdi generate --output={path}"
            for path, versions in seen.cdi.items()
            for version in versions
            if version != seen.driver
        ]
    if locked.engine.startswith("docker") and seen.docker is None:
        wrong.append("Docker does not answer")
    return wrong


def _stack(locked: HostLock, seen: Observation) -> EnrolledStack:
    """Only what the lock asks for is compared later: a host that needs no Docker may lose it."""
    return EnrolledStack(
        driver=seen.driver,
        flavour=seen.flavour,
        gpus=tuple(Card(uuid=card["uuid"], name=card["name"]) for card in seen.nvml.get("gpus", ())),
        docker=seen.docker if locked.engine.startswith("docker") else None,
        cdi={path: versions for path, versions in seen.cdi.items() if versions},
        clock_kept=seen.clock_kept is True,
    )


def _why_not(verification: HostVerification) -> str:
    if verification.fault is not None:
        return verification.fault.message
    count = len(verification.blocking)
    if not count:
        return "no check was made"
    return f"{count} required check{'s' if count != 1 else ''} did not pass"


@dataclass(frozen=True)
class HostEnroller:
    """The Enroller that writes records to hosts. `signer` is called at the first enrolment, for it may make a key.

    `trusted` gives the public keys whose records the host will honour, a line each.
    """

    shell: HostShell
    ledger: Ledger
    signer: Callable[[], Signer]
    clock: Clock
    trusted: Callable[[], str]
    valid: timedelta = VALID

    def enrol(self, host: InventoryHost, verification: HostVerification, locked: HostLock, *, matrix: str) -> None:
        """Write the record and release the client units; a host whose units do not start is closed again."""
        record = signed_record(
            verification,
            locked,
            self._observe(host),
            matrix=matrix,
            signer=self.signer(),
            clock=self.clock,
            valid=self.valid,
        )
        # Before the record: a run that is killed in between leaves a host that is only verified again.
        answer = self.shell.run(host, SETTLE, Stack(entry=locked, matrix=matrix).text)
        if answer.rc == trial.BUSY:
            raise trial.went_back(host.name, answer.stderr)
        if answer.rc == 0:
            tunnel = locked.tunnel
            script = RELEASE if tunnel is None or tunnel.complete else LATER + RELEASE
            answer = self.shell.run(host, script, record.text + self.trusted(), timeout_s=CARRY_S + 60)
        if answer.rc != 0:
            self.withdraw(host)
            raise HostError(
                "not-released",
                host.name,
                f"{host.name} passed its checks, but its client units could not be released",
                context=answer.stderr.strip().splitlines()[-4:] or [f"exit code {answer.rc}"],
                hint=f"is {TARGET} there? provision plan --limit {host.name} shows what is missing",
            )
        self.ledger.keep(record)

    def _observe(self, host: InventoryHost) -> Observation:
        """What the host's own gate sees: that is what it will compare with the record."""
        answer = self.shell.run(host, OBSERVE)
        if answer.rc == 127:
            raise HostError(
                "no-gate",
                host.name,
                f"{host.name} is not enrolled: it has no {GATE} yet",
                hint=f"provision apply --limit {host.name} puts it there, verifies and enrols",
            )
        try:
            return Observation.model_validate_json(answer.stdout)
        except ValidationError:
            said = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
            raise HostError(
                "gate-not-answering",
                host.name,
                f"{host.name} is not enrolled: its gate gave no answer that can be read",
                context=said[-4:] or [f"exit code {answer.rc}"],
                hint=f"on the host: {GATE} observe",
            ) from None

    def withdraw(self, host: InventoryHost) -> None:
        """Stop the client units and take the record back; safe on a host that never had one."""
        self.ledger.drop(host.name)
        answer = self.shell.run(host, CLOSE, timeout_s=CLOSE_LIMIT_S)
        if answer.rc == trial.BUSY:
            raise trial.went_back(host.name, answer.stderr)
        if answer.rc != 0:
            raise HostError(
                "not-withdrawn",
                host.name,
                f"{host.name} could not be closed: its client units may still run",
                context=answer.stderr.strip().splitlines()[-4:] or [f"exit code {answer.rc}"],
                hint=f"on the host: systemctl stop 'provision-client@*' {TARGET}",
            )
