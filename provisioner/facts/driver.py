"""The driver in its three places, which must agree: in the kernel, on disk per kernel, and the NVML library."""

from __future__ import annotations

import re
from dataclasses import replace

from provisioner.facts.listing import commands_like, contents, listed, matching, natural
from provisioner.model.capture import UNKNOWN, Capture, Unknown
from provisioner.model.facts import DriverFacts, Flavour, ModuleBuild, OsRelease, Package

_VERSION = r"\d{3,4}\.\d+(?:\.\d+)?"
_MODULE = re.compile(r"(nvidia(?:-[a-z0-9-]+)?)\.ko(?:\.(?:xz|zst|gz))?")
_PARTS = ("modeset", "drm", "uvm", "peermem", "fs")
_DKMS_TREE = "readlink -f /var/lib/dkms/*/kernel-*"
_DKMS_MODULES = "/lib/modules/*/updates/dkms/nvidia*"
_DKMS_EXTRA = "/lib/modules/*/extra/nvidia*"  # where DKMS puts them on RHEL-likes
_OTHER_MODULES = ("/lib/modules/*/kernel/nvidia-*/nvidia.ko*", "/lib/modules/*/kernel/drivers/video/nvidia.ko*")
_LIBRARY_FOLDERS = {"amd64": ("/usr/lib/x86_64-linux-gnu",), "arm64": ("/usr/lib/aarch64-linux-gnu",)}


def read(
    capture: Capture, os: OsRelease | Unknown, running: str | Unknown, packages: dict[str, Package] | Unknown
) -> DriverFacts:
    on_disk = modules(capture, running, packages)
    return DriverFacts(
        loaded=loaded(capture),
        loaded_flavour=loaded_flavour(capture),
        modules=on_disk,
        library=library(capture, os),
        nouveau_loaded=module_loaded(capture, "nouveau"),
        nouveau_blacklisted=nouveau_blacklisted(capture),
        secure_boot=secure_boot(capture),
        run_file_install=run_file_install(capture),
        module_for_running=module_for_running(capture, os, running, on_disk),
    )


# Loaded.


def loaded(capture: Capture) -> str | Unknown | None:
    """The version in the kernel; None when no module of NVIDIA's is loaded."""
    text = capture.file("/sys/module/nvidia/version")
    if isinstance(text, str) and text.strip():
        return text.strip()
    proc = capture.file("/proc/driver/nvidia/version")
    if isinstance(proc, str):
        match = re.search(rf"Kernel Module\s.*?({_VERSION})", proc)
        return match[1] if match else UNKNOWN
    listing = _module_listing(capture)
    if isinstance(listing, str):
        return UNKNOWN if _names(listing, "nvidia") else None
    return None if text is None else UNKNOWN


def loaded_flavour(capture: Capture) -> Flavour | Unknown | None:
    proc = capture.file("/proc/driver/nvidia/version")
    if isinstance(proc, str) and "Kernel Module" in proc:
        return "open" if "Open Kernel Module" in proc else "proprietary"
    return None if proc is None and loaded(capture) is None else UNKNOWN


def module_loaded(capture: Capture, name: str) -> bool | Unknown:
    """From /proc/modules or lsmod, which print the same first column, or from the module's own folder in sysfs."""
    folder = matching(capture, f"/sys/module/{name}")
    listing = _module_listing(capture)
    if folder is not UNKNOWN and folder:
        return True
    if isinstance(listing, str):
        return _names(listing, name)
    return False if folder == () else UNKNOWN


def _module_listing(capture: Capture) -> str | Unknown | None:
    text = capture.file("/proc/modules")
    if text is not UNKNOWN:
        return text
    answer = capture.command("lsmod")
    return answer.stdout if answer is not UNKNOWN and answer.rc == 0 else UNKNOWN


def _names(listing: str, module: str) -> bool:
    return any(line.split(None, 1)[:1] == [module] for line in listing.splitlines())


# On disk.


def modules(
    capture: Capture, running: str | Unknown, packages: dict[str, Package] | Unknown
) -> tuple[ModuleBuild, ...] | Unknown:
    """Every module of NVIDIA's below /lib/modules. DKMS's own link per kernel tells the version that is installed."""
    by_dkms = matching(capture, _DKMS_MODULES)
    tree = dkms_tree(capture)
    if by_dkms is UNKNOWN or tree is UNKNOWN:
        return UNKNOWN
    extra = matching(capture, _DKMS_EXTRA)
    builds = []
    for path in (*by_dkms, *(() if extra is UNKNOWN else extra)):
        name = main_module(path.rpartition("/")[2])
        if name is not None:
            kernel = path.split("/")[3]
            dkms = _dkms_entry(tree, kernel, name)
            build = _build(capture, running, kernel, dkms, _dkms_flavour(dkms or name, packages))
            noted = path not in by_dkms or any(release == kernel for release, _, _ in tree)
            builds.append(replace(build, noted=noted))
    for pattern in _OTHER_MODULES:
        paths = matching(capture, pattern)
        if paths is UNKNOWN:
            return UNKNOWN
        for path in paths:
            if main_module(path.rpartition("/")[2]) is not None:
                folder = path.split("/")[-2]
                flavour: Flavour | Unknown = UNKNOWN
                if folder.startswith("nvidia-"):  # Ubuntu's signed modules: kernel/nvidia-535-open/nvidia.ko
                    flavour = "open" if folder.endswith("-open") else "proprietary"
                builds.append(_build(capture, running, path.split("/")[3], None, flavour))
    return tuple(sorted(builds, key=lambda build: natural(build.kernel)))


def main_module(name: str) -> str | None:
    """`nvidia-current.ko.xz` is `nvidia-current`; its companions (`nvidia-current-uvm.ko`) are None."""
    match = _MODULE.fullmatch(name)
    return match[1] if match and match[1].rpartition("-")[2] not in _PARTS else None


def dkms_tree(capture: Capture) -> tuple[tuple[str, str, str], ...] | Unknown:
    """(kernel, DKMS name, version) of what DKMS has installed: /var/lib/dkms/NAME/VERSION/KERNEL/ARCH."""
    answer = capture.command(_DKMS_TREE)
    if answer is UNKNOWN or answer.rc not in (0, 1):
        return UNKNOWN
    parts = [line.split("/") for line in answer.stdout.splitlines()]
    return tuple((part[6], part[4], part[5]) for part in parts if len(part) == 8 and part[4].startswith("nvidia"))


def _dkms_entry(tree: tuple[tuple[str, str, str], ...], kernel: str, module: str) -> tuple[str, str] | None:
    entries = [(name, version) for release, name, version in tree if release == kernel]
    same = [entry for entry in entries if entry[0] == module]
    return same[0] if same else entries[0] if len(entries) == 1 else None


def _dkms_flavour(dkms: tuple[str, str] | str, packages: dict[str, Package] | Unknown) -> Flavour | Unknown:
    """Debian says `open` in the DKMS name; Ubuntu and NVIDIA's own packages say it in the package's name only."""
    name = dkms if isinstance(dkms, str) else dkms[0]
    if "open" in name.split("-"):
        return "open"
    if packages is UNKNOWN:
        return UNKNOWN
    built = [
        package.split("-")
        for package in packages
        if package.startswith(("nvidia", "kmod-nvidia")) and "dkms" in package.split("-")
    ]
    flavours = {"open" in words for words in built}
    if len(flavours) != 1:
        return UNKNOWN
    return "open" if flavours.pop() else "proprietary"


def _build(
    capture: Capture,
    running: str | Unknown,
    kernel: str,
    dkms: tuple[str, str] | None,
    flavour: Flavour | Unknown,
) -> ModuleBuild:
    version: str | Unknown = dkms[1] if dkms else UNKNOWN
    if kernel == running:
        told = _modinfo(capture, "version")
        if version is UNKNOWN and isinstance(told, str):
            version = told
        if flavour is UNKNOWN:
            flavour = license_flavour(_modinfo(capture, "license"))
    return ModuleBuild(kernel, version, flavour)


def _modinfo(capture: Capture, field: str) -> str | Unknown | None:
    """What modinfo says of the module for the running kernel; None when it found no such module."""
    answer = capture.command(f"modinfo -F {field} nvidia")
    if answer is UNKNOWN:
        return UNKNOWN
    if answer.rc == 0 and answer.stdout.strip():
        return answer.stdout.strip().splitlines()[0]
    return None if "not found" in answer.stdout + answer.stderr and answer.found else UNKNOWN


def license_flavour(text: str | Unknown | None) -> Flavour | Unknown:
    """NVIDIA's open module is `Dual MIT/GPL`, the other one `NVIDIA`."""
    if text == "Dual MIT/GPL":
        return "open"
    return "proprietary" if text == "NVIDIA" else UNKNOWN


def module_for_running(
    capture: Capture, os: OsRelease | Unknown, running: str | Unknown, on_disk: tuple[ModuleBuild, ...] | Unknown
) -> str | Unknown | None:
    """The version that would load now; also known from modinfo alone, which tells of no other kernel.

    On Debian the module has another name (`nvidia-current`), so modinfo's "not found" says nothing there.
    """
    if on_disk is not UNKNOWN and running is not UNKNOWN:
        mine = [build for build in on_disk if build.kernel == running]
        if len(mine) == 1 and mine[0].version is not UNKNOWN:
            return mine[0].version
        if not mine:
            told = _modinfo(capture, "version")
            return told if isinstance(told, str) else None
    told = _modinfo(capture, "version")
    return UNKNOWN if told is None and (os is UNKNOWN or os.id.startswith("debian")) else told


# Library.


def library(capture: Capture, os: OsRelease | Unknown) -> str | Unknown | None:
    """The version in the real name of libnvidia-ml.so.1; None when every folder where it could lie was looked at."""
    asked = [line for line in commands_like(capture, "readlink -f ") if line.endswith("/libnvidia-ml.so.1")]
    for line in asked:
        match = re.search(rf"/libnvidia-ml\.so\.({_VERSION})\s*$", capture.commands[line].stdout)
        if match:
            return match[1]
    architecture = os.architecture if os is not UNKNOWN else ""
    needed = {folder for folders in _LIBRARY_FOLDERS.values() for folder in folders}
    if architecture in _LIBRARY_FOLDERS:
        needed = set(_LIBRARY_FOLDERS[architecture])
    if os is UNKNOWN or not os.id.startswith(("debian", "ubuntu")):
        needed |= {"/usr/lib64", "/usr/lib"}
    seen = {line[len("readlink -f ") : -len("/libnvidia-ml.so.1")] for line in asked}
    return None if needed <= seen else UNKNOWN


# What stands in the way.


def nouveau_blacklisted(capture: Capture) -> bool | Unknown:
    """By modprobe's configuration or on the kernel's command line."""
    cmdline = capture.file("/proc/cmdline")
    if isinstance(cmdline, str) and _blacklisted_at_boot(cmdline):
        return True
    known = isinstance(cmdline, str)
    for pattern in ("/etc/modprobe.d/*.conf", "/lib/modprobe.d/*nvidia*", "/lib/modprobe.d/*nouveau*"):
        texts = contents(capture, pattern)
        if texts is not UNKNOWN and any(_blacklists(text) for text in texts.values()):
            return True
        known = known and texts is not UNKNOWN
    if any(
        _blacklists(text or "")
        for path, text in capture.files.items()
        if "/modprobe.d/" in path and path.endswith(".conf")
    ):
        return True
    return False if known else UNKNOWN


def _blacklists(text: str) -> bool:
    return bool(
        re.search(r"^[ \t]*(blacklist\s+nouveau\b|install\s+nouveau\s+/(usr/)?bin/(false|true))", text, re.MULTILINE)
    )


def _blacklisted_at_boot(cmdline: str) -> bool:
    for word in cmdline.split():
        name, _, value = word.partition("=")
        if name in ("modprobe.blacklist", "rd.driver.blacklist", "module_blacklist") and "nouveau" in value.split(","):
            return True
        if word in ("nouveau.blacklist=1", "nouveau.blacklist=yes"):
            return True
    return False


def secure_boot(capture: Capture) -> bool | Unknown:
    """Whether the kernel wants signed modules: mokutil, or the firmware's own variables; no EFI means no."""
    answer = capture.command("mokutil --sb-state")
    if answer is not UNKNOWN:
        said = answer.stdout + answer.stderr
        if "EFI variables are not supported" in said or "SecureBoot disabled" in said:
            return False
        if "SecureBoot enabled" in said:
            return "validation is disabled in shim" not in said
    firmware = matching(capture, "/sys/firmware/efi")
    if firmware == ():
        return False
    state = _efi_flag(capture, "/sys/firmware/efi/efivars/SecureBoot-*")
    if state is not True:
        return state
    shim = _efi_flag(capture, "/sys/firmware/efi/efivars/MokSBStateRT-*")
    return UNKNOWN if shim is UNKNOWN else not shim


def _efi_flag(capture: Capture, pattern: str) -> bool | Unknown:
    """Four bytes of attributes, then one that is 0 or 1; an absent variable means 0."""
    texts = contents(capture, pattern)
    if texts is UNKNOWN:
        return UNKNOWN
    return any(text.endswith("\x01") for text in texts.values())


def run_file_install(capture: Capture) -> bool | Unknown:
    """NVIDIA's own installer leaves its uninstaller behind; packages do not."""
    for line in ("ls -d /usr/bin/nvidia-uninstall", "ls /usr/bin/nvidia-uninstall"):
        found = listed(capture, line)
        if found is not UNKNOWN:
            return bool(found)
    return UNKNOWN
