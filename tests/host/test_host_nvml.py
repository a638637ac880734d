"""The calls to NVML have the order and the types of nvml.h: tried against a small library that is compiled here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from provisioner.host import gate, nvml, power

# Signatures as nvml.h has them; the second card is silent, the third handle does not exist.
SOURCE = r"""
#include <stddef.h>
#include <string.h>
typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; } process;
typedef struct { int n; unsigned limit; unsigned least_clock, most_clock; } card;
static card cards[2] = {{0, 450000, 0, 0}, {1, 450000, 0, 0}};
static int open_count, init_code = INIT_CODE;
int nvmlInit_v2(void) { if (init_code) return init_code; open_count++; return 0; }
int nvmlShutdown(void) { return --open_count < 0; }
const char *nvmlErrorString(int code) { return code == 18 ? "Driver/library version mismatch" : "Unknown"; }
int nvmlSystemGetDriverVersion(char *to, unsigned size) { strncpy(to, "535.261.03", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, card **to)
{ if (index > 1) return 15; *to = &cards[index]; return 0; }
int nvmlDeviceGetUUID(card *c, char *to, unsigned size) { strncpy(to, c->n ? "GPU-b" : "GPU-a", size); return 0; }
int nvmlDeviceGetName(card *c, char *to, unsigned size) { strncpy(to, "NVIDIA X", size); return 0; }
int nvmlDeviceGetTemperature(card *c, int sensor, unsigned *to) { if (c->n || sensor) return 3; *to = 61; return 0; }
int nvmlDeviceGetTemperatureThreshold(card *c, int kind, unsigned *to)
{ if (c->n) return 3; *to = 90 + kind; return 0; }
int nvmlDeviceGetPowerUsage(card *c, unsigned *mw) { if (c->n) return 3; *mw = 300500; return 0; }
int nvmlDeviceGetPowerManagementLimit(card *c, unsigned *mw) { if (c->n) return 3; *mw = c->limit; return 0; }
int nvmlDeviceGetPowerManagementDefaultLimit(card *c, unsigned *mw) { if (c->n) return 3; *mw = 450000; return 0; }
int nvmlDeviceGetPowerManagementLimitConstraints(card *c, unsigned *least, unsigned *most)
{ if (c->n) return 3; *least = 150000; *most = 600000; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(card *c, unsigned long long *to)
{ if (c->n) return 3; *to = 0x40; return 0; }
int nvmlDeviceSetPowerManagementLimit(card *c, unsigned mw) { if (c->n) return 4; c->limit = mw; return 0; }
int nvmlDeviceSetGpuLockedClocks(card *c, unsigned least, unsigned most)
{ if (c->n || least != 210 || most != 2100) return 4; return 0; }
int nvmlDeviceResetGpuLockedClocks(card *c) { return 0; }
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci;
int nvmlDeviceGetPciInfo_v3(card *c, pci *to)
{ memset(to, 0x55, sizeof *to); strcpy(to->bus_id, c->n ? "00000000:21:00.0" : "00000000:01:00.0"); return 0; }
int nvmlDeviceGetCurrPcieLinkWidth(card *c, unsigned *to) { if (c->n) return 3; *to = 8; return 0; }
int nvmlDeviceGetMaxPcieLinkGeneration(card *c, unsigned *to) { if (c->n) return 3; *to = 4; return 0; }
int nvmlDeviceGetRemappedRows(card *c, unsigned *good, unsigned *bad, unsigned *pending, unsigned *failed)
{ if (c->n) return 3; *good = 2; *bad = 7; *pending = 1; *failed = 0; return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(card *c, unsigned *count, process *to)
{
    if (c->n) return 3;
    if (*count < 2) return 7;
    memset(to, 0, 2 * sizeof *to);
    to[0].pid = 42; to[0].memory = 1ULL << 33; to[1].pid = 7; *count = 2;
    return 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Code of nvmlInit -> path of a library that gives it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder: Path = tmp_path_factory.mktemp("nvml")
    (folder / "nvml.c").write_text(SOURCE)
    made = {}
    for code in (0, 18):
        made[code] = str(folder / f"libnvml-{code}.so")
        words = [compiler, "-shared", "-fPIC", f"-DINIT_CODE={code}", "-o", made[code], str(folder / "nvml.c")]
        subprocess.run(words, check=True)
    return made


def test_what_the_gate_asks(library: dict[int, str]) -> None:
    """A card that does not give a number gives None; a handle that cannot be had is no card."""
    card = {"uuid": "GPU-a", "name": "NVIDIA X", "temperature_c": 61, "slowdown_c": 91}
    silent = {"uuid": "GPU-b", "name": "NVIDIA X", "temperature_c": None, "slowdown_c": None}
    assert nvml.look(library[0]) == {"driver": "535.261.03", "gpus": [card, silent]}
    assert gate.hot(card) == []
    assert gate.hot(silent) == []


def test_what_the_watchdog_asks(library: dict[int, str]) -> None:
    """Watts from milliwatts, and the reasons as bits."""
    first, second = nvml.watch(library[0])["gpus"]
    assert (first["power_w"], first["limit_w"], first["default_w"]) == (300.5, 450.0, 450.0)
    assert (first["least_w"], first["most_w"], first["reasons"]) == (150.0, 600.0, 0x40)
    assert (second["power_w"], second["least_w"], second["most_w"], second["reasons"]) == (None, None, None, None)


def test_processes(library: dict[int, str]) -> None:
    """The structure has the size that NVML writes."""
    assert nvml.compute_processes(library[0]) == {"pids": [7, 42]}


def test_power_is_set_and_read_back(
    library: dict[int, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In milliwatts; the silent card is left alone and said."""
    policy = tmp_path / "power.json"
    policy.write_text('{"*": {"limit_w": 300}}')
    with nvml.Nvml(library[0]) as lib:
        assert power.apply({"*": {"limit_w": 300}}, lib) == []
        card = lib.cards()[0]
        assert lib.minute(card)["limit_w"] == 300.0
        assert lib.lock_clocks(card, 210, 2100)
    assert "NVIDIA X: the card does not tell its limits: nothing is set" in capsys.readouterr().err
    assert power.main(["show"], library=library[0], path=str(policy)) == 0
    assert power.main(["undo"], library=library[0], path=str(policy)) == 0
    assert power.main(["show"], library=library[0], path=str(policy)) == 1
    assert "NVIDIA X: power limit 450.0 W, policy 300 W" in capsys.readouterr().err


def test_an_nvml_that_says_no(library: dict[int, str]) -> None:
    """Its own words and its number."""
    assert nvml.look(library[18]) == {"error": "Driver/library version mismatch (18)"}
    assert nvml.look("no-such-library.so")["error"].startswith("no-such-library.so is not there")


def test_how_the_cards_hang_on_the_bus(library: dict[int, str]) -> None:
    """Slot, lanes, generation and replaced rows; a card that does not say has none of them."""
    first, second = nvml.links(library[0])["cards"]

    assert first == {
        "uuid": "GPU-a",
        "name": "NVIDIA X",
        "slot": "00000000:01:00.0",
        "width": 8,
        "generation": 4,
        "rows": {"correctable": 2, "uncorrectable": 7},
    }
    assert (second["slot"], second["width"], second["generation"], second["rows"]) == (
        "00000000:21:00.0",
        None,
        None,
        None,
    )
    assert nvml.links(library[18]) == {"error": "Driver/library version mismatch (18)"}
