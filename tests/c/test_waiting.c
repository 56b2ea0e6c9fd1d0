/* The list of clients whose requests wait: the newest in front, whoever else leaves. */
#include "waiting.h"

#include "check.h"

enum { SLOTS = 3000 };

static struct fc_clients clients;
static struct fc_waiting waiting;

static void open_list(void)
{
    CHECK_EQ(fc_clients_init(&clients, SLOTS), 0);
    fc_waiting_init(&waiting);
}

static uint32_t arrive(void)
{
    uint32_t slot;
    struct fc_client *client = fc_clients_take(&clients, &slot);

    CHECK(client);
    client->state = FC_CLIENT_HEAD;
    fc_waiting_add(&waiting, &clients, slot);
    CHECK(client->ready);
    CHECK_EQ(waiting.newest, slot);
    return slot;
}

static void depart(uint32_t slot)
{
    fc_waiting_remove(&waiting, &clients, slot);
    CHECK(!fc_clients_at(&clients, slot)->ready);
    CHECK(!fc_clients_at(&clients, slot)->room);
    fc_clients_give(&clients, slot);
}

static void close_list(void)
{
    CHECK_EQ(waiting.newest, FC_NO_SLOT);
    CHECK_EQ(waiting.count, 0);
    fc_clients_destroy(&clients);
}

static void the_newest_comes_first(void)
{
    uint32_t slots[SLOTS];

    open_list();
    for (unsigned i = 0; i < SLOTS; i++)
        slots[i] = arrive();
    CHECK_EQ(waiting.count, SLOTS);
    for (unsigned i = SLOTS; i-- > 0;) {
        CHECK_EQ(waiting.newest, slots[i]);
        depart(slots[i]);
    }
    close_list();
}

/* Against a plain array, in which every removal is a shift. */
static void anyone_may_leave_from_anywhere(void)
{
    uint32_t model[SLOTS];
    uint32_t n = 0;
    uint64_t seed = 3;

    open_list();
    for (unsigned round = 0; round < 20000; round++) {
        if (n < SLOTS && (n == 0 || check_random(&seed) % 2 == 0)) {
            model[n++] = arrive();
        } else {
            uint32_t place = (uint32_t)(check_random(&seed) % n);
            depart(model[place]);
            n--;
            for (uint32_t i = place; i < n; i++)
                model[i] = model[i + 1];
        }
        CHECK_EQ(waiting.count, n);
        CHECK_EQ(waiting.newest, n > 0 ? model[n - 1] : FC_NO_SLOT);
    }
    while (n > 0)
        depart(model[--n]);
    close_list();
}

int main(void)
{
    RUN(the_newest_comes_first);
    RUN(anyone_may_leave_from_anywhere);
    return 0;
}
