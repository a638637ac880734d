"""Networks that a tunnel breaks are refused before anything is done, and the ports that they need are known."""

from __future__ import annotations

import pytest
import worlds

from provisioner.matrix.entries import ROOMS
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock, Lock, ParkedTunnel
from provisioner.model.tunnel import Tunnel
from provisioner.resolve import NoSolution, explain, solve
from provisioner.resolve.lock import lock_text, make_lock, parse_lock
from provisioner.resolve.tunnels import ports_needed
from provisioner.tunnels.assign import assign
from provisioner.tunnels.kinds import KINDS
from provisioner.tunnels.lock import without_entries
from tests.tunnel_world import hub, key, spoke
from tests.world import entry

FACTS = worlds.host("debian-12", "rtx-3090")
SPOKE = {"kind": "wireguard", "hub": "hub"}


def solved(network: str, **tunnel: object) -> HostLock | NoSolution:
    wish = Tunnel.model_validate({**SPOKE, **tunnel})
    return solve(FACTS, Intent(networks=(network,), tunnel=wish), worlds.matrix())


def test_every_kind_has_an_entry_with_the_same_support() -> None:
    """What the table of kinds says, and what the matrix says, is one thing."""
    matrix = worlds.matrix()

    assert set(matrix.tunnels) == set(KINDS)
    assert {name: kind.support for name, kind in matrix.tunnels.items()} == {n: k.support for n, k in KINDS.items()}
    assert "tunnels" in ROOMS


@pytest.mark.parametrize("network", ["akash", "chutes/tee-worker", "livepeer"])
def test_customers_that_cannot_come_in_by_the_tunnel_are_a_conflict(network: str) -> None:
    answer = solved(network, ingress="tunnel")

    assert isinstance(answer, NoSolution)
    text = explain.unsolvable(answer) if hasattr(explain, "unsolvable") else str(answer.conflicts)
    assert any(claim.kind == "tunnel-breaks" for conflict in answer.conflicts for claim in conflict.claims), text


def test_the_sentence_names_the_network_the_kind_and_the_reason() -> None:
    answer = solved("akash", ingress="tunnel")
    assert isinstance(answer, NoSolution)
    (claim,) = {c for conflict in answer.conflicts for c in conflict.claims if c.kind == "tunnel-breaks"}

    assert explain.sentence(claim) == (
        "Akash can't be served through WireGuard, by which this host's customers are to come in: tenants reach their "
        "workloads on public 80, 443, 8443, 8444 and on 30000-32767, on TCP and UDP"
    )
    assert claim.rests_on[0].entry == "tunnels/wireguard"


def test_a_tunnel_for_the_operator_alone_breaks_nothing() -> None:
    """Customers come in by the host's own public address; the tunnel is beside it."""
    assert isinstance(solved("akash"), HostLock)


def test_a_hub_can_hand_on_the_ports_of_lium_and_a_web_tunnel_cannot() -> None:
    assert isinstance(solved("lium", ingress="tunnel"), HostLock)
    web = {"kind": "cloudflare-tunnel", "server": "x", "expose": ["https://a.example=http://127.0.0.1:80"]}
    answer = solved("lium", ingress="tunnel", **web)

    assert isinstance(answer, NoSolution)


def test_the_ports_of_a_request() -> None:
    matrix = worlds.matrix()

    assert ports_needed(Intent(networks=("lium",)), matrix) == ("tcp/2200", "tcp/8080", "tcp/20000-20009")
    assert ports_needed(Intent(), matrix) == ()


# Who is joined is no matter of the matrix.


def _lock(digest: str = "m1") -> Lock:
    found = assign([hub(), spoke("rig-01")])
    wishes = {"hub": hub().wish, "rig-01": spoke("rig-01").wish}
    entries = {n: entry(intent=Intent(tunnel=wishes[n]), tunnel=found[n]) for n in found}
    return make_lock(entries, digest)


def test_a_host_that_loses_its_entry_stays_joined() -> None:
    before = _lock()
    after = make_lock({"hub": before.hosts["hub"]}, "m2", without_entries(before, {"rig-01"}))

    assert list(after.hosts) == ["hub"]
    assert after.tunnels["rig-01"] == ParkedTunnel(wish=spoke("rig-01").wish, lock=before.hosts["rig-01"].tunnel)  # type: ignore[arg-type]
    assert make_lock({"rig-01": before.hosts["rig-01"]}, "m2", after).tunnels == {}


def test_the_lock_reads_back_with_its_tunnels() -> None:
    lock = without_entries(_lock(), {"rig-01"})

    assert "rig-01" in lock.tunnels
    assert parse_lock(lock_text(lock), "provision.lock") == lock
    assert key("rig-01") in lock_text(lock)
