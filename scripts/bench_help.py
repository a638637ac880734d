"""Times `provision --help` as a whole process: the median of 20 runs must stay under a third of a second."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 20
LIMIT_S = 1 / 3


def main() -> int:
    """Print minimum, median and maximum; exit with 1 when the median is over the limit."""
    command = [str(Path(sys.executable).parent / "provision"), "--help"]
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    median = statistics.median(seconds)
    spread = f"min {min(seconds):.3f} s   median {median:.3f} s   max {max(seconds):.3f} s"
    print(f"provision --help   {spread}   limit {LIMIT_S:.3f} s")
    return int(median > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
