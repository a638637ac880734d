"""`provision matrix combos`: its formats, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from provisioner.cli.main import main
from provisioner.model.intent import Intent
from provisioner.model.stack import Choice, HostLock
from provisioner.resolve.lock import lock_text, make_lock

NARROW = ("--only", "os=debian-13", "--only", "network=lium", "--only", "architecture=ada,pascal")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["matrix", "combos", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def host(branch: str, version: str) -> HostLock:
    return HostLock(
        os="debian-12",
        gpus=("rtx-4090", "rtx-4090"),
        intent=Intent(networks=("akash",)),
        driver_branch=Choice(value=branch),
        driver_version=Choice(value=version),
        modules=Choice(value="proprietary"),
        cuda=None,
        runtime=Choice(value="docker.io 20.10.24+dfsg1-1+deb12u1+b6"),
    )


def write(path: Path, **hosts: HostLock) -> str:
    path.write_text(lock_text(make_lock(hosts, "0" * 64)), encoding="utf-8")
    return str(path)


def test_a_fleet_as_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lock = write(tmp_path / "a.lock", a=host("535", "535.261.03"), b=host("535", "535.261.03"))
    assert run(capsys, "--lock", lock)[:2] == (
        0,
        f"1 combination: what {lock} holds\n\n"
        "OS         GPU       DRIVER      MODULES      RUNTIME    NETWORKS  HOSTS\n"
        "debian-12  rtx-4090  535.261.03  proprietary  docker-io  akash     a, b\n",
    )


def test_an_inventory_narrows_the_fleet_and_must_be_locked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lock = write(tmp_path / "a.lock", a=host("535", "535.261.03"), b=host("470", "470.256.02"))
    code, out, _ = run(capsys, "--lock", lock, "-i", "b,", "--format", "json")
    assert (code, [combo["hosts"] for combo in json.loads(out)["combos"]]) == (0, [["b"]])
    code, _, err = run(capsys, "--lock", lock, "-i", "b,c,")
    assert (code, "holds no entry for c" in err) == (3, True)


def test_github_takes_the_output_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--pairwise", *NARROW, "--format", "github")
    matrix = json.loads(out)
    assert (code, out.count("\n"), list(matrix)) == (0, 1, ["include"])
    assert len({job["name"] for job in matrix["include"]}) == len(matrix["include"])
    assert all(isinstance(value, str) for job in matrix["include"] for value in job.values())
    assert {job["driver"] for job in matrix["include"]} == {"535.274.02", "550.163.01"}


def test_more_jobs_than_github_takes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--all", "--format", "github")
    assert (code, out) == (3, "")
    assert "[combos-too-many-jobs]" in err and "--only" in err


def test_molecule_gets_a_platform_and_variables_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--all", *NARROW, "--format", "molecule")
    content = yaml.safe_load(out)
    names = [platform["name"] for platform in content["platforms"]]
    variables = content["provisioner"]["inventory"]["host_vars"]
    assert (code, names) == (0, list(variables))
    for values in variables.values():
        Intent.model_validate(
            {k.removeprefix("provision_"): v for k, v in values.items() if k.startswith("provision_")}
        )


def test_upgrades_between_two_locks(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    old, new = host("470", "470.256.02"), host("535", "535.261.03")
    locks = ("--from", write(tmp_path / "a", a=old, b=new), "--to", write(tmp_path / "b", a=new, b=new, c=new))
    assert run(capsys, "--upgrades", *locks)[:2] == (
        0,
        "1 upgrade to rehearse, 1 host unchanged\n\n"
        "debian-12  rtx-4090    a\n"
        "  driver 470.256.02 → 535.261.03\n\n"
        "only in the second: c\n",
    )
    _, out, _ = run(capsys, "--upgrades", *locks, "--format", "github")
    (job,) = json.loads(out)["include"]
    assert (job["from"]["driver"], job["to"]["driver"]) == ("470.256.02", "535.261.03")
    _, out, _ = run(capsys, "--upgrades", *locks, "--json")
    assert {key: json.loads(out)[key] for key in ("unchanged", "only_before", "only_after")} == {
        "unchanged": ["b"],
        "only_before": [],
        "only_after": ["c"],
    }


@pytest.mark.parametrize(
    ("words", "reference"),
    [
        (("--upgrades",), "combos-two-locks"),
        (("--pairwise", "--only", "os"), "combos-only"),
        (("--pairwise", "--only", "os=debian-9"), "combos-unknown-value"),
        (("--pairwise", "--only", "gpu=ada"), "combos-unknown-parameter"),
        (("--lock", "none.lock"), "lock-not-found"),
        (("--limit", "a"), "lock-not-found"),
    ],
)
def test_what_cannot_be_used_is_said(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    reference: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *words)
    assert (code, out) == (3, "")
    assert f"[{reference}]" in err
