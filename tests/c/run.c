/* Runs named tests under a time limit, and looks after the memory they leave. The main thread's. */
#include "check.h"
#include "faults.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* For one test: far more than any needs, also under sanitizers on a busy machine. */
#define TEST_LIMIT_S 100

static void on_alarm(int signal_number)
{
    static const char message[] = "TIMED OUT in ";

    (void)signal_number;
    if (write(STDERR_FILENO, message, sizeof message - 1) < 0 ||
        write(STDERR_FILENO, check_running, strlen(check_running)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
        _exit(3);
    _exit(2);
}

void check_run(const char *name, void (*test)(void))
{
    long before = fault_live_blocks();

    check_running = name;
    signal(SIGALRM, on_alarm);
    alarm(TEST_LIMIT_S);
    test();
    alarm(0);
    fault_clear();
    if (fault_live_blocks() != before) {
        fprintf(stderr, "FAILED %s: %ld allocated blocks are left\n", name, fault_live_blocks() - before);
        exit(1);
    }
    printf("ok %s\n", name);
    fflush(stdout);
}

unsigned check_each_allocation(bool (*scenario)(void))
{
    enum { TOO_MANY = 1000 };

    for (unsigned n = 0; n < TOO_MANY; n++) {
        long before = fault_live_blocks();
        fault_clear();
        fault_arm(FAULT_ALLOCATION, n, 1, ENOMEM);
        bool succeeded = scenario();
        unsigned long injected = fault_injected(FAULT_ALLOCATION);
        fault_clear();
        CHECK_EQ(fault_live_blocks(), before);
        if (injected == 0) {
            CHECK(succeeded);
            return n;
        }
    }
    check_failed(__FILE__, __LINE__, "the scenario comes to an end");
}
