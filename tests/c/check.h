/* A small test harness: named tests, checks that end the program, waiting for conditions.
 *
 * A failed check ends the program at once, since threads of the core may be running that nobody could unwind. After
 * each test the number of allocated blocks must be what it was before: a leak check that needs no ptrace, and that
 * works without sanitizers as well.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))

#define CHECK_EQ(actual, expected)                                                                              \
    check_equal(__FILE__, __LINE__, #actual " == " #expected, (long long)(actual), (long long)(expected))

/* Both lengths and all bytes. */
#define CHECK_BYTES(actual, actual_length, expected, expected_length)                                           \
    check_bytes(__FILE__, __LINE__, #actual, (actual), (actual_length), (expected), (expected_length))

/* Looks again and again until the condition holds; fails when it doesn't within CHECK_PATIENCE_S. */
#define CHECK_PATIENCE_S 30
#define WAIT_UNTIL(condition)                                                                                   \
    for (double check_until = check_now() + CHECK_PATIENCE_S; !(condition);)                                    \
    check_wait(check_until, __FILE__, __LINE__, #condition)

#define RUN(test) check_run(#test, test)

/* The test that runs, for reports. */
extern const char *check_running;

void check_run(const char *name, void (*test)(void));

/* Runs the scenario again and again: first its first allocation fails, then its second, and so on until it doesn't get
 * that far. It returns true if it succeeded, as it must where nothing failed, and frees all it made in any case.
 * Returns how many of its allocations could fail. */
unsigned check_each_allocation(bool (*scenario)(void));

_Noreturn void check_failed(const char *file, int line, const char *what);
void check_equal(const char *file, int line, const char *what, long long actual, long long expected);
void check_bytes(const char *file, int line, const char *what, const void *actual, size_t actual_length,
                 const void *expected, size_t expected_length);
void check_wait(double until, const char *file, int line, const char *what);

/* Seconds of CLOCK_MONOTONIC. */
double check_now(void);

/* The next number of a fixed sequence (splitmix64): the same in every run. */
uint64_t check_random(uint64_t *state);

#endif
