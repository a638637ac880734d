"""What a third party sees of an enrolment record: the screen, the JSON, the page, and the exit codes."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from provisioner.adapters.enrolled import EnrolledFolder
from provisioner.adapters.signing import Signer, load_or_make
from provisioner.checks.table import CHECKS
from provisioner.cli.main import main
from provisioner.errors import Exit
from tests.enrolments import record, signed


@pytest.fixture
def signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signer:
    monkeypatch.setenv("PROVISION_CONFIG_DIR", str(tmp_path / "third-party"))
    return load_or_make(tmp_path / "operator")


def written(path: Path, signer: Signer, **changes: object) -> Path:
    made = record(
        key=signer.fingerprint, enrolled_at="2020-01-01T00:00:00Z", expires_at="2999-01-01T00:00:00Z", **changes
    )
    made = made.model_copy(update={"signature": base64.b64encode(signer.sign(made.signed_bytes)).decode()})
    path.write_text(made.text)
    return path


def test_a_good_record(tmp_path: Path, signer: Signer, capsys: pytest.CaptureFixture[str]) -> None:
    """With the operator's public key alone: what it states, and that it holds."""
    file = written(tmp_path / "rig-01.json", signer)

    assert main(["attest", "verify", str(file), "--key", str(tmp_path / "operator" / "signing.pub")]) == Exit.OK
    assert capsys.readouterr().out.splitlines() == [
        "rig-01: the record holds until 2999-01-01 00:00 UTC",
        "",
        "  host         rig-01",
        "  serves       akash 0.16.2",
        "  GPUs         1 × NVIDIA GeForce RTX 4090",
        "  driver       535.261.03 (proprietary modules)",
        "  runtime      Docker 20.10.24+dfsg1",
        "  checks       1 passed",
        "  run          r1",
        "  enrolled     2020-01-01 00:00 UTC, by provision 0.1.0",
        "  until        2999-01-01 00:00 UTC",
        f"  machine      {'ab' * 32}",
        "  host key     SHA256:host",
        f"  lock entry   {record().lock_digest}",
        "  matrix       m1",
        f"  signed with  {signer.fingerprint}",
    ]


def test_a_record_of_an_unknown_key(tmp_path: Path, signer: Signer, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the key nothing can be said, and that is not a yes."""
    file = written(tmp_path / "rig-01.json", signer)

    assert main(["attest", "verify", str(file), "--json"]) == Exit.FAILED
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["holds"]) == (1, False)
    assert said["wrong"] == [f"it is signed with {signer.fingerprint}, which is not the key it was compared with"]
    assert said["record"]["stack"]["driver"] == "535.261.03"


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1, "lock_digest": "x"}'])
def test_what_is_no_record(tmp_path: Path, signer: Signer, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad input, named with its file."""
    (tmp_path / "x.json").write_text(text)

    assert main(["attest", "verify", str(tmp_path / "x.json")]) == Exit.BAD_INPUT
    assert "[no-attestation]" in capsys.readouterr().err
    assert main(["attest", "verify", str(tmp_path / "none.json")]) == Exit.BAD_INPUT


class Page(HTMLParser):
    """Every address that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "action")]


def test_the_page_stands_alone(tmp_path: Path, signer: Signer) -> None:
    """No script, nothing fetched, what the file says is text, and the record in it verifies."""
    file = written(tmp_path / "x.json", signer, networks={"<script>": "&1"})
    page = tmp_path / "page.html"
    key = tmp_path / "operator" / "signing.pub"

    assert main(["attest", "report", str(file), "--key", str(key), "-o", str(page)]) == Exit.OK
    html = page.read_text(encoding="utf-8")
    parsed = Page()
    parsed.feed(html)
    assert "script" not in parsed.tags
    assert "&lt;script&gt; &amp;1" in html
    assert all(address.startswith("data:") for address in parsed.fetched)
    [link] = [address for address in parsed.fetched if address.startswith("data:application/json;base64,")]
    again = tmp_path / "again.json"
    again.write_bytes(base64.b64decode(link.partition(",")[2]))
    assert main(["attest", "verify", str(again), "--key", str(key)]) == Exit.OK


def test_the_page_of_an_edited_record_says_so(tmp_path: Path, signer: Signer) -> None:
    """It is written, for whoever wants to see, and the command fails."""
    file = written(tmp_path / "x.json", signer)
    envelope = json.loads(file.read_text())
    envelope["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()
    file.write_text(json.dumps(envelope))
    page = tmp_path / "page.html"

    code = main(["attest", "report", str(file), "--key", str(tmp_path / "operator" / "signing.pub"), "-o", str(page)])
    assert code == Exit.FAILED
    assert "The record does not hold: its signature is wrong: it was edited or damaged." in page.read_text()


def test_unenrol_asks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that runs there would be lost: without a yes nothing is done."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)

    assert main(["unenrol", "rig-01", "-i", "rig-01,"]) == Exit.BAD_INPUT
    assert "[not-confirmed]" in capsys.readouterr().err


def test_days_of_an_enrolment(capsys: pytest.CaptureFixture[str]) -> None:
    """A record of no days, or of years, is a slip."""
    assert main(["enrol", "--days", "0"]) == Exit.BAD_INPUT
    assert "--days 0: between 1 and 366" in capsys.readouterr().err


def test_the_page_has_the_signed_history(tmp_path: Path, signer: Signer) -> None:
    """Each enrolment stays beside the next one; one that was edited is shown as what it is, another host's is not."""
    folder = EnrolledFolder(tmp_path / "enrolled")
    for year, driver in ((2021, "470.256.02"), (2022, "535.261.03"), (2023, "580.95.05")):
        stack = {**record().stack.model_dump(mode="json"), "driver": driver}
        made = record(enrolled_at=f"{year}-01-01T00:00:00Z", expires_at="2999-01-01T00:00:00Z", stack=stack)
        folder.keep(signed(made, signer))
    past = tmp_path / "enrolled" / "past" / "rig-01"
    edited = past / "20220101T000000Z.json"
    whole = json.loads(edited.read_text())
    whole["signatures"][0]["sig"] = base64.b64encode(b"x" * 64).decode()
    edited.write_text(json.dumps(whole))
    (past / "20210601T000000Z.json").write_text(signed(record(host="rig-02"), signer).text)
    (past / "20210701T000000Z.json").write_text("rubbish")

    file, page = tmp_path / "enrolled" / "rig-01.json", tmp_path / "rig-01.html"
    key = str(tmp_path / "operator" / "signing.pub")
    assert main(["attest", "report", str(file), "--key", key, "-o", str(page)]) == Exit.OK

    _, _, part = page.read_text().partition("Enrolled before")
    rows = part.partition("</table>")[0].split("<tr>")[2:]
    assert [row[4:20] for row in rows] == ["2022-01-01 00:00", "2021-01-01 00:00"]
    assert "535.261.03" in rows[0] and "NOT signed" in rows[0]
    assert "470.256.02" in rows[1] and "<td>signed with a trusted key</td>" in rows[1]


def test_the_page_says_what_each_check_is(tmp_path: Path, signer: Signer) -> None:
    """A buyer does not know our ids."""
    file = written(tmp_path / "rig-01.json", signer)
    main(
        ["attest", "report", str(file), "--key", str(tmp_path / "operator" / "signing.pub"), "-o", str(tmp_path / "x")]
    )
    title = next(check.title for check in CHECKS if check.id == "driver-loaded")
    assert title in (tmp_path / "x").read_text()
    assert "No earlier record lies beside this one." in (tmp_path / "x").read_text()
