/* What Python would hear of the hub under test, event by event. */
#ifndef EARS_H
#define EARS_H

#include "peer.h"
#include "world.h"

/* An event, and the first bytes of what it points to. */
struct told {
    struct fc_event event;
    char bytes[256];
    char channel[64];
};

/* Waits for the next event; or reply, in a test that hears of nothing else. */
struct told ears_event(struct world *world);
struct told ears_reply(struct world *world);

/* Waits for an event, which must be this one. */
void ears_expect(struct world *world, enum fc_event_kind kind, const struct peer *peer, const char *channel);
void ears_expect_closed(struct world *world, uint64_t client, uint16_t code, const char *reason);

/* Gives back what was taken; all of it must have been heard. */
void ears_close(struct world *world);

#endif
