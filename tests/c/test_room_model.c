/* Rooms against a model: clients come, join, leave, are served out of turn and go, in a room of everyone and in others
 * at once, amid flushes and without memory; and each member gets exactly what comes since its joining, once, in order. */
#include "room.h"

#include "check.h"
#include "faults.h"
#include "rooms.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ROOMS = 3, SLOTS = 40, ROUNDS = 200000 };

/* Room 0 is that of everyone. */
static struct model {
    struct fc_room *room;
    bool member[SLOTS];
    uint64_t next[SLOTS]; /* the number of the message that a member is to get next */
} models[ROOMS];

static bool present[SLOTS];
static uint64_t seed;
static uint64_t delivered;
static uint64_t begun;

static unsigned random_below(unsigned n)
{
    return (unsigned)(check_random(&seed) % n);
}

/* Once in a while there is no memory for one of the next allocations. */
static void perhaps_no_memory(void)
{
    fault_clear();
    if (random_below(10) == 0)
        fault_arm(FAULT_ALLOCATION, random_below(3), 1, ENOMEM);
}

static bool was_no_memory(void)
{
    bool injected = fault_injected(FAULT_ALLOCATION) > 0;

    fault_clear();
    return injected;
}

/* ---- what a client gets ---- */

static void deliver_message(struct model *model, uint32_t slot, const struct fc_message *message)
{
    uint32_t number;

    rooms_read(fc_message_wire(message), &number);
    CHECK_EQ(number, model->next[slot]);
    model->next[slot]++;
    delivered++;
}

/* The batch as it lies in the vectors. */
static void deliver_batch(struct model *model, uint32_t slot)
{
    const struct fc_flush *flush = model->room->flush;

    for (uint32_t i = 0; i < flush->vectors; i++) {
        const uint8_t *wire = flush->vector[i].iov_base;
        const uint8_t *wire_end = wire + flush->vector[i].iov_len;
        while (wire < wire_end) {
            uint32_t number;
            wire = rooms_read(wire, &number);
            CHECK_EQ(number, model->next[slot]);
            model->next[slot]++;
            delivered++;
        }
        CHECK(wire == wire_end);
    }
}

/* What the batch has for a member: all of it, its last messages, or nothing. */
static void deliver_from_batch(struct model *model, uint32_t slot)
{
    const struct fc_flush *flush = model->room->flush;
    uint32_t missed = fc_room_missed(model->room, rooms_at(slot), slot, flush->first, flush->frames);

    if (missed == 0 && !(flush->singly && random_below(2))) {
        deliver_batch(model, slot);
        return;
    }
    for (uint32_t i = missed; i < flush->frames; i++)
        deliver_message(model, slot, flush->singly[i]);
}

/* ---- what happens ---- */

static void add_messages(struct model *model)
{
    bool burst = random_below(50) == 0;
    unsigned n = burst ? 10 + random_below(30) : 1 + random_below(3);
    size_t size = burst ? 17000 + random_below(1000) : random_below(20);

    for (unsigned i = 0; i < n && model->room->due_count < 100; i++) {
        struct fc_message *message = rooms_message((uint32_t)model->room->given, size);
        perhaps_no_memory();
        int error = fc_room_add(model->room, message, random_below(8) == 0);
        CHECK_EQ(error, was_no_memory() && error ? -ENOMEM : 0);
        if (error)
            fc_message_unref(message);
    }
}

static bool join(struct model *model, uint32_t slot)
{
    perhaps_no_memory();
    int error = fc_room_join(model->room, rooms_at(slot), slot);
    CHECK_EQ(error, was_no_memory() && error ? -ENOMEM : 0);
    if (!error) {
        model->member[slot] = true;
        model->next[slot] = model->room->given;
    }
    return !error;
}

static void leave(struct model *model, uint32_t slot)
{
    rooms_leave(model->room, slot);
    model->member[slot] = false;
}

static void open_client(void)
{
    uint32_t slot = rooms_client();
    if (slot >= SLOTS) {
        rooms_forget_client(slot);
        return;
    }
    rooms_at(slot)->state = FC_CLIENT_ASKED;
    present[slot] = true;
    if (random_below(5) > 0 && join(&models[0], slot))
        rooms_at(slot)->state = FC_CLIENT_OPEN;
}

static void close_client(uint32_t slot)
{
    for (unsigned i = ROOMS; i-- > 0;) {
        if (models[i].member[slot])
            leave(&models[i], slot);
    }
    rooms_forget_client(slot);
    present[slot] = false;
}

/* As a shard does before it serves a client out of turn: what the room still has for it is just what it lacks. */
static void catch_up(struct model *model, uint32_t slot)
{
    struct fc_room *room = model->room;
    uint64_t first_due = room->given - room->due_count;
    bool owed = fc_room_owes(room, rooms_at(slot), slot);
    uint32_t in_batch = 0;

    if (owed)
        in_batch =
            room->flush->frames - fc_room_missed(room, rooms_at(slot), slot, room->flush->first, room->flush->frames);
    uint32_t in_due = room->due_count - fc_room_missed(room, rooms_at(slot), slot, first_due, room->due_count);
    CHECK_EQ(in_batch + in_due, room->given - model->next[slot]);
    perhaps_no_memory();
    int error = fc_room_skip(room, rooms_at(slot), slot);
    CHECK_EQ(error, was_no_memory() && error ? -ENOMEM : 0);
    if (error)
        return;
    if (in_batch > 0 && room->flush->singly) {
        for (uint32_t i = room->flush->frames - in_batch; i < room->flush->frames; i++)
            deliver_message(model, slot, room->flush->singly[i]);
    } else if (in_batch > 0) {
        CHECK_EQ(in_batch, room->flush->frames);
        deliver_batch(model, slot);
    }
    for (uint32_t i = room->due_count - in_due; i < room->due_count; i++)
        deliver_message(model, slot, room->due[i]);
    CHECK_EQ(model->next[slot], room->given);
}

/* It isn't to get what there is so far. */
static void skip(struct model *model, uint32_t slot)
{
    perhaps_no_memory();
    int error = fc_room_skip(model->room, rooms_at(slot), slot);
    CHECK_EQ(error, was_no_memory() && error ? -ENOMEM : 0);
    if (!error)
        model->next[slot] = model->room->given;
}

static void begin(struct model *model)
{
    struct fc_room *room = model->room;
    uint32_t due = room->due_count;

    if (random_below(40) == 0) {
        size_t weight;
        CHECK_EQ(fc_room_drop_due(room, &weight), due);
        for (uint32_t slot = 0; slot < SLOTS; slot++)
            model->next[slot] = room->given;
        return;
    }
    perhaps_no_memory();
    int error = fc_room_begin(room, &rooms_clients);
    CHECK_EQ(error, was_no_memory() && error ? -ENOMEM : 0);
    CHECK_EQ(room->due_count + (error ? 0 : room->flush->frames), due);
    begun += !error;
}

static void end(struct model *model)
{
    struct fc_room *room = model->room;

    fc_room_end(room, &rooms_clients);
    uint64_t first_due = room->given - room->due_count;
    uint32_t late = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        if (!model->member[slot])
            continue;
        CHECK(model->next[slot] >= first_due); /* has got all of the batch */
        late += model->next[slot] > first_due;
    }
    CHECK_EQ(room->late.count, late);
}

static void step(struct model *model)
{
    struct fc_room *room = model->room;

    if (!room->flush) {
        if (room->due_count > 0)
            begin(model);
        return;
    }
    for (unsigned n = random_below(30); n > 0; n--) {
        uint32_t slot = fc_room_next(room, &rooms_clients);
        if (slot == FC_NO_SLOT) {
            end(model);
            return;
        }
        CHECK(model->member[slot]);
        deliver_from_batch(model, slot);
    }
}

static void happen(void)
{
    struct model *model = &models[random_below(ROOMS)];
    uint32_t slot = random_below(SLOTS);
    unsigned what = random_below(16);

    if (what < 4) {
        add_messages(model);
    } else if (what < 10) {
        step(model);
    } else if (what == 10) {
        open_client();
    } else if (!present[slot]) {
        return;
    } else if (what == 11) {
        if (random_below(3) == 0)
            close_client(slot);
        else if (models[0].member[slot])
            rooms_at(slot)->state = random_below(2) ? FC_CLIENT_OPEN : FC_CLIENT_LEAVING;
    } else if (what == 12 && model->member[slot] && model != &models[0]) {
        leave(model, slot);
    } else if (what <= 13 && !model->member[slot] && model != &models[0]) {
        join(model, slot);
    } else if (what == 14 && model->member[slot]) {
        catch_up(model, slot);
    } else if (what == 15 && model->member[slot]) {
        skip(model, slot);
    }
}

static void each_member_gets_what_comes_since_its_joining_once_and_in_order(void)
{
    seed = 13;
    delivered = begun = 0;
    rooms_open(SLOTS + 10);
    models[0] = (struct model){.room = rooms_make_everyone()};
    models[1] = (struct model){.room = rooms_make("first")};
    models[2] = (struct model){.room = rooms_make("second")};
    memset(present, 0, sizeof present);
    for (unsigned round = 0; round < ROUNDS; round++) {
        happen();
        for (unsigned i = 0; i < ROOMS; i++) {
            uint32_t members = 0;
            for (uint32_t slot = 0; slot < SLOTS; slot++)
                members += models[i].member[slot];
            CHECK_EQ(fc_room_size(models[i].room), members);
            rooms_check(models[i].room);
        }
    }
    for (unsigned i = 0; i < ROOMS; i++) { /* nothing is lost at the end */
        while (fc_room_busy(models[i].room))
            step(&models[i]);
        for (uint32_t slot = 0; slot < SLOTS; slot++)
            CHECK(!models[i].member[slot] || models[i].next[slot] == models[i].room->given);
    }
    CHECK(delivered > ROUNDS && begun > ROUNDS / 100);
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        if (present[slot])
            close_client(slot);
    }
    for (unsigned i = 0; i < ROOMS; i++)
        rooms_free(models[i].room, 0);
    rooms_close();
}

int main(void)
{
    RUN(each_member_gets_what_comes_since_its_joining_once_and_in_order);
    return 0;
}
