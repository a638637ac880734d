"""The task that builds modules before the drain: what an interrupted run has built is not built again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from provisioner.render.templates import fill

DPKG_DEB = '#!/bin/sh\nmkdir -p "$3/usr/src/nvidia-535.1" && : >"$3/usr/src/nvidia-535.1/dkms.conf"\n'
DKMS = """#!/bin/sh
echo "$1" >>"$HERE/calls"
while [ $# -gt 0 ]; do
    if [ "$1" = --archive ]; then mkdir -p "${2%/*}" && echo modules >"$2"; fi
    shift
done
"""


class Ground:
    """A host with a dkms that only notes what it was asked, and one kernel with headers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive = folder / "nvidia-kernel-dkms.deb"
        self.archive.write_text("535.1")
        self.tarball = folder / "share/nvidia-dkms/nvidia-535.1.dkms.tar.gz"
        (folder / "bin").mkdir()
        (folder / "modules/6.1/build/include").mkdir(parents=True)
        for name, text in (("dkms", DKMS), ("dpkg-deb", DPKG_DEB)):
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)

    def run(self) -> list[str]:
        """Run the task; returns what dkms was asked for."""
        text = fill("tasks/prebuild.yml.j2", kernels=["6.1"], archive=str(self.archive), folder=self.folder / "build")
        script = yaml.safe_load(text)[0]["ansible.builtin.shell"]["cmd"]
        script = script.replace("/usr/share", f"{self.folder}/share").replace("/lib/modules", f"{self.folder}/modules")
        calls = self.folder / "calls"
        calls.write_text("")
        path = f"{self.folder}/bin:/usr/bin:/bin"
        subprocess.run(["sh", "-c", script], env={"PATH": path, "HERE": str(self.folder)}, check=True)
        return calls.read_text().split()


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_modules_are_built_and_packed(ground: Ground) -> None:
    """Once for the kernel, and one archive where the package's own postinst looks for it."""
    assert ground.run() == ["build", "mktarball"]
    assert ground.tarball.exists()


def test_what_an_interrupted_run_has_built_is_taken(ground: Ground) -> None:
    """The second run of the same archive for the same kernels builds nothing."""
    ground.run()

    assert ground.run() == []


@pytest.mark.parametrize("harm", ["another package", "an archive cut short", "an archive that is gone", "no end"])
def test_what_is_not_that_is_built_anew(ground: Ground, harm: str) -> None:
    """A power cut may leave half an archive; another version is another module."""
    ground.run()
    if harm == "another package":
        ground.archive.write_text("535.2")
    elif harm == "an archive cut short":
        ground.tarball.write_text("")
    elif harm == "an archive that is gone":
        ground.tarball.unlink()
    else:
        (ground.folder / "build/of").unlink()

    assert ground.run() == ["build", "mktarball"]
