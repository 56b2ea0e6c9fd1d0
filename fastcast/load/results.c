/*
 * results.c - sums, percentiles and the verdict.  The coordinating thread's, after all others have ended.
 */
#include "results.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

static void summarise(struct fc_load_spread *spread, const struct fc_histogram *histogram)
{
    uint64_t count = fc_counter_read(&histogram->count);
    *spread = (struct fc_load_spread){
        .count = count,
        .p50 = (double)fc_histogram_quantile(histogram, 0.5) / 1e3,
        .p90 = (double)fc_histogram_quantile(histogram, 0.9) / 1e3,
        .p99 = (double)fc_histogram_quantile(histogram, 0.99) / 1e3,
        .p999 = (double)fc_histogram_quantile(histogram, 0.999) / 1e3,
        .max = (double)fc_counter_read(&histogram->max) / 1e3,
        .mean = count > 0 ? (double)fc_counter_read(&histogram->sum) / (double)count / 1e3 : 0,
    };
}

static void add_errors(struct fc_load_report *report, const struct fc_worker *worker)
{
    for (unsigned i = 0; i < worker->errors_used; i++) {
        bool known = false;
        for (unsigned j = 0; j < report->errors_used; j++)
            known = known || strcmp(report->errors[j], worker->errors[i]) == 0;
        if (!known && report->errors_used < FC_LOAD_ERRORS)
            memcpy(report->errors[report->errors_used++], worker->errors[i], sizeof *report->errors);
    }
}

static void add_histograms(struct fc_load_histograms *into, const struct fc_load_histograms *from)
{
    fc_histogram_merge(&into->latency, &from->latency);
    fc_histogram_merge(&into->first_receiver, &from->first_receiver);
    fc_histogram_merge(&into->last_receiver, &from->last_receiver);
    fc_histogram_merge(&into->spread, &from->spread);
    fc_histogram_merge(&into->handshake, &from->handshake);
    fc_histogram_merge(&into->storm_handshake, &from->storm_handshake);
    fc_histogram_merge(&into->storm_back, &from->storm_back);
}

static void add_worker(struct fc_load_report *report, const struct fc_worker *worker)
{
    const struct fc_counters *counters = &worker->counters;
    report->connections.made += fc_counter_read(&counters->made);
    report->connections.failed += fc_counter_read(&counters->failed);
    report->connections.closed_unexpectedly += fc_counter_read(&counters->lost);
    report->connections.attempts += worker->attempts;
    report->connections.reconnected += worker->reconnected;
    report->connections.stalled_closed += worker->stalled_closed;
    report->connections.unanswered += worker->unanswered;
    report->connections.own_tables = report->connections.own_tables && atomic_load(&worker->own_table);
    report->storm.dropped += worker->storm_dropped;
    report->storm.back += worker->storm_back;
    report->storm.attempts += worker->storm_attempts;
    report->messages.sent += fc_counter_read(&counters->sent);
    report->deliveries.received += fc_counter_read(&counters->received);
    report->deliveries.duplicated += fc_counter_read(&counters->duplicated);
    report->deliveries.reordered += fc_counter_read(&counters->reordered);
    report->deliveries.damaged += fc_counter_read(&counters->damaged);
    report->deliveries.unexpected += fc_counter_read(&counters->unexpected);
    report->deliveries.lost += worker->lost_in_churn;
    report->deliveries.churning += worker->churn_received;
    report->churn.closed += worker->churn_closed;
    report->churn.reopened += worker->churn_reopened;
    report->churn.failed += worker->churn_failed;
    fc_load_tally_merge(&report->connections.failures, &worker->failures);
    fc_load_tally_merge(&report->connections.retried, &worker->retried);
    fc_load_tally_merge(&report->storm.refused, &worker->storm_refused);
    fc_load_tally_merge(&report->closes, &worker->closes);
    add_errors(report, worker);
    add_histograms(&report->histograms, &worker->histograms);
}

static void describe(const struct fc_conductor *conductor)
{
    struct fc_load_report *report = conductor->report;
    const struct fc_load_options *options = conductor->options;
    report->connections.asked = options->connections;
    report->connections.threads = conductor->run.threads;
    report->connections.sources = conductor->run.target.sources.count;
    report->connections.own_tables = true;
    report->messages.asked = (uint64_t)options->senders * options->messages;
    report->messages.size = options->size;
    report->messages.senders = options->senders;
    report->messages.senders_total = conductor->run.senders_total;
    report->messages.expect = options->expect;
    report->messages.text = options->text;
    report->cancelled = conductor->cancelled;
}

/* How many deliveries there should have been, and how fast they came. */
static void compare(const struct fc_conductor *conductor)
{
    struct fc_load_report *report = conductor->report;
    const struct fc_load_options *options = conductor->options;
    uint64_t received = report->deliveries.received;
    double seconds = report->usage[FC_LOAD_MESSAGES].wall;
    uint64_t foreign = (uint64_t)(conductor->run.senders_total - options->senders) * options->messages;
    switch (options->expect) {
    case FC_LOAD_EXPECT_ALL:
        report->deliveries.expected = (report->messages.sent + foreign) * report->deliveries.receivers;
        break;
    case FC_LOAD_EXPECT_SENDER: report->deliveries.expected = report->messages.sent; break;
    default:
        report->deliveries.expected = 0;
        received = conductor->published;
        seconds += report->usage[FC_LOAD_HOLD].wall;
    }
    if (report->deliveries.expected > report->deliveries.received)
        report->deliveries.lost += report->deliveries.expected - report->deliveries.received;
    report->throughput = seconds > 0 ? (double)received / seconds : 0;
    /* Two runs that broke off in different places would differ, and not for their order. */
    if (options->expect == FC_LOAD_EXPECT_ALL && options->messages > 0 &&
        fc_ledger_is_whole(&conductor->run.ledger)) {
        snprintf(report->order_digest, sizeof report->order_digest, "%016" PRIx64,
                 fc_ledger_digest(&conductor->run.ledger));
    }
}

void fc_results_add_up(struct fc_conductor *conductor)
{
    struct fc_load_report *report = conductor->report;
    describe(conductor);
    for (uint32_t i = 0; i < conductor->started; i++)
        add_worker(report, &conductor->run.workers[i]);
    compare(conductor);
    report->connections.rate = (double)report->connections.made / report->connections.seconds;
    summarise(&report->connections.handshake_us, &report->histograms.handshake);
    summarise(&report->storm.handshake_us, &report->histograms.storm_handshake);
    summarise(&report->storm.back_us, &report->histograms.storm_back);
    summarise(&report->latency_us, &report->histograms.latency);
    summarise(&report->first_receiver_us, &report->histograms.first_receiver);
    summarise(&report->last_receiver_us, &report->histograms.last_receiver);
    summarise(&report->spread_us, &report->histograms.spread);
    report->clean = report->errors_used == 0 && !report->cancelled &&
                    report->connections.made == report->connections.asked &&
                    report->connections.closed_unexpectedly == 0 &&
                    report->storm.back == report->storm.dropped &&
                    report->messages.sent == report->messages.asked && report->deliveries.lost == 0 &&
                    report->deliveries.duplicated == 0 && report->deliveries.reordered == 0 &&
                    report->deliveries.damaged == 0 && report->deliveries.unexpected == 0 &&
                    report->churn.failed == 0;
}
