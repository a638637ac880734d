"""A trial always ends, and takes a change back once at most; and the program in a world of files and notes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.host import fallback, trial

RUN = "20261125T012123Z-3fd8"
START: dict[str, Any] = {
    "format": 1, "run": RUN, "state": "armed", "at": "", "what": "driver 1 → 2", "limit_s": 900, "grub": None,
    "expect": {"driver": "2", "kernel": None}, "before": {"driver": "1", "kernel": None},
    "had": {"ssh": True, "route": True, "whole": True}, "boot": "b0", "boots": 0, "armed_s": 100.0,
    "why": "", "problem": "", "tries": 0,
}  # fmt: skip


def then(
    state: dict[str, Any], boot: str, up_s: float, *, hard: str = "", soft: str = ""
) -> tuple[dict[str, Any], str]:
    return trial.decide(state, boot, up_s, [hard] if hard else [], [soft] if soft else [])


# Decisions.


def test_nothing_is_judged_before_the_reboot() -> None:
    """The old driver is still loaded then; only a reboot that never comes ends it."""
    assert then(START, "b0", 900.0) == (START, "wait")
    state, action = then(START, "b0", 1001.0)

    assert (action, state["why"]) == ("undo", "the reboot did not come within 15 min")


def test_a_sound_host_waits_for_the_controller_and_then_goes_back() -> None:
    """From then on only the deadline counts: a verification may make the card slow to answer."""
    state, action = then(START, "b1", 30.0)
    assert (state["state"], state["boots"], action) == ("sound", 1, "wait")
    assert then(state, "b1", 899.0, soft="nvidia-smi: slow")[1] == "wait"
    state, action = then(state, "b1", 901.0)

    assert (state["state"], state["why"], action) == ("falling", "nobody confirmed within 15 min of the boot", "undo")


def test_what_stays_wrong_is_not_waited_for() -> None:
    """Another driver than the expected one is loaded: nothing will mend that."""
    state, action = then(START, "b1", 3.0, hard="driver 1 is loaded, not 2")

    assert (state["why"], action) == ("driver 1 is loaded, not 2", "undo")


def test_what_may_still_come_has_time_to() -> None:
    """sshd starts a little later; after the time to settle it counts."""
    state, action = then(START, "b1", 100.0, soft="sshd does not run")
    assert (state["state"], action) == ("trying", "wait")
    state, action = then(state, "b1", 181.0, soft="sshd does not run")

    assert (state["why"], action) == ("sshd does not run", "undo")


def test_a_host_that_restarts_again_and_again_goes_back() -> None:
    """Each boot is judged anew, and the fourth is one too many."""
    state = START
    for number in range(1, 4):
        state, action = then(state, f"b{number}", 10.0)
        assert action == "wait"
    state, action = then(state, "b4", 10.0)

    assert (state["why"], action) == ("the host was started 4 times, and nobody confirmed", "undo")


def test_the_way_back_to_its_end() -> None:
    """Taken back, rebooted, looked at, released."""
    state, _ = then(START, "b1", 3.0, hard="x")
    state = trial.came(state, "undo", "", True, 60.0)
    assert then(state, "b1", 61.0) == (state, "reboot")
    state, action = then(state, "b2", 20.0, soft="nvidia-smi: not yet")
    assert (state["state"], action) == ("returned", "wait")
    state, action = then(state, "b2", 40.0)
    assert action == "release"
    state = trial.came(state, "release", "", False, 50.0)

    assert (state["state"], then(state, "b2", 51.0)[1]) == ("back", "end")


def test_a_way_back_that_fails_is_not_tried_again() -> None:
    """The state says so, and why."""
    state, _ = then(START, "b1", 3.0, hard="x")
    state = trial.came(state, "undo", "apt-get: E: no", False, 60.0)

    assert (state["state"], state["problem"], then(state, "b2", 5.0)[1]) == ("gave-up", "apt-get: E: no", "end")


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["look", "boot", "cut"]),  # `cut`: the power fails while an action is under way
        st.sampled_from(["", "hard", "soft"]),
        st.booleans(),  # the action fails
        st.booleans(),  # the undo wants a reboot
        st.floats(1, 400),
    ),
    max_size=60,
)


@settings(max_examples=400)
@given(events=EVENTS, limit_s=st.integers(60, 3600))
def test_whatever_happens_a_change_is_taken_back_once_at_most(events: list[Any], limit_s: int) -> None:
    """An undo begins once (cut short, it goes on), no reboot of ours comes without one, and no end is left again."""
    state, boot, up_s = {**START, "limit_s": limit_s}, 0, 100.0
    begun = reboots = 0
    ended = ""
    for kind, wrong, fails, wants, seconds in events:
        up_s += seconds
        if kind == "boot":
            boot, up_s = boot + 1, seconds
        before = state["state"]
        state, action = trial.decide(state, f"b{boot}", up_s, *(["x"] if wrong == w else [] for w in ("hard", "soft")))
        begun += action == "undo" and before in trial.LIVE
        if action in ("undo", "release"):
            if kind == "cut":
                boot, up_s = boot + 1, 0.0
                continue
            state = trial.came(state, action, "no" if fails else "", wants, up_s)
        elif action == "reboot":
            assert begun == 1
            reboots += 1
            boot, up_s = boot + 1, 0.0
        assert not ended or state["state"] == ended
        ended = state["state"] if state["state"] in trial.ENDS else ended
    assert begun <= 1
    assert reboots <= begun


@given(
    wrong=st.sampled_from(["", "hard", "soft"]), fails=st.booleans(), wants=st.booleans(), limit=st.integers(1, 86400)
)
def test_a_trial_that_nobody_comes_back_to_ends(wrong: str, fails: bool, wants: bool, limit: int) -> None:
    """On a host that does what it is told, within the limit and some minutes."""
    state, boot, up_s, spent = {**START, "limit_s": limit}, 1, 5.0, 0.0
    action = "wait"
    while action != "end":
        state, action = trial.decide(state, f"b{boot}", up_s, *(["x"] if wrong == w else [] for w in ("hard", "soft")))
        up_s, spent = up_s + 5, spent + 5
        if action in ("undo", "release"):
            state = trial.came(state, action, "no" if fails else "", wants, up_s)
        elif action == "reboot":
            boot, up_s = boot + 1, 5.0
        assert spent < limit + 1000

    assert state["state"] in trial.ENDS


# The program, with a host of files.


class Host(trial.Host):
    """A folder for the files; commands are noted, and answer what a test says."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.here = root
        self.ran: list[str] = []
        self.answers: dict[str, tuple[int, str]] = {"nvidia-smi": (0, "GPU 0: NVIDIA GeForce RTX 3090\n")}
        self.number, self.age, self.release = 0, 100.0, "6.1.0-50-amd64"
        self.slept = 0
        for path in ("run", "var/lib/provision/trial", "etc/systemd/system", "var/lib/dpkg/updates"):
            (root / path).mkdir(parents=True)
        self.put("/proc/net/route", "Iface\nens3\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n")
        self.put("/sys/module/nvidia/version", "535.216.03\n")

    def put(self, path: str, text: str) -> Path:
        place = self.here / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    def there(self, path: str) -> bool:
        return (self.here / path[1:]).exists()

    def boot(self) -> str:
        return f"b{self.number}"

    def up_s(self) -> float:
        return self.age

    def kernel(self) -> str:
        return self.release

    def run(self, words: list[str], limit_s: float = 120) -> tuple[int, str]:
        line = " ".join(words)
        self.ran.append(line)
        if line == "systemctl reboot":
            self.number, self.age = self.number + 1, 10.0
            self.put("/sys/module/nvidia/version", "535.216.03\n")
        return next((answer for start, answer in self.answers.items() if line.startswith(start)), (0, ""))

    def sleep(self, seconds: float) -> None:
        self.age += 60
        self.slept += 1
        assert self.slept < 1000

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.here / "var/lib/provision/trial/state.json").read_text()))


def keep(host: Host, **more: Any) -> None:
    """What the history keeps of the run: two packages, two files, a unit."""
    folder = f"/var/lib/provision/history/{RUN}"
    archive = host.put(f"{folder}/debs/nvidia-smi_535.216.03-1_amd64.deb", "an archive")
    kept = host.put(f"{folder}/files/etc/apt/preferences.d/provision.pref", "Pin: version 535.216.03-1\n")
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (archive, kept)]
    smi = {"version": "535.216.03-1", "held": True, "auto": False, "unit": "driver", "architecture": "amd64"}
    traits = {"initramfs": False, "restarts": []}
    mode = {"mode": "0644", "owner": f"{kept.stat().st_uid}:{kept.stat().st_gid}"}
    record = {
        "from": {"entry": {"driver_version": {"value": "535.216.03"}, "kernels": ["6.1.0-50-amd64"]}},
        "driver": {"version": "535.216.03", "flavour": "proprietary"},
        "packages": {
            "nvidia-smi": {**smi, "sha256": sums[0]},
            "libnvidia-nvvm4": {"version": None, "unit": "driver"},
        },
        "files": {
            "/etc/apt/preferences.d/provision.pref": {**traits, **mode, "sha256": sums[1], "pins": True},
            "/etc/modprobe.d/new.conf": {**traits, "sha256": None, "pins": False},
        },
        "units": {"nvidia-persistenced.service": {"there": True, "enabled": True, "active": True}},
        **more,
    }
    host.put(f"{folder}/record.json", json.dumps(record))
    host.put(f"{folder}/enrolment.json", '{"a": "signed record"}\n')
    host.put("/etc/apt/preferences.d/provision.pref", "Pin: version 535.261.03-1\n")
    host.put("/etc/modprobe.d/new.conf", "options x\n")
    host.put("/lib/modules/6.1.0-50-amd64/modules.dep", "")


def wish(host: Host, **more: Any) -> None:
    asked = {"run": RUN, "what": "driver 535.216.03 → 535.261.03", "driver": "535.261.03", "once": None, "limit_s": 900}
    host.put("/var/lib/provision/trial/wish.json", json.dumps({**asked, **more}))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    keep(made)
    wish(made)
    listed = "nvidia-smi\t535.261.03-1\thi \nlibnvidia-nvvm4\t535.261.03-1\tii \nrunc\t1\trc \n"
    made.answers["dpkg-query"] = (0, listed)
    return made


def rebooted(host: Host, driver: str = "535.261.03") -> None:
    host.number, host.age = host.number + 1, 20.0
    host.put("/sys/module/nvidia/version", driver + "\n")


def test_nothing_to_go_back_to_is_no_trial(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """A first installation has no stack before it."""
    keep(host, **{"from": None})

    assert trial.main(["arm"], host) == 1
    assert "nothing is kept" in capsys.readouterr().err
    assert not host.there(trial.UNIT_PATH)


def test_armed(host: Host) -> None:
    """The unit is enabled and runs; what is there before is what is missed after."""
    host.answers["systemctl is-active"] = (3, "")

    assert trial.main(["arm"], host) == 0
    assert host.there(trial.UNIT_PATH)
    assert f"systemctl enable {trial.UNIT}" in host.ran
    assert (host.state["state"], host.state["had"]) == ("armed", {"ssh": False, "route": True, "whole": True})
    assert host.state["before"] == {"driver": "535.216.03", "kernel": None}


def test_confirmed_nothing_is_left(host: Host) -> None:
    """Neither unit nor folder; a watch that comes late finds nothing to do."""
    trial.main(["arm"], host)
    rebooted(host)

    assert trial.main(["confirm"], host) == 0
    assert not host.there(trial.UNIT_PATH) and not host.there(trial.FOLDER)
    assert host.there(f"/var/lib/provision/history/{RUN}/record.json")
    assert trial.watch(host) == 0


def test_nobody_came_back(host: Host) -> None:
    """Packages, pins, files, holds, module, reboot, and the record of before: the host serves as it did."""
    trial.main(["arm"], host)
    rebooted(host)
    host.ran.clear()

    assert trial.main(["watch"], host) == 0
    ran = [line for line in host.ran if not line.startswith(("systemctl is-active", "dpkg --audit", "nvidia-smi"))]
    debs = f"{host.root}/var/lib/provision/history/{RUN}/debs"
    apt = next(line for line in ran if line.startswith("apt-get"))
    assert apt.endswith(f" --purge install libnvidia-nvvm4- {debs}/nvidia-smi_535.216.03-1_amd64.deb")
    # Seen with apt 2.2 to 3.0: --no-download fails with any archive named by its path; no source means no download.
    assert "--no-download" not in apt
    assert "--option Dir::Etc::SourceList=/dev/null --option Dir::Etc::SourceParts=/dev/null" in apt
    assert ran[:2] == [" ".join(fallback.CONFIGURE), "dpkg-query -W -f ${Package}\t${Version}\t${db:Status-Abbrev}\n"]
    assert ran[3:9] == [
        "apt-mark hold nvidia-smi",
        "systemctl daemon-reload",
        "dkms --version",
        "dkms autoinstall -k 6.1.0-50-amd64",
        "systemctl enable nvidia-persistenced.service",
        "systemctl reboot",
    ]
    assert host.read("/etc/apt/preferences.d/provision.pref") == "Pin: version 535.216.03-1\n"
    assert not host.there("/etc/modprobe.d/new.conf")
    assert host.read("/var/lib/provision/enrolment.json") == '{"a": "signed record"}\n'
    assert "systemctl start provision-clients.target" in ran
    assert not host.there(f"/var/lib/provision/history/{RUN}")
    assert (host.state["state"], host.state["why"]) == ("back", "nobody confirmed within 15 min of the boot")
    assert not host.there(trial.UNIT_PATH) and not host.there(trial.LEASE)


def test_kept_archives_alone_come_with_a_name(host: Host) -> None:
    """Nothing to purge: with paths alone apt refuses a host with unmet dependencies (seen with apt 2.6)."""
    record = json.loads((host.here / f"var/lib/provision/history/{RUN}/record.json").read_text())
    kept = {"nvidia-smi": record["packages"]["nvidia-smi"]}
    words = fallback.transaction(host, RUN, kept, {})

    assert words[words.index("install") + 1 :] == [
        f"{host.root}/var/lib/provision/history/{RUN}/debs/nvidia-smi_535.216.03-1_amd64.deb",
        "nvidia-smi=535.216.03-1",
    ]


def test_what_dkms_was_filling_when_it_was_killed_goes(host: Host) -> None:
    """It is no build to DKMS, and keeps `dkms remove` from taking the version away."""
    for kernel in ("6.1", "6.9", "build"):
        host.put(f"/var/lib/dkms/nvidia/535.1/{kernel}/x86_64/module/nvidia.ko", "x")
    host.put("/var/lib/dkms/nvidia/original_module/6.9/x86_64/nvidia.ko", "x")
    host.answers["dkms status -m nvidia -v 535.1 -k 6.1 -a x86_64"] = (0, "nvidia/535.1, 6.1, x86_64: installed\n")
    host.answers["dkms status"] = (0, "nvidia/535.1: added\n")
    fallback.clear_half_built(host)

    assert sorted(path.name for path in (host.here / "var/lib/dkms/nvidia/535.1").iterdir()) == ["6.1", "build"]
    assert host.there("/var/lib/dkms/nvidia/original_module/6.9/x86_64/nvidia.ko")


def test_going_back_cannot_be_confirmed(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor cancelled; and no other run can take the host meanwhile."""
    trial.main(["arm"], host)
    rebooted(host)
    seen = []

    class Late(Exception):
        pass

    def undo(*_: Any, **__: Any) -> bool:
        seen.extend([trial.main(["confirm"], host), trial.main(["cancel"], host), host.read(trial.LEASE)])
        raise Late

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fallback, "take_back", undo)
        with pytest.raises(Late):
            trial.main(["watch"], host)
    assert seen[:2] == [trial.BUSY, trial.BUSY]
    assert "user=the host itself" in seen[2]
    assert "going back by itself: nobody confirmed" in capsys.readouterr().err
    # The power came back: it goes on where it was.
    assert trial.main(["watch"], host) == 0
    assert host.state["state"] == "back"


def test_an_archive_that_is_damaged_changes_nothing(host: Host) -> None:
    """Every archive is compared before anything is touched; the host gives up and says so."""
    trial.main(["arm"], host)
    rebooted(host)
    host.put(f"/var/lib/provision/history/{RUN}/debs/nvidia-smi_535.216.03-1_amd64.deb", "damaged")
    trial.main(["watch"], host)

    assert host.state["state"] == "gave-up"
    assert "not what was kept" in host.state["problem"]
    assert host.read("/etc/apt/preferences.d/provision.pref") == "Pin: version 535.261.03-1\n"
    assert not [line for line in host.ran if line.startswith(("apt", "systemctl reboot"))]
    assert not host.there("/var/lib/provision/enrolment.json") and not host.there(trial.UNIT_PATH)


def test_a_card_that_does_not_answer_after_the_way_back_opens_no_gate(host: Host) -> None:
    """Without the checks there is no record."""
    trial.main(["arm"], host)
    rebooted(host)
    host.answers["nvidia-smi"] = (124, "no answer within 60 s")
    trial.main(["watch"], host)

    assert (host.state["state"], host.state["problem"]) == ("gave-up", "nvidia-smi: no answer within 60 s")
    assert host.state["why"] == "nvidia-smi: no answer within 60 s"
    assert host.ran.count("systemctl reboot") == 1
    assert not host.there("/var/lib/provision/enrolment.json")


@pytest.mark.parametrize("text", ["Iface\nens3\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", ""])
def test_no_default_route(host: Host, text: str) -> None:
    """A network of one's own is no way out; IPv6's is one, the entry of lo is none."""
    host.put("/proc/net/route", text)
    assert not trial.routed(host)
    line = "0" * 32 + " 00 " + "0" * 32 + " 00 fe80 00000400 1 0 00000003 {}\n"
    host.put("/proc/net/ipv6_route", line.format("lo"))
    assert not trial.routed(host)
    host.put("/proc/net/ipv6_route", line.format("ens3"))
    assert trial.routed(host)


def test_a_command_that_hangs_is_left(tmp_path: Path) -> None:
    """A process that waits for a sick card cannot be ended, and this one must go on."""
    assert trial.Host().run(["sleep", "60"], 0.2) == (124, "no answer within 0.2 s")
    assert trial.Host().run(["echo", "hello"]) == (0, "hello\n")
    assert trial.Host().run(["no-such-program"])[0] == 127


def test_this_machine_has_an_age() -> None:
    """Boot and age come from /proc, whose shape is the kernel's."""
    assert trial.Host().up_s() >= 0
    assert "/" in trial.Host().boot()
