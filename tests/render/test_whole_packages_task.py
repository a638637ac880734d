"""The task that ends an interrupted installation: what DKMS was putting into its tree goes, what it has built stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from provisioner.model.plan import Change
from provisioner.model.resource import WholePackages
from provisioner.render.templates import fill

# As dkms 3.0 answers: of a version whose module is not whole for that kernel it says `added`.
DKMS = """#!/bin/sh
test "$1 $2 $4 $6 $8" = "status -m -v -k -a" || exit 3
if test -e "$TREE/$3/$5/$7/$9/module/nvidia.ko"; then echo "$3/$5, $7, $9: installed"; else echo "$3/$5: added"; fi
"""
WHOLE = ("nvidia/535.1/6.1/x86_64/module/nvidia.ko", "zfs/2.1/6.1/x86_64/module/nvidia.ko")
HALF = ("nvidia/535.1/6.9/x86_64/module/nvidia-uvm.ko",)
OTHERS = ("nvidia/535.1/build/nv/nv.o", "nvidia/original_module/6.1/x86_64/nvidia.ko", "usr/src/nvidia/nv.c")


def test_a_folder_that_dkms_was_filling_goes(tmp_path: Path) -> None:
    """Seen with dkms 3.0.10: `dkms remove` leaves it and the version with it, and no postinst can add that again."""
    tree = tmp_path / "dkms"
    for name in (*WHOLE, *HALF, *OTHERS):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    (tree / "nvidia/535.1/source").symlink_to(tree / "usr/src")
    (tree / "nvidia/kernel-6.1-x86_64").symlink_to(tree / "nvidia/535.1/6.1/x86_64")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dkms").write_text(DKMS)
    (tmp_path / "bin/dkms").chmod(0o755)
    change = Change(phase="change", what="dpkg state", before="half-installed x", after="whole", wanted=WholePackages())
    task = yaml.safe_load(fill("tasks/whole_packages.yml.j2", change=change, history="/history"))[0]
    script = task["ansible.builtin.shell"]["cmd"]
    begin = script.index("clear() (")
    clear = script[begin : script.index("\n)\n", begin) + 3].replace("/var/lib/dkms", str(tree))
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "TREE": str(tree)}
    subprocess.run(["/bin/bash", "-uc", f"{clear}clear"], env=environment, check=True)

    there = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file()}
    assert there == {*WHOLE, *OTHERS}
    assert not (tree / "nvidia/535.1/6.9").exists() and (tree / "nvidia/535.1/source").is_symlink()
    assert script.index("\nfinish\nclear\n") < script.index("for name in $(half)")
