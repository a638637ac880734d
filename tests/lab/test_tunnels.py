"""Tunnels as they live: rigs behind two home routers join by invitation, and no fault locks anybody out.

One story in numbered steps on real hosts; each step needs those before it. The lab is that of nat.py: a hub in public,
gate-a a full-cone router, gate-b a symmetric one that forgets an idle mapping after 20 s, a rig behind each. The
operator reaches the hub alone.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from provisioner.adapters.lab import Lab
from provisioner.errors import Exit
from tests.lab.behind_nat import CODE, WRONGS, Tunnels
from tests.lab.nat import HOMES
from tests.lab.operator import LONG

# Half an hour; the short form is test_tunnel_story.py.
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

CONFIRM_S = 30
SHORTEST_S = 20  # the least that `confirm_s` takes: what is wrong on purpose need not wait longer
FEW, WRONG = 6, 50  # wrong changes in the middle of the story, and with those at its end


@pytest.fixture(scope="module")
def op(lab_factory: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tunnels]:
    lab = lab_factory(*(f"{name}=bookworm" for name in ("hub", "gate-a", "gate-b", "rig-a", "rig-b")))
    with Tunnels(lab, tmp_path_factory.mktemp("operator"), HOMES, CONFIRM_S) as operator:
        yield operator
        print(json.dumps(operator.figures, indent=1))


def test_01_the_hub_is_set_up(op: Tunnels) -> None:
    op.set_up_hub()


def test_02_a_stolen_invitation_gets_nowhere_without_its_code(op: Tunnels) -> None:
    op.guess_in_vain("gate-a", "rig-a")


@pytest.mark.parametrize("rig", HOMES)
def test_03_a_rig_joins_from_behind_its_router(op: Tunnels, rig: str) -> None:
    """One command at its console; the fingerprint that it shows is its own, and the operator's first ssh is checked."""
    code = op.let_in(rig)
    key = op.lab.host(rig).exec("cat /etc/wireguard/prov0.key").stdout.strip()

    for path in (p for p in op.folder.rglob("*") if p.is_file()):
        assert key not in path.read_text(encoding="utf-8", errors="replace"), path
    (op.folder / f"{rig}.code").write_text(code)


def test_04_a_replayed_invitation_gets_nowhere(op: Tunnels) -> None:
    op.replay("gate-a", "rig-a", (op.folder / "rig-a.code").read_text())


def test_05_an_invitation_that_was_taken_back_or_has_ended_gets_nowhere(op: Tunnels) -> None:
    op.wish("rig-x", kind="wireguard", hub="hub")
    inventory = op.lab.folder / "extra.yml"
    inventory.write_text("lab: {hosts: {rig-x: {ansible_host: unreachable.invalid}}}\n", encoding="utf-8")
    file, far = op.folder / "rig-x.invite", ("--hub-address", op.lab.host("hub").address)
    code = CODE.search(op.run("invite", "rig-x", *far, "-i", str(inventory)))
    assert code is not None
    assert "1 invitation of rig-x taken back" in op.run("invite", "rig-x", "--revoke", "-i", str(inventory))
    assert op.join("gate-a", file, code[1])[0] != 0

    file.unlink()
    code = CODE.search(op.run("invite", "rig-x", *far, "--hours", "0.002", "-i", str(inventory)))
    assert code is not None
    time.sleep(8)
    assert "This invitation has ended" in op.join("gate-a", file, code[1])[1]
    inventory.unlink()
    _remove(op, "rig-x")


def _remove(op: Tunnels, host: str, code: int = Exit.OK) -> str:
    """`provision tunnel` reads the lock alone, so it takes no inventory."""
    argv = [*op.argv("tunnel")[:2], "remove", host]
    done = subprocess.run(argv, cwd=op.folder, env=op.environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_06_everything_goes_over_the_tunnel(op: Tunnels) -> None:
    """Resolve, apply, verify, enrol; the path was measured, and nothing is left to do."""
    everyone = "hub,rig-a,rig-b"
    op.run("resolve", "--limit", everyone)
    applied = op.run("apply", "--yes", "--limit", everyone)
    for rig in HOMES:
        assert f"{rig}  enrolled" in applied
        tunnel = op.lock()["hosts"][rig]["tunnel"]
        assert (tunnel["path_mtu"], tunnel["mtu"]) == (1500, 1420)  # a name may be of either version
        came = op.guard(rig)
        assert (came["state"], came["came"]) == ("confirmed", tunnel["address"])
    assert "Nothing to change" in op.run("plan", "--limit", everyone)
    assert "MTU 1420" in op.run("status", *everyone.split(","))
    op.run("verify", *HOMES)


def test_07_a_rig_is_reached_by_its_hub_alone_and_no_further(op: Tunnels) -> None:
    """A spoke cannot reach another, nor anything of the hub; of the rig only ssh is open to the hub."""
    a, b = (op.address(rig) for rig in HOMES)
    rig, hub = op.lab.host("rig-a"), op.lab.host("hub")

    assert rig.exec(f"ping -c 1 -W 2 {b}").rc != 0
    assert rig.exec("timeout 3 bash -c '</dev/tcp/10.87.0.1/22'").rc != 0
    assert hub.exec(f"timeout 3 bash -c '</dev/tcp/{a}/22'").rc == 0
    rig.exec("iperf3 -s -D -1")
    assert hub.exec(f"timeout 3 bash -c '</dev/tcp/{a}/5201'").rc != 0


def test_08_the_hub_restarts(op: Tunnels) -> None:
    op.lab.host("hub").reboot()
    up = time.monotonic()
    for rig in HOMES:
        op.back(rig, "hub restarted", since=up)


@pytest.mark.parametrize("rig", HOMES)
def test_09_a_router_restarts_and_forgets_its_mappings(op: Tunnels, rig: str) -> None:
    op.lab.host(HOMES[rig]).reboot_hard()
    op.back(rig, "router restarted")


def test_10_a_fifth_of_the_packets_is_lost(op: Tunnels) -> None:
    """Slow is not gone: the rig is still verified over it."""
    for rig, gate in HOMES.items():
        op.nat.loss(gate, 20)
        op.back(rig, "20 % loss")
    try:
        for rig in HOMES:
            op.figures[f"tries to verify at 20 % loss, {rig}"] = _tries(op, rig)
    finally:
        for gate in HOMES.values():
            op.nat.loss(gate, 0)


def _tries(op: Tunnels, rig: str, most: int = 4) -> int:
    """How often the rig had to be verified until a session came about and every required check was made and passed."""
    for number in range(1, most + 1):
        done = subprocess.run(
            op.argv("verify", rig), cwd=op.folder, env=op.environment, capture_output=True, text=True, check=False
        )
        if done.returncode == Exit.OK:
            return number
    raise AssertionError(f"{most} times not verified:\n{done.stdout}{done.stderr}")


@pytest.mark.parametrize("silent", [False, True], ids=["with-icmp", "silent"])
def test_11_the_way_gets_narrower(op: Tunnels, silent: bool) -> None:
    """1380 bytes in the middle; a router that says so to the rig, and one that says nothing.

    To the hub it says nothing in either case: a device here drops what is too large for it, as a bridge does. A whole
    look at the rig, a hundred kilobytes and more each way over a new session, has to come through.
    """
    rig, gate = "rig-b", "gate-b"
    op.nat.silent(gate, silent)
    op.nat.narrow(gate, 1380)
    try:
        began = time.monotonic()
        while subprocess.run(op.argv("facts", rig, "--timeout", "40"), cwd=op.folder, env=op.environment).returncode:
            assert time.monotonic() - began < 240, "a long answer does not come through"
        op.figures[f"MTU 1380{', silent' if silent else ''}, {rig}"] = round(time.monotonic() - began, 1)
        assert "Every required check passed" in op.run("verify", rig)
    finally:
        op.nat.narrow(gate, 1500)
        op.nat.silent(gate, False)


def test_12_the_hub_moves_to_another_address(op: Tunnels) -> None:
    """Its name says so, nobody tells the tunnel; the operator writes the new address into the inventory."""
    op.nat.move_hub()
    moved = time.monotonic()
    for rig in HOMES:
        op.back(rig, "hub moved", since=moved)
    op.find_hub()
    assert "Every required check passed" in op.run("verify", *HOMES)


def _all_go_back(op: Tunnels, first: int, last: int) -> None:
    """A bad peer key, a bad route, a firewall that shuts ssh out, in turn on both rigs: each is taken back in time."""
    good = (op.folder / "provision.lock").read_text(encoding="utf-8")
    rigs = [rig for rig in HOMES if rig in json.loads(good)["hosts"]]
    wishes = {rig: (op.lab.folder / "host_vars" / f"{rig}.yml").read_text(encoding="utf-8") for rig in rigs}
    for rig in rigs:
        op.wish(rig, **{**json.loads(good)["hosts"][rig]["intent"]["tunnel"], "confirm_s": SHORTEST_S})
    for number in range(first, last, len(rigs)):
        value = json.loads(good)
        names = []
        for place, rig in enumerate(rigs):
            wrong = WRONGS[(number + place) % len(WRONGS)]
            wrong(value["hosts"][rig]["tunnel"])
            value["hosts"][rig]["intent"]["tunnel"]["confirm_s"] = SHORTEST_S
            names.append(wrong.__name__)
        (op.folder / "provision.lock").write_text(json.dumps(value), encoding="utf-8")
        said = op.run("apply", "--yes", "--limit", ",".join(rigs), code=Exit.FAILED)
        for name, rig in zip(names, rigs, strict=True):
            state = op.guard(rig)
            assert state["state"] == "reverted", (name, state, said)
            assert not state.get("problems"), state
            op.nat.carries(op.address(rig), within=60)
            op.taken_back += 1
        assert said.count("[change-reverted]") == len(rigs), said
        print(f"{op.taken_back} of {WRONG} taken back: {', '.join(names)}", flush=True)
    (op.folder / "provision.lock").write_text(good, encoding="utf-8")
    for rig in rigs:
        (op.lab.folder / "host_vars" / f"{rig}.yml").write_text(wishes[rig], encoding="utf-8")


def test_13_a_wrong_change_goes_back_by_itself(op: Tunnels) -> None:
    _all_go_back(op, 0, FEW)
    op.run("apply", "--yes", "--limit", ",".join(HOMES))


def _other_keepalive(op: Tunnels, seconds: int) -> None:
    op.wish("rig-a", kind="wireguard", hub="hub", confirm_s=CONFIRM_S, keepalive=seconds)
    op.run("resolve", "--limit", "rig-a")


def _kill_at(op: Tunnels, words: str) -> None:
    """Start an apply and end it the hard way when it says these words."""
    running = subprocess.Popen(
        op.argv("apply", "--yes", "--limit", "rig-a"),
        cwd=op.folder,
        env=op.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    for line in running.stdout:
        if words in line:
            os.killpg(running.pid, signal.SIGKILL)
            break
    else:
        raise AssertionError(f"it never said {words!r}")
    running.wait()


def test_14_the_controller_dies_right_after_applying(op: Tunnels) -> None:
    """Nobody confirms: the host goes back to what it had."""
    before = op.lab.host("rig-a").exec("cat /etc/wireguard/prov0.conf").stdout
    _other_keepalive(op, 21)
    _kill_at(op, "come back over")
    until = time.monotonic() + CONFIRM_S + 30
    while op.guard("rig-a")["state"] not in ("reverted", "confirmed") and time.monotonic() < until:
        time.sleep(1)

    assert op.guard("rig-a")["state"] == "reverted"
    assert op.lab.host("rig-a").exec("cat /etc/wireguard/prov0.conf").stdout == before
    op.back("rig-a", "controller died before confirming")


def test_15_the_controller_dies_right_after_confirming(op: Tunnels) -> None:
    """It stays, and the next apply has only to verify."""
    _kill_at(op, "verify  run the checks")
    time.sleep(CONFIRM_S + 5)

    assert op.guard("rig-a")["state"] == "confirmed"
    assert "PersistentKeepalive = 21" in op.lab.host("rig-a").exec("cat /etc/wireguard/prov0.conf").stdout
    assert "rig-a  enrolled" in op.run("apply", "--yes", "--limit", "rig-a", "--break-lock")


def test_16_the_host_restarts_before_anybody_confirmed(op: Tunnels) -> None:
    """What waits is put back before the network comes up."""
    _other_keepalive(op, 23)
    _kill_at(op, "come back over")
    until = time.monotonic() + 15
    while op.guard("rig-a")["state"] == "armed" and time.monotonic() < until:
        time.sleep(0.2)
    assert op.guard("rig-a")["state"] == "applied"
    op.lab.host("rig-a").reboot_hard()

    state = op.guard("rig-a")
    assert (state["state"], state["why"]) == ("reverted", "the host was restarted before anybody confirmed it")
    assert "PersistentKeepalive = 21" in op.lab.host("rig-a").exec("cat /etc/wireguard/prov0.conf").stdout
    op.back("rig-a", "restarted before confirming")
    op.run("apply", "--yes", "--limit", "rig-a", "--break-lock")


def test_17_a_key_is_made_anew_over_the_tunnel_that_it_carries(op: Tunnels) -> None:
    """The rig's only way is the tunnel whose key moves; the hub alone is refused, both together switch."""
    old = op.lock()["hosts"]["rig-b"]["tunnel"]["public_key"]
    argv = [*op.argv("tunnel")[:2], "rotate", "rig-b"]
    subprocess.run(argv, cwd=op.folder, env=op.environment, check=True)
    op.run("apply", "--yes", "--limit", "rig-b")
    op.run("resolve", "--limit", "rig-b")
    assert "[tunnel-peer-left-behind]" in op.run("apply", "--yes", "--limit", "hub", code=Exit.FAILED)
    applied = op.run("apply", "--yes", "--limit", "hub,rig-b")

    assert "rig-b  enrolled" in applied
    new = op.lock()["hosts"]["rig-b"]["tunnel"]["public_key"]
    assert new != old
    assert new in op.lab.host("hub").exec("wg show prov0 peers").stdout
    assert old not in op.lab.host("hub").exec("wg show prov0 peers").stdout


def test_18_settings_of_the_owners_own_go_back_too(op: Tunnels) -> None:
    """sshd that listens nowhere the tunnel leads goes back; a setting that harms nobody stays."""
    where, check = "/etc/ssh/sshd_config.d/own.conf", "/usr/sbin/sshd -t"
    words = ("guard", "rig-a", f"own.conf={where}", "--unit", "ssh.service", "--check", check, "--seconds", "20", "-y")
    (op.folder / "own.conf").write_text("ListenAddress 127.0.0.1\n", encoding="utf-8")
    said = op.run(*words, code=Exit.FAILED)

    assert "rig-a  went back" in said
    assert "[change-reverted]" in said
    assert op.lab.host("rig-a").exec(f"ls {where}").rc != 0
    op.run("facts", "rig-a")

    (op.folder / "own.conf").write_text("No such setting\n", encoding="utf-8")
    assert "went back" in op.run(*words, code=Exit.FAILED)

    (op.folder / "own.conf").write_text("LoginGraceTime 45\n", encoding="utf-8")
    assert "rig-a  confirmed: it stays" in op.run(*words)
    assert "logingracetime 45" in op.lab.host("rig-a").exec("/usr/sbin/sshd -T").stdout


def test_19_fifty_of_fifty_wrong_changes_go_back(op: Tunnels) -> None:
    """The rest of the fifty, after everything else that this tunnel went through."""
    _all_go_back(op, FEW, WRONG)
    op.figures["wrong changes taken back"] = op.taken_back

    assert op.taken_back == WRONG


def test_20_a_lost_rig_is_taken_out_without_touching_the_other(op: Tunnels) -> None:
    """The other rig's session goes on; a second removal is refused in words."""
    other = op.lock()["hosts"]["rig-a"]["tunnel"]["public_key"]
    gone = op.lock()["hosts"]["rig-b"]["tunnel"]["public_key"]
    before = op.lab.host("hub").exec(f"wg show prov0 transfer | grep {shlex.quote(other)}").stdout.split()
    _remove(op, "rig-b")
    assert "[tunnel-host-unknown]" in _remove(op, "rig-b", code=Exit.BAD_INPUT)
    op.run("apply", "--yes", "--limit", "hub")

    after = op.lab.host("hub").exec(f"wg show prov0 transfer | grep {shlex.quote(other)}").stdout.split()
    assert gone not in op.lab.host("hub").exec("wg show prov0 peers").stdout
    assert int(after[1]) >= int(before[1]), "its session was dropped: the counters began anew"
    op.back("rig-a", "another rig was removed", within=10)
