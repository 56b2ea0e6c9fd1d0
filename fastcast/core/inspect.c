/* What is to be known of one client: its channels, what waits for it, where it connects from.
 *
 * Python asks through the mailbox, and gets an event: the client's data are its shard's alone.
 */
#include "inspect.h"

#include "extra.h"
#include "remote.h"

#include <string.h>

static struct fc_message *describe(struct fc_shard *shard, const struct fc_client *client)
{
    bool open = client->state == FC_CLIENT_OPEN || client->state == FC_CLIENT_LEAVING;
    uint32_t channels = open ? fc_client_rooms(client) : 0;
    size_t size = sizeof(struct fc_info);

    for (uint32_t i = 0; i < channels; i++)
        size += sizeof(uint32_t) + fc_client_room(client, i)->channel->length;
    struct fc_message *message = fc_message_new(&shard->exchange->account, size);
    if (!message)
        return NULL;
    struct fc_info info = {
        .queued = client->queue ? client->queue->frames : 0,
        .queued_bytes = client->queue ? client->queue->bytes : 0,
        .idle = (shard->tick - client->active) * FC_TICK_MS,
        .open = open,
        .channels = channels,
    };
    fc_remote_of(client, info.remote, &info.port);
    uint8_t *out = fc_message_payload(message);
    memcpy(out, &info, sizeof info);
    out += sizeof info;
    for (uint32_t i = 0; i < channels; i++) {
        const struct fc_channel *channel = fc_client_room(client, i)->channel;
        uint32_t length = (uint32_t)channel->length;
        memcpy(out, &length, sizeof length);
        memcpy(out + sizeof length, channel->name, length);
        out += sizeof length + length;
    }
    message->size = size;
    return message;
}

void fc_inspect(struct fc_shard *shard, uint64_t id, uint64_t token)
{
    const struct fc_client *client = fc_clients_find(&shard->clients, id);
    struct fc_event event = {.kind = FC_EVENT_INFO, .client = id, .number = token};

    if (client && client->state != FC_CLIENT_HEAD && client->state != FC_CLIENT_ASKED) {
        event.message = describe(shard, client);
        if (event.message)
            event.bytes = (struct fc_span){fc_message_payload(event.message), event.message->size};
    }
    fc_shard_tell(shard, &event);
}

void fc_inspect_check(struct fc_shard *shard, uint64_t id)
{
    const struct fc_client *client = fc_clients_find(&shard->clients, id);

    if (!client || (client->state != FC_CLIENT_OPEN && client->state != FC_CLIENT_LEAVING))
        fc_shard_tell(shard, &(struct fc_event){.kind = FC_EVENT_MISSING, .client = id});
}
