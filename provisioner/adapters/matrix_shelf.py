"""Keeps fetched releases of the matrix under .provision/matrix/, each in a folder named by its digest."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from provisioner.errors import BadInput
from provisioner.matrix.files import IN_USE
from provisioner.matrix.reader import load


class MatrixShelf:
    """The ReleaseShelf of the command line."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, digest: str) -> bool:
        return (self._root / digest).is_dir()

    def named(self, beginning: str) -> tuple[str, ...]:
        """The digests on the shelf that begin so."""
        if not self._root.is_dir():
            return ()
        return tuple(sorted(p.name for p in self._root.iterdir() if len(p.name) == 64 and p.name.startswith(beginning)))

    def put(self, digest: str, contents: Mapping[str, bytes]) -> None:
        """Write a release whole or not at all. Raises BadInput when its content is another, or cannot be read here."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._root, prefix=".new-") as beside:
                folder = Path(beside) / "matrix"
                for name, text in contents.items():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes(text)
                found = load(folder).digest
                if found != digest:
                    raise BadInput(
                        "matrix-bad-bundle", f"the release says its content is {digest[:12]}, and it is {found[:12]}"
                    )
                shutil.rmtree(self._root / digest, ignore_errors=True)
                folder.replace(self._root / digest)
        except OSError as problem:
            raise BadInput("matrix-not-kept", f"the release cannot be kept in {self._root}: {problem}") from problem

    def use(self, digest: str | None) -> None:
        """Make a release the one in use; None: the shipped matrix."""
        if digest is None:
            (self._root / IN_USE).unlink(missing_ok=True)
            return
        fresh = self._root / f".{IN_USE}"
        fresh.write_text(digest + "\n", encoding="ascii")
        fresh.replace(self._root / IN_USE)
