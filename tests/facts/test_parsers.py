"""The parsers, one odd case each."""

from __future__ import annotations

import pytest

from provisioner import facts
from provisioner.facts import driver, gpus, kernel, machine, nvml, offers, os_release, packages, sources, units
from provisioner.facts.listing import natural
from provisioner.host.grub import default_kernel
from provisioner.model.capture import UNKNOWN, CommandOutput
from provisioner.model.facts import OsRelease, Package
from provisioner.model.shutdown import NOTED, Shutdown
from tests.facts.hosts import NO_SUCH, capture

MISSING = CommandOutput(rc=127, stderr="not found")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', OsRelease("debian-12", "debian", "bookworm", "")),
        ("ID=debian\nPRETTY_NAME='Debian forky/sid'\n", OsRelease("debian", "Debian forky/sid", "", "")),
        ('NAME="Half\nID=x\n', OsRelease("x", "Half", "", "")),
        ("PRETTY_NAME=nothing\n", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_os_release(text: str, expected: object) -> None:
    """Quoted or not, rolling or numbered; without ID it is nothing we know."""
    assert os_release.parse(text) == expected


@pytest.mark.parametrize(
    ("machine_name", "kernel", "expected"),
    [
        ("aarch64", "", "arm64"),
        ("riscv64", "", "riscv64"),
        (None, "6.1.0-50-arm64", "arm64"),
        (None, "6.8.0-9-generic", ""),
    ],
)
def test_architecture(machine_name: str | None, kernel: str, expected: str) -> None:
    """dpkg's word for `uname -m`; a kernel's name tells it on Debian, and nothing on Ubuntu."""
    given = {"uname -r": kernel} | ({"uname -m": machine_name} if machine_name else {})

    assert os_release.architecture(capture(commands=given)) == expected


def test_kernels_are_ordered_by_number() -> None:
    """9 comes before 50, and a release candidate's tilde before its release."""
    names = ["6.1.0-50-amd64", "6.1.0-9-amd64", "6.12.1+deb13-amd64", "5.10.0-46-amd64"]

    assert sorted(names, key=natural) == ["5.10.0-46-amd64", "6.1.0-9-amd64", "6.1.0-50-amd64", "6.12.1+deb13-amd64"]


def grub(default: str) -> str:
    return (
        'if [ "${next_entry}" ] ; then\n  set default="${next_entry}"\nelse\n  set default="' + default + '"\nfi\n'
        "menuentry 'Debian' --class debian $menuentry_id_option 'simple' {\n  linux /boot/vmlinuz-3 ro\n}\n"
        "submenu 'Advanced' $menuentry_id_option 'adv' {\n"
        "  menuentry 'Debian, with Linux 3' --id 'l3' {\n    if true; then {\n    }\n    linux\t/vmlinuz-3 ro\n  }\n"
        "  menuentry 'Debian, with Linux 2' --id 'l2' {\n    linux /@/boot/vmlinuz-2 ro\n  }\n}\n"
        "menuentry 'UEFI Firmware Settings' --id 'uefi' {\n  fwsetup\n}\n"
    )


@pytest.mark.parametrize(
    ("default", "environment", "expected"),
    [
        ("0", "", "3"),
        ("1>1", "", "2"),
        ("adv>l2", "", "2"),
        ("Advanced>Debian, with Linux 2", "", "2"),
        ("1", "", "3"),
        ("${saved_entry}", "saved_entry=adv>l2\n", "2"),
        ("${saved_entry}", "# GRUB Environment Block\n", "3"),
        ("0", "next_entry=adv>l2\nsaved_entry=0\n", "2"),
        ("gone>l9", "", "3"),
        ("99", "", "3"),
        ("uefi", "", None),
    ],
)
def test_grub_chooses_as_grub_does(default: str, environment: str, expected: str | None) -> None:
    """By place, id or title, down a submenu, saved, for one boot only, or the first when the name leads nowhere."""
    assert default_kernel(grub(default), environment) == expected


def test_next_boot_without_grub_is_the_newest() -> None:
    """No GRUB at all is known; a GRUB that may not be read is not."""
    there = capture(
        {"/boot/grub/grub.cfg": None},
        {"ls /boot": "vmlinuz-6.1.0-9-amd64\nvmlinuz-6.1.0-50-amd64\nvmlinuz-6.1.0-60-amd64.old\n"},
    )
    unread = there.model_copy(update={"files": {}})

    assert facts.read(there).kernel.next_boot == "6.1.0-50-amd64"
    assert facts.read(unread).kernel.next_boot is UNKNOWN


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("lspci -nn -d 10de:", True),
        ("lspci -nn", True),
        ("lspci -nnk -d 10de:", True),
        ("lspci -nn -d 10de::0300", False),
        ("lspci -nn -s 01:00.0", False),
        ("lspci -d 10de:", False),
    ],
)
def test_only_a_whole_listing_tells_all_cards(line: str, known: bool) -> None:
    """A narrower one, or one without numbers, leaves the question open."""
    text = "0001:01:00.0 3D controller [0302]: NVIDIA Corporation GH100 [H100 PCIe] [10DE:2331] (rev a1)\n"

    found = gpus.read(capture(commands={line: text}))

    assert (found is not UNKNOWN) == known
    if found is not UNKNOWN:
        assert [(gpu.slot, gpu.device) for gpu in found] == [("0001:01:00.0", "2331")]


def test_nvswitch_bridges_are_counted() -> None:
    """Class 0680 of NVIDIA's; another maker's bridge is none, and a narrow listing leaves it open."""
    listing = (
        "05:00.0 Bridge [0680]: NVIDIA Corporation GA100 [A100 NVSwitch] [10de:1af1] (rev a1)\n"
        "06:00.0 Bridge [0680]: NVIDIA Corporation GA100 [A100 NVSwitch] [10de:1af1] (rev a1)\n"
        "07:00.0 3D controller [0302]: NVIDIA Corporation GA100 [A100 SXM4 40GB] [10de:20b0] (rev a1)\n"
        "08:00.0 Bridge [0680]: Intel Corporation Device [8086:1111]\n"
    )
    bus = {
        f"/sys/bus/pci/devices/0000:0{n}:00.0/{name}": value
        for n, (vendor, kind) in enumerate([("10de", "0680"), ("8086", "0680"), ("10de", "0302")])
        for name, value in (("vendor", f"0x{vendor}\n"), ("class", f"0x{kind}00\n"), ("device", "0x20b0\n"))
    }

    assert gpus.nvswitches(capture(commands={"lspci -nn": listing})) == 2
    assert gpus.nvswitches(capture(commands={"lspci -nn -s 05:00.0": listing})) is UNKNOWN
    there = "".join(f"/sys/bus/pci/devices/0000:0{n}:00.0/vendor\n" for n in range(3))
    assert gpus.nvswitches(capture(files=bus, commands={"ls -d /sys/bus/pci/devices/*/vendor": there})) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nvidia.ko", "nvidia"),
        ("nvidia-current.ko.xz", "nvidia-current"),
        ("nvidia-tesla-470.ko", "nvidia-tesla-470"),
        ("nvidia-current-open.ko.zst", "nvidia-current-open"),
        ("nvidia-current-uvm.ko", None),
        ("nvidia-drm.ko.zst", None),
        ("nvidia-peermem.ko", None),
        ("nvidia", None),
        ("nvidiafb.ko", None),
    ],
)
def test_main_module_is_told_from_its_companions(name: str, expected: str | None) -> None:
    """Debian renames the module after its branch; its companions carry the same beginning."""
    assert driver.main_module(name) == expected


def on_disk(modules: str, tree: str, packages: str = "", **more: str) -> object:
    none = NO_SUCH
    return facts.read(
        capture(
            commands={
                "uname -r": "6.1.0-50-amd64",
                "ls -d /lib/modules/*/updates/dkms/nvidia*": modules or none,
                "ls -d /lib/modules/*/kernel/nvidia-*/nvidia.ko*": none,
                "ls -d /lib/modules/*/kernel/drivers/video/nvidia.ko*": none,
                "readlink -f /var/lib/dkms/*/kernel-*": tree or CommandOutput(rc=1),
                r"dpkg-query -W -f='${Package}\t${Version}\t${db:Status-Abbrev}\n'": packages,
                **more,
            }
        )
    ).driver.modules


MODULE = "/lib/modules/6.1.0-50-amd64/updates/dkms/nvidia-current.ko\n"
TREE = "/var/lib/dkms/nvidia-current/535.261.03/6.1.0-50-amd64/x86_64\n"
DKMS = "nvidia-kernel-dkms\t535.261.03-1\tii \n"


@pytest.mark.parametrize(
    ("modules", "tree", "packages", "expected"),
    [
        (MODULE, TREE, DKMS, [("6.1.0-50-amd64", "535.261.03", "proprietary")]),
        (MODULE, TREE, "", [("6.1.0-50-amd64", "535.261.03", UNKNOWN)]),
        (MODULE, "", DKMS, [("6.1.0-50-amd64", UNKNOWN, "proprietary")]),
        ("", TREE, DKMS, []),
        (MODULE, TREE.replace("6.1.0-50", "6.1.0-49"), DKMS, [("6.1.0-50-amd64", UNKNOWN, "proprietary")]),
        (
            MODULE,
            TREE + TREE.replace("nvidia-current/535.261.03", "nvidia-tesla-470/470.256.02"),
            DKMS,
            [("6.1.0-50-amd64", "535.261.03", "proprietary")],
        ),
        (
            MODULE.replace("current", "current-open"),
            TREE.replace("current", "current-open"),
            "nvidia-open-kernel-dkms\t535.261.03-1\tii \n",
            [("6.1.0-50-amd64", "535.261.03", "open")],
        ),
        (
            MODULE.replace("nvidia-current", "nvidia"),
            TREE.replace("nvidia-current", "nvidia"),
            "nvidia-dkms-535\t1\tii \nnvidia-dkms-535-open\t1\tii \n",
            [("6.1.0-50-amd64", "535.261.03", UNKNOWN)],
        ),
    ],
)
def test_modules_on_disk(modules: str, tree: str, packages: str, expected: list[tuple[object, ...]]) -> None:
    """A module counts when it lies there; its version is DKMS's, and what nobody says is unknown."""
    found = on_disk(modules, tree, packages)

    assert isinstance(found, tuple)
    assert [(build.kernel, build.version, build.flavour) for build in found] == expected


def test_modinfo_fills_what_dkms_does_not_tell() -> None:
    """For the running kernel, modinfo knows version and licence."""
    told = {"modinfo -F version nvidia": "535.5\n", "modinfo -F license nvidia": "Dual MIT/GPL\n"}

    found = on_disk(MODULE, "", "", **told)

    assert found == (driver.ModuleBuild("6.1.0-50-amd64", "535.5", "open", noted=False),)


@pytest.mark.parametrize(
    ("tree", "noted"),
    [
        (TREE, True),
        (TREE.replace("nvidia-current/535.261.03", "nvidia-tesla-470/470.256.02"), True),
        (TREE.replace("6.1.0-50", "6.1.0-49"), False),
        ("", False),
    ],
)
def test_a_module_that_dkms_has_not_noted_yet(tree: str, noted: bool) -> None:
    """It puts the files there first, and then the link that tells which version they are."""
    found = on_disk(MODULE, tree, DKMS)

    assert isinstance(found, tuple)
    assert [build.noted for build in found] == [noted]


@pytest.mark.parametrize(
    ("lib", "os_id", "expected"),
    [
        ({"/usr/lib/x86_64-linux-gnu": "nvidia/current/libnvidia-ml.so.535.261.03"}, "debian-12", "535.261.03"),
        ({"/usr/lib/x86_64-linux-gnu": "libnvidia-ml.so.1"}, "debian-12", None),
        ({"/usr/lib64": "libnvidia-ml.so.1"}, "debian-12", UNKNOWN),
        ({"/usr/lib64": "libnvidia-ml.so.550.54.14"}, "fedora-42", "550.54.14"),
        ({"/usr/lib/x86_64-linux-gnu": "libnvidia-ml.so.1"}, "fedora-42", UNKNOWN),
        ({}, "debian-12", UNKNOWN),
    ],
)
def test_library(lib: dict[str, str], os_id: str, expected: object) -> None:
    """`readlink -f` prints an absent last name too; absence counts only where the library would lie."""
    commands = {f"readlink -f {folder}/libnvidia-ml.so.1": f"{folder}/{name}\n" for folder, name in lib.items()}

    assert driver.library(capture(commands=commands), OsRelease(os_id, "", "", "amd64")) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (CommandOutput(rc=0, stdout="SecureBoot enabled\n"), True),
        (CommandOutput(rc=0, stdout="SecureBoot enabled\nSecureBoot validation is disabled in shim\n"), False),
        (CommandOutput(rc=0, stdout="SecureBoot disabled\nPlatform is in Setup Mode\n"), False),
        (CommandOutput(rc=255, stderr="EFI variables are not supported on this system\n"), False),
        (CommandOutput(rc=127), UNKNOWN),
    ],
)
def test_secure_boot_by_mokutil(said: CommandOutput, expected: object) -> None:
    """What mokutil says, whichever stream it says it on."""
    assert driver.secure_boot(capture(commands={"mokutil --sb-state": said})) == expected


@pytest.mark.parametrize(
    ("text", "cmdline", "expected"),
    [
        ("blacklist nouveau\n", "quiet", True),
        ("install nouveau /bin/false\n", "quiet", True),
        ("# blacklist nouveau\n", "quiet", False),
        ("blacklist nouveaux\n", "quiet", False),
        ("", "module_blacklist=nouveau quiet", True),
        ("", "nouveau.modeset=0", False),
    ],
)
def test_nouveau_blacklist(text: str, cmdline: str, expected: bool) -> None:
    """Only lines that keep the module out count."""
    seen = capture(
        {"/etc/modprobe.d/a.conf": text, "/proc/cmdline": cmdline},
        {
            "ls -d /etc/modprobe.d/*.conf": "/etc/modprobe.d/a.conf\n",
            "ls -d /lib/modprobe.d/*nvidia*": NO_SUCH,
            "ls -d /lib/modprobe.d/*nouveau*": NO_SUCH,
        },
    )

    assert driver.nouveau_blacklisted(seen) == expected


@pytest.mark.parametrize(
    ("status", "held", "whole"),
    [
        ("ii ", False, True),
        ("hi ", True, True),
        ("iU ", False, False),
        ("iHR", False, False),
        ("hF ", True, False),
        ("iiR", False, False),
    ],
)
def test_package_status(status: str, held: bool, whole: bool) -> None:
    """Three letters: wanted, status, error."""
    assert packages.parse(f"a\t1.0\t{status}\n") == {
        "a": Package("a", "1.0", held=held, whole=whole, half=status.endswith("R"))
    }


@pytest.mark.parametrize("status", ["rc ", "un ", "pn "])
def test_packages_that_are_not_installed(status: str) -> None:
    """Only configuration left, or only known by name: not installed."""
    assert packages.parse(f"a\t1.0\t{status}\n") == {}


@pytest.mark.parametrize(
    "answer",
    [
        MISSING,
        CommandOutput(rc=124, stdout="a\t1\tii \n"),
        CommandOutput(rc=2, stderr="dpkg-query: error: database is locked"),
    ],
)
def test_packages_without_dpkg_are_unknown(answer: CommandOutput) -> None:
    """No dpkg, or one that did not come to its end, says nothing about what is installed."""
    line = r"dpkg-query -W -f='${Package}\t${Version}\t${db:Status-Abbrev}\n'"

    assert packages.read(capture(commands={line: answer})) == (UNKNOWN, ())


def test_offers_without_checksum_are_no_offers() -> None:
    """What only dpkg knows (installed, gone from the sources) cannot be installed again."""
    text = (
        "Package: a\nVersion: 1\n\nPackage: b\nVersion: 2\nSource: c (2.1)\nArchitecture: all\n"
        "Size: x\nSHA256: 00\nDepends: d\nPre-Depends: e\n"
    )

    found = offers.parse_show(text, {("b", "2"): "sid"})

    assert [(o.name, o.source, o.size, o.depends, o.origin) for o in found] == [("b", "c", 0, "e, d", "sid")]


def test_offers_cut_short_are_unknown() -> None:
    """apt that was stopped by the time limit offers nothing that could be relied on."""
    line = "apt-cache show a"

    assert offers.read(capture(commands={line: CommandOutput(rc=124, stdout="Package: a\n")})) is UNKNOWN
    assert offers.read(capture(commands={line: MISSING})) is UNKNOWN
    assert offers.read(capture(commands={line: ""})) == ()


def test_deb822_sources() -> None:
    """Stanzas with folded lines, comments and switched-off ones."""
    text = (
        "Types: deb deb-src\nURIs: http://mirror.example/debian\nSuites: trixie\nComponents: main\n contrib\n\n"
        "# old\nTypes: deb\nEnabled: no\nComponents: non-free\n\nTypes: deb-src\nComponents: source\n"
    )

    assert list(sources.parse_deb822(text)) == [("http://mirror.example/debian", "trixie", ("main", "contrib"))]


def test_one_line_sources_of_vendors() -> None:
    """Options in brackets, a folder without suites, a comment behind."""
    text = (
        "deb [signed-by=/usr/share/keyrings/x.gpg] https://nvidia.example/stable/deb/$(ARCH) /\n"
        "# deb http://off.example x main\ndeb https://docker.example/linux/debian bookworm stable # ours\n"
    )

    assert list(sources.parse_list(text)) == [
        ("https://nvidia.example/stable/deb/$(ARCH)", "/", ()),
        ("https://docker.example/linux/debian", "bookworm", ("stable",)),
    ]


def test_offers_of_a_folder_without_suites() -> None:
    """apt-cache madison leaves the suite out; that tells a vendor's package from the distribution's."""
    text = (
        " cuda-drivers | 580.95.05-1 | https://nvidia.example/debian12/x86_64  Packages\n"
        "       runc | 1.1.5 | http://mirror.example/debian bookworm/main amd64 Packages\n"
    )

    assert offers.parse_madison(text) == {("cuda-drivers", "580.95.05-1"): "/", ("runc", "1.1.5"): "bookworm"}


def test_failed_units_need_a_listing_of_all() -> None:
    """Named units only tell of themselves."""
    text = "Id=a.service\nLoadState=loaded\nActiveState=failed\nUnitFileState=enabled\n"
    named = capture(commands={"systemctl show -p Id,LoadState,ActiveState a.service": text})
    listing = capture(
        commands={"systemctl list-units --failed --plain --no-legend": "a.service loaded failed failed A\n"}
    )

    assert units.failed(named) is UNKNOWN
    assert units.failed(listing) == ("a.service",)
    assert facts.read(named).units == {"a.service": units.UnitState("a.service", "loaded", "failed", "enabled")}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("kvm\n", "kvm"), (CommandOutput(rc=1, stdout="none\n"), None), (MISSING, UNKNOWN)],
)
def test_virtualization(answer: object, expected: object) -> None:
    """systemd-detect-virt exits with 1 on bare metal."""
    assert machine.virtualization(capture(commands={"systemd-detect-virt": answer})) == expected


def test_nvml_of_a_lost_card() -> None:
    """A card that cannot be opened keeps its place, with its error as its name."""
    seen = capture(nvml={"driver_version": "535.5", "devices": [{"index": 1, "error": "NVML_ERROR_GPU_IS_LOST"}]})

    found = nvml.read(seen)

    assert found is not UNKNOWN
    assert [(gpu.index, gpu.name, gpu.memory_mib) for gpu in found.gpus] == [(1, "NVML_ERROR_GPU_IS_LOST", None)]
    assert nvml.cuda_version(13000) == "13.0"


@pytest.mark.parametrize(
    ("answer", "active", "version", "running"),
    [
        (MISSING, False, None, UNKNOWN),
        (
            CommandOutput(rc=1, stderr="Cannot connect to the Docker daemon at unix:///var/run/docker.sock."),
            False,
            UNKNOWN,
            0,
        ),
        ('{"ServerErrors": ["Cannot connect"]}', False, UNKNOWN, 0),
        ("garbage", UNKNOWN, UNKNOWN, UNKNOWN),
    ],
)
def test_docker_that_does_not_answer(answer: object, active: object, version: object, running: object) -> None:
    """No docker, a daemon that is down, and an answer that cannot be read are three things."""
    found = facts.read(capture(commands={"docker info --format '{{json .}}'": answer})).runtime

    assert (found.docker_active, found.docker_version) == (active, version)
    assert found.containers_running == (0 if answer is MISSING else running)


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        ("USEC=1796090400000000\nWARN_WALL=1\nMODE=reboot\n", Shutdown("reboot", 1796090400)),
        ("USEC=1796090400000000\nWARN_WALL=0\nMODE=poweroff\nWALL_MESSAGE=a=b\n", Shutdown("poweroff", 1796090400)),
        ("USEC=1796090400000000\n", Shutdown("shutdown", 1796090400)),
        ("USEC=1796090400000000\nMODE=dry-reboot\n", None),
        ("USEC=\nMODE=reboot\n", None),
        (None, None),
    ],
)
def test_a_shutdown_that_has_a_time(note: str | None, expected: object) -> None:
    """`shutdown -k` only tells the terminals; a note that was not looked at says nothing."""
    assert machine.shutdown(capture({NOTED: note})) == expected
    assert machine.shutdown(capture()) is UNKNOWN


@pytest.mark.parametrize(
    ("setting", "container", "expected"),
    [
        ("Y\n", None, True),
        ("N\n", None, False),
        (None, None, False),
        ("Y\n", "docker", False),
        ("Y\n", MISSING, UNKNOWN),
        (MISSING, None, UNKNOWN),
        (None, MISSING, False),
    ],
)
def test_apparmor(setting: object, container: object, expected: object) -> None:
    files = {kernel.APPARMOR: setting, kernel.CONTAINER: container}

    assert kernel.apparmor(capture({path: text for path, text in files.items() if text is not MISSING})) == expected
