/* What tests of rooms and of clients' memberships have in common. The main thread's. */
#include "rooms.h"

#include "check.h"

#include <string.h>

static const struct fc_rule rule = {.channels = {">", 1}};

struct fc_account rooms_account;
struct fc_channels rooms_channels;
struct fc_clients rooms_clients;

void rooms_open(uint32_t max_clients)
{
    CHECK_EQ(fc_channels_init(&rooms_channels, 1, &rule, 1), 0);
    CHECK_EQ(fc_clients_init(&rooms_clients, max_clients), 0);
}

void rooms_close(void)
{
    for (uint32_t slot = 0; slot < fc_clients_end(&rooms_clients); slot++) {
        if (fc_clients_used(&rooms_clients, slot))
            fc_client_free_extra(rooms_at(slot), &rooms_channels);
    }
    fc_clients_destroy(&rooms_clients);
    CHECK_EQ(rooms_channels.count, 0);
    fc_channels_destroy(&rooms_channels);
    CHECK_EQ(rooms_account.messages, 0);
}

struct fc_room *rooms_make(const char *name)
{
    struct fc_channel *channel = fc_channels_get(&rooms_channels, name, strlen(name));
    struct fc_room *room = fc_room_new(channel);

    CHECK(channel && room && room->channel == channel);
    return room;
}

struct fc_room *rooms_make_everyone(void)
{
    struct fc_room *room = fc_room_new(fc_channels_unlisted(&rooms_channels));

    CHECK(room && room->channel);
    room->everyone = true;
    return room;
}

void rooms_free(struct fc_room *room, size_t weight)
{
    struct fc_channel *channel = room->channel;

    CHECK_EQ(fc_room_free(room), weight);
    fc_channel_unref(&rooms_channels, channel);
}

struct fc_client *rooms_at(uint32_t slot)
{
    return fc_clients_at(&rooms_clients, slot);
}

uint32_t rooms_client(void)
{
    uint32_t slot;
    struct fc_client *client = fc_clients_take(&rooms_clients, &slot);

    CHECK(client);
    client->state = FC_CLIENT_OPEN;
    return slot;
}

void rooms_forget_client(uint32_t slot)
{
    CHECK_EQ(fc_client_rooms(rooms_at(slot)), 0);
    fc_client_free_extra(rooms_at(slot), &rooms_channels);
    fc_clients_give(&rooms_clients, slot);
}

bool rooms_is_member(struct fc_room *room, uint32_t slot)
{
    return fc_client_position(rooms_at(slot), room) != NULL;
}

void rooms_join(struct fc_room *room, uint32_t slot)
{
    uint32_t before = fc_room_size(room);

    CHECK_EQ(fc_room_join(room, rooms_at(slot), slot), 0);
    CHECK(room->everyone || rooms_is_member(room, slot));
    CHECK_EQ(fc_room_size(room), before + 1);
}

void rooms_leave(struct fc_room *room, uint32_t slot)
{
    uint32_t before = fc_room_size(room);

    fc_room_leave(room, &rooms_clients, rooms_at(slot), slot);
    CHECK(!rooms_is_member(room, slot));
    CHECK_EQ(fc_room_size(room), before - 1);
}

struct fc_message *rooms_message(uint32_t number, size_t size)
{
    struct fc_message *message = fc_message_new(&rooms_account, sizeof number + size);
    uint8_t *payload = fc_message_payload(message);

    memset(payload, (int)(number & 0xFF), sizeof number + size);
    memcpy(payload, &number, sizeof number);
    fc_message_seal(message, FC_OP_BINARY, sizeof number + size);
    return message;
}

size_t rooms_add(struct fc_room *room, size_t size, bool picky)
{
    struct fc_message *message = rooms_message((uint32_t)room->given, size);
    size_t weight = fc_message_weight(message);

    CHECK_EQ(fc_room_add(room, message, picky), 0);
    return weight;
}

const uint8_t *rooms_read(const uint8_t *wire, uint32_t *number)
{
    size_t length = wire[1];
    size_t header = 2;

    CHECK_EQ(wire[0], 0x82);
    if (length == 126) {
        length = (size_t)wire[2] << 8 | wire[3];
        header = 4;
    }
    CHECK(length < 127 || header == 4);
    memcpy(number, wire + header, sizeof *number);
    return wire + header + length;
}

void rooms_check(struct fc_room *room)
{
    uint32_t holes = 0;

    for (uint32_t i = 0; i < room->count && !room->everyone; i++) {
        if (room->members[i] == FC_NO_SLOT)
            holes++;
        else
            CHECK_EQ(*fc_client_position(rooms_at(room->members[i]), room), i);
    }
    CHECK_EQ(room->holes, holes);
    CHECK(holes == 0 || room->flush);
    CHECK(room->late.count == 0 || fc_room_busy(room));
    for (uint32_t i = 0; i < room->late.capacity; i++) {
        uint32_t slot = room->late.entries[i].slot;
        if (room->late.entries[i].from == 0)
            continue;
        CHECK(room->late.entries[i].from <= room->given);
        CHECK(room->everyone ? fc_clients_used(&rooms_clients, slot) : rooms_is_member(room, slot));
        CHECK(rooms_at(slot)->late);
    }
}
