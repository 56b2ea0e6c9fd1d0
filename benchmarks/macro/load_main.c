/*
 * load_main.c - the load client as a program: options in, one JSON object out.
 *
 * Exit code 0: a clean run; 1: not clean, or it could not run; 2: usage.
 */
#include "load.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_HEADERS 8192u

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

static const char USAGE[] =
    "usage: load --url ws://HOST:PORT/PATH [options]\n"
    "\n"
    "connections\n"
    "  --connections N      how many (1000)\n"
    "  --threads T          of the load client (two, or as many as the descriptor limit asks for)\n"
    "  --source LIST        source addresses, networks and ranges (loopback: a random slice of 127.0.0.0/8)\n"
    "  --connect-rate R     per second (0: as fast as the window lets)\n"
    "  --connect-window W   handshakes in progress at once, without a rate (256)\n"
    "  --handshake-timeout S  seconds for one attempt (30)\n"
    "  --retry S            try again after a random pause up to this, doubling (0: never)\n"
    "  --storm              once all are connected, drop all and let all come back at once\n"
    "  --storm-reset        the same, dropped by RST\n"
    "  --stalled N          connections that never read once they are open (0)\n"
    "  --churn R            connections closed and reopened per second while messages flow (0)\n"
    "  --header 'N: V'      request header, repeatable\n"
    "  --subprotocol X      offer this subprotocol\n"
    "messages\n"
    "  --senders S          connections that send (1)\n"
    "  --messages M         from each sender (100)\n"
    "  --in-flight W        closed loop: a sender's messages that not all have yet (1)\n"
    "  --rate R             open loop: messages per second of all senders, timed from when each was due\n"
    "  --think S            closed loop: mean of an exponential pause before each message (0)\n"
    "  --expect WHO         all: every connection; sender: an echo; any: whatever comes is counted (all)\n"
    "  --size B             payload bytes, at least 32, or 64 of text (128)\n"
    "  --text               text messages instead of binary ones\n"
    "  --verify WHAT        full: every byte; header: who, which and when (full)\n"
    "time and measurement\n"
    "  --settle S           seconds between connecting and messages (0.2)\n"
    "  --hold S             seconds to stay connected after the messages (0)\n"
    "  --timeout S          for everything before the closing (60)\n"
    "  --patience S         give up on messages after this long without a delivery (10)\n"
    "  --server-pid PID     measure this process's processor time and memory\n"
    "  --json FILE          write the result there instead of to stdout\n"
    "  --quiet              no progress on stderr\n";

struct arguments {
    struct fc_load_options options;
    const char *json;
    bool quiet;
    char headers[MAX_HEADERS];
};

static void fail_usage(const char *text, const char *detail)
{
    fprintf(stderr, "load: error: %s%s%s\n", text, detail != NULL ? ": " : "", detail != NULL ? detail : "");
    exit(2);
}

static uint32_t parse_count(const char *name, const char *text)
{
    char *rest;
    errno = 0;
    unsigned long value = strtoul(text, &rest, 10);
    if (*text < '0' || *text > '9' || *rest != '\0' || errno != 0 || value > UINT32_MAX)
        fail_usage("not a whole number", name);
    return (uint32_t)value;
}

static double parse_real(const char *name, const char *text)
{
    char *rest;
    double value = strtod(text, &rest);
    if (*text == '\0' || *rest != '\0' || !(value >= 0 && value < 1e9))
        fail_usage("not a number that makes sense here", name);
    return value;
}

static enum fc_load_expect parse_expect(const char *text)
{
    if (strcmp(text, "sender") == 0)
        return FC_LOAD_EXPECT_SENDER;
    if (strcmp(text, "any") == 0)
        return FC_LOAD_EXPECT_ANY;
    if (strcmp(text, "all") != 0)
        fail_usage("--expect is all, sender or any, not", text);
    return FC_LOAD_EXPECT_ALL;
}

static void add_header(struct arguments *arguments, const char *text)
{
    size_t used = strlen(arguments->headers);
    if (strchr(text, ':') == NULL || strpbrk(text, "\r\n") != NULL)
        fail_usage("not a header", text);
    if ((size_t)snprintf(arguments->headers + used, MAX_HEADERS - used, "%s\r\n", text) >= MAX_HEADERS - used)
        fail_usage("too many headers", NULL);
    arguments->options.headers = arguments->headers;
}

enum {
    URL = 256,
    CONNECTIONS,
    THREADS,
    SOURCE,
    CONNECT_RATE,
    CONNECT_WINDOW,
    HANDSHAKE_TIMEOUT,
    RETRY,
    STORM,
    STORM_RESET,
    STALLED,
    CHURN,
    HEADER,
    SUBPROTOCOL,
    SENDERS,
    MESSAGES,
    IN_FLIGHT,
    RATE,
    THINK,
    EXPECT,
    SIZE,
    TEXT,
    VERIFY,
    SETTLE,
    HOLD,
    TIMEOUT,
    PATIENCE,
    SERVER_PID,
    JSON,
    QUIET,
    HELP
};

static const struct option LONG_OPTIONS[] = {
    {"url", required_argument, NULL, URL},
    {"connections", required_argument, NULL, CONNECTIONS},
    {"threads", required_argument, NULL, THREADS},
    {"source", required_argument, NULL, SOURCE},
    {"connect-rate", required_argument, NULL, CONNECT_RATE},
    {"connect-window", required_argument, NULL, CONNECT_WINDOW},
    {"handshake-timeout", required_argument, NULL, HANDSHAKE_TIMEOUT},
    {"retry", required_argument, NULL, RETRY},
    {"storm", no_argument, NULL, STORM},
    {"storm-reset", no_argument, NULL, STORM_RESET},
    {"stalled", required_argument, NULL, STALLED},
    {"churn", required_argument, NULL, CHURN},
    {"header", required_argument, NULL, HEADER},
    {"subprotocol", required_argument, NULL, SUBPROTOCOL},
    {"senders", required_argument, NULL, SENDERS},
    {"messages", required_argument, NULL, MESSAGES},
    {"in-flight", required_argument, NULL, IN_FLIGHT},
    {"rate", required_argument, NULL, RATE},
    {"think", required_argument, NULL, THINK},
    {"expect", required_argument, NULL, EXPECT},
    {"size", required_argument, NULL, SIZE},
    {"text", no_argument, NULL, TEXT},
    {"verify", required_argument, NULL, VERIFY},
    {"settle", required_argument, NULL, SETTLE},
    {"hold", required_argument, NULL, HOLD},
    {"timeout", required_argument, NULL, TIMEOUT},
    {"patience", required_argument, NULL, PATIENCE},
    {"server-pid", required_argument, NULL, SERVER_PID},
    {"json", required_argument, NULL, JSON},
    {"quiet", no_argument, NULL, QUIET},
    {"help", no_argument, NULL, HELP},
    {0},
};

static bool set_connection_option(struct arguments *arguments, int which, const char *name, const char *value)
{
    struct fc_load_options *options = &arguments->options;
    switch (which) {
    case URL: options->url = value; return true;
    case CONNECTIONS: options->connections = parse_count(name, value); return true;
    case THREADS: options->threads = parse_count(name, value); return true;
    case SOURCE: options->sources = value; return true;
    case CONNECT_RATE: options->connect_rate = parse_real(name, value); return true;
    case CONNECT_WINDOW: options->connect_window = parse_count(name, value); return true;
    case HANDSHAKE_TIMEOUT: options->handshake_timeout = parse_real(name, value); return true;
    case RETRY: options->retry = parse_real(name, value); return true;
    case STORM_RESET: options->storm_reset = true; /* fall through */
    case STORM: options->storm = true; return true;
    case STALLED: options->stalled = parse_count(name, value); return true;
    case CHURN: options->churn = parse_real(name, value); return true;
    case HEADER: add_header(arguments, value); return true;
    case SUBPROTOCOL: options->subprotocol = value; return true;
    default: return false;
    }
}

static void set_option(struct arguments *arguments, int which, const char *name, const char *value)
{
    struct fc_load_options *options = &arguments->options;
    switch (which) {
    case SENDERS: options->senders = parse_count(name, value); break;
    case MESSAGES: options->messages = parse_count(name, value); break;
    case IN_FLIGHT: options->in_flight = parse_count(name, value); break;
    case RATE: options->rate = parse_real(name, value); break;
    case THINK: options->think = parse_real(name, value); break;
    case EXPECT: options->expect = parse_expect(value); break;
    case SIZE: options->size = parse_count(name, value); break;
    case TEXT: options->text = true; break;
    case VERIFY:
        options->check_heads_only = strcmp(value, "header") == 0;
        if (!options->check_heads_only && strcmp(value, "full") != 0)
            fail_usage("--verify is full or header, not", value);
        break;
    case SETTLE: options->settle = parse_real(name, value); break;
    case HOLD: options->hold = parse_real(name, value); break;
    case TIMEOUT: options->timeout = parse_real(name, value); break;
    case PATIENCE: options->patience = parse_real(name, value); break;
    case SERVER_PID: options->server_pid = (pid_t)parse_count(name, value); break;
    case JSON: arguments->json = value; break;
    case QUIET: arguments->quiet = true; break;
    case HELP: fputs(USAGE, stdout); exit(0);
    default: exit(2); /* getopt has said what is wrong */
    }
}

static void parse(struct arguments *arguments, int argc, char **argv)
{
    int which;
    int index = 0;
    while ((which = getopt_long(argc, argv, "", LONG_OPTIONS, &index)) != -1) {
        const char *name = LONG_OPTIONS[index].name;
        if (!set_connection_option(arguments, which, name, optarg))
            set_option(arguments, which, name, optarg);
    }
    if (optind < argc)
        fail_usage("not an option", argv[optind]);
}

static int show_progress(void *context, const struct fc_load_snapshot *snapshot)
{
    const struct arguments *arguments = context;
    if (!arguments->quiet) {
        fprintf(
            stderr,
            "\r\033[K%s: %" PRIu64 " connected, %" PRIu64 " failed, %" PRIu64 " sent, %" PRIu64 " received",
            fc_load_phase_names[snapshot->phase], snapshot->open, snapshot->failed, snapshot->sent,
            snapshot->received);
    }
    return 0;
}

static int is_interrupted(void *context)
{
    (void)context;
    return interrupted;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int write_report(const struct arguments *arguments, const struct fc_load_report *report)
{
    FILE *out = arguments->json != NULL ? fopen(arguments->json, "w") : stdout;
    int code = out != NULL ? fc_load_report_write(report, out) : -errno;
    if (out != NULL && out != stdout && fclose(out) != 0)
        code = -errno;
    if (code != 0)
        fprintf(stderr, "load: error: cannot write the result: %s\n", strerror(-code));
    return code;
}

int main(int argc, char **argv)
{
    static struct arguments arguments;
    static struct fc_load_report report;
    char problem[FC_LOAD_PROBLEM];
    fc_load_options_init(&arguments.options);
    arguments.options.cancelled = is_interrupted;
    arguments.options.context = &arguments;
    arguments.quiet = !isatty(STDERR_FILENO);
    parse(&arguments, argc, argv);
    /* A look at the counters costs the machine that is being measured: only for whom it is shown to. */
    if (!arguments.quiet)
        arguments.options.progress = show_progress;

    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    raise_descriptor_limit();
    int code = fc_load_run(&arguments.options, &report, problem, sizeof problem);
    if (!arguments.quiet)
        fputs("\r\033[K", stderr);
    if (code != 0) {
        fprintf(stderr, "load: error: %s\n", problem);
        return code == -EINVAL ? 2 : 1;
    }
    for (unsigned i = 0; i < report.errors_used; i++)
        fprintf(stderr, "load: %s\n", report.errors[i]);
    return write_report(&arguments, &report) == 0 && report.clean ? 0 : 1;
}
