/* Takes events in pieces, as they come, and hands them out one by one. For one world at a time. */
#include "ears.h"

#include "check.h"

#include <string.h>

static struct fc_events *taken;
static size_t next;

static struct told hear(struct world *world, struct fc_events *(*take)(struct fc_hub *hub))
{
    struct told told = {0};

    while (!taken || next == taken->count) {
        if (taken)
            fc_hub_release(world->hub, taken);
        next = 0;
        WAIT_UNTIL((taken = take(world->hub)));
    }
    told.event = taken->events[next++];
    CHECK(told.event.bytes.length <= sizeof told.bytes && told.event.channel.length < sizeof told.channel);
    if (told.event.bytes.length > 0)
        memcpy(told.bytes, told.event.bytes.bytes, told.event.bytes.length);
    if (told.event.channel.length > 0)
        memcpy(told.channel, told.event.channel.bytes, told.event.channel.length);
    return told;
}

struct told ears_event(struct world *world)
{
    return hear(world, fc_hub_events);
}

struct told ears_reply(struct world *world)
{
    return hear(world, fc_hub_replies);
}

void ears_expect(struct world *world, enum fc_event_kind kind, const struct peer *peer, const char *channel)
{
    struct told told = ears_event(world);

    CHECK_EQ(told.event.kind, kind);
    CHECK_EQ(told.event.client, world->ids[peer->number]);
    CHECK(strcmp(told.channel, channel) == 0);
}

void ears_expect_closed(struct world *world, uint64_t client, uint16_t code, const char *reason)
{
    struct told told = ears_event(world);

    CHECK_EQ(told.event.kind, FC_EVENT_CLOSED);
    CHECK_EQ(told.event.client, client);
    CHECK_EQ(told.event.code, code);
    CHECK_BYTES(told.bytes, told.event.bytes.length, reason, strlen(reason));
}

void ears_close(struct world *world)
{
    if (!taken)
        return;
    CHECK_EQ(next, taken->count);
    fc_hub_release(world->hub, taken);
    taken = NULL;
}
