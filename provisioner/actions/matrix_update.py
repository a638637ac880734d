"""The steps of `provision matrix update`: what the source offers, which release is meant, fetch, check, keep, use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from provisioner.errors import BadInput
from provisioner.matrix.bundle import Release, read_bundle


class ReleaseSource(Protocol):
    """A place with signed releases; raises when what it shows is forged, old, mixed or past its date."""

    named: str

    def releases(self) -> tuple[Release, ...]: ...

    def fetch(self, release: Release) -> bytes: ...


class ReleaseShelf(Protocol):
    """Where fetched releases are kept, and which of them is in use."""

    def has(self, digest: str) -> bool: ...

    def put(self, digest: str, contents: Mapping[str, bytes]) -> None: ...

    def use(self, digest: str | None) -> None: ...


@dataclass(frozen=True)
class Updated:
    """The release that is in use now, and the digest that was before."""

    release: Release
    before: str
    fetched: bool
    newest: str  # name of the newest release that the source offers


def update(
    source: ReleaseSource, shelf: ReleaseShelf, *, in_use: str, wanted: str | None = None, pinned: str | None = None
) -> Updated:
    """Put a release in use: the newest, the one called `wanted` (or whose digest begins so), or the one `pinned`."""
    offered = source.releases()
    release = _chosen(offered, source.named, wanted, pinned)
    fetched = not shelf.has(release.digest)
    if fetched:
        shelf.put(release.digest, read_bundle(source.fetch(release), f"{source.named} ({release.name})"))
    shelf.use(release.digest)
    return Updated(release, in_use, fetched, offered[-1].name)


def _chosen(offered: tuple[Release, ...], source: str, wanted: str | None, pinned: str | None) -> Release:
    if wanted is None and pinned is None:
        return offered[-1]
    for release in reversed(offered):
        if release.digest == pinned or (wanted and (release.name == wanted or release.digest.startswith(wanted))):
            return release
    what = f"that is called {wanted}" if wanted else f"with the digest of the lock, {str(pinned)[:12]}"
    raise BadInput(
        "matrix-release-unknown",
        f"{source} offers no release {what}",
        hint=f"it offers {', '.join(release.name for release in offered[-8:])}",
    )
