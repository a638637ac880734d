"""How a host is reached through a tunnel: what the operator asks for, and what was decided for it in the lock."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Kind = Literal[
    "none", "wireguard", "ssh-reverse", "nebula", "tailscale", "headscale", "cloudflare-tunnel", "frp", "rathole"
]
Role = Literal["hub", "spoke", "site"]
_KEYED = ("wireguard", "nebula", "ssh-reverse")
INTERFACE = "prov0"
"""Name of the interface of a tunnel; one per host, so that checks and firewall rules know it."""

IPV6_MINIMUM = 1280
"""RFC 8200, section 5: every link that carries IPv6 takes this much; the safe choice where nothing was measured."""

_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\Z")


def split_endpoint(text: str) -> tuple[str, int]:
    """`hub.example:51820` is ("hub.example", 51820), `[2001:db8::1]:51820` the same for an address of version 6.

    Raises ValueError for what is neither.
    """
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} has no port; write HOST:PORT, such as hub.example:51820")
    if bare != host:
        if not isinstance(ipaddress.ip_address(bare), ipaddress.IPv6Address):
            raise ValueError(f"{text!r}: only an IPv6 address stands in brackets")
    elif ":" in bare:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, such as [2001:db8::1]:51820")
    elif not _NAME.match(bare):
        raise ValueError(f"{bare!r} is no host name and no address")
    return bare, int(port)


def _endpoint(value: Any) -> Any:
    if isinstance(value, str):
        split_endpoint(value)
    return value


def _range(value: Any) -> Any:
    """Refuse host bits: 10.87.0.1/24 is a typing error more often than not."""
    if isinstance(value, str):
        try:
            return str(ipaddress.ip_network(value))
        except ValueError as problem:
            raise ValueError(f"{value!r} is no network: {problem}") from problem
    return value


def _address(value: Any) -> Any:
    return str(ipaddress.ip_address(value)) if isinstance(value, str) else value


Endpoint = Annotated[str, BeforeValidator(_endpoint)]
Range = Annotated[str, BeforeValidator(_range)]
Address = Annotated[str, BeforeValidator(_address)]
Exposed = Annotated[str, Field(pattern=r"^(tcp|udp)/[0-9]{1,5}(-[0-9]{1,5})?(=[0-9]{1,5})?$|^https?://[^=\s]+=\S+$")]


class Tunnel(BaseModel):
    """The request; key `provision_tunnel`. A plain word is the kind alone: `provision_tunnel: none`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "none"
    role: Role = "spoke"
    hub: str | None = Field(default=None, description="spoke: the host of the inventory that is its hub")
    mesh: str | None = Field(default=None, description="site: a word that all sites of one mesh share")
    endpoint: Endpoint | None = Field(default=None, description="HOST:PORT at which the others reach this host")
    range: Range | None = Field(default=None, description="hub or site: network from which addresses come")
    address: Address | None = Field(default=None, description="this host's address in it; without, one is assigned")
    lans: tuple[Range, ...] = Field(default=(), description="networks behind this host that the others reach")
    keepalive: int = Field(default=25, ge=0, le=65535, description="seconds; 0 for a host that is not behind NAT")
    mtu: int | None = Field(default=None, ge=576, le=9000, description="bytes inside the tunnel; without, measured")
    preshared: bool = Field(default=False, description="a second secret per pair, in provision_tunnel_preshared")
    ingress: Literal["direct", "tunnel"] = Field(
        default="direct", description="how the networks' customers come in: directly, or through the hub"
    )
    reach: Literal["tunnel", "direct"] = Field(
        default="tunnel", description="which way the operator takes once the tunnel is confirmed"
    )
    confirm_s: int = Field(default=120, ge=20, le=3600, description="seconds until an unconfirmed change reverts")
    server: str | None = Field(default=None, description="frp, rathole, tailscale: where the other end is")
    expose: tuple[Exposed, ...] = Field(
        default=(), description="frp, rathole: tcp/2222=22; cloudflare-tunnel: https://NAME=http://127.0.0.1:80"
    )

    @model_validator(mode="before")
    @classmethod
    def _a_word(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> Tunnel:
        """What a role must name, said in the words of the request."""
        if self.kind in ("wireguard", "nebula", "ssh-reverse"):
            if self.role == "spoke" and not self.hub:
                raise ValueError(f"a {self.kind} spoke names its hub: hub: HOST")
            if self.role == "hub" and not self.endpoint:
                raise ValueError(f"a {self.kind} hub names where it is reached: endpoint: HOST:PORT")
            if self.role == "hub" and not self.range and self.kind != "ssh-reverse":
                raise ValueError(f"a {self.kind} hub names the network of the tunnel: range: 10.87.0.0/24")
        if self.role == "site":
            if self.kind != "wireguard":
                raise ValueError("site to site is a matter of wireguard; other kinds have hub and spokes")
            if not self.mesh or not self.range:
                raise ValueError("a site names its mesh and the network of the tunnel: mesh: WORD, range: 10.88.0.0/24")
        if self.address and self.range and ipaddress.ip_address(self.address) not in ipaddress.ip_network(self.range):
            raise ValueError(f"address {self.address} is not in range {self.range}")
        if self.kind in ("frp", "rathole", "headscale") and self.role == "spoke" and not self.server:
            raise ValueError(f"{self.kind} names its server: server: HOST:PORT")
        if self.kind in ("frp", "rathole", "cloudflare-tunnel") and self.role == "spoke" and not self.expose:
            raise ValueError(f"{self.kind} names what it carries: expose: [tcp/2222=22]")
        six = self.range is not None and ipaddress.ip_network(self.range).version == 6
        if six and self.kind == "nebula":
            raise ValueError("nebula has only IPv4 inside: range: 10.87.0.0/24")
        if six and self.mtu is not None and self.mtu < IPV6_MINIMUM:
            raise ValueError(f"IPv6 takes no link of less than {IPV6_MINIMUM} bytes: mtu: {IPV6_MINIMUM} or more")
        if self.lans and self.kind not in ("wireguard", "none"):
            raise ValueError(f"lans are routed by wireguard; {self.kind} carries none")
        return self


class TunnelPeer(BaseModel):
    """The other end of one connection; `allowed` are the addresses that are its own, and no more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    public_key: str
    allowed: tuple[str, ...]
    endpoint: str | None = None
    keepalive: int = 0
    preshared: bool = False


class Forward(BaseModel):
    """Ports of the hub's public address that are a spoke's; `ports` as in the network's list, such as 30000-32767."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    address: str
    protocol: Literal["tcp", "udp"]
    ports: str


class TunnelLock(BaseModel):
    """What was decided for one host's tunnel. `waits_for` are hosts whose public keys nobody has seen yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    role: Role
    host: str = ""  # its own name, as its peers know it
    address: str = ""  # in the tunnel; of ssh-reverse the hub's loopback address
    port: int | None = None  # ssh-reverse: on the hub's loopback; hub and site: where it listens
    range: str = ""
    hub: str | None = None
    hub_address: str = ""
    public_key: str | None = None
    generation: int = 1  # of the key in use
    next_generation: int | None = None  # of the key that is to take its place, once its host shows it
    mtu: int = 1280
    path_mtu: int | None = None  # as measured towards the endpoint; None: not measured, the floor was taken
    peers: tuple[TunnelPeer, ...] = ()
    waits_for: tuple[str, ...] = ()
    admit: tuple[str, ...] = ()  # ports that the networks need, such as tcp/8080 or udp/30000-32767
    forwards: tuple[Forward, ...] = ()
    lans: tuple[str, ...] = ()
    userspace: bool = False  # this kernel has no module for it
    firewall: Literal["nftables", "ufw", "iptables"] = "nftables"
    certificate: str | None = None  # nebula: what the hub signed; public
    blocked: tuple[str, ...] = ()  # nebula: `HOST FINGERPRINT` of certificates that count no more

    @property
    def complete(self) -> bool:
        """Whether it can be put in force: every key that it needs is known, and with nebula its certificate signed."""
        if self.kind == "nebula" and self.role != "hub" and self.certificate is None:
            return False
        return not self.waits_for and (self.public_key is not None or self.kind not in _KEYED)
