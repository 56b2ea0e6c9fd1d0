/* Linear probing, at most half full. Who is taken out leaves no mark: what follows moves up, so that searches stay short
 * though everybody comes and goes. A room has entries only while something is on its way to its members, and may then
 * have as many as members: nothing here may cost their number for each of them. */
#include "late.h"

#include <errno.h>
#include <stdlib.h>

#define LEAST 8
#define KEPT 64 /* as large as this, a table stays when it's empty */

/* Where the search for a slot begins. Slots are our own numbers: they need to be spread, not to be kept secret. */
static uint32_t home(const struct fc_late *late, uint32_t slot)
{
    uint64_t spread = slot * UINT64_C(0x9E3779B97F4A7C15);

    return (uint32_t)(spread >> 32) & (late->capacity - 1);
}

static uint32_t after(const struct fc_late *late, uint32_t i)
{
    return (i + 1) & (late->capacity - 1);
}

/* The slot's place, or the free one where it belongs. */
static uint32_t place(const struct fc_late *late, uint32_t slot)
{
    uint32_t i = home(late, slot);

    while (late->entries[i].from > 0 && late->entries[i].slot != slot)
        i = after(late, i);
    return i;
}

static int resize(struct fc_late *late, uint32_t capacity)
{
    struct fc_late resized = {.capacity = capacity, .count = late->count};

    resized.entries = calloc(capacity, sizeof *resized.entries);
    if (!resized.entries)
        return -ENOMEM;
    for (uint32_t i = 0; i < late->capacity; i++) {
        if (late->entries[i].from > 0)
            resized.entries[place(&resized, late->entries[i].slot)] = late->entries[i];
    }
    free(late->entries);
    *late = resized;
    return 0;
}

int fc_late_put(struct fc_late *late, uint32_t slot, uint64_t from)
{
    if (late->capacity == 0 && resize(late, LEAST))
        return -ENOMEM;
    uint32_t i = place(late, slot);
    if (late->entries[i].from == 0) {
        if (2 * (late->count + 1) > late->capacity) {
            if (resize(late, 2 * late->capacity))
                return -ENOMEM;
            i = place(late, slot);
        }
        late->count++;
    } else if (late->entries[i].from > from) {
        return 0; /* who isn't to get some that are yet to come stays so */
    }
    late->entries[i] = (struct fc_late_entry){slot, from};
    return 0;
}

uint64_t fc_late_find(const struct fc_late *late, uint32_t slot)
{
    return late->count > 0 ? late->entries[place(late, slot)].from : 0;
}

/* Takes out what is at the place. Who follows moves up unless it would come to stand before its home. */
static void take_out(struct fc_late *late, uint32_t hole)
{
    uint32_t mask = late->capacity - 1;

    for (uint32_t i = after(late, hole); late->entries[i].from > 0; i = after(late, i)) {
        uint32_t from_home = (i - home(late, late->entries[i].slot)) & mask;
        uint32_t from_hole = (i - hole) & mask;
        if (from_home >= from_hole) {
            late->entries[hole] = late->entries[i];
            hole = i;
        }
    }
    late->entries[hole].from = 0;
    late->count--;
}

void fc_late_remove(struct fc_late *late, uint32_t slot)
{
    if (late->count == 0)
        return;
    uint32_t i = place(late, slot);
    if (late->entries[i].from > 0)
        take_out(late, i);
}

void fc_late_prune(struct fc_late *late, uint64_t next)
{
    for (uint32_t i = 0; i < late->capacity && late->count > 0;) {
        /* Another one may move to the place: it's looked at next. */
        if (late->entries[i].from > 0 && late->entries[i].from <= next)
            take_out(late, i);
        else
            i++;
    }
    if (late->capacity <= KEPT || late->count > late->capacity / 8)
        return;
    if (late->count == 0)
        fc_late_free(late);
    else
        (void)resize(late, late->capacity / 4); /* without memory it stays as it is */
}

void fc_late_free(struct fc_late *late)
{
    free(late->entries);
    *late = (struct fc_late){0};
}
