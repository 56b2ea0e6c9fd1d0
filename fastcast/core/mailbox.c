/* One mailbox for each shard: a mutex, a growing array, an eventfd.
 *
 * The array is swapped out whole, so that the lock is held for moments only and a burst costs one wake-up.
 * The eventfd is written only for a shard that has said it's going to wait; it is watched edge-triggered, so
 * that it never needs to be read. Belongs to the hub: it outlives the shard's thread.
 */
#include "mailbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

void fc_mailbox_init(struct fc_mailbox *mailbox, int wake, size_t limit)
{
    *mailbox = (struct fc_mailbox){.wake = wake, .limit = limit};
    pthread_mutex_init(&mailbox->lock, NULL);
}

void fc_mailbox_destroy(struct fc_mailbox *mailbox)
{
    if (mailbox->wake >= 0)
        close(mailbox->wake);
    free(mailbox->commands);
    pthread_mutex_destroy(&mailbox->lock);
}

static int reserve(struct fc_mailbox *mailbox, uint32_t n)
{
    uint32_t capacity = mailbox->capacity ? mailbox->capacity : 64;

    if (mailbox->count + n <= mailbox->capacity)
        return 0;
    while (capacity < mailbox->count + n)
        capacity *= 2;
    struct fc_command *grown = realloc(mailbox->commands, capacity * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    mailbox->commands = grown;
    mailbox->capacity = capacity;
    return 0;
}

static int rouse(struct fc_mailbox *mailbox)
{
    bool asleep = mailbox->asleep;

    mailbox->asleep = false;
    return asleep ? FC_MAILBOX_WAKE : 0;
}

int fc_mailbox_put(struct fc_mailbox *mailbox, const struct fc_command *commands, uint32_t n, size_t bytes)
{
    pthread_mutex_lock(&mailbox->lock);
    int flags = reserve(mailbox, n);
    if (flags == 0) {
        memcpy(mailbox->commands + mailbox->count, commands, n * sizeof *commands);
        mailbox->count += n;
        mailbox->backlog += bytes;
        flags = rouse(mailbox);
        if (!mailbox->full && mailbox->backlog > mailbox->limit) {
            mailbox->full = true;
            flags |= FC_MAILBOX_FILLED;
        }
    }
    pthread_mutex_unlock(&mailbox->lock);
    return flags;
}

uint32_t fc_mailbox_take(struct fc_mailbox *mailbox, struct fc_command **commands, uint32_t *capacity)
{
    pthread_mutex_lock(&mailbox->lock);
    uint32_t count = mailbox->count;
    struct fc_command *taken = mailbox->commands;
    uint32_t taken_capacity = mailbox->capacity;
    mailbox->asleep = false;
    if (count > 0) {
        mailbox->commands = *commands;
        mailbox->capacity = *capacity;
        mailbox->count = 0;
        *commands = taken;
        *capacity = taken_capacity;
    }
    pthread_mutex_unlock(&mailbox->lock);
    return count;
}

bool fc_mailbox_sleep(struct fc_mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->lock);
    mailbox->asleep = mailbox->count == 0;
    bool asleep = mailbox->asleep;
    pthread_mutex_unlock(&mailbox->lock);
    return asleep;
}

int fc_mailbox_settle(struct fc_mailbox *mailbox, size_t bytes)
{
    int flags = 0;

    pthread_mutex_lock(&mailbox->lock);
    mailbox->backlog -= bytes;
    if (mailbox->full && mailbox->backlog <= mailbox->limit / 2) {
        mailbox->full = false;
        flags = FC_MAILBOX_DRAINED;
    }
    pthread_mutex_unlock(&mailbox->lock);
    return flags;
}

int fc_mailbox_rouse(struct fc_mailbox *mailbox)
{
    pthread_mutex_lock(&mailbox->lock);
    int flags = rouse(mailbox);
    pthread_mutex_unlock(&mailbox->lock);
    return flags;
}

void fc_mailbox_signal(const struct fc_mailbox *mailbox)
{
    /* EAGAIN can only mean that the counter is at its maximum, and then the eventfd is readable as it is. */
    while (eventfd_write(mailbox->wake, 1) && errno == EINTR)
        continue;
}
