"""How many bytes fit through a tunnel: what the path carries, less what the tunnel adds."""

from __future__ import annotations

from provisioner.model.tunnel import IPV6_MINIMUM as IPV6_MINIMUM

_WIREGUARD = 32  # 4 type and receiver, 4, 8 counter, 16 tag: header of a transport message
_UDP = 8
_IP = {4: 20, 6: 40}
_NEBULA = 16 + 16  # header and tag; nebula's own default of 1300 leaves more room than that

SMALLEST = 576


def wireguard_overhead(version: int) -> int:
    """Bytes that WireGuard adds over IPv4 (60) or IPv6 (80), as wireguard-tools counts them."""
    return _IP[version] + _UDP + _WIREGUARD


def nebula_overhead(version: int) -> int:
    """Bytes that Nebula adds: 60 over IPv4, 80 over IPv6."""
    return _IP[version] + _UDP + _NEBULA


def inside(path_mtu: int | None, version: int, *, overhead: int | None = None, carries: int = 4) -> int:
    """Bytes of a packet inside the tunnel: 1500 over IPv4 is 1440, over IPv6 1420; not measured is 1280.

    `version` is that of the addresses outside; 0 when a name may resolve to either, which counts as the larger.
    `carries` is that of the addresses inside: 6 gets no less than 1280, and a narrow path cuts it outside.
    """
    if path_mtu is None:
        return IPV6_MINIMUM
    room = path_mtu - (overhead if overhead is not None else wireguard_overhead(version or 6))
    return max(smallest(carries), room)


def smallest(carries: int) -> int:
    """The least that an interface may have; below 1280 the kernel takes IPv6 off it."""
    return IPV6_MINIMUM if carries == 6 else SMALLEST


LOW, HIGH = 1200, 1500


def measure(host: str) -> str:
    """A shell line that prints `path-mtu N` for the largest packet that reaches `host` unfragmented.

    It halves its way from 1200 to 1500 bytes with eight pings that must not be fragmented (28 bytes of each are
    headers of IPv4, 48 of IPv6); it prints `path-mtu none` when not even the smallest comes back.
    """
    return (
        f"h={host}; case $h in *:*) o=48;; *) o=28;; esac; "
        'p() { ping -n -q -M do -c 2 -i 0.2 -W 1 -s $(($1 - o)) "$h" >/dev/null 2>&1; }; '
        f"if p {HIGH}; then echo path-mtu {HIGH}; elif ! p {LOW}; then echo path-mtu none; "
        f"else l={LOW}; u={HIGH}; while [ $((u - l)) -gt 1 ]; do m=$(((l + u) / 2)); "
        "if p $m; then l=$m; else u=$m; fi; done; echo path-mtu $l; fi"
    )
