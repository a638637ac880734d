"""The task that brings a trial to a host: one program that writes all files, for root alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import yaml

from provisioner.render.templates import fill


def test_all_files_are_written_by_one_task(tmp_path: Path) -> None:
    """Folders are made, what was there is replaced, and nobody else may read or run any of it."""
    folder = tmp_path / "trial"
    (task,) = yaml.safe_load(fill("tasks/trial.yml.j2", source="files/g/trial", folder=folder, names=["run", "a/b.py"]))
    command = task["ansible.builtin.command"]
    for texts in ({"run": "before\n", "a/b.py": ""}, {"run": "#!/bin/sh\n", "a/b.py": "é\n"}):
        subprocess.run(command["argv"], input=json.dumps(texts).encode(), check=True)

    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert found == {"run": "#!/bin/sh\n", "a/b.py": "é\n"}
    assert {path.stat().st_mode & 0o777 for path in (folder, *folder.rglob("*"))} == {0o700}
    assert "'a/b.py': lookup('ansible.builtin.file', 'files/g/trial/a/b.py', rstrip=false)" in command["stdin"]
