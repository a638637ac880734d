"""How a verification reads, whole; and the shapes that machines read."""

from __future__ import annotations

import json
from xml.etree import ElementTree

from provisioner.actions.verify import Verified
from provisioner.cli.views.verify import junit_text, verified_json, verified_text
from provisioner.cli.words import next_command
from provisioner.errors import HostError
from provisioner.model.results import CheckResult, Fault, HostVerification, Status


def result(name: str, status: Status, detail: str = "", *, required: bool = True) -> CheckResult:
    return CheckResult("rig-02", name, f"Title of {name}", status, required, detail, 0.25)


GOOD = HostVerification("rig-01", "r1", "sha256:1", (result("a", "passed"), result("b", "not-applicable", "no GPU")))
BAD = HostVerification(
    "rig-02",
    "r1",
    "sha256:2",
    (
        result("a", "passed", "fine"),
        result("loaded", "failed", "loaded 535.1, lock 535.2\x1b[31m"),
        result("nvml", "unknown", "not made: no python3"),
        result("kernel", "failed", "runs 6.1", required=False),
    ),
)
DARK = HostVerification(
    "rig-03", "r1", "", (), Fault("host-unreachable", "rig-03 gave no shell", ("no route",), "ssh it")
)


def verified() -> Verified:
    return Verified(
        "r1",
        hosts={"rig-01": GOOD, "rig-02": BAD, "rig-03": DARK},
        failed={"rig-04": HostError("host-not-locked", "rig-04", "rig-04 has no entry in the lock", hint="resolve it")},
    )


def test_the_whole_screen() -> None:
    """State, why, what to type next; what a host printed cannot drive the terminal."""
    text = verified_text(verified(), seconds=1.23, lock="provision.lock", inventory=["hosts.yml"])

    assert text.splitlines() == [
        "4 hosts checked in 1.2 s · lock provision.lock · run r1",
        "",
        "rig-01  1 passed · 1 do not apply",
        "rig-02  1 passed · 1 failed · 1 not made · 1 to look at",
        "    ✗ Title of loaded  loaded 535.1, lock 535.2\N{REPLACEMENT CHARACTER}[31m  [loaded]",
        "    ? Title of nvml    not made: no python3  [nvml]",
        "    ✗ Title of kernel  runs 6.1 (advisory)  [kernel]",
        "rig-03  rig-03 gave no shell  [host-unreachable]",
        "          no route",
        "          ssh it",
        "rig-04  rig-04 has no entry in the lock  [host-not-locked]",
        "          resolve it",
        "",
        "Next: provision plan -i hosts.yml --limit rig-02",
    ]


def test_a_success_is_short() -> None:
    """One line per host, and that all is well."""
    text = verified_text(Verified("r1", hosts={"rig-01": GOOD}), seconds=0.9, lock="provision.lock")

    assert text.splitlines()[2:] == ["rig-01  1 passed · 1 do not apply", "", "Every required check passed."]


def test_everything_can_be_shown() -> None:
    """With --all, what passed has its line too."""
    text = verified_text(
        Verified("r1", hosts={"rig-01": GOOD}, enrolled=["rig-01"]), seconds=0.9, lock="l", everything=True
    )

    assert text.splitlines()[2:] == [
        "rig-01  1 passed · 1 do not apply · enrolled",
        "    ✓ Title of a  [a]",
        "    · Title of b  no GPU  [b]",
    ]


def test_json_is_versioned_and_says_all() -> None:
    """Format 1: per host whether it passed, its fault, and every check."""
    data = json.loads(verified_json(verified()))

    assert (data["format"], data["run"], data["passed"]) == (1, "r1", False)
    assert {name: host["passed"] for name, host in data["hosts"].items()} == {
        "rig-01": True,
        "rig-02": False,
        "rig-03": False,
        "rig-04": False,
    }
    assert data["hosts"]["rig-02"]["checks"][2] == {
        "host": "rig-02",
        "id": "nvml",
        "title": "Title of nvml",
        "status": "unknown",
        "required": True,
        "detail": "not made: no python3",
        "seconds": 0.25,
    }
    assert data["hosts"]["rig-03"]["fault"]["reference"] == "host-unreachable"


def test_junit_has_a_suite_per_host() -> None:
    """Failed is a failure, not made is an error, advisory and not applicable are skipped; it is well-formed XML."""
    root = ElementTree.fromstring(junit_text(verified()))
    counts = {
        suite.get("name"): tuple(suite.get(key) for key in ("tests", "failures", "errors", "skipped")) for suite in root
    }

    assert counts == {
        "rig-01": ("2", "0", "0", "1"),
        "rig-02": ("4", "1", "1", "1"),
        "rig-03": ("1", "0", "1", "0"),
        "rig-04": ("1", "0", "1", "0"),
    }


def test_the_next_command_can_be_typed() -> None:
    """Names with spaces are quoted."""
    assert next_command("plan", ["my hosts"], ["a", "b"]) == "provision plan -i 'my hosts' --limit a,b"
