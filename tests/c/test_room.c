/* Rooms: what a flush sends, in which pieces, and that it visits each member once while others come and go. */
#include "room.h"

#include "check.h"
#include "faults.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct fc_account account;
static struct fc_channel channel; /* a room only remembers it */
static struct fc_clients clients;

static uint32_t join(struct fc_room *room)
{
    uint32_t slot;
    struct fc_client *client = fc_clients_take(&clients, &slot);

    CHECK(client);
    client->state = FC_CLIENT_OPEN;
    CHECK_EQ(fc_room_join(room, client, slot), 0);
    CHECK(client->room == room);
    return slot;
}

static void leave(struct fc_room *room, uint32_t slot)
{
    struct fc_client *client = fc_clients_at(&clients, slot);

    fc_room_leave(room, &clients, client);
    CHECK(!client->room);
    fc_clients_give(&clients, slot);
}

/* A text message of n bytes on the wire, at least 4. */
static struct fc_message *sized(size_t n, char fill)
{
    static char payload[70000];
    size_t length = n - 2;

    if (length > 125)
        length = n - 4 <= UINT16_MAX ? n - 4 : n - 10;
    memset(payload, fill, length);
    struct fc_message *message = fc_message_frame(&account, FC_OP_TEXT, payload, length);
    CHECK_EQ(message->size, n);
    return message;
}

static size_t add(struct fc_room *room, struct fc_message *message)
{
    size_t weight = fc_message_weight(message);

    CHECK_EQ(fc_room_add(room, message), 0);
    return weight;
}

static unsigned visit_all(struct fc_room *room)
{
    unsigned n = 0;

    while (fc_room_next(room) != FC_NO_SLOT)
        n++;
    return n;
}

static struct fc_room *open_room(unsigned members)
{
    CHECK_EQ(fc_clients_init(&clients, 20000), 0);
    struct fc_room *room = fc_room_new(&channel);
    CHECK(room->channel == &channel);
    for (unsigned i = 0; i < members; i++)
        join(room);
    return room;
}

static void close_room(struct fc_room *room, size_t weight)
{
    CHECK_EQ(fc_room_free(room), weight);
    fc_clients_destroy(&clients);
    CHECK_EQ(account.messages, 0);
}

static void small_messages_are_joined_and_large_ones_are_not(void)
{
    struct fc_room *room = open_room(1);
    size_t weight = add(room, sized(100, 'a')) + add(room, sized(200, 'b')) + add(room, sized(40000, 'c')) +
                    add(room, sized(50000, 'd')) + add(room, sized(300, 'e'));

    fc_room_begin(room);
    CHECK_EQ(room->vectors, 4);
    CHECK_EQ(room->vector[0].iov_len, 300);
    CHECK_EQ(room->vector[1].iov_len, 40000);
    CHECK_EQ(room->vector[2].iov_len, 50000);
    CHECK_EQ(room->vector[3].iov_len, 300);
    CHECK_EQ(room->frames, 5);
    CHECK_EQ(room->bytes, 90600);
    CHECK_EQ(((const char *)room->vector[0].iov_base)[99], 'a');
    CHECK_EQ(((const char *)room->vector[0].iov_base)[299], 'b');
    CHECK_EQ(visit_all(room), 1);
    CHECK_EQ(fc_room_end(room, &clients), weight);
    CHECK(!fc_room_busy(room));
    close_room(room, 0);
}

static void what_is_more_than_a_batch_waits_for_the_next(void)
{
    struct fc_room *room = open_room(1);
    size_t weight = 0;

    for (unsigned i = 0; i < FC_ROOM_VECTORS + 3; i++)
        weight += add(room, sized(33000 + i, 'x'));
    fc_room_begin(room);
    CHECK_EQ(room->vectors, FC_ROOM_VECTORS);
    CHECK_EQ(room->due_count, 3);
    weight -= fc_room_end(room, &clients);
    CHECK(fc_room_busy(room));
    fc_room_begin(room);
    CHECK_EQ(room->vectors, 3);
    CHECK_EQ(room->vector[0].iov_len, 33000 + FC_ROOM_VECTORS);
    close_room(room, weight);
}

static void without_memory_messages_go_one_by_one(void)
{
    struct fc_room *room = open_room(1);
    size_t weight = add(room, sized(10, 'a')) + add(room, sized(20, 'b'));

    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    fc_room_begin(room);
    CHECK_EQ(room->vectors, 2);
    CHECK_EQ(room->frames, 2);
    CHECK_EQ(room->vector[0].iov_len, 10);
    CHECK_EQ(room->vector[1].iov_len, 20);
    close_room(room, weight);
}

static void every_member_of_the_audience_is_visited_once(void)
{
    enum { MEMBERS = 300, NEWCOMERS = 50 };
    struct fc_room *room = open_room(0);
    uint64_t seed = 9;
    static unsigned visits[MEMBERS + 10 * NEWCOMERS];
    static bool present[MEMBERS + 10 * NEWCOMERS];
    static bool left_unvisited[MEMBERS + 10 * NEWCOMERS];
    unsigned members = 0;

    for (; members < MEMBERS; members++)
        CHECK_EQ(join(room), members);
    memset(present, true, members);
    for (unsigned flush = 0; flush < 8; flush++) {
        unsigned audience = members;
        uint32_t slot;
        memset(visits, 0, sizeof visits);
        memset(left_unvisited, 0, sizeof left_unvisited);
        add(room, sized(10, 'x'));
        fc_room_begin(room);
        for (unsigned step = 0; (slot = fc_room_next(room)) != FC_NO_SLOT; step++) {
            visits[slot]++;
            unsigned who = (unsigned)(check_random(&seed) % audience);
            /* No slot is used again, so that a slot stands for one member: who leaves isn't given back. */
            if (step % 7 == 0 && present[who]) {
                struct fc_client *client = fc_clients_at(&clients, who);
                CHECK_EQ(fc_room_owes(room, client), visits[who] == 0);
                left_unvisited[who] = visits[who] == 0;
                fc_room_leave(room, &clients, client);
                present[who] = false;
            }
            if (step % 50 == 0 && members < audience + NEWCOMERS) {
                slot = join(room);
                CHECK_EQ(slot, members);
                CHECK(!fc_room_owes(room, fc_clients_at(&clients, slot)));
                present[members++] = true;
            }
        }
        fc_room_end(room, &clients);
        unsigned there = 0;
        for (unsigned i = 0; i < members; i++) {
            there += present[i];
            if (present[i])
                CHECK_EQ(visits[i], i < audience);
            else
                CHECK(visits[i] <= 1 && !(left_unvisited[i] && visits[i]));
        }
        CHECK_EQ(fc_room_size(room), there);
        CHECK_EQ(room->holes, 0);
        for (uint32_t i = 0; i < room->count; i++)
            CHECK_EQ(fc_clients_at(&clients, room->members[i])->position, i);
    }
    close_room(room, 0);
}

static void nobody_is_always_served_first(void)
{
    enum { MEMBERS = 100, FLUSHES = 1000 };
    struct fc_room *room = open_room(MEMBERS);
    unsigned first[MEMBERS] = {0};

    for (unsigned i = 0; i < FLUSHES; i++) {
        add(room, sized(10, 'x'));
        fc_room_begin(room);
        first[fc_room_next(room)]++;
        CHECK_EQ(visit_all(room), MEMBERS - 1);
        fc_room_end(room, &clients);
    }
    for (unsigned i = 0; i < MEMBERS; i++)
        CHECK(first[i] >= FLUSHES / MEMBERS / 2 && first[i] <= 2 * FLUSHES / MEMBERS);
    close_room(room, 0);
}

static void everyone_leaving_amid_a_flush_leaves_an_empty_room(void)
{
    struct fc_room *room = open_room(20);
    size_t weight = add(room, sized(10, 'x'));

    fc_room_begin(room);
    for (unsigned i = 0; i < 5; i++)
        CHECK(fc_room_next(room) != FC_NO_SLOT);
    for (uint32_t slot = 0; slot < 20; slot++)
        leave(room, slot);
    CHECK_EQ(fc_room_size(room), 0);
    CHECK_EQ(fc_room_next(room), FC_NO_SLOT);
    CHECK_EQ(fc_room_end(room, &clients), weight);
    CHECK_EQ(room->count, 0);
    close_room(room, 0);
}

static void a_crowd_that_has_gone_leaves_no_memory_behind(void)
{
    struct fc_room *room = open_room(10000);

    for (uint32_t slot = 9999; slot > 9; slot--)
        leave(room, slot);
    CHECK_EQ(fc_room_size(room), 10);
    CHECK(room->capacity <= 128);
    close_room(room, 0);
}

static void a_freed_room_tells_the_weight_of_what_it_had(void)
{
    struct fc_room *room = open_room(2);
    size_t weight = add(room, sized(10, 'a')) + add(room, sized(20, 'b'));

    fc_room_begin(room);
    weight += add(room, sized(30, 'c'));
    close_room(room, weight);
}

static bool join_and_add(void)
{
    bool succeeded = true;
    struct fc_client client = {0};
    struct fc_message *message = fc_message_frame(&account, FC_OP_TEXT, "x", 1);
    struct fc_room *room = fc_room_new(&channel);

    if (!message || !room || fc_room_join(room, &client, 0)) {
        succeeded = false;
    } else if (fc_room_add(room, message) == 0) {
        message = NULL;
    } else {
        succeeded = false;
    }
    if (room)
        fc_room_free(room);
    fc_message_unref(message);
    CHECK_EQ(account.messages, 0);
    return succeeded;
}

static void missing_memory_is_an_error_and_nothing_leaks(void)
{
    CHECK_EQ(check_each_allocation(join_and_add), 4);
}

int main(void)
{
    RUN(small_messages_are_joined_and_large_ones_are_not);
    RUN(what_is_more_than_a_batch_waits_for_the_next);
    RUN(without_memory_messages_go_one_by_one);
    RUN(every_member_of_the_audience_is_visited_once);
    RUN(nobody_is_always_served_first);
    RUN(everyone_leaving_amid_a_flush_leaves_an_empty_room);
    RUN(a_crowd_that_has_gone_leaves_no_memory_behind);
    RUN(a_freed_room_tells_the_weight_of_what_it_had);
    RUN(missing_memory_is_an_error_and_nothing_leaks);
    return 0;
}
