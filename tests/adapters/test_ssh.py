"""Reaching hosts: what Ansible's variables make of a connection, and what each failure says.

`ssh` here is a small script that runs the remote command on this machine, or prints what the real one would.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import stat
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from provisioner.adapters import ssh
from provisioner.adapters.ssh import Target
from provisioner.adapters.ssh_errors import Login, explain_become, explain_ssh, fingerprint
from provisioner.errors import BadInput, HostError
from provisioner.model.capture import Capture
from provisioner.probe.request import Command, Profile, Request

SMALL = Request(Profile(files=("/etc/os-release",), commands=(Command("echo hello"),)))
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIMiy0q8nY9DWVMXsR0oXgyH7jJV5qde6sMAVnl68t4SG"


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make an `ssh` whose body is a shell script; $command is what the real one would run on the host."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(ssh, "control_dir", lambda: tmp_path)

    def make(body: str, **variables: Any) -> Target:
        program = tmp_path / "ssh"
        program.write_text(f'#!/bin/sh\nfor command; do :; done\necho "$@" >> {tmp_path}/calls\n{body}\n')
        program.chmod(0o755)
        return Target.from_variables("rig-01", {"ansible_ssh_executable": str(program), **variables})

    return make


def answer(target: Target, request: Request = SMALL, timeout_s: float = 20) -> Capture | HostError:
    return ssh.probe([target], request, timeout_s=timeout_s)["rig-01"]


def refused(target: Target, timeout_s: float = 20) -> HostError:
    result = answer(target, timeout_s=timeout_s)
    assert isinstance(result, HostError)
    return result


# A whole probe.


def test_probe_comes_back_as_a_capture(fake_ssh: Any) -> None:
    """Files and commands as they are on the host, under the host's inventory name."""
    seen = answer(fake_ssh('exec sh -c "$command"'))

    assert isinstance(seen, Capture)
    assert seen.host == "rig-01"
    assert seen.file("/etc/os-release") == Path("/etc/os-release").read_text()
    assert seen.commands["echo hello"].stdout == "hello\n"


def test_banners_do_no_harm(fake_ssh: Any) -> None:
    """What a login shell prints before and after is not part of the answer."""
    seen = answer(fake_ssh('echo "Welcome to rig-01"; echo noise >&2; sh -c "$command"; printf bye'))

    assert isinstance(seen, Capture)


def test_garbled_answer_shows_what_came(fake_ssh: Any) -> None:
    """A login that runs something else entirely is told as such, with what it printed."""
    error = refused(fake_ssh("cat > /dev/null; echo 'This account is currently not available.'; exit 1"))

    assert error.reference == "probe-garbled"
    assert "This account is currently not available." in error.context


def test_silent_host_is_given_up(fake_ssh: Any) -> None:
    """Time runs out for one host; its connection is closed so that the next attempt starts afresh."""
    target = fake_ssh('case "$*" in *"-O exit"*) exit 0;; esac; exec sleep 60')
    began = time.monotonic()

    error = refused(target, timeout_s=0.5)

    assert time.monotonic() - began < 10
    assert error.reference == "probe-timed-out"
    assert "-O exit" in (Path(target.ssh).parent / "calls").read_text()


def test_missing_python_is_told(fake_ssh: Any) -> None:
    """No interpreter is not a broken answer."""
    error = refused(fake_ssh('exec sh -c "$command"', ansible_python_interpreter="/opt/none/python3"))

    assert error.reference == "no-python"
    assert "/opt/none/python3" in error.message


def test_hosts_fail_alone(fake_ssh: Any, tmp_path: Path) -> None:
    """One host's failure is its own; results keep the order of the hosts, and each is announced once."""
    good = fake_ssh('exec sh -c "$command"')
    bad = Target(name="rig-02", address="rig-02", ssh=str(tmp_path / "absent"))
    heard: list[str] = []

    results = ssh.probe([bad, good], SMALL, on_done=lambda name, _result: heard.append(name))

    assert list(results) == ["rig-02", "rig-01"]
    assert isinstance(results["rig-01"], Capture)
    assert getattr(results["rig-02"], "reference", None) == "program-not-found"
    assert sorted(heard) == ["rig-01", "rig-02"]


def test_hosts_at_once_are_bounded(fake_ssh: Any, tmp_path: Path) -> None:
    """With a bound of two, never more than two sessions are open."""
    body = (
        f"d={tmp_path}/open; mkdir -p $d; touch $d/$$; ls $d | wc -l >> {tmp_path}/most; sleep 0.2; rm $d/$$; exit 255"
    )
    target = fake_ssh(body)
    hosts = [Target(name=f"rig-{number}", address="x", ssh=target.ssh) for number in range(6)]

    ssh.probe(hosts, SMALL, limit=2)

    assert max(int(line) for line in (tmp_path / "most").read_text().split()) == 2


def test_local_machine_needs_no_ssh() -> None:
    """ansible_connection=local starts the interpreter here."""
    target = Target.from_variables(
        "rig-01", {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    )

    seen = answer(target)

    assert isinstance(seen, Capture)
    assert seen.commands["echo hello"].rc == 0


# sudo.

SUDO = """#!/bin/sh
for word; do case $word in -S) ask=1;; -n) never=1;; esac; done
while [ "$1" != -- ]; do shift; done; shift
if [ "$SUDO_RULE" = password ]; then
  [ "$never" ] && { echo "sudo: a password is required" >&2; exit 1; }
  IFS= read -r given
  [ "$given" = "$SUDO_PASSWORD" ] || { echo "sudo: 1 incorrect password attempt" >&2; exit 1; }
fi
SUDO_SEEN=1 exec "$@"
"""
PASSWORD = "it's \"9$x\\n"


@pytest.fixture
def fake_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sudo").write_text(SUDO)
    (folder / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SUDO_PASSWORD", PASSWORD)


@pytest.mark.usefixtures("fake_sudo")
@pytest.mark.parametrize("rule", ["password", "nopasswd"])
def test_sudo_password_goes_through_standard_input(fake_ssh: Any, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """Whether sudo asks for it or not, the probe runs, and the password is on no command line and in no capture."""
    monkeypatch.setenv("SUDO_RULE", rule)
    target = fake_ssh('exec sh -c "$command"', ansible_become=True, ansible_become_password=PASSWORD)

    seen = answer(target)

    assert isinstance(seen, Capture), seen
    calls = (Path(target.ssh).parent / "calls").read_text()
    assert "9$x" not in calls + seen.model_dump_json() + repr(target)


@pytest.mark.usefixtures("fake_sudo")
@pytest.mark.parametrize(
    ("variables", "reference"),
    [({}, "sudo-password-needed"), ({"ansible_become_password": "wrong"}, "sudo-password-wrong")],
)
def test_sudo_that_refuses_says_why(
    fake_ssh: Any, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reference: str
) -> None:
    """A password that is needed and one that is wrong are two different errors."""
    monkeypatch.setenv("SUDO_RULE", "password")

    error = refused(fake_ssh('exec sh -c "$command"', ansible_become=True, **variables))

    assert error.reference == reference
    assert "ansible_become_password" in (error.hint or "")


@pytest.mark.usefixtures("fake_sudo")
def test_run_passes_input_behind_the_password(fake_ssh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other commands get their own standard input whole, and may fail without being an error."""
    monkeypatch.setenv("SUDO_RULE", "password")
    target = fake_ssh('exec sh -c "$command"', ansible_become=True, ansible_become_password=PASSWORD)

    done = asyncio.run(ssh.run(target, "cat; echo $SUDO_SEEN; exit 4", b"line 1\nline 2\n"))

    assert (done.rc, done.stdout) == (4, "line 1\nline 2\n1\n")


def test_run_takes_argument_lists(fake_ssh: Any) -> None:
    """Arguments reach the program as they are, whatever a shell would make of them."""
    words = ["printf", "%s|", "a b", "$HOME", "'", '"', "*", "\\", ";"]

    done = asyncio.run(ssh.run(fake_ssh('exec sh -c "$command"'), words))

    assert done.stdout == "a b|$HOME|'|\"|*|\\|;|"


def test_run_that_takes_too_long_is_124(fake_ssh: Any) -> None:
    """As the capture format says it for commands that were stopped."""
    began = time.monotonic()

    done = asyncio.run(ssh.run(fake_ssh('exec sh -c "$command"'), "sleep 60", timeout_s=0.3))

    assert done.rc == 124
    assert time.monotonic() - began < 5


def test_login_as_the_wanted_user_needs_no_sudo() -> None:
    """root does not become root."""
    target = Target.from_variables("rig-01", {"ansible_user": "root", "ansible_become": "yes"})

    assert not target.needs_sudo
    assert Target.from_variables("rig-01", {"ansible_become": "true"}).needs_sudo


# Words.

LOGIN = Login("rig-05", "10.0.0.5", 2222, "op")


@pytest.mark.parametrize(
    ("stderr", "reference", "words"),
    [
        ("ssh: connect to host 10.0.0.5 port 22: Connection refused", "ssh-unreachable", "nothing listens"),
        ("ssh: connect to host 10.0.0.5 port 22: No route to host", "ssh-unreachable", "no route"),
        ("ssh: Could not resolve hostname rig-05: Name or service not known", "ssh-unreachable", "name"),
        ("kex_exchange_identification: Connection closed by remote host", "ssh-unreachable", "before the login"),
        ("ssh: connect to host 10.0.0.5 port 22: Connection timed out", "ssh-timeout", "did not answer"),
        ("Connection timed out during banner exchange", "ssh-timeout", "did not answer"),
        ("Timeout, server 10.0.0.5 not responding.", "ssh-timeout", "did not answer"),
        ("No ED25519 host key is known for 10.0.0.5 and you have requested strict checking.",
         "ssh-host-key-unknown", "not on record"),
        ("op@10.0.0.5: Permission denied (publickey,password).", "ssh-auth-failed", "refused the login as op"),
        ("Received disconnect: Too many authentication failures", "ssh-auth-failed", "refused"),
        ("something nobody has seen", "ssh-unreachable", "could not connect"),
        ("", "ssh-unreachable", "could not connect"),
    ],
)  # fmt: skip
def test_each_failure_of_ssh_has_its_own_words(stderr: str, reference: str, words: str) -> None:
    """The reference can be searched for, the message says what is the matter, the hint what to type."""
    error = explain_ssh(LOGIN, stderr)

    assert error.reference == reference
    assert words in error.message
    assert error.host == "rig-05"
    assert error.hint


def test_changed_key_shows_both_fingerprints(tmp_path: Path) -> None:
    """The one shown and the one on record, and the command that records the new one."""
    record = tmp_path / "known_hosts"
    record.write_text(f"# mine\n10.0.0.5 ssh-ed25519 {KEY}\n")
    shown = "SHA256:" + "x" * 43

    error = explain_ssh(
        LOGIN,
        "@@@@@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"
        f"The fingerprint for the ED25519 key sent by the remote host is\n{shown}.\n"
        f"Offending ED25519 key in {record}:2\nHost key verification failed.",
    )

    assert error.reference == "ssh-host-key-changed"
    assert error.context[0] == f"The key it showed ({shown}) is not the one on record ({fingerprint(KEY)})."
    assert "provision trust rig-05" in (error.hint or "")


def test_fingerprint_is_what_ssh_keygen_prints() -> None:
    """The value was taken from `ssh-keygen -lf`."""
    assert fingerprint(KEY) == "SHA256:CSta9ff6XOuj2i/ri3Av4CHopWu8pgbbj5qtMcMmWLs"


@pytest.mark.parametrize(
    ("stderr", "reference"),
    [
        ("sudo: a password is required", "sudo-password-needed"),
        ("sudo: a terminal is required to read the password", "sudo-password-needed"),
        ("op is not in the sudoers file.", "sudo-not-allowed"),
        ("Sorry, user op is not allowed to execute '/usr/bin/python3' as root on rig-05.", "sudo-not-allowed"),
        ("sudo: 3 incorrect password attempts", "sudo-password-wrong"),
        ("bash: line 1: sudo: command not found", "sudo-not-installed"),
        ("env: 'sudo': No such file or directory", "sudo-not-installed"),
    ],
)
def test_each_refusal_of_sudo_has_its_own_words(stderr: str, reference: str) -> None:
    """And whatever is not sudo's is left to others."""
    error = explain_become(LOGIN, stderr)

    assert error is not None
    assert error.reference == reference
    assert explain_become(LOGIN, "python3: can't open file") is None


# Variables and arguments.


def test_variables_are_those_of_ansible(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that Ansible's ssh plugin and sudo read of a host."""
    monkeypatch.setenv("HOME", "/home/op")

    target = Target.from_variables(
        "rig-01",
        {
            "ansible_host": "10.0.0.5",
            "ansible_port": "2222",
            "ansible_user": "op",
            "ansible_ssh_private_key_file": "~/.ssh/rigs",
            "ansible_ssh_common_args": "-o ProxyJump=bastion",
            "ansible_ssh_extra_args": '-o "UserKnownHostsFile=/a b"',
            "ansible_become": "yes",
            "ansible_become_user": "admin",
            "ansible_become_pass": 12345,
            "ansible_python_interpreter": "auto_silent",
        },
    )

    assert target == Target(
        name="rig-01",
        address="10.0.0.5",
        port=2222,
        user="op",
        key_file="/home/op/.ssh/rigs",
        ssh_args=("-o", "ProxyJump=bastion", "-o", "UserKnownHostsFile=/a b"),
        become=True,
        become_user="admin",
        become_password="12345",
        python="/usr/bin/python3",
    )


@pytest.mark.parametrize(
    ("variables", "reference"),
    [
        ({"ansible_connection": "winrm"}, "connection-not-supported"),
        ({"ansible_become": True, "ansible_become_method": "su"}, "become-not-supported"),
        ({"ansible_port": "ssh"}, "bad-port"),
        ({"ansible_port": 70000}, "bad-port"),
        ({"ansible_ssh_common_args": "-o 'x"}, "bad-ssh-args"),
    ],
)
def test_variables_that_cannot_serve_are_refused(variables: dict[str, Any], reference: str) -> None:
    """Before anything is started, with the host's name."""
    with pytest.raises(BadInput, match="rig-01") as caught:
        Target.from_variables("rig-01", variables)

    assert caught.value.reference == reference


def first_values(argv: tuple[str, ...]) -> dict[str, str]:
    """What ssh makes of its arguments: the first value of an option counts."""
    options: dict[str, str] = {}
    for word, value in pairwise(argv):
        if word == "-o":
            name, _, text = value.partition("=")
            options.setdefault(name, text)
    return options


def test_host_keys_are_checked_whatever_the_inventory_says(fake_ssh: Any) -> None:
    """ssh takes the first value of an option, so ours stands first."""
    target = fake_ssh("", ansible_ssh_common_args="-o StrictHostKeyChecking=no -o BatchMode=no")

    options = first_values(ssh.ssh_argv(target))

    assert (options["StrictHostKeyChecking"], options["BatchMode"]) == ("yes", "yes")


def test_own_sharing_of_the_inventory_wins(fake_ssh: Any) -> None:
    """Ansible leaves a ControlPath of the inventory alone; so do we, and both use the same socket."""
    target = fake_ssh("", ansible_ssh_common_args="-o ControlPath=/run/mine -o ControlPersist=1h")

    options = first_values(ssh.ssh_argv(target))

    assert (options["ControlPath"], options["ControlPersist"]) == ("/run/mine", "1h")


def test_address_is_never_an_option(fake_ssh: Any) -> None:
    """A host named like an option is an address all the same."""
    assert ssh.ssh_argv(fake_ssh("", ansible_host="-oProxyCommand=x"))[-2:] == ("--", "-oProxyCommand=x")


def test_ansible_finds_the_same_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ansible's own ssh plugin, given our settings, comes to our ControlPath."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = Path("/tmp") / f"p{os.getpid()}"
    monkeypatch.setattr(ssh, "control_dir", lambda: folder)
    settings = ssh.ansible_ssh_settings()

    theirs = settings["ANSIBLE_SSH_CONTROL_PATH"] % {"directory": settings["ANSIBLE_SSH_CONTROL_PATH_DIR"]}

    assert theirs == first_values(ssh.ssh_argv(Target("rig-01", "10.0.0.5")))["ControlPath"]
    assert "ControlPersist=60s" in shlex.split(settings["ANSIBLE_SSH_ARGS"])


def test_sockets_lie_in_a_private_short_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A path that is too long, or a folder that others can write to, is passed over."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp/" + "x" * 80)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ("y" * 80)))
    shared = Path("/tmp") / f"provision-test-{os.getpid()}"
    shared.mkdir()
    try:
        monkeypatch.setattr("tempfile.gettempdir", lambda: str(shared))
        folder = ssh.control_dir()
        assert folder == shared / f"provision-{os.getuid()}"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.chmod(0o777)
        assert ssh.control_dir() != folder
        folder.rmdir()
    finally:
        shared.rmdir()
