"""How a diagnosis reads, as a whole text, and what its JSON promises."""

from __future__ import annotations

import json

import pytest

from provisioner.cli.main import main
from provisioner.cli.views.doctor import diagnosis_json, diagnosis_text
from provisioner.errors import HostError
from provisioner.probe.request import BOOT_MODULES, HANDED_OUT, IN_CONTAINERS, PROVIDER
from tests.doctor.hosts import Rig
from tests.doctor.variants import VARIANTS
from tests.doctor.world import CAPTURES, failure, look


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")


def test_a_finding_reads_like_a_colleagues_answer() -> None:
    """State, evidence as it stands on the host, cause, consequence, repair with its cost, prevention."""
    diagnosis = look(VARIANTS["a-point-release-of-debian-12"].capture)

    assert (
        diagnosis_text(diagnosis)
        == """\
1 finding on rig-01

✗ The driver on disk was replaced, and the old module is still in the kernel
  costs    every new GPU process fails
  loaded   535.247.01                                                                  /sys/module/nvidia/version
  library  /usr/lib/x86_64-linux-gnu/nvidia/current/libnvidia-ml.so.535.261.03         readlink -f /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1
  on disk  535.261.03                                                                  readlink -f /var/lib/dkms/*/kernel-*
  moved by 2026-11-23 06:12:09: /usr/bin/unattended-upgrade: libnvidia-compute-535:amd64 (535.247.01-0ubuntu0.22.04.1, 5…  /var/log/apt/history.log:4
  in use   1 /usr/lib/x86_64-linux-gnu/nvidia/current/libcuda.so.535.247.01 (deleted)  grep -hoE '/[^ ]*/lib(cuda|nvidia-ml)[.]so[.][0-9.]+( .deleted.)?' /pro…
  said     [812.1] NVRM: API mismatch: the client 'nvidia-smi' (pid 4411)              dmesg
  cause    An upgrade put the driver 535.261.03 on disk while 535.247.01 stays in the kernel. Libraries and
           module only work in one version, and nothing reloaded the module.
  follows  nvidia-smi exit 18
  mend     1. Drain, and stop what holds the cards (nvidia-persistenced, dcgm, the fabric manager, device
           plugins).
             $ fuser -v /dev/nvidia*
           2. Reload the modules, or reboot if one is in use.
             $ modprobe -r nvidia_drm nvidia_modeset nvidia_uvm nvidia && modprobe nvidia nvidia_uvm
           3. Make the CDI specs anew and restart the device plugin.
             $ nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml
           4. Hold the driver's packages.
             $ provision apply
           drain first · perhaps a reboot · ~2 min not serving
  prevent  Hold every package of the driver and exclude it from unattended upgrades; provision apply does
           both.
  more     docs/failures/driver-replaced-under-loaded-module.md

Not tried, for doctor changes and starts nothing:
  a container that asks for a GPU  docker run --rm --gpus all ubuntu nvidia-smi
  what the package manager says    apt-get update; apt-get check
  what clients and networks say    the client's own log

Next: provision doctor rig-01 --fix     (shows the plan first; mends: driver)"""  # noqa: E501
    )


def test_of_a_long_line_the_telling_part_is_shown() -> None:
    """Docker puts the reason last, behind the names of everybody who passed it on; the JSON has all of it."""
    diagnosis = look(VARIANTS["an-lxc-on-proxmox-may-not-set-device-rules"].capture)
    (line,) = [row for row in diagnosis_text(diagnosis).splitlines() if row.startswith("  said ")]

    assert "…" in line[:14]
    assert "failed to add device rules" in line
    assert diagnosis_json(diagnosis)["findings"][0]["evidence"][0]["text"].startswith("docker: Error response from")


def test_what_was_not_seen_is_named_with_its_command() -> None:
    """A symptom names what may be behind it and what would tell."""
    rig = Rig(system="debian-12", driver="535.261.03", drop=("dmesg", "dkms status"))
    rig.files = {"/sys/module/nvidia/version": None, "/proc/driver/nvidia/version": None, "/proc/modules": ""}
    text = diagnosis_text(look(rig.capture()))

    assert "A driver is installed and its module is not in the kernel" in text
    assert "  may be   " in text
    assert "  the kernel's log" in text


def test_json_has_all_of_it() -> None:
    """Evidence, consequences, repair with the action that a plan would take, what was not seen, both chains."""
    given = json.loads(json.dumps(diagnosis_json(look(failure("nvml-mismatch-unattended-upgrades")))))

    assert given["state"] == "found"
    first = given["findings"][0]
    assert first["mechanism"] == "driver-replaced-under-loaded-module"
    assert first["repair"]["plan"] == "driver"
    assert {"label": "loaded", "text": "460.56", "where": "/sys/module/nvidia/version"} in first["evidence"]
    assert [item["mechanism"] for item in first["follows"]] == ["smi-version-mismatch"]
    assert first["sources"]
    places = {place["fact"]: place for place in given["agreement"]["places"]}
    assert given["agreement"]["agrees"] is False
    assert (places["driver.loaded"]["value"], places["driver.library"]["value"]) == ("460.56", "460.73.01")
    assert places["driver.firmware"]["seen"] is False
    assert {"what": "cards on the PCI bus", "show": "lspci -nn -d 10de:", "asked": True} in given["not_seen"]


def test_one_kernel_that_stayed_behind_breaks_the_agreement() -> None:
    """Modules of every kernel count, not only that of the running one."""
    rig = Rig(
        commands={
            "ls -d /lib/modules/*/updates/dkms/nvidia*": "/lib/modules/6.8.0-58-generic/updates/dkms/nvidia.ko\n"
            "/lib/modules/6.8.0-60-generic/updates/dkms/nvidia.ko\n",
            "readlink -f /var/lib/dkms/*/kernel-*": "/var/lib/dkms/nvidia/550.90.07/6.8.0-58-generic/x86_64\n"
            "/var/lib/dkms/nvidia/550.127.05/6.8.0-60-generic/x86_64\n",
        }
    )
    diagnosis = look(rig.capture())
    chain = {link.name: link.agrees for link in diagnosis.agreement.links if link.agrees is not None}

    assert [name for name, agrees in chain.items() if not agrees] == ["driver.modules"]
    assert [item.mechanism.id for item in diagnosis.findings] == ["kernel-module-of-another-version"]


def test_the_count_chain_says_where_a_card_is_lost() -> None:
    """Bus, driver, NVML, runtime, cluster, network."""
    chain = look(VARIANTS["a-card-is-gone-and-a-reboot-is-not-enough"].capture).counts

    assert [(link.name, link.value) for link in chain.links[:3]] == [
        ("cards.on_bus", "4"),
        ("cards.in_driver", "4"),
        ("cards.in_nvml", "3"),
    ]
    assert chain.agrees is False


@pytest.mark.parametrize(
    ("rig", "counts"),
    [
        pytest.param(Rig(count=2), ["2", "2", "2", None, None, "unseen"], id="nobody-tells-the-network-here"),
        pytest.param(
            Rig(count=2, commands={HANDED_OUT.line: "/web - 0\n/lium-executor lium 2\n"}),
            ["2", "2", "2", None, None, "2"],
            id="a-client-in-a-container",
        ),
        pytest.param(
            Rig(
                count=2,
                cluster=True,
                docker=None,
                commands={
                    PROVIDER.line: 'b\n{"cluster":{"inventory":{"available":{"nodes":['
                    '{"name":"a","allocatable":{"gpu":8}},{"name":"b","allocatable":{"gpu":2}}]}}}}'
                },
            ),
            ["2", "2", "2", None, "2", "2"],
            id="akash-on-two-nodes",
        ),
        pytest.param(
            Rig(
                count=2,
                files={
                    "/etc/cdi/nvidia.yaml": 'kind: nvidia.com/gpu\ndevices:\n- name: "0"\n- name: "1"\n- name: GPU-0\n'
                    "- name: GPU-1\n- name: all\n"
                },
                commands={"ls -d /etc/cdi/*": "/etc/cdi/nvidia.yaml\n"},
            ),
            ["2", "2", "2", "2", None, "unseen"],
            id="cdi-names-each-card-twice",
        ),
    ],
)
def test_the_count_chain_goes_from_the_bus_to_the_network(rig: Rig, counts: list[str | None]) -> None:
    """What a layer does not count is nothing; what nobody could tell is not seen, and neither is guessed."""
    diagnosis = look(rig.capture())
    chain = diagnosis.counts

    assert [link.value if link.seen else "unseen" for link in chain.links] == counts
    assert (chain.agrees, diagnosis.findings) == (True, ())


def test_every_place_of_the_driver_is_in_the_agreement() -> None:
    """Each of them, changed alone, breaks it; a healthy host has all of them in one version."""
    driver, other = "550.127.05", "550.90.07"
    spec = f"containerEdits:\n  mounts:\n  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{driver}\n"
    image = "/boot/initrd.img-{kernel} usr/lib/modules/{kernel}/updates/dkms/nvidia.ko {version}\n"
    lib = "/usr/lib/x86_64-linux-gnu/lib{name}.so.{version}\n"
    held = "{id} python3 /usr/lib/x86_64-linux-gnu/libcuda.so.{version}\n"
    kernel = Rig().kernel

    def rig(**odd: str) -> Rig:
        def of(name: str) -> str:
            return odd.get(name, driver)

        return Rig(
            files={
                "/sys/module/nvidia/version": f"{of('loaded')}\n",
                "/etc/cdi/a.yaml": spec,
                "/var/run/cdi/b.yaml": spec.replace(driver, of("cdi")),
            },
            commands={
                "ls -d /etc/cdi/*": "/etc/cdi/a.yaml\n",
                "ls -d /var/run/cdi/*": "/var/run/cdi/b.yaml\n",
                BOOT_MODULES.line: image.format(kernel="6.8.0-58-generic", version=of("boot"))
                + image.format(kernel=kernel, version=driver),
                IN_CONTAINERS.line: held.format(id="a" * 64, version=of("container")),
                "readlink -f /usr/lib/x86_64-linux-gnu/libcuda.so.1": lib.format(name="cuda", version=of("libcuda")),
                "readlink -f /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1": lib.format(
                    name="nvidia-ml", version=of("library")
                ),
            },
        )

    whole = look(rig().capture())
    assert (whole.agreement.agrees, whole.findings) == (True, ())
    assert len([link for link in whole.agreement.links if link.agrees]) >= 9
    for place in ("loaded", "cdi", "boot", "container", "libcuda", "library"):
        broken = look(rig(**{place: other}).capture())
        assert broken.agreement.agrees is False, place
        assert broken.findings, place


def test_a_clean_bill_says_since_when_the_cards_are_as_they_are() -> None:
    """Where they were noted; the JSON has the day."""
    note = json.dumps(
        {
            "format": 1,
            "at": "2026-11-01T09:00:00Z",
            "cards": {
                f"GPU-{n}": {"slot": f"00000000:{1 + 32 * n:02x}:00.0", "width": 16, "generation": 4} for n in (0, 1)
            },
        }
    )
    diagnosis = look(Rig(files={"/var/lib/provision/baseline.json": note}).capture())

    assert diagnosis_text(diagnosis).splitlines()[0].endswith("in NVML, links and memory as noted on 2026-11-01")
    assert diagnosis_json(diagnosis)["baseline"] == "2026-11-01"


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """0: nothing that costs; 1: something does; a notice alone costs nothing."""
    assert main(["doctor", "--capture", str(CAPTURES / "debian-12-driver.json")]) == 0
    assert main(["doctor", "--capture", str(CAPTURES / "debian-12-bare.json")]) == 0
    assert main(["doctor", "--capture", str(CAPTURES / "failures" / "xid-79-fallen-off-bus.yaml")]) == 1
    assert main(["doctor", "--json", "--capture", str(CAPTURES / "failures")]) == 1
    out = capsys.readouterr().out
    document = json.loads(out[out.index('{"format"') :])
    assert len(document["hosts"]) == 76


def test_hosts_and_a_capture_together_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """One or the other."""
    assert main(["doctor", "rig-01", "--capture", "x.json"]) == 3
    assert "give no HOST and no inventory with it" in capsys.readouterr().err


def test_live_hosts_are_diagnosed_and_a_lost_one_does_not_stop_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The look is doctor's own; who can't be reached is said on the other stream."""
    from provisioner.adapters import inventory, ssh
    from provisioner.model.intent import Intent
    from provisioner.model.inventory import InventoryHost
    from provisioner.probe.request import DOCTOR

    hosts = tuple(InventoryHost(name, {"ansible_host": "192.0.2.1"}, Intent()) for name in ("rig-01", "rig-02"))

    def probe(targets: list[ssh.Target], requests: dict[str, object], **_more: object) -> dict[str, object]:
        assert all(request.profile is DOCTOR for request in requests.values())  # type: ignore[attr-defined]
        return {"rig-01": Rig().capture("rig-01"), "rig-02": HostError("ssh-timeout", "rig-02", "rig-02 is silent")}

    monkeypatch.setattr(inventory, "read", lambda _sources, _limit=None: hosts)
    monkeypatch.setattr(ssh, "probe", probe)

    assert main(["doctor", "-i", "inventory"]) == 1
    captured = capsys.readouterr()
    assert "rig-01  nothing is wrong" in captured.out
    assert "rig-02 is silent" in captured.err
