"""Coming back and confirming: who is confirmed, who is left alone, and what is said of a host that took it back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from provisioner.actions import switch
from provisioner.actions.observe import Seen
from provisioner.actions.plan import Planned
from provisioner.errors import HostError
from provisioner.model.capture import CommandOutput
from provisioner.model.intent import Intent
from provisioner.model.inventory import InventoryHost
from provisioner.model.plan import Change, HostPlan, Plan
from provisioner.model.resource import Guarded
from provisioner.model.run import RunEvent
from provisioner.model.stack import HostLock
from provisioner.model.tunnel import TunnelLock, TunnelPeer
from provisioner.tunnels.assign import assign
from provisioner.tunnels.contract import Own
from provisioner.tunnels.ssh_reverse import KEYS
from provisioner.tunnels.wireguard import CONFIG, config, guarded
from tests.tunnel_world import hub, key, spoke
from tests.world import entry, fitting_capture, fitting_facts

MEMBERS = [hub(), spoke("rig-01"), spoke("rig-02")]
LOCKS = assign(MEMBERS)
WISHES = {member.host: member.wish for member in MEMBERS}


class World:
    """Hosts that answer over their new path, or do not; every call is noted."""

    def __init__(self, states: dict[str, str], unreachable: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.states = states
        self.unreachable = unreachable
        self.confirmed: list[str] = []
        self.kept: list[str] = []
        self.events: list[RunEvent] = []

    def new(self, host: InventoryHost, entry: HostLock) -> InventoryHost:
        return replace(host, variables={**host.variables, "new": True})

    def fresh(self, host: InventoryHost) -> InventoryHost:
        return host

    def keep(self, host: InventoryHost, entry: HostLock) -> InventoryHost:
        self.kept.append(host.name)
        return host

    def run(self, host: InventoryHost, script: str, stdin: str = "", timeout_s: float = 60) -> CommandOutput:
        over_new = bool(host.variables.get("new"))
        if over_new and host.name in self.unreachable:
            raise HostError("ssh-timeout", host.name, f"{host.name} did not answer")
        if " confirm " in script:
            self.confirmed.append(host.name)
            return CommandOutput(rc=0, stdout='{"state": "confirmed"}')
        state = self.states.get(host.name, "applied")
        if not over_new and host.name in self.unreachable | set(self.states):
            state = "reverted"
        return CommandOutput(rc=0, stdout=json.dumps({"state": state, "why": "nobody confirmed it within 120 s"}))


def planned(*names: str, new: frozenset[str] = frozenset()) -> tuple[list[InventoryHost], Planned]:
    """Hosts whose plan is to switch their tunnel; those in `new` had none before."""
    hosts, plans, locked, seen = [], {}, {}, {}
    for name in names:
        lock = entry(intent=Intent(tunnel=WISHES[name]), tunnel=LOCKS[name])
        change = guarded(Own(name, WISHES[name], LOCKS[name]))
        host = InventoryHost(name, {}, lock.intent)
        hosts.append(host)
        locked[name] = lock
        plans[name] = HostPlan(
            host=name,
            changes=(
                Change(
                    phase="guard",
                    what=change.key,
                    before=None if name in new else "7 files",
                    after="7 files",
                    wanted=change.model_copy(update={"confirm_s": 1}),
                ),
            ),
        )
        seen[name] = Seen(host, fitting_capture(entry(), name), fitting_facts(entry(), name))
    plan = Plan(made_by="x", made_at="x", matrix="x", locked=locked, hosts=plans)
    return hosts, Planned(plan, seen)


def come_back(world: World, *names: str, new: frozenset[str] = frozenset()) -> dict[str, str]:
    hosts, plan = planned(*names, new=new)
    moved, failed = switch.come_back(
        hosts, plan, run="r1", shell=world, paths=world, on_event=world.events.append, sleep=lambda _s: None
    )
    assert set(moved) == set(names) - set(failed)
    return {name: result.reference for name, result in failed.items()}


def test_who_comes_back_is_confirmed_and_reached_that_way_from_now_on() -> None:
    world = World({})

    assert come_back(world, "hub", "rig-01") == {}
    assert sorted(world.confirmed) == sorted(world.kept) == ["hub", "rig-01"]


def test_who_does_not_come_back_is_not_confirmed_and_the_reason_is_told() -> None:
    world = World({}, unreachable={"rig-01"})
    hosts, plan = planned("rig-01")
    _, failed = switch.come_back(
        hosts, plan, run="r1", shell=world, paths=world, on_event=world.events.append, sleep=lambda _s: None
    )
    (result,) = failed.values()

    assert result.reference == "change-reverted"
    assert result.context == (
        "rig-01 did not answer",
        "seen over the path of before: nobody confirmed it within 120 s",
    )
    assert world.confirmed == []


def test_a_hub_goes_back_with_a_spoke_that_had_a_tunnel_and_lost_it() -> None:
    """Confirmed, it would know only keys that the spoke has put back."""
    world = World({"hub": "applied"}, unreachable={"rig-01"})

    assert come_back(world, "hub", "rig-01", "rig-02") == {"hub": "change-reverted", "rig-01": "change-reverted"}
    assert world.confirmed == ["rig-02"]


def test_a_hub_stays_when_a_newcomer_fails() -> None:
    world = World({}, unreachable={"rig-01"})

    assert come_back(world, "hub", "rig-01", new=frozenset({"rig-01"})) == {"rig-01": "change-reverted"}
    assert world.confirmed == ["hub"]


class Hanging(World):
    """The first session over the new path began in the middle of the switch, and hangs until it is stopped."""

    limits: tuple[float, ...] = ()

    def run(self, host: InventoryHost, script: str, stdin: str = "", timeout_s: float = 60) -> CommandOutput:
        self.limits = (*self.limits, timeout_s)
        if len(self.limits) == 1:
            return CommandOutput(rc=124, stderr=f"stopped after {timeout_s:g} s")
        return super().run(host, script, stdin, timeout_s)


def test_a_session_that_hangs_does_not_take_the_whole_time() -> None:
    """It is stopped early enough for others to follow; nobody comes before the host has switched."""
    world, slept = Hanging({}), list[float]()
    hosts, plan = planned("rig-01")
    moved, failed = switch.come_back(
        hosts, plan, run="r1", shell=world, paths=world, on_event=world.events.append, sleep=slept.append
    )

    assert (set(moved), failed) == ({"rig-01"}, {})
    assert slept[0] > 2
    assert [switch._one_try(seconds) for seconds in (20, 60, 120)] == [20 / 3, 20, 30]
    assert world.limits[0] == 6


class Moved(World):
    """The first try over the new path fails, and the shared connection of before leads to an address that is gone."""

    tried = 0
    asked: tuple[float, ...] = ()

    def run(self, host: InventoryHost, script: str, stdin: str = "", timeout_s: float = 60) -> CommandOutput:
        if not host.variables.get("new"):
            self.asked = (*self.asked, timeout_s)
            return CommandOutput(rc=124, stderr=f"stopped after {timeout_s:g} s")
        self.tried += 1
        if self.tried == 1:
            raise HostError("ssh-timeout", host.name, f"{host.name} did not answer")
        return super().run(host, script, stdin, timeout_s)


def test_the_way_of_before_does_not_take_the_time_of_the_new_one() -> None:
    """Where the address inside moved nothing ends a session to the old one."""
    world = Moved({})
    hosts, plan = planned("rig-01")
    moved, failed = switch.come_back(
        hosts, plan, run="r1", shell=world, paths=world, on_event=world.events.append, sleep=lambda _s: None
    )

    assert (set(moved), failed) == ({"rig-01"}, {})
    assert world.asked == (switch.BEFORE_S,)
    assert 3 * switch.BEFORE_S < 20


def test_what_a_host_took_back_at_once_is_not_waited_for() -> None:
    world = World({"rig-01": "reverted"})

    assert come_back(world, "rig-01") == {"rig-01": "change-reverted"}
    assert world.confirmed == []


def test_a_hub_alone_may_not_take_away_the_key_of_a_spoke_that_stays_behind() -> None:
    hosts, plan = planned("hub")
    old = config(Own("hub", WISHES["hub"], LOCKS["hub"])).replace(key("rig-01"), key("of before"))
    seen = plan.seen["hub"]
    capture = seen.capture.model_copy(update={"files": {CONFIG: old}})
    plan.seen["hub"] = Seen(seen.host, capture, seen.facts)

    (result,) = switch.left_behind(hosts, plan).values()
    both, together = planned("hub", "rig-01")
    together.seen["hub"] = plan.seen["hub"]

    assert (result.reference, result.hint) == ("tunnel-peer-left-behind", "provision apply --limit hub,rig-01")
    assert switch.left_behind(both, together) == {}
    assert switch.left_behind([both[0]], together) == {}  # rig-01 is looked at without a tunnel: nothing is cut off


@pytest.mark.parametrize("change", [{"port": 51900}, {"address": "10.87.0.9"}], ids=["another port", "another address"])
def test_a_hub_that_is_found_elsewhere_does_not_move_alone(change: dict[str, object]) -> None:
    """Its spokes dial the port that they know, and take packets from the address that they know."""
    hosts, plan = planned("hub")
    text = config(Own("hub", WISHES["hub"], LOCKS["hub"]))
    seen = plan.seen["hub"]
    plan.seen["hub"] = Seen(seen.host, seen.capture.model_copy(update={"files": {CONFIG: text}}), seen.facts)
    moved = LOCKS["hub"].model_copy(update=change)
    plan.plan.locked["hub"] = plan.plan.locked["hub"].model_copy(update={"tunnel": moved})
    (result,) = switch.left_behind(hosts, plan).values()

    assert result.hint == "provision apply --limit hub,rig-01,rig-02"


def test_a_hub_of_reverse_tunnels_keeps_those_that_hang_on_it() -> None:
    hosts, plan = planned("hub")
    line = 'restrict,port-forwarding,permitlisten="127.0.0.1:22001" ssh-ed25519 AAAA rig-01\n'
    seen = plan.seen["hub"]
    plan.seen["hub"] = Seen(seen.host, seen.capture.model_copy(update={"files": {KEYS: line}}), seen.facts)
    (result,) = switch.left_behind(hosts, plan).values()

    assert result.reason == "hub was not switched: rig-01 would be cut off, for only hub moves"
    peer = TunnelPeer(host="rig-01", public_key="ssh-ed25519 AAAA", allowed=("127.0.0.1:22001",))
    stays = TunnelLock(kind="ssh-reverse", role="hub", host="hub", peers=(peer,))
    plan.plan.locked["hub"] = plan.plan.locked["hub"].model_copy(update={"tunnel": stays})
    assert switch.left_behind(hosts, plan) == {}


def test_a_hub_does_not_go_over_to_another_kind_while_hosts_hang_on_it() -> None:
    """They would be told of the new kind over the tunnel that is gone."""
    hosts, plan = planned("hub")
    text = config(Own("hub", WISHES["hub"], LOCKS["hub"]))
    seen = plan.seen["hub"]
    plan.seen["hub"] = Seen(seen.host, seen.capture.model_copy(update={"files": {CONFIG: text}}), seen.facts)
    assert switch.left_behind(hosts, plan) == {}

    other = LOCKS["hub"].model_copy(update={"kind": "nebula"})
    plan.plan.locked["hub"] = plan.plan.locked["hub"].model_copy(update={"tunnel": other})
    (result,) = switch.left_behind(hosts, plan).values()

    assert result.reason == "hub was not switched: rig-01, rig-02 would be cut off, for only hub moves"
    assert "a hub of its own" in result.hint


def test_the_run_comes_apart_into_what_is_before_and_the_switch() -> None:
    _, plan = planned("rig-01")
    whole = plan.plan.hosts["rig-01"]

    assert switch.without_switch(whole).changes == ()
    assert switch.only_switch(whole).changes == whole.changes
    assert isinstance(whole.changes[0].wanted, Guarded)
