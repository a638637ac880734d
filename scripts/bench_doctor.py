"""Times `provision doctor` over recorded hosts: 1,000 in under 10 seconds, with memory that does not grow with them."""

import itertools
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from provisioner.facts.files import dump_capture, parse_capture  # noqa: E402
from provisioner.model.capture import Capture  # noqa: E402
from tests.doctor.hosts import SYSTEMS, Rig  # noqa: E402
from tests.doctor.variants import VARIANTS  # noqa: E402

FEW, MANY = 100, 1000
LIMIT_S = 10.0
LIMIT_GROWTH_MIB = 8.0


def captures() -> list[Capture]:
    """Whole healthy hosts, whole broken ones, the recorded failures and real looks, one of each in turn."""
    recorded = [
        parse_capture(path.read_bytes(), path.name)
        for folder in ("", "failures")
        for path in sorted((ROOT / "tests" / "captures" / folder).glob("*.*"))
        if path.suffix in (".json", ".yaml")
    ]
    healthy = [Rig(system=system, count=8).capture() for system in SYSTEMS]
    broken = [variant.capture for variant in VARIANTS.values()]
    return [*recorded, *broken, *healthy * 10]


def run(folder: Path) -> tuple[float, float]:
    """Seconds and peak MiB of one `provision doctor --json` over the folder, as a whole process."""
    code = (
        "import resource, sys\n"
        "from provisioner.cli.main import main\n"
        f"main(['doctor', '--json', '--capture', {str(folder)!r}])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    return time.perf_counter() - began, int(done.stderr.split()[-1]) / 1024


def main() -> int:
    """Print both sizes; exit with 1 when the time or the growth is over its limit."""
    hosts = captures()
    peaks = []
    seconds = 0.0
    for count in (FEW, MANY):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            size = 0
            for number, capture in zip(range(count), itertools.cycle(hosts), strict=False):
                text = dump_capture(capture.model_copy(update={"host": f"rig-{number:04}"}))
                size += len(text)
                (folder / f"rig-{number:04}.json").write_text(text)
            seconds, peak = run(folder)
            peaks.append(peak)
            print(f"{count:5} captures, {size / 1e6:5.1f} MB: {seconds:6.2f} s, peak {peak:5.1f} MiB")
    growth = peaks[1] - peaks[0]
    print(f"limit {LIMIT_S:.0f} s for {MANY}; memory grew by {growth:.1f} MiB, limit {LIMIT_GROWTH_MIB:.0f}")
    return int(seconds > LIMIT_S or growth > LIMIT_GROWTH_MIB)


if __name__ == "__main__":
    # A child's peak would be hidden behind a larger one of ours.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
