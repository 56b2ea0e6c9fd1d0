/* Rooms: what a flush sends, in which pieces, and that it visits each member once while others come and go. */
#include "room.h"

#include "check.h"
#include "faults.h"
#include "rooms.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A text message of n bytes on the wire, at least 4. */
static struct fc_message *sized(size_t n, char fill)
{
    static char payload[70000];
    size_t length = n - 2;

    if (length > 125)
        length = n - 4 <= UINT16_MAX ? n - 4 : n - 10;
    memset(payload, fill, length);
    struct fc_message *message = fc_message_frame(&rooms_account, FC_OP_TEXT, payload, length);
    CHECK_EQ(message->size, n);
    return message;
}

static size_t add(struct fc_room *room, struct fc_message *message)
{
    size_t weight = fc_message_weight(message);

    CHECK_EQ(fc_room_add(room, message, false), 0);
    return weight;
}

static void begin(struct fc_room *room)
{
    CHECK_EQ(fc_room_begin(room, &rooms_clients), 0);
}

static uint32_t next(struct fc_room *room)
{
    return fc_room_next(room, &rooms_clients);
}

static size_t end(struct fc_room *room)
{
    return fc_room_end(room, &rooms_clients);
}

static unsigned visit_all(struct fc_room *room)
{
    unsigned n = 0;

    while (next(room) != FC_NO_SLOT)
        n++;
    return n;
}

static uint32_t join(struct fc_room *room)
{
    uint32_t slot = rooms_client();

    rooms_join(room, slot);
    return slot;
}

static void leave(struct fc_room *room, uint32_t slot)
{
    rooms_leave(room, slot);
    rooms_forget_client(slot);
}

static struct fc_room *open_room(unsigned members)
{
    rooms_open(20000);
    struct fc_room *room = rooms_make("room");
    for (unsigned i = 0; i < members; i++)
        join(room);
    return room;
}

static void close_room(struct fc_room *room, size_t weight)
{
    rooms_free(room, weight);
    rooms_close();
}

static void small_messages_are_joined_and_large_ones_are_not(void)
{
    struct fc_room *room = open_room(1);
    size_t weight = add(room, sized(100, 'a')) + add(room, sized(200, 'b')) + add(room, sized(40000, 'c')) +
                    add(room, sized(50000, 'd')) + add(room, sized(300, 'e'));

    begin(room);
    const struct fc_flush *flush = room->flush;
    CHECK_EQ(flush->vectors, 4);
    CHECK_EQ(flush->vector[0].iov_len, 300);
    CHECK_EQ(flush->vector[1].iov_len, 40000);
    CHECK_EQ(flush->vector[2].iov_len, 50000);
    CHECK_EQ(flush->vector[3].iov_len, 300);
    CHECK_EQ(flush->frames, 5);
    CHECK_EQ(flush->bytes, 90600);
    CHECK_EQ(((const char *)flush->vector[0].iov_base)[99], 'a');
    CHECK_EQ(((const char *)flush->vector[0].iov_base)[299], 'b');
    CHECK_EQ(room->due_count, 0);
    CHECK_EQ(visit_all(room), 1);
    CHECK_EQ(end(room), weight);
    CHECK(!fc_room_busy(room));
    close_room(room, 0);
}

static void what_is_more_than_a_batch_waits_for_the_next(void)
{
    struct fc_room *room = open_room(1);
    size_t weight = 0;

    for (unsigned i = 0; i < FC_ROOM_VECTORS + 3; i++)
        weight += add(room, sized(33000 + i, 'x'));
    begin(room);
    CHECK_EQ(room->flush->vectors, FC_ROOM_VECTORS);
    CHECK_EQ(room->flush->first, 0);
    CHECK_EQ(room->due_count, 3);
    weight -= end(room);
    CHECK(fc_room_busy(room));
    begin(room);
    CHECK_EQ(room->flush->vectors, 3);
    CHECK_EQ(room->flush->first, FC_ROOM_VECTORS);
    CHECK_EQ(room->due_count, 0);
    CHECK_EQ(room->flush->vector[0].iov_len, 33000 + FC_ROOM_VECTORS);
    close_room(room, weight);
}

static void without_memory_messages_go_one_by_one(void)
{
    struct fc_room *room = open_room(1);
    size_t weight = add(room, sized(10, 'a')) + add(room, sized(20, 'b'));

    fault_arm(FAULT_ALLOCATION, 1, 1, ENOMEM); /* the flush itself has memory */
    begin(room);
    CHECK_EQ(fault_injected(FAULT_ALLOCATION), 1);
    CHECK_EQ(room->flush->vectors, 2);
    CHECK_EQ(room->flush->frames, 2);
    CHECK_EQ(room->flush->vector[0].iov_len, 10);
    CHECK_EQ(room->flush->vector[1].iov_len, 20);
    close_room(room, weight);
}

static void without_memory_for_a_flush_all_stays_due_and_can_be_dropped(void)
{
    struct fc_room *room = open_room(2);
    size_t weight = rooms_add(room, 10, true) + rooms_add(room, 20, false);
    size_t dropped;

    for (unsigned long skip = 0; skip < 2; skip++) { /* the flush; the list of single messages */
        fault_clear();
        fault_arm(FAULT_ALLOCATION, skip, 1, ENOMEM);
        CHECK_EQ(fc_room_begin(room, &rooms_clients), -ENOMEM);
        CHECK(!room->flush);
        CHECK_EQ(room->due_count, 2);
        CHECK(room->picky);
    }
    fault_clear();
    CHECK_EQ(fc_room_drop_due(room, &dropped), 2);
    CHECK_EQ(dropped, weight);
    CHECK(!fc_room_busy(room) && !room->picky);
    CHECK_EQ(rooms_account.messages, 0);
    CHECK_EQ(fc_room_drop_due(room, &dropped), 0);
    CHECK_EQ(dropped, 0);
    CHECK_EQ(room->given, 2); /* numbers go on */
    close_room(room, 0);
}

/* The messages as they came, beside the pieces. */
static void messages_are_kept_singly_while_something_picky_is_due(void)
{
    struct fc_room *room = open_room(1);
    struct fc_message *messages[] = {sized(10, 'a'), sized(20, 'b'), sized(40000, 'c'), sized(30, 'd')};
    size_t weight = 0;

    for (unsigned i = 0; i < 4; i++) {
        weight += fc_message_weight(messages[i]);
        CHECK_EQ(fc_room_add(room, messages[i], i == 1), 0);
    }
    begin(room);
    CHECK_EQ(room->flush->vectors, 3);
    CHECK_EQ(room->flush->frames, 4);
    for (unsigned i = 0; i < 4; i++)
        CHECK(room->flush->singly[i] == messages[i]);
    CHECK_EQ(rooms_account.messages, 5);
    weight += add(room, sized(10, 'e'));
    weight -= end(room);
    CHECK_EQ(rooms_account.messages, 1);
    begin(room); /* what came in the meantime may be as picky, for all that is known */
    CHECK(room->flush->singly);
    CHECK_EQ(end(room), weight);
    add(room, sized(10, 'f'));
    begin(room);
    CHECK(!room->flush->singly);
    end(room);
    close_room(room, 0);
}

static void nothing_is_kept_singly_for_those_who_get_all(void)
{
    struct fc_room *room = open_room(3);

    add(room, sized(10, 'a'));
    add(room, sized(20, 'b'));
    begin(room);
    CHECK(!room->flush->singly);
    CHECK_EQ(rooms_account.messages, 1); /* the joined piece */
    end(room);
    close_room(room, 0);
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
        begin(room);
        for (unsigned step = 0; (slot = next(room)) != FC_NO_SLOT; step++) {
            visits[slot]++;
            unsigned who = (unsigned)(check_random(&seed) % audience);
            /* No slot is used again, so that a slot stands for one member: who leaves isn't given back. */
            if (step % 7 == 0 && present[who]) {
                CHECK_EQ(fc_room_owes(room, rooms_at(who), who), visits[who] == 0);
                left_unvisited[who] = visits[who] == 0;
                rooms_leave(room, who);
                present[who] = false;
            }
            if (step % 50 == 0 && members < audience + NEWCOMERS) {
                slot = join(room);
                CHECK_EQ(slot, members);
                CHECK(!fc_room_owes(room, rooms_at(slot), slot));
                present[members++] = true;
            }
        }
        end(room);
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
        rooms_check(room);
    }
    close_room(room, 0);
}

static void nothing_is_owed_unless_a_flush_is_under_way(void)
{
    struct fc_room *room = open_room(2);

    CHECK(!fc_room_owes(room, rooms_at(0), 0));
    add(room, sized(10, 'x'));
    CHECK(!fc_room_owes(room, rooms_at(0), 0));
    begin(room);
    CHECK(fc_room_owes(room, rooms_at(0), 0) && fc_room_owes(room, rooms_at(1), 1));
    uint32_t first = next(room);
    CHECK_EQ(fc_room_owes(room, rooms_at(0), 0), first == 1);
    CHECK_EQ(fc_room_owes(room, rooms_at(1), 1), first == 0);
    next(room);
    CHECK(!fc_room_owes(room, rooms_at(0), 0) && !fc_room_owes(room, rooms_at(1), 1));
    end(room);
    close_room(room, 0);
}

static void nobody_is_always_served_first(void)
{
    enum { MEMBERS = 100, FLUSHES = 1000 };
    struct fc_room *room = open_room(MEMBERS);
    unsigned first[MEMBERS] = {0};

    for (unsigned i = 0; i < FLUSHES; i++) {
        add(room, sized(10, 'x'));
        begin(room);
        first[next(room)]++;
        CHECK_EQ(visit_all(room), MEMBERS - 1);
        end(room);
    }
    for (unsigned i = 0; i < MEMBERS; i++)
        CHECK(first[i] >= FLUSHES / MEMBERS / 2 && first[i] <= 2 * FLUSHES / MEMBERS);
    close_room(room, 0);
}

static void everyone_leaving_amid_a_flush_leaves_an_empty_room(void)
{
    struct fc_room *room = open_room(20);
    size_t weight = add(room, sized(10, 'x'));

    begin(room);
    for (unsigned i = 0; i < 5; i++)
        CHECK(next(room) != FC_NO_SLOT);
    for (uint32_t slot = 0; slot < 20; slot++)
        leave(room, slot);
    CHECK_EQ(fc_room_size(room), 0);
    CHECK_EQ(next(room), FC_NO_SLOT);
    CHECK_EQ(end(room), weight);
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

static void a_burst_that_is_over_leaves_no_memory_behind(void)
{
    struct fc_room *room = open_room(1);

    for (unsigned i = 0; i < 1000; i++)
        add(room, sized(10, 'x'));
    for (unsigned i = 0; i < 1000; i++)
        join(room);
    CHECK(room->due_capacity >= 1000 && room->late.capacity >= 1000);
    begin(room);
    end(room);
    CHECK(room->due_capacity <= 64 && room->late.capacity <= 64);
    close_room(room, 0);
}

static void a_freed_room_tells_the_weight_of_what_it_had(void)
{
    struct fc_room *room = open_room(2);
    size_t weight = rooms_add(room, 10, true) + rooms_add(room, 20, false);

    begin(room);
    weight += add(room, sized(30, 'c'));
    join(room);
    close_room(room, weight);
}

/* ---- missing memory ---- */

static bool join_and_add(void)
{
    bool succeeded = true;
    struct fc_client client = {0};
    struct fc_channel channel = {0};
    struct fc_message *message = fc_message_frame(&rooms_account, FC_OP_TEXT, "x", 1);
    struct fc_room *room = fc_room_new(&channel);

    if (!message || !room || fc_room_join(room, &client, 0)) {
        succeeded = false;
    } else if (fc_room_add(room, message, false) == 0) {
        message = NULL;
    } else {
        succeeded = false;
    }
    if (room)
        fc_room_free(room);
    fc_message_unref(message);
    CHECK_EQ(rooms_account.messages, 0);
    return succeeded;
}

static void missing_memory_is_an_error_and_nothing_leaks(void)
{
    CHECK_EQ(check_each_allocation(join_and_add), 4);
}

/* The list of the late, the list of members, the client's extra and its array. */
static void without_memory_nobody_joins_and_nothing_is_noted(void)
{
    struct fc_room *room = open_room(4); /* as many as there is room for at first */
    struct fc_room *other = rooms_make("other");
    uint32_t slot = rooms_client();
    struct fc_client *client = rooms_at(slot);
    unsigned long failed = 0;

    CHECK_EQ(room->count, room->capacity);
    size_t weight = rooms_add(room, 10, false);
    rooms_join(other, slot);
    for (;; failed++) {
        fault_clear();
        fault_arm(FAULT_ALLOCATION, failed, 1, ENOMEM);
        int error = fc_room_join(room, client, slot);
        unsigned long injected = fault_injected(FAULT_ALLOCATION);
        fault_clear();
        if (injected == 0) {
            CHECK_EQ(error, 0);
            break;
        }
        CHECK_EQ(error, -ENOMEM);
        CHECK(!rooms_is_member(room, slot) && rooms_is_member(other, slot));
        CHECK_EQ(room->count, 4);
        CHECK_EQ(room->late.count, 0);
        rooms_check(room);
    }
    CHECK(failed >= 1);
    CHECK_EQ(room->count, 5);
    CHECK_EQ(room->late.count, 1);
    rooms_check(room);
    rooms_leave(other, slot);
    rooms_free(other, 0);
    close_room(room, weight);
}

int main(void)
{
    RUN(small_messages_are_joined_and_large_ones_are_not);
    RUN(what_is_more_than_a_batch_waits_for_the_next);
    RUN(without_memory_messages_go_one_by_one);
    RUN(without_memory_for_a_flush_all_stays_due_and_can_be_dropped);
    RUN(messages_are_kept_singly_while_something_picky_is_due);
    RUN(nothing_is_kept_singly_for_those_who_get_all);
    RUN(every_member_of_the_audience_is_visited_once);
    RUN(nothing_is_owed_unless_a_flush_is_under_way);
    RUN(nobody_is_always_served_first);
    RUN(everyone_leaving_amid_a_flush_leaves_an_empty_room);
    RUN(a_crowd_that_has_gone_leaves_no_memory_behind);
    RUN(a_burst_that_is_over_leaves_no_memory_behind);
    RUN(a_freed_room_tells_the_weight_of_what_it_had);
    RUN(missing_memory_is_an_error_and_nothing_leaks);
    RUN(without_memory_nobody_joins_and_nothing_is_noted);
    return 0;
}
