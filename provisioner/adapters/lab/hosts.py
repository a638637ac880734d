"""The hosts of a lab: system containers, their network and volumes, found again by their labels alone."""

from __future__ import annotations

import io
import ipaddress
import json
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any

from provisioner.adapters.lab import access, gpus, image
from provisioner.adapters.lab.engine import ensure_engine, ensure_inotify
from provisioner.adapters.lab.spec import HostSpec
from provisioner.errors import BadInput, HostError, ProvisionError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.models.networks import Network

LABEL = "provision.lab"
HOST_LABEL = "provision.lab.host"
SPEC_LABEL = "provision.lab.spec"
FOLDER_LABEL = "provision.lab.dir"
CACHE_LABEL = "provision.lab.cache"
BUILDS_VOLUME = "provision-lab-builds"
POOL = ipaddress.ip_network("10.213.0.0/16")  # each lab takes a free /24 of it
STARTS_AT_ONCE = 4
TRIES = 10
BOOT_SECONDS = 90
_BEGIN, _END = "# begin of the answer", "# end of the answer"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """What a command on a host gave."""

    rc: int
    stdout: str
    stderr: str


class Host:
    """One running lab host."""

    def __init__(self, client: DockerClient, container: Container) -> None:
        self._client = client
        self._container = container
        labels = container.labels
        spec = json.loads(labels[SPEC_LABEL])
        self.name: str = labels[HOST_LABEL]
        self.spec = HostSpec(self.name, spec["suite"], tuple(spec["gpus"]))

    @property
    def address(self) -> str:
        networks: dict[str, Any] = self._container.attrs["NetworkSettings"]["Networks"]
        for network in networks.values():
            configured = (network.get("IPAMConfig") or {}).get("IPv4Address")
            if found := configured or network.get("IPAddress"):
                return str(found)
        raise HostError("lab-host-no-address", self.name, f"{self.name} has no address", hint="provision lab up again")

    @property
    def state(self) -> str:
        """The engine's word: running, restarting, exited …"""
        self._container.reload()
        return str(self._container.status)

    def exec(self, command: str | Sequence[str], *, user: str = "root") -> Result:
        """Run a command on the host without ssh; text goes through sh."""
        argv = ["sh", "-c", command] if isinstance(command, str) else list(command)
        api = self._client.api
        made = api.exec_create(self._container.id, argv, user=user)
        stdout, stderr = api.exec_start(made["Id"], demux=True)
        code = api.exec_inspect(made["Id"])["ExitCode"]
        return Result(code, (stdout or b"").decode(errors="replace"), (stderr or b"").decode(errors="replace"))

    def told(self, command: str) -> str:
        """What a command that only reads prints, whatever its exit code. Raises HostError `lab-host-not-heard`.

        On a busy machine the engine now and then hands over none or only a part of what a command has printed: what
        comes without its first and last line is asked for again.
        """
        seen = Result(-1, "", "")
        for _ in range(TRIES):
            seen = self.exec(f"echo '{_BEGIN}'\n{command}\necho '{_END}'")
            if seen.stdout.startswith(f"{_BEGIN}\n") and seen.stdout.endswith(f"{_END}\n"):
                return seen.stdout[len(_BEGIN) + 1 : -len(_END) - 1]
        raise HostError(
            "lab-host-not-heard",
            self.name,
            f"the engine gave no whole answer of {self.name} in {TRIES} tries",
            context=(seen.stdout + seen.stderr).splitlines()[-5:],
        )

    def reboot(self) -> None:
        """Reboot as an operator would, and wait until systemd is up again."""
        before = self._started_at()
        self.exec("systemctl reboot")
        self._wait_for_new_start(before)
        self.wait()

    def reboot_hard(self) -> None:
        """Take the power away and give it back: no service is stopped in order."""
        before = self._started_at()
        self._container.kill()
        self._container.wait(timeout=BOOT_SECONDS)
        self._container.start()  # the engine takes a kill for a wish to stop, whatever the restart policy
        self._wait_for_new_start(before)
        self.wait()

    def wait(self, seconds: float = BOOT_SECONDS) -> str:
        """Wait until the host has booted; returns systemd's word for its state."""
        deadline = time.monotonic() + seconds
        seen = Result(-1, "", "nothing asked yet")
        while time.monotonic() < deadline:
            seen = self._ask_boot()
            word = seen.stdout.strip().rpartition("\n")[2]
            if word in ("running", "degraded"):
                self._check_boot()
                return word
            time.sleep(0.3)
        logs = self._container.logs(tail=10).decode(errors="replace").splitlines()
        raise HostError(
            "lab-host-not-booted",
            self.name,
            f"{self.name} did not boot within {seconds:.0f} s",
            context=[f"engine says {self.state}; systemd says: {(seen.stdout + seen.stderr).strip()[:300]}", *logs],
            hint=f"look inside: docker exec -it {self._container.name} journalctl -b",
        )

    def keep_as(self, tag: str) -> None:
        """Keep the host's disk as an image to begin from again; it is shut down in order meanwhile, then started.

        What lies on volumes (/var/lib/docker) is not kept. `lab down --images` removes the image as it does the others.
        """
        repository, _, name = tag.partition(":")
        before = self._started_at()
        self._container.stop(timeout=BOOT_SECONDS)
        self._container.commit(repository, name, changes=f'LABEL {image.IMAGE_LABEL}="{self.spec.suite}"')
        self._container.start()
        self._wait_for_new_start(before)
        self.wait()

    def host_keys(self) -> tuple[str, ...]:
        """Public host keys, read out of band, not over the network that ssh has to trust."""
        text = self.told("cat /etc/ssh/ssh_host_*_key.pub")
        keys = tuple(" ".join(line.split()[:2]) for line in text.splitlines() if len(line.split()) >= 2)
        if not keys:
            raise HostError("lab-host-no-keys", self.name, f"{self.name} has no ssh host keys")
        return keys

    def _ask_boot(self) -> Result:
        from docker.errors import APIError

        try:
            return self.exec("timeout 20 systemctl is-system-running --wait")
        except APIError as error:  # between two lives of the container
            return Result(-1, "", str(error.explanation or error))

    def _check_boot(self) -> None:
        code, _, log = self.told("cat /run/provision-lab/boot.rc; cat /run/provision-lab/boot.log").partition("\n")
        if code.strip() != "0":
            raise HostError(
                "lab-boot-failed",
                self.name,
                f"the simulated boot of {self.name} failed",
                context=log.splitlines()[-8:],
                hint="this is a defect of the lab; the lines above say where",
            )

    def _started_at(self) -> str:
        self._container.reload()
        return str(self._container.attrs["State"]["StartedAt"])

    def _wait_for_new_start(self, before: str) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            if self._started_at() != before and self._container.status == "running":
                return
            time.sleep(0.2)
        raise HostError("lab-host-not-back", self.name, f"{self.name} did not come back within {BOOT_SECONDS} s")


class Lab:
    """A named set of hosts. As a context manager it is taken down at the end."""

    def __init__(self, client: DockerClient, name: str, folder: Path) -> None:
        self._client = client
        self.name = name
        self.folder = folder

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    @classmethod
    def up(
        cls,
        name: str,
        folder: Path,
        hosts: Iterable[HostSpec],
        say: Say = lambda _text: None,
        *,
        images: Mapping[str, str] = MappingProxyType({}),
    ) -> Lab:
        """Start the hosts that are not there yet, and write inventory and keys; hosts that are up stay as they are.

        `images` names, by host, an image of `Host.keep_as` to begin from instead of the bare one of its suite.
        """
        client = ensure_engine()
        lab = cls(client, name, folder.resolve())
        wanted = list(hosts)
        have = {host.name: host for host in lab.hosts()}
        lab._refuse_other_folder()
        for spec in wanted:
            if spec.name in have and have[spec.name].spec != spec:
                raise BadInput(
                    "lab-host-differs",
                    f"{spec.name} is up already, as {have[spec.name].spec}",
                    hint=f"take the lab down first (provision lab down --name {name}), or give the host another name",
                )
        missing = [spec for spec in wanted if spec.name not in have]
        bare = [spec.suite for spec in missing if spec.name not in images]
        tags = image.ensure_images(client, bare, say) if bare else {}
        ensure_inotify(say)
        public_key = access.ensure_key(lab.folder, name)
        network = lab._network()
        lab._ensure_cache()
        addresses = lab._free_addresses(network, len(missing), [host.address for host in have.values()])
        models = gpus.gpu_models() if any(spec.gpus for spec in missing) else {}

        def start(pair: tuple[HostSpec, str]) -> None:
            spec, address = pair
            hardware = gpus.hardware(name, spec.name, [models[gpu] for gpu in spec.gpus])
            lab._start(spec, address, images.get(spec.name) or tags[spec.suite], network, public_key, hardware)

        with ThreadPoolExecutor(STARTS_AT_ONCE) as pool:
            list(pool.map(start, zip(missing, addresses, strict=True)))
        lab._finish({spec.name for spec in missing}, say)
        return lab

    @classmethod
    def find(cls, name: str) -> Lab:
        """Return a lab that exists; its folder stands on its network's label."""
        client = ensure_engine()
        for network in client.networks.list(filters={"label": f"{LABEL}={name}"}):
            return cls(client, name, Path(_labels(network).get(FOLDER_LABEL, "")))
        raise BadInput("lab-not-found", f"there is no lab called {name!r}", hint="provision lab list shows what is up")

    def hosts(self) -> list[Host]:
        """All hosts of the lab, in order of their names, whether they run or not."""
        found = self._client.containers.list(all=True, filters={"label": f"{LABEL}={self.name}"})
        return sorted((Host(self._client, container) for container in found), key=lambda host: host.name)

    def host(self, name: str) -> Host:
        for host in self.hosts():
            if host.name == name:
                return host
        raise BadInput(
            "lab-host-not-found",
            f"lab {self.name!r} has no host {name!r}",
            hint=f"hosts: {', '.join(host.name for host in self.hosts()) or 'none'}",
        )

    def renew(self, name: str, tag: str | None = None) -> Host:
        """Give a host a new disk, of an image of `Host.keep_as` or else the bare one; its name and cards stay."""
        host = self.host(name)
        host._container.remove(force=True)
        for volume in self._client.volumes.list(filters={"name": _docker_volume(self.name, name)}):
            volume.remove(force=True)
        Lab.up(self.name, self.folder, [host.spec], images={name: tag} if tag else {})
        return self.host(name)

    @property
    def inventory(self) -> Path:
        return self.folder / "inventory.yml"

    def down(self) -> list[str]:
        """Remove what carries this lab's label, and the files that up wrote; returns what was removed, in words."""
        return _down(self._client, self.name, self.folder)

    # -- steps of up ---------------------------------------------------------------------------------------------------

    def _refuse_other_folder(self) -> None:
        for network in self._client.networks.list(filters={"label": f"{LABEL}={self.name}"}):
            folder = _labels(network).get(FOLDER_LABEL)
            if folder != str(self.folder):
                raise BadInput(
                    "lab-name-taken",
                    f"a lab called {self.name!r} is up already, with its files in {folder}",
                    hint="give --name for a second lab, or --dir for that one",
                )

    def _network(self) -> Network:
        from docker.errors import APIError
        from docker.types import IPAMConfig, IPAMPool

        for network in self._client.networks.list(filters={"label": f"{LABEL}={self.name}"}):
            return network
        for _ in range(TRIES):
            subnet = free_subnet(_taken_subnets(self._client))
            try:
                return self._client.networks.create(
                    f"provision-lab-{self.name}",
                    driver="bridge",
                    ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=str(subnet), gateway=str(subnet[1]))]),
                    labels={LABEL: self.name, FOLDER_LABEL: str(self.folder)},
                )
            except APIError as error:
                if "overlaps" not in str(error):
                    raise
                time.sleep(0.5)  # another lab took it between our look and our wish
        raise ProvisionError(
            "lab-no-subnet", f"no free network in {POOL} after {TRIES} tries", hint="provision lab list"
        )

    def _ensure_cache(self) -> None:
        """The cache of module builds outlives labs; only `lab down --images` takes it away."""
        self._client.volumes.create(BUILDS_VOLUME, labels={CACHE_LABEL: "builds"})

    def _free_addresses(self, network: Network, count: int, used: Iterable[str]) -> list[str]:
        network.reload()
        attributes: dict[str, Any] = network.attrs or {}
        subnet = ipaddress.ip_network(attributes["IPAM"]["Config"][0]["Subnet"])
        taken = set(used)
        free = [str(a) for a in list(subnet.hosts())[9:] if str(a) not in taken]
        if len(free) < count:
            raise ProvisionError(
                "lab-full", f"lab {self.name!r} has no address left", hint="start a second lab: --name"
            )
        return free[:count]

    def _start(
        self, spec: HostSpec, address: str, tag: str, network: Network, public_key: str, hardware: dict[str, Any]
    ) -> None:
        api = self._client.api
        endpoint = api.create_endpoint_config(ipv4_address=address, aliases=[spec.name])
        labels = {LABEL: self.name, HOST_LABEL: spec.name, SPEC_LABEL: spec.as_label()}
        volume = _docker_volume(self.name, spec.name)
        self._client.volumes.create(volume, labels={LABEL: self.name})
        environment = {"container": "docker"}
        if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
            environment["SYSTEMD_PROC_CMDLINE"] = (
                "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"  # trixie refuses cgroup v1 else
            )
        tun = Path("/dev/net/tun").exists()
        made = api.create_container(
            tag,
            command=["/usr/local/lib/provision-lab/init"],
            name=f"provision-lab-{self.name}-{spec.name}",
            hostname=spec.name,
            labels=labels,
            environment=environment,
            stop_signal="SIGRTMIN+3",  # what systemd takes as "halt"
            host_config=api.create_host_config(
                cap_add=["SYS_ADMIN", "NET_ADMIN"],
                security_opt=["seccomp=unconfined", "apparmor=unconfined"],
                devices=["/dev/net/tun"] if tun else [],
                tmpfs={"/run": "", "/run/lock": "", "/tmp": "exec"},
                binds=[
                    "/sys/fs/cgroup:/sys/fs/cgroup:rw",
                    f"{volume}:/var/lib/docker",
                    f"{BUILDS_VOLUME}:/var/cache/provision-lab",
                ],
                restart_policy={"Name": "always"},
                cgroupns="host",
            ),
            networking_config={"EndpointsConfig": {str(network.name): endpoint}},
        )
        api.put_archive(made["Id"], "/", _identity(public_key, hardware))
        api.start(made["Id"])

    def _finish(self, fresh: set[str], say: Say) -> None:
        """Wait for all hosts, then write how to reach them."""
        hosts = self.hosts()
        for host in hosts:
            if host.state != "running":
                host._container.start()
                fresh = fresh | {host.name}

        def look(host: Host) -> access.Entry:
            word = host.wait()
            if host.name in fresh:
                say(f"{host.name}: {host.spec.suite}, {word}, {host.address}")
            cards = f", {len(host.spec.gpus)} simulated GPU" if host.spec.gpus else ""
            return access.Entry(host.name, host.address, host.host_keys(), f"{host.spec.suite}{cards}")

        with ThreadPoolExecutor(STARTS_AT_ONCE) as pool:
            entries = list(pool.map(look, hosts))
        access.write(self.folder, entries)


def labs() -> list[Lab]:
    """Every lab of this machine, also one that a crash left half made."""
    client = ensure_engine()
    found: dict[str, Path] = {}
    for container in client.containers.list(all=True, filters={"label": LABEL}):
        found.setdefault(container.labels[LABEL], Path())
    for network in client.networks.list(filters={"label": LABEL}):
        labels = _labels(network)
        found[labels[LABEL]] = Path(labels.get(FOLDER_LABEL, ""))
    return [Lab(client, name, folder) for name, folder in sorted(found.items())]


def take_down(name: str, *, with_images: bool = False) -> list[str]:
    """Remove a lab by its name, also when only parts of it exist; with images, the caches of all labs go too."""
    client = ensure_engine()
    folder = next((lab.folder for lab in labs() if lab.name == name), Path())
    removed = _down(client, name, folder)
    if with_images:
        removed += _drop_caches(client)
    return removed


def free_subnet(taken: Iterable[ipaddress.IPv4Network]) -> ipaddress.IPv4Network:
    """The first /24 of the pool that overlaps nothing."""
    used = list(taken)
    for subnet in POOL.subnets(new_prefix=24):
        if isinstance(subnet, ipaddress.IPv4Network) and not any(subnet.overlaps(other) for other in used):
            return subnet
    raise ProvisionError("lab-no-subnet", f"all of {POOL} is taken", hint="provision lab list, then lab down")


def _taken_subnets(client: DockerClient) -> list[ipaddress.IPv4Network]:
    """Networks of the engine and routes of the machine."""
    taken: list[ipaddress.IPv4Network] = []
    for network in client.networks.list():
        for config in ((network.attrs or {}).get("IPAM") or {}).get("Config") or []:
            parsed = ipaddress.ip_network(config["Subnet"])
            if isinstance(parsed, ipaddress.IPv4Network):
                taken.append(parsed)
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        words = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(words[i])[::-1], "big") for i in (1, 7))
        if mask:
            taken.append(ipaddress.IPv4Network((address, bin(mask).count("1"))))
    return taken


def _down(client: DockerClient, name: str, folder: Path) -> list[str]:
    mine: dict[str, str | list[str] | bool] = {"label": f"{LABEL}={name}"}
    containers = client.containers.list(all=True, filters=mine)
    with ThreadPoolExecutor(STARTS_AT_ONCE) as pool:
        list(pool.map(lambda container: container.remove(force=True, v=True), containers))
    volumes = client.volumes.list(filters=mine)
    for volume in volumes:
        volume.remove(force=True)
    networks = client.networks.list(filters=mine)
    for network in networks:
        network.remove()
    if folder != Path():
        access.remove(folder)
    counts = [(len(containers), "host"), (len(volumes), "volume"), (len(networks), "network")]
    return [f"{count} {word}{'' if count == 1 else 's'}" for count, word in counts if count]


def _drop_caches(client: DockerClient) -> list[str]:
    tags = image.images(client)
    for tag in tags:
        client.images.remove(tag, force=True)
    volumes = client.volumes.list(filters={"label": CACHE_LABEL})
    for volume in volumes:
        volume.remove(force=True)
    return [f"{len(tags)} cached images", "the build cache"] if tags or volumes else []


def _docker_volume(lab: str, host: str) -> str:
    return f"provision-lab-{lab}-{host}-docker"


def _labels(network: Network) -> dict[str, str]:
    labels: dict[str, str] = (network.attrs or {}).get("Labels") or {}
    return labels


def _identity(public_key: str, hardware: dict[str, Any]) -> bytes:
    """A tar of what makes the host this lab's: the key for both logins, and its hardware."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, "root/.ssh", None, 0o700, 0)
        _add(tar, "root/.ssh/authorized_keys", public_key + "\n", 0o600, 0)
        _add(tar, f"home/{access.USER}/.ssh", None, 0o700, 1000)
        _add(tar, f"home/{access.USER}/.ssh/authorized_keys", public_key + "\n", 0o600, 1000)
        _add(tar, "etc/provision-lab", None, 0o755, 0)
        _add(tar, "etc/provision-lab/hardware.json", json.dumps(hardware, indent=1) + "\n", 0o644, 0)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, path: str, text: str | None, mode: int, owner: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.mode, entry.uid, entry.gid = mode, owner, owner
    entry.mtime = int(time.time())
    if text is None:
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
        return
    data = text.encode()
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
