#include "heads.h"

#include "check.h"
#include "frame.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK 0x1E

void heads_come(struct peer *peer, struct world *world, unsigned shard, const char *path, int receive_buffer)
{
    peer_connect(peer, world, shard, receive_buffer);
    peer_ask(peer, path);
    peer_enter(peer, world);
}

struct said heads_read(const struct frame *frame)
{
    struct said said = {.length = frame->length};
    const char *text = (const char *)frame->payload;
    char head[128] = {0};

    CHECK(frame->opcode == FC_OP_TEXT || frame->opcode == FC_OP_BINARY);
    if (frame->length > 0 && text[0] == MARK) {
        const char *line = text;
        text = memchr(line, '\n', frame->length);
        CHECK(text && (size_t)(text - line) < sizeof head);
        memcpy(head, line + 1, (size_t)(text - line) - 1);
        CHECK_EQ(sscanf(head, "%3s %36s %15s", said.what, said.position, said.channel), 3);
        said.offset = strtoull(said.position + FC_EPOCH_SIZE + 1, NULL, 10);
        text++;
        said.length -= (size_t)(text - line);
    }
    memcpy(said.text, text, said.length < sizeof said.text ? said.length : sizeof said.text - 1);
    return said;
}

struct said heads_hear(struct peer *peer)
{
    struct frame frame = peer_receive(peer);
    struct said said = heads_read(&frame);

    CHECK(said.what[0]);
    return said;
}

void heads_expect(struct peer *peer, const char *what, uint64_t offset, const char *text)
{
    struct said said = heads_hear(peer);

    CHECK_BYTES(said.what, strlen(said.what), what, strlen(what));
    CHECK_EQ(said.offset, offset);
    CHECK_BYTES(said.text, said.length, text, strlen(text));
}
