/* Checks, waiting and the fixed random numbers behind check.h; run.c has what runs the tests. Any thread. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *check_running = "";

_Noreturn void check_failed(const char *file, int line, const char *what)
{
    fflush(stdout);
    fprintf(stderr, "FAILED %s:%d in %s: %s\n", file, line, check_running, what);
    abort();
}

void check_equal(const char *file, int line, const char *what, long long actual, long long expected)
{
    if (actual == expected)
        return;
    fprintf(stderr, "%lld instead of %lld\n", actual, expected);
    check_failed(file, line, what);
}

static void print_bytes(const char *label, const uint8_t *bytes, size_t n)
{
    fprintf(stderr, "%s (%zu):", label, n);
    for (size_t i = 0; i < n && i < 64; i++)
        fprintf(stderr, " %02x", bytes[i]);
    fputc('\n', stderr);
}

void check_bytes(const char *file, int line, const char *what, const void *actual, size_t actual_length,
                 const void *expected, size_t expected_length)
{
    if (actual_length == expected_length &&
        (expected_length == 0 || memcmp(actual, expected, expected_length) == 0))
        return;
    print_bytes("actual", actual, actual_length);
    print_bytes("expected", expected, expected_length);
    check_failed(file, line, what);
}

double check_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void check_wait(double until, const char *file, int line, const char *what)
{
    static const struct timespec a_moment = {.tv_nsec = 500000};

    if (check_now() > until)
        check_failed(file, line, what);
    nanosleep(&a_moment, NULL);
}

uint64_t check_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);

    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}
