/*
 * test_load_check.h - the one assertion of the load client's C tests.  A failure is printed and counted, and
 * the test goes on; main() returns check_result().
 */
#ifndef TEST_LOAD_CHECK_H
#define TEST_LOAD_CHECK_H

#include <stdio.h>

static unsigned check_count;
static unsigned check_failures;

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        check_count++;                                                                                       \
        if (!(condition)) {                                                                                  \
            check_failures++;                                                                                \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, #condition);                    \
        }                                                                                                    \
    } while (0)

/* The exit code: a run without a single check is no success. */
static inline int check_result(void)
{
    printf("%u checks, %u failed\n", check_count, check_failures);
    return check_failures > 0 || check_count == 0;
}

#endif
