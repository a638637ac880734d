/* Stands in for nvidia-persistenced on a lab host: the real one needs to open a card. Accepts its options, writes its pid file
 * and waits; without a loaded driver it fails as the real one does. */
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "simulated.h"

#define FOLDER "/var/run/nvidia-persistenced"
#define PID_FILE FOLDER "/nvidia-persistenced.pid"

int main(int argc, char **argv)
{
    const char *user = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0 || strcmp(argv[i], "-v") == 0) {
            puts("nvidia-persistenced: simulated by the lab");
            return 0;
        }
        if (strcmp(argv[i], "--user") == 0 && i + 1 < argc)
            user = argv[++i];
        else if (strncmp(argv[i], "--user=", 7) == 0)
            user = argv[i] + 7;
    }
    openlog("nvidia-persistenced", LOG_PID, LOG_DAEMON);
    if (access(LOADED_VERSION, R_OK) != 0 || access("/dev/nvidia0", F_OK) != 0) {
        syslog(LOG_ERR, "Failed to query NVIDIA devices. Please ensure that the NVIDIA device files (/dev/nvidia*) exist, and "
                        "that user 0 has read and write permissions for those files.");
        fputs("nvidia-persistenced failed to initialize. Check syslog for more details.\n", stderr);
        return 1;
    }
    mkdir(FOLDER, 0755);
    struct passwd *account = user ? getpwnam(user) : NULL;
    if (account && chown(FOLDER, account->pw_uid, account->pw_gid) != 0)
        perror(FOLDER);
    if (daemon(0, 0) != 0)
        return 1;
    FILE *file = fopen(PID_FILE, "w");
    if (file == NULL)
        return 1;
    fprintf(file, "%d\n", (int)getpid());
    fclose(file);
    if (account && (setgroups(0, NULL) != 0 || setgid(account->pw_gid) != 0 || setuid(account->pw_uid) != 0))
        return 1;
    syslog(LOG_NOTICE, "Started (%d), cards simulated by the lab", (int)getpid());
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    int which;
    sigwait(&ends, &which);
    unlink(PID_FILE);
    return 0;
}
