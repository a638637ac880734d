/* A simulated nvidia-smi for lab hosts: asks the installed NVML library and prints what NVIDIA's tool prints.
 *
 * Known: no argument (the table), -L, -q (the essentials), --query-gpu and --query-compute-apps with --format=csv, -i, -pm,
 * --version, --help. Messages and exit codes of a driver that is missing or mismatched are NVIDIA's own.
 */
#define _GNU_SOURCE
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "nvml.h"
#include "simulated.h"

static void *library;

/* Calls a function of the library by name; one that it lacks is FUNCTION_NOT_FOUND, as for any NVML client. */
#define CALL(name, ...)                                                                                                  \
    ({                                                                                                                   \
        __typeof__(&name) function = (__typeof__(&name))dlsym(library, NAME_OF(name));                                    \
        function ? function(__VA_ARGS__) : NVML_ERROR_FUNCTION_NOT_FOUND;                                                 \
    })
#define NAME_OF(name) NAME_OF_EXPANDED(name)
#define NAME_OF_EXPANDED(name) #name

static char driver[WORD];
static int branch;
static char only[WORD]; /* -i */

static int fail(nvmlReturn_t code)
{
    if (code == NVML_ERROR_DRIVER_NOT_LOADED) {
        puts("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
             "driver is installed and running.\n");
        return 9;
    }
    const char *(*words)(nvmlReturn_t) = (const char *(*)(nvmlReturn_t))dlsym(library, "nvmlErrorString");
    printf("Failed to initialize NVML: %s\n", words ? words(code) : "Unknown Error");
    char version[WORD];
    int major, minor;
    /* The line names two of the version's three parts, and came with R515. */
    if (code == NVML_ERROR_LIB_RM_VERSION_MISMATCH && CALL(nvmlSystemGetNVMLVersion, version, sizeof version) == NVML_SUCCESS &&
        sscanf(version, "%*d.%d.%d", &major, &minor) == 2 && major >= 515)
        printf("NVML library version: %d.%d\n", major, minor);
    return (int)code;
}

/* -- one value as text ------------------------------------------------------------------------------------------------ */

#define NO_VALUE(text, size) snprintf(text, size, "[N/A]")

static void number(char *text, size_t size, nvmlReturn_t code, unsigned long long value)
{
    if (code == NVML_SUCCESS)
        snprintf(text, size, "%llu", value);
    else if (code == NVML_ERROR_GPU_IS_LOST)
        snprintf(text, size, "[GPU is lost]");
    else
        NO_VALUE(text, size);
}

static void watts(char *text, size_t size, nvmlReturn_t code, unsigned int milliwatts)
{
    if (code == NVML_SUCCESS)
        snprintf(text, size, "%.2f", milliwatts / 1000.0);
    else
        NO_VALUE(text, size);
}

/* Fills `text` and returns the unit ("" when none), or NULL for a field that is not known. */
static const char *field(nvmlDevice_t card, const char *name, char *text, size_t size)
{
    unsigned int n = 0, m = 0, rows[4];
    nvmlPciInfo_t pci;
    nvmlUtilization_t rates;
    nvmlReturn_t code;
#define IS(a) (strcmp(name, a) == 0)
    if (IS("name") || IS("gpu_name")) {
        if (CALL(nvmlDeviceGetName, card, text, (unsigned int)size) != NVML_SUCCESS)
            NO_VALUE(text, size);
    } else if (IS("uuid") || IS("gpu_uuid")) {
        if (CALL(nvmlDeviceGetUUID, card, text, (unsigned int)size) != NVML_SUCCESS)
            NO_VALUE(text, size);
    } else if (IS("serial") || IS("gpu_serial")) {
        if (CALL(nvmlDeviceGetSerial, card, text, (unsigned int)size) != NVML_SUCCESS)
            NO_VALUE(text, size);
    } else if (IS("vbios_version")) {
        if (CALL(nvmlDeviceGetVbiosVersion, card, text, (unsigned int)size) != NVML_SUCCESS)
            NO_VALUE(text, size);
    } else if (IS("driver_version")) {
        snprintf(text, size, "%s", driver);
    } else if (IS("count")) {
        number(text, size, CALL(nvmlDeviceGetCount, &n), n);
    } else if (IS("index")) {
        code = CALL(nvmlDeviceGetIndex, card, &n);
        number(text, size, code, n);
    } else if (IS("pci.bus_id") || IS("gpu_bus_id")) {
        if (CALL(nvmlDeviceGetPciInfo, card, &pci) == NVML_SUCCESS)
            snprintf(text, size, "%s", pci.busId);
        else
            NO_VALUE(text, size);
    } else if (IS("pci.device_id") || IS("pci.sub_device_id")) {
        if (CALL(nvmlDeviceGetPciInfo, card, &pci) == NVML_SUCCESS)
            snprintf(text, size, "0x%08X", IS("pci.device_id") ? pci.pciDeviceId : pci.pciSubSystemId);
        else
            NO_VALUE(text, size);
    } else if (IS("compute_cap")) {
        int major, minor;
        if (CALL(nvmlDeviceGetCudaComputeCapability, card, &major, &minor) == NVML_SUCCESS)
            snprintf(text, size, "%d.%d", major, minor);
        else
            NO_VALUE(text, size);
    } else if (strncmp(name, "memory.", 7) == 0) {
        /* Since R510 what the driver keeps for itself is counted apart. */
        nvmlMemory_v2_t all = {.version = nvmlMemory_v2};
        code = CALL(nvmlDeviceGetMemoryInfo_v2, card, &all);
        if (code == NVML_ERROR_FUNCTION_NOT_FOUND) {
            nvmlMemory_t memory = {0};
            code = CALL(nvmlDeviceGetMemoryInfo, card, &memory);
            all = (nvmlMemory_v2_t){.total = memory.total, .used = memory.used, .free = memory.free};
        }
        if (IS("memory.total"))
            number(text, size, code, all.total >> 20);
        else if (IS("memory.used"))
            number(text, size, code, all.used >> 20);
        else if (IS("memory.free"))
            number(text, size, code, all.free >> 20);
        else if (IS("memory.reserved"))
            number(text, size, code, all.reserved >> 20);
        else
            return NULL;
        return "MiB";
    } else if (IS("temperature.gpu")) {
        code = CALL(nvmlDeviceGetTemperature, card, NVML_TEMPERATURE_GPU, &n);
        number(text, size, code, n);
    } else if (IS("power.draw") || IS("power.draw.instant") || IS("power.draw.average")) {
        code = CALL(nvmlDeviceGetPowerUsage, card, &n);
        watts(text, size, code, n);
        return "W";
    } else if (IS("power.limit") || IS("enforced.power.limit")) {
        code = CALL(nvmlDeviceGetEnforcedPowerLimit, card, &n);
        watts(text, size, code, n);
        return "W";
    } else if (IS("power.default_limit")) {
        code = CALL(nvmlDeviceGetPowerManagementDefaultLimit, card, &n);
        watts(text, size, code, n);
        return "W";
    } else if (IS("power.max_limit") || IS("power.min_limit")) {
        code = CALL(nvmlDeviceGetPowerManagementLimitConstraints, card, &n, &m);
        watts(text, size, code, IS("power.max_limit") ? m : n);
        return "W";
    } else if (IS("utilization.gpu") || IS("utilization.memory")) {
        code = CALL(nvmlDeviceGetUtilizationRates, card, &rates);
        number(text, size, code, IS("utilization.gpu") ? rates.gpu : rates.memory);
        return "%";
    } else if (IS("fan.speed")) {
        code = CALL(nvmlDeviceGetFanSpeed, card, &n);
        number(text, size, code, n);
        return "%";
    } else if (IS("pstate")) {
        nvmlPstates_t state;
        if (CALL(nvmlDeviceGetPerformanceState, card, &state) == NVML_SUCCESS)
            snprintf(text, size, "P%d", (int)state);
        else
            NO_VALUE(text, size);
    } else if (IS("persistence_mode") || IS("display_active") || IS("display_mode")) {
        nvmlEnableState_t on;
        code = IS("persistence_mode") ? CALL(nvmlDeviceGetPersistenceMode, card, &on)
                                      : CALL(nvmlDeviceGetDisplayMode, card, &on);
        if (code == NVML_SUCCESS)
            snprintf(text, size, "%s", on ? "Enabled" : "Disabled");
        else
            NO_VALUE(text, size);
    } else if (IS("ecc.mode.current") || IS("ecc.mode.pending")) {
        nvmlEnableState_t on, later;
        if (CALL(nvmlDeviceGetEccMode, card, &on, &later) == NVML_SUCCESS)
            snprintf(text, size, "%s", on ? "Enabled" : "Disabled");
        else
            NO_VALUE(text, size);
    } else if (IS("ecc.errors.uncorrected.volatile.total") || IS("ecc.errors.corrected.volatile.total")) {
        unsigned long long errors = 0;
        code = CALL(nvmlDeviceGetTotalEccErrors, card,
                    IS("ecc.errors.corrected.volatile.total") ? NVML_MEMORY_ERROR_TYPE_CORRECTED
                                                              : NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                    NVML_VOLATILE_ECC, &errors);
        number(text, size, code, errors);
    } else if (IS("mig.mode.current") || IS("mig.mode.pending") || IS("gom.current") || IS("gom.pending")) {
        NO_VALUE(text, size);
    } else if (IS("compute_mode")) {
        snprintf(text, size, "Default");
    } else if (IS("pcie.link.gen.current") || IS("pcie.link.gen.gpucurrent")) {
        code = CALL(nvmlDeviceGetCurrPcieLinkGeneration, card, &n);
        number(text, size, code, n);
    } else if (IS("pcie.link.gen.max") || IS("pcie.link.gen.gpumax")) {
        code = CALL(nvmlDeviceGetMaxPcieLinkGeneration, card, &n);
        number(text, size, code, n);
    } else if (IS("pcie.link.width.current")) {
        code = CALL(nvmlDeviceGetCurrPcieLinkWidth, card, &n);
        number(text, size, code, n);
    } else if (IS("pcie.link.width.max")) {
        code = CALL(nvmlDeviceGetMaxPcieLinkWidth, card, &n);
        number(text, size, code, n);
    } else if (strncmp(name, "clocks.", 7) == 0 && strchr(name + 7, '.') == NULL) {
        const char *kind = name + 7;
        nvmlClockType_t type = strcmp(kind, "sm") == 0                                   ? NVML_CLOCK_SM
                               : strcmp(kind, "mem") == 0 || strcmp(kind, "memory") == 0 ? NVML_CLOCK_MEM
                               : strcmp(kind, "video") == 0                              ? NVML_CLOCK_VIDEO
                                                                                         : NVML_CLOCK_GRAPHICS;
        code = CALL(nvmlDeviceGetClockInfo, card, type, &n);
        number(text, size, code, n);
        return "MHz";
    } else if (strncmp(name, "clocks.max.", 11) == 0) {
        code = CALL(nvmlDeviceGetMaxClockInfo, card,
                    strcmp(name + 11, "sm") == 0    ? NVML_CLOCK_SM
                    : strncmp(name + 11, "mem", 3) == 0 ? NVML_CLOCK_MEM
                                                        : NVML_CLOCK_GRAPHICS,
                    &n);
        number(text, size, code, n);
        return "MHz";
    } else if (IS("clocks_throttle_reasons.active") || IS("clocks_event_reasons.active")) {
        unsigned long long reasons = 0;
        if (CALL(nvmlDeviceGetCurrentClocksThrottleReasons, card, &reasons) == NVML_SUCCESS)
            snprintf(text, size, "0x%016llX", reasons);
        else
            NO_VALUE(text, size);
    } else if (strncmp(name, "remapped_rows.", 14) == 0) {
        code = CALL(nvmlDeviceGetRemappedRows, card, &rows[0], &rows[1], &rows[2], &rows[3]);
        const char *kind = name + 14;
        if (strcmp(kind, "pending") == 0 || strcmp(kind, "failure") == 0) {
            if (code == NVML_SUCCESS)
                snprintf(text, size, "%s", rows[strcmp(kind, "pending") == 0 ? 2 : 3] ? "Yes" : "No");
            else
                NO_VALUE(text, size);
        } else {
            number(text, size, code, rows[strcmp(kind, "correctable") == 0 ? 0 : 1]);
        }
    } else if (IS("timestamp")) {
        time_t now = time(NULL);
        strftime(text, size, "%Y/%m/%d %H:%M:%S.000", localtime(&now));
    } else {
        return NULL;
    }
    return "";
#undef IS
}

static int wanted(nvmlDevice_t card, unsigned int index)
{
    char text[WORD], copy[WORD];
    if (only[0] == '\0')
        return 1;
    snprintf(copy, sizeof copy, "%s", only);
    for (char *save, *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
        snprintf(text, sizeof text, "%u", index);
        if (strcmp(word, text) == 0)
            return 1;
        for (int i = 0; i < 2; i++) {
            field(card, i ? "pci.bus_id" : "uuid", text, sizeof text);
            if (strcasecmp(word, text) == 0 || (i && strcasecmp(word, text + 4) == 0))
                return 1;
        }
    }
    return 0;
}

/* -- the forms of output ---------------------------------------------------------------------------------------------- */

static int list(unsigned int count)
{
    for (unsigned int i = 0; i < count; i++) {
        nvmlDevice_t card;
        char name[WORD], uuid[WORD];
        if (CALL(nvmlDeviceGetHandleByIndex, i, &card) != NVML_SUCCESS || !wanted(card, i))
            continue;
        field(card, "name", name, sizeof name);
        field(card, "uuid", uuid, sizeof uuid);
        printf("GPU %u: %s (UUID: %s)\n", i, name, uuid);
    }
    return 0;
}

static int query(unsigned int count, const char *fields, const char *format)
{
    int header = strstr(format, "noheader") == NULL, units = strstr(format, "nounits") == NULL;
    if (strstr(format, "csv") == NULL) {
        puts("\"--format=\" switch is missing. It is required with \"--query-*\" switches.");
        return 2;
    }
    for (unsigned int i = 0; i < count || (header && i == 0); i++) {
        nvmlDevice_t card = NULL;
        char copy[4096], line[8192] = "", names[8192] = "";
        if (i < count && CALL(nvmlDeviceGetHandleByIndex, i, &card) != NVML_SUCCESS)
            continue;
        if (card == NULL || !wanted(card, i)) {
            if (card == NULL)
                break;
            continue;
        }
        snprintf(copy, sizeof copy, "%s", fields);
        for (char *save, *name = strtok_r(copy, ", ", &save); name; name = strtok_r(NULL, ", ", &save)) {
            char text[WORD];
            const char *unit = field(card, name, text, sizeof text);
            if (unit == NULL) {
                printf("Field \"%s\" is not a valid field to query.\n\n", name);
                return 2;
            }
            size_t at = strlen(line), head = strlen(names);
            snprintf(names + head, sizeof names - head, "%s%s%s%s%s", head ? ", " : "", name, *unit ? " [" : "", unit,
                     *unit ? "]" : "");
            int bare = !units || *unit == '\0' || text[0] == '[';
            snprintf(line + at, sizeof line - at, "%s%s%s%s", at ? ", " : "", text, bare ? "" : " ", bare ? "" : unit);
        }
        if (header)
            puts(names);
        header = 0;
        puts(line);
    }
    return 0;
}

static int query_apps(unsigned int count, const char *fields, const char *format)
{
    int units = strstr(format, "nounits") == NULL;
    if (strstr(format, "noheader") == NULL) {
        char copy[1024];
        int first = 1;
        snprintf(copy, sizeof copy, "%s", fields);
        for (char *save, *name = strtok_r(copy, ", ", &save); name; name = strtok_r(NULL, ", ", &save)) {
            int memory = strcmp(name, "used_memory") == 0 || strcmp(name, "used_gpu_memory") == 0;
            printf("%s%s%s", first ? "" : ", ", name, memory ? " [MiB]" : "");
            first = 0;
        }
        puts("");
    }
    for (unsigned int i = 0; i < count; i++) {
        nvmlDevice_t card;
        nvmlProcessInfo_t infos[64];
        unsigned int found = 64;
        if (CALL(nvmlDeviceGetHandleByIndex, i, &card) != NVML_SUCCESS || !wanted(card, i) ||
            CALL(nvmlDeviceGetComputeRunningProcesses, card, &found, infos) != NVML_SUCCESS)
            continue;
        for (unsigned int p = 0; p < found; p++) {
            char copy[1024], text[WORD];
            int first = 1;
            snprintf(copy, sizeof copy, "%s", fields);
            for (char *save, *name = strtok_r(copy, ", ", &save); name; name = strtok_r(NULL, ", ", &save)) {
                if (strcmp(name, "pid") == 0)
                    snprintf(text, sizeof text, "%u", infos[p].pid);
                else if (strcmp(name, "used_memory") == 0 || strcmp(name, "used_gpu_memory") == 0)
                    snprintf(text, sizeof text, "%llu%s", infos[p].usedGpuMemory >> 20, units ? " MiB" : "");
                else if (strcmp(name, "process_name") == 0 || strcmp(name, "name") == 0) {
                    if (CALL(nvmlSystemGetProcessName, infos[p].pid, text, sizeof text) != NVML_SUCCESS)
                        snprintf(text, sizeof text, "[Not Found]");
                } else if (field(card, name, text, sizeof text) == NULL) {
                    printf("Field \"%s\" is not a valid field to query.\n\n", name);
                    return 2;
                }
                printf("%s%s", first ? "" : ", ", text);
                first = 0;
            }
            puts("");
        }
    }
    return 0;
}

/* The table changed its widths twice: with R530, and with R545. */
static void now(void)
{
    char stamp[WORD];
    time_t moment = time(NULL);
    strftime(stamp, sizeof stamp, "%a %b %e %H:%M:%S %Y", localtime(&moment));
    printf("%s       \n", stamp);
}

static void rule(char fill, const int *widths, int count, const char *ends)
{
    putchar(ends[0]);
    for (int i = 0; i < count; i++) {
        for (int n = 0; n < widths[i]; n++)
            putchar(fill);
        putchar(i + 1 < count ? '+' : ends[1]);
    }
    putchar('\n');
}

static void table(unsigned int count)
{
    int old = branch < 530, wide = branch >= 545;
    int widths[3] = {old ? 31 : 41, wide ? 24 : 22, 22};
    int whole[1] = {widths[0] + widths[1] + widths[2] + 2};
    char text[512], cuda[16] = "N/A";
    int version = 0;
    if (CALL(nvmlSystemGetCudaDriverVersion, &version) == NVML_SUCCESS)
        snprintf(cuda, sizeof cuda, "%d.%d", version / 1000, version % 1000 / 10);
    now();
    rule('-', whole, 1, "++");
    snprintf(text, sizeof text, old ? "NVIDIA-SMI %-12s Driver Version: %-12s CUDA Version: %-9s"
                                    : "NVIDIA-SMI %-22s Driver Version: %-14s CUDA Version: %-9s",
             driver, driver, cuda);
    printf("| %-*.*s|\n", whole[0] - 1, whole[0] - 1, text);
    rule('-', widths, 3, "|+");
    const char *heads[3][3] = {
        {old ? " GPU  Name        Persistence-M" : " GPU  Name                 Persistence-M ",
         wide ? " Bus-Id          Disp.A " : " Bus-Id        Disp.A ", " Volatile Uncorr. ECC "},
        {old ? " Fan  Temp  Perf  Pwr:Usage/Cap" : " Fan  Temp   Perf          Pwr:Usage/Cap ",
         wide ? "           Memory-Usage " : "         Memory-Usage ", " GPU-Util  Compute M. "},
        {"", "", "               MIG M. "},
    };
    for (int i = 0; i < 3; i++)
        printf("|%-*s|%-*s|%-*s|\n", widths[0], heads[i][0], widths[1], heads[i][1], widths[2], heads[i][2]);
    rule('=', widths, 3, "||");
    for (unsigned int i = 0; i < count; i++) {
        nvmlDevice_t card;
        if (CALL(nvmlDeviceGetHandleByIndex, i, &card) != NVML_SUCCESS || !wanted(card, i))
            continue;
        char name[WORD], bus[WORD], ecc[WORD], fan[WORD], temperature[WORD], state[WORD], used[WORD], total[WORD], busy[WORD];
        char cell[256], persistence[WORD];
        unsigned int draw = 0, limit = 0;
        field(card, "name", name, sizeof name);
        field(card, "pci.bus_id", bus, sizeof bus);
        field(card, "ecc.errors.uncorrected.volatile.total", ecc, sizeof ecc);
        field(card, "fan.speed", fan, sizeof fan);
        field(card, "temperature.gpu", temperature, sizeof temperature);
        field(card, "pstate", state, sizeof state);
        field(card, "memory.used", used, sizeof used);
        field(card, "memory.total", total, sizeof total);
        field(card, "utilization.gpu", busy, sizeof busy);
        field(card, "persistence_mode", persistence, sizeof persistence);
        CALL(nvmlDeviceGetPowerUsage, card, &draw);
        CALL(nvmlDeviceGetEnforcedPowerLimit, card, &limit);
        const char *kept = strcmp(persistence, "Enabled") == 0 ? "On" : "Off";
        if (old && strlen(name) > 18)
            snprintf(name + 15, sizeof name - 15, "...");
        snprintf(cell, sizeof cell, old ? " %3u  %-18.18s  %-3s  " : " %3u  %-30.27s %3s ", i, name, kept);
        printf("|%-*s|", widths[0], cell);
        snprintf(cell, sizeof cell, "%s%s Off ", wide ? "   " : " ", bus);
        printf("%-*s|%21s |\n", widths[1], cell, ecc[0] == '[' ? "N/A" : ecc);
        snprintf(cell, sizeof cell, old ? "%3s%%  %3sC    %-3s %4uW / %3uW" : wide ? "%3s%%  %3sC    %-3s %13uW / %4uW"
                                                                                 : "%3s%%  %3sC    %-3s %14uW / %3uW",
                 fan[0] == '[' ? "N/A" : fan, temperature, state, draw / 1000, limit / 1000);
        printf("|%-*s|", widths[0], cell);
        snprintf(cell, sizeof cell, wide ? "%6sMiB / %6sMiB" : "%6sMiB / %5sMiB", used, total);
        printf("%*s |", widths[1] - 1, cell);
        snprintf(cell, sizeof cell, "%6s%%      Default", busy);
        printf("%*s |\n", widths[2] - 1, cell);
        printf("|%*s|%*s|%*s |\n", widths[0], "", widths[1], "", widths[2] - 1, "N/A");
        rule('-', widths, 3, "++");
    }
    printf("%*s\n", whole[0] + 2, "");
    rule('-', whole, 1, "++");
    printf("| %-*s|\n", whole[0] - 1, "Processes:");
    printf("|%s%*s|\n", "  GPU   GI   CI        PID   Type   Process name", whole[0] - 48, "GPU Memory ");
    printf("|%s%*s|\n", "        ID   ID", whole[0] - 15, "Usage      ");
    rule('=', whole, 1, "||");
    unsigned int lines = 0;
    for (unsigned int i = 0; i < count; i++) {
        nvmlDevice_t card;
        nvmlProcessInfo_t infos[64];
        unsigned int found = 64;
        if (CALL(nvmlDeviceGetHandleByIndex, i, &card) != NVML_SUCCESS ||
            CALL(nvmlDeviceGetComputeRunningProcesses, card, &found, infos) != NVML_SUCCESS)
            continue;
        for (unsigned int p = 0; p < found; p++, lines++) {
            char name[WORD], cell[256];
            if (CALL(nvmlSystemGetProcessName, infos[p].pid, name, sizeof name) != NVML_SUCCESS)
                snprintf(name, sizeof name, "[Not Found]");
            snprintf(cell, sizeof cell, " %4u   N/A  N/A %10u      C   %-*.*s%7lluMiB ", i, infos[p].pid, whole[0] - 47,
                     whole[0] - 47, name, infos[p].usedGpuMemory >> 20);
            printf("|%-*s|\n", whole[0], cell);
        }
    }
    if (lines == 0)
        printf("|%-*s|\n", whole[0], "  No running processes found");
    rule('-', whole, 1, "++");
}

static void pair(int depth, const char *key, const char *value)
{
    printf("%*s%-*s: %s\n", depth * 4, "", 50 - depth * 4, key, value);
}

static void details(unsigned int count)
{
    static const char *const rows[][2] = {
        {"Product Name", "name"}, {"Display Mode", "display_mode"}, {"Persistence Mode", "persistence_mode"},
        {"Serial Number", "serial"}, {"GPU UUID", "uuid"}, {"VBIOS Version", "vbios_version"}, {"Fan Speed", "fan.speed"},
        {"Performance State", "pstate"}, {"Compute Mode", "compute_mode"}};
    char text[WORD], cuda[16] = "N/A", stamp[WORD];
    int version = 0;
    time_t moment = time(NULL);
    if (CALL(nvmlSystemGetCudaDriverVersion, &version) == NVML_SUCCESS)
        snprintf(cuda, sizeof cuda, "%d.%d", version / 1000, version % 1000 / 10);
    strftime(stamp, sizeof stamp, "%a %b %e %H:%M:%S %Y", localtime(&moment));
    puts("\n==============NVSMI LOG==============\n");
    pair(0, "Timestamp", stamp);
    pair(0, "Driver Version", driver);
    pair(0, "CUDA Version", cuda);
    puts("");
    snprintf(text, sizeof text, "%u", count);
    pair(0, "Attached GPUs", text);
    for (unsigned int i = 0; i < count; i++) {
        nvmlDevice_t card;
        if (CALL(nvmlDeviceGetHandleByIndex, i, &card) != NVML_SUCCESS || !wanted(card, i))
            continue;
        field(card, "pci.bus_id", text, sizeof text);
        printf("GPU %s\n", text);
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            const char *unit = field(card, rows[r][1], text, sizeof text - 4);
            if (text[0] == '[')
                snprintf(text, sizeof text, "N/A");
            else if (unit && *unit)
                snprintf(text + strlen(text), 4, " %s", unit);
            pair(1, rows[r][0], text);
        }
        puts("    FB Memory Usage");
        static const char *const memory[][2] = {
            {"Total", "memory.total"}, {"Reserved", "memory.reserved"}, {"Used", "memory.used"}, {"Free", "memory.free"}};
        for (int m = 0; m < 4; m++) {
            if (m == 1 && branch < 510)
                continue;
            field(card, memory[m][1], text, sizeof text - 5);
            strcat(text, " MiB");
            pair(2, memory[m][0], text);
        }
        puts("    Temperature");
        field(card, "temperature.gpu", text, sizeof text - 3);
        strcat(text, " C");
        pair(2, "GPU Current Temp", text);
        puts(branch >= 535 ? "    GPU Power Readings" : "    Power Readings");
        field(card, "power.draw", text, sizeof text - 3);
        strcat(text, " W");
        pair(2, "Power Draw", text);
        field(card, "power.limit", text, sizeof text - 3);
        strcat(text, " W");
        pair(2, branch >= 535 ? "Current Power Limit" : "Power Limit", text);
        puts("");
    }
}

/* `-pm 1` and `-pm 0`: kept in the card's state file, which only root may write. */
static int persistence(unsigned int count, const char *mode)
{
    for (unsigned int i = 0; i < count; i++) {
        nvmlDevice_t card;
        char path[WORD], bus[WORD];
        if (CALL(nvmlDeviceGetHandleByIndex, i, &card) != NVML_SUCCESS || !wanted(card, i))
            continue;
        field(card, "pci.bus_id", bus, sizeof bus);
        snprintf(path, sizeof path, STATE_FOLDER "/%u", i);
        char before[8192] = "", line[512];
        FILE *file = fopen(path, "r+");
        if (file == NULL) {
            printf("Unable to set persistence mode for GPU %s: Insufficient Permissions\nTerminating early due to previous errors.\n",
                   bus);
            return 4;
        }
        while (fgets(line, sizeof line, file))
            if (strncmp(line, "persistence ", 12) != 0)
                strncat(before, line, sizeof before - strlen(before) - 1);
        rewind(file);
        int length = fprintf(file, "%spersistence %s\n", before, mode);
        if (ftruncate(fileno(file), length) != 0)
            perror(path);
        fclose(file);
        printf("%s persistence mode for GPU %s.\n", mode[0] == '1' ? "Enabled" : "Disabled", bus);
    }
    puts("All done.");
    return 0;
}

int main(int argc, char **argv)
{
    const char *fields = NULL, *apps = NULL, *format = "", *mode = NULL;
    int as_list = 0, as_details = 0;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strcmp(word, "-L") == 0 || strcmp(word, "--list-gpus") == 0)
            as_list = 1;
        else if (strcmp(word, "-q") == 0 || strcmp(word, "--query") == 0)
            as_details = 1;
        else if (strncmp(word, "--query-gpu=", 12) == 0)
            fields = word + 12;
        else if (strncmp(word, "--query-compute-apps=", 21) == 0)
            apps = word + 21;
        else if (strncmp(word, "--format=", 9) == 0)
            format = word + 9;
        else if (strncmp(word, "--id=", 5) == 0)
            snprintf(only, sizeof only, "%s", word + 5);
        else if (strcmp(word, "-i") == 0 && i + 1 < argc)
            snprintf(only, sizeof only, "%s", argv[++i]);
        else if ((strcmp(word, "-pm") == 0 || strcmp(word, "--persistence-mode") == 0) && i + 1 < argc)
            mode = argv[++i];
        else if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
            puts("NVIDIA System Management Interface, simulated by the lab of provision: -L, -q, -i, -pm, --query-gpu, "
                 "--query-compute-apps, --format");
            return 0;
        } else if (strcmp(word, "--version") != 0) {
            printf("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n\n");
            return 2;
        }
    }
    library = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (library == NULL) {
        puts("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. Please make sure that the NVIDIA Display Driver is "
             "properly installed and present in your system.\nPlease also try adding directory that contains libnvidia-ml.so to "
             "your system PATH.");
        return 12;
    }
    nvmlReturn_t code = CALL(nvmlInit);
    if (code != NVML_SUCCESS)
        return fail(code);
    unsigned int count = 0;
    CALL(nvmlSystemGetDriverVersion, driver, sizeof driver);
    CALL(nvmlDeviceGetCount, &count);
    branch = atoi(driver);
    if (count == 0) {
        puts("No devices were found");
        return 6;
    }
    if (mode)
        return persistence(count, mode);
    if (fields)
        return query(count, fields, format);
    if (apps)
        return query_apps(count, apps, format);
    if (as_list)
        return list(count);
    if (as_details)
        details(count);
    else
        table(count);
    return 0;
}
