"""What a host does for its tunnel by itself, run as the program that it is, with a network that a test describes."""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sockets import ASKS_A_NAME_SERVER, CONNECTED, HAS_ENDED, LISTENS, holder

PROGRAMS = Path(__file__).parents[2] / "provisioner/tunnels/programs"

# `$NET/fits` is the largest packet that comes back; 0: none does. `ip link set … mtu` and wg take effect in files.
PING = """#!/bin/sh
while [ $# -gt 1 ]; do [ "$1" = -s ] && size=$2; shift; done
case "$1" in *:*) size=$((${size:-56} + 48));; *) size=$((${size:-56} + 28));; esac
fits=$(cat "$NET/fits")
if [ "$size" -le "$fits" ]; then echo "5 packets transmitted, 5 received, 0% packet loss, time 1ms
rtt min/avg/max/mdev = 1.0/2.5/3.0/0.1 ms"; else echo "5 packets transmitted, 0 received, 100% packet loss"; exit 1; fi
"""
WG = """#!/bin/sh
case "$1 $3" in
    "show latest-handshakes") printf 'KEY\\t%s\\n' "$(cat "$NET/handshake")" ;;
    "show endpoints") printf 'KEY\\t%s\\n' "$(cat "$NET/endpoint")" ;;
    "set peer") echo "$6" >"$NET/endpoint"; echo "wg $*" >>"$NET/notes" ;;
    *) echo "wg $*" >>"$NET/notes" ;;
esac
"""
IP = """#!/bin/sh
if [ "$1" = route ]; then echo "ip $*" >>"$NET/notes"; else echo "$6" >"$NET/prov0/mtu"; fi
"""
SYSTEMCTL = '#!/bin/sh\necho "systemctl $*" >>"$NET/notes"\n'


class Host:
    """A folder that stands for /sys/class/net and for what the programs around the keeper say."""

    def __init__(self, folder: Path) -> None:
        self.net = folder / "net"
        (self.net / "prov0").mkdir(parents=True)
        (folder / "bin").mkdir()
        for name, text in (("ping", PING), ("wg", WG), ("ip", IP), ("systemctl", SYSTEMCTL)):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        self.folder = folder
        self.set(fits=1500, handshake=int(time.time()) - 20, endpoint="127.0.0.1:51820", notes="")
        (self.net / "prov0" / "mtu").write_text("1420\n")
        peer = {"host": "hub", "public_key": "KEY", "endpoint": "127.0.0.1:51820", "address": "10.87.0.1"}
        config = {"interface": "prov0", "unit": "wg-quick@prov0.service", "mtu": 1420, "role": "spoke", "peers": [peer]}
        (folder / "tunnel.json").write_text(json.dumps(config))

    def set(self, **values: object) -> None:
        for name, value in values.items():
            (self.net / name).write_text(f"{value}\n" if value != "" else "")

    def keep(self) -> dict[str, Any]:
        environment = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "NET": str(self.net),
            "PROVISION_TUNNEL_NET": str(self.net),
            "PROVISION_TUNNEL_CONFIG": str(self.folder / "tunnel.json"),
            "PROVISION_TUNNEL_NOTES": str(self.folder / "run" / "tunnel.json"),
        }
        subprocess.run([sys.executable, str(PROGRAMS / "keeper.py")], env=environment, check=True)
        path = self.folder / "run" / "tunnel.json"
        value: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return value

    @property
    def notes(self) -> str:
        return (self.net / "notes").read_text()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_tunnel_that_carries_is_only_noted(host: Host) -> None:
    notes = host.keep()
    (peer,) = notes["peers"]

    assert (notes["mtu"], peer["host"], peer["loss_pct"], peer["rtt_ms"]) == (1420, "hub", 0.0, 2.5)
    assert peer["path_ms"] == 2.5  # of 127.0.0.1, where the hub is dialled
    assert abs(peer["handshake"] - time.time()) < 60
    assert (notes["acted"], host.notes) == ([], "")


def test_a_hub_that_moved_is_dialled_at_its_new_address(host: Host) -> None:
    host.set(fits=0, endpoint="192.0.2.1:51820")
    notes = host.keep()

    assert "wg set prov0 peer KEY endpoint 127.0.0.1:51820" in host.notes
    assert notes["acted"][-1]["what"] == "hub is dialled at 127.0.0.1:51820 now"


def test_a_mapping_that_stays_dead_is_left_by_another_port(host: Host) -> None:
    """Not at the first silence: the hub may just be restarting."""
    host.set(fits=0)
    host.keep()
    assert host.notes == ""
    host.keep()

    assert host.notes == "wg set prov0 listen-port 0\n"


def test_an_interface_that_is_gone_is_started_again(host: Host) -> None:
    (host.net / "prov0" / "mtu").unlink()

    assert "interface was gone" in host.keep()["acted"][0]["what"]
    assert "systemctl restart wg-quick@prov0.service" in host.notes


def test_when_only_small_packets_come_through_the_mtu_is_lowered_to_what_does(host: Host) -> None:
    host.set(fits=1313)
    notes = host.keep()

    assert (host.net / "prov0" / "mtu").read_text() == "1313\n"
    assert notes["mtu"] == 1313
    host.set(fits=1500)
    assert host.keep()["mtu"] == 1313  # not at once: it would be tried four times a minute


def test_with_ipv6_inside_the_mtu_stays_what_ipv6_needs(host: Host) -> None:
    """Below 1280 the kernel would take the address off the interface: the tunnel would be gone for good."""
    path = host.folder / "tunnel.json"
    path.write_text(path.read_text().replace("10.87.0.1", "fd87::1"))
    host.set(fits=1270)
    host.keep()
    assert (host.net / "prov0" / "mtu").read_text() == "1420\n"

    host.set(fits=1300)
    host.keep()
    assert (host.net / "prov0" / "mtu").read_text() == "1300\n"


def test_after_an_hour_the_full_size_is_tried_again(host: Host) -> None:
    host.set(fits=1313)
    host.keep()
    path = host.folder / "run" / "tunnel.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lowered_at": time.time() - 4000}))
    host.set(fits=1500)

    notes = host.keep()
    assert notes["mtu"] == 1420
    assert "lowered_at" not in notes  # nothing is narrow any more


def test_a_hub_narrows_the_route_to_the_one_whose_path_is_narrow(host: Host) -> None:
    """The others keep the full size, and so does the interface."""
    path = host.folder / "tunnel.json"
    config = json.loads(path.read_text())
    config["peers"][0] |= {"endpoint": None, "host": "rig-01", "address": "10.87.0.2"}
    path.write_text(json.dumps(config))
    host.set(fits=1313)
    host.keep()
    host.keep()

    assert host.notes == "ip route replace 10.87.0.2/32 dev prov0 mtu 1313\n"
    assert (host.net / "prov0" / "mtu").read_text() == "1420\n"


def nebula(of: Host, **peer: object) -> None:
    path = of.folder / "tunnel.json"
    config = json.loads(path.read_text()) | {"kind": "nebula", "unit": "provision-nebula.service", "mtu": 1300}
    config["peers"][0] |= {"public_key": "", **peer}
    path.write_text(json.dumps(config))
    (of.net / "prov0" / "mtu").write_text("1300\n")


def test_nebula_is_kept_without_handshakes(host: Host) -> None:
    """The last answer takes their place, so that everything that reads the notes reads these too."""
    nebula(host)
    (peer,) = host.keep()["peers"]

    assert (peer["loss_pct"], peer["rtt_ms"]) == (0.0, 2.5)
    assert abs(peer["handshake"] - time.time()) < 60

    host.set(fits=0)
    runs = [host.keep() for _ in range(4)]
    assert [run["peers"][0]["lost_runs"] for run in runs] == [1, 2, 3, 4]
    assert runs[3]["peers"][0]["handshake"] == peer["handshake"]
    assert host.notes == "systemctl restart provision-nebula.service\n"
    assert runs[3]["acted"][-1]["what"] == "hub does not answer: provision-nebula.service was started again"


def test_a_hub_of_nebula_asks_those_that_dial_it_in_turn(host: Host) -> None:
    """What was seen of one at its turn stays until the next."""
    nebula(host, endpoint=None, host="rig-01", address="10.87.0.2")
    path = host.folder / "tunnel.json"
    config = json.loads(path.read_text())
    config["peers"].append({**config["peers"][0], "host": "rig-02", "address": "10.87.0.3"})
    path.write_text(json.dumps(config))
    first, second = host.keep(), host.keep()

    assert [p.get("loss_pct") for p in first["peers"]].count(None) == 1
    assert [p["loss_pct"] for p in second["peers"]] == [0.0, 0.0]


def reverse(of: Host, **peer: object) -> None:
    path = of.folder / "tunnel.json"
    config = {"interface": "prov0", "kind": "ssh-reverse", "unit": "provision-ssh-tunnel.service", "mtu": 0}
    path.write_text(json.dumps(config | {"peers": [{"public_key": "", **peer}]}))


def test_a_hub_of_reverse_tunnels_hears_sshd_through_the_port(host: Host) -> None:
    """And when the connection has ended, and its port with it, it notes that and starts nothing again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        reverse(host, host="rig-01", endpoint=None, address=f"127.0.0.1:{port}")
        greeter = threading.Thread(target=_greet, args=(server,), daemon=True)
        greeter.start()
        (peer,) = host.keep()["peers"]
        server.shutdown(socket.SHUT_RDWR)
        greeter.join(10)
    assert peer["loss_pct"] == 0.0
    assert peer["rtt_ms"] >= 0
    assert abs(peer["handshake"] - time.time()) < 60

    notes = host.keep()
    assert (notes["peers"][0]["loss_pct"], notes["peers"][0]["handshake"]) == (100.0, peer["handshake"])
    assert (notes["mtu"], notes["kind"], host.notes) == (None, "ssh-reverse", "")  # nothing is started again


def _greet(server: socket.socket) -> None:
    while True:
        try:
            line, _ = server.accept()
        except OSError:
            return
        with line:
            line.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")


def test_a_rig_of_a_reverse_tunnel_notes_whether_its_connection_stands(host: Host) -> None:
    """One that was started a moment ago still dials: where nobody answers it always would have been."""
    reverse(host, host="hub", endpoint="203.0.113.1:22", address="")
    with holder(CONNECTED) as pid:
        runs_since(host, 300, pid=pid)
        (peer,) = host.keep()["peers"]
        assert abs(peer["handshake"] - time.time()) < 60

        (host.folder / "run" / "tunnel.json").unlink()
        for state, ago in (("active", 9.0), ("activating", 300), ("failed", 300)):
            runs_since(host, ago, state, pid=pid)
            assert host.keep()["peers"][0]["handshake"] == 0, (state, ago)
    (host.folder / "bin/systemctl").write_text("#!/bin/sh\nexit 3\n")
    assert host.keep()["peers"][0]["handshake"] == 0


@pytest.mark.parametrize("held", [ASKS_A_NAME_SERVER, LISTENS, HAS_ENDED])
def test_a_rig_whose_ssh_has_no_connection_notes_none(host: Host, held: str) -> None:
    """It waits for a name server that does not answer, and may do so for longer than a dial lasts."""
    reverse(host, host="hub", endpoint="hub.example:22", address="")
    with holder(held) as pid:
        runs_since(host, 300, pid=pid)
        assert host.keep()["peers"][0]["handshake"] == 0
    runs_since(host, 300, pid=0)
    assert host.keep()["peers"][0]["handshake"] == 0


def runs_since(of: Host, seconds: float, state: str = "active", *, pid: int) -> None:
    entered = round((time.monotonic() - seconds) * 1e6)
    text = f"ActiveState={state}\nActiveEnterTimestampMonotonic={entered}\nMainPID={pid}\n"
    (of.folder / "bin/systemctl").write_text(f"#!/bin/sh\nprintf '{text}'\n")


def test_without_a_tunnel_it_does_nothing(host: Host) -> None:
    (host.folder / "tunnel.json").unlink()

    assert host.keep() == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"peers": 4}'])
def test_notes_of_before_that_are_damaged_stop_nothing(host: Host, text: str) -> None:
    (host.folder / "run").mkdir()
    (host.folder / "run" / "tunnel.json").write_text(text)

    assert host.keep()["mtu"] == 1420


# The reloader.


def test_keys_go_in_where_their_files_are_named(tmp_path: Path) -> None:
    reload = runpy.run_path(str(PROGRAMS / "wg_reload.py"))
    for name in ("own", "pair"):
        (tmp_path / name).write_text(f"{name}-secret\n")
    text = (
        f"[Interface]\nPostUp = wg set %i private-key {tmp_path / 'own'}\n"
        f"PostUp = wg set %i peer AAA preshared-key {tmp_path / 'pair'}\n"
        "[Peer]\nPublicKey = AAA\nAllowedIPs = 10.0.0.1/32\n"
    )
    stripped = "[Interface]\n[Peer]\nPublicKey = AAA\nAllowedIPs = 10.0.0.1/32\n[Peer]\nPublicKey = BBB\n"

    assert reload["with_keys"](stripped, text) == (
        "[Interface]\nPrivateKey = own-secret\n[Peer]\nPublicKey = AAA\nPresharedKey = pair-secret\n"
        "AllowedIPs = 10.0.0.1/32\n[Peer]\nPublicKey = BBB\n"
    )
    assert reload["values"](text, "AllowedIPs") == ["10.0.0.1/32"]


@pytest.mark.parametrize(
    ("stripped", "wanted"),
    [
        pytest.param("[Interface]\n[Peer]\n", "[Interface]\nListenPort = 41736\n[Peer]\n", id="a host that dials"),
        pytest.param(
            "[Interface]\nListenPort = 51820\n", "[Interface]\nListenPort = 51820\n", id="one that is dialled"
        ),
    ],
)
def test_a_host_that_dials_keeps_the_port_that_its_hub_knows(stripped: str, wanted: str) -> None:
    """`wg syncconf` takes another one when the file names none: nothing would come from the hub for some seconds."""
    reload = runpy.run_path(str(PROGRAMS / "wg_reload.py"))

    assert reload["with_port"](stripped, "41736\n") == wanted


CONF = (
    "[Interface]\nAddress = fd87:1::2/128\n\n[Peer]\n# hub\nPublicKey = HUB\nAllowedIPs = fd87:1::1/128\n"
    "Endpoint = [fd01::1]:51820\nPersistentKeepalive = 25\n\n"
    "[Peer]\n# other\nPublicKey = OTHER\nAllowedIPs = 10.0.0.9/32\n"
)


@pytest.mark.parametrize(
    ("seen", "set_again"),
    [
        (["[fd01::1]:51820"], 0),
        (["10.0.0.1:51820", "[fd01::1]:51820"], 1),
        (["10.0.0.1:51820"], 3),
    ],
    ids=["at once", "after one packet of the old path", "it answers from elsewhere"],
)
def test_an_endpoint_that_moved_is_heard_at_its_new_place(seen: list[str], set_again: int) -> None:
    """What still comes from the old one would make WireGuard go back to it; who dials speaks first."""
    reload = runpy.run_path(str(PROGRAMS / "wg_reload.py"))
    said: list[tuple[str, ...]] = []

    def run(*argv: str, **_: Any) -> str:
        said.append(argv)
        if argv[0] != "wg" or argv[1] != "show":
            return ""
        return f"HUB\t{seen.pop(0) if len(seen) > 1 else seen[0]}\nOTHER\t(none)\n"

    reload["speak_first"].__globals__["run"] = run
    reload["speak_first"]("prov0", CONF)

    again = ("wg", "set", "prov0", "peer", "HUB", "endpoint", "[fd01::1]:51820")
    assert said.count(again) == set_again
    pings = [argv for argv in said if argv[0] == "ping"]
    assert {argv[-1] for argv in pings} == {"fd87:1::1"}
    assert said[0] in pings
