"""Throwaway hosts for tests: `lab_factory` makes labs with names of their own and always takes them down."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from provisioner.adapters.lab import SUITES, Host, Lab, Result, ensure_engine, gpu_models, parse_all

LabFactory = Callable[..., Lab]


@pytest.fixture(scope="session")
def lab_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabFactory]:
    """Return `make("rig-01=bookworm:rtx-3090", …) -> Lab`. A lab that cannot start fails the test, it never skips it.

    The names carry the process, so that labs of parallel test runs do not meet.
    """
    with contextlib.ExitStack() as labs:

        def make(*specs: str, name: str | None = None) -> Lab:
            chosen = name or f"test-{os.getpid()}-{uuid.uuid4().hex[:6]}"
            folder = tmp_path_factory.mktemp("lab", numbered=True)
            lab = Lab(ensure_engine(), chosen, folder)
            labs.enter_context(lab)  # before `up`, so that half a lab is taken down too
            return Lab.up(chosen, folder, parse_all(specs, SUITES, gpu_models()))

        yield make


def ssh(lab: Lab, host: Host | str, command: str, given: bytes | None = None) -> Result:
    """Run a command as the operator, over ssh with the lab's own files."""
    name = host if isinstance(host, str) else host.name
    argv = ["ssh", "-F", str(lab.folder / "ssh" / "config"), "-o", "BatchMode=yes", name, command]
    done = subprocess.run(argv, input=given, capture_output=True)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def nvml(lab: Lab, host: Host | str, code: str) -> Result:
    """Run lines of Python with the real pynvml of this environment on a host, which has none of its own."""
    import pynvml

    source = Path(pynvml.__file__).read_bytes()
    ssh(lab, host, "mkdir -p /tmp/nvml && cat >/tmp/nvml/pynvml.py", given=source)
    prelude = "import sys; sys.path.insert(0, '/tmp/nvml'); import pynvml as n\n"
    return ssh(lab, host, "python3 -", given=(prelude + code).encode())
