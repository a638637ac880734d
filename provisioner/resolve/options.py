"""What a request names, read: networks with the ways to serve them, a driver, a CUDA level."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from provisioner.errors import BadInput
from provisioner.matrix.entries import Client, Network, Profile
from provisioner.matrix.reader import Matrix
from provisioner.matrix.specifier import Requirement, text_of
from provisioner.model.intent import Intent
from provisioner.model.version import CudaVersion, DottedVersion, DriverVersion, Specifier
from provisioner.resolve.conflict import Claim, entry


@dataclass(frozen=True)
class Option:
    """One way to serve a network: a profile, and a version of the client ('' where none is published)."""

    network: Network
    profile: Profile
    client: str
    program: str
    wishes: Mapping[str, tuple[Requirement, ...]]  # of the profile, by key
    claims: Mapping[int, Claim]  # of each wish, by its identity


def named_parts(name: str) -> tuple[str, str, str]:
    """`akash/gpu-operator@0.16.2` is network akash, profile gpu-operator, client 0.16.2; '' where none is named."""
    way, _, pin = name.partition("@")
    network, _, profile = way.partition("/")
    return network, profile, pin


def network_named(name: str, matrix: Matrix) -> tuple[Network, str | None, str | None]:
    """`akash` is its default way, `akash/gpu-operator` a named one; `@0.16.2` behind either pins the client."""
    network_id, profile, pin = named_parts(name)
    network = matrix.networks.get(network_id)
    if network is None:
        close = difflib.get_close_matches(network_id, matrix.networks, 3, 0.5)
        raise BadInput(
            "unknown-network",
            f"there is no network '{network_id}' in the matrix",
            context=[f"did you mean {' or '.join(close)}?"] if close else [f"known: {', '.join(matrix.networks)}"],
            hint="set provision_networks to ids of matrix/networks",
        )
    if profile and profile not in {p.id for p in network.profiles}:
        raise BadInput(
            "unknown-profile",
            f"network {network_id} has no profile '{profile}'",
            context=[f"it has: {', '.join(p.id for p in network.profiles) or 'none'}"],
        )
    return network, profile or None, pin or None


_REMEMBERED: dict[tuple[int, str | None, str | None], tuple[Network, tuple[Option, ...]]] = {}


def options_of(network: Network, profile_id: str | None, also: str | None = None) -> tuple[Option, ...]:
    """The options of an entry, sorted out once: a fleet asks for the same few networks thousands of times.

    `also` is a client version that somebody asks about, though it may be too old to be chosen.
    """
    key = (id(network), profile_id, also)
    known = _REMEMBERED.get(key)
    if known is None or known[0] is not network:
        if len(_REMEMBERED) > 1024:
            _REMEMBERED.clear()
        known = _REMEMBERED[key] = (network, _options(network, profile_id, also))
    return known[1]


def _options(network: Network, profile_id: str | None, also: str | None) -> tuple[Option, ...]:
    """The default profile, or all where the entry names no default; each with the clients that are still let in."""
    if profile_id is not None:
        profiles = tuple(p for p in network.profiles if p.id == profile_id)
    else:
        default = network.default_profile
        profiles = (default,) if default is not None else network.profiles
    if not profiles:
        profiles = (Profile(id="any", title=network.name, requirements=()),)
    client = versioned_client(network)
    # Of several programs without versions it is not known which one a profile means.
    program = client.name if client is not None else network.clients[0].name if len(network.clients) == 1 else ""
    found = []
    for profile in profiles:
        for version in _versions(profile, client, also):
            asked = asked_of(profile, version)
            wishes: dict[str, tuple[Requirement, ...]] = {}
            for requirement in asked:
                wishes[requirement.key] = (*wishes.get(requirement.key, ()), requirement)
            shown = f"{program} {version}".strip()
            claims = {id(r): requirement_claim(network, profile, shown, r) for r in asked}
            found.append(Option(network, profile, version, program, wishes, claims))
    return tuple(found)


def asked_of(profile: Profile, version: str) -> tuple[Requirement, ...]:
    """What this version of the client asks for; a requirement that names no versions is asked by all."""
    return tuple(r for r in profile.requirements if r.with_client is None or comes_with(r.with_client, version))


def comes_with(versions: Specifier[DottedVersion], version: str) -> bool:
    """Whether a client's version is one of these; of a client without versions the answer is yes for all."""
    try:
        return not version or versions.allows(DottedVersion(version))
    except ValueError:
        return False


def _versions(profile: Profile, client: Client | None, also: str | None) -> list[str]:
    """The newest version of each kind that the network lets in: of those that ask for the same the rest is older.

    `also` is a version that somebody asks about or pins, whatever it asks for.
    """
    if client is None:
        return [""]
    oldest = oldest_client(client)
    kinds: dict[tuple[object, ...], str] = {}
    for known in client.versions:
        if oldest is None or not older(known.version, oldest):
            kind = tuple(id(r) for r in asked_of(profile, known.version))
            kinds.setdefault((*kind, *_allowed(profile, client, known.version)), known.version)
    versions = list(kinds.values()) or [""]
    if also is not None and also not in versions and any(v.version == also for v in client.versions):
        versions.append(also)
    return versions


def _allowed(profile: Profile, client: Client, version: str) -> tuple[bool, ...]:
    wanted = [r.client[client.name] for r in profile.requirements if r.client is not None and client.name in r.client]
    return tuple(comes_with(versions, version) for versions in wanted)


def versioned_client(network: Network) -> Client | None:
    """The program of a network whose versions are published; None where the network's installer decides."""
    return next((c for c in network.clients if c.versions), None)


def oldest_client(client: Client) -> str | None:
    """The oldest version that the network lets in, where it says so."""
    return next((v.oldest_supported for v in client.versions if v.oldest_supported), None)


def older(version: str, than: str) -> bool:
    try:
        return DottedVersion(version) < DottedVersion(than)
    except ValueError:
        return False


def driver_specifier(intent: Intent) -> Specifier[DriverVersion] | None:
    if intent.driver is None:
        return None
    text = intent.driver.strip()
    try:
        if text.isdigit():
            return Specifier.parse(f"=={text}.*", DriverVersion)
        if text[:1].isdigit():
            return Specifier.exact([DriverVersion(text)])
        return Specifier.parse(text, DriverVersion)
    except ValueError as problem:
        raise BadInput(
            "driver-specifier",
            f"provision_driver: {problem}",
            hint='write a branch ("535"), a version ("535.261.03") or conditions (">=535.261.03,<536")',
        ) from problem


def cuda_level(intent: Intent) -> CudaVersion | None:
    if intent.cuda is None:
        return None
    try:
        return CudaVersion(intent.cuda).level
    except ValueError as problem:
        raise BadInput("cuda-level", f"provision_cuda: {problem}", hint='write a level such as "12.2"') from problem


def requirement_claim(network: Network, profile: Profile, client: str, requirement: Requirement) -> Claim:
    words = (
        ("key", requirement.key),
        ("wanted", text_of(requirement.value)),
        ("because", requirement.because),
        ("client", client),
        ("profile", profile.title),
        ("seen", requirement.listed_on or requirement.seen or ""),
    )
    return Claim("network-wants", network.name, words, (entry("networks", requirement, network.id),))
