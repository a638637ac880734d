"""Driver, kernel module, NVML and GPUs: do kernel, disk, library and lock say the same?"""

from __future__ import annotations

import json
import re
from typing import Any

from provisioner.checks.check import (
    Check,
    NotMade,
    Seen,
    Verdict,
    cat,
    failed,
    found,
    listed,
    not_applicable,
    number,
    passed,
    python,
)
from provisioner.checks.units import UNIT_STATES, units
from provisioner.model.stack import HostLock

LOADED = cat("/sys/module/nvidia/version")
PROC = cat("/proc/driver/nvidia/version")

# One line per module file, then the lines of modinfo that matter. Debian names the file nvidia-current.ko,
# Ubuntu nvidia.ko; the helpers beside it (drm, modeset, uvm, peermem) come from the same build and are left out.
MODULES = r"""
for k in /lib/modules/*; do
  set -- "$k/updates" "$k/extra" "$k/misc" "$k/kernel/drivers/video" "$k"/kernel/nvidia*
  for f in $(find "$@" -name 'nvidia*.ko*' 2>/dev/null); do
    n=${f##*/}
    case ${n%%.ko*} in *-drm|*-modeset|*-uvm|*-peermem|*-vgpu-vfio|nvidiafb) continue ;; esac
    printf 'file: %s %s\n' "${k##*/}" "$f"
    modinfo "$f" | grep -E '^(version|license|vermagic|signer):'
  done
done
:"""

# /proc/sys/kernel/osrelease rather than uname: it needs no process and is what uname reads.
KERNELS = r"""
read -r running </proc/sys/kernel/osrelease && printf 'running %s\n' "$running"
for f in /boot/vmlinuz-*; do [ -e "$f" ] && printf '%s\n' "${f#/boot/vmlinuz-}"; done | sort -V | sed 's/^/installed /'
cat /etc/default/grub /etc/default/grub.d/*.cfg 2>/dev/null | sed -n 's/^ *GRUB_DEFAULT=/default /p' | tail -n 1
if [ -e /boot/grub/grub.cfg ]; then
  sed -n 's/^[[:space:]]*linux[[:space:]].*vmlinuz-\([^[:space:]]*\).*/first \1/p' /boot/grub/grub.cfg | head -n 1
fi
:"""

# The library where the packages put it; what the loader would take is judged by asking NVML itself.
LIBRARY = r"""
for d in /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/lib64; do
  [ -e "$d/libnvidia-ml.so.1" ] && readlink -f "$d/libnvidia-ml.so.1"
done
:"""

NVML = python(
    r"""
import ctypes, json
out = {}
def ask(name, *args):
    call = getattr(lib, name, None)
    return None if call is None else call(*args)
try:
    lib = ctypes.CDLL("libnvidia-ml.so.1")
except OSError as error:
    print(json.dumps({"error": "library-not-found", "said": str(error)}))
    raise SystemExit
rc = ask("nvmlInit_v2")
if rc:
    words = getattr(lib, "nvmlErrorString", None)
    if words is not None:
        words.restype = ctypes.c_char_p
        out["said"] = words(rc).decode("utf-8", "replace")
    out["error"] = rc
    print(json.dumps(out))
    raise SystemExit
text = ctypes.create_string_buffer(96)
if ask("nvmlSystemGetDriverVersion", text, 96) == 0:
    out["driver"] = text.value.decode()
value = ctypes.c_int(0)
if ask("nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(value)) == 0:
    out["cuda"] = value.value
count = ctypes.c_uint(0)
if ask("nvmlDeviceGetCount_v2", ctypes.byref(count)) == 0:
    out["count"] = count.value
out["persistence"] = modes = []
for index in range(count.value):
    device, mode = ctypes.c_void_p(), ctypes.c_uint(0)
    good = ask("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device)) == 0
    modes.append(mode.value if good and ask("nvmlDeviceGetPersistenceMode", device, ctypes.byref(mode)) == 0 else None)
ask("nvmlShutdown")
print(json.dumps(out))
""",
    20,
)
SMI = "timeout 20 nvidia-smi --query-gpu=driver_version --format=csv,noheader"

# NVIDIA display (0x0300) and 3D (0x0302) controllers, with or without a driver, and NVSwitch bridges (0x0680).
PCI = r"""
[ -d /sys/bus/pci/devices ] || exit 3
for d in /sys/bus/pci/devices/*; do
  [ -r "$d/vendor" ] || continue
  read -r v <"$d/vendor"; read -r c <"$d/class"
  [ "$v" = 0x10de ] && case $c in
    0x0300*|0x0302*) printf '%s\n' "${d##*/}" ;;
    0x0680*) printf 'switch %s\n' "${d##*/}" ;;
  esac
done
:"""
NOUVEAU_LOADED = (
    "if [ -d /sys/module ]; then [ -d /sys/module/nouveau ] && echo loaded || echo not loaded; else exit 3; fi"
)
NOUVEAU_BLACKLIST = r"""
grep -HsE '^[[:space:]]*(blacklist|install)[[:space:]]+nouveau([[:space:]]|$)' \
  /etc/modprobe.d/*.conf /run/modprobe.d/*.conf /usr/lib/modprobe.d/*.conf /lib/modprobe.d/*.conf
grep -oE '(modprobe\.blacklist|module_blacklist)=[^ ]*nouveau[^ ]*' /proc/cmdline
:"""
INITRAMFS = r"""
set -- $(ls -d /boot/initrd.img-* 2>/dev/null)
[ $# = 0 ] || stat -c 'initramfs %Y %n' "$@"
set -- $(grep -lsE '^[[:space:]]*blacklist[[:space:]]+nouveau' /etc/modprobe.d/*.conf)
[ $# = 0 ] || stat -L -c 'blacklist %Y %n' "$@"
:"""
SECURE_BOOT = r"""
if [ ! -d /sys/firmware/efi ]; then echo no-uefi; exit 0; fi
f=/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
[ -r "$f" ] || exit 3
od -An -tu1 "$f"
"""
INSTALLER = r"""for f in /usr/bin/nvidia-uninstall /usr/bin/nvidia-installer; do [ -e "$f" ] && echo "$f"; done; :"""


def _driver(wanted: HostLock) -> str | None:
    return wanted.driver_version.value if wanted.driver_version is not None else None


def _same(a: str, b: str) -> bool:
    return number(a.strip()) == number(b.strip())


NO_DRIVER = not_applicable("the lock wants no driver on this host")


def loaded(wanted: HostLock, module: Seen) -> Verdict:
    driver = _driver(wanted)
    if driver is None:
        return NO_DRIVER
    version = module.content
    if version is None:
        return failed(f"no NVIDIA module is loaded; the lock wants {driver}")
    return found(_same(version, driver), f"loaded {version.strip()}, lock {driver}")


def proc_agrees(wanted: HostLock, module: Seen, proc: Seen) -> Verdict:
    if _driver(wanted) is None:
        return NO_DRIVER
    text, version = proc.content, module.content
    if text is None or version is None:
        return failed("the kernel shows no NVIDIA driver")
    match = re.search(r"Kernel Module(?: for \S+)?\s+(\d+\.[\d.]+)", text)
    if match is None:
        raise NotMade("/proc/driver/nvidia/version has no version that can be read")
    return found(_same(match[1], version), f"/proc says {match[1]}, /sys says {version.strip()}")


def flavour(wanted: HostLock, proc: Seen) -> Verdict:
    if _driver(wanted) is None or wanted.modules is None:
        return NO_DRIVER
    text = proc.content
    if text is None:
        return failed(f"no NVIDIA module is loaded; the lock wants the {wanted.modules.value} one")
    seen = "open" if "Open Kernel Module" in text else "proprietary"
    return found(seen == wanted.modules.value, f"loaded {seen}, lock {wanted.modules.value}")


def _builds(seen: Seen) -> dict[str, list[dict[str, str]]]:
    """Kernel release -> what modinfo says of each NVIDIA module file that lies there."""
    builds: dict[str, list[dict[str, str]]] = {}
    current: dict[str, str] = {}
    for line in seen.output.splitlines():
        key, _, value = line.partition(":")
        if key == "file":
            kernel, _, path = value.strip().partition(" ")
            current = {"path": path}
            builds.setdefault(kernel, []).append(current)
        else:
            current[key] = value.strip()
    return builds


def _kernels(seen: Seen) -> tuple[str, str | None, list[str]]:
    """Running kernel, the one that boots next (None: the boot loader's choice cannot be told), and all installed."""
    said: dict[str, list[str]] = {}
    for line in seen.output.splitlines():
        word, _, value = line.partition(" ")
        said.setdefault(word, []).append(value.strip())
    if "running" not in said:
        raise NotMade("the running kernel could not be read")
    installed = said.get("installed", [])
    chosen = said.get("default", ["0"])[-1].strip("\"'") or "0"
    if "first" in said:
        return said["running"][0], said["first"][0] if chosen == "0" else None, installed
    return said["running"][0], installed[-1] if installed else None, installed


def running_and_next(seen: Seen) -> tuple[str, str | None]:
    """The running kernel, and the one that boots next when the boot loader's choice can be told."""
    running, following, _ = _kernels(seen)
    return running, following


def _module_for(kernel: str, driver: str, builds: dict[str, list[dict[str, str]]]) -> Verdict:
    files = builds.get(kernel, [])
    if not files:
        return failed(f"no module for {kernel}")
    versions = sorted({build.get("version", "unreadable") for build in files})
    return found(
        all(_same(version, driver) for version in versions), f"{kernel}: module {listed(versions)}, lock {driver}"
    )


def module_for_running(wanted: HostLock, kernels: Seen, modules: Seen) -> Verdict:
    driver = _driver(wanted)
    return NO_DRIVER if driver is None else _module_for(_kernels(kernels)[0], driver, _builds(modules))


def module_for_next_boot(wanted: HostLock, kernels: Seen, modules: Seen) -> Verdict:
    driver = _driver(wanted)
    if driver is None:
        return NO_DRIVER
    _, following, installed = _kernels(kernels)
    if following is not None:
        return _module_for(following, driver, _builds(modules))
    verdicts = [_module_for(kernel, driver, _builds(modules)) for kernel in installed]
    if verdicts and all(verdict.status == "passed" for verdict in verdicts):
        return passed(f"each of the {len(verdicts)} installed kernels has it")
    raise NotMade("which kernel boots next cannot be told, and not every installed one has the module")


def module_for_locked(wanted: HostLock, modules: Seen) -> Verdict:
    driver = _driver(wanted)
    if driver is None:
        return NO_DRIVER
    if not wanted.kernels:
        return not_applicable("the lock names no kernels")
    verdicts = [_module_for(kernel, driver, _builds(modules)) for kernel in wanted.kernels]
    wrong = [verdict.detail for verdict in verdicts if verdict.status != "passed"]
    return failed(listed(wrong)) if wrong else passed(listed(list(wanted.kernels)))


def module_fits(wanted: HostLock, modules: Seen) -> Verdict:
    """A module copied from another kernel's folder has that kernel's vermagic, and does not load."""
    if _driver(wanted) is None:
        return NO_DRIVER
    wrong = [
        f"{build['path']} was built for {build.get('vermagic', 'nobody knows what')}"
        for kernel, files in _builds(modules).items()
        for build in files
        if build.get("vermagic", "").split(" ")[0] != kernel
    ]
    return failed(listed(wrong, 2)) if wrong else passed()


def module_flavour(wanted: HostLock, kernels: Seen, modules: Seen) -> Verdict:
    if _driver(wanted) is None or wanted.modules is None:
        return NO_DRIVER
    running, following, _ = _kernels(kernels)
    builds = _builds(modules)
    files = builds.get(following or running) or builds.get(running)
    if not files:
        return failed("there is no module")
    seen = {"open" if "GPL" in build.get("license", "") else "proprietary" for build in files}
    return found(seen == {wanted.modules.value}, f"on disk {listed(sorted(seen))}, lock {wanted.modules.value}")


def library(wanted: HostLock, seen: Seen) -> Verdict:
    driver = _driver(wanted)
    if driver is None:
        return NO_DRIVER
    files = seen.output.split()
    if not files:
        return failed("libnvidia-ml.so.1 is not installed")
    versions = [match[1] if (match := re.search(r"\.so\.(\d[\d.]*)$", file)) else file for file in files]
    return found(all(_same(version, driver) for version in versions), f"library {listed(versions)}, lock {driver}")


def _nvml(seen: Seen) -> dict[str, Any]:
    if seen.rc == 127:
        raise NotMade("the host has no python3 to ask NVML with")
    try:
        answer = json.loads(seen.output)
    except ValueError:
        raise NotMade("NVML's answer could not be read") from None
    return dict(answer)


def nvml_answers(wanted: HostLock, seen: Seen) -> Verdict:
    if _driver(wanted) is None:
        return NO_DRIVER
    answer = _nvml(seen)
    if "error" in answer:
        return failed(f"NVML: {answer.get('said') or answer['error']} ({answer['error']})")
    return passed(f"{answer.get('count', 'unknown number of')} GPUs")


def nvml_driver(wanted: HostLock, seen: Seen) -> Verdict:
    driver = _driver(wanted)
    if driver is None:
        return NO_DRIVER
    version = _nvml(seen).get("driver")
    if version is None:
        raise NotMade("NVML names no driver")
    return found(_same(str(version), driver), f"NVML {version}, lock {driver}")


def _cards(pci: Seen) -> list[str]:
    return [line for line in pci.output.splitlines() if not line.startswith("switch ")]


def gpu_count(wanted: HostLock, pci: Seen, seen: Seen) -> Verdict:
    if _driver(wanted) is None:
        return NO_DRIVER
    cards = _cards(pci)
    count = _nvml(seen).get("count")
    if count is None:
        raise NotMade("NVML does not say how many GPUs it has")
    return found(len(cards) == count, f"{len(cards)} on the PCI bus, {count} in NVML")


def gpus_as_locked(wanted: HostLock, pci: Seen) -> Verdict:
    cards = _cards(pci)
    return found(len(cards) == len(wanted.gpus), f"{len(cards)} on the PCI bus, {len(wanted.gpus)} in the lock")


def cuda_level(wanted: HostLock, seen: Seen) -> Verdict:
    if wanted.cuda is None or _driver(wanted) is None:
        return not_applicable("the lock names no CUDA level")
    code = _nvml(seen).get("cuda")
    if code is None:
        raise NotMade("NVML does not say which CUDA level the driver carries")
    level = f"{code // 1000}.{code % 1000 // 10}"
    enough = number(level)[:2] >= number(wanted.cuda.value)[:2]
    return found(enough, f"driver carries {level}, lock wants {wanted.cuda.value}")


def smi_agrees(wanted: HostLock, seen: Seen) -> Verdict:
    driver = _driver(wanted)
    if driver is None:
        return NO_DRIVER
    versions = sorted(set(seen.output.split()))
    return found(bool(versions) and all(_same(v, driver) for v in versions), f"nvidia-smi {listed(versions)}")


def nouveau_not_loaded(wanted: HostLock, seen: Seen) -> Verdict:
    if _driver(wanted) is None:
        return NO_DRIVER
    return found(seen.output.strip() == "not loaded", f"nouveau is {seen.output.strip()}")


def nouveau_blacklisted(wanted: HostLock, seen: Seen) -> Verdict:
    if _driver(wanted) is None:
        return NO_DRIVER
    places = [line.split(":")[0] for line in seen.output.splitlines()]
    return passed(listed(places, 1)) if places else failed("no file in modprobe.d blacklists nouveau")


def nouveau_initramfs(wanted: HostLock, seen: Seen) -> Verdict:
    """Unpacking each initramfs costs seconds; that it was made after the blacklist says the same for less."""
    if _driver(wanted) is None:
        return NO_DRIVER
    lines = [line.split(" ", 2) for line in seen.output.splitlines()]
    images = {name: int(at) for kind, at, name in lines if kind == "initramfs"}
    lists = [int(at) for kind, at, _ in lines if kind == "blacklist"]
    if not images:
        return not_applicable("the host boots without an initramfs")
    if not lists:
        return failed("no file in /etc/modprobe.d blacklists nouveau")
    older = sorted(name for name, at in images.items() if at < min(lists))
    return failed(f"made before the blacklist: {listed(older)}") if older else passed()


def persistence(wanted: HostLock, unit: Seen, seen: Seen) -> Verdict:
    if _driver(wanted) is None:
        return NO_DRIVER
    if units(unit).get("nvidia-persistenced.service", {}).get("ActiveState") == "active":
        return passed("nvidia-persistenced is active")
    modes = _nvml(seen).get("persistence") or []
    on = bool(modes) and all(mode == 1 for mode in modes)
    return found(on, "persistence mode is on" if on else "nvidia-persistenced is not active, nor is the mode on")


def fabric_manager(wanted: HostLock, pci: Seen, unit: Seen) -> Verdict:
    """It starts with the driver's own version or not at all, so that it runs says that both agree."""
    if _driver(wanted) is None:
        return NO_DRIVER
    switches = len(pci.output.splitlines()) - len(_cards(pci))
    if not switches:
        return not_applicable("there is no NVSwitch bridge on the PCI bus")
    state = units(unit).get("nvidia-fabricmanager.service", {})
    seen = "not installed" if state.get("LoadState") != "loaded" else state.get("ActiveState", "unknown")
    return found(seen == "active", f"{switches} NVSwitch bridges, nvidia-fabricmanager is {seen}")


def secure_boot(wanted: HostLock, state: Seen, kernels: Seen, modules: Seen) -> Verdict:
    if _driver(wanted) is None:
        return NO_DRIVER
    if state.rc == 3:
        raise NotMade("the UEFI variable SecureBoot cannot be read")
    if state.output.strip() == "no-uefi":
        return passed("no UEFI, so no Secure Boot")
    if state.output.split()[-1] != "1":
        return passed("Secure Boot is off")
    running, following, _ = _kernels(kernels)
    builds = _builds(modules)
    unsigned = [k for k in (running, following) if k and not all("signer" in b for b in builds.get(k, [{}]))]
    if unsigned:
        return failed(f"Secure Boot is on and the module is not signed for {listed(unsigned)}")
    return passed("Secure Boot is on and the module is signed")


def no_installer(wanted: HostLock, seen: Seen) -> Verdict:
    """A driver of the .run installer writes over files that the packages own, and apt never learns of it."""
    if _driver(wanted) is None:
        return NO_DRIVER
    files = seen.output.split()
    return failed(f"left by NVIDIA's .run installer: {listed(files)}") if files else passed()


CHECKS = (
    Check("driver-loaded", "Loaded driver is the locked one", loaded, (LOADED,)),
    Check("driver-proc", "/proc and /sys name the same driver", proc_agrees, (LOADED, PROC)),
    Check("driver-flavour", "Loaded module is of the locked flavour", flavour, (PROC,)),
    Check("module-running", "Module on disk for the running kernel", module_for_running, (KERNELS, MODULES)),
    Check(
        "module-next-boot", "Module on disk for the kernel that boots next", module_for_next_boot, (KERNELS, MODULES)
    ),
    Check("module-locked-kernels", "Module on disk for each locked kernel", module_for_locked, (MODULES,)),
    Check("module-fits", "Modules were built for the kernels they lie under", module_fits, (MODULES,)),
    Check("module-flavour", "Module on disk is of the locked flavour", module_flavour, (KERNELS, MODULES)),
    Check("nvml-library", "NVML library on disk is the locked one", library, (LIBRARY,)),
    Check("nvml-answers", "NVML answers", nvml_answers, (NVML,)),
    Check("nvml-driver", "NVML reports the locked driver", nvml_driver, (NVML,)),
    Check("gpu-count", "NVML has every GPU of the PCI bus", gpu_count, (PCI, NVML)),
    Check("gpus-as-locked", "As many GPUs as when the lock was made", gpus_as_locked, (PCI,)),
    Check("cuda-level", "Driver carries the locked CUDA level", cuda_level, (NVML,)),
    Check("nvidia-smi", "nvidia-smi reports the locked driver", smi_agrees, (SMI,), required=False),
    Check("nouveau-not-loaded", "nouveau is not loaded", nouveau_not_loaded, (NOUVEAU_LOADED,)),
    Check("nouveau-blacklisted", "nouveau is blacklisted", nouveau_blacklisted, (NOUVEAU_BLACKLIST,)),
    Check(
        "nouveau-initramfs", "initramfs is newer than the blacklist", nouveau_initramfs, (INITRAMFS,), required=False
    ),
    Check("persistence", "Driver stays loaded between jobs", persistence, (UNIT_STATES, NVML)),
    Check("fabric-manager", "Fabric manager runs where cards need it", fabric_manager, (PCI, UNIT_STATES)),
    Check("secure-boot", "Module can load under Secure Boot", secure_boot, (SECURE_BOOT, KERNELS, MODULES)),
    Check("no-run-installer", "No driver of the .run installer", no_installer, (INSTALLER,)),
)
