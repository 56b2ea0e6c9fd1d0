/* Rings of messages, one for each record.
 *
 * Invariant: what came after `floor` is in the ring, all of it. What can't be kept, for want of memory or because of the
 * limit, raises the floor: a client from before it is told of a gap, and never gets less than it was promised.
 */
#include "history.h"

#include "clock.h"
#include "topic.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MARK '\x1e' /* RS: no text that people write begins with it */
#define SOME 256

void fc_histories_init(struct fc_histories *histories, size_t limit, const struct fc_rule *rules, unsigned rule_count)
{
    histories->limit = limit;
    histories->least_time = UINT64_MAX;
    for (unsigned i = 0; i < rule_count; i++) {
        if (rules[i].keep_time > 0 && rules[i].keep_time < histories->least_time)
            histories->least_time = rules[i].keep_time;
    }
    pthread_mutex_init(&histories->lock, NULL);
}

void fc_histories_destroy(struct fc_histories *histories)
{
    pthread_mutex_destroy(&histories->lock);
}

/* ---- epochs ---- */

static void new_epoch(struct fc_history *history)
{
    static atomic_ullong made;
    uint64_t random;
    char digits[17];

    /* Without entropy, early at boot, the time must do, and that it's the n-th. */
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
        random = fc_clock_ms() * UINT64_C(0x9E3779B97F4A7C15) + atomic_fetch_add(&made, 1);
    snprintf(digits, sizeof digits, "%016" PRIx64, random);
    memcpy(history->epoch, digits, FC_EPOCH_SIZE);
    history->last = 0;
    history->floor = 0;
}

struct fc_history *fc_history_new(struct fc_channel *record, unsigned shards, const struct fc_rule *rule,
                                  uint8_t its_messages)
{
    struct fc_history *history = calloc(1, sizeof *history);

    if (!history)
        return NULL;
    history->record = record;
    history->weight = sizeof *record + record->length + shards * sizeof *record->seats + sizeof *history;
    history->rule = its_messages;
    history->most = rule->keep_messages ? rule->keep_messages : UINT64_MAX;
    history->time = rule->keep_time ? rule->keep_time : UINT64_MAX;
    new_epoch(history);
    return history;
}

void fc_history_free(struct fc_history *history)
{
    if (!history)
        return;
    free(history->ring);
    free(history);
}

/* ---- the lines ---- */

static void take_out(struct fc_histories *histories, struct fc_history *history)
{
    struct fc_history_line *line = history->line;

    if (!line)
        return;
    if (history->newer)
        history->newer->older = history->older;
    else
        line->newest = history->older;
    if (history->older)
        history->older->newer = history->newer;
    else
        line->oldest = history->newer;
    history->newer = history->older = NULL;
    history->line = NULL;
    histories->count--;
    if (line == &histories->giving)
        histories->weight -= history->weight;
}

/* Under the record's lock, which says what is in it. */
static struct fc_history_line *line_for(struct fc_histories *histories, const struct fc_history *history)
{
    return history->led && history->count == 0 ? &histories->bare : &histories->giving;
}

static void put_first(struct fc_histories *histories, struct fc_history_line *line, struct fc_history *history)
{
    history->line = line;
    history->older = line->newest;
    if (line->newest)
        line->newest->newer = history;
    else
        line->oldest = history;
    line->newest = history;
    histories->count++;
    if (line == &histories->giving)
        histories->weight += history->weight;
}

/* Puts it in front. The first time that takes a reference. */
static void enlist(struct fc_histories *histories, struct fc_history *history, uint64_t now)
{
    pthread_mutex_lock(&histories->lock);
    if (history->line)
        take_out(histories, history);
    else
        fc_channel_ref(history->record);
    history->at = now;
    put_first(histories, line_for(histories, history), history);
    pthread_mutex_unlock(&histories->lock);
}

/* Takes it out of its line if it's empty. True: the reference is the caller's to give back, outside of the lock. */
static bool unlist_if_empty(struct fc_histories *histories, struct fc_history *history)
{
    if (history->count > 0)
        return false;
    pthread_mutex_lock(&histories->lock);
    bool was_listed = history->line != NULL;
    take_out(histories, history);
    if (was_listed && history->led)
        put_first(histories, line_for(histories, history), history);
    bool unlisted = was_listed && !history->led;
    pthread_mutex_unlock(&histories->lock);
    return unlisted;
}

/* ---- the ring ---- */

static struct fc_kept *at(const struct fc_history *history, uint32_t i)
{
    return &history->ring[(history->first + i) & (history->capacity - 1)];
}

static void drop_oldest(struct fc_histories *histories, struct fc_history *history, uint32_t n)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct fc_kept *kept = at(history, i);
        bytes += fc_message_footprint(kept->message);
        history->floor = kept->offset;
        fc_message_unref(kept->message);
    }
    history->count -= n;
    history->first = history->count > 0 ? (history->first + n) & (history->capacity - 1) : 0;
    if (history->count == 0) {
        history->floor = history->last;
        free(history->ring);
        history->ring = NULL;
        history->capacity = 0;
    }
    /* Relaxed, here and elsewhere: a limit that is held in the end, and gauges. */
    atomic_fetch_sub_explicit(&histories->messages, n, memory_order_relaxed);
    atomic_fetch_sub_explicit(&histories->bytes, bytes, memory_order_relaxed);
}

/* Times are read before locks are taken, and may come in another order. */
static bool is_past(uint64_t since, uint64_t time, uint64_t now)
{
    return now > since && now - since > time;
}

/* Drops what the rule keeps no longer. */
static void prune(struct fc_histories *histories, struct fc_history *history, uint64_t now)
{
    uint32_t n = 0;

    if (history->count > history->most)
        n = (uint32_t)(history->count - history->most);
    while (n < history->count && is_past(at(history, n)->at, history->time, now))
        n++;
    if (n > 0)
        drop_oldest(histories, history, n);
}

static int grow(struct fc_history *history)
{
    uint32_t capacity = history->capacity ? 2 * history->capacity : 8;
    struct fc_kept *ring = malloc(capacity * sizeof *ring);

    if (!ring)
        return -ENOMEM;
    for (uint32_t i = 0; i < history->count; i++)
        ring[i] = *at(history, i);
    free(history->ring);
    history->ring = ring;
    history->first = 0;
    history->capacity = capacity;
    return 0;
}

/* ---- messages ---- */

/* A line can't hold a line's end: control characters, and what announces them, stand as %XX. */
static size_t write_name(uint8_t *out, const struct fc_channel *record)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;

    for (size_t i = 0; i < record->length; i++) {
        uint8_t byte = (uint8_t)record->name[i];
        if (byte >= ' ' && byte != 0x7F && byte != '%') {
            out[n++] = byte;
            continue;
        }
        out[n++] = '%';
        out[n++] = (uint8_t)digits[byte >> 4];
        out[n++] = (uint8_t)digits[byte & 15];
    }
    return n;
}

#define HEAD_MAX (8 + FC_EPOCH_SIZE + 20 + 3 * FC_TOPIC_MAX)

static size_t write_head(uint8_t *out, const char *what, const char *epoch, uint64_t offset,
                         const struct fc_channel *record)
{
    size_t n = (size_t)sprintf((char *)out, "%c%s %.*s:%" PRIu64 " ", MARK, what, FC_EPOCH_SIZE, epoch, offset);

    n += write_name(out + n, record);
    out[n++] = '\n';
    return n;
}

static struct fc_message *with_head(struct fc_histories *histories, const struct fc_history *history,
                                    struct fc_message *message, uint64_t offset)
{
    uint8_t head[HEAD_MAX];
    size_t n = write_head(head, "msg", history->epoch, offset, history->record);
    size_t length = message->start + message->size - FC_FRAME_HEADER_MAX;
    struct fc_message *made = fc_message_new(&histories->account, n + length);

    if (!made)
        return NULL;
    memcpy(fc_message_payload(made), head, n);
    if (length > 0)
        memcpy(fc_message_payload(made) + n, fc_message_payload(message), length);
    fc_message_seal(made, fc_message_wire(message)[0] & 0x0F, n + length);
    made->rule = history->rule;
    return made;
}

static void keep(struct fc_histories *histories, struct fc_history *history, struct fc_message *message, uint64_t offset,
                 uint64_t now)
{
    if (history->count == history->capacity && grow(history)) {
        drop_oldest(histories, history, history->count);
        history->floor = offset;
        return;
    }
    history->count++;
    *at(history, history->count - 1) = (struct fc_kept){fc_message_ref(message), offset, now};
    atomic_fetch_add_explicit(&histories->messages, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&histories->bytes, fc_message_footprint(message), memory_order_relaxed);
}

int fc_history_append(struct fc_histories *histories, struct fc_history *history, struct fc_message *const *messages,
                      unsigned n, uint64_t offset, uint64_t now, struct fc_message **made)
{
    bool keeps = !history->led || offset > history->last;
    uint64_t first = history->led ? (keeps ? offset : history->last) : history->last + 1;

    if (keeps)
        history->last = first + n - 1;
    for (unsigned i = 0; i < n; i++) {
        made[i] = with_head(histories, history, messages[i], keeps ? first + i : first);
        if (made[i])
            continue;
        while (i > 0)
            fc_message_unref(made[--i]);
        if (keeps) {
            drop_oldest(histories, history, history->count);
            history->floor = history->last;
        }
        return -ENOMEM;
    }
    for (unsigned i = 0; keeps && i < n; i++)
        keep(histories, history, made[i], first + i, now);
    if (history->count > 0) {
        prune(histories, history, now);
        enlist(histories, history, now);
    }
    return 0;
}

/* The first place whose offset is greater. */
static uint32_t place_after(const struct fc_history *history, uint64_t offset)
{
    uint32_t low = 0;
    uint32_t high = history->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (at(history, middle)->offset > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Whether the client's place is known; then it's *offset. */
static bool find_place(const struct fc_history *history, const struct fc_since *since, uint64_t *offset)
{
    switch (since->from) {
    case FC_RESUME_ALL:
        *offset = history->floor;
        return true;
    case FC_RESUME_SINCE:
        for (size_t i = 0; i < since->count; i++) {
            *offset = since->positions[i].offset;
            if (!memcmp(since->positions[i].epoch, history->epoch, FC_EPOCH_SIZE) && *offset <= history->last)
                return *offset >= history->floor;
        }
        return false;
    default:
        *offset = history->last;
        return true;
    }
}

int fc_history_replay(struct fc_histories *histories, struct fc_history *history, const struct fc_since *since,
                      uint64_t now, struct fc_replay *replay)
{
    *replay = (struct fc_replay){0};
    enlist(histories, history, now);
    prune(histories, history, now);
    if (since->from == FC_RESUME_HERE) { /* whatever has become of it since */
        memcpy(replay->epoch, since->positions->epoch, FC_EPOCH_SIZE);
        replay->offset = replay->end = since->positions->offset;
        return 0;
    }
    replay->gap = !find_place(history, since, &replay->offset);
    if (replay->gap)
        replay->offset = history->floor;
    memcpy(replay->epoch, history->epoch, FC_EPOCH_SIZE);
    replay->end = replay->offset;
    uint32_t next = place_after(history, replay->offset);
    uint32_t most = history->count - next < FC_REPLAY_MESSAGES ? history->count - next : FC_REPLAY_MESSAGES;
    if (most == 0)
        return 0;
    replay->messages = malloc(most * sizeof(struct fc_message *));
    if (!replay->messages)
        return -ENOMEM;
    for (size_t bytes = 0; replay->count < most && bytes < FC_REPLAY_BYTES; next++) {
        const struct fc_kept *kept = at(history, next);
        replay->messages[replay->count++] = fc_message_ref(kept->message);
        replay->end = kept->offset;
        bytes += kept->message->size;
    }
    replay->more = next < history->count;
    return 0;
}

struct fc_message *fc_history_notice(struct fc_histories *histories, const struct fc_channel *record,
                                     const struct fc_replay *replay)
{
    uint8_t head[HEAD_MAX];
    size_t n = write_head(head, replay->gap ? "gap" : "at", replay->epoch, replay->offset, record);
    struct fc_message *message = fc_message_new(&histories->account, n);

    if (!message)
        return NULL;
    memcpy(fc_message_payload(message), head, n);
    fc_message_seal(message, FC_OP_TEXT, n);
    message->frames = 0;
    return message;
}

struct fc_position fc_history_position(const struct fc_history *history)
{
    struct fc_position position = {.offset = history->last};

    memcpy(position.epoch, history->epoch, FC_EPOCH_SIZE);
    return position;
}

void fc_history_touch(struct fc_histories *histories, struct fc_history *history, uint64_t now)
{
    enlist(histories, history, now);
}

/* ---- led from outside ---- */

void fc_history_lead(struct fc_histories *histories, struct fc_history *history, const struct fc_position *position)
{
    if (history->count > 0)
        drop_oldest(histories, history, history->count);
    memcpy(history->epoch, position->epoch, FC_EPOCH_SIZE);
    history->last = history->floor = position->offset;
    history->led = true;
    enlist(histories, history, fc_clock_ms());
}

struct fc_message *fc_history_skip(struct fc_histories *histories, struct fc_history *history, uint64_t offset)
{
    struct fc_replay gap = {.gap = true, .offset = offset};

    if (history->count > 0)
        drop_oldest(histories, history, history->count);
    if (offset > history->last)
        history->last = offset;
    history->floor = history->last;
    (void)unlist_if_empty(histories, history); /* it's led, and so only comes into the other line */
    gap.offset = history->last;
    memcpy(gap.epoch, history->epoch, FC_EPOCH_SIZE);
    struct fc_message *notice = fc_history_notice(histories, history->record, &gap);
    if (notice) {
        notice->frames = 1; /* it goes the way of messages, where each is counted */
        notice->rule = history->rule;
    }
    return notice;
}

void fc_history_release(struct fc_histories *histories, struct fc_channels *channels, struct fc_history *history)
{
    struct fc_channel *record = history->record;

    pthread_mutex_lock(&record->lock);
    if (history->count > 0)
        drop_oldest(histories, history, history->count);
    history->led = false;
    new_epoch(history);
    bool unlisted = unlist_if_empty(histories, history);
    pthread_mutex_unlock(&record->lock);
    if (unlisted)
        fc_channel_unref(channels, record);
}

/* ---- limits ---- */

/* Drops the older half, or what is out of time, and then takes it out if it's empty. Takes over the reference. */
static void shorten(struct fc_histories *histories, struct fc_channels *channels, struct fc_channel *record, bool by_half,
                    uint64_t now)
{
    struct fc_history *history = record->history;

    pthread_mutex_lock(&record->lock);
    if (by_half && history->count > 0)
        drop_oldest(histories, history, (history->count + 1) / 2);
    else if (!by_half)
        prune(histories, history, now);
    bool unlisted = unlist_if_empty(histories, history);
    pthread_mutex_unlock(&record->lock);
    if (unlisted)
        fc_channel_unref(channels, record);
    fc_channel_unref(channels, record);
}

/* Who was quiet for longest, with a reference to its record, if there's too much of all. */
static struct fc_channel *quietest(struct fc_histories *histories)
{
    struct fc_channel *record = NULL;

    pthread_mutex_lock(&histories->lock);
    size_t bytes = atomic_load_explicit(&histories->bytes, memory_order_relaxed);
    if (histories->giving.oldest && bytes + histories->weight > histories->limit)
        record = fc_channel_ref(histories->giving.oldest->record);
    pthread_mutex_unlock(&histories->lock);
    return record;
}

void fc_histories_trim(struct fc_histories *histories, struct fc_channels *channels)
{
    struct fc_channel *record;

    while (channels->keeps && (record = quietest(histories)))
        shorten(histories, channels, record, true, 0);
}

/* Some where nothing was heard for longer than they keep it. */
static unsigned find_expired(struct fc_histories *histories, uint64_t now, struct fc_channel **expired)
{
    struct fc_history *newer;
    unsigned n = 0;

    pthread_mutex_lock(&histories->lock);
    for (struct fc_history *history = histories->giving.oldest; history && n < SOME; history = newer) {
        newer = history->newer;
        if (!is_past(history->at, histories->least_time, now))
            break; /* nor are those that were heard of later */
        if (!is_past(history->at, history->time, now))
            continue;
        take_out(histories, history); /* to the other end, so that it's found once */
        history->at = now;
        put_first(histories, &histories->giving, history);
        expired[n++] = fc_channel_ref(history->record);
    }
    pthread_mutex_unlock(&histories->lock);
    return n;
}

void fc_histories_expire(struct fc_histories *histories, struct fc_channels *channels, uint64_t now)
{
    struct fc_channel *expired[SOME];
    unsigned n;

    if (!channels->keeps)
        return;
    do {
        n = find_expired(histories, now, expired);
        for (unsigned i = 0; i < n; i++)
            shorten(histories, channels, expired[i], false, now);
    } while (n == SOME);
}

/* One that is listed, with a reference to its record. */
static struct fc_channel *any_listed(struct fc_histories *histories)
{
    struct fc_channel *record = NULL;

    pthread_mutex_lock(&histories->lock);
    struct fc_history *history = histories->bare.oldest ? histories->bare.oldest : histories->giving.oldest;
    if (history)
        record = fc_channel_ref(history->record);
    pthread_mutex_unlock(&histories->lock);
    return record;
}

void fc_histories_clear(struct fc_histories *histories, struct fc_channels *channels)
{
    struct fc_channel *record;

    while ((record = any_listed(histories))) {
        fc_history_release(histories, channels, record->history);
        fc_channel_unref(channels, record);
    }
}

int fc_histories_release(struct fc_histories *histories, struct fc_channels *channels)
{
    struct fc_channel **all;
    size_t count;
    int error = fc_channels_all(channels, &all, &count);

    for (size_t i = 0; i < count; i++) {
        if (all[i]->history)
            fc_history_release(histories, channels, all[i]->history);
        fc_channel_unref(channels, all[i]);
    }
    free(all);
    return error;
}
