/* A client's memberships: one in its slot, a thousand in its extra; the order, the home, and missing memory. */
#include "extra.h"

#include "check.h"
#include "faults.h"
#include "rooms.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void one_membership_takes_no_memory(void)
{
    rooms_open(10);
    struct fc_room *room = rooms_make("a");
    uint32_t slot = rooms_client();
    struct fc_client *client = rooms_at(slot);

    CHECK_EQ(fc_client_rooms(client), 0);
    CHECK(!fc_client_home(client) && !fc_client_position(client, room));
    long before = fault_live_blocks();
    CHECK_EQ(fc_client_add_room(client, room, 5), 0);
    CHECK_EQ(fault_live_blocks(), before);
    CHECK(!client->extended);
    CHECK_EQ(fc_client_rooms(client), 1);
    CHECK(fc_client_room(client, 0) == room && fc_client_home(client) == room->channel);
    CHECK_EQ(*fc_client_position(client, room), 5);
    fc_client_remove_room(client, room);
    CHECK_EQ(fc_client_rooms(client), 0);
    CHECK(!fc_client_home(client) && !fc_client_position(client, room));
    fc_client_free_extra(client, &rooms_channels); /* has none */
    rooms_free(room, 0);
    rooms_close();
}

static void a_second_membership_keeps_the_first(void)
{
    rooms_open(10);
    struct fc_room *rooms[] = {rooms_make("a"), rooms_make("b"), rooms_make("c")};
    struct fc_client *client = rooms_at(rooms_client());

    for (uint32_t i = 0; i < 3; i++)
        CHECK_EQ(fc_client_add_room(client, rooms[i], 10 + i), 0);
    CHECK(client->extended);
    CHECK_EQ(fc_client_rooms(client), 3);
    for (uint32_t i = 0; i < 3; i++)
        CHECK_EQ(*fc_client_position(client, rooms[i]), 10 + i);
    CHECK(fc_client_home(client) == rooms[0]->channel);
    for (uint32_t i = 0; i < 3; i++) {
        fc_client_remove_room(client, rooms[i]);
        CHECK(!fc_client_position(client, rooms[i]));
        CHECK_EQ(fc_client_rooms(client), 2 - i);
        rooms_free(rooms[i], 0);
    }
    rooms_close();
}

static void home_is_the_first_channel_also_after_the_client_has_left_it(void)
{
    rooms_open(10);
    struct fc_room *first = rooms_make("first");
    struct fc_room *second = rooms_make("second");
    struct fc_channel *home = first->channel;
    uint32_t slot = rooms_client();
    struct fc_client *client = rooms_at(slot);

    rooms_join(first, slot);
    CHECK_EQ(fc_client_extend(client), 0);
    CHECK_EQ(fc_client_extend(client), 0); /* has one */
    CHECK(fc_client_home(client) == home);
    CHECK_EQ(fc_client_rooms(client), 1);
    CHECK_EQ(*fc_client_position(client, first), 0);
    rooms_leave(first, slot);
    rooms_free(first, 0);
    CHECK(fc_client_home(client) == home);
    CHECK_BYTES(home->name, home->length, "first", 5); /* the client has a reference */
    CHECK_EQ(rooms_channels.count, 2);
    rooms_join(second, slot);
    CHECK(fc_client_home(client) == home);
    rooms_leave(second, slot);
    rooms_free(second, 0);
    CHECK_EQ(rooms_channels.count, 1);
    rooms_forget_client(slot);
    CHECK_EQ(rooms_channels.count, 0);
    rooms_close();
}

/* It has one for another reason than channels. */
static void who_has_an_extra_first_gets_a_home_with_its_first_channel(void)
{
    rooms_open(10);
    struct fc_room *rooms[] = {rooms_make("a"), rooms_make("b")};
    uint32_t slot = rooms_client();
    struct fc_client *client = rooms_at(slot);

    CHECK_EQ(fc_client_extend(client), 0);
    CHECK_EQ(fc_client_rooms(client), 0);
    CHECK(!fc_client_home(client) && !fc_client_position(client, rooms[0]));
    rooms_join(rooms[1], slot);
    CHECK(fc_client_home(client) == rooms[1]->channel);
    rooms_join(rooms[0], slot);
    CHECK(fc_client_home(client) == rooms[1]->channel);
    for (unsigned i = 0; i < 2; i++) {
        rooms_leave(rooms[i], slot);
        rooms_free(rooms[i], 0);
    }
    fc_client_free_extra(client, &rooms_channels);
    CHECK(!client->extended && !client->room && !fc_client_home(client));
    rooms_close();
}

/* ---- a thousand rooms ---- */

enum { ROOMS = 1000 };

static struct fc_room *rooms[ROOMS];

static void make_rooms(void)
{
    char name[16];

    for (unsigned i = 0; i < ROOMS; i++) {
        snprintf(name, sizeof name, "room.%u", i);
        rooms[i] = rooms_make(name);
    }
}

static void free_rooms(void)
{
    for (unsigned i = 0; i < ROOMS; i++)
        rooms_free(rooms[i], 0);
}

static void expect_memberships(struct fc_client *client, const bool *in, const uint32_t *positions)
{
    uint32_t count = 0;

    for (unsigned i = 0; i < ROOMS; i++) {
        const uint32_t *position = fc_client_position(client, rooms[i]);
        CHECK_EQ(position != NULL, in[i]);
        if (position)
            CHECK_EQ(*position, positions[i]);
        count += in[i];
    }
    CHECK_EQ(fc_client_rooms(client), count);
    for (uint32_t i = 1; i < count; i++)
        CHECK((uintptr_t)fc_client_room(client, i - 1) < (uintptr_t)fc_client_room(client, i));
}

static void a_thousand_rooms_of_a_client_stay_in_order(void)
{
    static bool in[ROOMS];
    static uint32_t positions[ROOMS];
    uint64_t seed = 11;

    memset(in, 0, sizeof in);
    rooms_open(10);
    make_rooms();
    struct fc_client *client = rooms_at(rooms_client());
    for (unsigned round = 0; round < 20000; round++) {
        unsigned i = (unsigned)(check_random(&seed) % ROOMS);
        bool wanted = round < 8000 || (round < 14000 && check_random(&seed) % 3 == 0);
        if (wanted && !in[i]) {
            positions[i] = (uint32_t)check_random(&seed);
            CHECK_EQ(fc_client_add_room(client, rooms[i], positions[i]), 0);
        } else if (!wanted && in[i]) {
            fc_client_remove_room(client, rooms[i]);
        } else if (in[i]) {
            positions[i] = (uint32_t)round; /* the room has moved it */
            *fc_client_position(client, rooms[i]) = positions[i];
        }
        in[i] = wanted;
        if (round % 100 == 0 || round > 19900)
            expect_memberships(client, in, positions);
    }
    for (unsigned i = 0; i < ROOMS; i++) {
        if (in[i])
            fc_client_remove_room(client, rooms[i]);
    }
    free_rooms();
    rooms_close();
}

static void rooms_that_move_their_members_find_the_clients_notes(void)
{
    enum { CLIENTS = 12 };
    uint64_t seed = 12;
    static bool in[ROOMS][CLIENTS];

    memset(in, 0, sizeof in);
    rooms_open(CLIENTS);
    make_rooms();
    for (uint32_t i = 0; i < CLIENTS; i++)
        CHECK_EQ(rooms_client(), i);
    for (unsigned round = 0; round < 30000; round++) {
        unsigned i = (unsigned)(check_random(&seed) % ROOMS);
        uint32_t slot = (uint32_t)(check_random(&seed) % CLIENTS);
        if (in[i][slot])
            rooms_leave(rooms[i], slot);
        else
            rooms_join(rooms[i], slot);
        in[i][slot] = !in[i][slot];
        rooms_check(rooms[i]);
    }
    for (unsigned i = 0; i < ROOMS; i++) {
        rooms_check(rooms[i]);
        for (uint32_t slot = 0; slot < CLIENTS; slot++) {
            CHECK_EQ(rooms_is_member(rooms[i], slot), in[i][slot]);
            if (in[i][slot])
                rooms_leave(rooms[i], slot);
        }
    }
    free_rooms();
    rooms_close();
}

/* ---- missing memory ---- */

static bool join_four(void)
{
    struct fc_client client = {.state = FC_CLIENT_OPEN};
    struct fc_room four[4] = {0};
    uint32_t joined = 0;

    for (uint32_t i = 0; i < 4; i++) {
        four[i].channel = fc_channels_find(&rooms_channels, "home", 4);
        unsigned before = four[i].channel->references;
        int error = fc_client_add_room(&client, &four[i], 7 + i);
        CHECK(error == 0 || error == -ENOMEM);
        CHECK_EQ(fc_client_rooms(&client), joined + !error);
        joined += !error;
        CHECK_EQ(fc_client_position(&client, &four[i]) != NULL, !error);
        for (uint32_t k = 0; k <= i; k++) {
            const uint32_t *position = fc_client_position(&client, &four[k]);
            CHECK(!position || *position == 7 + k);
        }
        CHECK(fc_client_home(&client) == four[0].channel);
        CHECK(four[0].channel->references <= before + 1);
    }
    for (uint32_t i = 0; i < 4; i++) {
        if (fc_client_position(&client, &four[i]))
            fc_client_remove_room(&client, &four[i]);
    }
    fc_client_free_extra(&client, &rooms_channels);
    for (uint32_t i = 0; i < 4; i++)
        fc_channel_unref(&rooms_channels, four[i].channel);
    return joined == 4;
}

static void missing_memory_leaves_memberships_as_they_were(void)
{
    rooms_open(10);
    struct fc_channel *home = fc_channels_get(&rooms_channels, "home", 4);
    CHECK_EQ(check_each_allocation(join_four), 3); /* the extra; its array, which grows once */
    CHECK_EQ(home->references, 1);
    fc_channel_unref(&rooms_channels, home);
    rooms_close();
}

int main(void)
{
    RUN(one_membership_takes_no_memory);
    RUN(a_second_membership_keeps_the_first);
    RUN(home_is_the_first_channel_also_after_the_client_has_left_it);
    RUN(who_has_an_extra_first_gets_a_home_with_its_first_channel);
    RUN(a_thousand_rooms_of_a_client_stay_in_order);
    RUN(rooms_that_move_their_members_find_the_clients_notes);
    RUN(missing_memory_leaves_memberships_as_they_were);
    return 0;
}
