"""Where the set-up brings the tools, a test that would be skipped for want of one is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.tools
def test_wants_a_tool():
    pytest.importorskip("there_is_no_such_module")

@pytest.mark.browser
@pytest.mark.skipif(True, reason="no browser here")
def test_wants_a_browser():
    pass

def test_wants_what_nobody_promised():
    pytest.skip("no compiler")
"""


@pytest.mark.parametrize(
    ("must", "counted"),
    [("", "3 skipped"), ("tools", "1 failed, 2 skipped"), ("tools browser", "1 failed, 1 skipped, 1 error")],
)
def test_a_skip_is_a_failure_where_its_marker_must_run(tmp_path: Path, must: str, counted: str) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_some.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    tools\n    browser\n", encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PROVISION_MUST_RUN": must},
        capture_output=True,
        text=True,
        check=False,
    )

    assert counted in done.stdout.splitlines()[-1]
    assert ("there_is_no_such_module" in done.stdout) == ("tools" in must)
