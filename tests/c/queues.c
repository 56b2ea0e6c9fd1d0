/* What tests of a client's queue have in common. The main thread's. */
#include "queues.h"

#include "check.h"

#include <string.h>

static const struct fc_rule rule = {.channels = {">", 1}};
struct fc_account queues_account;
static struct fc_channels channels;
struct fc_channel *queues_subjects[QUEUES_SUBJECTS];
uint64_t queues_ended[QUEUES_SUBJECTS][FC_FATES];

static void count_end(struct fc_queue_host *host, struct fc_channel *channel, enum fc_fate fate, uint64_t frames)
{
    CHECK(host->channels == &channels);
    CHECK(frames > 0);
    for (unsigned i = 0; i < QUEUES_SUBJECTS; i++)
        queues_ended[i][fate] += channel == queues_subjects[i] ? frames : 0;
}

struct fc_queue_host queues_host = {&channels, count_end};

struct fc_queue queues_open(void)
{
    memset(queues_ended, 0, sizeof queues_ended);
    CHECK_EQ(fc_channels_init(&channels, 1, &rule, 1), 0);
    for (unsigned i = 0; i < QUEUES_SUBJECTS; i++)
        queues_subjects[i] = fc_channels_get(&channels, (const char *[]){"a", "b", "c"}[i], 1);
    return (struct fc_queue){.host = &queues_host};
}

void queues_close(struct fc_queue *queue)
{
    CHECK_EQ(queue->count, 0);
    CHECK_EQ(queue->bytes, 0);
    CHECK_EQ(queue->frames, 0);
    CHECK_EQ(fc_queue_clear(queue), 0);
    CHECK(queue->host == &queues_host && !queue->ring);
    CHECK_EQ(queues_account.messages, 0);
    for (unsigned i = 0; i < QUEUES_SUBJECTS; i++) {
        CHECK_EQ(queues_subjects[i]->references, 1);
        fc_channel_unref(&channels, queues_subjects[i]);
    }
    fc_channels_destroy(&channels);
}
