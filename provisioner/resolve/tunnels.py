"""What the matrix says of a tunnel: which networks it breaks, and which ports a host's networks need from outside."""

from __future__ import annotations

from provisioner.matrix.entries import Network, TunnelKind
from provisioner.matrix.reader import Matrix
from provisioner.matrix.specifier import Ports
from provisioner.model.intent import Intent
from provisioner.resolve.conflict import Claim, entry
from provisioner.resolve.options import Option, network_named
from provisioner.resolve.rules import FIRST_NETWORK, Rules


def ports_needed(intent: Intent, matrix: Matrix) -> tuple[str, ...]:
    """Ports that must be reachable from outside for the networks of a request, such as tcp/8080 or udp/30000-32767."""
    found: list[str] = []
    for name in intent.networks:
        network, profile_id, _ = network_named(name, matrix)
        profile = next((p for p in network.profiles if p.id == profile_id), network.default_profile)
        for requirement in profile.requirements if profile is not None else ():
            if requirement.key == "ports" and isinstance(requirement.value, Ports):
                ports = requirement.value
                if ports.direction == "inbound":
                    found += [f"{protocol}/{p}" for protocol in ("tcp", "udp") for p in getattr(ports, protocol)]
    return tuple(dict.fromkeys(found))


def rules_of_the_tunnel(rules: Rules) -> None:
    """Forbid every way to serve a network whose customers would have to come through a tunnel that can't carry them."""
    wish = rules.intent.tunnel
    kind = rules.matrix.tunnels.get(wish.kind)
    if kind is None or wish.ingress != "tunnel":
        return
    for place, those in enumerate(rules.options):
        for number, option in enumerate(those):
            claim = broken(kind, option)
            if claim is not None:
                rules.rule(claim, (FIRST_NETWORK + place,), ((number,),))


def broken(kind: TunnelKind, option: Option) -> Claim | None:
    """Why a tunnel of this kind breaks this way to serve; None when nothing is known to."""
    network: Network = option.network
    for case in kind.breaks:
        if case.network == network.id:
            words = (("kind", kind.name), ("why", case.why))
            return Claim("tunnel-breaks", network.name, words, (entry("tunnels", case, kind.id),))
    for requirement in option.wishes.get("public_ip", ()):
        if requirement.value == "same-as-egress" and not kind.carries.egress:
            words = (("kind", kind.name), ("why", requirement.because))
            return Claim("tunnel-breaks", network.name, words, (entry("networks", requirement, network.id),))
    for requirement in option.wishes.get("ports", ()):
        ports = requirement.value
        if not isinstance(ports, Ports) or ports.direction != "inbound" or not requirement.forbids:
            continue
        lacks = [
            *(["UDP"] if ports.udp and not kind.carries.udp else []),
            *(["plain TCP"] if ports.tcp and not kind.carries.tcp else []),
            *(["ranges of ports"] if _has_range(ports) and not kind.carries.ranges else []),
            *(["public ports"] if not kind.carries.public else []),
        ]
        if lacks:
            words = (("kind", kind.name), ("why", f"it carries no {' and no '.join(lacks)}. {requirement.because}"))
            return Claim("tunnel-breaks", network.name, words, (entry("tunnels", kind, kind.id),))
    return None


def _has_range(ports: Ports) -> bool:
    return any("-" in text for text in (*ports.tcp, *ports.udp))
