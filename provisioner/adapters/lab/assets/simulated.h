/* What the simulated driver programs share: where the simulated boot left its state. */
#ifndef SIMULATED_H
#define SIMULATED_H

#define STATE_FOLDER "/run/provision-lab/nvml"
#define LOADED_VERSION "/sys/module/nvidia/version"
#define WORD 128

#endif
