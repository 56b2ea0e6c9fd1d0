/* Exact beginnings: who joins while something is due or a flush is under way, or was served ahead of the others, gets
 * just what comes after that; in rooms with a list of members and in the room of everyone. */
#include "room.h"

#include "check.h"
#include "faults.h"
#include "rooms.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void begin(struct fc_room *room)
{
    CHECK_EQ(fc_room_begin(room, &rooms_clients), 0);
}

static uint32_t missed_of(struct fc_room *room, uint32_t slot, uint64_t first, uint32_t n)
{
    return fc_room_missed(room, rooms_at(slot), slot, first, n);
}

/* Goes over the members; `heard` counts the messages that are for each slot. */
static void flush_all(struct fc_room *room, unsigned *heard)
{
    uint32_t slot;

    begin(room);
    while ((slot = fc_room_next(room, &rooms_clients)) != FC_NO_SLOT)
        heard[slot] += room->flush->frames - missed_of(room, slot, room->flush->first, room->flush->frames);
    fc_room_end(room, &rooms_clients);
}

/* Opens two members and a client that isn't one, slots 0 to 2. */
static struct fc_room *open_room(bool everyone)
{
    rooms_open(3000);
    struct fc_room *room = everyone ? rooms_make_everyone() : rooms_make("room");
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(rooms_client(), i);
    rooms_at(2)->state = FC_CLIENT_ASKED;
    rooms_join(room, 0);
    rooms_join(room, 1);
    return room;
}

static void enter(struct fc_room *room, uint32_t slot)
{
    rooms_at(slot)->state = FC_CLIENT_OPEN;
    rooms_join(room, slot);
}

static void close_room(struct fc_room *room, size_t weight)
{
    rooms_free(room, weight);
    rooms_close();
}

static void nobody_is_late_where_nothing_waits(void)
{
    struct fc_room *room = open_room(false);

    CHECK_EQ(fc_room_skip(room, rooms_at(0), 0), 0);
    CHECK_EQ(room->late.count, 0);
    CHECK(!rooms_at(0)->late && !rooms_at(1)->late);
    rooms_add(room, 0, false);
    CHECK_EQ(missed_of(room, 0, 0, 1), 0);
    unsigned heard[3] = {0};
    flush_all(room, heard);
    CHECK(heard[0] == 1 && heard[1] == 1 && heard[2] == 0);
    close_room(room, 0);
}

static void expect_what_is_due_to_be_missed(bool everyone)
{
    struct fc_room *room = open_room(everyone);
    unsigned heard[3] = {0};

    rooms_add(room, 0, false);
    rooms_add(room, 0, false);
    enter(room, 2);
    rooms_add(room, 0, false);
    rooms_check(room);
    flush_all(room, heard);
    CHECK(heard[0] == 3 && heard[1] == 3 && heard[2] == 1);
    CHECK_EQ(room->late.count, 0);
    rooms_add(room, 0, false);
    flush_all(room, heard);
    CHECK(heard[0] == 4 && heard[1] == 4 && heard[2] == 2);
    close_room(room, 0);
}

static void who_joins_while_something_is_due_hears_what_comes_after(void)
{
    expect_what_is_due_to_be_missed(false);
    expect_what_is_due_to_be_missed(true);
}

static void expect_a_flush_under_way_to_be_missed(bool everyone)
{
    struct fc_room *room = open_room(everyone);
    unsigned heard[3] = {0};
    uint32_t slot;

    rooms_add(room, 0, false);
    begin(room);
    rooms_add(room, 0, false); /* for the next flush, and also before the client joins */
    enter(room, 2);
    rooms_add(room, 0, false);
    if (!everyone)
        CHECK(!fc_room_owes(room, rooms_at(2), 2));
    while ((slot = fc_room_next(room, &rooms_clients)) != FC_NO_SLOT)
        heard[slot] += 1 - missed_of(room, slot, room->flush->first, 1);
    CHECK(heard[0] == 1 && heard[1] == 1 && heard[2] == 0);
    fc_room_end(room, &rooms_clients);
    CHECK_EQ(room->late.count, 1); /* its time hasn't come yet */
    rooms_check(room);
    flush_all(room, heard);
    CHECK(heard[0] == 3 && heard[1] == 3 && heard[2] == 1);
    CHECK_EQ(room->late.count, 0);
    close_room(room, 0);
}

static void who_joins_amid_a_flush_hears_nothing_of_it(void)
{
    expect_a_flush_under_way_to_be_missed(false);
    expect_a_flush_under_way_to_be_missed(true);
}

static void being_late_lasts_over_as_many_flushes_as_it_takes(void)
{
    struct fc_room *room = open_room(false);
    unsigned heard[3] = {0};

    for (unsigned i = 0; i < 2 * FC_ROOM_VECTORS; i++)
        rooms_add(room, 33000, false); /* each a piece of its own */
    enter(room, 2);
    rooms_add(room, 33000, false);
    flush_all(room, heard);
    CHECK(heard[0] == FC_ROOM_VECTORS && heard[2] == 0 && room->late.count == 1);
    flush_all(room, heard);
    CHECK(heard[0] == 2 * FC_ROOM_VECTORS && heard[2] == 0);
    CHECK_EQ(room->late.count, 0);
    flush_all(room, heard);
    CHECK(heard[0] == 2 * FC_ROOM_VECTORS + 1 && heard[2] == 1);
    close_room(room, 0);
}

static void how_many_are_missed_is_exact_for_every_part(void)
{
    struct fc_room *room = open_room(false);
    enum { BEFORE = 5, ALL = 9 };
    size_t weight = 0;

    for (unsigned i = 0; i < BEFORE; i++)
        weight += rooms_add(room, 0, false);
    enter(room, 2);
    for (unsigned i = BEFORE; i < ALL; i++)
        weight += rooms_add(room, 0, false);
    for (uint64_t first = 0; first <= ALL; first++) {
        for (uint32_t n = 0; first + n <= ALL; n++) {
            uint32_t expected = 0;
            for (uint64_t i = first; i < first + n; i++)
                expected += i < BEFORE;
            CHECK_EQ(missed_of(room, 2, first, n), expected);
            CHECK_EQ(missed_of(room, 0, first, n), 0);
        }
    }
    rooms_at(1)->late = 1; /* in another room */
    CHECK_EQ(missed_of(room, 1, 0, ALL), 0);
    close_room(room, weight);
}

static void who_has_skipped_misses_what_was_there_and_nothing_else(void)
{
    struct fc_room *room = open_room(false);
    unsigned heard[3] = {0};

    rooms_add(room, 0, false);
    CHECK_EQ(fc_room_skip(room, rooms_at(1), 1), 0);
    rooms_add(room, 0, false);
    CHECK_EQ(room->late.count, 1);
    CHECK_EQ(missed_of(room, 1, 0, 2), 1);
    CHECK_EQ(fc_room_skip(room, rooms_at(1), 1), 0); /* again, further on */
    CHECK_EQ(room->late.count, 1);
    CHECK_EQ(missed_of(room, 1, 0, 2), 2);
    rooms_add(room, 0, false);
    flush_all(room, heard);
    CHECK(heard[0] == 3 && heard[1] == 1);

    rooms_add(room, 0, false);
    begin(room);
    CHECK_EQ(fc_room_skip(room, rooms_at(0), 0), 0); /* has got it ahead of its turn */
    CHECK_EQ(missed_of(room, 0, room->flush->first, 1), 1);
    CHECK_EQ(missed_of(room, 1, room->flush->first, 1), 0);
    fc_room_end(room, &rooms_clients);
    CHECK_EQ(room->late.count, 0);
    close_room(room, 0);
}

static void expect_a_slot_to_begin_anew(bool everyone)
{
    struct fc_room *room = open_room(everyone);
    unsigned heard[3] = {0};

    rooms_add(room, 0, false);
    enter(room, 2);
    rooms_add(room, 0, false);
    rooms_leave(room, 2);
    CHECK_EQ(room->late.count, 0);
    rooms_forget_client(2);
    CHECK_EQ(rooms_client(), 2);
    rooms_join(room, 2);
    CHECK_EQ(missed_of(room, 2, 0, 2), 2);
    rooms_add(room, 0, false);
    begin(room);
    rooms_leave(room, 2);
    rooms_forget_client(2);
    CHECK_EQ(rooms_client(), 2);
    rooms_join(room, 2); /* and once more, in the place of one whom the flush would have served */
    CHECK_EQ(missed_of(room, 2, room->flush->first, room->flush->frames), 3);
    fc_room_end(room, &rooms_clients);
    rooms_add(room, 0, false);
    flush_all(room, heard);
    CHECK(heard[0] == 1 && heard[1] == 1 && heard[2] == 1);
    close_room(room, 0);
}

static void a_slot_that_is_used_again_begins_anew(void)
{
    expect_a_slot_to_begin_anew(false);
    expect_a_slot_to_begin_anew(true);
}

/* The one who leaves is forgotten, though the note that it may be late stays with it. */
static void leaving_and_joining_again_loses_and_doubles_nothing(void)
{
    struct fc_room *room = open_room(false);
    unsigned heard[3] = {0};

    rooms_add(room, 0, false);
    rooms_leave(room, 1);
    rooms_add(room, 0, false);
    rooms_join(room, 1);
    rooms_add(room, 0, false);
    rooms_check(room);
    flush_all(room, heard);
    CHECK(heard[0] == 3 && heard[1] == 1);
    CHECK(rooms_at(1)->late);
    rooms_leave(room, 1);
    rooms_add(room, 0, false);
    begin(room);
    rooms_join(room, 1);
    fc_room_end(room, &rooms_clients);
    CHECK_EQ(room->late.count, 0);
    rooms_add(room, 0, false);
    flush_all(room, heard);
    CHECK(heard[1] == 2);
    close_room(room, 0);
}

static void messages_are_kept_singly_for_the_late(void)
{
    struct fc_room *room = open_room(false);

    size_t weight = rooms_add(room, 10, false);
    enter(room, 2);
    weight += rooms_add(room, 20, false) + rooms_add(room, 40000, false);
    begin(room);
    CHECK_EQ(room->flush->vectors, 2);
    CHECK_EQ(room->flush->frames, 3);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t number;
        rooms_read(fc_message_wire(room->flush->singly[i]), &number);
        CHECK_EQ(number, i);
    }
    CHECK_EQ(missed_of(room, 2, 0, 3), 1);
    CHECK_EQ(fc_room_end(room, &rooms_clients), weight);
    CHECK_EQ(rooms_account.messages, 0);
    close_room(room, 0);
}

static void what_is_dropped_makes_nobody_late(void)
{
    struct fc_room *room = open_room(false);
    unsigned heard[3] = {0};
    size_t weight;

    rooms_add(room, 0, false);
    enter(room, 2);
    CHECK_EQ(fc_room_drop_due(room, &weight), 1);
    CHECK_EQ(room->late.count, 0);
    rooms_add(room, 0, false);
    flush_all(room, heard);
    CHECK(heard[0] == 1 && heard[1] == 1 && heard[2] == 1);
    close_room(room, 0);
}

static void without_memory_nothing_is_skipped(void)
{
    struct fc_room *room = open_room(false);
    size_t weight = rooms_add(room, 0, false);

    fault_arm(FAULT_ALLOCATION, 0, 1, ENOMEM);
    CHECK_EQ(fc_room_skip(room, rooms_at(0), 0), -ENOMEM);
    CHECK_EQ(room->late.count, 0);
    CHECK_EQ(missed_of(room, 0, 0, 1), 0);
    close_room(room, weight);
}

/* ---- everyone ---- */

static void everyone_is_who_is_open(void)
{
    enum { FIRST = FC_CLIENT_HEAD, LAST = FC_CLIENT_LINGER };
    unsigned heard[16] = {0};

    rooms_open(3000);
    struct fc_room *room = rooms_make_everyone();
    for (uint32_t i = 0; i < 14; i++) {
        CHECK_EQ(rooms_client(), i);
        rooms_at(i)->state = (FIRST + i % (LAST - FIRST + 1)) & 7;
        if (rooms_at(i)->state == FC_CLIENT_OPEN || rooms_at(i)->state == FC_CLIENT_LEAVING)
            rooms_join(room, i);
    }
    CHECK_EQ(fc_room_size(room), 4);
    long before = fault_live_blocks();
    rooms_add(room, 0, false);
    CHECK(!room->members);
    flush_all(room, heard);
    CHECK(fault_live_blocks() <= before + 1); /* the list of what is due */
    for (uint32_t i = 0; i < 14; i++) {
        bool expected = rooms_at(i)->state == FC_CLIENT_OPEN || rooms_at(i)->state == FC_CLIENT_LEAVING;
        CHECK_EQ(heard[i], expected);
    }
    close_room(room, 0);
}

static void everyone_is_nobody_in_an_empty_table(void)
{
    rooms_open(3000);
    struct fc_room *room = rooms_make_everyone();

    rooms_add(room, 0, false);
    begin(room);
    CHECK_EQ(fc_room_next(room, &rooms_clients), FC_NO_SLOT);
    fc_room_end(room, &rooms_clients);
    close_room(room, 0);
}

/* The memory of their slots goes back to the system, and comes again with others. */
static void a_flush_to_everyone_passes_by_those_whose_chunk_has_gone(void)
{
    enum { CLIENTS = FC_CHUNK_SLOTS + 10 };
    static unsigned heard[2 * FC_CHUNK_SLOTS];
    uint32_t slot;

    memset(heard, 0, sizeof heard);
    rooms_open(3000);
    struct fc_room *room = rooms_make_everyone();
    for (uint32_t i = 0; i < CLIENTS; i++) {
        CHECK_EQ(rooms_client(), i);
        rooms_join(room, i);
    }
    for (unsigned again = 0; again < 2; again++) {
        rooms_add(room, 0, false);
        begin(room);
        CHECK_EQ(room->flush->audience, 2 * FC_CHUNK_SLOTS);
        for (uint32_t i = FC_CHUNK_SLOTS; i < CLIENTS; i++) {
            rooms_leave(room, i);
            rooms_forget_client(i);
        }
        CHECK(!rooms_at(FC_CHUNK_SLOTS));
        for (uint32_t i = FC_CHUNK_SLOTS; again && i < CLIENTS; i++) {
            CHECK_EQ(rooms_client(), i);
            rooms_join(room, i);
        }
        while ((slot = fc_room_next(room, &rooms_clients)) != FC_NO_SLOT)
            heard[slot] += 1 - missed_of(room, slot, room->flush->first, 1);
        fc_room_end(room, &rooms_clients);
        for (uint32_t i = 0; i < CLIENTS; i++)
            CHECK_EQ(heard[i], i < FC_CHUNK_SLOTS ? again + 1 : 0);
        for (uint32_t i = FC_CHUNK_SLOTS; !again && i < CLIENTS; i++) {
            CHECK_EQ(rooms_client(), i);
            rooms_join(room, i);
        }
    }
    rooms_add(room, 0, false);
    flush_all(room, heard);
    CHECK(heard[0] == 3 && heard[FC_CHUNK_SLOTS] == 1 && heard[CLIENTS - 1] == 1);
    close_room(room, 0);
}

int main(void)
{
    RUN(nobody_is_late_where_nothing_waits);
    RUN(who_joins_while_something_is_due_hears_what_comes_after);
    RUN(who_joins_amid_a_flush_hears_nothing_of_it);
    RUN(being_late_lasts_over_as_many_flushes_as_it_takes);
    RUN(how_many_are_missed_is_exact_for_every_part);
    RUN(who_has_skipped_misses_what_was_there_and_nothing_else);
    RUN(a_slot_that_is_used_again_begins_anew);
    RUN(leaving_and_joining_again_loses_and_doubles_nothing);
    RUN(messages_are_kept_singly_for_the_late);
    RUN(what_is_dropped_makes_nobody_late);
    RUN(without_memory_nothing_is_skipped);
    RUN(everyone_is_who_is_open);
    RUN(everyone_is_nobody_in_an_empty_table);
    RUN(a_flush_to_everyone_passes_by_those_whose_chunk_has_gone);
    return 0;
}
