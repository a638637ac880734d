"""The short story of a rig that serves: from bare to a stand-in behind the gate, a foreign driver change, mended.

`test_networks.py` tells the long one. Driver, toolkit and client are stand-ins, the card is simulated.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provisioner.adapters.lab import Lab
from tests.lab import images, standins
from tests.lab.operator import LONG
from tests.lab.serving import DATA, SLOW, Serving, unpacked

# Not in the short form before it was seen to pass there within its time.
pytestmark = [pytest.mark.lab, pytest.mark.skipif(not LONG, reason="long form: scripts/test --all")]

HOST = "rig-gate"
CLIENT = "executor-executor-1"
GATE = "/usr/local/sbin/provision-gate check lium"
UNIT = "provision-client@lium"


def test_from_bare_to_serving_and_back_after_a_foreign_driver_change(
    lab_factory: Callable[..., Lab], tmp_path: Path
) -> None:
    """One apply brings all; somebody's package under the loaded module closes the gate; one more apply opens it."""
    repository = standins.build(tmp_path)
    lab = lab_factory(f"{HOST}=bookworm:rtx-3090")
    unpacked(lab, HOST, repository)
    rig = Serving(lab, tmp_path, repository)
    rig.images[CLIENT] = images.made(lab, HOST, f"standin/{CLIENT}", "1")
    rig.as_root(HOST, f"mkdir -p {DATA}/{CLIENT}")
    client = rig.stand_in("lium", CLIENT, 8001, "update-status")
    rig.variables(HOST, "lium", [client], provision_driver="==580.95.05")
    rig.run("resolve", *SLOW)
    assert f"{HOST}  enrolled" in rig.run("apply", "--yes", *SLOW)
    rig.wait_for(lambda: rig.serves(HOST, "lium"), 30, "the stand-in serves")
    image = rig.as_root(HOST, f"docker inspect --format '{{{{.Config.Image}}}}' {CLIENT}")
    assert image.strip().endswith(rig.images[CLIENT])

    deb = f"{standins.WHERE}/libnvidia-ml1_580.159.03-1_amd64.deb"
    rig.as_root(HOST, f"dpkg -i --force-all {deb} >/dev/null 2>&1")
    assert "NVML: " in rig.as_root(HOST, GATE, rc=1)
    rig.as_root(HOST, f"systemctl restart {UNIT}; true")
    assert not rig.serves(HOST, "lium")
    assert "stays stopped: NVML: " in rig.as_root(HOST, f"journalctl -u {UNIT} -o cat -n 20")

    assert f"{HOST}  enrolled" in rig.run("apply", "--yes", *SLOW)
    rig.wait_for(lambda: rig.serves(HOST, "lium"), 30, "it serves again")
    rig.as_root(HOST, GATE)
