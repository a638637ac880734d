"""Lets a host in, or keeps it out: the signed record, and the gate before the client units that it opens."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from provisioner.errors import HostError
from provisioner.model.enrolment import RECORD, EnrolmentRecord, RecordedCheck, lock_digest
from provisioner.model.history import HISTORY, NOW, Stack
from provisioner.model.inventory import InventoryHost
from provisioner.model.results import HostVerification
from provisioner.model.stack import HostLock

if TYPE_CHECKING:
    from provisioner.actions.ports import Clock, HostShell

TARGET = "provision-clients.target"

# The record comes through stdin and gets its name when it is whole: a killed run leaves the old one or none.
RELEASE = f"""
set -eu
umask 022
mkdir -p /var/lib/provision
new={RECORD}.$$
trap 'rm -f "$new"' EXIT
cat >"$new"
chown root:root "$new"
chmod 0644 "$new"
sync "$new"
mv -f "$new" {RECORD}
systemctl enable --now {TARGET}
"""

# What a later change goes back to: this stack. Kept changes that led here have come to a good end.
SETTLE = f"""
set -eu
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
"""

# Clients first, record last: a host must not serve a moment longer than its record says, nor lose it while serving.
CLOSE = f"""
rc=0
if systemctl cat {TARGET} >/dev/null 2>&1; then
  systemctl stop 'provision-client@*.service' || rc=1
  systemctl disable --now {TARGET} || rc=1
fi
rm -f {RECORD} || rc=1
exit $rc
"""


class Signer(Protocol):
    """The operator's key."""

    @property
    def fingerprint(self) -> str: ...

    def sign(self, data: bytes) -> bytes: ...


class Ledger(Protocol):
    """The controller's own copies of records."""

    def keep(self, record: EnrolmentRecord) -> None: ...

    def drop(self, host: str) -> None: ...


def signed_record(
    verification: HostVerification, locked: HostLock, *, matrix: str, signer: Signer, clock: Clock
) -> EnrolmentRecord:
    """Return the record of a host that passed. Raises HostError when it did not, or passed for another lock entry."""
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
    record = EnrolmentRecord(
        host=host,
        lock_digest=digest,
        matrix_digest=matrix,
        run=verification.run,
        checks=tuple(RecordedCheck(id=r.id, status=r.status, required=r.required) for r in verification.results),
        enrolled_at=clock.now(),
        key=signer.fingerprint,
    )
    signature = base64.b64encode(signer.sign(record.signed_bytes)).decode()
    return record.model_copy(update={"signature": signature})


def _why_not(verification: HostVerification) -> str:
    if verification.fault is not None:
        return verification.fault.message
    count = len(verification.blocking)
    if not count:
        return "no check was made"
    return f"{count} required check{'s' if count != 1 else ''} did not pass"


@dataclass(frozen=True)
class HostEnroller:
    """The Enroller that writes records to hosts. `signer` is called at the first enrolment, for it may make a key."""

    shell: HostShell
    ledger: Ledger
    signer: Callable[[], Signer]
    clock: Clock

    def enrol(self, host: InventoryHost, verification: HostVerification, locked: HostLock, *, matrix: str) -> None:
        """Write the record and release the client units; a host whose units do not start is closed again."""
        record = signed_record(verification, locked, matrix=matrix, signer=self.signer(), clock=self.clock)
        # Before the record: a run that is killed in between leaves a host that is only verified again.
        answer = self.shell.run(host, SETTLE, Stack(entry=locked, matrix=matrix).text)
        if answer.rc == 0:
            answer = self.shell.run(host, RELEASE, record.text)
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

    def withdraw(self, host: InventoryHost) -> None:
        """Stop the client units and take the record back; safe on a host that never had one."""
        self.ledger.drop(host.name)
        answer = self.shell.run(host, CLOSE)
        if answer.rc != 0:
            raise HostError(
                "not-withdrawn",
                host.name,
                f"{host.name} could not be closed: its client units may still run",
                context=answer.stderr.strip().splitlines()[-4:] or [f"exit code {answer.rc}"],
                hint=f"on the host: systemctl stop 'provision-client@*' {TARGET}",
            )
