/* What clients that resume hear: messages with a line before them that says where they stand. */
#ifndef HEADS_H
#define HEADS_H

#include "peer.h"
#include "world.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct said {
    char what[4];
    char position[FC_EPOCH_SIZE + 24];
    uint64_t offset;
    char channel[16];
    char text[64];
    size_t length; /* of the payload, which may be longer than the text */
};

/* Comes in by a path that asks for heads, as in "/a?since=new". */
void heads_come(struct peer *peer, struct world *world, unsigned shard, const char *path, int receive_buffer);

/* Takes the head off. Without one `what` is empty. */
struct said heads_read(const struct frame *frame);

/* The next one, which must have a head. */
struct said heads_hear(struct peer *peer);
void heads_expect(struct peer *peer, const char *what, uint64_t offset, const char *text);

#endif
