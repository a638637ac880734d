"""Makes a source of matrix releases: signed metadata and bundles in a folder that any web server can serve as it is.

Four keys with four tasks, as The Update Framework has them. `root` and `targets` say what may be trusted and belong off
the machine that serves; `snapshot` and `timestamp` only say that nothing newer exists, and are needed often.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from provisioner.adapters.matrix_source import INDEX, fingerprint_of
from provisioner.errors import BadInput
from provisioner.matrix.bundle import Release, bundle_of, index_of, read_index

DAYS = {"root": 365, "targets": 180, "snapshot": 90, "timestamp": 14}
"""How long each signature holds. A timestamp that is not renewed within its days ends updates, by design."""

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


class ReleaseFolder:
    """A source being made; `keys` holds one private key per role, made with the first release."""

    def __init__(self, folder: Path, keys: Path, now: datetime) -> None:
        self._metadata = folder / "metadata"
        self._targets = folder / "targets"
        self._folder = folder
        self._keys = keys
        self._now = now.replace(microsecond=0)

    def publish(self, name: str, digest: str, contents: dict[str, bytes]) -> str:
        """Add a release and return the fingerprint of the root. Raises BadInput when there is one of that name."""
        if not (self._metadata / "1.root.json").exists():
            self._begin()
        targets = self._newest(Targets)
        known = self._releases(targets) if targets is not None else ()
        if any(one.name == name for one in known):
            raise BadInput(
                "matrix-release-there", f"{self._folder} has a release {name} already: a release never changes"
            )
        release = Release(name, digest, f"matrix-{name}.json")
        signed = targets.signed if targets is not None else Targets(version=1)
        for file, data in ((release.file, bundle_of(name, contents)), (INDEX, index_of((*known, release)))):
            info = TargetFile.from_data(file, data, ["sha256"])
            self._write(self._targets / f"{info.hashes['sha256']}.{file}", data)
            signed.targets[file] = info
        self._sign(signed, "targets", next_version=targets is not None)
        self._vouch(signed.version)
        return self.fingerprint()

    def refresh(self) -> None:
        """Say again that this is the newest state; what is past half of its time is renewed where its key is here."""
        root, targets = self._newest(Root), self._newest(Targets)
        if root is None or targets is None:
            raise BadInput("matrix-no-releases", f"{self._folder} holds no releases", hint="make one: --release NAME")
        if self._due(root.signed, "root"):
            self._sign(root.signed, "root", next_version=True)
        if self._due(targets.signed, "targets"):
            self._sign(targets.signed, "targets", next_version=True)
        self._vouch(targets.signed.version)

    def _due(self, signed: Root | Targets, role: str) -> bool:
        return (signed.expires - self._now).days < DAYS[role] / 2 and (self._keys / role).exists()

    def fingerprint(self) -> str:
        return fingerprint_of((self._metadata / "1.root.json").read_bytes())

    def _begin(self) -> None:
        root = Root(version=1, consistent_snapshot=True)
        for role in DAYS:
            root.add_key(self._signer(role, make=True).public_key, role)
        self._sign(root, "root", next_version=False)

    def _releases(self, targets: Metadata[Targets]) -> tuple[Release, ...]:
        info = targets.signed.targets.get(INDEX)
        if info is None:
            return ()
        return read_index((self._targets / f"{info.hashes['sha256']}.{INDEX}").read_bytes(), str(self._folder))

    def _vouch(self, targets_version: int) -> None:
        """Snapshot, then timestamp: whoever reads in between still sees the former state whole."""
        former = self._newest(Snapshot)
        snapshot = former.signed if former is not None else Snapshot(version=1)
        snapshot.meta["targets.json"] = MetaFile(targets_version)
        self._sign(snapshot, "snapshot", next_version=former is not None)
        path = self._metadata / "timestamp.json"
        timestamp = Metadata[Timestamp].from_file(str(path)).signed if path.exists() else Timestamp(version=1)
        timestamp.snapshot_meta = MetaFile(snapshot.version)
        self._sign(timestamp, "timestamp", next_version=path.exists())

    def _sign(self, signed: S, role: str, *, next_version: bool) -> None:
        """Give it its version and a new date, sign it, and write it."""
        signed.version += next_version
        signed.expires = self._now + timedelta(days=DAYS[role])
        metadata = Metadata(signed)
        metadata.sign(self._signer(role))
        name = f"{role}.json" if role == "timestamp" else f"{signed.version}.{role}.json"
        self._write(self._metadata / name, metadata.to_bytes())

    def _newest(self, kind: type[S]) -> Metadata[S] | None:
        found = sorted(self._metadata.glob(f"*.{kind.type}.json"), key=lambda path: int(path.name.split(".")[0]))
        return Metadata[S].from_file(str(found[-1])) if found else None

    def _signer(self, role: str, *, make: bool = False) -> CryptoSigner:
        path = self._keys / role
        if make and not path.exists():
            self._keys.mkdir(parents=True, exist_ok=True, mode=0o700)
            signer = CryptoSigner.generate_ed25519()
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                out.write(signer.private_bytes)
            return signer
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as problem:
            raise BadInput(
                "matrix-key-missing",
                f"the key of the role {role} cannot be read: {path}",
                context=[str(problem)],
                hint="--keys names the folder that the first release of this source was made with",
            ) from problem
        if not isinstance(key, Ed25519PrivateKey):
            raise BadInput("matrix-key-missing", f"{path} is not an Ed25519 key")
        return CryptoSigner(key)

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            fresh.write_bytes(data)
            fresh.replace(path)
        except OSError as problem:
            raise BadInput(
                "matrix-release-not-written", f"the release cannot be written to {path}: {problem}"
            ) from problem
