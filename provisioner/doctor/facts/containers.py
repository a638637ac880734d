"""Container runtimes: whether they know of NVIDIA, what their files say, and what CDI specs name."""

from __future__ import annotations

import re
from typing import Any

from provisioner.doctor.facts.cards import parsed_json
from provisioner.doctor.facts.driver import VERSION, read_library, upstream
from provisioner.doctor.facts.fact import UNSEEN, Fact, Seen
from provisioner.doctor.host import Host, shown
from provisioner.doctor.truth import Evidence
from provisioner.facts.listing import contents
from provisioner.model.capture import UNKNOWN, Unknown
from provisioner.probe.request import CDI_GONE

_DAEMON = "/etc/docker/daemon.json"
_TOOLKIT = "/etc/nvidia-container-runtime/config.toml"
_CONTAINERD = "/etc/containerd/config.toml"
_CDI = re.compile(r"(/etc/cdi|/var/run/cdi|/run/cdi|/run/[\w-]*cdi[\w-]*)/[^/]+\.(ya?ml|json)")
# Settings of daemon.json whose loss stops containers or loses where their data lies.
_KEPT = ("default-runtime", "runtimes", "data-root", "mtu", "log-opts", "exec-opts")


def _info(host: Host) -> tuple[str, dict[str, Any]] | Unknown | None:
    """(command, what Docker says of itself); None: no Docker, or its daemon does not answer."""
    for line, answer in host.capture.commands.items():
        if not line.startswith("docker info"):
            continue
        if answer.rc == 127 or "Cannot connect to the Docker daemon" in answer.stdout + answer.stderr:
            return None
        data = parsed_json(answer.stdout)
        if isinstance(data, dict) and not data.get("ServerErrors"):
            return line, data
    return UNKNOWN


def _from_info(host: Host, key: str) -> Seen:
    info = _info(host)
    if not isinstance(info, tuple):
        return UNSEEN if info is UNKNOWN else Seen(None)
    line, data = info
    value = data.get(key)
    if not isinstance(value, (str, dict)):
        return UNSEEN
    return Seen(value, (shown("Docker", f"{key}: {value if isinstance(value, str) else ', '.join(value)}", line),))


def _docker(host: Host) -> Seen:
    seen = _text(_from_info(host, "ServerVersion"))
    if isinstance(seen.value, str):
        return seen
    for name in ("docker-ce", "docker.io", "docker"):
        package = host.package(name)
        if package is not UNKNOWN and package is not None:
            version = re.sub(r"^\d+:", "", package.version).partition("-")[0]
            return Seen(version, (shown("Docker", f"{name} {package.version}", host.package_line),))
    return seen


def _runtimes(host: Host) -> Seen:
    seen = _from_info(host, "Runtimes")
    if isinstance(seen.value, dict):
        return Seen(tuple(seen.value), seen.evidence)
    return Seen(None) if seen.value is None else UNSEEN


def _text(seen: Seen) -> Seen:
    return seen if isinstance(seen.value, str) or seen.value is None else UNSEEN


def _default_runtime(host: Host) -> Seen:
    return _text(_from_info(host, "DefaultRuntime"))


def _cgroup_driver(host: Host) -> Seen:
    return _text(_from_info(host, "CgroupDriver"))


def discovered_devices(host: Host) -> tuple[str, tuple[str, ...]] | Unknown:
    """(command, devices of CDI that Docker itself discovered)."""
    info = _info(host)
    if not isinstance(info, tuple):
        return UNKNOWN if info is UNKNOWN else ("docker info", ())
    devices = info[1].get("DiscoveredDevices")
    names = [str(item.get("ID")) for item in devices if isinstance(item, dict)] if isinstance(devices, list) else []
    return info[0], tuple(names)


def _docker_cdi(host: Host) -> Seen:
    found = discovered_devices(host)
    if found is UNKNOWN:
        return UNSEEN
    line, names = found
    return Seen(names, tuple(shown("CDI", name, line) for name in names[:1]))


def _config(host: Host, path: str = _DAEMON) -> dict[str, Any] | Unknown | None:
    text = host.capture.file(path)
    if not isinstance(text, str):
        return text
    data = parsed_json(text) if text.strip() else {}
    return data if isinstance(data, dict) else UNKNOWN


def _daemon_broken(host: Host) -> Seen:
    """Whether daemon.json cannot be read as JSON: Docker does not start with it."""
    text = host.capture.file(_DAEMON)
    if not isinstance(text, str):
        return UNSEEN if text is UNKNOWN else Seen(False)
    bad = bool(text.strip()) and not isinstance(parsed_json(text), dict)
    return Seen(bad, (shown("daemon.json", text[:80], _DAEMON),) if bad else ())


def _daemon_runtimes(host: Host) -> Seen:
    data = _config(host)
    if data is UNKNOWN:
        return UNSEEN
    names = data.get("runtimes") if data else None
    found = tuple(names) if isinstance(names, dict) else ()
    return Seen(found, (shown("daemon.json", f"runtimes: {', '.join(found) or 'none'}", _DAEMON),))


def _daemon_default(host: Host) -> Seen:
    data = _config(host)
    if data is UNKNOWN:
        return UNSEEN
    name = (data or {}).get("default-runtime")
    if name is not None and not isinstance(name, str):
        return UNSEEN
    return Seen(name, (shown("daemon.json", f"default-runtime: {name or 'not set'}", _DAEMON),))


def _lost_settings(host: Host) -> Seen:
    """Settings that a copy beside daemon.json has and daemon.json has no more."""
    now = _config(host)
    copies = {path: text for path, text in host.files(f"{_DAEMON}*").items() if path != _DAEMON}
    copies |= host.files("/var/lib/provision/backup/*daemon.json*")
    beside = contents(host.capture, f"{_DAEMON}*")
    if now is UNKNOWN or (beside is UNKNOWN and not copies):
        return UNSEEN
    rows: dict[str, Evidence] = {}
    for path, text in copies.items():
        before = parsed_json(text)
        for key in _KEPT if isinstance(before, dict) else ():
            if key in before and key not in (now or {}):
                rows.setdefault(key, shown("lost", f'"{key}": {before[key]}', path))
    if not rows and beside is UNKNOWN:
        return UNSEEN
    return Seen(tuple(rows), (*rows.values(), shown("now", "not set", _DAEMON)) if rows else ())


def _runtime_binary(host: Host) -> Seen:
    """Programs of runtimes in daemon.json that are not on the host."""
    data = _config(host)
    if data is UNKNOWN:
        return UNSEEN
    runtimes = (data or {}).get("runtimes")
    missing: dict[str, Evidence] = {}
    unknown = False
    for name, item in runtimes.items() if isinstance(runtimes, dict) else ():
        path = item.get("path") if isinstance(item, dict) else None
        if not isinstance(path, str):
            continue
        found = host.exists(path if path.startswith("/") else f"/usr/bin/{path}")
        unknown = unknown or found is UNKNOWN
        if found is False:
            missing[path] = shown("daemon.json", f"runtime {name}: {path} is absent", _DAEMON)
    return Seen(tuple(missing), tuple(missing.values())) if missing or not unknown else UNSEEN


def _toolkit(host: Host) -> Seen:
    package = host.package("nvidia-container-toolkit")
    if package is not UNKNOWN:
        if package is None:
            return Seen(None, (shown("toolkit", "not installed", host.package_line),))
        version = re.sub(r"^\d+:", "", package.version).rpartition("-")[0] or package.version
        return Seen(version, (shown("toolkit", f"nvidia-container-toolkit {package.version}", host.package_line),))
    for line, answer in host.answers("nvidia-ctk --version", "nvidia-container-cli --version"):
        match = re.search(r"version:? v?(\d+\.\d+\.\d+)", answer.stdout)
        if match:
            return Seen(match[1], (shown("toolkit", answer.stdout, line),))
    return UNSEEN


def _setting(host: Host, path: str, pattern: str) -> Seen:
    text = host.capture.file(path)
    if not isinstance(text, str):
        return UNSEEN if text is UNKNOWN else Seen(None)
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        return Seen(None)
    number = text.count("\n", 0, match.start()) + 1
    return Seen(match[1], (shown("config", match[0], f"{path}:{number}"),))


def _toolkit_mode(host: Host) -> Seen:
    return _setting(host, _TOOLKIT, r'^[ \t]*mode[ \t]*=[ \t]*"([^"\n]*)"')


def _toolkit_root(host: Host) -> Seen:
    return _setting(host, _TOOLKIT, r'^[ \t]*root[ \t]*=[ \t]*"([^"\n]+)"')


def _toolkit_ldconfig(host: Host) -> Seen:
    return _setting(host, _TOOLKIT, r'^[ \t]*ldconfig[ \t]*=[ \t]*"([^"\n]*)"')


def _root_empty(host: Host) -> Seen:
    """Whether the root that the toolkit is told of holds no driver."""
    root = _toolkit_root(host)
    if not isinstance(root.value, str) or root.value == "/":
        return Seen(False) if root.value is None or root.value == "/" else UNSEEN
    path = root.value.rstrip("/")
    for line, answer in host.answers(
        f"ls {path}", f"ls -A {path}", f"ls -d {path}", f"ls -d {path}/usr", f"ls -d {path}/*"
    ):
        gone = not answer.stdout.strip()
        return Seen(gone, (*root.evidence, shown("root", answer.stdout or "empty", line)))
    there = host.exists(path)
    if there is False:
        return Seen(True, (*root.evidence, shown("root", f"{path} is absent", f"ls {path}")))
    return UNSEEN


def _containerd(host: Host) -> Seen:
    for name in ("containerd.io", "containerd"):
        package = host.package(name)
        if package is not UNKNOWN and package is not None:
            version = re.split(r"[~+-]", re.sub(r"^\d+:", "", package.version))[0]
            return Seen(version, (shown("containerd", f"{name} {package.version}", host.package_line),))
    for line, answer in host.answers("containerd --version", "dpkg -l containerd*"):
        match = re.search(r"\bv?(\d+\.\d+\.\d+)", answer.stdout)
        if match:
            return Seen(match[1], (shown("containerd", answer.stdout, line),))
    return UNSEEN


def _podman(host: Host) -> Seen:
    package = host.package("podman")
    if package is not UNKNOWN and package is not None:
        version = re.split(r"[~+-]", re.sub(r"^\d+:", "", package.version))[0]
        return Seen(version, (shown("podman", package.version, host.package_line),))
    for line, answer in host.answers("podman --version", "podman version*"):
        match = re.search(r"(\d+\.\d+\.\d+)", answer.stdout)
        if match:
            return Seen(match[1], (shown("podman", answer.stdout, line),))
    return Seen(None) if package is None else UNSEEN


def _containerd_runtimes(host: Host) -> Seen:
    """Names of the runtimes in containerd's own configuration."""
    for line, answer in host.answers("containerd config dump"):
        names = re.findall(r"\.runtimes\.[\"']?([\w-]+)", answer.stdout)
        return Seen(tuple(dict.fromkeys(names)), (shown("containerd", ", ".join(dict.fromkeys(names)), line),))
    text = host.capture.file(_CONTAINERD)
    if not isinstance(text, str):
        return UNSEEN if text is UNKNOWN else Seen(())
    names = list(dict.fromkeys(re.findall(r"\.runtimes\.[\"']?([\w-]+)", text)))
    return Seen(tuple(names), (shown("containerd", f"runtimes: {', '.join(names) or 'none'}", _CONTAINERD),))


def _cri_disabled(host: Host) -> Seen:
    text = host.capture.file(_CONTAINERD)
    if not isinstance(text, str):
        return UNSEEN if text is UNKNOWN else Seen(False)
    match = re.search(r"^[ \t]*disabled_plugins[ \t]*=[ \t]*\[[^\]]*cri[\"'][^\]]*\]", text, re.MULTILINE)
    if match is None:
        return Seen(False)
    number = text.count("\n", 0, match.start()) + 1
    return Seen(True, (shown("containerd", match[0], f"{_CONTAINERD}:{number}"),))


def _kubernetes(host: Host) -> Seen:
    """Whether this host is to be a node of a cluster."""
    if host.units is not UNKNOWN:
        for name in ("kubelet.service", "k3s.service", "k3s-agent.service"):
            state = host.units.get(name)
            if state is not None and state.load == "loaded" and state.enabled not in ("disabled", "masked"):
                return Seen(True, (shown("cluster", f"{name} {state.active}", host.unit_line),))
        if "kubelet.service" in host.units:
            return Seen(False)
    for line, answer in host.answers("kubectl *", "crictl *", "journalctl -u kubelet*", "systemctl * kubelet*"):
        return Seen(True, (shown("cluster", (answer.stdout + answer.stderr)[:200], line),))
    return UNSEEN


def in_cluster(host: Host) -> bool | Unknown:
    """As the fact `kubernetes`."""
    found: bool | Unknown = _kubernetes(host).value
    return found


# CDI.


def specs(host: Host) -> dict[str, str]:
    """Path to text of the CDI specs that were read."""
    return {path: text for path, text in host.capture.files.items() if isinstance(text, str) and _CDI.fullmatch(path)}


def unread_specs(host: Host) -> bool:
    """Whether a spec was listed and not read."""
    return any(contents(host.capture, f"{folder}/*") is UNKNOWN for folder in ("/etc/cdi", "/var/run/cdi"))


def _cdi_version(host: Host) -> Seen:
    for path, text in specs(host).items():
        match = re.search(r"[\"']?cdiVersion[\"']?:\s*[\"']?v?(\d+\.\d+\.\d+)", text)
        if match:
            return Seen(match[1], (shown("CDI spec", match[0], path),))
    return _no_specs(host)


def _no_specs(host: Host) -> Seen:
    return UNSEEN if unread_specs(host) or specs(host) else Seen(None)


_HOST_PATH = re.compile(r"[\"']?(?:hostPath|path)[\"']?:\s*[\"']?(/[^\s\"',]+)")


def _cdi_absent(host: Host) -> Seen:
    """Files and devices that a CDI spec names and the host does not have; every path of every spec counts."""
    known = specs(host)
    absent: dict[str, Evidence] = {}
    looked = host.capture.command(CDI_GONE.line)
    told = looked.stdout.splitlines() if looked is not UNKNOWN and looked.rc == 0 else []
    for row in told:
        spec, _, path = row.partition(" ")
        if path:
            absent.setdefault(path, shown("CDI spec", f"{path} is absent", _numbered(spec, known.get(spec, ""), path)))
    unknown = looked is UNKNOWN or looked.rc != 0
    if unknown and not known:
        return _no_specs(host) if _no_specs(host).value is UNKNOWN else Seen(())
    open_end = unread_specs(host)
    for spec, text in known.items():
        for match in _HOST_PATH.finditer(text):
            there = host.exists(match[1])
            open_end = open_end or there is UNKNOWN
            if there is False and match[1] not in absent:
                absent[match[1]] = shown("CDI spec", f"{match[1]} is absent", _numbered(spec, text, match[0]))
    seen = absent or not (unknown and open_end)
    return Seen(tuple(absent), tuple(absent.values())[:3]) if seen else UNSEEN


def _numbered(spec: str, text: str, part: str) -> str:
    """`/etc/cdi/nvidia.yaml:14`; the bare path where the text was not read."""
    at = text.find(part)
    return spec if at < 0 else f"{spec}:{text.count(chr(10), 0, at) + 1}"


_DRIVER_FILE = re.compile(rf"[\w.-]*\.so\.({VERSION})(?![\w.])|/firmware/nvidia/({VERSION})/")


def _cdi_versions(host: Host) -> dict[str, Evidence]:
    found: dict[str, Evidence] = {}
    for path, text in specs(host).items():
        for match in _DRIVER_FILE.finditer(text):
            version = match[1] or match[2]
            if version not in found:
                found[version] = shown("CDI spec", match[0].strip("/"), _numbered(path, text, match[0]))
    return found


def _cdi_driver(host: Host) -> Seen:
    """The versions in the names of all the driver's files, in all CDI specs."""
    found = _cdi_versions(host)
    return UNSEEN if unread_specs(host) else Seen(tuple(found), tuple(found.values()))


def _cdi_foreign(host: Host) -> Seen:
    """Whether a CDI spec names files of another version than the libraries; one that does is enough to know."""
    library = read_library(host)
    if library.value is UNKNOWN:
        return UNSEEN
    foreign = [row for version, row in _cdi_versions(host).items() if library.value and version != library.value]
    if foreign:
        return Seen(True, (*foreign, *library.evidence))
    return UNSEEN if unread_specs(host) else Seen(False)


_DATED = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?)\S*\s+(?:[+-]\d{4}\s+)?(\S+)$")


def _cdi_older(host: Host) -> Seen:
    """Whether a CDI spec is older than the toolkit or driver package, by the times of their files."""
    dates: dict[str, tuple[str, Evidence]] = {}
    for line, answer in host.answers("ls -l*", "stat *"):
        for row in answer.stdout.splitlines():
            match = _DATED.search(row)
            if match is None:
                continue
            name = match[2] if match[2].startswith("/") else f"{line.split()[-1]}/{match[2]}"
            kind = (
                "spec"
                if "cdi" in name
                else "package"
                if re.search(r"nvidia-container-toolkit|libnvidia-compute|libcuda1", name)
                else ""
            )
            if kind and (kind not in dates or match[1] > dates[kind][0]):
                dates[kind] = (match[1].replace("T", " "), shown(kind, f"{match[1]} {name}", line))
    if len(dates) < 2:
        return UNSEEN
    return Seen(dates["spec"][0] < dates["package"][0], (dates["spec"][1], dates["package"][1]))


def _gone_images(host: Host) -> Seen:
    """MiB that containerd's store takes, when somebody measured it."""
    for line, answer in host.answers("du -s*"):
        for row in answer.stdout.splitlines():
            match = re.match(r"([\d.]+)([KMGT]?)\s+(/var/lib/(?:containerd|docker)\S*)", row)
            if match:
                size = float(match[1]) * {"": 1 / 1024, "K": 1 / 1024, "M": 1, "G": 1024, "T": 1048576}[match[2]]
                return Seen(int(size), (shown("store", row, line),))
    return UNSEEN


def _persistenced(host: Host) -> Seen:
    package = host.package("nvidia-persistenced")
    if package is UNKNOWN or package is None:
        return UNSEEN if package is UNKNOWN else Seen(None)
    return Seen(upstream(package), (shown("persistenced", package.version, host.package_line),))


def _snap(host: Host) -> Seen:
    """Whether Docker came as a snap, beside or in place of packages."""
    there = host.exists("/snap/bin/docker")
    if there is UNKNOWN:
        return UNSEEN
    return Seen(there, (shown("snap", "/snap/bin/docker", "ls -d /snap/bin/docker"),) if there else ())


FACTS = (
    Fact("docker.snap", "truth", "whether Docker is a snap", "ls -d /snap/bin/docker", _snap),
    Fact("docker.version", "version", "Docker", "docker version", _docker),
    Fact("docker.runtimes", "texts", "runtimes that Docker knows", "docker info", _runtimes),
    Fact("docker.default_runtime", "text", "Docker's default runtime", "docker info", _default_runtime),
    Fact("docker.cgroup_driver", "text", "Docker's cgroup driver", "docker info", _cgroup_driver),
    Fact("docker.cdi_devices", "texts", "CDI devices that Docker found", "docker info", _docker_cdi),
    Fact("docker.config_broken", "truth", "daemon.json as JSON", "cat /etc/docker/daemon.json", _daemon_broken),
    Fact(
        "docker.configured_runtimes",
        "texts",
        "runtimes in daemon.json",
        "cat /etc/docker/daemon.json",
        _daemon_runtimes,
    ),
    Fact(
        "docker.configured_default",
        "text",
        "the default runtime in daemon.json",
        "cat /etc/docker/daemon.json",
        _daemon_default,
    ),
    Fact(
        "docker.lost_settings",
        "texts",
        "settings that daemon.json lost",
        "diff /etc/docker/daemon.json*",
        _lost_settings,
    ),
    Fact(
        "docker.missing_programs",
        "texts",
        "programs of runtimes that are absent",
        "cat /etc/docker/daemon.json",
        _runtime_binary,
    ),
    Fact("toolkit.version", "version", "the container toolkit", "nvidia-ctk --version", _toolkit),
    Fact("toolkit.mode", "text", "the toolkit's mode", f"cat {_TOOLKIT}", _toolkit_mode),
    Fact("toolkit.root", "text", "where the toolkit looks for the driver", f"cat {_TOOLKIT}", _toolkit_root),
    Fact("toolkit.root_empty", "truth", "whether the toolkit's root is empty", "ls /run/nvidia/driver", _root_empty),
    Fact("toolkit.ldconfig", "text", "the toolkit's ldconfig", f"cat {_TOOLKIT}", _toolkit_ldconfig),
    Fact("containerd.version", "version", "containerd", "containerd --version", _containerd),
    Fact(
        "containerd.runtimes", "texts", "runtimes that containerd knows", "containerd config dump", _containerd_runtimes
    ),
    Fact("containerd.cri_disabled", "truth", "whether containerd's CRI is off", f"cat {_CONTAINERD}", _cri_disabled),
    Fact("podman.version", "version", "podman", "podman --version", _podman),
    Fact("kubernetes", "truth", "whether the host is a node of a cluster", "systemctl status kubelet", _kubernetes),
    Fact(
        "cdi.version",
        "version",
        "the version of the CDI spec",
        "grep cdiVersion /etc/cdi/* /var/run/cdi/*",
        _cdi_version,
    ),
    Fact(
        "cdi.absent",
        "texts",
        "files that a CDI spec names and are gone",
        "nvidia-ctk cdi generate; diff it with /etc/cdi",
        _cdi_absent,
    ),
    Fact(
        "cdi.driver",
        "versions",
        "the driver that CDI specs name",
        "grep libcuda /etc/cdi/* /var/run/cdi/*",
        _cdi_driver,
    ),
    Fact(
        "cdi.foreign",
        "truth",
        "whether a CDI spec is of another driver",
        "grep -E 'so[.][0-9]{3}' /etc/cdi/* /var/run/cdi/*",
        _cdi_foreign,
    ),
    Fact(
        "cdi.older",
        "truth",
        "whether a CDI spec is older than the packages",
        "ls -l /etc/cdi /var/run/cdi",
        _cdi_older,
        asked=False,
    ),
    Fact(
        "persistenced.version", "version", "the persistence daemon", "dpkg-query -W nvidia-persistenced", _persistenced
    ),
    Fact(
        "store.mib",
        "number",
        "what container images take",
        "du -sh /var/lib/containerd /var/lib/docker",
        _gone_images,
        asked=False,
    ),
)
