"""An upgrade of a network's client: what moves first, what holds, what waits, what cannot follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import worlds

from provisioner.actions import upgrade as action
from provisioner.actions.observe import Seen
from provisioner.cli.views.upgrade import upgraded_json, upgraded_text
from provisioner.errors import BadInput
from provisioner.matrix.reader import Matrix
from provisioner.model.capture import Capture
from provisioner.model.facts import HostFacts, Package
from provisioner.model.intent import ClientContainer, Intent
from provisioner.model.inventory import InventoryHost
from provisioner.model.stack import HostLock, Lock
from provisioner.resolve import solve
from provisioner.resolve.lock import make_lock
from provisioner.resolve.upgrade import Step, upgraded

SECURITY = ("", "-security")
LIUM = Intent(networks=("lium",))
AKASH = Intent(networks=("akash",))


def entry(facts: HostFacts, resolved_as: Intent, intent: Intent, client: str) -> HostLock:
    """The entry of a host as an older matrix might have made it: another driver, an older client."""
    lock = solve(facts, resolved_as, worlds.matrix())
    assert isinstance(lock, HostLock)
    (network,) = intent.networks
    known = solve(facts, intent, worlds.matrix())
    assert isinstance(known, HostLock)
    choice = known.networks[network].model_copy(update={"value": client})
    return lock.model_copy(update={"intent": intent, "networks": {network: choice}})


def running(facts: HostFacts, lock: HostLock) -> HostFacts:
    """The host after its entry was applied."""
    assert lock.driver_version is not None
    version = lock.driver_version.value
    return dataclasses.replace(
        facts,
        packages={p.name: Package(p.name, p.version, held=p.hold) for p in lock.packages},
        driver=dataclasses.replace(facts.driver, loaded=version, loaded_flavour="proprietary", library=version),
    )


def step(facts: HostFacts, before: HostLock, network: str, to: str) -> Step:
    return upgraded(facts, before.intent, before, network, to, worlds.matrix())


BARE = worlds.host("debian-12", "rtx-3090", suites=SECURITY, name="rig-01")
OLD_AKASH = entry(BARE, AKASH, AKASH, "0.16.0")
WRONG_FOR_LIUM = entry(dataclasses.replace(BARE, host="rig-02"), Intent(), LIUM, "0.0.25")


def driver(lock: HostLock) -> str | None:
    return lock.driver_version.value if lock.driver_version is not None else None


def test_a_host_whose_pins_stand_and_run_gets_the_client_and_nothing_else() -> None:
    found = step(running(BARE, OLD_AKASH), OLD_AKASH, "akash", "0.16.2")

    assert found.state == "holds"
    assert found.entry.networks["akash"].value == "0.16.2"
    assert found.entry.packages == OLD_AKASH.packages
    assert found.entry.intent == AKASH  # the inventory's request, so that plan takes the entry


def test_a_host_whose_pins_are_not_applied_yet_waits() -> None:
    found = step(BARE, OLD_AKASH, "akash", "0.16.2")

    assert (found.state, found.runs) == ("waits", "no driver")
    assert found.entry is OLD_AKASH


def test_a_driver_that_could_not_be_seen_is_not_taken_for_the_right_one() -> None:
    from provisioner.model.capture import UNKNOWN

    facts = running(BARE, OLD_AKASH)
    facts = dataclasses.replace(facts, driver=dataclasses.replace(facts.driver, loaded=UNKNOWN))

    found = step(facts, OLD_AKASH, "akash", "0.16.2")

    assert (found.state, found.runs) == ("waits", "a driver that could not be seen")


def test_a_driver_that_cannot_stay_moves_first_and_the_client_follows() -> None:
    """Three runs of the same upgrade: pins, nothing until they run, then the client."""
    facts = running(BARE, WRONG_FOR_LIUM)
    first = step(facts, WRONG_FOR_LIUM, "lium", "0.0.25")

    assert first.state == "moves"
    assert (driver(WRONG_FOR_LIUM), driver(first.entry)) == ("535.309.01", "535.261.03")
    assert [claim.kind for conflict in first.why for claim in conflict.claims] == ["network-wants"]
    assert first.entry.networks["lium"].value == "0.0.25"
    assert step(facts, first.entry, "lium", "0.0.25").state == "waits"
    assert step(running(BARE, first.entry), first.entry, "lium", "0.0.25").state == "done"


def test_while_the_pins_move_the_former_client_stays() -> None:
    """No source offers the pinned packages any more (tesla-535 has their version, under other names): the host
    moves, and akash stays at 0.16.0 until it has.
    """
    backports = worlds.host("debian-12", "rtx-3090", suites=("", "-backports"), name="rig-01")
    old = entry(backports, Intent(networks=("akash",), driver="535.216.03"), AKASH, "0.16.0")
    gone = running(worlds.host("debian-12", "rtx-3090", suites=SECURITY, name="rig-01"), old)

    first = step(gone, old, "akash", "0.16.2")

    assert first.state == "moves"
    assert (driver(old), driver(first.entry)) == ("535.216.03", "535.309.01")
    assert first.entry.networks["akash"].value == "0.16.0"
    assert [claim.kind for conflict in first.why for claim in conflict.claims] == ["stack-gone"]
    second = step(running(gone, first.entry), first.entry, "akash", "0.16.2")
    assert second.state == "holds"
    assert second.entry.networks["akash"].value == "0.16.2"
    assert second.entry.packages == first.entry.packages


def test_a_host_that_cannot_follow_keeps_its_entry() -> None:
    found = step(running(BARE, OLD_AKASH), OLD_AKASH, "akash", "9.9")

    assert found.state == "cannot"
    assert found.entry is OLD_AKASH
    assert found.answer is not None
    assert [claim.kind for conflict in found.answer.conflicts for claim in conflict.claims] == ["client-unknown"]


# --- a fleet ------------------------------------------------------------------------------------------------------


class Nobody:
    def probe(self, *_: object) -> dict[str, Capture]:
        raise AssertionError("the hosts are seen already")


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> tuple[list[InventoryHost], Lock]:
    """rig-01 holds, rig-02 has not applied its pins, rig-03 serves something else, rig-04 was never resolved."""
    hosts = [
        InventoryHost("rig-01", {}, AKASH),
        InventoryHost("rig-02", {}, AKASH),
        InventoryHost("rig-03", {}, LIUM),
        InventoryHost("rig-04", {}, AKASH),
    ]
    facts = {"rig-01": running(BARE, OLD_AKASH), "rig-02": dataclasses.replace(BARE, host="rig-02")}

    def observe(asked: Sequence[InventoryHost], *_: object) -> tuple[dict[str, Seen], dict[str, object]]:
        empty = {name: Capture(host=name, taken_at=BARE.taken_at, probe="test") for name in facts}
        return {h.name: Seen(h, empty[h.name], facts[h.name]) for h in asked}, {}

    monkeypatch.setattr(action, "observe", observe)
    entries = {"rig-01": OLD_AKASH, "rig-02": OLD_AKASH, "rig-03": WRONG_FOR_LIUM}
    return hosts, make_lock(entries, worlds.matrix().digest)


def test_the_whole_screen(fleet: tuple[list[InventoryHost], Lock]) -> None:
    hosts, before = fleet

    found = action.upgrade(hosts, "akash", "0.16.2", worlds.matrix(), before, prober=Nobody())  # type: ignore[arg-type]  # never asked

    assert upgraded_text(found, "akash", "0.16.2", "provision.lock", ["hosts.yml"], "provision.lock") == (
        "akash: provider-services 0.16.2\n"
        "\n"
        "rig-02  waits   the lock pins driver 535.309.01 and docker.io 20.10.24+dfsg1-1+deb12u1+b6, and the host runs\n"
        "                no driver: apply first\n"
        "rig-01  holds   driver 535.309.01 and docker.io 20.10.24+dfsg1-1+deb12u1+b6 stay; provider-services 0.16.0 →\n"
        "                0.16.2\n"
        "\n"
        "no entry for what they serve now: rig-04; first: provision resolve -i hosts.yml --limit rig-04\n"
        "1 of the hosts do not serve akash\n"
        "lock provision.lock\n"
        "\n"
        "First: provision apply -i hosts.yml --limit rig-02, then the same upgrade again\n"
        "Any time: provision apply -i hosts.yml --limit rig-01\n"
    )
    assert found.lock.hosts["rig-01"].networks["akash"].value == "0.16.2"
    assert found.lock.hosts["rig-02"] == OLD_AKASH
    assert found.lock.hosts["rig-03"] == WRONG_FOR_LIUM
    assert '"state": "waits"' in upgraded_json(found)


def test_the_whole_screen_when_a_host_cannot_follow(fleet: tuple[list[InventoryHost], Lock]) -> None:
    hosts, before = fleet

    found = action.upgrade(hosts[:1], "akash", "9.9", worlds.matrix(), before, prober=Nobody())  # type: ignore[arg-type]  # never asked

    assert upgraded_text(found, "akash", "9.9", None, [], "provision.lock") == (
        "akash: provider-services 9.9\n"
        "\n"
        "rig-01  cannot  no set of versions serves it with provider-services 9.9; its entry stays as it is\n"
        "    rig-01 can't have provider-services 9.9.\n"
        "\n"
        "    1. The matrix knows no provider-services 9.9 of Akash; the newest that it knows is 0.16.2.\n"
        "       (networks/akash, seen 2026-11-24)\n"
        "\n"
        "    No single change of the request or this host allows it.\n"
        "\n"
        "    Now      driver 535.309.01, CUDA 12.2, serves akash\n"
    )
    assert found.lock == before


def test_a_host_that_moves_is_told_with_the_reason(fleet: tuple[list[InventoryHost], Lock]) -> None:
    from provisioner.resolve.explain_upgrade import steps_text

    moves = step(running(BARE, WRONG_FOR_LIUM), WRONG_FOR_LIUM, "lium", "0.0.25")

    assert steps_text({"rig-02": moves}, "lium", "0.0.25") == (
        "rig-02  moves   driver 535.309.01 → 535.261.03 (reboot) first; lium 0.0.25 stays until then\n"
        "                · Lium (Bittensor subnet 51) (lium 0.0.25) accepts 75 exact driver versions as read on\n"
        "                  2026-07-24, not 470.256.02, 535.309.01: the latest it accepts of those offered here is\n"
        "                  535.261.03 (networks/lium, seen 2026-07-24)\n"
    )


def test_a_pin_in_the_inventory_is_not_overruled() -> None:
    host = InventoryHost("rig-01", {}, Intent(networks=("akash@0.16.0",)))
    lock = make_lock({}, worlds.matrix().digest)

    with pytest.raises(BadInput) as caught:
        action.upgrade([host], "akash", "0.16.2", worlds.matrix(), lock, prober=Nobody())  # type: ignore[arg-type]  # never asked

    assert list(caught.value.context) == ["rig-01: provision_networks has akash@0.16.0"]


def test_a_pin_that_was_lifted_is_the_same_request(fleet: tuple[list[InventoryHost], Lock]) -> None:
    """A fleet that was held at a client by a pin could never be upgraded in order: every host had "no entry"."""
    hosts, _ = fleet
    held = OLD_AKASH.model_copy(update={"intent": Intent(networks=("akash@0.16.0",))})
    before = make_lock({"rig-01": held, "rig-02": held}, worlds.matrix().digest)

    for networks in (("akash",), ("akash@0.16.2",)):
        lifted = [dataclasses.replace(host, intent=Intent(networks=networks)) for host in hosts[:2]]
        found = action.upgrade(lifted, "akash", "0.16.2", worlds.matrix(), before, prober=Nobody())  # type: ignore[arg-type]  # never asked

        assert found.unlocked == ()
        assert (found.named("holds"), found.named("waits")) == (("rig-01",), ("rig-02",))
        # What the inventory says now, so that plan takes the entry.
        assert {entry.intent.networks for entry in found.lock.hosts.values()} == {networks}
        assert found.lock.hosts["rig-02"].networks["akash"].value == "0.16.0"


def test_any_other_difference_of_the_request_is_resolved_first(fleet: tuple[list[InventoryHost], Lock]) -> None:
    hosts, before = fleet
    other = [dataclasses.replace(hosts[0], intent=Intent(networks=("akash",), driver="535.309.01"))]

    found = action.upgrade(other, "akash", "0.16.2", worlds.matrix(), before, prober=Nobody())  # type: ignore[arg-type]  # never asked

    assert found.unlocked == ("rig-01",)


def test_a_client_without_an_image_for_the_version_is_refused_before_anything() -> None:
    """Else the lock would name a client that no plan can bring, and the rollout would find it host by host."""
    one = ClientContainer(network="akash", images={"0.16.0": f"a/b@sha256:{'0' * 64}"})  # type: ignore[arg-type]  # a mapping is read as pairs
    host = InventoryHost("rig-01", {}, AKASH.model_copy(update={"clients": (one,)}))
    lock = make_lock({}, worlds.matrix().digest)

    with pytest.raises(BadInput) as caught:
        action.upgrade([host], "akash", "0.16.2", worlds.matrix(), lock, prober=Nobody())  # type: ignore[arg-type]  # never asked

    assert (caught.value.reference, list(caught.value.context)) == (
        "no-image",
        ["rig-01: akash has images for 0.16.0"],
    )


# --- because of the new client ------------------------------------------------------------------------------------

BULLSEYE = worlds.host(
    "debian-11", "gtx-1080", installed={"nvidia-kernel-dkms": "470.256.02-2"}, loaded="470.256.02", name="rig-05"
)
LIVEPEER = Intent(networks=("livepeer",))


def resolved(facts: HostFacts, intent: Intent, matrix: Matrix) -> HostLock:
    answer = solve(facts, intent, matrix)
    assert isinstance(answer, HostLock)
    return answer


def test_a_client_that_needs_a_newer_driver_moves_the_host_first() -> None:
    """go-livepeer went from CUDA 11 to 12 with v0.7.3. Driver 470 served v0.7.2 and has to go before v0.9.1 comes."""
    matrix = worlds.matrix()
    before = resolved(BULLSEYE, LIVEPEER, matrix)
    assert before.networks["livepeer"].value == "v0.7.2"
    with_security = worlds.host(
        "debian-11",
        "gtx-1080",
        suites=SECURITY,
        installed={p.name: p.version for p in before.packages},
        loaded="470.256.02",
        name="rig-05",
    )

    first = upgraded(with_security, LIVEPEER, before, "livepeer", "v0.9.1", matrix)

    assert (first.state, driver(before), driver(first.entry)) == ("moves", "470.256.02", "535.309.01")
    assert first.entry.networks["livepeer"].value == "v0.7.2"
    applied = running(with_security, first.entry)
    then = upgraded(applied, LIVEPEER, first.entry, "livepeer", "v0.9.1", matrix)
    assert (then.state, then.entry.networks["livepeer"].value) == ("holds", "v0.9.1")
    assert then.entry.packages == first.entry.packages


def test_the_whole_screen_of_a_client_that_moves_one_host_and_leaves_one_behind() -> None:
    from provisioner.resolve.explain_upgrade import steps_text

    matrix = worlds.matrix()
    before = resolved(BULLSEYE, LIVEPEER, matrix)
    offered = worlds.host("debian-11", "gtx-1080", suites=SECURITY, loaded="470.256.02", name="rig-05")
    offered = dataclasses.replace(running(BULLSEYE, before), offers=offered.offers)
    stuck = running(dataclasses.replace(BULLSEYE, host="rig-06"), before)

    steps = {
        "rig-06": upgraded(stuck, LIVEPEER, before, "livepeer", "v0.9.1", matrix),
        "rig-05": upgraded(offered, LIVEPEER, before, "livepeer", "v0.9.1", matrix),
    }

    assert steps_text(steps, "go-livepeer", "v0.9.1") == SCREEN


SCREEN = """\
rig-05  moves   driver 470.256.02 → 535.309.01 (reboot) first; go-livepeer v0.7.2 stays until then
                · Livepeer (go-livepeer v0.9.1) wants driver ≥ 525.60.13 (networks/livepeer, seen 2026-11-24)
                ! go-livepeer v0.9.1: From v0.9.0 on the remote signer does not start on a public address
                  without authentication (networks/livepeer, seen 2026-11-24)
                ! go-livepeer v0.9.1: From v0.9.0 on trickle wants TLS with Live Runner (networks/livepeer,
                  seen 2026-11-24)
rig-06  cannot  no set of versions serves it with go-livepeer v0.9.1; its entry stays as it is
    rig-06 can't have go-livepeer v0.9.1.

    1. Together these leave no go-livepeer v0.9.1:
       · Livepeer (go-livepeer v0.9.1) wants driver ≥ 525.60.13  (networks/livepeer, seen 2026-11-24)
       · this host's package sources (debian-11, main contrib non-free) offer driver 470.256.02 and no other
         (host: package sources)

    What would allow it, least downtime first:
       a. upgrade to Debian 12
          reinstall or upgrade  → driver 535.309.01, CUDA 12.2, serves livepeer (as the matrix lists its packages)
       b. upgrade to Debian 13
          reinstall or upgrade  → driver 550.163.01, CUDA 12.4, serves livepeer (as the matrix lists its packages)

    Now      driver 470.256.02, CUDA 11.4, serves livepeer
"""


def test_a_claim_that_is_unsure_or_undated_warns_and_moves_nobody() -> None:
    """Low confidence and a missing day never forbid, whichever client they speak of."""
    needs = {"driver": ">=536", "with_client": ">=2.0.0"}
    for weak in ({"confidence": "low"}, {"severity": "warn"}):
        matrix = worlds.with_network(worlds.matrix(), "gridd", {**needs, **weak}, client=("2.0.0", "1.0.0"))
        intent = Intent(networks=("gridd",))
        before = resolved(BARE, Intent(networks=("gridd@1.0.0",)), matrix).model_copy(update={"intent": intent})

        found = upgraded(running(BARE, before), intent, before, "gridd", "2.0.0", matrix)

        assert found.state == "holds"
        assert [text for text in before.warnings if "≥ 536" in text] == []
        told = [text for text in found.entry.warnings if "≥ 536" in text]
        assert told and told[0].startswith("gridd (gridd worker 2.0.0) wants driver ≥ 536; that does not bind")


def test_a_sure_claim_about_the_new_client_forbids_and_names_what_would_help() -> None:
    matrix = worlds.with_network(
        worlds.matrix(), "gridd", {"driver": ">=536", "with_client": ">=2.0.0"}, client=("2.0.0", "1.0.0")
    )
    intent = Intent(networks=("gridd",))
    before = resolved(BARE, intent, matrix)

    assert before.networks["gridd"].value == "1.0.0"
    assert [reason.text for reason in before.networks["gridd"].not_newer] == [
        "gridd (gridd worker 2.0.0) wants driver ≥ 536"
    ]
    found = upgraded(running(BARE, before), intent, before, "gridd", "2.0.0", matrix)
    assert found.state == "cannot"
    assert found.answer is not None and "os" in {e.kind for r in found.answer.repairs for e in r.edits}


def test_what_the_new_client_breaks_is_told_once_and_not_when_it_was_so_before() -> None:
    matrix = worlds.with_network(
        worlds.matrix(),
        "gridd",
        client=("3.0.0", "2.0.0", "1.0.0"),
        breakages=(
            {"text": "Since 2.0.0 the old key is refused.", "with_client": ">=2.0.0"},
            {"text": "1.0.0 forgot its jobs.", "with_client": "==1.0.0"},
        ),
    )
    intent = Intent(networks=("gridd",))
    newest = resolved(BARE, intent, matrix)
    told = {}
    for former in ("1.0.0", "2.0.0"):
        choice = newest.networks["gridd"].model_copy(update={"value": former})
        before = newest.model_copy(update={"networks": {"gridd": choice}})
        step_ = upgraded(running(BARE, before), intent, before, "gridd", "3.0.0", matrix)
        told[former] = [claim.word("text") for claim in step_.brings]

    assert told == {"1.0.0": ["Since 2.0.0 the old key is refused."], "2.0.0": []}
    pinned = resolved(BARE, Intent(networks=("gridd@1.0.0",)), matrix)
    assert any("1.0.0 forgot its jobs" in text for text in pinned.warnings)
    assert not any("1.0.0 forgot" in text for text in newest.warnings)


def test_a_toolkit_that_the_entry_pins_stays_with_the_client() -> None:
    """A newer toolkit is offered since: the upgrade of a client is no reason to move it."""
    first = worlds.host("debian-12", "rtx-3090", suites=SECURITY, vendor={"toolkit": ["1.19.1"]}, name="rig-01")
    before = entry(first, AKASH, AKASH, "0.16.0")
    later = worlds.host("debian-12", "rtx-3090", suites=SECURITY, vendor={"toolkit": ["1.19.1", "1.20.0"]})
    facts = running(dataclasses.replace(later, host="rig-01"), before)

    found = upgraded(facts, AKASH, before, "akash", "0.16.2", worlds.matrix())

    assert found.state == "holds"
    assert found.entry.packages == before.packages
    assert found.entry.toolkit is not None and found.entry.toolkit.value.endswith(" 1.19.1-1")
