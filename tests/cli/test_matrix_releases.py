"""Signed releases of the matrix: made, fetched, used; and each attack that the signatures are for, refused."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.adapters.matrix_release import DAYS, ReleaseFolder
from provisioner.adapters.matrix_source import INDEX, address_of
from provisioner.cli.main import main
from provisioner.errors import Exit
from provisioner.matrix.files import contents_of, digest_in_use
from provisioner.matrix.reader import load
from provisioner.model.paths import data_dir
from provisioner.resolve.lock import read_lock
from tests.facts.hosts import CAPTURES

NOW = dt.datetime.now(dt.timezone.utc)
CAPTURE = str(CAPTURES / "debian-12-bare.json")


@pytest.fixture(autouse=True)
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a fleet, an operator's configuration of its own, and `old` and `new`: two small matrices."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROVISION_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("PROVISION_CACHE_DIR", str(tmp_path / "cache"))
    for name, days in (("old", 30), ("new", 31)):
        (tmp_path / name / "rules").mkdir(parents=True)
        (tmp_path / name / "rules/a.yaml").write_text(
            f'id: a\ntitle: A\nabout: drivers\nstatement: a claim\nseen: "2026-11-24"\nconfidence: high\n'
            f"sources: [https://docs.nvidia.com]\nfigures: {{days: {days}}}\n",
            encoding="utf-8",
        )
    return tmp_path


def release(name: str, matrix: str, *, site: str = "site", now: dt.datetime = NOW) -> str:
    folder = Path(matrix)
    return ReleaseFolder(Path(site), Path("keys"), now).publish(name, load(folder).digest, contents_of(folder))


def update(*words: str, code: int = Exit.OK) -> None:
    assert main(["matrix", "update", "site", *words]) == code


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Call it with a reference: the next update must end with that error, and the matrix in use must stay."""

    def check(reference: str) -> str:
        before = digest_in_use()
        capsys.readouterr()
        update(code=Exit.FAILED)
        said = capsys.readouterr().err
        assert f"[{reference}]" in said
        assert digest_in_use() == before
        return said

    return check


def test_a_release_is_fetched_and_used(capsys: pytest.CaptureFixture[str]) -> None:
    root = release("2026.11.25", "old")
    release("2026.11.26", "new")

    update("--trust-root", root)

    assert digest_in_use() == load(Path("new")).digest
    assert load().rules["a"].figures == {"days": 31}
    assert "matrix 2026.11.26" in capsys.readouterr().out


def test_the_shipped_matrix_is_the_default_and_can_be_gone_back_to() -> None:
    shipped = load(data_dir("matrix")).digest
    assert digest_in_use() == shipped
    update("--trust-root", release("1", "old"))
    assert digest_in_use() != shipped

    assert main(["matrix", "use", "shipped"]) == Exit.OK
    assert digest_in_use() == shipped
    assert main(["matrix", "use", load(Path("old")).digest[:12]]) == Exit.OK
    assert digest_in_use() == load(Path("old")).digest
    assert main(["matrix", "use", "0" * 12]) == Exit.BAD_INPUT


def test_a_root_that_nobody_named_is_not_trusted(capsys: pytest.CaptureFixture[str]) -> None:
    root = release("1", "old")

    update(code=Exit.BAD_INPUT)

    said = capsys.readouterr().err
    assert "[matrix-root-unknown]" in said
    assert f"--trust-root {root}" in said
    update("--trust-root", "sha256:" + "0" * 64, code=Exit.BAD_INPUT)
    assert "[matrix-root-other]" in capsys.readouterr().err
    update(code=Exit.BAD_INPUT)


def test_freeze_a_state_past_its_date_is_refused(refused: Callable[[str], str]) -> None:
    """Whoever serves an old, well signed state for ever would hide every later release."""
    root = release("1", "old", now=NOW - dt.timedelta(days=DAYS["timestamp"] + 1))
    update("--trust-root", root, code=Exit.FAILED)

    said = refused("matrix-source-expired")
    assert "timestamp.json is expired" in said

    ReleaseFolder(Path("site"), Path("keys"), NOW).refresh()
    update()
    assert digest_in_use() == load(Path("old")).digest


def test_rollback_an_older_state_than_was_seen_is_refused(refused: Callable[[str], str]) -> None:
    root = release("1", "old")
    shutil.copytree("site", "former")
    release("2", "new")
    update("--trust-root", root)
    shutil.rmtree("site")
    Path("former").rename("site")

    refused("matrix-source-rolled-back")


def test_rollback_of_one_file_behind_a_fresh_timestamp_is_refused(refused: Callable[[str], str]) -> None:
    """The keys that are needed often (timestamp, snapshot) can't bring back an older list of releases."""
    root = release("1", "old")
    release("2", "new")
    update("--trust-root", root)
    thief = ReleaseFolder(Path("site"), Path("keys"), NOW)
    Path("site/metadata/2.targets.json").unlink()
    thief._vouch(1)

    refused("matrix-source-rolled-back")


def test_mix_and_match_parts_of_two_states_are_refused(refused: Callable[[str], str]) -> None:
    """The new snapshot with the former targets under the new name: both are well signed, but not together."""
    root = release("1", "old")
    update("--trust-root", root)
    release("2", "new")
    shutil.copy("site/metadata/1.targets.json", "site/metadata/2.targets.json")

    refused("matrix-source-rolled-back")


def test_mix_and_match_an_older_snapshot_under_a_newer_timestamp_is_refused(refused: Callable[[str], str]) -> None:
    root = release("1", "old")
    update("--trust-root", root)
    release("2", "new")
    shutil.copy("site/metadata/1.snapshot.json", "site/metadata/2.snapshot.json")

    refused("matrix-source-rolled-back")


def test_a_bundle_that_was_altered_is_refused(refused: Callable[[str], str]) -> None:
    root = release("1", "old")
    release("2", "new")
    update("--trust-root", root, "--release", "1")
    bundle = next(Path("site/targets").glob("*.matrix-2.json"))
    bundle.write_bytes(bundle.read_bytes().replace(b"31", b"99"))

    refused("matrix-source-forged")


def test_metadata_of_other_keys_are_refused(refused: Callable[[str], str]) -> None:
    root = release("1", "old")
    update("--trust-root", root)
    shutil.rmtree("keys")
    release("1", "old", site="other")
    release("2", "new", site="other")
    for path in Path("other/metadata").glob("[!0-9]*.json"):
        shutil.copy(path, "site/metadata")

    refused("matrix-source-forged")


def test_a_source_that_is_gone(refused: Callable[[str], str]) -> None:
    update("--trust-root", release("1", "old"))
    shutil.rmtree("site")

    refused("matrix-source-unreachable")


def test_a_new_root_signed_by_the_former_is_followed() -> None:
    """Roots are renewed before they end; who trusted the first one need not be asked again."""
    update("--trust-root", release("1", "old", now=NOW - dt.timedelta(days=1)))
    later = NOW + dt.timedelta(days=DAYS["root"] * 2 // 3)
    ReleaseFolder(Path("site"), Path("keys"), later).refresh()
    assert Path("site/metadata/2.root.json").exists()
    release("2", "new")

    update()
    assert digest_in_use() == load(Path("new")).digest


def test_a_kept_release_that_was_altered_is_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    update("--trust-root", release("1", "old"))
    digest = digest_in_use()
    file = Path(".provision/matrix") / digest / "rules/a.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("30", "31"), encoding="utf-8")
    capsys.readouterr()

    assert main(["matrix", "list"]) == Exit.BAD_INPUT
    assert "[matrix-release-altered]" in capsys.readouterr().err


def test_a_release_never_changes(capsys: pytest.CaptureFixture[str]) -> None:
    for matrix in ("old", "new"):
        code = main(["matrix", "release", "site", "--keys", "keys", "--release", "1", "--matrix", matrix])
        assert code == (Exit.OK if matrix == "old" else Exit.BAD_INPUT)
    assert "[matrix-release-there]" in capsys.readouterr().err
    assert {oct(path.stat().st_mode & 0o777) for path in Path("keys").iterdir()} == {"0o600"}


def test_a_matrix_with_errors_is_not_released(capsys: pytest.CaptureFixture[str]) -> None:
    (Path("old") / "rules/a.yaml").write_text("id: a\ntitle: A\n", encoding="utf-8")

    assert main(["matrix", "release", "site", "--keys", "keys", "--release", "1", "--matrix", "old"]) == Exit.FAILED
    assert "[matrix-not-fit]" in capsys.readouterr().err
    assert not Path("site").exists()


def test_the_lock_pins_the_release_and_brings_it_back(capsys: pytest.CaptureFixture[str]) -> None:
    """Resolved with one release; with another in use no plan is made, and `update --lock` brings it back."""
    shutil.rmtree("new")
    shutil.copytree(data_dir("matrix"), "new", ignore=shutil.ignore_patterns("cases"))
    (Path("new") / "rules/a.yaml").write_text(Path("old/rules/a.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    update("--trust-root", release("1", "new"))
    assert main(["resolve", "--capture", CAPTURE]) == Exit.OK
    assert read_lock(Path("provision.lock")).matrix == load(Path("new")).digest
    shutil.rmtree("old/rules")
    (Path("old") / "rules").mkdir()
    shutil.copy("new/rules/a.yaml", "old/rules/a.yaml")
    release("2", "old")
    update()
    capsys.readouterr()

    assert main(["plan", "--capture", CAPTURE]) == Exit.BAD_INPUT
    assert "provision matrix update --lock provision.lock" in capsys.readouterr().err
    assert main(["matrix", "update", "--lock", "provision.lock"]) == Exit.OK
    assert "the newest there is 2" in capsys.readouterr().out
    assert digest_in_use() == load(Path("new")).digest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"format": 2, "release": "1", "files": {"rules/a.yaml": ""}}',
        b'{"format": 1, "release": "1", "files": {}}',
        b'{"format": 1, "release": "1", "files": {"../../etc/cron.d/a.yaml": ""}}',
        b'{"format": 1, "release": "1", "files": {"rules/../a.yaml": ""}}',
        b'{"format": 1, "release": "1", "files": {"rules/a.yaml": 1}}',
        b'{"format": 1, "release": "1", "files": {"rules/a.yaml": ""}, "run": "x"}',
        b"[" * 100_000,
    ],
)
def test_only_entries_come_out_of_a_bundle(data: bytes) -> None:
    """Even signed, a bundle can write nothing but files of the matrix."""
    from provisioner.errors import BadInput
    from provisioner.matrix.bundle import read_bundle

    with pytest.raises(BadInput) as problem:
        read_bundle(data, "site")
    assert problem.value.reference == "matrix-bad-bundle"


def test_addresses() -> None:
    assert address_of("https://matrix.example.org/rigs/") == "https://matrix.example.org/rigs"
    assert address_of("site").startswith("file:///")
    assert main(["matrix", "update", "ftp://example.org"]) == Exit.BAD_INPUT
    assert main(["matrix", "update"]) == Exit.BAD_INPUT


def test_over_http(capsys: pytest.CaptureFixture[str]) -> None:
    """Any web server that serves the folder will do."""
    import functools
    import http.server
    import threading

    root = release("1", "old")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory="site")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert main(["matrix", "update", url, "--trust-root", root, "--json"]) == Exit.OK
        server.shutdown()

    found = json.loads(capsys.readouterr().out)
    assert (found["release"], found["matrix"]) == ("1", load(Path("old")).digest)
    assert INDEX == "releases.json"
