"""The lock: the same bytes every time, read back exactly, and strict about what it does not know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import worlds

from provisioner.errors import BadInput
from provisioner.model.intent import Intent
from provisioner.model.stack import HostLock, Lock
from provisioner.resolve import solve
from provisioner.resolve.lock import LARGEST, check_matrix, lock_digest, lock_text, make_lock, parse_lock, read_lock


def locked(*cards: str) -> HostLock:
    answer = solve(worlds.host("debian-12", *(cards or ("rtx-3090",))), Intent(networks=("akash",)), worlds.matrix())
    assert isinstance(answer, HostLock)
    return answer


@pytest.fixture(scope="module")
def lock() -> Lock:
    return make_lock({"rig-02": locked("tesla-t4"), "rig-01": locked()}, worlds.matrix().digest)


def test_a_lock_reads_back_as_it_was_written(lock: Lock) -> None:
    assert parse_lock(lock_text(lock), "provision.lock") == lock


def test_the_same_hosts_give_the_same_bytes_in_any_order(lock: Lock) -> None:
    turned = make_lock({"rig-01": locked(), "rig-02": locked("tesla-t4")}, worlds.matrix().digest)
    assert lock_text(turned) == lock_text(lock)


def test_a_lock_of_format_1_is_read_as_one_without_toolkit(lock: Lock) -> None:
    """Format 2 only adds keys that may be left out, and these hosts have none of them."""
    data = json.loads(lock_text(lock))
    assert data["format"] == 2

    assert parse_lock(json.dumps(data | {"format": 1}), "x").hosts == lock.hosts


def test_a_package_is_one_line_so_that_a_diff_shows_what_moved(lock: Lock) -> None:
    lines = [line for line in lock_text(lock).splitlines() if '"name": "libcuda1"' in line]
    assert len(lines) == 2
    assert all('"version": "535.261.03-1"' in line and '"sha256"' in line for line in lines)


def test_entries_of_other_hosts_stay_and_are_marked_when_another_matrix_made_them(lock: Lock) -> None:
    more = make_lock({"rig-03": locked()}, lock.matrix, before=lock)
    assert (list(more.hosts), more.older) == (["rig-01", "rig-02", "rig-03"], {})

    anew = make_lock({"rig-03": locked()}, "0" * 64, before=more)
    assert list(anew.hosts) == ["rig-01", "rig-02", "rig-03"]
    assert anew.older == {"rig-01": lock.matrix, "rig-02": lock.matrix}
    assert parse_lock(lock_text(anew), "provision.lock") == anew

    again = make_lock({"rig-01": locked()}, "0" * 64, before=anew)
    assert again.older == {"rig-02": lock.matrix}
    assert make_lock({}, lock.matrix, before=again).older == {"rig-01": "0" * 64, "rig-03": "0" * 64}


def test_hosts_of_one_kind_share_one_entry_in_the_file(lock: Lock) -> None:
    """Written once, read back as one value, whatever the order of the hosts."""
    two = make_lock({"rig-00": locked(), "rig-03": locked()}, lock.matrix, before=lock)
    text = lock_text(two)

    assert json.loads(text)["hosts"]["rig-01"] == {"same_as": "rig-00"}
    assert json.loads(text)["hosts"]["rig-03"] == {"same_as": "rig-00"}
    again = parse_lock(text, "provision.lock")
    assert again == two
    assert again.hosts["rig-03"] is again.hosts["rig-00"]
    assert lock_text(again) == text


def test_a_lock_of_a_hundred_thousand_hosts_is_small_enough_to_be_read(lock: Lock) -> None:
    """Two hundred kinds, five hundred of each: the file grows with kinds."""
    kinds = [lock.hosts["rig-01"].model_copy(update={"kernels": (f"6.1.0-{n}-amd64",)}) for n in range(200)]
    fleet = make_lock({f"rig-{n:06}": kinds[n % 200] for n in range(100_000)}, lock.matrix)
    text = lock_text(fleet)

    assert len(text.encode()) < LARGEST / 20
    again = parse_lock(text, "provision.lock")
    assert len(again.hosts) == 100_000
    assert len({id(entry) for entry in again.hosts.values()}) == 200
    assert again.hosts["rig-099999"].kernels == ("6.1.0-199-amd64",)


def test_the_digest_of_an_entry_is_its_own(lock: Lock) -> None:
    again = parse_lock(lock_text(lock), "x")
    assert lock_digest(lock.hosts["rig-01"]) == lock_digest(again.hosts["rig-01"])
    assert lock_digest(lock.hosts["rig-01"]) != lock_digest(lock.hosts["rig-02"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda d: d["hosts"]["rig-01"].update(colour="red"),
            "provision.lock: hosts.rig-01.colour: this key is not known",
        ),
        (lambda d: d["hosts"]["rig-01"].pop("os"), "provision.lock: hosts.rig-01.os: this key is missing"),
        (lambda d: d.pop("matrix"), "provision.lock: matrix: this key is missing"),
        (lambda d: d.update(format=3), "provision.lock: format: Input should be 1 or 2"),
        (
            lambda d: d["hosts"].update({"rig-03": {"same_as": "rig-04"}}),
            'provision.lock: hosts.rig-03.same_as: "rig-04" is no host with an entry of its own',
        ),
        (
            lambda d: d["hosts"].update({"rig-03": {"same_as": "rig-04"}, "rig-04": {"same_as": "rig-03"}}),
            'provision.lock: hosts.rig-03.same_as: "rig-04" is no host with an entry of its own',
        ),
        (
            lambda d: d["hosts"].update({"rig-03": {"same_as": ["rig-01"]}}),
            'provision.lock: hosts.rig-03.same_as: ["rig-01"] is no host with an entry of its own',
        ),
        (
            lambda d: d["hosts"].update({"rig-03": {**d["hosts"]["rig-01"], "same_as": "rig-01"}}),
            "provision.lock: hosts.rig-03.same_as: this key is not known",
        ),
    ],
)
def test_a_lock_with_a_wrong_key_names_file_and_key(lock: Lock, change: object, words: str) -> None:
    data = json.loads(lock_text(lock))
    change(data)  # type: ignore[operator]  # one of the lambdas above
    with pytest.raises(BadInput) as caught:
        parse_lock(json.dumps(data), "provision.lock")
    assert caught.value.message == words


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 1, "format": 1}', "hosts: {}", "[" * 100_000, '{"a": "\ud800"}']
)
def test_what_is_no_lock_is_bad_input(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_lock(text, "provision.lock")
    assert caught.value.reference == "lock-not-valid"
    assert "provision.lock" in caught.value.message


def test_a_missing_lock_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read_lock(tmp_path / "provision.lock")
    assert caught.value.reference == "lock-not-found"
    assert "provision resolve" in (caught.value.hint or "")


def test_a_lock_made_with_another_matrix_is_refused(lock: Lock) -> None:
    check_matrix(lock, lock.matrix, "provision.lock")
    with pytest.raises(BadInput) as caught:
        check_matrix(lock, "f" * 64, "provision.lock")
    assert caught.value.reference == "lock-other-matrix"
    assert "provision resolve" in (caught.value.hint or "")
