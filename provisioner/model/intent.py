"""What the operator wants of a host: the `provision_` variables of the inventory, typed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

from provisioner.model.tunnel import Tunnel


class SourceWish(BaseModel):
    """A package source that a host is to have: an id of matrix/sources, or one of your own when `uri` is given too.

    A bare word in the inventory is the id. What is left out comes from the matrix. A folder on the host is `copy:/…`:
    of `file:` sources apt keeps no archive that could be compared with the lock.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)]
    uri: Annotated[str, Field(pattern=r"^(https?://|copy:/)[A-Za-z0-9._~:/@%+$()\[\]-]+$")] | None = None
    suite: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/~-]+$")] | None = None
    components: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]+$")], ...] | None = None
    key: str | None = Field(default=None, description="a file on the controller or an https address")
    fingerprint: str | None = Field(default=None, description="of the key; spaces are left out")

    @field_validator("fingerprint")
    @classmethod
    def _without_spaces(cls, value: str | None) -> str | None:
        if value is None:
            return None
        bare = "".join(value.split()).upper()
        if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", bare):
            raise ValueError("a fingerprint has 40 or 64 hexadecimal digits; the short key id is not enough")
        return bare


class Policy(BaseModel):
    """How careful to be; key `provision_policy`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reboot: Literal["allow", "never"] = "allow"
    past_end_of_life: Literal["upgrade", "keep", "refuse"] = Field(
        default="upgrade",
        description="what to do with a driver branch past its end of life when a newer one fits",
    )
    forbid_branches: tuple[str, ...] = ()
    sources: tuple[SourceWish, ...] = Field(
        default=(), description="package sources that the host is to have besides the distribution's"
    )
    driver_source: Literal["auto", "distribution", "vendor"] = Field(
        default="auto",
        description="where the driver comes from: auto takes the better of what is offered, whoever offers it",
    )
    cgroup_driver: Literal["auto", "systemd", "cgroupfs"] = Field(
        default="auto", description="of Docker; auto follows the networks, and leaves it alone where none minds"
    )
    default_runtime: Literal["auto", "runc", "nvidia"] = Field(
        default="auto", description="of Docker; auto leaves it as it is"
    )
    images: Literal["digest", "any"] = Field(
        default="digest", description="whether images of provision_clients must be named by their digest"
    )
    watchdog_may_reboot: bool = Field(
        default=False, description="whether the watchdog's ladders end in a reboot, where nothing gentler helps"
    )
    hold_kernel: bool = Field(default=True, description="whether kernels are held together with the driver")
    rollback: Literal["auto", "never"] = Field(
        default="auto", description="whether a change of the stack is taken back when the host does not pass after it"
    )
    trial_min: int = Field(
        default=15,
        ge=0,
        le=1440,
        description="minutes after its boot until the host goes back by itself when nobody confirms; 0: never",
    )
    history: int = Field(default=3, ge=1, le=50, description="how many of the last changes a host keeps")
    history_mib: int = Field(default=4096, ge=256, description="MiB that a host keeps of them in all")

    @field_validator("sources", mode="before")
    @classmethod
    def _bare_words(cls, value: Any) -> Any:
        """`[docker]` means `[{id: docker}]`; an id that stands twice is an error."""
        if not isinstance(value, (list, tuple)):
            return value
        wishes = [{"id": item} if isinstance(item, str) else item for item in value]
        ids = [item.get("id") if isinstance(item, dict) else getattr(item, "id", None) for item in wishes]
        twice = next((one for one in ids if ids.count(one) > 1), None)
        if twice is not None:
            raise ValueError(f"the source {twice} stands twice")
        return wishes


class PowerPolicy(BaseModel):
    """How the cards of a model are held, within each card's own limits; an item of `provision_power`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="*", description="name as NVML gives it; `*`: all others")
    limit_w: float | None = Field(default=None, gt=0, le=2000, description="power limit in watts")
    limit_percent: float | None = Field(default=None, gt=0, le=200, description="of the card's default power limit")
    clocks_mhz: tuple[int, int] | None = Field(default=None, description="least and greatest clock of the GPU")

    @model_validator(mode="after")
    def _one_limit(self) -> PowerPolicy:
        if self.limit_w is not None and self.limit_percent is not None:
            raise ValueError("limit_w and limit_percent are two ways to say the same: give one")
        if self.clocks_mhz is not None and not 0 < self.clocks_mhz[0] <= self.clocks_mhz[1]:
            raise ValueError("clocks_mhz is [least, greatest] in MHz")
        return self


Word = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class SecretSource(BaseModel):
    """Where a secret comes from and where it goes, never what it is; an item of `provision_secrets`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Word
    name: Word
    variable: Variable | None = Field(default=None, description="Ansible variable of the host, such as one in a vault")
    env: Variable | None = Field(default=None, description="environment variable where provision runs")
    path: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9_./-]+$")] | None = Field(
        default=None, description="file on the host; default /etc/provision/secrets/NETWORK.NAME"
    )
    owner: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]*$")] = "root"

    @model_validator(mode="after")
    def _one_source(self) -> SecretSource:
        if (self.variable is None) == (self.env is None):
            raise ValueError("a secret comes from one place: give variable or env")
        if self.variable is not None and self.variable.startswith("provision_"):
            raise ValueError("variables that begin with provision_ are the intent's own: name the secret otherwise")
        return self

    @property
    def file(self) -> str:
        return self.path or f"/etc/provision/secrets/{self.network}.{self.name}"


_IMAGE = r"[a-z0-9]+([._/:-]+[a-z0-9]+)*"
Image = Annotated[str, StringConstraints(pattern=rf"^{_IMAGE}(:[A-Za-z0-9_.-]+)?(@sha256:[0-9a-f]{{64}})?$")]
Port = Annotated[str, StringConstraints(pattern=r"^((\d{1,3}\.){3}\d{1,3}:)?\d{1,5}:\d{1,5}(/(tcp|udp))?$")]
Bind = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9_./-]*:/[A-Za-z0-9_./-]+(:ro)?$")]


_T = TypeVar("_T")


def _pairs(value: Any) -> Any:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value


Pairs = Annotated[
    tuple[tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")], _T], ...], BeforeValidator(_pairs)
]
"""A mapping as its sorted pairs: an intent is compared and hashed."""


class ClientContainer(BaseModel):
    """A container of a network's client, run behind the gate; an item of `provision_clients`.

    `images` gives the image of each version of the client, so that an upgrade knows what to run; `image` is for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Word
    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")] | None = Field(
        default=None, description="of the container; default the network's id"
    )
    image: Image | None = Field(default=None, description="NAME@sha256:DIGEST, whatever the client's version")
    images: Pairs[Image] = Field(default=(), description="version of the client → NAME@sha256:DIGEST")
    mirror: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+(:\d+)?(/[a-z0-9._/-]+)?$")] | None = Field(
        default=None, description="registry to take the image from instead of its own, such as 10.0.0.5:5000"
    )
    ports: tuple[Port, ...] = Field(default=(), description="[ADDRESS:]OUTSIDE:INSIDE[/tcp|/udp]")
    volumes: tuple[Bind, ...] = Field(default=(), description="/ON/THE/HOST:/INSIDE[:ro]")
    environment: Pairs[str] = Field(default=(), description="nothing secret: that is what `secrets` is for")
    secrets: tuple[Word, ...] = Field(
        default=(), description="names of provision_secrets of this network; each is the file /run/secrets/NAME inside"
    )
    gpus: Literal["all", "none"] | tuple[Annotated[str, StringConstraints(pattern=r"^(\d+|GPU-[0-9a-f-]+)$")], ...] = (
        Field(default="all", description="all, none, or a list of numbers or UUIDs")
    )
    command: tuple[str, ...] = ()
    health_url: Annotated[str, StringConstraints(pattern=r"^http://127\.0\.0\.1:\d+/\S*$")] | None = Field(
        default=None, description="must answer with 2xx while the client serves"
    )
    heartbeat: Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9_./-]+$")] | None = Field(
        default=None, description="file on the host that the client touches while it serves"
    )
    heartbeat_s: int = Field(default=120, ge=5, le=86400, description="how old that may be")

    @model_validator(mode="after")
    def _one_image(self) -> ClientContainer:
        if (self.image is None) == (not self.images):
            raise ValueError("give image, or images for each version of the client")
        return self

    @property
    def called(self) -> str:
        return self.name or self.network

    def taken(self, version: str) -> str | None:
        """The image for a version of the client, from the mirror where one is named; None: there is none for it."""
        image = self.image or dict(self.images).get(version)
        if image is None or self.mirror is None:
            return image
        first, slash, rest = image.partition("/")
        own = bool(slash) and ("." in first or ":" in first or first == "localhost")
        path = rest if own else image
        return f"{self.mirror}/{path if '/' in path or own else 'library/' + path}"


class Intent(BaseModel):
    """The request for one host. Every field is a variable with the prefix `provision_`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    networks: tuple[str, ...] = Field(default=(), description="ids of matrix/networks, such as akash")
    driver: str | None = Field(
        default=None, description='specifier for the driver, such as ">=535.261.03,<536" or "535"'
    )
    modules: Literal["auto", "open", "proprietary"] = "auto"
    cuda: str | None = Field(default=None, description="lowest CUDA level that must be offered, such as 12.2")
    runtime: str = Field(default="auto", description="id of matrix/runtimes; auto takes what the networks allow")
    toolkit: str = Field(
        default="auto",
        description='auto takes the container toolkit when offered, "none", or a specifier such as ">=1.19.1"',
    )
    cdi: Literal["auto", "present", "absent"] = "auto"
    tunnel: Tunnel = Tunnel()
    power: tuple[PowerPolicy, ...] = Field(default=(), description="power policies, one for each model")
    secrets: tuple[SecretSource, ...] = Field(
        default=(), description="secrets of the clients: where each comes from and where it goes"
    )
    clients: tuple[ClientContainer, ...] = Field(
        default=(), description="containers of the networks' clients, run behind the gate"
    )
    watchdog: Literal["act", "off"] = Field(
        default="act", description="act: a timer on the host looks every minute and climbs its ladders"
    )
    policy: Policy = Policy()

    @model_validator(mode="after")
    def _clients_fit(self) -> Intent:
        """Whatever can be told from the request alone is told before any host is looked at."""
        served = {re.split("[/@]", name)[0] for name in self.networks}
        known = {(one.network, one.name) for one in self.secrets}
        names: set[str] = set()
        ports: dict[str, str] = {}
        cards: dict[str, str] = {}
        whole = next((one.network for one in self.clients if one.gpus == "all"), None)
        for one in self.clients:
            if whole not in (None, one.network) and one.gpus != "none":
                wants = "all as well" if one.gpus == "all" else f"GPU {', '.join(one.gpus)}"
                raise ValueError(
                    f"{whole} has all GPUs and {one.network} wants {wants}; divide them by gpus of each container"
                )
            if one.network not in served:
                raise ValueError(f"{one.called}: provision_networks does not name {one.network}")
            if one.called in names:
                raise ValueError(f"two containers are called {one.called}")
            names.add(one.called)
            for image in filter(None, (one.image, *dict(one.images).values())):
                if "@" not in image and self.policy.images == "digest":
                    raise ValueError(
                        f"{one.called}: {image} has no digest, and a tag is whatever somebody pushed last; "
                        "write NAME@sha256:DIGEST, or set provision_policy.images to any"
                    )
            for name in one.secrets:
                if (one.network, name) not in known:
                    raise ValueError(f"{one.called}: provision_secrets has no {name} of {one.network}")
            for port in outside(one):
                if port in ports:
                    raise ValueError(f"{one.called} and {ports[port]} both want port {port}")
                ports[port] = one.called
            for card in one.gpus if isinstance(one.gpus, tuple) else ():
                if cards.setdefault(card, one.network) != one.network:
                    raise ValueError(f"{one.network} and {cards[card]} both want GPU {card}")
        return self


def outside(client: ClientContainer) -> tuple[str, ...]:
    """The host's ports that a container takes, such as `8080/tcp`."""
    split = [port.partition("/") for port in client.ports]
    return tuple(f"{left.split(':')[-2]}/{protocol or 'tcp'}" for left, _, protocol in split)
