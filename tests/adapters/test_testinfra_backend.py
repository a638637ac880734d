"""The backend carries testinfra's own modules, shares looks, and lets the checks run as plain pytest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import testinfra

from provisioner.adapters import testinfra_backend
from provisioner.adapters.shell import Connection
from provisioner.adapters.testinfra_backend import ShellBackend, connect, disconnect, look_at_all
from provisioner.errors import HostError


@pytest.fixture
def name() -> Iterator[str]:
    yield connect("rig 01/b", Connection(("sh",)))
    disconnect("rig 01/b")


@pytest.fixture
def host(name: str) -> Iterator[testinfra.host.Host]:
    opened = testinfra.host.Host(testinfra.backend.get_backend(name))
    opened.backend.set_host(opened)
    yield opened
    opened.backend.forget()


def test_a_name_with_odd_characters_stays_that_name(host: testinfra.host.Host) -> None:
    """Inventory names are free text; testinfra's host URLs are not."""
    assert host.backend.get_hostname() == "rig 01/b"


def test_get_host_uses_the_backend(name: str) -> None:
    """`testinfra.get_host("shell://…")` is enough."""
    assert isinstance(testinfra.get_host(name).backend, ShellBackend)


def test_stock_modules_work(host: testinfra.host.Host, tmp_path: Path) -> None:
    """Package, File, User, Command, Process, Sysctl, Mount and their kin need nothing but `run`."""
    file = tmp_path / "grün"
    file.write_bytes(b"two\nlines\n")
    file.chmod(0o640)

    assert host.file(str(file)).content == b"two\nlines\n"
    assert host.file(str(file)).mode == 0o640
    assert host.file(str(tmp_path)).is_directory
    assert not host.file(str(tmp_path / "none")).exists
    assert host.user("root").uid == 0
    assert host.group("root").gid == 0
    assert host.package("coreutils").is_installed
    assert not host.package("no-such-package").is_installed
    assert host.mount_point("/proc").filesystem == "proc"
    assert host.process.filter(pid=os.getpid())
    assert host.sysctl("kernel.ostype") == "Linux"
    assert host.exists("sh")
    assert host.run("exit 4").rc == 4
    assert host.check_output("printf %s", "it's") == "it's"


def test_looks_are_read_once(host: testinfra.host.Host, tmp_path: Path) -> None:
    """What was looked at stays as it was for the run; other commands are run as ever, and `forget` ends it."""
    counter = f"echo x >>{tmp_path}/count; wc -l <{tmp_path}/count"
    look_at_all({host.backend: [counter, "echo other"]})

    assert [host.check_output(counter), host.check_output(counter)] == ["1", "1"]
    host.backend.forget()
    assert host.check_output(counter) == "2"


def test_a_look_knows_when_it_was_made(host: testinfra.host.Host) -> None:
    """The clock check rests on the controller's time around the question."""
    look_at_all({host.backend: ["date +%s.%N"]})
    result = host.run("date +%s.%N")

    assert result.sent <= float(result.stdout) <= result.answered


def test_one_host_that_gives_no_shell_fails_alone(host: testinfra.host.Host) -> None:
    """The others go on, and its tests fail at once instead of waiting for a login each."""
    connect("rig-02", Connection(("sh", "-c", "echo refused >&2; exit 255")))
    broken = testinfra.host.Host(testinfra.backend.get_backend("shell://rig-02"))
    look_at_all({broken.backend: ["echo a"], host.backend: ["echo a"]})
    disconnect("rig-02")

    assert host.check_output("echo a") == "a"
    with pytest.raises(HostError) as caught:
        broken.run("true")
    assert caught.value.context == ("refused",)


def test_marked_tests_share_looks_under_plain_pytest(tmp_path: Path) -> None:
    """`pytest -p provisioner.adapters.testinfra_backend --hosts=shell://…` honours the mark, in anybody's tests."""
    (tmp_path / "conftest.py").write_text(
        "from provisioner.adapters.shell import Connection\n"
        "from provisioner.adapters.testinfra_backend import connect\n"
        "connect('one', Connection(('sh',)))\nconnect('two', Connection(('sh',)))\n"
    )
    look = f"echo x >>{tmp_path}/looks; wc -l <{tmp_path}/looks"
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        f"LOOK = {look!r}\n"
        "@pytest.mark.looks(LOOK)\n"
        "def test_a(host):\n    assert host.run(LOOK).rc == 0\n"
        "@pytest.mark.looks(LOOK)\n"
        "def test_b(host):\n    assert host.run(LOOK).rc == 0\n"
    )
    words = ["-q", "-p", "no:cacheprovider", "-p", testinfra_backend.__name__, "--hosts=shell://one,shell://two"]
    root = Path(testinfra_backend.__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert len((tmp_path / "looks").read_text().splitlines()) == 2


def test_an_interrupt_does_not_wait_for_a_host_that_hangs(host: testinfra.host.Host) -> None:
    """Ctrl-C ends the looks of all hosts at once."""
    began = time.monotonic()
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        look_at_all({host.backend: ["sleep 30"]})

    assert time.monotonic() - began < 5
