"""The schema of the matrix: one class per kind of entry, each claim with its source and date.

The same classes give validation, the JSON schema for editors (`provision matrix schema`) and the reference.
Days may be partial ("2028-06") because their sources often are. `null` is "not confirmed", never "no".
"""

from __future__ import annotations

import calendar
import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, Strict, StringConstraints, field_validator, model_validator

from provisioner.matrix.specifier import Claim, Confidence, Day, Frozen, Id, Requirement, Text
from provisioner.model.version import (
    CudaVersion,
    DebianVersion,
    DottedSpecifier,
    DottedVersion,
    DriverSpecifier,
    DriverVersion,
    KernelRelease,
    KernelSpecifier,
)

Flavour = Literal["open", "proprietary"]
Bool = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Branch = Annotated[str, StringConstraints(pattern=r"^[0-9]{3}$")]
PciWord = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}$")]
PciPair = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")]


class Entry(Claim):
    """What every file has: an id that is its name, a title, and the claim as a whole."""

    id: Id
    title: Text
    seen: Day
    confidence: Confidence
    note: Text | None = None


class EndOfLife(Claim):
    """When support ends, and whether the vendor says so or a rule computes it."""

    date: Day | None
    basis: Text
    extended: Day | None = None
    extended_by: Text | None = None

    def is_past(self, today: dt.date) -> bool | None:
        """None when no day is known; a month counts until its last day."""
        if self.date is None:
            return None
        year, month, day = ([int(part) for part in self.date.split("-")] + [0, 0])[:3]
        month = month or 12
        return today > dt.date(year, month, day or calendar.monthrange(year, month)[1])


class DriverRelease(Frozen):
    """One release of a driver branch, as far as its day is known."""

    version: DriverVersion
    date: Day | None = None
    note: Text | None = None


class Modules(Frozen):
    """Which kernel-module flavours a branch carries, and for which architectures."""

    proprietary: Bool | None
    open: Bool | None
    proprietary_architectures: tuple[Id, ...] = ()
    open_architectures: tuple[Id, ...] = ()
    default: Flavour | None = None
    open_needs_option_for: tuple[Literal["geforce", "workstation"], ...] = ()
    open_option: str | None = None
    note: Text | None = None
    sources: tuple[Text, ...] = ()


class SecurityFloor(Claim):
    """The lowest version of the branch that a bulletin calls fixed; null: it has no row for the branch."""

    bulletin: str
    published: Day
    version: DriverVersion | None
    note: Text | None = None


class DoesNotBuild(Claim):
    """Kernels on which the module of some package versions does not compile.

    Somebody saw the build fail, or the interface that the module's source uses is another one in that kernel's
    headers. It stands beside what a module is built from and not beside a kernel: the mend is a new package
    version, and of one that is not named here nothing is claimed.
    """

    versions: tuple[DebianVersion, ...] = Field(min_length=1)
    """Exact versions of `kernel_package`; a newer one may have been mended, so it is named when its build was seen."""
    kernels: KernelSpecifier
    """Releases as `uname -r` has them, without flavour. A distribution's kernels move on and take no interface back, so
    this is a floor, closed before the next series: `>=6.1.0-53,<6.1.1` is Debian's own 6.1 from its 53rd build on."""
    why: Text
    """What is other in that kernel, and what of the range was seen."""

    @field_validator("kernels")
    @classmethod
    def _some(cls, kernels: KernelSpecifier) -> KernelSpecifier:
        if kernels.is_empty():
            raise ValueError("no kernel satisfies this specifier")
        return kernels


class DriverPackages(Claim):
    """How one distribution names a driver branch: what a host that computes without a screen installs."""

    os: tuple[Id, ...] = Field(min_length=1)
    origin: Literal["debian", "debian-backports", "ubuntu", "nvidia", "fedora"]
    component: tuple[str, ...] = ()
    source: str | None = None
    flavour: Flavour
    install: tuple[str, ...] = Field(min_length=1)
    """Everything to name: packages of `source` and those of `independent`."""
    independent: tuple[str, ...] = ()
    """Those of `install` with versions of their own; all others have the driver's version, each of them exactly."""
    extras: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Packages that only some work needs, by what needs them: `optix: [libnvoptix1, …]`."""
    kernel_package: str
    """The package that builds or carries the kernel module."""
    firmware_package: str | None = None
    pin: tuple[str, ...] = ()
    """Packages that hold the branch and must be installed before the driver."""
    versions: tuple[DebianVersion, ...] = ()
    """Versions seen; what a host can install is asked of the host, these only document."""
    does_not_build: tuple[DoesNotBuild, ...] = ()
    """Kernels for which the module of `kernel_package` cannot be built; of all others nothing is claimed."""
    names_pin_the_branch: Bool
    note: Text | None = None

    def against_building(self, version: str, release: str) -> tuple[DoesNotBuild, ...]:
        """What says that this version of the module does not build for a kernel; (): nothing is known against it.

        A kernel that cannot be ordered (`custom`) is one of which nothing is known.
        """
        told = tuple(fact for fact in self.does_not_build if any(version == one.text for one in fact.versions))
        if not told:
            return ()
        try:
            kernel = KernelRelease(release)
        except ValueError:
            return ()
        return tuple(fact for fact in told if fact.kernels.allows(kernel))


class DriverBranch(Entry):
    """One branch of NVIDIA's Linux driver (`drivers/535.yaml`)."""

    branch: Branch
    type: Literal["LTSB", "production", "new-feature"]
    first: DriverRelease
    first_datacenter: DriverRelease | None = None
    latest: DriverRelease
    versions: tuple[DriverVersion, ...]
    """Versions of this branch that the sources name, ascending; not necessarily all that exist."""
    eol: EndOfLife
    status: Text | None = None
    native_cuda: CudaVersion
    cuda_major_without_compat: Int | None = None
    minor_floor_for: tuple[Int, ...] = ()
    architectures: tuple[Id, ...]
    architectures_detail: Text | None = None
    last_branch_for: tuple[Id, ...] = ()
    drops: tuple[Id, ...] = ()
    not_supported: tuple[Id, ...] = ()
    modules: Modules
    kernel_floor: DottedVersion | None
    security: tuple[SecurityFloor, ...] = ()
    packages: tuple[DriverPackages, ...] = ()

    @property
    def security_floor(self) -> DriverVersion | None:
        """The highest fixed version that bulletins name; None: none does. Low confidence does not count."""
        sure = [f.version for f in self.security if f.version is not None and f.confidence != "low"]
        return max(sure, default=None)

    @property
    def latest_bulletin_omits_it(self) -> bool:
        """True when the newest bulletin has no row for this branch: no fix is offered any more."""
        read = [f for f in self.security if f.confidence != "low"]
        return bool(read) and max(read, key=lambda f: f.published).version is None


class CompatPackage(Frozen):
    """NVIDIA's forward-compatibility package of a toolkit and the driver libraries inside it."""

    name: str
    driver: DriverVersion


class ToolkitRelease(Claim):
    """One release of the CUDA toolkit with its driver floors on Linux x86_64."""

    version: CudaVersion
    label: Text
    date: Day | None = None
    driver_branch: Branch
    driver: DriverVersion | None
    """Floor for all features: the driver NVIDIA's table ships with or asks for."""
    minor_floor: DriverVersion
    """Floor to run at all, by minor-version compatibility within the CUDA major."""
    compat_package: CompatPackage | None = None
    note: Text | None = None


class Capabilities(Claim):
    """Compute capabilities that a toolkit can build for."""

    min: DottedVersion
    max: DottedVersion
    all: tuple[DottedVersion, ...]
    deprecated: tuple[DottedVersion, ...] = ()
    note: Text | None = None


class HostCompiler(Frozen):
    """gcc majors that the toolkit's headers accept."""

    min_major: Int | None = None
    max_major: Int | None = None
    note: Text | None = None


class ForwardCompat(Claim):
    """Which installed driver branch can carry this CUDA level through a cuda-compat package."""

    on_branch: dict[Branch, Literal["compatible", "not_needed", "not_compatible"]]


class CudaLevel(Entry):
    """One CUDA level major.minor with all its toolkit releases (`cuda/12.2.yaml`)."""

    level: CudaVersion
    released: Bool
    """False for a level that a driver reports although no toolkit of it was published."""
    native_branch: Branch
    minor_floor: DriverVersion
    releases: tuple[ToolkitRelease, ...]
    capabilities: Capabilities | None
    gcc: HostCompiler | None = None
    image_os: tuple[str, ...] = ()
    forward_compat: ForwardCompat | None = None


class CapabilityWindow(Claim):
    """Part of an architecture that one toolkit range supports: Kepler 3.0 ends at 10.2, 3.5 at 11.8."""

    capabilities: tuple[DottedVersion, ...]
    first_cuda: CudaVersion | None = None
    last_cuda: CudaVersion | None = None
    note: Text | None = None


class Architecture(Entry):
    """One GPU architecture (`architectures/pascal.yaml`)."""

    capabilities: tuple[DottedVersion, ...]
    chip_prefixes: tuple[str, ...]
    """How its chip names begin in the PCI id list: an unknown card falls back to its architecture by this."""
    first_driver: Branch | None
    last_driver: Branch | None
    """null: no branch has dropped it yet."""
    modules: tuple[Flavour, ...]
    modules_confidence: Confidence
    first_cuda: CudaVersion | None
    last_cuda: CudaVersion | None
    windows: tuple[CapabilityWindow, ...]


class PciDevice(Frozen):
    """One PCI id of a model; a subsystem tells boards apart that share the id."""

    vendor: PciWord
    device: PciWord
    subsystems: tuple[PciPair, ...] = ()
    """Boards of this model, as vendor:device of the subsystem; empty: any board with the id."""
    subsystems_except: tuple[PciPair, ...] = ()
    name: Text
    memory_gib: float | tuple[float, ...] | None = None
    first_open_driver: DriverVersion | None = None
    """First release by date whose open module lists the id; never compare it across branches."""
    listed_from: dict[Branch, DriverVersion | None] = Field(default_factory=dict)
    """First release of each branch from which every later one lists the id; null: that branch never does."""
    note: Text | None = None

    def is_board(self, subsystem: str) -> bool:
        """Whether a board that calls itself `10de:13d9` can be this model."""
        if self.subsystems:
            return subsystem in self.subsystems
        return subsystem not in self.subsystems_except


class GpuModel(Entry):
    """One GPU model (`gpus/rtx-4090.yaml`)."""

    name: Text
    family: Text
    brand: Literal["geforce", "titan", "quadro", "rtx", "tesla", "datacenter", "integrated"]
    segment: Literal["geforce", "workstation", "datacenter"]
    architecture: Id
    compute_capability: DottedVersion
    memory_gib: tuple[Annotated[float, Field(gt=0, le=1024)], ...]
    """Memory sizes under this name, as marketed; empty: not confirmed."""
    pci: tuple[PciDevice, ...]
    modules: tuple[Flavour, ...]
    driver_floor: DriverSpecifier | None = None
    """A floor of this model above its architecture's."""
    last_driver: Branch | None = None
    last_cuda: CudaVersion | None = None
    tdp_w: Int | None = None
    nvlink: Bool | None = None
    forward_compat: Bool | None = None
    field_confidence: dict[str, Literal["high", "medium", "low", "not collected", "not confirmed"]]

    @field_validator("driver_floor")
    @classmethod
    def _can_hold(cls, floor: DriverSpecifier | None) -> DriverSpecifier | None:
        if floor is not None and floor.is_empty():
            raise ValueError("no version satisfies this specifier")
        return floor


class Kernel(Claim):
    """A kernel of an OS release and where it was read."""

    version: str
    what: Text


class ListedPackage(Frozen):
    """A driver package of the distribution, as an archive listing shows it."""

    name: str
    version: str | None = None
    suite: str | None = None
    note: Text | None = None


class OsRelease(Entry):
    """One OS release (`os/debian-12.yaml`)."""

    name: Text
    family: Id
    version: str
    codename: str | None
    released: Day | None
    eol: EndOfLife
    latest_point: str | None = None
    state: Text
    kernels: tuple[Kernel, ...] = ()
    components: tuple[str, ...] = ()
    """Archive components that must be enabled for the distribution's own driver."""
    driver_packages: tuple[ListedPackage, ...] = ()
    gpu_limit: Text | None = None
    unsupported_architectures: tuple[Id, ...] = ()
    """Architectures that no driver of this distribution's own archive can drive."""
    nvidia_repo: dict[str, JsonValue]
    docker_engine: dict[str, JsonValue]
    toolkit_listed: Bool | None
    gpu_operator_validated: Bool | None = None


class RuntimePackages(Claim):
    """How a distribution names a runtime."""

    os: tuple[Id, ...] = Field(min_length=1)
    origin: Literal["debian", "debian-backports", "ubuntu", "nvidia", "docker", "fedora"]
    install: tuple[str, ...] = Field(min_length=1)
    versions: tuple[DebianVersion, ...] = ()
    note: Text | None = None


class RuntimeRelease(Claim):
    """One release or line of a runtime, with what it changed."""

    version: str
    date: Day | None = None
    latest: str | None = None
    latest_date: Day | None = None
    eol: Day | None = None
    behaviour: tuple[Text, ...] = ()
    note: Text | None = None


class Vulnerability(Claim):
    """A published hole and the version that mends it."""

    cve: str
    cvss: str | None = None
    published: Day | None
    affected: str | None = None
    fixed: str | None = None
    also: dict[str, JsonValue] = Field(default_factory=dict)
    note: Text | None = None


class Behaviour(Claim):
    """Facts about one topic that hold over several releases."""

    topic: Text
    facts: tuple[Text, ...]


class Floor(Claim):
    """A lowest version that follows from other claims."""

    policy: Text
    value: str
    key: Literal["toolkit", "docker", "containerd", "podman"] | None = None
    version: DottedVersion | None = None


class Runtime(Entry):
    """A container engine or the toolkit that gives it GPUs (`runtimes/docker-io.yaml`)."""

    name: Text
    kind: Literal["engine", "containerd", "toolkit"]
    packages: tuple[RuntimePackages, ...] = ()
    conflicts_with: tuple[Id, ...] = ()
    releases: tuple[RuntimeRelease, ...] = ()
    behaviour: tuple[Behaviour, ...] = ()
    vulnerabilities: tuple[Vulnerability, ...] = ()
    floors: tuple[Floor, ...] = ()
    services: tuple[str, ...] = ()


Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{40}([0-9A-F]{24})?$")]


class Repository(Claim):
    """Where a package source lies for some OS releases, and the key that signs it."""

    os: tuple[Id, ...] = Field(min_length=1)
    uri: Annotated[str, StringConstraints(pattern=r"^https://\S+$")]
    suite: str
    """`codename` stands for the release's own, such as bookworm; `/` is a folder without suites."""
    components: tuple[str, ...] = ()
    key: Annotated[str, StringConstraints(pattern=r"^https://\S+$")]
    """Where the vendor publishes the key."""
    fingerprint: Fingerprint | None
    """Of the primary key; null: not confirmed, so whoever wants the source has to state it."""


class PackageSource(Entry):
    """A vendor's own package repository (`sources/docker.yaml`)."""

    name: Text
    provides: tuple[Literal["driver", "cuda", "engine", "toolkit"], ...] = Field(min_length=1)
    repositories: tuple[Repository, ...] = Field(min_length=1)


class ClientVersion(Frozen):
    """One release of a network's client."""

    version: str
    date: Day | None = None
    oldest_supported: str | None = None
    with_: dict[str, str] = Field({}, alias="with")
    note: Text | None = None


class Client(Claim):
    """A program that a network wants on the host."""

    name: str
    platform: tuple[str, ...] = ()
    versions: tuple[ClientVersion, ...] = ()
    """Newest first; empty: not published."""
    images: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    note: Text | None = None


class Profile(Frozen):
    """One way to serve a network, with all it requires of the host."""

    id: Id
    title: Text
    default: Bool = False
    requirements: tuple[Requirement, ...]


class Step(Claim):
    """A sentence about how the network behaves, with its figures where it has any."""

    text: Text
    figures: dict[str, JsonValue] = Field(default_factory=dict)
    with_client: DottedSpecifier | None = None
    """Versions of the client that this came with or is true of; none named: nothing is known of that."""


class Secret(Claim):
    """A secret of the network's client: never captured, never rendered outside the host."""

    name: Text
    where: Text | None = None


class Install(Frozen):
    """How the client gets onto a host."""

    kind: Literal[
        "python", "container", "compose", "helm", "binary", "installer", "desktop", "vm-image", "agent", "unknown"
    ]
    how: Text


class Start(Frozen):
    """How the client is started, and with what beside it."""

    how: Text
    containers: tuple[str, ...] = ()
    """Names of the containers that run then."""
    units: tuple[str, ...] = ()


class Healthy(Frozen):
    """How to see that the client serves; `page`: only the network's own page tells."""

    kind: Literal["http", "containers", "command", "page", "unknown"]
    how: Text
    url: str | None = None
    """On the host itself, with `<…>` for what differs from host to host."""


class Busy(Frozen):
    """How to see that a job runs now. `gpu-processes`: NVML names a compute process on a GPU; `pods`: the contract's
    `cluster` names the label of the pods that carry one.
    """

    kind: Literal["gpu-processes", "containers", "pods", "unknown"]
    how: Text
    containers: str | None = None
    """Pattern of the names of containers that carry a job, such as `pod_*`."""

    @model_validator(mode="after")
    def _pattern_where_it_belongs(self) -> Busy:
        if (self.kind == "containers") != (self.containers is not None):
            raise ValueError("`containers` is named where kind is containers, and nowhere else")
        return self


class Drain(Frozen):
    """How to stop serving without being punished. `none`: there is no such way, and the penalty says the rest."""

    kind: Literal[
        "scale-zero", "unlist", "pause", "notice-period", "maintenance-window", "wait-for-job", "stop", "none"
    ]
    how: Text
    by_hand: Bool = False
    """True: somebody has to do it on the network's page or with keys that are not on the host."""
    command: tuple[str, ...] = ()
    """What does it on the host; empty: closing the gate and waiting is all."""
    undo: tuple[str, ...] = ()
    """What takes `command` back."""
    wait_min: Annotated[int, Field(ge=0, le=7 * 24 * 60)] = 30
    """Minutes that a running job is waited for; a choice of ours, not a claim."""
    penalty: Text | None = None
    """What it may cost all the same; null: the sources name nothing."""


class Duty(Frozen):
    """One more duty of the contract, in words."""

    how: Text
    by_hand: Bool = False


class Cluster(Frozen):
    """What Kubernetes runs for the network: it is scaled to none before a node changes, and the node is cordoned."""

    namespace: Id
    workload: Annotated[str, StringConstraints(pattern=r"^(statefulset|deployment)/[a-z0-9-]+$")]
    jobs: str
    """The label that every pod of a customer carries."""


class Chart(Claim):
    """A Helm release that the network wants in its cluster."""

    release: Id
    namespace: Id
    chart: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")]
    """Repository and name, as `helm` takes them after `helm repo add`."""
    repository: Annotated[str, StringConstraints(pattern=r"^https://\S+$")]
    version: str
    client: str | None = None
    """The version of the client that this version of the chart carries; null: it carries none."""
    profile: Id | None = None
    """Only for this way to serve; null: for each."""
    first_install: Bool = False
    """True: the first time it must be `helm install`, for an upgrade leaves the chart's definitions out."""
    values: dict[str, JsonValue] = Field(default_factory=dict)
    """What is set other than the chart's own defaults."""


class OfferedGpu(Frozen):
    """How a network's own list calls a card."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+$")]
    interface: Literal["pcie", "sxm"]
    ram: Annotated[str, StringConstraints(pattern=r"^\d+Gi$")]


class Deployment(Claim):
    """What a provider puts into its cluster, in order: what `kubectl` takes, then what `helm` takes."""

    namespaces: dict[Id, dict[str, str]] = Field(default_factory=dict)
    """Namespaces that must be there, and their labels."""
    node_labels: dict[str, str] = Field(default_factory=dict)
    """Labels of each node with GPUs, with a driver of its host."""
    runtime_class: Id | None = None
    gpus: dict[Id, OfferedGpu] = Field(default_factory=dict)
    """Models of which the network's list names one kind alone, by our id; the others it names by their PCI ids."""
    charts: tuple[Chart, ...]


class Contract(Claim):
    """What every network must answer: install, start, healthy, busy, drain, resume, deregister, upgrade."""

    install: Install
    start: Start
    healthy: Healthy
    busy: Busy
    drain: Drain
    cluster: Cluster | None = None
    resume: Duty
    deregister: Duty
    upgrade: Duty

    @model_validator(mode="after")
    def _pods_are_of_a_cluster(self) -> Contract:
        if (self.busy.kind == "pods") != (self.cluster is not None):
            raise ValueError("`busy` is `pods` where `cluster` is named, and nowhere else")
        if self.cluster is not None and (self.drain.command or self.drain.by_hand):
            raise ValueError("what `cluster` names is drained by provision-cluster: `drain` has no command of its own")
        return self


class Details(Claim):
    """Facts that nothing computes with yet, by topic, figures as they were read."""

    facts: dict[str, JsonValue]


class Network(Entry):
    """A network that rents out hosts, or a sub-network with a client of its own (`networks/akash.yaml`)."""

    name: Text
    parent: Id | None = None
    kind: Id
    as_of: Text
    clients: tuple[Client, ...] = ()
    profiles: tuple[Profile, ...] = ()
    heartbeat: tuple[Step, ...] = ()
    health: tuple[Step, ...] = ()
    drain: tuple[Step, ...] = ()
    contract: Contract | None = None
    deployment: Deployment | None = None
    breakages: tuple[Step, ...] = ()
    secrets: tuple[Secret, ...] = ()
    details: dict[Id, Details] = Field(default_factory=dict)
    gaps: tuple[Text, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _requirements_inherit(cls, data: Any) -> Any:
        """A requirement that names no date, source or confidence of its own has the entry's."""
        if not isinstance(data, dict) or not isinstance(data.get("profiles"), list | tuple):
            return data
        own = {key: data[key] for key in ("sources", "seen", "confidence") if key in data}
        profiles = []
        for profile in data["profiles"]:
            wanted = profile.get("requirements") if isinstance(profile, dict) else None
            if isinstance(wanted, list | tuple):
                filled = [{**own, **item} if isinstance(item, dict) else item for item in wanted]
                profile = {**profile, "requirements": filled}
            profiles.append(profile)
        return {**data, "profiles": profiles}

    @property
    def default_profile(self) -> Profile | None:
        """The way that `provision_networks: [akash]` means when it names no other."""
        return next((p for p in self.profiles if p.default), self.profiles[0] if len(self.profiles) == 1 else None)


class Party(Frozen):
    """One side of a conflict: a network (with a profile, when only that one is meant), or words."""

    network: Id | None = None
    profile: Id | None = None
    words: Text | None = None
    wants: Text | None = None
    value: str | None = None


class Conflict(Entry):
    """What cannot share a host, and the way out (`conflicts/cdi.yaml`)."""

    about: str
    """The key of the requirement language, or the thing, that the parties disagree on."""
    parties: tuple[Party, ...] = Field(min_length=1)
    statement: Text
    way_out: Text | None = None
    basis: Text
    exclusive: Bool
    """True: two of the parties cannot share a host; false: they can, when the way out is taken."""


class Carried(Frozen):
    """What a kind of tunnel brings to a host from outside."""

    tcp: Bool
    udp: Bool
    ranges: Bool
    """Whole ranges of ports, such as 30000-32767, with what is written here and no more."""
    public: Bool
    """Anybody can reach the ports; false: only who is in the tunnel."""
    egress: Bool
    """What leaves the host leaves by the same address as what comes in."""


class BrokenNetwork(Claim):
    """A network that can't be served when its customers come in by this kind of tunnel."""

    network: Id
    why: Text


class TunnelKind(Entry):
    """A way to reach a host behind NAT (`tunnels/wireguard.yaml`); its id is a kind of `provision_tunnel`."""

    name: Text
    version: Text | None = None
    """The newest that was read of, with its day."""
    support: Literal["proven", "rendered"]
    """proven: tried on real hosts in CI. rendered: the configuration is written and checked, never run here."""
    transport: Text
    inbound_on: Literal["hub", "server", "none"]
    """Where a port has to be open to the world."""
    carries: Carried
    mtu_default: Int | None = None
    keepalive_s: Int | None = None
    fits: Text
    breaks: tuple[BrokenNetwork, ...] = ()
    pitfalls: tuple[Step, ...] = ()
    details: dict[Id, Details] = Field(default_factory=dict)


class ContainerRequirement(Claim):
    """A real `NVIDIA_REQUIRE_CUDA` string and the images that carry it."""

    images: tuple[CudaVersion, ...]
    platform: str
    image_os: Text | None = None
    require: Annotated[str, StringConstraints(min_length=1, max_length=20000)]
    alternatives: Int
    fallback_branches: tuple[str, ...] = ()
    fallback_brands: tuple[str, ...] = ()
    geforce_accepted_by_fallback: Bool | None = None
    state: Text | None = None
    paths: tuple[str, ...] = ()
    paths_more: Int | None = None
    note: Text | None = None


class ContainerImages(Entry):
    """The requirement strings of one family of images (`container-images/cuda-12.4.yaml`)."""

    level: CudaVersion | None
    requirements: tuple[ContainerRequirement, ...] = Field(min_length=1)


class Rule(Entry):
    """A statement over many entries, with its figures (`rules/minor-version-compatibility.yaml`)."""

    about: Literal["drivers", "cuda", "architectures", "gpus", "os", "runtimes", "container-images", "networks"]
    statement: Text
    figures: dict[str, JsonValue] = Field(default_factory=dict)


ROOMS: dict[str, type[Entry]] = {
    "drivers": DriverBranch,
    "cuda": CudaLevel,
    "architectures": Architecture,
    "gpus": GpuModel,
    "os": OsRelease,
    "runtimes": Runtime,
    "networks": Network,
    "conflicts": Conflict,
    "tunnels": TunnelKind,
    "container-images": ContainerImages,
    "rules": Rule,
    "sources": PackageSource,
}
"""The folders of `matrix/` and the class of what lies in each."""
