"""Plays what firmware, boot loader and kernel do before init runs on a lab host.

It shows the host the cards of /etc/provision-lab/hardware.json, chooses the newest installed kernel as GRUB would, and
exposes as loaded the NVIDIA module that is installed for that kernel at this moment. Everything is made of mounts over
/proc and /sys and ends with the boot, so a driver that is upgraded without a reboot leaves the old version "in the
kernel", as on a real machine.
Runs on the host, with the standard library of Python 3.9.
"""

from __future__ import annotations

import ctypes
import json
import lzma
import mmap
import os
import re
import stat
import struct
import subprocess
import uuid
from pathlib import Path
from typing import Any

RUN = Path("/run/provision-lab")
HARDWARE = Path("/etc/provision-lab/hardware.json")
CACHE = Path("/var/lib/provision-lab")
MODPROBE_D = [Path(p) for p in ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/lib/modprobe.d")]
MS_BIND = 4096
libc = ctypes.CDLL(None, use_errno=True)

Card = dict[str, Any]
Module = dict[str, Any]


def main() -> None:
    hardware = json.loads(HARDWARE.read_text()) if HARDWARE.exists() else {"gpus": []}
    first_boot()
    kernel = newest_kernel()
    show_kernel(kernel)
    gpus: list[Card] = hardware["gpus"]
    loaded = load_modules(kernel["release"], gpus)
    show_pci(gpus, loaded)
    show_modules(loaded)
    show_nvidia(gpus, loaded)
    subprocess.run(["/usr/local/lib/provision-lab/userspace", "show"], check=True)


# -- identity ----------------------------------------------------------------------------------------------------------


def first_boot() -> None:
    """Make what must be unique per host and stay over reboots: machine id and ssh host keys."""
    machine_id = Path("/etc/machine-id")
    if not machine_id.exists() or not machine_id.read_text().strip():
        machine_id.write_text(uuid.uuid4().hex + "\n")
    for kind in ("ed25519", "ecdsa"):
        path = Path(f"/etc/ssh/ssh_host_{kind}_key")
        if not path.exists():
            subprocess.run(["ssh-keygen", "-q", "-N", "", "-t", kind, "-f", str(path)], check=True)


# -- kernel ------------------------------------------------------------------------------------------------------------


def version_key(text: str) -> list[tuple[int, int, str]]:
    """Order kernel releases as GRUB does: numbers as numbers ("6.1.0-9" is older than "6.1.0-10")."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|[^\d]+", text)]


def newest_kernel() -> dict[str, str]:
    releases = [p.name[len("vmlinuz-") :] for p in Path("/boot").glob("vmlinuz-*")]
    if not releases:
        raise SystemExit("no kernel in /boot: a real machine would stop at the boot loader")
    release = max(releases, key=version_key)
    image = Path("/boot/vmlinuz-" + release).read_bytes()
    (at,) = struct.unpack_from("<H", image, 0x20E)  # kernel_version field of the x86 boot protocol
    banner = image[at + 0x200 : image.index(b"\0", at + 0x200)].decode()
    compiler = "gcc"
    config = Path("/boot/config-" + release)
    if config.exists():
        found = re.search(r'^CONFIG_CC_VERSION_TEXT="(.*)"', config.read_text(), re.M)
        compiler = found.group(1) if found else compiler
    builder = re.search(r"\(([^)]*)\)", banner)
    return {
        "release": release,
        "version": banner[banner.index("#") :] if "#" in banner else "#1 SMP",
        "builder": builder.group(1) if builder else "",
        "compiler": compiler,
    }


def show_kernel(kernel: dict[str, str]) -> None:
    release, version = kernel["release"], kernel["version"]
    (RUN / "kernel").write_text(f"{release}\n")
    (RUN / "kernel-version").write_text(f"{version}\n")
    over("/proc/sys/kernel/osrelease", f"{release}\n")
    over("/proc/sys/kernel/version", f"{version}\n")
    over("/proc/version", f"Linux version {release} ({kernel['builder']}) ({kernel['compiler']}) {version}\n")
    over("/proc/cmdline", f"BOOT_IMAGE=/boot/vmlinuz-{release} root=/dev/vda1 ro quiet\n")
    # Tools that wait for a reboot (ansible.builtin.reboot among them) look for a new boot id.
    over("/proc/sys/kernel/random/boot_id", f"{uuid.uuid4()}\n")


# -- modules -----------------------------------------------------------------------------------------------------------


def modprobe_rules() -> tuple[set[str], dict[str, list[str]]]:
    """Return the names that are blacklisted or replaced by nothing, and the options by name."""
    files: dict[str, Path] = {}
    for folder in reversed(MODPROBE_D):
        if folder.is_dir():
            files.update({p.name: p for p in folder.glob("*.conf")})
    blocked: set[str] = set()
    options: dict[str, list[str]] = {}
    for path in files.values():
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:  # a dangling alternative
            continue
        for words in (line.split() for line in lines if not line.lstrip().startswith("#")):
            replaced = words[:1] == ["install"] and words[2:3] in (["/bin/false"], ["/bin/true"], [":"])
            if (words[:1] == ["blacklist"] and len(words) > 1) or replaced:
                blocked.add(words[1].replace("-", "_"))
            elif words[:1] == ["options"] and len(words) > 2:
                options.setdefault(words[1].replace("-", "_"), []).extend(words[2:])
    return blocked, options


def load_modules(release: str, gpus: list[Card]) -> dict[str, Module]:
    """Decide which graphics module this kernel has loaded: nouveau, or nvidia with version, flavour and bound cards."""
    if not gpus:
        return {}
    blocked, options = modprobe_rules()
    has_nouveau = any(Path("/lib/modules", release, "kernel").glob("drivers/gpu/drm/nouveau/nouveau.ko*"))
    modeset_off = "modeset=0" in options.get("nouveau", [])
    if has_nouveau and "nouveau" not in blocked and not modeset_off:
        say("nouveau has the cards")
        return {"nouveau": {}}
    module = None if "nvidia" in blocked else nvidia_module(release)
    if module is None:
        say(f"no NVIDIA module is installed for {release}")
        return {}
    return probe(module, gpus)


def probe(module: Module, gpus: list[Card]) -> dict[str, Module]:
    """What the module's init does: it stays only if it got hold of a card."""
    bound = []
    for index, gpu in enumerate(gpus):
        why = refusal(gpu, module)
        if why is None:
            bound.append(index)
        else:
            say(f"NVRM: The NVIDIA GPU {gpu['bus']} (PCI ID: 10de:{gpu['device']}) {why}")
    # A card that needs the open module is claimed by the proprietary one and then fails to start: module in, no device.
    dark = [gpu for gpu in gpus if gpu["open"] == "only" and not module["open"] and in_branch(gpu, module)]
    if not bound and not dark:
        say(f"NVRM: The NVIDIA probe routine failed for {len(gpus)} device(s).")
        say("NVRM: None of the NVIDIA devices were initialized.")
        return {}
    return {"nvidia": dict(module, bound=bound)}


def in_branch(gpu: Card, module: Module) -> bool:
    branch = int(module["version"].split(".")[0])
    return (gpu["first_branch"] or 0) <= branch <= (gpu["last_branch"] or 10**6)


def refusal(gpu: Card, module: Module) -> str | None:
    """Say in the driver's words why it leaves a card alone, or None."""
    if not in_branch(gpu, module):
        return f"installed in this system is not supported by the NVIDIA {module['version']} driver release."
    if module["open"] and gpu["open"] == "no":
        return "installed in this system is not supported by open nvidia.ko: it has no GPU System Processor (GSP)."
    if not module["open"] and gpu["open"] == "only":
        return "installed in this system requires use of the NVIDIA open kernel modules."
    return None


def nvidia_module(release: str) -> Module | None:
    """Return version, flavour and banner of the module that `modprobe nvidia` would load for this kernel, or None."""
    root = Path("/lib/modules") / release
    files = [
        path
        for folder in ("updates", "extra", "kernel/drivers/video", "nvidia", "misc")
        for path in (root / folder).glob("**/nvidia*.ko*")
        if re.match(r"nvidia(-current|-tesla|-legacy)?(-\d+xx|-\d+)?(-open)?\.ko(\.xz|\.zst|\.gz)?$", path.name)
    ]
    if not files:
        return None
    path = preferred(files)
    marks = f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"
    cache = CACHE / "module.json"
    if cache.exists():
        known: Module = json.loads(cache.read_text())
        if known.get("marks") == marks:
            return known
    info = subprocess.run(["/sbin/modinfo", str(path)], capture_output=True, text=True, check=True).stdout
    fields = dict(re.findall(r"^(\w+):\s+(.*)$", info, re.M))
    content = module_bytes(path)
    # Both lines of /proc/driver/nvidia/version are texts inside the module.
    banner = re.search(rb"NVIDIA UNIX [ -~]*Kernel Module[ -~]*\d\d:\d\d:\d\d[ -~]*", content)
    compiler = re.search(rb"gcc version [ -~]+", content)
    module = {
        "marks": marks,
        "path": str(path),
        "version": fields["version"],
        "srcversion": fields.get("srcversion", ""),
        "open": "GPL" in fields.get("license", ""),
        "banner": banner.group().decode() if banner else "",
        "compiler": compiler.group().decode() if compiler else "",
    }
    CACHE.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps(module))
    return module


def preferred(files: list[Path]) -> Path:
    """Among several installed modules follow Debian's choice in /etc/modprobe.d/nvidia.conf; else the first by name."""
    try:
        rules = Path("/etc/modprobe.d/nvidia.conf").read_text()
    except OSError:
        rules = ""
    chosen = re.search(r"^install nvidia .*modprobe.*?\s(nvidia-[\w-]+)", rules, re.M)
    if chosen:
        for path in files:
            if path.name.split(".ko")[0] == chosen.group(1):
                return path
    return min(files, key=lambda p: p.name)


def module_bytes(path: Path) -> bytes | mmap.mmap:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix in (".zst", ".gz"):
        tool = "zstd" if path.suffix == ".zst" else "gzip"
        return subprocess.run([tool, "-dcq", str(path)], capture_output=True, check=True).stdout
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def show_modules(loaded: dict[str, Module]) -> None:
    """Lay the loaded modules over /sys/module, and write what /proc/modules would hold."""
    upper, work = RUN / "sys-module", RUN / "sys-module.work"
    rows: list[str] = []
    address = "Live 0x0000000000000000"
    if "nouveau" in loaded:
        put(upper / "nouveau", {"initstate": "live", "refcnt": "1", "coresize": "2433024"})
        rows.append(f"nouveau 2433024 1 - {address}")
    if "nvidia" in loaded:
        module = loaded["nvidia"]
        taint = "OE" if module["open"] else "POE"
        common = {"initstate": "live", "version": module["version"], "taint": taint}
        put(upper / "nvidia", dict(common, refcnt="2", coresize="56852480", srcversion=module["srcversion"]))
        put(upper / "nvidia_modeset", dict(common, refcnt="1", coresize="1314816"))
        put(upper / "nvidia_drm", dict(common, refcnt="0", coresize="77824"))
        put(upper / "nvidia_uvm", dict(common, refcnt="0", coresize="1540096"))
        rows += [
            f"nvidia_uvm 1540096 0 - {address} ({taint})",
            f"nvidia_drm 77824 0 - {address} ({taint})",
            f"nvidia_modeset 1314816 1 nvidia_drm, {address} ({taint})",
            f"nvidia 56852480 2 nvidia_uvm,nvidia_modeset, {address} ({taint})",
        ]
    (RUN / "modules").write_text("".join(row + "\n" for row in rows))
    if Path("/proc/modules").exists():
        mount(RUN / "modules", "/proc/modules")
    if rows:
        work.mkdir(exist_ok=True)
        mount("overlay", "/sys/module", "overlay", 0, f"lowerdir=/sys/module,upperdir={upper},workdir={work}")


# -- devices -----------------------------------------------------------------------------------------------------------


def show_pci(gpus: list[Card], loaded: dict[str, Module]) -> None:
    """Show a host bridge, a network card and the GPUs on the PCI bus; they are there with no driver at all."""
    root = RUN / "pci"
    device(root, "0000:00:00.0", "8086:1237", "060000", "8086:1237", None)
    device(root, "0000:00:1f.0", "8086:100e", "020000", "8086:100e", "e1000")
    for index, gpu in enumerate(gpus):
        driver = None
        if "nouveau" in loaded:
            driver = "nouveau"
        elif index in loaded.get("nvidia", {}).get("bound", []):
            driver = "nvidia"
        path = device(root, gpu["bus"], f"10de:{gpu['device']}", gpu["class"], gpu["subsystem"], driver)
        speed, width = gpu["link_speed"], gpu["link_width"]
        put(path, {"current_link_speed": speed, "max_link_speed": speed, "boot_vga": "0", "power_state": "D0"})
        put(path, {"current_link_width": width, "max_link_width": width})
        if gpu["audio"]:
            sound = gpu["bus"][:-1] + "1"
            device(root, sound, f"10de:{gpu['audio']}", "040300", gpu["subsystem"], "snd_hda_intel")
    mount(root, "/sys/bus/pci/devices")


def device(root: Path, bus: str, ids: str, kind: str, subsystem: str, driver: str | None) -> Path:
    path = root / bus
    vendor, model = ids.split(":")
    sub_vendor, sub_model = subsystem.split(":")
    alias = f"pci:v0000{vendor.upper()}d0000{model.upper()}sv0000{sub_vendor.upper()}sd0000{sub_model.upper()}"
    event = [f"DRIVER={driver}"] if driver else []
    event += [
        f"PCI_CLASS={kind.lstrip('0').upper()}",
        f"PCI_ID={ids.upper()}",
        f"PCI_SUBSYS_ID={subsystem.upper()}",
        f"PCI_SLOT_NAME={bus}",
    ]
    put(
        path,
        {
            "vendor": f"0x{vendor}",
            "device": f"0x{model}",
            "class": f"0x{kind}",
            "revision": "0xa1",
            "subsystem_vendor": f"0x{sub_vendor}",
            "subsystem_device": f"0x{sub_model}",
            "numa_node": "-1",
            "irq": "16",
            "enable": "1" if driver else "0",
            "modalias": f"{alias}bc{kind[:2]}sc{kind[2:4]}i{kind[4:]}",
            "resource": "\n".join(["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 7),
            "uevent": "\n".join(event),
        },
    )
    config = bytearray(64)  # the standard header, which is what lspci reads
    struct.pack_into("<HH", config, 0, int(vendor, 16), int(model, 16))
    config[8:12] = bytes([0xA1, int(kind[4:], 16), int(kind[2:4], 16), int(kind[:2], 16)])
    struct.pack_into("<HH", config, 44, int(sub_vendor, 16), int(sub_model, 16))
    (path / "config").write_bytes(bytes(config))
    if driver:
        (path / "driver").symlink_to("../../../../bus/pci/drivers/" + driver)
    return path


def show_nvidia(gpus: list[Card], loaded: dict[str, Module]) -> None:
    """Write /proc/driver/nvidia, the device nodes, and the state that the simulated NVML library reads."""
    proc, state = RUN / "proc-driver", RUN / "nvml"
    proc.mkdir(exist_ok=True)
    state.mkdir(exist_ok=True)
    if "nvidia" in loaded:
        module = loaded["nvidia"]
        text = f"NVRM version: {module['banner']}\nGCC version:  {module['compiler']}"
        put(proc / "nvidia", {"version": text, "params": "ResmanDebugLevel: 4294967295", "registry": 'Binary: ""'})
        for minor, index in enumerate(module["bound"]):
            show_gpu(proc, state, minor, gpus[index], module)
        nodes(len(module["bound"]))
    mount(proc, "/proc/driver")


def show_gpu(proc: Path, state: Path, minor: int, gpu: Card, module: Module) -> None:
    firmware = module["version"] if module["open"] else "N/A"
    rows = [
        f"Model: \t\t {gpu['name']}",
        f"IRQ:   \t\t {100 + minor}",
        f"GPU UUID: \t {gpu['uuid']}",
        f"Video BIOS: \t {gpu['vbios']}",
        "Bus Type: \t PCIe",
        "DMA Size: \t 47 bits",
        "DMA Mask: \t 0x7fffffffffff",
        f"Bus Location: \t {gpu['bus']}",
        f"Device Minor: \t {minor}",
        f"GPU Firmware: \t {firmware}",
        "GPU Excluded:\t No",
    ]
    put(proc / "nvidia/gpus" / gpu["bus"], {"information": "\n".join(rows)})
    keys = {key: gpu[key] for key in ("name", "uuid", "bus", "device", "subsystem", "vbios")}
    keys.update(gpu["nvml"], minor=minor, firmware=firmware)
    put(state, {str(minor): "\n".join(f"{key} {value}" for key, value in sorted(keys.items()))})


def nodes(count: int) -> None:
    """Make the character devices; the container may create but not open them, which is all that a look needs."""
    wanted = [(f"/dev/nvidia{number}", 195, number) for number in range(count)]
    wanted += [("/dev/nvidiactl", 195, 255), ("/dev/nvidia-modeset", 195, 254)]
    wanted += [("/dev/nvidia-uvm", 511, 0), ("/dev/nvidia-uvm-tools", 511, 1)]
    for name, major, minor in wanted:
        if not Path(name).exists():
            os.mknod(name, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
            Path(name).chmod(0o666)


# -- small tools -------------------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def put(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text + "\n")


def over(path: str, text: str) -> None:
    """Show `text` as the content of a file that only the kernel could write."""
    if not Path(path).exists():
        return
    source = RUN / ("over" + path.replace("/", "-"))
    source.write_text(text)
    source.chmod(0o444)
    mount(source, path)


def mount(
    source: str | Path, target: str, kind: str | None = None, flags: int = MS_BIND, data: str | None = None
) -> None:
    def text(value: str | Path | None) -> bytes | None:
        return None if value is None else str(value).encode()

    if libc.mount(text(source), text(target), text(kind), ctypes.c_ulong(flags), text(data)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


if __name__ == "__main__":
    main()
