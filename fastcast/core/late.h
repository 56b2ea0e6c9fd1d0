/* The members of a room that are ahead of the others: a small hash table by slot. */
#ifndef FC_LATE_H
#define FC_LATE_H

#include <stdint.h>

/* Who isn't to get what the room was given before its message number `from`: because it joined later, or has had it
 * already. 0: nobody, since what the first message is number 0 of is due to all who are there. */
struct fc_late_entry {
    uint32_t slot;
    uint64_t from;
};

/* Zeroed, it is empty. */
struct fc_late {
    struct fc_late_entry *entries;
    uint32_t count;
    uint32_t capacity; /* a power of two, or 0 */
};

/* Adds the slot, or moves it on; `from` is above 0. 0 or -ENOMEM. */
int fc_late_put(struct fc_late *late, uint32_t slot, uint64_t from);

/* What the slot was put with; 0 if it wasn't. */
uint64_t fc_late_find(const struct fc_late *late, uint32_t slot);

void fc_late_remove(struct fc_late *late, uint32_t slot);

/* Forgets those with a `from` of `next` or less, and gives back memory. */
void fc_late_prune(struct fc_late *late, uint64_t next);

void fc_late_free(struct fc_late *late);

#endif
