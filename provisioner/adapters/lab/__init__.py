"""Throwaway hosts on this machine: system containers with a Debian of their own and simulated GPUs.

`Lab.up` starts them, `Host.exec` runs a command on one, `Lab.down` removes exactly what was started. Labels on the
Docker objects are the only state, so a lab can be taken down after a crash in the middle of its start.
"""

from provisioner.adapters.lab.engine import engine_errors, ensure_engine
from provisioner.adapters.lab.gpus import GpuModel, gpu_models
from provisioner.adapters.lab.hosts import Host, Lab, Result, labs, take_down
from provisioner.adapters.lab.image import SUITES
from provisioner.adapters.lab.spec import HostSpec, parse_all

__all__ = [
    "SUITES",
    "GpuModel",
    "Host",
    "HostSpec",
    "Lab",
    "Result",
    "engine_errors",
    "ensure_engine",
    "gpu_models",
    "labs",
    "parse_all",
    "take_down",
]
