"""Takes a change back on the host itself, from what its history keeps: no controller, no network, no Ansible.

The same that `provision rollback` plans from the record (provisioner/resources/undo.py), in the same order. Safe to cut
short and to do again.
"""

# Python 3.6 has no pathlib that renames; text paths all the way.
# ruff: noqa: PTH101, PTH103, PTH104, PTH108, PTH110, PTH112, PTH120, PTH123, PTH106, PTH118, PTH206, PTH208

import hashlib
import json
import os
import shutil

MYPY = False
if MYPY:
    from typing import Any

    from provisioner.host.trial import Host

    Json = dict[str, Any]

STATE = "/var/lib/provision"
HISTORY = STATE + "/history"
RECORD = STATE + "/enrolment.json"
CLIENTS = "provision-clients.target"
CDI_SPECS = ("/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml")
UNITS = "/etc/systemd/system/"
APT_S = 3600

CONFIGURE = ("dpkg", "--configure", "--pending", "--force-confdef", "--force-confold")
# As in provisioner/model/transaction.py, but apt knows no package source and so fetches nothing: with one that still
# offers a version it would rather download that than take the archive that lies here, and --no-download is an error
# with any archive named by its path (apt 2.2 to 3.0). Its caches are left as they are.
APT_GET = (
    *("apt-get", "--yes", "--option", "DPkg::Lock::Timeout=600"),
    *("--option", "Dpkg::Options::=--force-confdef", "--option", "Dpkg::Options::=--force-confold"),
    *("--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages"),
    *("--option", "Dir::Etc::SourceList=/dev/null", "--option", "Dir::Etc::SourceParts=/dev/null"),
    *("--option", "Dir::Cache::pkgcache=", "--option", "Dir::Cache::srcpkgcache="),
)


class Failed(Exception):
    """Why the host could not be brought back."""


def folder(run: str) -> str:
    return f"{HISTORY}/{run}"


def record_of(host: "Host", run: str) -> "Json":
    text = host.read(folder(run) + "/record.json")
    if text is None:
        raise Failed(f"{folder(run)}/record.json is not there")
    return dict(json.loads(text))


def take_back(host: "Host", run: str, reboot: bool = False) -> bool:
    """Packages, files, modules, holds and units as the record has them; whether a reboot has to follow.

    `reboot`: one has to in any case. Without one, what reads a file only at its start is restarted.
    """
    record = record_of(host, run)
    files = record["files"]
    host.run(list(CONFIGURE), APT_S)
    clear_half_built(host)
    installed = packages(host)
    words = transaction(host, run, record["packages"], installed)
    for path in sorted(path for path, kept in files.items() if kept["pins"]):
        put_back(host, run, path, files[path])
    if words:
        done(host, words, APT_S)
    marked(host, record["packages"])
    for path in sorted(path for path, kept in files.items() if not kept["pins"]):
        put_back(host, run, path, files[path])
    done(host, ["systemctl", "daemon-reload"])
    if any(kept["initramfs"] for kept in files.values()):
        done(host, ["update-initramfs", "-u", "-k", "all"], APT_S)
    build(host, record)
    for name, unit in sorted(record["units"].items()):
        if unit["there"]:
            done(host, ["systemctl", "enable" if unit["enabled"] else "disable", name])
    if reboot or reboots(host, record):
        return True
    for name in sorted({unit for kept in files.values() for unit in kept["restarts"]}):
        if host.run(["systemctl", "cat", name])[0] == 0:
            done(host, ["systemctl", "restart", name])
    return False


def transaction(host: "Host", run: str, kept: "Json", installed: "Json") -> "list[str]":
    """The one call of apt, every archive compared with its sum first; [] when no package has to move."""
    words = []
    names = []
    purges = False
    for name, package in sorted(kept.items()):
        now = installed.get(name)
        if package["version"] is None:
            if now is not None:
                purges = True
                words.append(name + "-")
        elif now is None or now["version"] != package["version"] or not now["whole"]:
            path = f"{folder(run)}/debs/{archive_name(name, package)}"
            if package.get("sha256") is None or sha256(host.path(path)) != package["sha256"]:
                raise Failed(f"{path} is not there or not what was kept")
            words.append(host.path(path))
            names.append(f"{name}={package['version']}")
    if names and len(names) == len(words):
        words.append(names[0])  # with paths alone apt mends nothing: see provisioner/model/transaction.py
    return [*APT_GET, *(["--purge"] if purges else []), "install", *words] if words else []


def clear_half_built(host: "Host") -> None:
    """What DKMS was putting into its tree when it was killed, and takes for no build of its own.

    `dkms remove` leaves such a folder there, and so the version stays added: no postinst can add it any more.
    """
    tree = host.path("/var/lib/dkms")
    if not os.path.isdir(tree):
        return
    for base, folders, _ in list(os.walk(tree)):
        parts = os.path.relpath(base, tree).split(os.sep)
        if len(parts) != 3 or parts[1] == "original_module" or parts[2] == "build":
            continue
        for architecture in folders:
            words = ["dkms", "status", "-m", parts[0], "-v", parts[1], "-k", parts[2], "-a", architecture]
            rc, said = host.run(words)
            if rc == 0 and ": built" not in said and ": installed" not in said:
                shutil.rmtree(os.path.join(base, architecture))
        if not os.listdir(base):
            os.rmdir(base)


def packages(host: "Host") -> "Json":
    """What is installed: name -> version, and whether it is whole. What left only its configuration is not there."""
    found = {}
    rc, said = host.run(["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${db:Status-Abbrev}\n"])
    if rc != 0:
        raise Failed("dpkg-query does not answer")
    for line in said.splitlines():
        name, version, status = line.split("\t")
        if status[1] not in "nc" and (name not in found or status[1] == "i"):
            found[name] = {"version": version, "whole": status[1:3] == "i "}
    return found


def archive_name(name: str, package: "Json") -> str:
    """apt's own name of an archive."""
    return "_".join([name, package["version"].replace(":", "%3a"), package["architecture"]]) + ".deb"


def sha256(path: str) -> "str | None":
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def marked(host: "Host", kept: "Json") -> None:
    """Holds and marks of dependencies as they were."""
    there = {name: package for name, package in sorted(kept.items()) if package["version"] is not None}
    for verb, names in (
        ("auto", [name for name, package in there.items() if package["auto"]]),
        ("hold", [name for name, package in there.items() if package["held"]]),
        ("unhold", [name for name, package in there.items() if not package["held"]]),
    ):
        if names:
            done(host, ["apt-mark", verb, *names])


def put_back(host: "Host", run: str, path: str, kept: "Json") -> None:
    """A file as it was, or gone; the unit of one that goes is disabled first."""
    target = host.path(path)
    if kept["sha256"] is None:
        if os.path.dirname(path) + "/" == UNITS and os.path.exists(target):
            host.run(["systemctl", "disable", "--now", path[len(UNITS) :]])
        if os.path.lexists(target):
            os.unlink(target)
        return
    source = host.path(folder(run) + "/files" + path)
    if sha256(source) != kept["sha256"]:
        raise Failed(f"{source} is not what was kept")
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    shutil.copyfile(source, target + ".new")
    os.chmod(target + ".new", int(kept["mode"], 8))
    user, _, group = kept["owner"].partition(":")
    shutil.chown(target + ".new", owner(user), owner(group))
    os.rename(target + ".new", target)


def owner(word: str) -> "Any":
    return int(word) if word.isdigit() else word


def build(host: "Host", record: "Json") -> None:
    """The module for every kernel that had it and is still there; DKMS does nothing where it is already."""
    entry = (record["from"] or {}).get("entry") or {}
    if not entry.get("driver_version") or host.run(["dkms", "--version"])[0] != 0:
        return
    for kernel in entry.get("kernels", []):
        if os.path.isdir(host.path(f"/lib/modules/{kernel}")):
            done(host, ["dkms", "autoinstall", "-k", kernel], APT_S)


def reboots(host: "Host", record: "Json") -> bool:
    """Whether another driver is loaded than was before the change."""
    loaded = (host.read("/sys/module/nvidia/version") or "").strip() or None
    return loaded != (record["driver"] or {}).get("version")


def release(host: "Host", run: str) -> None:
    """After the reboot: what needs the driver, then the record of the enrolment before; the host's gate judges it."""
    record = record_of(host, run)
    entry = (record["from"] or {}).get("entry") or {}
    if (entry.get("cdi") or {}).get("value") == "present" and entry.get("toolkit"):
        refreshed = host.run(["systemctl", "cat", "nvidia-cdi-refresh.service"])[0] == 0  # writes it at each boot
        specs = [path for path in CDI_SPECS if os.path.exists(host.path(path))] or [CDI_SPECS[1 if refreshed else 0]]
        for path in specs:
            done(host, ["nvidia-ctk", "cdi", "generate", "--output=" + host.path(path)])
    for name, unit in sorted(record["units"].items()):
        if unit["there"]:
            done(host, ["systemctl", "start" if unit["active"] else "stop", name])
    kept = host.path(folder(run) + "/enrolment.json")
    if os.path.exists(kept):
        os.chmod(kept, 0o644)
        os.rename(kept, host.path(RECORD))
        done(host, ["systemctl", "start", CLIENTS])
    shutil.rmtree(host.path(folder(run)))
    os.sync()


def done(host: "Host", words: "list[str]", limit_s: float = 300) -> None:
    rc, said = host.run(words, limit_s)
    if rc != 0:
        lines = [line for line in said.strip().splitlines() if line.startswith(("E:", "dpkg:", "Error"))]
        raise Failed(f"{' '.join(words[:3])} …: {(lines or said.strip().splitlines() or [f'exit code {rc}'])[-1]}")
