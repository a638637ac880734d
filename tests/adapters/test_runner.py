"""What a failed task had to say is told in the order that helps."""

from __future__ import annotations

from provisioner.adapters.runner import printed


def test_errors_come_before_the_end_of_the_output() -> None:
    """apt prints the failed download to stderr and fifty good ones to stdout: the failed one is told first."""
    result = {
        "msg": "non-zero return code",
        "stderr": "E: Failed to fetch nvidia-modprobe.deb  404  Not Found\nE: Some files failed to download\n",
        "stdout": "".join(f"Get:{n} package\n" for n in range(50)),
    }

    assert printed(result).splitlines() == [
        "non-zero return code",
        "E: Failed to fetch nvidia-modprobe.deb  404  Not Found",
        "E: Some files failed to download",
        *(f"Get:{n} package" for n in range(44, 50)),
    ]


def test_nothing_is_told_twice() -> None:
    """Modules repeat stderr in their message; a line stands there once."""
    assert printed({"msg": "dpkg was interrupted", "stderr": "dpkg was interrupted\n"}) == "dpkg was interrupted"
