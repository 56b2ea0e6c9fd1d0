/*
 * probe.c - reads /proc.  No state; the caller owns what is filled in.
 */
#include "probe.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads a small file whole; false when it cannot. */
static bool slurp(const char *path, char *text, size_t room)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    size_t size = fread(text, 1, room - 1, file);
    fclose(file);
    text[size] = '\0';
    return size > 0;
}

static double ticks_of(pid_t pid)
{
    char path[64];
    char text[1024];
    unsigned long user, system;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    /* The second field is the command in parentheses and may hold anything: count from the last of them. */
    const char *rest = slurp(path, text, sizeof text) ? strrchr(text, ')') : NULL;
    if (rest == NULL ||
        sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) {
        return -1;
    }
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

void fc_probe_cpu(pid_t pid, struct fc_probe_cpu *cpu)
{
    char path[320];
    char text[128];
    cpu->known = false;
    cpu->seconds = 0;
    cpu->threads = 0;
    cpu->ticks_seconds = pid > 0 ? ticks_of(pid) : -1;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = pid > 0 ? opendir(path) : NULL;
    if (tasks == NULL)
        return;
    const struct dirent *task;
    while ((task = readdir(tasks)) != NULL) {
        uint64_t ns;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, task->d_name);
        if (task->d_name[0] == '.' || !slurp(path, text, sizeof text) || sscanf(text, "%" SCNu64, &ns) != 1)
            continue;
        cpu->seconds += (double)ns / 1e9;
        if (cpu->threads < FC_PROBE_THREADS) {
            cpu->thread[cpu->threads].id = (pid_t)strtol(task->d_name, NULL, 10);
            cpu->thread[cpu->threads++].seconds = (double)ns / 1e9;
        }
    }
    closedir(tasks);
    cpu->known = cpu->threads > 0;
}

double fc_probe_busiest(const struct fc_probe_cpu *before, const struct fc_probe_cpu *after)
{
    double most = 0;
    for (unsigned i = 0; i < after->threads; i++) {
        double used = after->thread[i].seconds;
        for (unsigned j = 0; j < before->threads; j++) {
            if (before->thread[j].id == after->thread[i].id) {
                used -= before->thread[j].seconds;
                break;
            }
        }
        most = used > most ? used : most;
    }
    return most;
}

/* The number behind a label such as "Pss:" at the start of a line; 0 when there is none. */
static uint64_t labelled(const char *text, const char *label)
{
    size_t length = strlen(label);
    while (text != NULL && *text != '\0') {
        if (strncmp(text, label, length) == 0)
            return strtoull(text + length, NULL, 10);
        text = strchr(text, '\n');
        text = text != NULL ? text + 1 : NULL;
    }
    return 0;
}

void fc_probe_memory(pid_t pid, struct fc_load_memory *memory)
{
    char path[64];
    char text[4096];
    memset(memory, 0, sizeof *memory);
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    if (pid > 0 && slurp(path, text, sizeof text)) {
        memory->server_pss = labelled(text, "Pss:") * 1024;
        memory->server_rss = labelled(text, "Rss:") * 1024;
    }
    if (slurp("/proc/meminfo", text, sizeof text))
        memory->kernel_slab = labelled(text, "Slab:") * 1024;
    if (slurp("/proc/net/sockstat", text, sizeof text)) {
        const char *tcp = strstr(text, "\nTCP:");
        const char *mem = tcp != NULL ? strstr(tcp, " mem ") : NULL;
        memory->kernel_tcp = mem != NULL ? strtoull(mem + 5, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
    }
}
