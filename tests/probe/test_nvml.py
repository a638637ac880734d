"""pynvml cut down to what the probe calls still is pynvml: names, errors, and answers of a library."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provisioner.probe.nvml import digest, roots_of, shake
from provisioner.probe.payload import nvml_calls

LIBRARY = r"""
#include <string.h>
typedef struct { char legacy[16]; unsigned domain, bus, device, pci, sub; char id[32]; } Pci;
typedef struct { unsigned long long total, free, used; } Memory;
int nvmlInitWithFlags(unsigned flags) { return INIT; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "535.261.03", size); return 0; }
int nvmlSystemGetCudaDriverVersion(int *number) { *number = 12020; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
  *device = (void *)0x10; return index == 0 ? 0 : 15; }
int nvmlDeviceGetName(void *device, char *text, unsigned size) { strncpy(text, "NVIDIA L4", size); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) { strncpy(text, "GPU-1", size); return 0; }
int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) { memory->total = 24ULL << 30; memory->used = 1; return 0; }
int nvmlDeviceGetPciInfo_v3(void *device, Pci *pci) { strcpy(pci->id, "00000000:01:00.0"); return 0; }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *value) { *value = 41; return 0; }
int nvmlDeviceGetPowerUsage(void *device, unsigned *value) { *value = 30500; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *value) { return 3; }
"""


def run_calls(shaken: str, folder: Path, init: int | None) -> dict[str, object]:
    """Ask the shaken module as the probe does, in a process that finds our little library or none."""
    if init is not None:
        source = folder / "nvml.c"
        source.write_text(LIBRARY)
        target = folder / "libnvidia-ml.so.1"
        subprocess.run(["cc", "-shared", "-fPIC", f"-DINIT={init}", "-o", target, source], check=True)
    code = (
        "import json, sys\nfrom provisioner.probe import script\n"
        "shaken, calls = json.load(sys.stdin)\nprint(script.encode(script.ask_nvml(shaken, calls)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([shaken, nvml_calls()]),
        capture_output=True,
        text=True,
        check=False,
        env={"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stderr == ""
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="session")
def shaken(pynvml_source: str) -> str:
    return shake(pynvml_source, roots_of(nvml_calls()))


def test_shaken_module_is_small_and_old_enough(pynvml_source: str, shaken: str) -> None:
    """A host compiles less than a tenth of pynvml, in syntax that Python 3.6 knows."""
    ast.parse(shaken, feature_version=(3, 6))

    assert len(shaken) < len(pynvml_source) / 10


def test_shaken_module_needs_nothing_it_dropped(pynvml_source: str, shaken: str) -> None:
    """Every name of pynvml's that is used is also there, and so is every error code."""
    whole = {name for node in ast.parse(pynvml_source).body for name in _bound(node)}
    tree = ast.parse(shaken)
    there = {name for node in tree.body for name in _bound(node)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    assert (used & whole) - there == set()
    assert roots_of(nvml_calls()) <= there
    assert {name for name in whole if name.startswith("NVML_ERROR_")} <= there


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    return {item.id for item in ast.walk(node) if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)}


def test_other_source_or_calls_get_another_digest(pynvml_source: str) -> None:
    """The cache never serves a cut of another pynvml or of other calls."""
    roots = roots_of(nvml_calls())

    assert (
        len(
            {
                digest(pynvml_source, roots),
                digest(pynvml_source + "\n", roots),
                digest(pynvml_source, roots - {"nvmlInit"}),
            }
        )
        == 3
    )


def test_missing_library_has_a_word(shaken: str, tmp_path: Path) -> None:
    """No NVML library is its own answer, not an error of the probe."""
    assert run_calls(shaken, tmp_path, None) == {"error": "library-not-found"}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize(
    ("code", "name"), [(9, "NVML_ERROR_DRIVER_NOT_LOADED"), (18, "NVML_ERROR_LIB_RM_VERSION_MISMATCH")]
)
def test_errors_come_by_name(shaken: str, tmp_path: Path, code: int, name: str) -> None:
    """What nvmlInit returns is told by the name in NVIDIA's header."""
    assert run_calls(shaken, tmp_path, code) == {"error": name}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_cards_are_told_as_far_as_the_library_tells(shaken: str, tmp_path: Path) -> None:
    """Calls that a library lacks or refuses give null; a lost card keeps its place with its error."""
    answer = run_calls(shaken, tmp_path, 0)

    assert answer == {
        "driver_version": "535.261.03",
        "nvml_version": None,
        "cuda_driver_version": 12020,
        "devices": [
            {
                "index": 0,
                "name": "NVIDIA L4",
                "uuid": "GPU-1",
                "bus_id": "00000000:01:00.0",
                "memory_total": 24 << 30,
                "memory_used": 1,
                "temperature_c": 41,
                "power_mw": 30500,
                "power_limit_mw": None,
                "compute_processes": None,
                "pcie_width": None,
                "persistence_mode": None,
            },
            {"index": 1, "error": "NVML_ERROR_GPU_IS_LOST"},
        ],
    }
