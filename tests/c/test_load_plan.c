/*
 * test_load_plan.c - what a run makes of its options before it opens anything: the schedule of arrivals,
 * timers, source addresses, the URL, ports, contradictions.
 *
 * Sources: fastcast/load/arrivals.c fastcast/load/capacity.c fastcast/load/plan.c fastcast/load/reason.c
 * fastcast/load/sources.c fastcast/load/target.c fastcast/load/timers.c
 */
#include "arrivals.h"
#include "capacity.h"
#include "plan.h"
#include "reason.h"
#include "target.h"
#include "test_load_check.h"
#include "timers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#define SECOND 1000000000u

static void timers_come_in_the_order_of_their_times(void)
{
    enum { MANY = 1000 };
    struct fc_timers timers;
    CHECK(fc_timers_init(&timers, MANY) == 0);
    CHECK(fc_timers_due(&timers) == UINT64_MAX);
    for (uint32_t i = 0; i < MANY; i++)
        fc_timers_add(&timers, (uint64_t)i * 7919 % 1009, i);
    uint32_t what;
    uint64_t last = 0;
    for (uint32_t left = timers.used; left > 0; left--) {
        uint64_t due = fc_timers_due(&timers);
        CHECK(due >= last);
        CHECK(fc_timers_take(&timers, due, &what));
        CHECK((uint64_t)what * 7919 % 1009 == due);
        last = due;
    }
    CHECK(!fc_timers_take(&timers, UINT64_MAX - 1, &what));
    fc_timers_free(&timers);
}

static void a_timer_does_not_come_before_its_time(void)
{
    struct fc_timers timers;
    uint32_t what;
    CHECK(fc_timers_init(&timers, 2) == 0);
    fc_timers_add(&timers, 20, 2);
    fc_timers_add(&timers, 10, 1);
    CHECK(!fc_timers_take(&timers, 9, &what));
    CHECK(fc_timers_take(&timers, 10, &what) && what == 1);
    CHECK(!fc_timers_take(&timers, 19, &what));
    CHECK(fc_timers_take(&timers, 20, &what) && what == 2);
    fc_timers_free(&timers);
}

static void one_rate_is_one_batch(void)
{
    struct fc_load_options options;
    struct fc_arrivals arrivals;
    uint32_t batch = 0;
    fc_load_options_init(&options);
    options.connect_rate = 100;
    CHECK(fc_arrivals_init(&arrivals, &options, 2) == 0);
    arrivals.start_ns = 5 * (uint64_t)SECOND;
    CHECK(!fc_arrivals_pass(&arrivals, &batch, 50, 0));
    CHECK(fc_arrivals_due(&arrivals, batch, 0) == arrivals.start_ns);
    CHECK(fc_arrivals_due(&arrivals, batch, 50) == arrivals.start_ns + SECOND / 2);
    fc_arrivals_free(&arrivals);
}

/* Ten at 10 a second, twenty as fast as can be, ten at 5 a second, and ten at 10. */
static void batches_follow_each_other(void)
{
    static const struct fc_load_arrival given[] = {{10, 10}, {20, 0}, {10, 5}, {10, 10}};
    struct fc_load_options options;
    struct fc_arrivals arrivals;
    uint32_t batch = 0;
    uint32_t other = 0;
    fc_load_options_init(&options);
    options.arrivals = given;
    options.arrivals_used = 4;
    options.connections = 50;
    CHECK(fc_arrivals_init(&arrivals, &options, 2) == 0);
    arrivals.start_ns = SECOND;
    CHECK(!fc_arrivals_pass(&arrivals, &batch, 9, 0) && batch == 0);
    CHECK(!fc_arrivals_pass(&arrivals, &batch, 10, 0) && batch == 1);
    CHECK(fc_arrivals_due(&arrivals, 1, 10) == 2 * (uint64_t)SECOND);
    CHECK(fc_arrivals_due(&arrivals, 1, 29) == 2 * (uint64_t)SECOND);
    /* When the third begins is known once both threads are through with the second. */
    CHECK(fc_arrivals_due(&arrivals, 2, 30) == UINT64_MAX);
    CHECK(!fc_arrivals_pass(&arrivals, &batch, 30, 3 * (uint64_t)SECOND) && batch == 2);
    CHECK(fc_arrivals_due(&arrivals, 2, 30) == UINT64_MAX);
    CHECK(fc_arrivals_pass(&arrivals, &other, UINT32_MAX, 4 * (uint64_t)SECOND) && other == 4);
    CHECK(fc_arrivals_due(&arrivals, 2, 30) == 4 * (uint64_t)SECOND);
    CHECK(fc_arrivals_due(&arrivals, 2, 35) == 5 * (uint64_t)SECOND);
    CHECK(fc_arrivals_due(&arrivals, 3, 41) == 6 * (uint64_t)SECOND + SECOND / 10);
    fc_arrivals_free(&arrivals);
}

static bool picks(const struct fc_sources *sources, uint32_t number, const char *expected)
{
    struct sockaddr_storage address;
    char text[INET6_ADDRSTRLEN] = "";
    socklen_t size = fc_sources_pick(sources, number, &address);
    if (size == sizeof(struct sockaddr_in))
        inet_ntop(AF_INET, &((struct sockaddr_in *)&address)->sin_addr, text, sizeof text);
    else if (size == sizeof(struct sockaddr_in6))
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&address)->sin6_addr, text, sizeof text);
    return strcmp(text, expected) == 0;
}

static void source_lists_are_dealt_out_in_turn(void)
{
    struct fc_sources sources;
    char problem[FC_LOAD_PROBLEM];
    CHECK(fc_sources_parse(&sources, AF_INET, "10.0.0.1, 10.1.0.0/30 10.2.0.254-10.2.1.1,10.3.0.7-8", problem,
                           sizeof problem) == 0);
    CHECK(sources.count == 9);
    CHECK(picks(&sources, 0, "10.0.0.1") && picks(&sources, 1, "10.1.0.1") && picks(&sources, 2, "10.1.0.2"));
    CHECK(picks(&sources, 3, "10.2.0.254") && picks(&sources, 6, "10.2.1.1"));
    CHECK(picks(&sources, 8, "10.3.0.8") && picks(&sources, 9, "10.0.0.1"));
    fc_sources_free(&sources);
    CHECK(fc_sources_parse(&sources, AF_INET6, "fd00::1,fd00::2:0/127,fd00::ff-fd00::101", problem,
                           sizeof problem) == 0);
    CHECK(sources.count == 6);
    CHECK(picks(&sources, 0, "fd00::1") && picks(&sources, 2, "fd00::2:1") && picks(&sources, 4, "fd00::100"));
    fc_sources_free(&sources);
    CHECK(fc_sources_pick(&sources, 0, &(struct sockaddr_storage){0}) == 0);
}

static void what_is_no_source_list_is_named(void)
{
    static const char *const wrong[] = {"10.0.0.1,nonsense", "10.0.0.0/33",       "10.0.0.0/", "10.0.0.9-8",
                                        "10.0.0.1-256",      "10.0.0.1-10.0.0.0", "10.0.0.0/4", "fd00::1",
                                        "",                  " , "};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct fc_sources sources;
        char problem[FC_LOAD_PROBLEM] = "";
        int code = fc_sources_parse(&sources, AF_INET, wrong[i], problem, sizeof problem);
        CHECK(code == -EINVAL && problem[0] != '\0' && strchr(problem, '\n') == NULL);
    }
    struct fc_sources sources;
    char problem[FC_LOAD_PROBLEM];
    CHECK(fc_sources_parse(&sources, AF_INET, "10.0.0.1-3,bad", problem, sizeof problem) == -EINVAL);
    CHECK(strstr(problem, ": bad") != NULL);
    CHECK(fc_sources_parse(&sources, AF_INET, "10.0.0.0/8,11.0.0.0/8", problem, sizeof problem) == -E2BIG);
}

static void loopback_has_an_address_for_every_two_thousand(void)
{
    struct fc_sources sources;
    CHECK(fc_sources_loopback(&sources, 1) == 0 && sources.count == 1);
    fc_sources_free(&sources);
    CHECK(fc_sources_loopback(&sources, 1000001) == 0 && sources.count == 501);
    for (uint32_t i = 0; i < sources.count; i++) {
        struct sockaddr_storage address;
        CHECK(fc_sources_pick(&sources, i, &address) == sizeof(struct sockaddr_in));
        uint32_t number = ntohl(((struct sockaddr_in *)&address)->sin_addr.s_addr);
        CHECK(number >> 24 == 127 && (number >> 8 & 0xffff) != 0 && (number & 255) % 255 != 0);
    }
    fc_sources_free(&sources);
}

static void urls_are_taken_apart(void)
{
    struct fc_target target;
    char problem[FC_LOAD_PROBLEM];
    CHECK(fc_target_init(&target, "ws://127.0.0.1:9001/a/b?c=d&e#f", NULL, 1, problem, sizeof problem) == 0);
    CHECK(strcmp(target.path, "/a/b?c=d&e") == 0 && strcmp(target.authority, "127.0.0.1:9001") == 0);
    CHECK(fc_target_is_loopback(&target) && target.sources.count == 1);
    CHECK(((struct sockaddr_in *)&target.address)->sin_port == htons(9001));
    fc_target_free(&target);
    CHECK(fc_target_init(&target, "WS://[::1]?x", NULL, 1, problem, sizeof problem) == 0);
    CHECK(target.address.ss_family == AF_INET6 && fc_target_is_loopback(&target) && target.sources.count == 0);
    CHECK(((struct sockaddr_in6 *)&target.address)->sin6_port == htons(80));
    CHECK(strcmp(target.path, "/?x") == 0 && strcmp(target.authority, "[::1]") == 0);
    fc_target_free(&target);
}

static void what_is_no_url_is_refused(void)
{
    static const char *const wrong[] = {"http://a/",        "ws://",           "ws://:80/",
                                        "ws://127.0.0.1:",  "ws://[::1",       "ws://[::1]x/",
                                        "ws://127.0.0.1:0", "ws://127.0.0.1:65536", "ws://127.0.0.1:+1",
                                        "ws://127.0.0.1/a b", "ws://127.0.0.1/a\r\nX: y"};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct fc_target target;
        char problem[FC_LOAD_PROBLEM] = "";
        CHECK(fc_target_init(&target, wrong[i], NULL, 1, problem, sizeof problem) == -EINVAL);
        CHECK(problem[0] != '\0');
    }
}

static void reserved_ports_are_no_ports(void)
{
    CHECK(fc_capacity_ports("32768\t60999\n", "\n") == 28232);
    CHECK(fc_capacity_ports("32768\t60999\n", "8080,9148\n") == 28232);
    CHECK(fc_capacity_ports("1000 1999", "900-1009,1500,1990-3000\n") == 1000 - 10 - 1 - 10);
    CHECK(fc_capacity_ports("1000 1000", "1000") == 0);
    CHECK(fc_capacity_ports("", "") == 0);
}

static int room_for(const char *sources, uint32_t connections, uint32_t threads, char *problem)
{
    struct fc_load_options options;
    struct fc_target target;
    fc_load_options_init(&options);
    options.connections = connections;
    problem[0] = '\0';
    CHECK(fc_target_init(&target, "ws://127.0.0.1:1/", sources, connections, problem, FC_LOAD_PROBLEM) == 0);
    int code = fc_capacity_check(&options, &target, threads, problem, FC_LOAD_PROBLEM);
    fc_target_free(&target);
    return code;
}

static void what_is_missing_is_said_before_the_run(void)
{
    char problem[FC_LOAD_PROBLEM];
    CHECK(room_for(NULL, 100, 1, problem) == 0);
    CHECK(room_for("127.3.0.1-2", 150000, 256, problem) == -EADDRNOTAVAIL);
    CHECK(strstr(problem, "ports") != NULL && strstr(problem, "ip addr add") != NULL);
    /* TEST-NET-1 is nobody's address. */
    CHECK(room_for("127.3.0.1,192.0.2.1", 2, 1, problem) == -EADDRNOTAVAIL);
    CHECK(strstr(problem, "ip addr add 192.0.2.1/") != NULL);
    if (fc_plan_table() < 100000) {
        CHECK(room_for(NULL, fc_plan_table() + 1, 1, problem) == -EMFILE);
        CHECK(strstr(problem, "ulimit -n") != NULL);
    }
}

static void failures_are_named_in_words_that_fit_a_tally(void)
{
    static const int errors[] = {EMFILE, ENFILE, EADDRNOTAVAIL, ECONNREFUSED, ETIMEDOUT, ENOBUFS, ECONNRESET, EPIPE};
    char text[64];
    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
        const char *reason = fc_reason(errors[i], text, sizeof text);
        CHECK(strlen(reason) < sizeof((struct fc_load_tally_row *)0)->name && strstr(reason, "(E") != NULL);
    }
    CHECK(strlen(fc_reason(EXDEV, text, sizeof text)) > 0);
}

/* The defaults with one thing that does not go with them. */
static void contradictions_are_found(void)
{
    static const struct fc_load_arrival two[] = {{500, 0}, {499, 0}};
    struct fc_load_options options;
    fc_load_options_init(&options);
    CHECK(fc_plan_contradiction(&options) != NULL);
    options.url = "ws://a";
    CHECK(fc_plan_contradiction(&options) == NULL);

#define CONTRADICTS(field, value)                                                                            \
    do {                                                                                                     \
        struct fc_load_options wrong = options;                                                              \
        wrong.field = (value);                                                                               \
        CHECK(fc_plan_contradiction(&wrong) != NULL);                                                        \
    } while (0)
    CONTRADICTS(connections, 0);
    CONTRADICTS(senders, 1001);
    CONTRADICTS(senders, 0);
    CONTRADICTS(stalled, 1000);
    CONTRADICTS(stalled, 1001);
    CONTRADICTS(size, 31);
    CONTRADICTS(rate, -1);
    CONTRADICTS(rate, 0.0 / 0.0);
    CONTRADICTS(hold, 1.0 / 0.0);
    CONTRADICTS(timeout, 0);
    CONTRADICTS(handshake_timeout, 0);
    CONTRADICTS(interval, 0);
    CONTRADICTS(in_flight, 0);
    CONTRADICTS(connect_window, 0);
    CONTRADICTS(sender_base, 1);
    CONTRADICTS(threads, 100000);
    options.arrivals = two;
    options.arrivals_used = 2;
    CHECK(fc_plan_contradiction(&options) != NULL);
    options.connections = 999;
    CHECK(fc_plan_contradiction(&options) == NULL);
    CONTRADICTS(connect_rate, 1);
    options.think = 1;
    CHECK(fc_plan_contradiction(&options) == NULL);
    CONTRADICTS(rate, 1);
    options.senders_total = 2;
    CHECK(fc_plan_contradiction(&options) == NULL);
    CONTRADICTS(expect, FC_LOAD_EXPECT_SENDER);
    CONTRADICTS(sender_base, 2);
#undef CONTRADICTS
}

int main(void)
{
    timers_come_in_the_order_of_their_times();
    a_timer_does_not_come_before_its_time();
    one_rate_is_one_batch();
    batches_follow_each_other();
    source_lists_are_dealt_out_in_turn();
    what_is_no_source_list_is_named();
    loopback_has_an_address_for_every_two_thousand();
    urls_are_taken_apart();
    what_is_no_url_is_refused();
    reserved_ports_are_no_ports();
    what_is_missing_is_said_before_the_run();
    failures_are_named_in_words_that_fit_a_tally();
    contradictions_are_found();
    return check_result();
}
