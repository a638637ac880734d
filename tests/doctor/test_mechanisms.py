"""The files of matrix/failures: their proofs hold, their references lead somewhere, and lint says so when not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from provisioner.cli.main import main
from provisioner.cli.views.failure_pages import language_page, pages
from provisioner.doctor.facts import FACTS
from provisioner.doctor.host import Host
from provisioner.doctor.judge import of_mechanism
from provisioner.doctor.mechanism import Condition, Mechanism
from provisioner.doctor.proofs import capture_of, failures, lint
from provisioner.doctor.truth import Truth
from provisioner.model.paths import data_dir
from tests.doctor.world import EXPECTED, matrix, mechanisms

ROOT = Path(__file__).parents[2]


def test_every_proof_holds() -> None:
    """Captures that must match do, near ones that must not do not, ids lead somewhere, nothing explains itself."""
    assert list(failures(mechanisms(), matrix())) == []


@pytest.mark.parametrize("name", sorted(mechanisms()))
def test_an_empty_capture_is_no_proof(name: str) -> None:
    """No mechanism holds on a host of which nothing was seen."""
    from provisioner.doctor.mechanism import Proof

    nothing = Host(capture_of(Proof(title="nothing")), matrix())

    assert of_mechanism(mechanisms()[name], nothing)[0].truth is not Truth.YES


@pytest.mark.parametrize("name", sorted(mechanisms()))
def test_texts_are_whole(name: str) -> None:
    """Two sentences of cause at least for a cause, steps that end, sources that can be looked up."""
    mechanism = mechanisms()[name]

    assert len(re.findall(r"[.;](\s|$)", mechanism.cause)) >= 1
    assert mechanism.title[-1] not in ".!"
    assert all(text.rstrip()[-1] in ".)…" for text in (*mechanism.prevention, *mechanism.looks_like))
    assert mechanism.sources
    assert all(source.startswith(("github:", "https://")) for source in mechanism.sources)


def _conditions(condition: Condition) -> list[Condition]:
    return [condition, *(inner for part in condition.parts for inner in _conditions(part))]


def test_no_condition_is_keyed_on_one_host() -> None:
    """No expression holds a version of a driver or kernel, a card's address or a process's number.

    The exceptions name versions that are themselves the mechanism, as sets of versions and not as text.
    """
    single = re.compile(r"\d{3}\\?\.\d{2,3}(\\?\.\d{2})?\b|[0-9a-f]{2}:00\\?\.0|pid=\d|\d+\\?\.\d+\\?\.\d+-\d+-generic")
    keyed = {
        name: part.said
        for name, mechanism in mechanisms().items()
        for top in (mechanism.when, *mechanism.unless, *mechanism.supports)
        for part in _conditions(top)
        if part.said is not None and single.search(part.said)
    }

    assert keyed == {}


def test_every_recorded_failure_has_a_mechanism_that_is_there() -> None:
    """The table of the tests names mechanisms, and the folder of captures has one file for each of its rows."""
    assert set(EXPECTED.values()) <= set(mechanisms())
    assert {path.stem for path in (ROOT / "tests/captures/failures").glob("*.yaml")} == set(EXPECTED)


def test_exit_codes_of_nvidia_smi_lead_to_different_findings() -> None:
    """9, 12, 14, 15 and 18 are five things, and no answer in time is a sixth."""
    from provisioner.doctor.diagnose import diagnose
    from provisioner.model.capture import CommandOutput
    from tests.doctor.world import catalogue
    from tests.facts.hosts import capture

    found = {}
    for code in (9, 12, 14, 15, 18, 124):
        host = capture(
            files={"/sys/module/nvidia/version": "550.120\n"},
            commands={"nvidia-smi": CommandOutput(rc=code, stdout="something\n")},
        )
        found[code] = [item.mechanism.id for item in diagnose(host, catalogue()).findings]

    assert found == {
        9: ["smi-driver-not-loaded"],
        12: ["smi-library-not-found"],
        14: ["inforom-corrupted"],
        15: ["card-fell-off-the-bus"],
        18: ["smi-version-mismatch"],
        124: ["gpu-call-hangs"],
    }


def test_every_xid_of_a_mechanism_is_of_one_alone() -> None:
    """A number has one meaning; what is said of it as support does not count."""
    owners: dict[int, set[str]] = {}
    combined = {"lost-card-clears-verification", "weak-link-then-lost"}
    for name, mechanism in mechanisms().items():
        for part in _conditions(mechanism.when):
            if part.xid and name not in combined:
                for code in part.xid:
                    owners.setdefault(code, set()).add(name)
    none_of = {"application-xids", "xids-of-applications-repeat-on-one-card"}  # the same numbers, told apart by more

    assert {code: names for code, names in owners.items() if len(names - none_of) > 1} == {}


# Lint.


def test_lint_runs_the_proofs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A proof that fails, a reference that leads nowhere and a key that is not known are errors with their line."""
    folder = tmp_path / "matrix"
    shutil.copytree(data_dir("matrix"), folder)
    file = folder / "failures" / "module-and-library-differ.yaml"
    text = file.read_text()

    file.write_text(text.replace("libnvidia-ml.so.535.230.02", "libnvidia-ml.so.535.183.01"))
    assert [str(complaint.field) for _, complaint in lint(folder)] == ["proof.match.0"]
    file.write_text(text.replace("explains: [", "explains: [no-such-thing, "))
    assert "no other mechanism is called 'no-such-thing'" in lint(folder)[0][1].message
    file.write_text(text.replace("differs_from: driver.library", "differs_from: driver.nowhere", 1))
    assert [complaint.message for _, complaint in lint(folder)] == ["there is no fact 'driver.nowhere'"]
    file.write_text(text.replace("certainty: certain", "certainty: certain\ncertanity: x"))
    assert main(["matrix", "lint", "--matrix", str(folder)]) == 1
    assert "failures/module-and-library-differ.yaml" in capsys.readouterr().out


def test_a_circle_is_an_error() -> None:
    """Two mechanisms that explain each other would hide each other."""
    known = dict(mechanisms())
    driver, smi = known["smi-driver-not-loaded"], known["driver-not-loaded"]
    known["smi-driver-not-loaded"] = driver.model_copy(update={"explains": (*driver.explains, smi.id)})

    assert {"driver-not-loaded", "smi-driver-not-loaded"} <= {complaint.id for complaint in failures(known)}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"fact": "os"}, "exactly one comparison"),
        ({"fact": "os", "is": "x", "matches": "y"}, "exactly one comparison"),
        ({"said": "x"}, "where it is said"),
        ({"said": "x(", "in": ["kernel-log"]}, "no regular expression"),
        ({"exit": [9]}, "the command line it belongs to"),
        ({"xid": [79], "exit": [9], "of": "x"}, "exactly one of"),
        ({"fact": "driver.loaded", "version": ">=2,<1"}, "no version satisfies"),
        ({"host": {"no-such-key": 1}}, "requirement language"),
        ({"host": {"docker": "newest"}}, "docker"),
        ({"all": [{"fact": "os", "is": "x"}], "is": "y"}, "beside a fact only"),
        ({"fakt": "os"}, "fakt"),
        ({"fact": "no.such", "is": "x"}, "no fact"),
        ({"said": "x", "in": ["nowhere"]}, "no place"),
    ],
)
def test_the_language_refuses_what_has_no_meaning(given: dict[str, object], why: str) -> None:
    """With the reason."""
    with pytest.raises(ValueError, match=why):
        Condition.model_validate(given)


# Pages.


def test_the_pages_are_those_of_the_matrix() -> None:
    """docs/failures is what `provision matrix failures --pages docs/failures` writes."""
    folder = ROOT / "docs" / "failures"

    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == pages(mechanisms())


def test_the_reference_is_that_of_the_language() -> None:
    """And names every fact."""
    text = (ROOT / "docs/reference/failure-language.md").read_text(encoding="utf-8")

    assert text == language_page()
    assert [name for name in FACTS if f"`{name}`" not in text] == []


def test_mechanisms_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`provision matrix failures` names them."""
    assert main(["matrix", "failures"]) == 0
    assert "card-fell-off-the-bus" in capsys.readouterr().out


def test_facts_that_no_mechanism_asks_for_serve_the_chains() -> None:
    """Nothing is read that nobody uses."""
    from provisioner.doctor import agreement, diagnose, judge

    asked = {
        name
        for mechanism in mechanisms().values()
        for top in (mechanism.when, *mechanism.unless, *mechanism.supports)
        for part in _conditions(top)
        for name in (part.fact, part.same_as, part.differs_from, part.older_than, part.newer_than, part.fewer_than)
    }
    chained = {name for name, _ in (*agreement._VERSIONS, *agreement._COUNTS)}
    by_other_keys = {"nvidia-smi", diagnose.BASELINE, *judge._SHOWN_BY.values()}
    filled = {name for m in mechanisms().values() for name in FACTS if "{" + name + "}" in _texts(m)}

    assert sorted(set(FACTS) - asked - chained - filled - by_other_keys) == []


def _texts(mechanism: Mechanism) -> str:
    steps = [text for step in mechanism.repair.steps for text in (step.do, step.run or "")]
    return " ".join((mechanism.cause, *steps, *(part.said or "" for part in _conditions(mechanism.when))))
