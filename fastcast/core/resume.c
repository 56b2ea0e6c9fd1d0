/* Becoming a member of a record, and the replay, are one step for whoever publishes: what comes before it is in the replay,
 * what comes after it is sent to the members. Only the writing follows outside of the record's lock, by the shard's own
 * thread, and so before anything that it does for the room.
 *
 * A long replay is sent in pieces, each when the client has taken the one before. Meanwhile the client is a member that isn't
 * to get anything yet, so that no pattern brings it what the replay will; the last piece makes it one like the others. What
 * the history has dropped by then is a gap. */
#include "resume.h"

#include "conn.h"
#include "extra.h"
#include "fanout.h"
#include "history.h"
#include "room.h"
#include "write.h"

#include <stdlib.h>
#include <string.h>

#define TURNS_IN_A_ROUND 32

static bool is_open(const struct fc_shard *shard, uint64_t id)
{
    const struct fc_client *client = fc_clients_find(&shard->clients, id);

    return client && client->state == FC_CLIENT_OPEN;
}

static void drop(struct fc_replay *replay)
{
    for (uint32_t i = 0; i < replay->count; i++)
        fc_message_unref(replay->messages[i]);
    free(replay->messages);
}

/* `announced`: says where it begins. The client may be lost. */
static void write_replay(struct fc_shard *shard, uint32_t slot, struct fc_channel *record, const struct fc_replay *replay,
                         bool announced)
{
    uint64_t id = fc_shard_id(shard, fc_shard_client(shard, slot), slot);

    if (replay->gap)
        fc_count(&shard->counters.gaps, 1);
    if (announced)
        fc_write_own(shard, slot, fc_history_notice(&shard->exchange->histories, record, replay));
    if (replay->count > 0 && is_open(shard, id)) {
        fc_count(&shard->counters.replayed, replay->count);
        fc_write_replay(shard, slot, record, replay->messages, replay->count);
    }
}

static struct fc_position end_of(const struct fc_replay *replay)
{
    struct fc_position end = {.offset = replay->end};

    memcpy(end.epoch, replay->epoch, FC_EPOCH_SIZE);
    return end;
}

static void refuse(struct fc_shard *shard, uint32_t slot)
{
    fc_count(&shard->counters.no_memory, 1);
    fc_conn_drop(shard, slot); /* rather than leave it without what it was promised */
}

/* Takes over the reference. */
static void join(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel, const struct fc_since *since)
{
    struct fc_channel *record = channel->history ? fc_channel_ref(channel) : NULL;
    struct fc_replay replay;

    if (!record) {
        if (fc_fanout_join(shard, slot, channel))
            refuse(shard, slot);
        return;
    }
    int error = fc_fanout_join_record(shard, slot, record, since, &replay);
    if (!error && replay.more) {
        const struct fc_position end = end_of(&replay);
        error = fc_client_add_replay(fc_shard_client(shard, slot), record, &end);
    }
    if (error)
        refuse(shard, slot);
    else if (replay.epoch[0])
        write_replay(shard, slot, record, &replay, true);
    drop(&replay);
    fc_channel_unref(&shard->exchange->channels, record);
}

/* ---- the next pieces ---- */

/* Its first replay goes on: the client is open, and nothing waits for it. */
static void go_on(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);
    uint64_t id = fc_shard_id(shard, client, slot);
    struct fc_replaying *first = client->extra->replays;
    struct fc_channel *record = fc_channel_ref(first->record);
    struct fc_replay replay;

    int error = fc_fanout_go_on(shard, slot, record, &first->position, &replay);
    if (replay.more)
        first->position = end_of(&replay);
    else
        fc_client_remove_replay(client, &shard->exchange->channels, record);
    if (error)
        refuse(shard, slot);
    else
        write_replay(shard, slot, record, &replay, replay.gap);
    drop(&replay);
    if (is_open(shard, id) && !client->queue && client->extra->replays)
        fc_resume_later(shard, slot);
    fc_channel_unref(&shard->exchange->channels, record);
}

void fc_resume_later(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    if (client->extra->in_line)
        return;
    client->extra->in_line = true;
    if (fc_ready_push(&shard->writers, fc_shard_id(shard, client, slot)))
        refuse(shard, slot);
}

static void serve(struct fc_shard *shard, uint32_t slot)
{
    struct fc_client *client = fc_shard_client(shard, slot);

    if (client->extended)
        client->extra->in_line = false;
    if (client->queue) {
        client->queue->in_line = false;
        fc_write_queued(shard, slot);
    } else if (client->state == FC_CLIENT_OPEN && client->extended && client->extra->replays) {
        go_on(shard, slot);
    }
}

void fc_resume_some(struct fc_shard *shard)
{
    uint64_t id;

    for (uint32_t budget = shard->writers.count < TURNS_IN_A_ROUND ? shard->writers.count : TURNS_IN_A_ROUND;
         budget > 0 && fc_ready_pop(&shard->writers, &id); budget--) {
        if (fc_clients_find(&shard->clients, id))
            serve(shard, fc_client_id_slot(id));
    }
}

/* ---- without memory ---- */

static bool has_lost(const struct fc_shard *shard, const struct fc_client *client)
{
    bool lost = false;

    for (uint32_t i = 0; !lost && i < fc_client_rooms(client); i++) {
        struct fc_channel *channel = fc_client_room(client, i)->channel;
        pthread_mutex_lock(&channel->lock);
        lost = channel->seats[shard->index].lost;
        pthread_mutex_unlock(&channel->lock);
    }
    return lost;
}

void fc_resume_drop_lost(struct fc_shard *shard)
{
    uint32_t end = fc_clients_end(&shard->clients);

    atomic_store(&shard->exchange->lost[shard->index], false);
    for (uint32_t slot = 0; slot < end; slot++) {
        const struct fc_client *client = fc_shard_client(shard, slot);
        if (client && client->resumes && has_lost(shard, client)) /* also one that is leaving: it hears what comes */
            refuse(shard, slot);
    }
}

/* ---- beginning and end ---- */

void fc_resume_all(struct fc_shard *shard, uint64_t client, struct fc_admission *admission)
{
    const struct fc_since since = {
        .from = admission->resume,
        .positions = admission->positions,
        .count = admission->position_count,
    };

    for (size_t i = 0; i < admission->count; i++) {
        if (is_open(shard, client))
            join(shard, fc_client_id_slot(client), admission->channels[i], &since);
        else
            fc_channel_unref(&shard->exchange->channels, admission->channels[i]);
    }
    free(admission->positions);
    free(admission);
}

void fc_resume_subscribe(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel,
                         const struct fc_subscription *subscription)
{
    if (!subscription || !fc_shard_client(shard, slot)->resumes) {
        join(shard, slot, fc_channel_ref(channel), NULL);
        return;
    }
    /* What its patterns owe it comes before its position, and so first. */
    if (!fc_fanout_catch_up(shard, slot))
        return;
    const struct fc_since since = {
        .from = FC_RESUME_HERE,
        .positions = &subscription->position,
        .count = 1,
        .losses = subscription->losses,
    };
    join(shard, slot, fc_channel_ref(subscription->record), &since);
}

void fc_resume_unsubscribe(struct fc_shard *shard, uint32_t slot, struct fc_channel *channel)
{
    struct fc_channels *channels = &shard->exchange->channels;
    uint64_t id = fc_shard_id(shard, fc_shard_client(shard, slot), slot);

    if (!channel->history)
        fc_fanout_part(shard, slot, channel);
    if (!is_open(shard, id) || !fc_shard_client(shard, slot)->resumes)
        return;
    struct fc_channel *record = fc_channels_find_record(channels, channel->name, channel->length);
    if (record) {
        fc_client_remove_replay(fc_shard_client(shard, slot), channels, record);
        fc_fanout_part(shard, slot, record);
    }
    fc_channel_unref(channels, record);
}
