"""Inventories as people write them, read through Ansible; wrong intent is told with file, line and key."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from provisioner.adapters.ansible_inventory import start
from provisioner.adapters.inventory import read, typed
from provisioner.errors import BadInput

INI = """\
[rigs]
rig-01 ansible_host=192.0.2.1 provision_networks='["akash"]'
rig-02 ansible_host=192.0.2.2

[rigs:vars]
ansible_user=operator
"""

YAML = """\
all:
  vars:
    site: berlin
  children:
    rigs:
      hosts:
        rig-01: {ansible_host: 192.0.2.1}
        rig-02: {ansible_host: 192.0.2.2, provision_networks: [ionet]}
"""


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_ini(tmp_path: Path) -> None:
    """Hosts, group variables and a JSON list in an ini file read as in Ansible."""
    hosts = read((write(tmp_path / "hosts.ini", INI),))

    assert [host.name for host in hosts] == ["rig-01", "rig-02"]
    assert hosts[0].intent.networks == ("akash",)
    assert hosts[1].intent.networks == ()
    assert hosts[1].variables["ansible_user"] == "operator"


def test_folder_with_group_and_host_variables(tmp_path: Path) -> None:
    """host_vars win over group_vars, and both are found beside the inventory."""
    source = write(tmp_path / "hosts.yml", YAML)
    write(tmp_path / "group_vars" / "rigs.yml", "provision_networks: [akash, lium]\nprovision_cuda: '12.2'\n")
    write(tmp_path / "host_vars" / "rig-01.yml", "provision_networks: [render]\n")

    hosts = read((source,))

    assert hosts[0].intent.networks == ("render",)
    assert hosts[0].intent.cuda == "12.2"
    assert hosts[1].intent.networks == ("ionet",)  # a host's own variable wins over its group's
    assert hosts[0].variables["site"] == "berlin"


def test_dynamic_script(tmp_path: Path) -> None:
    """An executable that prints JSON is an inventory too."""
    script = Path(
        write(
            tmp_path / "inventory.py",
            f"""#!{sys.executable}
import json
hostvars = {{"rig-09": {{"provision_networks": ["akash"]}}}}
print(json.dumps({{"rigs": {{"hosts": ["rig-09"]}}, "_meta": {{"hostvars": hostvars}}}}))
""",
        )
    )
    script.chmod(0o755)

    (host,) = read((str(script),))

    assert (host.name, host.intent.networks) == ("rig-09", ("akash",))


def test_vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables in a vault are read with the password file that Ansible itself would use."""
    source = write(tmp_path / "hosts.yml", YAML)
    secret = write(
        tmp_path / "group_vars" / "rigs.yml", "provision_driver: '535'\nansible_become_password: swordfish\n"
    )
    password = write(tmp_path / "password", "correct horse\n")
    subprocess.run(
        [str(Path(sys.executable).parent / "ansible-vault"), "encrypt", "--vault-password-file", password, secret],
        check=True,
        capture_output=True,
    )
    monkeypatch.setattr("ansible.constants.DEFAULT_VAULT_PASSWORD_FILE", password)

    hosts = read((source,))

    assert hosts[0].intent.driver == "535"
    assert hosts[0].variables["ansible_become_password"] == "swordfish"


def test_templates_in_intent(tmp_path: Path) -> None:
    """A Jinja expression in a provision_ variable is resolved as Ansible would."""
    source = write(
        tmp_path / "hosts.yml",
        "all:\n  vars: {branch: 535}\n  hosts:\n    rig-01: {provision_driver: '{{ branch }}.261.03'}\n",
    )

    assert read((source,))[0].intent.driver == "535.261.03"


def test_login_settings_of_ansible_cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """remote_user, key and become of ansible.cfg hold where no variable says otherwise."""
    source = write(tmp_path / "hosts.yml", YAML)
    write(tmp_path / "host_vars" / "rig-02.yml", "ansible_user: root\n")
    monkeypatch.setattr("ansible.constants.DEFAULT_REMOTE_USER", "operator")
    monkeypatch.setattr("ansible.constants.DEFAULT_BECOME", True)

    first, second = read((source,))

    assert (first.variables["ansible_user"], first.variables["ansible_become"]) == ("operator", True)
    assert second.variables["ansible_user"] == "root"


def test_limit(tmp_path: Path) -> None:
    """--limit takes Ansible's patterns."""
    source = write(tmp_path / "hosts.yml", YAML)

    assert [host.name for host in read((source,), "rigs:!rig-01")] == ["rig-02"]


def test_nothing_matches(tmp_path: Path) -> None:
    """A pattern that matches nothing is an error, not an empty success."""
    source = write(tmp_path / "hosts.yml", YAML)

    with pytest.raises(BadInput) as caught:
        read((source,), "rig-77")

    assert caught.value.reference == "no-host"


def test_unknown_key_names_file_line_and_nearest(tmp_path: Path) -> None:
    """A misspelt variable is told with where it stands and what was probably meant."""
    source = write(tmp_path / "hosts.yml", YAML)
    write(tmp_path / "group_vars" / "rigs.yml", "# what we serve\nprovision_netwroks: [akash]\n")

    with pytest.raises(BadInput) as caught:
        read((source,))

    assert caught.value.reference == "intent-unknown-key"
    assert f"written in {tmp_path}/group_vars/rigs.yml:2" == caught.value.context[0]
    assert caught.value.hint == "did you mean provision_networks?"


def test_wrong_value_names_file_and_key(tmp_path: Path) -> None:
    """A value of the wrong kind is told with its key, however deep."""
    source = write(tmp_path / "hosts.yml", YAML)
    write(tmp_path / "host_vars" / "rig-01.yml", "provision_policy:\n  reboot: sometimes\n")

    with pytest.raises(BadInput) as caught:
        read((source,))

    assert "rig-01: provision_policy.reboot:" in caught.value.message
    assert f"written in {tmp_path}/host_vars/rig-01.yml:1" == caught.value.context[0]


@pytest.mark.parametrize("line", ["provision_tunnel: wireguard", "provision_policy: {drain_timeout_minutes: 5}"])
def test_what_is_not_there_yet_is_refused(tmp_path: Path, line: str) -> None:
    """A wish that nothing would act on is an error, not a silent promise."""
    source = write(tmp_path / "hosts.yml", YAML)
    write(tmp_path / "group_vars" / "rigs.yml", line + "\n")

    with pytest.raises(BadInput) as caught:
        read((source,))

    assert caught.value.reference == "intent-not-valid"


@pytest.mark.parametrize("text", ["all:\n  hosts: [rig-01\n", "all: {hosts: {rig-01: {x: !!python/object:os.x {}}}}\n"])
def test_malformed_inventory(tmp_path: Path, text: str) -> None:
    """What Ansible cannot parse stops the command before anything is looked at."""
    source = write(tmp_path / "hosts.yml", text)

    with pytest.raises(BadInput) as caught:
        read((source,))

    assert caught.value.reference == "inventory-not-valid"
    assert any("hosts.yml" in line for line in caught.value.context)


def test_missing_inventory() -> None:
    """A path that is not there is told before Ansible is asked."""
    with pytest.raises(BadInput, match=r"there is no inventory at nowhere\.yml"):
        read(("nowhere.yml",))


def test_this_machine_without_inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no source the machine itself is the host, its intent in provision.yml."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "provision.yml", "provision_networks: [akash]\n")

    (host,) = read(())

    assert host.variables["ansible_connection"] == "local"
    assert host.intent.networks == ("akash",)


def test_reading_aside_gives_the_same(tmp_path: Path) -> None:
    """Another process may read while we import; hosts, order and variables are the same."""
    source = write(tmp_path / "hosts.yml", YAML)
    write(tmp_path / "group_vars" / "rigs.yml", "provision_networks: [akash]\nreleased: 2026-11-24\n")

    assert typed((source,), start((source,), None)()) == read((source,))


@pytest.mark.parametrize(("text", "limit"), [("all: [", None), (YAML, "rig-77")])
def test_reading_aside_fails_in_the_same_words(
    tmp_path: Path, text: str, limit: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """What cannot be read is told once, as an error of ours, wherever it was read."""
    source = write(tmp_path / "hosts.yml", text)

    with pytest.raises(BadInput) as plain:
        read((source,), limit)
    with pytest.raises(BadInput) as aside:
        start((source,), limit)()

    assert (aside.value.reference, aside.value.message) == (plain.value.reference, plain.value.message)
    assert "Traceback" not in capfd.readouterr().err
