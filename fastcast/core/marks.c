/* Marks are passed in order: each waits for the end of the pass that writes what was put before it. */
#include "marks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int add_mark(struct fc_shard *shard, uint64_t token)
{
    if (shard->mark_count == shard->mark_capacity) {
        uint32_t capacity = shard->mark_capacity ? 2 * shard->mark_capacity : 4;
        struct fc_mark *grown = realloc(shard->marks, capacity * sizeof *grown);
        if (!grown)
            return -ENOMEM;
        shard->marks = grown;
        shard->mark_capacity = capacity;
    }
    shard->marks[shard->mark_count++] = (struct fc_mark){token, shard->passes + 1};
    return 0;
}

void fc_marks_put(struct fc_shard *shard, uint64_t token)
{
    shard->flush_after = 0; /* somebody waits for it, the interval notwithstanding */
    if (!shard->due.first && !shard->served.first) {
        fc_shard_tell(shard, &(struct fc_event){.kind = FC_EVENT_FLUSHED, .client = token});
    } else if (add_mark(shard, token)) {
        fc_count(&shard->counters.no_memory, 1);
        fc_exchange_lose_reply(shard->exchange);
        shard->has_news = true;
    }
}

/* What was put before a mark is written when the pass after the mark has ended: it may have come due in a room whose
 * turn was over. If nothing is due any more, it's written already. */
void fc_marks_end_pass(struct fc_shard *shard)
{
    uint32_t done = 0;

    while (done < shard->mark_count && (shard->marks[done].pass <= shard->passes || !shard->due.first)) {
        fc_shard_tell(shard, &(struct fc_event){.kind = FC_EVENT_FLUSHED, .client = shard->marks[done].token});
        done++;
    }
    if (done == 0)
        return;
    shard->mark_count -= done;
    memmove(shard->marks, shard->marks + done, shard->mark_count * sizeof *shard->marks);
}

void fc_marks_close(struct fc_shard *shard)
{
    for (uint32_t i = 0; i < shard->mark_count; i++)
        fc_shard_tell(shard, &(struct fc_event){.kind = FC_EVENT_FLUSHED, .client = shard->marks[i].token});
    free(shard->marks);
    shard->marks = NULL;
    shard->mark_count = 0;
}
