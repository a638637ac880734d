"""Nebula's certificates: who takes which key when, and whose certificate counts no more."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from provisioner.errors import BadInput
from provisioner.model.intent import Intent
from provisioner.model.resource import Guarded, KeyPair
from provisioner.model.stack import Lock
from provisioner.model.tunnel import Tunnel, TunnelLock
from provisioner.tunnels import certificates, nebula
from provisioner.tunnels.assign import Member, assign
from provisioner.tunnels.contract import Own
from provisioner.tunnels.lock import removed, rotated, steps_of_rotation
from tests.world import entry

# What nebula-cert 1.6.1 of Debian 12 made, twice for one host of the same authority.
CA = """-----BEGIN NEBULA CERTIFICATE-----
CjsKCXByb3Zpc2lvbijOubLYBjDOv+LuBzogoktotm52QDYc1Jz4DKS/eQhg2Hyp
zBV96ReNpqUWc31AARJABxGa0pi2Cif2l4zjqxurFDriHgOI725nB03XybGTkHbJ
YmNELmd7tbET9ComLd6ae83p9sY8OGxK2nrgoMWLBg==
-----END NEBULA CERTIFICATE-----
"""
FIRST = """-----BEGIN NEBULA CERTIFICATE-----
CmAKA3JpZxIJgoDcUoD+//8PKM65stgGMM2/4u4HOiD/xI9iQJLgEhbKq3TTBWtz
CUIR8Ba7bETuZU0ZRQ5dH0og4hnVcMPikeEuI4Rc231UtALH8TKpBoxMF0kPCC+g
YAISQFhgWcKtkWj6z4Ij1Pv5Iv2Utc5FZZd1fTVKfwNRarAdMCzHeyJ0w/yzD+V9
q26wApshVlfBQR06pZXn9mYbqAE=
-----END NEBULA CERTIFICATE-----
"""
SECOND = """-----BEGIN NEBULA CERTIFICATE-----
CmAKA3JpZxIJgoDcUoD+//8PKO+6stgGMM2/4u4HOiDaEMfD8wcDevTRwkFLZWgb
ZcZ3ir7Fjo+9f2F1hLseYkog4hnVcMPikeEuI4Rc231UtALH8TKpBoxMF0kPCC+g
YAISQFD+coVKbnjmbuUGzuJxWwLV0q/dkPgAiEUc0JFgIRKapD46zYXGcaon9Nm1
EebX7hGuhLHfyAVuP6uqPao8aQ8=
-----END NEBULA CERTIFICATE-----
"""
KEYS = {
    1: "-----BEGIN NEBULA X25519 PUBLIC KEY-----\n/8SPYkCS4BIWyqt00wVrcwlCEfAWu2xE7mVNGUUOXR8=\n"
    "-----END NEBULA X25519 PUBLIC KEY-----",
    2: "-----BEGIN NEBULA X25519 PUBLIC KEY-----\n2hDHw/MHA3r00cJBS2VoG2XGd4q+xY6PvX9hdYS7HmI=\n"
    "-----END NEBULA X25519 PUBLIC KEY-----",
}
PRINTS = {
    1: "a3b5dc721d31410ba3a0edd8e461201acf88c1ac687d11397c53c4fe052c01d4",
    2: "d08d835552ae0001669104cce0563b4b0af65143d2cbc9ab22e9766ff567d643",
}
HUB = {"kind": "nebula", "role": "hub", "endpoint": "203.0.113.1:4242", "range": "10.87.0.0/24"}


def given(own: str) -> str:
    """As a hub hands it out: the authority, an empty line, the host's own."""
    return f"{CA}\n{own}"


def hub(**more: object) -> Member:
    return Member("hub", Tunnel.model_validate(HUB), keys={1: "HUB"}, **more)  # type: ignore[arg-type]


def rig(name: str = "rig", **more: object) -> Member:
    keys = more.pop("keys", {1: KEYS[1]})
    return Member(name, Tunnel.model_validate({"kind": "nebula", "hub": "hub"}), keys=keys, **more)  # type: ignore[arg-type]


def joined() -> dict[str, TunnelLock]:
    first = assign([hub(), rig()])
    return assign([hub(before=first["hub"]), rig(before=first["rig"], certificate=given(FIRST))])


def test_fingerprint_and_key_are_those_that_nebula_cert_prints() -> None:
    assert certificates.fingerprint(given(FIRST)) == PRINTS[1]
    assert (certificates.holds(given(FIRST), KEYS[1]), certificates.holds(given(FIRST), KEYS[2])) == (True, False)


@pytest.mark.parametrize("text", ["", "no certificate", f"{CA}\nno certificate", f"{CA}\n{FIRST[:90]}"])
def test_what_is_no_certificate_holds_nothing(text: str) -> None:
    assert (certificates.fingerprint(text), certificates.holds(text, KEYS[1])) == (None, False)


def test_a_host_waits_for_a_certificate_of_its_own_key() -> None:
    """One for another key, as after a reinstallation, would not even let the program start."""
    first = assign([hub(), rig()])
    assert not first["rig"].complete

    other = assign([hub(before=first["hub"]), rig(before=first["rig"], certificate=given(SECOND))])
    assert not other["rig"].complete
    assert joined()["rig"].complete


def test_a_new_key_is_signed_before_it_is_taken() -> None:
    """The rig goes on with what it has until its hub has signed; then both move, and the old certificate ends."""
    before = joined()
    asked = before["rig"].model_copy(update={"next_generation": 2})
    made = [r.path for r in nebula.resources(Own("rig", rig().wish, asked)) if isinstance(r, KeyPair)]
    assert made == ["/etc/nebula/provision/prov0.key", "/etc/nebula/provision/prov0.2.key"]

    collected = assign([hub(before=before["hub"]), rig(before=asked, keys=KEYS, certificate=given(FIRST))])
    assert (collected["rig"].generation, collected["rig"].next_generation, collected["rig"].complete) == (1, 2, True)
    assert collected["hub"].peers[0].public_key == KEYS[2]
    assert collected["hub"].blocked == ()

    unseen = assign([hub(before=collected["hub"]), rig(before=collected["rig"], keys=None)])
    assert unseen["hub"].peers[0].public_key == KEYS[2]

    signed = assign([hub(before=collected["hub"]), rig(before=collected["rig"], keys=KEYS, certificate=given(SECOND))])
    assert (signed["rig"].generation, signed["rig"].next_generation) == (2, None)
    assert signed["rig"].blocked == signed["hub"].blocked == (f"rig {PRINTS[1]}",)
    assert "prov0.2.crt" in nebula.config(Own("rig", rig().wish, signed["rig"]))


def lock_of(found: dict[str, TunnelLock], *members: Member) -> Lock:
    wishes = {member.host: member.wish for member in members}
    hosts = {
        name: entry(intent=Intent(tunnel=wishes[name]), networks={}).model_copy(update={"tunnel": tunnel})
        for name, tunnel in found.items()
    }
    return Lock(made_by="x", matrix="m", hosts=hosts)


def test_a_removed_host_is_refused_by_every_other() -> None:
    """Its certificate is valid for years; the others are told its fingerprint, and keep it."""
    first = assign([hub(), rig(), rig("other", keys={1: "OTHER"})])
    members = [hub(before=first["hub"]), rig(before=first["rig"], certificate=given(FIRST)), rig("other", keys=None)]
    found = assign([*members[:2], replace(members[2], before=first["other"])])
    without = removed(lock_of(found, *members), "rig")
    locks = {name: one.tunnel for name, one in without.hosts.items()}

    assert {name: lock.blocked for name, lock in locks.items() if lock is not None} == {
        "hub": (f"rig {PRINTS[1]}",),
        "other": (f"rig {PRINTS[1]}",),
    }
    again = assign([hub(before=locks["hub"]), rig("other", keys=None, before=locks["other"])])
    text = nebula.config(Own("hub", hub().wish, again["hub"]))
    assert yaml.safe_load(text)["pki"]["blocklist"] == [PRINTS[1]]
    assert yaml.safe_load(text)["pki"]["disconnect_invalid"] is True


def test_an_address_that_is_signed_stays() -> None:
    before = joined()
    with pytest.raises(BadInput, match=r"its certificate says 10\.87\.0\.2") as problem:
        wish = Tunnel.model_validate({"kind": "nebula", "hub": "hub", "address": "10.87.0.9"})
        assign([hub(before=before["hub"]), replace(rig(before=before["rig"]), wish=wish)])
    assert problem.value.reference == "tunnel-address-signed"


def test_the_steps_of_a_rotation_are_said_in_order() -> None:
    """Nebula needs its hub's signature in between."""
    lock = rotated(lock_of(joined(), hub(), rig()), "rig")

    assert [command for command, _ in steps_of_rotation(lock, "rig")] == [
        "provision apply --limit rig",
        "provision resolve --limit hub,rig",
        "provision apply --limit hub",
        "provision resolve --limit hub,rig",
        "provision apply --limit hub,rig",
    ]
    assert [command for command, _ in steps_of_rotation(lock, "hub")][-1] == "provision apply --limit hub,rig"


def test_whom_a_hub_would_cut_off_if_it_moved_alone() -> None:
    before = joined()
    text = nebula.config(Own("hub", hub().wish, before["hub"]))
    blocked = before["hub"].model_copy(update={"blocked": (f"rig {PRINTS[1]}",)})

    assert nebula.cut_off(text, before["hub"]) == []
    assert nebula.cut_off(text, blocked) == ["rig"]
    assert nebula.cut_off(text, before["hub"].model_copy(update={"port": 4300})) == ["rig"]
    assert nebula.cut_off(text, before["hub"].model_copy(update={"peers": ()})) == []  # it was taken out on purpose
    assert nebula.cut_off(text, TunnelLock(kind="none", role="hub")) == ["rig"]


def test_both_versions_of_ip_outside_unless_the_hub_is_known_by_an_address() -> None:
    hosts = {
        end: yaml.safe_load(nebula.config(Own("hub", Tunnel.model_validate({**HUB, "endpoint": end}), joined()["hub"])))
        for end in ("203.0.113.1:4242", "[2001:db8::1]:4242", "hub.example:4242")
    }

    assert [value["listen"]["host"] for value in hosts.values()] == ["0.0.0.0", "::", "::"]


# The script by which a hub signs, with a nebula-cert that only notes what it is asked.

NEBULA_CERT = """#!/bin/sh
echo "$*" >>"$NOTES"
while [ $# -gt 1 ]; do case "$1" in -out-crt|-out-key) echo "made $$" >"$2";; esac; shift; done
"""


def sign(folder: Path, lock: TunnelLock) -> list[str]:
    """Run the script of a hub in a folder; returns what nebula-cert was asked this time."""
    own = Own("hub", hub().wish, lock)
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin/nebula-cert").write_text(NEBULA_CERT)
    (folder / "bin/nebula-cert").chmod(0o755)
    state = folder / "state"
    (state / "asked").mkdir(parents=True, exist_ok=True)
    (state / "prov0.pub").write_text("HUB\n")
    for change in (r for r in nebula.resources(own) if isinstance(r, Guarded)):
        for file in change.files:
            if "/asked/" in file.path and file.content is not None:
                (state / "asked" / Path(file.path).name).write_text(file.content)
    notes = folder / "notes"
    notes.write_text("")
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "NOTES": str(notes)}
    script = nebula.signing(own).replace(nebula.FOLDER, str(state))
    subprocess.run(["/bin/sh", "-c", script], env=environment, check=True)
    return [" ".join(line.split()[:1] + line.split()[5:9]) for line in notes.read_text().splitlines()]


def test_a_hub_signs_once_for_each_key_and_address(tmp_path: Path) -> None:
    lock = joined()["hub"]
    first = sign(tmp_path, lock)
    assert [line for line in first if line.startswith("sign")] == [
        "sign -name hub -ip 10.87.0.1/24",
        "sign -name rig -ip 10.87.0.2/24",
    ]
    assert (tmp_path / "state/signed/rig.crt").read_text().startswith("made ")
    assert sign(tmp_path, lock) == []

    peer = lock.peers[0].model_copy(update={"public_key": KEYS[2]})
    assert sign(tmp_path, lock.model_copy(update={"peers": (peer,)})) == ["sign -name rig -ip 10.87.0.2/24"]


def test_who_is_gone_has_no_certificate_on_the_hub(tmp_path: Path) -> None:
    """Should it come back with the same key, it is signed anew: the certificate of before is refused everywhere."""
    lock = joined()["hub"]
    sign(tmp_path, lock)
    assert sign(tmp_path, lock.model_copy(update={"peers": ()})) == []
    assert sorted(path.name for path in (tmp_path / "state/signed").iterdir()) == ["hub.crt", "hub.pub"]
    assert sign(tmp_path, lock) == ["sign -name rig -ip 10.87.0.2/24"]
