"""Runs on a host before anything is changed there: keeps what the run will replace, so that rollback needs no network.

Standard library, Python 3.6 and newer; the rendered run appends a call of `main` with what to keep. An entry of an
earlier run that never came to a good end is taken over: the state before it is the last good one, and rollback goes
there.
"""

# Text all the way: a host's paths need not be UTF-8, and Python 3.6 has no pathlib that renames and links alike.
# ruff: noqa: PTH101, PTH103, PTH104, PTH108, PTH110, PTH112, PTH113, PTH114, PTH115, PTH116, PTH118, PTH120, PTH123, PTH208, PTH211

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

TYPING = False
if TYPING:
    from collections.abc import Iterable
    from typing import Any

    Package = dict[str, Any]

STATE = "/var/lib/provision"
ARCHIVES = "/var/cache/apt/archives"
SPARE = 256 << 20  # bytes that stay free for the transaction itself


def output(*argv: str) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(os.environ, LC_ALL="C"))
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else ""


def installed(names: "Iterable[str]") -> "dict[str, Package]":
    """What is there of `names`; a package of which only configuration is left is not there. Sizes in bytes."""
    found = {}  # type: dict[str, Package]
    form = "${Package}\t${Version}\t${Architecture}\t${db:Status-Abbrev}\t${Installed-Size}\n"
    for line in output("dpkg-query", "-W", "-f", form).splitlines():
        name, version, architecture, status, size = line.split("\t")
        if name in names and status[1] not in "nc" and (name not in found or status[1] == "i"):
            found[name] = {
                "version": version,
                "architecture": architecture,
                "held": status[0] == "h",
                "size": int(size or 0) << 10,
            }
    return found


def archive_name(name: str, package: "Package") -> str:
    return "_".join([name, package["version"].replace(":", "%3a"), package["architecture"]]) + ".deb"


def archive_size(name: str, package: "Package") -> int:
    """Of the archive in apt's cache; where there is none, what is installed bounds it."""
    try:
        return os.stat(os.path.join(ARCHIVES, archive_name(name, package))).st_size
    except OSError:
        return int(package["size"])


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def put(source: str, target: str) -> None:
    """A copy that is whole or not there, also after a power cut; a link where the file system allows one."""
    fresh = target + ".new"
    if os.path.lexists(fresh):
        os.unlink(fresh)
    try:
        os.link(source, fresh)
    except OSError:
        shutil.copyfile(source, fresh)
    with open(fresh, "rb") as file:
        os.fsync(file.fileno())
    os.rename(fresh, target)


def write(path: str, text: str) -> None:
    with open(path + ".new", "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)


# Archives: from apt's cache, from the package sources while they still serve it, and else made from what is installed.


def keep_archives(packages: "dict[str, Package]", folder: str, history: str) -> "dict[str, str]":
    """Put an archive of each package into `folder`; returns name → how it was had."""
    missing = {}
    had = {}
    for name, package in sorted(packages.items()):
        target = os.path.join(folder, archive_name(name, package))
        if os.path.exists(target):
            had[name] = "kept before"
            continue
        places = [ARCHIVES, *(os.path.join(history, entry, "debs") for entry in sorted(os.listdir(history)))]
        source = next(
            (p for p in (os.path.join(d, archive_name(name, package)) for d in places) if whole(p, package)), None
        )
        if source is None:
            missing[name] = package
        else:
            put(source, target)
            had[name] = "apt's cache" if source.startswith(ARCHIVES) else "kept before"
    for name in download(missing, folder):
        had[name] = "downloaded"
        del missing[name]
    for name, package in missing.items():
        repack(name, package, os.path.join(folder, archive_name(name, package)))
        had[name] = "packed from what is installed"
    return had


def whole(path: str, package: "Package") -> bool:
    return os.path.exists(path) and output("dpkg-deb", "--field", path, "Version").strip() == package["version"]


def download(packages: "dict[str, Package]", folder: str) -> "list[str]":
    """What the sources still offer in just this version. The index may be old and the file gone: then nothing comes."""
    offered = set()
    for line in output("apt-cache", "madison", *packages).splitlines() if packages else ():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) == 3 and parts[2].endswith("Packages") and packages.get(parts[0], {}).get("version") == parts[1]:
            offered.add(parts[0])
    if not offered:
        return []
    came = []
    place = tempfile.mkdtemp(dir=folder)
    try:
        words = [name + "=" + packages[name]["version"] for name in sorted(offered)]
        limits = ["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=15", "-o", "Acquire::https::Timeout=15"]
        subprocess.run(
            ["apt-get", "-q", *limits, "download", *words],
            cwd=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=600,
        )
        for name in sorted(offered):
            path = os.path.join(place, archive_name(name, packages[name]))
            if whole(path, packages[name]):
                put(path, os.path.join(folder, archive_name(name, packages[name])))
                came.append(name)
    except subprocess.TimeoutExpired:
        pass
    finally:
        shutil.rmtree(place)
    return came


def repack(name: str, package: "Package", target: str) -> None:
    """Make an archive from dpkg's records and the installed files, as dpkg-repack does; configuration as it is now."""
    place = tempfile.mkdtemp(dir=os.path.dirname(target))
    before = os.umask(0o022)  # of the archive's own folders, which a later installation would take over
    try:
        tree = os.path.join(place, "tree")
        os.makedirs(os.path.join(tree, "DEBIAN"))
        paths = [p for p in output("dpkg-query", "-L", name).splitlines() if p.startswith("/") and p != "/."]
        # What has something in it is a folder of the package, also where the host has a link: /lib with merged /usr.
        folders = {os.path.dirname(path) for path in paths}
        for path in paths:
            real = output("dpkg-divert", "--truename", path).rstrip("\n") or path
            copy(real, tree + path, folder=path in folders)
        control(name, os.path.join(tree, "DEBIAN"))
        made = os.path.join(place, "made.deb")
        subprocess.run(["dpkg-deb", "--build", "-Zgzip", tree, made], check=True, stdout=subprocess.DEVNULL)
        put(made, target)
    finally:
        os.umask(before)
        shutil.rmtree(place)


def copy(source: str, target: str, folder: bool = False) -> None:
    if os.path.islink(source) and not folder:
        if not os.path.lexists(target):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif os.path.isfile(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copyfile(source, target)
    else:
        return  # taken away by hand; an archive without it is the truth of this host
    seen = os.stat(source)
    os.chown(target, seen.st_uid, seen.st_gid)
    os.chmod(target, seen.st_mode & 0o7777)
    os.utime(target, (seen.st_atime, seen.st_mtime))


def control(name: str, folder: str) -> None:
    fields = []
    skip = False
    for line in output("dpkg-query", "--status", name).splitlines():
        if not line.startswith((" ", "\t")):
            skip = line.startswith(("Status:", "Conffiles:"))
        if not skip:
            fields.append(line)
    with open(os.path.join(folder, "control"), "w", errors="surrogateescape") as file:
        file.write("\n".join(fields) + "\n")
    for path in output("dpkg-query", "--control-path", name).splitlines():
        kind = path.rsplit(".", 1)[-1]
        if kind in ("list", "md5sums"):
            continue
        shutil.copyfile(path, os.path.join(folder, kind))
        os.chmod(
            os.path.join(folder, kind), 0o755 if kind in ("preinst", "postinst", "prerm", "postrm", "config") else 0o644
        )


# Files, units, driver.


def keep_file(path: str, folder: str) -> "dict[str, Any]":
    """Copy of a file, with what it takes to put it back; None: it was not there."""
    try:
        seen = os.stat(path)
    except OSError:
        return {"sha256": None}
    import grp
    import pwd

    target = folder + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(path, target + ".new")
    os.rename(target + ".new", target)
    try:
        owner = pwd.getpwuid(seen.st_uid).pw_name + ":" + grp.getgrgid(seen.st_gid).gr_name
    except KeyError:
        owner = f"{seen.st_uid}:{seen.st_gid}"
    return {"sha256": sha256(target), "mode": f"{seen.st_mode & 0o7777:04o}", "owner": owner}


def unit_state(name: str) -> "dict[str, bool]":
    text = output("systemctl", "show", "-p", "LoadState,ActiveState,UnitFileState", name)
    state = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {
        "there": state.get("LoadState") not in (None, "", "not-found"),
        "enabled": state.get("UnitFileState") == "enabled",
        "active": state.get("ActiveState") in ("active", "reloading"),
    }


def text_of(path: str) -> "str | None":
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def loaded_driver() -> "dict[str, str] | None":
    version = text_of("/sys/module/nvidia/version")
    if version is None:
        return None
    flavour = "open" if "Open Kernel Module" in (text_of("/proc/driver/nvidia/version") or "") else "proprietary"
    return {"version": version, "flavour": flavour}


# The entry itself.


def entries(history: str) -> "list[tuple[str, bool]]":
    """Names of entries, oldest first, and whether each came to a good end."""
    names = [n for n in os.listdir(history) if os.path.exists(os.path.join(history, n, "record.json"))]
    return [(n, os.path.exists(os.path.join(history, n, "done"))) for n in sorted(names)]


def size_of(folder: str) -> int:
    return sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(folder) for name in names)


def make_room(history: str, run: str, need: int, most: int, limit: int, staged: int) -> None:
    """Drop the oldest entries that ended well, down to `most` and `limit` bytes; end when there is no room even so."""
    old = [name for name, done in entries(history) if done and name != run]
    while old and (len(old) >= most or size_of(history) + need > limit):
        shutil.rmtree(os.path.join(history, old.pop(0)))
    if size_of(history) + need > limit:
        sys.exit(f"{need // 10**6} MB would be kept, and provision_policy.history_mib allows {limit >> 20} MiB")
    disk = os.statvfs(history)
    free = disk.f_bavail * disk.f_frsize
    if free < need + staged + SPARE:
        sys.exit(
            f"{history} has {free // 10**6} MB free; needed are {need // 10**6} MB to keep, {staged // 10**6} MB to "
            f"download and {SPARE // 10**6} MB of room for the change"
        )


def begun(here: str) -> "dict[str, Any]":
    """The record of an unfinished change that this run takes over; empty: there is none."""
    path = os.path.join(here, "record.json")
    text = text_of(path)
    try:
        record = json.loads(text or "{}")
    except ValueError:
        record = None
    if not isinstance(record, dict) or (text is not None and not record):
        # A new one would call the half-way state the good one, and rollback would lead there.
        sys.exit(
            f"{path} cannot be read, so what the unfinished change replaced is not known. "
            f"To do without a way back to before it: sudo mv {here} /root/"
        )
    return record


def main(spec: "dict[str, Any]") -> None:
    os.umask(0o077)
    history = os.path.join(STATE, "history")
    here = os.path.join(history, spec["run"])
    os.makedirs(history, exist_ok=True)
    os.chmod(history, 0o700)
    unfinished = [name for name, done in entries(history) if not done]
    if unfinished and unfinished[-1] != spec["run"]:
        os.rename(os.path.join(history, unfinished[-1]), here)
    for name in os.listdir(history):  # cut short before it had a record
        path = os.path.join(history, name)
        if os.path.isdir(path) and name != spec["run"] and not os.path.exists(os.path.join(path, "record.json")):
            shutil.rmtree(path)
    os.makedirs(os.path.join(here, "debs"), exist_ok=True)
    os.makedirs(os.path.join(here, "files"), exist_ok=True)
    record = begun(here)
    if not record:
        record = {
            "format": 1,
            "began": spec["run"],
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "from": json.loads(text_of(os.path.join(history, "now.json")) or "null"),
            "driver": loaded_driver(),
            "packages": {},
            "files": {},
            "units": {},
        }
    record["run"] = spec["run"]
    record["to"] = dict(record.get("to", {}), **spec["to"])

    enrolled = os.path.join(STATE, "enrolment.json")
    if os.path.exists(enrolled):  # for a host that goes back by itself; the drain takes it away
        shutil.copyfile(enrolled, os.path.join(here, "enrolment.json.new"))
        os.rename(os.path.join(here, "enrolment.json.new"), os.path.join(here, "enrolment.json"))

    there = installed(spec["packages"])
    new = [name for name in spec["packages"] if name not in record["packages"]]
    wanted = {name: there[name] for name in new if name in there and name in spec["replaced"]}
    need = sum(archive_size(name, package) for name, package in wanted.items())
    make_room(history, spec["run"], need, spec["most"], spec["limit"], spec["staged"])
    had = keep_archives(wanted, os.path.join(here, "debs"), history)
    automatic = set(output("apt-mark", "showauto").split())
    for name in new:
        package = there.get(name)
        kept = {"unit": spec["packages"][name], "version": None}
        if package is not None:
            kept.update({"version": package["version"], "held": package["held"], "auto": name in automatic})
            kept["architecture"] = package["architecture"]
            if name in wanted:
                kept["sha256"] = sha256(os.path.join(here, "debs", archive_name(name, package)))
        record["packages"][name] = kept
    for path, traits in spec["files"].items():
        if path not in record["files"]:
            record["files"][path] = dict(traits, **keep_file(path, os.path.join(here, "files")))
    for name, traits in spec["units"].items():
        if name not in record["units"]:
            record["units"][name] = dict(traits, **unit_state(name))
    record["bytes"] = size_of(here)
    write(os.path.join(here, "record.json"), json.dumps(record, sort_keys=True))
    os.sync()
    ways = sorted(set(had.values()))
    told = ", ".join(f"{sum(way == w for way in had.values())} {w}" for w in ways)
    print(f"kept {len(had)} packages ({told or 'none replaced'}), {len(spec['files'])} files")
