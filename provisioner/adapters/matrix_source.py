"""Fetches releases of the matrix from a signed source: The Update Framework, by its reference implementation.

A source is a folder or a web address with `metadata/` and `targets/`. Its root of trust is shown before it is recorded;
from then on the recorded state refuses what is forged, older than what was seen, mixed from two states, or held back
past its date (https://theupdateframework.github.io/specification/latest/#detailed-client-workflow).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

from provisioner import __version__
from provisioner.errors import BadInput, ProvisionError
from provisioner.matrix.bundle import Release, read_index

INDEX = "releases.json"
FIRST_ROOT = "trusted-root.json"
SOURCE = "source"
_ROOT_LIMIT = 512_000
_SCHEMES = ("https", "http")  # the signatures protect either; a plain http source can only be silenced, not forged


class FolderFetcher(FetcherInterface):
    """Reads `file:` addresses: a source on a disk, a share, a checkout."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield Path(unquote(urlsplit(url).path)).read_bytes()
        except FileNotFoundError as problem:
            raise DownloadHTTPError(f"there is no {url}", 404) from problem

    def fetch(self, url: str) -> Iterator[bytes]:
        """A generator fails at its first step, so it is taken here, where the caller expects the failure."""
        return iter(list(super().fetch(url)))


class MatrixSource:
    """The ReleaseSource of the command line; `state` is the operator's folder for what was seen of this source."""

    def __init__(self, named: str, state: Path) -> None:
        self.named = named
        self._url = address_of(named)
        self._state = state / hashlib.sha256(self._url.encode()).hexdigest()[:16]
        self._fetcher: FetcherInterface = (
            FolderFetcher()
            if self._url.startswith("file:")
            else Urllib3Fetcher(app_user_agent=f"provision/{__version__}")
        )
        self._updater: Updater | None = None

    def releases(self) -> tuple[Release, ...]:
        """Refresh and return what the source offers, oldest first. Raises ProvisionError `matrix-source-…`."""
        with _refusals(self.named):
            updater = self._refreshed()
            return read_index(self._target(updater, INDEX), f"{self.named} ({INDEX})")

    def fetch(self, release: Release) -> bytes:
        """Return the bundle of a release, as signed."""
        with _refusals(self.named):
            return self._target(self._refreshed(), release.file)

    def trusted(self) -> bool:
        return (self._state / FIRST_ROOT).is_file()

    def trust(self, fingerprint: str) -> None:
        """Record the root of the source when it has this fingerprint. Raises BadInput `matrix-root-other`."""
        root = self._first_root()
        if fingerprint_of(root) != fingerprint:
            raise BadInput(
                "matrix-root-other",
                f"the root of trust that {self.named} shows is not the one you named",
                context=[f"it shows {fingerprint_of(root)}", f"named    {fingerprint}"],
                hint="ask whoever makes the releases; nothing was recorded",
            )
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._state / SOURCE).write_text(self.named + "\n", encoding="utf-8")
        fresh = self._state / f".{FIRST_ROOT}.{os.getpid()}"
        fresh.write_bytes(root)
        fresh.replace(self._state / FIRST_ROOT)

    def shown_root(self) -> str:
        """The fingerprint of the first root that the source shows; nothing is trusted by that."""
        return fingerprint_of(self._first_root())

    def _first_root(self) -> bytes:
        with _refusals(self.named):
            data = self._fetcher.download_bytes(f"{self._url}/metadata/1.root.json", _ROOT_LIMIT)
            Metadata[Root].from_bytes(data)
            return data

    def _refreshed(self) -> Updater:
        if self._updater is not None:
            return self._updater
        if not self.trusted():
            shown = self.shown_root()
            raise BadInput(
                "matrix-root-unknown",
                f"{self.named} has no root of trust on record here",
                context=[f"the one it shows: {shown}"],
                hint="compare that with what its makers publish elsewhere, then: "
                f"provision matrix update {self.named} --trust-root {shown}",
            )
        updater = Updater(
            metadata_dir=str(self._state),
            metadata_base_url=f"{self._url}/metadata/",
            target_base_url=f"{self._url}/targets/",
            fetcher=self._fetcher,
            config=UpdaterConfig(),
            bootstrap=(self._state / FIRST_ROOT).read_bytes(),
        )
        updater.refresh()
        self._updater = updater
        return updater

    def _target(self, updater: Updater, name: str) -> bytes:
        info = updater.get_targetinfo(name)
        if info is None:
            raise ProvisionError("matrix-source-forged", f"{self.named} has signed no file called {name}")
        with tempfile.TemporaryDirectory(prefix="provision-matrix-") as folder:
            return Path(updater.download_target(info, str(Path(folder) / "target"))).read_bytes()


def known_sources(state: Path) -> tuple[str, ...]:
    """The sources whose root is on record, as they were named."""
    return tuple(sorted(path.read_text(encoding="utf-8").strip() for path in state.glob(f"*/{SOURCE}")))


def fingerprint_of(root: bytes) -> str:
    return f"sha256:{hashlib.sha256(root).hexdigest()}"


def address_of(named: str) -> str:
    """`https://…` as it is, a folder as `file:///…`."""
    scheme = urlsplit(named).scheme
    if scheme in _SCHEMES:
        return named.rstrip("/")
    if scheme and not Path(named).exists():
        raise BadInput("matrix-source-address", f"{named} is neither a folder nor a web address")
    return "file://" + quote(str(Path(named).resolve()))


@contextmanager
def _refusals(named: str) -> Iterator[None]:
    """Say what an attack or a mistake looks like from here; the last line is the framework's own."""

    def refused(reference: str, why: str, error: Exception, hint: str) -> ProvisionError:
        return ProvisionError(reference, f"{named}: {why}", context=[str(error)], hint=hint)

    unchanged = "nothing was changed; the matrix in use stays"
    try:
        yield
    except ExpiredMetadataError as error:
        why = "what it shows is past its date, so newer releases may be held back from here"
        raise refused("matrix-source-expired", why, error, f"{unchanged}. Is this machine's clock right?") from error
    except BadVersionNumberError as error:
        why = "it shows an older state than was seen before, or parts of two states"
        raise refused("matrix-source-rolled-back", why, error, unchanged) from error
    except (UnsignedMetadataError, LengthOrHashMismatchError) as error:
        why = "what it shows is not what its makers signed"
        raise refused("matrix-source-forged", why, error, unchanged) from error
    except DownloadError as error:
        raise refused("matrix-source-unreachable", "it could not be read", error, unchanged) from error
    except RepositoryError as error:
        raise refused("matrix-source-forged", "its metadata cannot be used", error, unchanged) from error
