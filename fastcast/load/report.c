/*
 * report.c - the report as JSON.  Pure output: owns nothing, any thread.
 */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

void fc_load_tally_add(struct fc_load_tally *tally, const char *name, uint64_t count)
{
    unsigned i = 0;
    while (i < tally->used && strcmp(tally->rows[i].name, name) != 0)
        i++;
    if (i == FC_LOAD_TALLIES) {
        i--;
        snprintf(tally->rows[i].name, sizeof tally->rows[i].name, "other");
    } else if (i == tally->used) {
        snprintf(tally->rows[i].name, sizeof tally->rows[i].name, "%s", name);
        tally->used++;
    }
    tally->rows[i].count += count;
}

void fc_load_tally_merge(struct fc_load_tally *into, const struct fc_load_tally *from)
{
    for (unsigned i = 0; i < from->used; i++)
        fc_load_tally_add(into, from->rows[i].name, from->rows[i].count);
}

static void write_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c >= 0x7f) {
            fprintf(out, "\\u%04x", c);
        } else {
            if (c == '"' || c == '\\')
                fputc('\\', out);
            fputc(c, out);
        }
    }
    fputc('"', out);
}

static void write_tally(FILE *out, const struct fc_load_tally *tally)
{
    fputc('{', out);
    for (unsigned i = 0; i < tally->used; i++) {
        fputs(i > 0 ? ", " : "", out);
        write_string(out, tally->rows[i].name);
        fprintf(out, ": %" PRIu64, tally->rows[i].count);
    }
    fputc('}', out);
}

/* What is not known is null, never a number that looks like one. */
static void write_number(FILE *out, const char *name, double value, bool known)
{
    write_string(out, name);
    if (known && value == value)
        fprintf(out, ": %.6f", value);
    else
        fputs(": null", out);
}

static void write_spread(FILE *out, const char *before, const char *name, const struct fc_load_spread *spread)
{
    fprintf(out,
            "%s\"%s\": {\"count\": %" PRIu64
            ", \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f, \"mean\": %.1f}",
            before, name, spread->count, spread->p50, spread->p90, spread->p99, spread->p999, spread->max,
            spread->mean);
}

static const char *const MOMENTS[FC_LOAD_MOMENTS] = {"before_connect", "after_connect", "after_storm",
                                                     "after_messages", "after_hold",    "after_close"};
static const char *const EXPECTATIONS[] = {"all", "sender", "any"};

static void write_usage(FILE *out, const char *name, const struct fc_load_usage *usage, size_t offset)
{
    fprintf(out, "\"%s\": {", name);
    for (unsigned i = 0; i < FC_LOAD_PHASES; i++) {
        double value;
        memcpy(&value, (const char *)&usage[i] + offset, sizeof value);
        fputs(i > 0 ? ", " : "", out);
        write_number(out, fc_load_phase_names[i], value, value >= 0);
    }
    fputc('}', out);
}

static void write_connections(FILE *out, const struct fc_load_report *report)
{
    fprintf(out, "  \"connections\": {\"asked\": %" PRIu32 ", \"made\": %" PRIu64 ", \"failed\": ",
            report->connections.asked, report->connections.made);
    write_tally(out, &report->connections.failures);
    fputs(", \"retried\": ", out);
    write_tally(out, &report->connections.retried);
    fprintf(out,
            ", \"attempts\": %" PRIu64 ", \"reconnected\": %" PRIu64 ", \"closed_unexpectedly\": %" PRIu64
            ", \"stalled_closed\": %" PRIu64 ", \"unanswered\": %" PRIu64
            ", \"connect_seconds\": %.6f, \"rate\": %.1f, \"threads\": %" PRIu32 ", \"sources\": %" PRIu32
            ", \"own_fd_tables\": %s}",
            report->connections.attempts, report->connections.reconnected,
            report->connections.closed_unexpectedly, report->connections.stalled_closed,
            report->connections.unanswered, report->connections.seconds, report->connections.rate, report->connections.threads,
            report->connections.sources, report->connections.own_tables ? "true" : "false");
    fprintf(out,
            ",\n  \"churn\": {\"closed\": %" PRIu64 ", \"reopened\": %" PRIu64 ", \"failed\": %" PRIu64 "}",
            report->churn.closed, report->churn.reopened, report->churn.failed);
}

static void write_storm(FILE *out, const struct fc_load_report *report)
{
    fputs(",\n  \"storm\": ", out);
    if (!report->storm.happened) {
        fputs("null", out);
        return;
    }
    fprintf(out,
            "{\"dropped\": %" PRIu64 ", \"back\": %" PRIu64 ", \"missing\": %" PRIu64 ", \"seconds\": %.6f, "
            "\"attempts\": %" PRIu64 ", \"refused\": ",
            report->storm.dropped, report->storm.back, report->storm.dropped - report->storm.back,
            report->storm.seconds, report->storm.attempts);
    write_tally(out, &report->storm.refused);
    write_spread(out, ",\n    ", "handshake_us", &report->storm.handshake_us);
    write_spread(out, ",\n    ", "back_us", &report->storm.back_us);
    fputc('}', out);
}

static void write_messages(FILE *out, const struct fc_load_report *report)
{
    fprintf(out,
            ",\n  \"messages\": {\"asked\": %" PRIu64 ", \"sent\": %" PRIu64 ", \"size\": %" PRIu32
            ", \"senders\": %" PRIu32 ", \"senders_total\": %" PRIu32 ", \"text\": %s, \"expect\": \"%s\"}",
            report->messages.asked, report->messages.sent, report->messages.size, report->messages.senders,
            report->messages.senders_total, report->messages.text ? "true" : "false",
            EXPECTATIONS[report->messages.expect]);
    fprintf(out,
            ",\n  \"deliveries\": {\"receivers\": %" PRIu64 ", \"expected\": %" PRIu64
            ", \"received\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"duplicated\": %" PRIu64
            ", \"reordered\": %" PRIu64 ", \"damaged\": %" PRIu64 ", \"unexpected\": %" PRIu64
            ", \"churning\": %" PRIu64 "}",
            report->deliveries.receivers, report->deliveries.expected, report->deliveries.received,
            report->deliveries.lost, report->deliveries.duplicated, report->deliveries.reordered,
            report->deliveries.damaged, report->deliveries.unexpected, report->deliveries.churning);
    fprintf(out, ",\n  \"throughput\": %.1f,\n  \"order_digest\": ", report->throughput);
    if (report->order_digest[0] != '\0')
        write_string(out, report->order_digest);
    else
        fputs("null", out);
    write_spread(out, ",\n  ", "latency_us", &report->latency_us);
    write_spread(out, ",\n  ", "last_receiver_us", &report->last_receiver_us);
    write_spread(out, ",\n  ", "first_receiver_us", &report->first_receiver_us);
    write_spread(out, ",\n  ", "spread_us", &report->spread_us);
    write_spread(out, ",\n  ", "handshake_us", &report->connections.handshake_us);
}

static void write_cpu(FILE *out, const struct fc_load_report *report)
{
    const struct fc_load_usage *usage = report->usage;
    double received = (double)report->deliveries.received;
    double made = (double)report->connections.made;
    fputs(",\n  ", out);
    write_usage(out, "phase_seconds", usage, offsetof(struct fc_load_usage, wall));
    fputs(",\n  \"cpu\": {", out);
    write_usage(out, "client_seconds", usage, offsetof(struct fc_load_usage, client));
    fputs(",\n    ", out);
    write_usage(out, "server_seconds", usage, offsetof(struct fc_load_usage, server));
    fputs(",\n    ", out);
    write_usage(out, "server_ticks_seconds", usage, offsetof(struct fc_load_usage, server_ticks));
    fputs(",\n    ", out);
    double messages = usage[FC_LOAD_MESSAGES].server;
    double connect = usage[FC_LOAD_CONNECT].server;
    write_number(out, "server_us_per_delivery", messages / received * 1e6, messages >= 0 && received > 0);
    fputs(", ", out);
    write_number(out, "server_us_per_connect", connect / made * 1e6, connect >= 0 && made > 0);
    fputs(", ", out);
    write_number(out, "client_us_per_delivery", usage[FC_LOAD_MESSAGES].client / received * 1e6,
                 received > 0);
    fputs(",\n    ", out);
    write_number(out, "client_busiest_thread", report->client_busy, true);
    fputs(", ", out);
    write_number(out, "server_busiest_thread", report->server_busy, report->server_busy >= 0);
    fputs(", ", out);
    write_number(out, "machine_busy", report->machine_busy, report->machine_busy >= 0);
    fprintf(out, "},\n  \"client_bound\": %s", report->client_bound ? "true" : "false");
}

static void write_memory(FILE *out, const struct fc_load_report *report)
{
    fputs(",\n  \"memory\": {", out);
    for (unsigned i = 0; i < FC_LOAD_MOMENTS; i++) {
        const struct fc_load_memory *memory = &report->memory[i];
        fprintf(out,
                "%s\"%s\": {\"server_pss\": %" PRIu64 ", \"server_rss\": %" PRIu64
                ", \"kernel_tcp\": %" PRIu64 ", \"kernel_slab\": %" PRIu64 "}",
                i > 0 ? ",\n    " : "", MOMENTS[i], memory->server_pss, memory->server_rss,
                memory->kernel_tcp, memory->kernel_slab);
    }
    fputc('}', out);
}

int fc_load_report_write(const struct fc_load_report *report, FILE *out)
{
    fputs("{\n", out);
    write_connections(out, report);
    write_storm(out, report);
    write_messages(out, report);
    write_cpu(out, report);
    write_memory(out, report);
    fputs(",\n  \"closes\": ", out);
    write_tally(out, &report->closes);
    fputs(",\n  \"errors\": [", out);
    for (unsigned i = 0; i < report->errors_used; i++) {
        fputs(i > 0 ? ", " : "", out);
        write_string(out, report->errors[i]);
    }
    fprintf(out, "],\n  \"cancelled\": %s,\n  \"clean\": %s\n}\n", report->cancelled ? "true" : "false",
            report->clean ? "true" : "false");
    return fflush(out) == 0 && !ferror(out) ? 0 : -EIO;
}
