"""The watchdog sees each cause, takes the documented step, and writes what it did; with a world made of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provisioner.host import client, gate, ladder, watchdog
from provisioner.matrix.reader import load
from provisioner.resources.wanted import CLUSTERS, JOBS

UNIT = "provision-client@lium.service"
CARD = {"uuid": "GPU-1", "name": "A", "temperature_c": 60, "slowdown_c": 90, "reasons": 0}
CARD |= {"power_w": 300.0, "limit_w": 450.0, "default_w": 450.0, "least_w": 150.0, "most_w": 600.0}


class Host(watchdog.Host):
    """An enrolled host that serves lium well; tests break it."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.time = 1_800_000_000.0
        self.cards: dict[str, Any] = {"driver": "535.261.03", "gpus": [dict(CARD)]}
        self.told: list[str] = []
        self.units = {UNIT}
        self.working: list[str] = []
        self.log: list[str] = []
        self.free: dict[str, int] = {}
        self.ran: list[list[str]] = []
        self.healthy = True
        for path in (gate.RECORD, f"{watchdog.CLIENTS}/lium", f"{watchdog.HEALTH}/lium", watchdog.BOOT):
            place = root / path[1:]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("boot-1\n" if path == watchdog.BOOT else "x")
            place.chmod(0o755)

    def now(self) -> float:
        return self.time

    def nvml(self) -> dict[str, Any]:
        return self.cards

    def gate(self, network: str) -> list[str]:
        return self.told

    def admits(self, network: str) -> list[str]:
        return self.told

    def active(self, unit: str) -> bool:
        return unit in self.units

    def since(self, unit: str) -> float | None:
        return self.time - 3600 if unit in self.units else None

    def said(self, words: list[str], limit_s: float = 30) -> tuple[int, str]:
        return (0, "") if self.healthy else (1, "no heartbeat for 300 s (/data/heartbeat)\nmore\n")

    def jobs(self, containers: str | None, network: str) -> list[str]:
        return self.working

    def free_mib(self, path: str) -> int | None:
        return self.free.get(path, 50_000)

    def kernel_log(self) -> list[str]:
        return self.log

    def run(self, words: list[str], limit_s: float = 120) -> int:
        if words[0].endswith("/health/lium"):
            return 0 if self.healthy else 1
        self.ran.append(words)
        return 0

    def cap_power(self) -> list[str]:
        self.ran.append(["cap"])
        for card in self.cards["gpus"]:
            card["limit_w"] *= 0.9
        return ["A: power limit 450 W → 405 W"]

    def restore_power(self, limits: dict[str, float]) -> list[str]:
        self.ran.append(["restore", *(f"{uuid}={limit:g}" for uuid, limit in limits.items())])
        return []


CONFIG: dict[str, Any] = {"networks": ["lium"], "reboot": True, "jobs": {"lium": "pod_*"}}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(watchdog, "enrolled_cards", lambda root: [CARD])
    return Host(tmp_path)


def found(host: Host, **config: Any) -> dict[str, str]:
    return watchdog.causes(host, CONFIG | config, {"cards": [CARD]}, host.nvml())


def test_nothing_is_wrong(host: Host) -> None:
    """No cause, no action, and it is written down."""
    assert found(host) == {}
    status = watchdog.run(host, CONFIG)
    assert (status["causes"], status["actions"], host.ran) == ({}, [], [])
    assert json.loads((Path(host.root) / watchdog.STATUS[1:]).read_text())["format"] == 1


def record(number: int, text: str) -> str:
    return f"3,{number},1000,-;{text}\n SUBSYSTEM=pci\n"


XID79 = "NVRM: Xid (PCI:0000:a1:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
XID31 = "NVRM: Xid (PCI:0000:c4:00): 31, pid=77120, name=python3, Ch 00000008, MMU Fault"


def test_each_cause(host: Host) -> None:
    """What it is called, and the words that a person reads."""
    host.cards["gpus"][0]["temperature_c"] = 95
    assert found(host) == {"hot": "A is at 95 °C; it slows down at 90 °C"}
    host.cards["gpus"][0].update(temperature_c=80, reasons=0x40)
    assert found(host) == {"throttling": "A is slowed down at 80 °C, 300.0 W"}
    host.cards["gpus"].clear()
    assert found(host) == {"gpu-gone": "A (GPU-1)"}
    host.cards = {"error": "Driver/library version mismatch (18)"}
    assert found(host) == {}
    host.told = ["the loaded driver is 535.309.01, enrolled with 535.261.03"]
    assert found(host) == {"gate-closed/lium": host.told[0]}
    host.units.clear()
    assert found(host) == {}
    host.told = []
    assert found(host) == {"client-down/lium": "its unit does not run"}
    host.units.add(UNIT)
    host.healthy = False
    assert found(host) == {"heartbeat-stale/lium": "/usr/local/lib/provision/health/lium says it does not serve"}
    host.healthy = True
    host.free["/var"] = 12
    assert found(host) == {"disk-full": "/var has 12 MiB free"}
    host.free.clear()
    host.log = [record(7, XID31)]
    assert set(found(host)) == {"xid-application"}


def test_the_tunnel(host: Host) -> None:
    """Only where there is one: its keeper's notes, and that somebody keeps them."""
    root = Path(host.root)
    (root / gate.TUNNEL[1:]).parent.mkdir(parents=True)
    told = {"unit": "wg-quick@wg0.service", "peers": [{"host": "hub-01", "endpoint": "203.0.113.1:51820"}]}
    (root / gate.TUNNEL[1:]).write_text(json.dumps(told))
    assert found(host) == {"tunnel-stale": "nobody looks after the tunnel"}
    end = {"host": "hub-01", "handshake": int(host.time) - 301, "loss_pct": 100.0}
    notes = root / gate.TUNNEL_NOTES[1:]
    notes.parent.mkdir(parents=True)
    for change, silent in (({}, True), ({"handshake": int(host.time)}, False), ({"loss_pct": 20.0}, False)):
        notes.write_text(json.dumps({"at": int(host.time), "peers": [{**end, **change}]}))
        words = {"tunnel-stale": "hub-01 does not answer through the tunnel"}
        assert found(host) == (words if silent else {}), change
    notes.write_text(json.dumps({"at": int(host.time) - 301, "peers": [end]}))
    assert found(host) == {"tunnel-stale": "nobody looks after the tunnel since 301 s"}
    watchdog.run(host, CONFIG)
    assert host.ran == [["systemctl", "restart", "wg-quick@wg0.service", "provision-tunnel.timer"]]


def test_a_hub_is_not_started_again_for_one_that_dials_it(host: Host) -> None:
    """A rig that was switched off must not cost all others their sessions."""
    root = Path(host.root)
    for path in (gate.TUNNEL, gate.TUNNEL_NOTES):
        (root / path[1:]).parent.mkdir(parents=True)
    told = {"unit": "provision-nebula.service", "peers": [{"host": "rig-01", "endpoint": None}]}
    (root / gate.TUNNEL[1:]).write_text(json.dumps(told))
    end = {"host": "rig-01", "handshake": int(host.time) - 4000, "loss_pct": 100.0}
    (root / gate.TUNNEL_NOTES[1:]).write_text(json.dumps({"at": int(host.time), "peers": [end]}))

    assert found(host) == {}


def test_what_is_not_installed_or_enrolled_is_not_expected_to_run(host: Host) -> None:
    """Nor is what somebody drained."""
    host.units.clear()
    client.close("lium", host.root)
    assert found(host) == {}
    client.reopen("lium", host.root)
    assert set(found(host)) == {"client-down/lium"}
    (Path(host.root) / gate.RECORD[1:]).unlink()
    assert found(host) == {}


def rounds(host: Host, minutes: int, **config: Any) -> list[list[str]]:
    """Live through minutes; return what was run."""
    for _ in range(minutes):
        watchdog.run(host, CONFIG | config)
        host.time += 60
    return host.ran


def test_a_hung_client_is_started_three_times_then_given_up(host: Host) -> None:
    """And the counters tell how often."""
    host.units.clear()
    assert rounds(host, 60) == [["systemctl", "start", "--no-block", UNIT]] * 3
    text = (Path(host.root) / watchdog.METRICS[1:]).read_text()
    assert 'provision_watchdog_actions_total{action="start-client",cause="client-down"} 3' in text
    assert 'provision_watchdog_actions_total{action="tell",cause="client-down"} 1' in text
    assert 'provision_watchdog_cause{cause="client-down",network="lium"} 1' in text
    assert 'provision_client_serves{network="lium"} 0' in text


def test_a_card_that_fell_off_the_bus(host: Host) -> None:
    """Drained, then one reboot, however often the ring is read; after the boot the fault is over."""
    host.log = [record(7, XID79)]
    assert rounds(host, 60) == [["systemctl", "reboot"]]
    assert (Path(host.root) / f"{gate.DRAINED}/lium"[1:]).read_text().startswith("watchdog: Xid 79 on PCI:0000:a1:00:")
    (Path(host.root) / watchdog.BOOT[1:]).write_text("boot-2\n")
    host.log = []
    rounds(host, 6)
    assert not (Path(host.root) / f"{gate.DRAINED}/lium"[1:]).exists()


def test_a_reboot_is_remembered_although_the_host_goes_down_with_it(host: Host) -> None:
    """What counts against the limit is on disk before systemd is asked."""
    host.log = [record(7, XID79)]
    kept: list[Any] = []
    plain = host.run

    def run(words: list[str], limit_s: float = 120) -> int:
        if words == ["systemctl", "reboot"]:
            kept.append(watchdog.load(host.root + watchdog.STATUS)["memory"]["ladder"]["reboots"])
        return plain(words, limit_s)

    host.run = run  # type: ignore[method-assign]
    rounds(host, 3)
    assert kept == [[host.time - 120]]


def test_a_job_is_never_ended(host: Host) -> None:
    """Nor when Docker does not say whether there is one."""
    host.log, host.working = [record(7, XID79)], ["container pod_1"]
    assert rounds(host, 120) == []
    status = watchdog.run(host, CONFIG)
    assert status["held"] == {"xid-hardware": "reboot: a job runs"}

    def unseen(containers: str | None, network: str) -> list[str]:
        raise client.Unseen("no Docker")

    host.jobs = unseen  # type: ignore[method-assign]
    assert rounds(host, 120) == []


def test_a_hot_card(host: Host) -> None:
    """Capped three times, then drained, then stopped; cool again: opened, started, and the policy holds once more."""
    host.cards["gpus"][0]["temperature_c"] = 95
    assert rounds(host, 30) == [["cap"], ["cap"], ["cap"], ["systemctl", "stop", "--no-block", UNIT]]
    host.cards["gpus"][0]["temperature_c"] = 60
    host.ran.clear()
    host.units.clear()
    rounds(host, 10)
    assert ["systemctl", "try-restart", "--no-block", "provision-power.service"] in host.ran
    # What it had before the first of three caps: a host without a power policy would stay capped for good.
    assert ["restore", "GPU-1=450"] in host.ran
    assert ["systemctl", "start", "--no-block", UNIT] in host.ran


def test_a_mark_that_somebody_else_set_stays(host: Host) -> None:
    """Who drains by hand means it."""
    client.close("lium", host.root, "for new memory")
    rounds(host, 10)
    assert (Path(host.root) / f"{gate.DRAINED}/lium"[1:]).exists()


def on_kubernetes(host: Host) -> list[list[str]]:
    """Lium, as if Kubernetes ran it; what is asked of the node."""
    place = Path(host.root) / "etc/provision/cluster/lium.json"
    place.parent.mkdir(parents=True)
    place.write_text("{}")
    asked: list[list[str]] = []
    run = host.run

    def seen(words: list[str], limit_s: float = 120) -> int:
        if words[0].endswith("provision-cluster"):
            asked.append(words[1:])
            return 1 if words[1] == "open" and ["hold", "lium"] in asked else 0
        return run(words, limit_s)

    host.run = seen  # type: ignore[method-assign]
    return asked


def test_a_node_that_nobody_held_back(host: Host) -> None:
    """After a crash the gate keeps the unit stopped, and the node takes pods all the same: it is held back then."""
    asked = on_kubernetes(host)
    host.told, host.units = ["the loaded driver is 550.1, enrolled with 535.1"], set()
    watchdog.run(host, CONFIG)
    assert asked == [["open", "lium"], ["hold", "lium"]]
    watchdog.run(host, CONFIG)
    assert asked[2:] == [["open", "lium"]]


def test_a_drained_node_takes_pods_again(host: Host) -> None:
    """When what was wrong is gone, and its unit runs."""
    asked = on_kubernetes(host)
    host.free["/var"] = 100
    watchdog.run(host, CONFIG)
    assert asked == [["hold", "lium"]]
    host.free.clear()
    rounds(host, 10)
    assert asked == [["hold", "lium"], ["release", "lium"]]


@pytest.mark.parametrize("text", ["", "x", "[]", "null", '{"memory": {}}'])
def test_a_damaged_memory_begins_anew(host: Host, text: str) -> None:
    """The watchdog itself must not stay down."""
    (Path(host.root) / watchdog.STATUS[1:]).write_text(text)
    assert watchdog.run(host, CONFIG)["causes"] == {}


def test_records_of_the_kernel_log() -> None:
    """Numbers tell what is new; other lines, and damaged ones, are passed over."""
    log = [record(5, "usb 1-1: new"), "rubbish", record(6, XID79), record(9, XID31)]
    assert watchdog.xids(log, -1)[0] == [
        (79, "Xid 79 on PCI:0000:a1:00: pid='<unknown>', name=<unknown>, GPU has fallen off the bus."),
        (31, "Xid 31 on PCI:0000:c4:00: pid=77120, name=python3, Ch 00000008, MMU Fault"),
    ]
    assert watchdog.xids(log, 6) == (
        [(31, "Xid 31 on PCI:0000:c4:00: pid=77120, name=python3, Ch 00000008, MMU Fault")],
        9,
    )
    assert watchdog.xids(log, 9) == ([], 9)


def test_metrics_are_prometheus_text(host: Host) -> None:
    """Every sample stands below its HELP and TYPE, and odd names are quoted."""
    host.cards["gpus"][0]["name"] = 'odd "name"\\'
    watchdog.run(host, CONFIG)
    lines = (Path(host.root) / watchdog.METRICS[1:]).read_text().splitlines()
    assert 'provision_gpu_temperature_celsius{name="odd \\"name\\"\\\\",uuid="GPU-1"} 60' in lines
    known = {line.split()[2] for line in lines if line.startswith("# TYPE ")}
    assert {line.partition("{")[0].split()[0] for line in lines if not line.startswith("#")} <= known


def test_jobs_are_those_of_the_contracts() -> None:
    """The table that is written to hosts says what the matrix says."""
    contracts = {name: network.contract for name, network in load().networks.items()}
    assert {n: c.busy.containers for n, c in contracts.items() if c is not None and c.busy.containers} == JOBS
    assert {n: c.cluster.model_dump() for n, c in contracts.items() if c is not None and c.cluster} == CLUSTERS


def test_every_action_is_known(host: Host) -> None:
    """An action that nobody carries out would be a promise."""
    for rungs in ladder.LADDERS.values():
        for action, _, _ in rungs:
            host.ran.clear()
            watchdog.act(host, CONFIG, action, "hot", "w")
            assert host.ran or action == "drain"


def test_who_serves_since_when_and_why_not(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """What `provision status --live` asks for; nothing is changed by it."""

    def told(network: str = "lium") -> dict[str, Any]:
        assert watchdog.main(["serves", network], host) == 0
        answer = json.loads(capsys.readouterr().out)
        assert (answer["format"], answer["watchdog"], host.ran) == (1, None, [])
        one: dict[str, Any] = answer["clients"][network]
        return one

    assert told() == {"serves": True, "since": "2027-01-15T07:00:00Z", "why": ""}
    host.told = ["drained: by a person"]  # a job may still run to its end
    assert told() == {"serves": True, "since": "2027-01-15T07:00:00Z", "why": "drained: by a person"}
    host.healthy = False
    assert told() == {"serves": False, "since": None, "why": "no heartbeat for 300 s (/data/heartbeat)"}
    host.units.clear()
    assert told() == {"serves": False, "since": None, "why": "drained: by a person"}
    host.told = []
    assert told() == {"serves": False, "since": None, "why": "its unit does not run"}
    assert told("akash")["why"] == "nothing starts it: /usr/local/lib/provision/clients/akash is not there"
    assert watchdog.main(["serves", "../x"], host) == 2


def test_the_last_round_is_told_too(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.cards["gpus"][0]["temperature_c"] = 95
    watchdog.run(host, CONFIG)
    watchdog.main(["serves"], host)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["watchdog"]["causes"] == {
        "hot": "A is at 95 °C; it slows down at 90 °C"
    }


def test_when_a_unit_began_is_counted_from_the_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was set anew in between does not move it."""
    real = watchdog.Host(str(tmp_path))
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: 1000.0)
    monkeypatch.setattr(watchdog.time, "time", lambda: 500_000.0)
    for answer, began in (
        ((0, "ActiveEnterTimestampMonotonic=400000000\n"), 499_400.0),
        ((0, "ActiveEnterTimestampMonotonic=0\n"), None),
        ((1, ""), None),
    ):
        monkeypatch.setattr(real, "said", lambda words, limit_s=30, answer=answer: answer)
        assert real.since(UNIT) == began


def test_what_a_check_printed(tmp_path: Path) -> None:
    real = watchdog.Host(str(tmp_path))
    assert real.said(["sh", "-c", "echo out; echo no >&2; exit 3"]) == (3, "out\nno\n")
    assert real.said(["sleep", "9"], limit_s=0.1) == (124, "no answer within 0.1 s")
    assert real.said([str(tmp_path / "none")])[0] == 127
