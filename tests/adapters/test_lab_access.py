"""What `lab up` writes: an ordinary inventory and ssh files, beside which a user's own files are left alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provisioner.adapters.lab import access

ENTRIES = [
    access.Entry("rig-01", "10.213.0.10", ("ssh-ed25519 AAAA", "ecdsa-sha2-nistp256 BBBB"), "bookworm"),
    access.Entry("rig-02", "10.213.0.11", ("ssh-ed25519 CCCC",), "trixie, 2 simulated GPU"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A lab's folder with its key, under a name that needs quoting."""
    folder = tmp_path / "a lab"
    access.ensure_key(folder, "test")
    return folder


def test_ansible_reads_the_inventory(folder: Path) -> None:
    """provision's own reader, which is Ansible's, finds the hosts and their login."""
    from provisioner.adapters.inventory import read

    hosts = read((str(access.write(folder, ENTRIES)),))

    assert [(h.name, h.variables["ansible_host"]) for h in hosts] == [
        ("rig-01", "10.213.0.10"),
        ("rig-02", "10.213.0.11"),
    ]
    assert hosts[0].variables["ansible_user"] == "operator"
    assert "StrictHostKeyChecking=yes" in hosts[0].variables["ansible_ssh_common_args"]


def test_ssh_takes_the_config(folder: Path) -> None:
    """OpenSSH itself resolves a host by the written config."""
    access.write(folder, ENTRIES)

    told = subprocess.run(
        ["ssh", "-G", "-F", str(folder / "ssh/config"), "rig-02"], capture_output=True, text=True, check=True
    ).stdout

    assert "hostname 10.213.0.11\n" in told
    assert "stricthostkeychecking true\n" in told
    assert f"userknownhostsfile {folder / 'ssh/known_hosts'}" in told.replace('"', "")


def test_known_hosts_names_host_and_address(folder: Path) -> None:
    access.write(folder, ENTRIES)

    assert (folder / "ssh/known_hosts").read_text().splitlines() == [
        "rig-01,10.213.0.10 ssh-ed25519 AAAA",
        "rig-01,10.213.0.10 ecdsa-sha2-nistp256 BBBB",
        "rig-02,10.213.0.11 ssh-ed25519 CCCC",
    ]


def test_key_is_made_once_and_only_for_its_owner(folder: Path) -> None:
    before = access.key_path(folder).read_bytes()

    access.ensure_key(folder, "test")

    assert access.key_path(folder).read_bytes() == before
    assert access.key_path(folder).stat().st_mode & 0o777 == 0o600


def test_removal_leaves_what_a_user_added(folder: Path) -> None:
    access.write(folder, ENTRIES)
    (folder / "group_vars").mkdir()
    (folder / "group_vars/lab.yml").write_text("provision_networks: [akash]\n")

    access.remove(folder)

    assert sorted(p.name for p in folder.iterdir()) == ["group_vars"]


def test_removal_of_an_untouched_lab_leaves_nothing(folder: Path) -> None:
    access.write(folder, ENTRIES)

    access.remove(folder)

    assert not folder.exists()
