/* A simulated libnvidia-ml.so.1 for lab hosts, compiled against NVIDIA's own nvml.h.
 *
 * It answers as NVIDIA's library would on a machine with the cards that the simulated boot shows: it takes its own version
 * from the name of the installed file it is mounted over, compares it with the module that is "loaded", and reads each card
 * from a small text file (STATE_FOLDER/N, one `key value` a line) at every call, so that a test can heat a card or take it
 * off the bus by writing there. Whatever is not written here is not exported, and pynvml says so.
 */
#define _GNU_SOURCE
#define NVML_NO_UNVERSIONED_FUNC_DEFS
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "nvml.h"
#include "simulated.h"

#define API __attribute__((visibility("default"))) nvmlReturn_t
#define MOST_CARDS 32
#define MIB (1024ULL * 1024ULL)

struct nvmlDevice_st {
    int number;
};

static struct nvmlDevice_st cards[MOST_CARDS];
static int users; /* nvmlInit and nvmlShutdown are counted */

/* -- state ------------------------------------------------------------------------------------------------------------ */

static int first_line(const char *path, char *word, size_t size)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return 0;
    char *got = fgets(word, (int)size, file);
    fclose(file);
    if (got == NULL)
        return 0;
    word[strcspn(word, "\n")] = '\0';
    return 1;
}

/* The version in the real name of the file this code was loaded from: …/libnvidia-ml.so.535.261.03. */
static int own_version(char *word, size_t size)
{
    Dl_info info;
    char path[PATH_MAX];
    if (dladdr((void *)own_version, &info) == 0 || realpath(info.dli_fname, path) == NULL)
        return 0;
    const char *mark = strstr(path, ".so.");
    if (mark == NULL)
        return 0;
    snprintf(word, size, "%s", mark + 4);
    return 1;
}

static FILE *card_file(int number)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, STATE_FOLDER "/%d", number);
    return fopen(path, "r");
}

/* The value of the `nth` line with this key. */
static int text_of(nvmlDevice_t card, const char *key, int nth, char *word, size_t size)
{
    FILE *file = card_file(card->number);
    if (file == NULL)
        return 0;
    char line[512];
    size_t length = strlen(key);
    int found = 0;
    while (!found && fgets(line, sizeof line, file))
        if (strncmp(line, key, length) == 0 && line[length] == ' ' && nth-- == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(word, size, "%s", line + length + 1);
            found = 1;
        }
    fclose(file);
    return found;
}

static unsigned int count_cards(void)
{
    unsigned int count = 0;
    for (; count < MOST_CARDS; count++) {
        FILE *file = card_file((int)count);
        if (file == NULL)
            break;
        fclose(file);
    }
    return count;
}

static nvmlReturn_t usable(nvmlDevice_t card)
{
    char word[WORD];
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (card == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (text_of(card, "lost", 0, word, sizeof word) && strcmp(word, "0") != 0)
        return NVML_ERROR_GPU_IS_LOST;
    return NVML_SUCCESS;
}

/* Give keys of a card's file new values, NULL takes a key away; whole or not at all, for others read meanwhile. */
static int rewrite(int number, const char *const *keys, const char *const *values)
{
    char path[PATH_MAX], next[PATH_MAX + 32], line[512];
    snprintf(path, sizeof path, STATE_FOLDER "/%d", number);
    snprintf(next, sizeof next, "%s.%d", path, (int)getpid());
    FILE *from = fopen(path, "r"), *to = from ? fopen(next, "w") : NULL;
    if (to == NULL) {
        if (from)
            fclose(from);
        return 0;
    }
    while (fgets(line, sizeof line, from)) {
        int ours = 0;
        for (const char *const *key = keys; *key; key++)
            ours |= strncmp(line, *key, strlen(*key)) == 0 && line[strlen(*key)] == ' ';
        if (!ours)
            fputs(line, to);
    }
    fclose(from);
    for (; *keys; keys++, values++)
        if (*values)
            fprintf(to, "%s %s\n", *keys, *values);
    return fclose(to) == 0 && rename(next, path) == 0;
}

/* A number from the card's file; a key that is not there is a question the card does not support. */
static nvmlReturn_t number_of(nvmlDevice_t card, const char *key, unsigned long long *value)
{
    char word[WORD];
    nvmlReturn_t can = usable(card);
    if (can != NVML_SUCCESS)
        return can;
    if (!text_of(card, key, 0, word, sizeof word))
        return NVML_ERROR_NOT_SUPPORTED;
    *value = strtoull(word, NULL, 0);
    return NVML_SUCCESS;
}

static nvmlReturn_t unsigned_of(nvmlDevice_t card, const char *key, unsigned int *value)
{
    unsigned long long wide;
    if (value == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    nvmlReturn_t can = number_of(card, key, &wide);
    if (can == NVML_SUCCESS)
        *value = (unsigned int)wide;
    return can;
}

static nvmlReturn_t copy(const char *from, char *to, unsigned int length)
{
    if (to == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(from) + 1 > length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(to, from, strlen(from) + 1);
    return NVML_SUCCESS;
}

static nvmlReturn_t word_of(nvmlDevice_t card, const char *key, char *to, unsigned int length)
{
    char word[WORD];
    nvmlReturn_t can = usable(card);
    if (can != NVML_SUCCESS)
        return can;
    if (!text_of(card, key, 0, word, sizeof word))
        return NVML_ERROR_NOT_SUPPORTED;
    return copy(word, to, length);
}

/* -- system ----------------------------------------------------------------------------------------------------------- */

API nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    char loaded[WORD], own[WORD];
    if (!first_line(LOADED_VERSION, loaded, sizeof loaded))
        return NVML_ERROR_DRIVER_NOT_LOADED;
    if (!own_version(own, sizeof own))
        return NVML_ERROR_UNKNOWN;
    if (strcmp(loaded, own) != 0)
        return NVML_ERROR_LIB_RM_VERSION_MISMATCH;
    for (int i = 0; i < MOST_CARDS; i++)
        cards[i].number = i;
    users++;
    return NVML_SUCCESS;
}

API nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
API nvmlInit(void) { return nvmlInitWithFlags(0); }

API nvmlShutdown(void)
{
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    users--;
    return NVML_SUCCESS;
}

API nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    char own[WORD];
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    return own_version(own, sizeof own) ? copy(own, version, length) : NVML_ERROR_UNKNOWN;
}

/* The CUDA version each branch speaks, from NVIDIA's table of toolkit and driver versions. */
static int cuda_of(int branch)
{
    static const int table[][2] = {{595, 13020}, {590, 13010}, {580, 13000}, {575, 12090}, {570, 12080}, {565, 12070},
                                   {560, 12060}, {555, 12050}, {550, 12040}, {545, 12030}, {535, 12020}, {530, 12010},
                                   {525, 12000}, {520, 11080}, {515, 11070}, {510, 11060}, {495, 11050}, {470, 11040},
                                   {465, 11030}, {460, 11020}, {455, 11010}, {450, 11000}, {440, 10020}, {418, 10010},
                                   {410, 10000}, {390, 9010}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (branch >= table[i][0])
            return table[i][1];
    return 9000;
}

/* NVML's own version is the CUDA major before the driver version, whether or not a driver is loaded. */
API nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    char own[WORD], word[2 * WORD];
    if (!own_version(own, sizeof own))
        return NVML_ERROR_UNKNOWN;
    snprintf(word, sizeof word, "%d.%s", cuda_of(atoi(own)) / 1000, own);
    return copy(word, version, length);
}

API nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    char own[WORD];
    if (version == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!own_version(own, sizeof own))
        return NVML_ERROR_UNKNOWN;
    *version = cuda_of(atoi(own));
    return NVML_SUCCESS;
}

API nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

API nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    char path[64], word[WORD];
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    return first_line(path, word, sizeof word) ? copy(word, name, length) : NVML_ERROR_NOT_FOUND;
}

__attribute__((visibility("default"))) const char *nvmlErrorString(nvmlReturn_t result)
{
    switch (result) {
    case NVML_SUCCESS: return "Success";
    case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
    case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
    case NVML_ERROR_NO_PERMISSION: return "Insufficient Permissions";
    case NVML_ERROR_NOT_FOUND: return "Not Found";
    case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
    case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case NVML_ERROR_LIBRARY_NOT_FOUND: return "NVML Shared Library Not Found";
    case NVML_ERROR_FUNCTION_NOT_FOUND: return "Function Not Found";
    case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
    case NVML_ERROR_LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    case NVML_ERROR_ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}

/* -- finding cards ---------------------------------------------------------------------------------------------------- */

API nvmlDeviceGetCount_v2(unsigned int *count)
{
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = count_cards();
    return NVML_SUCCESS;
}

API nvmlDeviceGetCount(unsigned int *count) { return nvmlDeviceGetCount_v2(count); }

API nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (device == NULL || index >= count_cards())
        return NVML_ERROR_INVALID_ARGUMENT;
    *device = &cards[index];
    return usable(*device);
}

API nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

static nvmlReturn_t find(const char *key, const char *value, nvmlDevice_t *device)
{
    char word[WORD];
    if (users == 0)
        return NVML_ERROR_UNINITIALIZED;
    if (value == NULL || device == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned int i = 0; i < count_cards(); i++)
        if (text_of(&cards[i], key, 0, word, sizeof word) && strcasecmp(word, value) == 0) {
            *device = &cards[i];
            return usable(*device);
        }
    return NVML_ERROR_NOT_FOUND;
}

API nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) { return find("uuid", uuid, device); }
API nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device) { return find("serial", serial, device); }

/* Takes 0000:01:00.0 and the long form 00000000:01:00.0. */
API nvmlDeviceGetHandleByPciBusId_v2(const char *bus, nvmlDevice_t *device)
{
    if (bus != NULL && strlen(bus) == strlen("00000000:01:00.0"))
        bus += 4;
    return find("bus", bus, device);
}

API nvmlDeviceGetHandleByPciBusId(const char *bus, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByPciBusId_v2(bus, device);
}

API nvmlDeviceGetIndex(nvmlDevice_t card, unsigned int *index)
{
    nvmlReturn_t can = usable(card);
    if (can == NVML_SUCCESS)
        *index = (unsigned int)card->number;
    return can;
}

/* -- identity --------------------------------------------------------------------------------------------------------- */

API nvmlDeviceGetName(nvmlDevice_t card, char *name, unsigned int length) { return word_of(card, "name", name, length); }
API nvmlDeviceGetUUID(nvmlDevice_t card, char *uuid, unsigned int length) { return word_of(card, "uuid", uuid, length); }
API nvmlDeviceGetSerial(nvmlDevice_t card, char *to, unsigned int length) { return word_of(card, "serial", to, length); }
API nvmlDeviceGetVbiosVersion(nvmlDevice_t card, char *to, unsigned int length)
{
    return word_of(card, "vbios", to, length);
}
API nvmlDeviceGetMinorNumber(nvmlDevice_t card, unsigned int *minor) { return unsigned_of(card, "minor", minor); }

API nvmlDeviceGetBrand(nvmlDevice_t card, nvmlBrandType_t *brand)
{
    unsigned int number;
    nvmlReturn_t can = unsigned_of(card, "brand", &number);
    if (can == NVML_SUCCESS)
        *brand = (nvmlBrandType_t)number;
    return can;
}

API nvmlDeviceGetArchitecture(nvmlDevice_t card, nvmlDeviceArchitecture_t *architecture)
{
    return unsigned_of(card, "architecture", architecture);
}

API nvmlDeviceGetCudaComputeCapability(nvmlDevice_t card, int *major, int *minor)
{
    char word[WORD];
    nvmlReturn_t can = word_of(card, "compute_capability", word, sizeof word);
    if (can == NVML_SUCCESS && sscanf(word, "%d.%d", major, minor) != 2)
        return NVML_ERROR_UNKNOWN;
    return can;
}

static nvmlReturn_t pci_of(nvmlDevice_t card, nvmlPciInfo_t *pci)
{
    char bus[WORD], device[WORD], subsystem[WORD];
    nvmlReturn_t can = word_of(card, "bus", bus, sizeof bus);
    if (can != NVML_SUCCESS || pci == NULL)
        return can == NVML_SUCCESS ? NVML_ERROR_INVALID_ARGUMENT : can;
    unsigned int sub_vendor = 0, sub_device = 0;
    if (word_of(card, "device", device, sizeof device) != NVML_SUCCESS ||
        sscanf(bus, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device) != 3)
        return NVML_ERROR_UNKNOWN;
    if (word_of(card, "subsystem", subsystem, sizeof subsystem) == NVML_SUCCESS)
        sscanf(subsystem, "%x:%x", &sub_vendor, &sub_device);
    pci->pciDeviceId = ((unsigned int)strtoul(device, NULL, 16) << 16) | 0x10deU;
    pci->pciSubSystemId = (sub_device << 16) | sub_vendor;
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain, pci->bus, pci->device);
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", pci->domain, pci->bus, pci->device);
    return NVML_SUCCESS;
}

API nvmlDeviceGetPciInfo_v3(nvmlDevice_t card, nvmlPciInfo_t *pci) { return pci_of(card, pci); }
API nvmlDeviceGetPciInfo_v2(nvmlDevice_t card, nvmlPciInfo_t *pci) { return pci_of(card, pci); }
API nvmlDeviceGetPciInfo(nvmlDevice_t card, nvmlPciInfo_t *pci) { return pci_of(card, pci); }

API nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t card, char *version)
{
    char word[WORD];
    nvmlReturn_t can = word_of(card, "firmware", word, sizeof word);
    if (can != NVML_SUCCESS)
        return can;
    return strcmp(word, "N/A") == 0 ? NVML_ERROR_NOT_SUPPORTED : copy(word, version, NVML_GSP_FIRMWARE_VERSION_BUF_SIZE);
}

/* -- what the card does now ------------------------------------------------------------------------------------------- */

static nvmlReturn_t memory_of(nvmlDevice_t card, nvmlMemory_v2_t *memory)
{
    unsigned long long total, used = 0, reserved = 0;
    nvmlReturn_t can = number_of(card, "memory_total_mib", &total);
    if (can != NVML_SUCCESS)
        return can;
    number_of(card, "memory_used_mib", &used);
    number_of(card, "memory_reserved_mib", &reserved);
    memory->total = total * MIB;
    memory->used = used * MIB;
    memory->reserved = reserved * MIB;
    memory->free = (total - used - reserved) * MIB;
    return NVML_SUCCESS;
}

/* The first form counts what the driver keeps for itself as used, as NVIDIA's does. */
API nvmlDeviceGetMemoryInfo(nvmlDevice_t card, nvmlMemory_t *memory)
{
    nvmlMemory_v2_t all;
    nvmlReturn_t can = memory_of(card, &all);
    if (can != NVML_SUCCESS)
        return can;
    memory->total = all.total;
    memory->used = all.used + all.reserved;
    memory->free = all.free;
    return NVML_SUCCESS;
}

API nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t card, nvmlMemory_v2_t *memory)
{
    char own[WORD];
    if (own_version(own, sizeof own) && atoi(own) < 510)
        return NVML_ERROR_FUNCTION_NOT_FOUND; /* came with R510 */
    if (memory == NULL || memory->version != nvmlMemory_v2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return memory_of(card, memory);
}

API nvmlDeviceGetTemperature(nvmlDevice_t card, nvmlTemperatureSensors_t sensor, unsigned int *temperature)
{
    return sensor == NVML_TEMPERATURE_GPU ? unsigned_of(card, "temperature", temperature) : NVML_ERROR_INVALID_ARGUMENT;
}

API nvmlDeviceGetTemperatureV(nvmlDevice_t card, nvmlTemperature_t *temperature)
{
    char own[WORD];
    unsigned int degrees;
    if (own_version(own, sizeof own) && atoi(own) < 570)
        return NVML_ERROR_FUNCTION_NOT_FOUND; /* newer than what Debian's branches have */
    nvmlReturn_t can = unsigned_of(card, "temperature", &degrees);
    if (can == NVML_SUCCESS)
        temperature->temperature = (int)degrees;
    return can;
}

API nvmlDeviceGetTemperatureThreshold(nvmlDevice_t card, nvmlTemperatureThresholds_t kind, unsigned int *degrees)
{
    switch (kind) {
    case NVML_TEMPERATURE_THRESHOLD_SHUTDOWN: return unsigned_of(card, "temperature_shutdown", degrees);
    case NVML_TEMPERATURE_THRESHOLD_SLOWDOWN: return unsigned_of(card, "temperature_slowdown", degrees);
    case NVML_TEMPERATURE_THRESHOLD_GPU_MAX: return unsigned_of(card, "temperature_max", degrees);
    default: return NVML_ERROR_NOT_SUPPORTED;
    }
}

API nvmlDeviceGetPowerUsage(nvmlDevice_t card, unsigned int *mw) { return unsigned_of(card, "power_mw", mw); }
API nvmlDeviceGetPowerManagementLimit(nvmlDevice_t card, unsigned int *mw)
{
    return unsigned_of(card, "power_limit_mw", mw);
}
API nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t card, unsigned int *mw)
{
    return unsigned_of(card, "power_limit_mw", mw);
}
API nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t card, unsigned int *mw)
{
    return unsigned_of(card, "power_default_mw", mw);
}
API nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t card, unsigned int *least, unsigned int *most)
{
    nvmlReturn_t can = unsigned_of(card, "power_min_mw", least);
    return can == NVML_SUCCESS ? unsigned_of(card, "power_max_mw", most) : can;
}

/* What is set here is gone after the next boot, as a real driver forgets it: the boot writes the card's file anew. */
static nvmlReturn_t settable(nvmlDevice_t card)
{
    nvmlReturn_t can = usable(card);
    return can == NVML_SUCCESS && geteuid() != 0 ? NVML_ERROR_NO_PERMISSION : can;
}
API nvmlDeviceSetPowerManagementLimit(nvmlDevice_t card, unsigned int mw)
{
    unsigned int least, most;
    nvmlReturn_t can = settable(card);
    if (can == NVML_SUCCESS)
        can = nvmlDeviceGetPowerManagementLimitConstraints(card, &least, &most);
    if (can != NVML_SUCCESS)
        return can;
    if (mw < least || mw > most)
        return NVML_ERROR_INVALID_ARGUMENT;
    char word[WORD];
    snprintf(word, sizeof word, "%u", mw);
    const char *const keys[] = {"power_limit_mw", NULL}, *const values[] = {word};
    return rewrite(card->number, keys, values) ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}
API nvmlDeviceSetGpuLockedClocks(nvmlDevice_t card, unsigned int least, unsigned int most)
{
    nvmlReturn_t can = settable(card);
    if (can != NVML_SUCCESS)
        return can;
    if (least > most)
        return NVML_ERROR_INVALID_ARGUMENT;
    char low[WORD], high[WORD];
    snprintf(low, sizeof low, "%u", least);
    snprintf(high, sizeof high, "%u", most);
    const char *const keys[] = {"clock_locked_least", "clock_locked_most", NULL}, *const values[] = {low, high};
    return rewrite(card->number, keys, values) ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}
API nvmlDeviceResetGpuLockedClocks(nvmlDevice_t card)
{
    nvmlReturn_t can = settable(card);
    if (can != NVML_SUCCESS)
        return can;
    const char *const keys[] = {"clock_locked_least", "clock_locked_most", NULL}, *const values[] = {NULL, NULL};
    return rewrite(card->number, keys, values) ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

API nvmlDeviceGetUtilizationRates(nvmlDevice_t card, nvmlUtilization_t *rates)
{
    nvmlReturn_t can = unsigned_of(card, "utilization_gpu", &rates->gpu);
    return can == NVML_SUCCESS ? unsigned_of(card, "utilization_memory", &rates->memory) : can;
}

API nvmlDeviceGetFanSpeed(nvmlDevice_t card, unsigned int *speed) { return unsigned_of(card, "fan", speed); }
API nvmlDeviceGetFanSpeed_v2(nvmlDevice_t card, unsigned int fan, unsigned int *speed)
{
    unsigned int fans;
    nvmlReturn_t can = unsigned_of(card, "fans", &fans);
    if (can == NVML_SUCCESS && fan >= fans)
        return fans ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_NOT_SUPPORTED;
    return can == NVML_SUCCESS ? unsigned_of(card, "fan", speed) : can;
}
API nvmlDeviceGetNumFans(nvmlDevice_t card, unsigned int *fans) { return unsigned_of(card, "fans", fans); }

API nvmlDeviceGetClockInfo(nvmlDevice_t card, nvmlClockType_t type, unsigned int *mhz)
{
    static const char *const keys[] = {"clock_graphics", "clock_sm", "clock_memory", "clock_video"};
    return (unsigned int)type < 4 ? unsigned_of(card, keys[type], mhz) : NVML_ERROR_INVALID_ARGUMENT;
}
API nvmlDeviceGetMaxClockInfo(nvmlDevice_t card, nvmlClockType_t type, unsigned int *mhz)
{
    static const char *const keys[] = {"clock_max_graphics", "clock_max_sm", "clock_max_memory", "clock_max_video"};
    return (unsigned int)type < 4 ? unsigned_of(card, keys[type], mhz) : NVML_ERROR_INVALID_ARGUMENT;
}

API nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t card, unsigned long long *reasons)
{
    return number_of(card, "throttle_reasons", reasons);
}
API nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t card, unsigned long long *reasons)
{
    char own[WORD];
    if (own_version(own, sizeof own) && atoi(own) < 535)
        return NVML_ERROR_FUNCTION_NOT_FOUND; /* the name since R535 */
    return number_of(card, "throttle_reasons", reasons);
}
API nvmlDeviceGetSupportedClocksThrottleReasons(nvmlDevice_t card, unsigned long long *reasons)
{
    nvmlReturn_t can = usable(card);
    if (can == NVML_SUCCESS)
        *reasons = 0x1ff;
    return can;
}
API nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t card, unsigned long long *reasons)
{
    return nvmlDeviceGetSupportedClocksThrottleReasons(card, reasons);
}

API nvmlDeviceGetPerformanceState(nvmlDevice_t card, nvmlPstates_t *state)
{
    unsigned int number;
    nvmlReturn_t can = unsigned_of(card, "pstate", &number);
    if (can == NVML_SUCCESS)
        *state = (nvmlPstates_t)number;
    return can;
}

API nvmlDeviceGetCurrPcieLinkGeneration(nvmlDevice_t card, unsigned int *n) { return unsigned_of(card, "link_gen", n); }
API nvmlDeviceGetCurrPcieLinkWidth(nvmlDevice_t card, unsigned int *n) { return unsigned_of(card, "link_width", n); }
API nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t card, unsigned int *n) { return unsigned_of(card, "link_gen_max", n); }
API nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t card, unsigned int *n) { return unsigned_of(card, "link_width_max", n); }
API nvmlDeviceGetPcieReplayCounter(nvmlDevice_t card, unsigned int *n) { return unsigned_of(card, "link_replays", n); }

/* -- modes and health ------------------------------------------------------------------------------------------------- */

/* The daemon keeps persistence on while it runs; `nvidia-smi -pm 1` writes the key. */
API nvmlDeviceGetPersistenceMode(nvmlDevice_t card, nvmlEnableState_t *mode)
{
    unsigned int kept = 0;
    nvmlReturn_t can = usable(card);
    if (can != NVML_SUCCESS)
        return can;
    unsigned_of(card, "persistence", &kept);
    *mode = kept || access("/var/run/nvidia-persistenced/nvidia-persistenced.pid", F_OK) == 0 ? NVML_FEATURE_ENABLED
                                                                                               : NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
}

API nvmlDeviceGetComputeMode(nvmlDevice_t card, nvmlComputeMode_t *mode)
{
    nvmlReturn_t can = usable(card);
    if (can == NVML_SUCCESS)
        *mode = NVML_COMPUTEMODE_DEFAULT;
    return can;
}

API nvmlDeviceGetDisplayMode(nvmlDevice_t card, nvmlEnableState_t *state)
{
    nvmlReturn_t can = usable(card);
    if (can == NVML_SUCCESS)
        *state = NVML_FEATURE_DISABLED;
    return can;
}
API nvmlDeviceGetDisplayActive(nvmlDevice_t card, nvmlEnableState_t *state) { return nvmlDeviceGetDisplayMode(card, state); }

API nvmlDeviceGetEccMode(nvmlDevice_t card, nvmlEnableState_t *current, nvmlEnableState_t *pending)
{
    unsigned int on;
    nvmlReturn_t can = unsigned_of(card, "ecc", &on);
    if (can == NVML_SUCCESS)
        *current = *pending = on ? NVML_FEATURE_ENABLED : NVML_FEATURE_DISABLED;
    return can;
}

API nvmlDeviceGetTotalEccErrors(nvmlDevice_t card, nvmlMemoryErrorType_t kind, nvmlEccCounterType_t counter,
                                unsigned long long *count)
{
    unsigned int on;
    (void)counter;
    nvmlReturn_t can = unsigned_of(card, "ecc", &on);
    if (can != NVML_SUCCESS || !on)
        return can == NVML_SUCCESS ? NVML_ERROR_NOT_SUPPORTED : can;
    return number_of(card, kind == NVML_MEMORY_ERROR_TYPE_CORRECTED ? "ecc_corrected" : "ecc_uncorrected", count);
}

API nvmlDeviceGetRemappedRows(nvmlDevice_t card, unsigned int *corrected, unsigned int *uncorrected,
                              unsigned int *pending, unsigned int *failed)
{
    char word[WORD];
    nvmlReturn_t can = word_of(card, "remapped_rows", word, sizeof word);
    if (can == NVML_SUCCESS && sscanf(word, "%u %u %u %u", corrected, uncorrected, pending, failed) != 4)
        return NVML_ERROR_UNKNOWN;
    return can;
}

API nvmlDeviceGetMigMode(nvmlDevice_t card, unsigned int *current, unsigned int *pending)
{
    (void)current;
    (void)pending;
    nvmlReturn_t can = usable(card);
    return can == NVML_SUCCESS ? NVML_ERROR_NOT_SUPPORTED : can;
}

/* Each `process PID MIB` line is one compute process. */
static nvmlReturn_t processes(nvmlDevice_t card, unsigned int *count, nvmlProcessInfo_t *infos)
{
    char word[WORD];
    unsigned int found = 0, room;
    nvmlReturn_t can = usable(card);
    if (can != NVML_SUCCESS)
        return can;
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    room = *count;
    for (; text_of(card, "process", (int)found, word, sizeof word); found++) {
        if (found >= room || infos == NULL)
            continue;
        unsigned int pid = 0;
        unsigned long long used = 0;
        sscanf(word, "%u %llu", &pid, &used);
        infos[found] = (nvmlProcessInfo_t){pid, used * MIB, 0xFFFFFFFF, 0xFFFFFFFF};
    }
    *count = found;
    return found > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}

API nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t card, unsigned int *count, nvmlProcessInfo_t *infos)
{
    return processes(card, count, infos);
}
API nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t card, unsigned int *count, nvmlProcessInfo_v2_t *infos)
{
    return processes(card, count, infos);
}

static nvmlReturn_t no_processes(nvmlDevice_t card, unsigned int *count)
{
    nvmlReturn_t can = usable(card);
    if (can == NVML_SUCCESS)
        *count = 0;
    return can;
}

API nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t card, unsigned int *count, nvmlProcessInfo_t *infos)
{
    (void)infos;
    return no_processes(card, count);
}
API nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t card, unsigned int *count, nvmlProcessInfo_v2_t *infos)
{
    (void)infos;
    return no_processes(card, count);
}
