/* The queue of a lagging client against a model that is a plain list: after each step the same bytes wait, as many
 * frames, and the same has become of each channel's messages. */
#include "queue.h"

#include "check.h"
#include "queues.h"

#include <stdlib.h>
#include <string.h>

struct item {
    struct fc_message *message;
    unsigned subject; /* QUEUES_SUBJECTS: for this client alone */
    bool is_pong;
    char key; /* 0: none */
};

struct model {
    struct item items[64];
    unsigned count;
    size_t offset;
    uint64_t frames;
    uint64_t ended[QUEUES_SUBJECTS + 1][FC_FATES];
};

static void insert(struct model *model, unsigned place, struct item item)
{
    memmove(model->items + place + 1, model->items + place, (model->count - place) * sizeof *model->items);
    model->items[place] = item;
    model->count++;
    model->frames += item.message->frames;
}

static void end(struct model *model, unsigned place, enum fc_fate fate, uint64_t frames)
{
    model->ended[model->items[place].subject][fate] += frames;
    model->frames -= frames;
}

static void take_out(struct model *model, unsigned place)
{
    fc_message_unref(model->items[place].message);
    model->count--;
    memmove(model->items + place, model->items + place + 1, (model->count - place) * sizeof *model->items);
}

/* What comes later waits behind it: it is begun, or may be the response to the handshake. */
static unsigned staying(const struct model *model)
{
    return model->count > 0 && (model->offset > 0 || model->items[0].message->frames == 0) ? 1 : 0;
}

/* No policy touches what comes before. */
static unsigned unbegun(const struct model *model)
{
    return model->offset > 0 ? 1 : 0;
}

static void model_pong(struct model *model, struct fc_message *message)
{
    for (unsigned place = unbegun(model); place < 2 && place < model->count; place++) {
        if (model->items[place].is_pong) {
            take_out(model, place);
            insert(model, place, (struct item){message, QUEUES_SUBJECTS, true, 0});
            return;
        }
    }
    insert(model, staying(model), (struct item){message, QUEUES_SUBJECTS, true, 0});
}

static bool model_replace(struct model *model, struct item item)
{
    for (unsigned place = unbegun(model); place < model->count; place++) {
        if (model->items[place].key != item.key || item.key == 0)
            continue;
        end(model, place, FC_DROPPED, 1);
        take_out(model, place);
        insert(model, place, item);
        return true;
    }
    return false;
}

static uint64_t model_drop_oldest(struct model *model, uint8_t number_of_rule)
{
    for (unsigned place = unbegun(model); place < model->count; place++) {
        uint64_t frames = model->items[place].message->frames;
        if (frames == 0 || model->items[place].message->rule != number_of_rule)
            continue;
        end(model, place, FC_DROPPED, frames);
        take_out(model, place);
        return frames;
    }
    return 0;
}

static unsigned frames_in(const struct fc_message *message, size_t n)
{
    return message->frames ? fc_frame_count(fc_message_wire(message), n) : 0;
}

static uint64_t model_wrote(struct model *model, size_t n)
{
    uint64_t completed = 0;

    for (; n > 0; n--) {
        const struct fc_message *message = model->items[0].message;
        unsigned before = frames_in(message, model->offset);
        unsigned now = frames_in(message, ++model->offset) - before;
        completed += now;
        end(model, 0, FC_DELIVERED, now);
        if (model->offset == message->size) {
            take_out(model, 0);
            model->offset = 0;
        }
    }
    return completed;
}

static uint64_t model_drop_from(struct model *model, unsigned keep)
{
    uint64_t total = 0;

    for (; model->count > keep; take_out(model, model->count - 1)) {
        const struct fc_message *last = model->items[model->count - 1].message;
        uint64_t frames = last->frames - (model->count == 1 ? frames_in(last, model->offset) : 0);
        end(model, model->count - 1, FC_GONE, frames);
        total += frames;
    }
    return total;
}

/* One frame, perhaps with a key, or several joined. */
static struct item random_item(uint64_t *seed)
{
    uint8_t payload[40];
    struct fc_message *parts[4];
    unsigned n = check_random(seed) % 3 ? 1 : 1 + (unsigned)(check_random(seed) % 4);
    struct item item = {.subject = (unsigned)(check_random(seed) % (QUEUES_SUBJECTS + 1))};

    for (unsigned i = 0; i < n; i++) {
        memset(payload, (int)(check_random(seed) % 256), sizeof payload);
        parts[i] = fc_message_frame(&queues_account, FC_OP_BINARY, payload, check_random(seed) % sizeof payload);
        parts[i]->rule = (uint8_t)(check_random(seed) % 3);
    }
    if (n == 1) {
        item.message = parts[0];
        item.key = (char)(check_random(seed) % 5);
        if (item.key)
            item.message = fc_message_set_key(item.message, (struct fc_span){"n", 1}, (struct fc_span){&item.key, 1});
        return item;
    }
    item.message = fc_message_join(&queues_account, parts, n);
    for (unsigned i = 0; i < n; i++)
        fc_message_unref(parts[i]);
    return item;
}

static void expect_like(const struct fc_queue *queue, const struct model *model)
{
    size_t n = 0;
    struct iovec vectors[64];
    unsigned count = fc_queue_gather(queue, vectors, 64);

    CHECK_EQ(count, model->count);
    for (unsigned i = 0; i < model->count; i++) {
        size_t skip = i == 0 ? model->offset : 0;
        const struct fc_message *message = model->items[i].message;
        CHECK_BYTES(vectors[i].iov_base, vectors[i].iov_len, fc_message_wire(message) + skip, message->size - skip);
        n += vectors[i].iov_len;
    }
    CHECK_EQ(queue->bytes, n);
    CHECK_EQ(queue->frames, model->frames);
    CHECK_BYTES(queues_ended, sizeof queues_ended, model->ended, sizeof queues_ended);
}

static struct fc_channel *subject_of(const struct item *item)
{
    return item->subject < QUEUES_SUBJECTS ? queues_subjects[item->subject] : NULL;
}

static void comes(struct fc_queue *queue, struct model *model, uint64_t *seed)
{
    struct item item = random_item(seed);

    if (check_random(seed) % 2 == 0) {
        bool replaced = fc_queue_replace(queue, item.message, subject_of(&item));
        CHECK_EQ(model_replace(model, item), replaced);
        if (replaced)
            return;
    }
    if (model->count >= 60) {
        CHECK_EQ(fc_queue_drop_oldest(queue, item.message->rule), model_drop_oldest(model, item.message->rule));
        fc_message_unref(item.message);
        return;
    }
    CHECK_EQ(fc_queue_push(queue, item.message, subject_of(&item)), 0);
    insert(model, model->count, item);
}

static void goes(struct fc_queue *queue, struct model *model, uint64_t *seed)
{
    size_t n = check_random(seed) % (queue->bytes < 90 ? queue->bytes + 1 : 90);

    CHECK_EQ(fc_queue_wrote(queue, n), model_wrote(model, n));
}

static void random_traffic_goes_like_the_model(void)
{
    uint64_t seed = 6;
    struct fc_queue queue = queues_open();
    struct model model = {0};

    for (unsigned round = 0; round < 60000; round++) {
        unsigned what = (unsigned)(check_random(&seed) % 16);

        if (what < 7) {
            comes(&queue, &model, &seed);
        } else if (what < 9 && model.count < 62) {
            struct fc_message *message = fc_message_frame(&queues_account, FC_OP_PONG, "pong", 4);
            CHECK_EQ(fc_queue_push_pong(&queue, message), 0);
            model_pong(&model, message);
        } else if (what < 14) {
            goes(&queue, &model, &seed);
        } else if (what == 14) {
            uint8_t number_of_rule = (uint8_t)(check_random(&seed) % 4);
            CHECK_EQ(fc_queue_drop_oldest(&queue, number_of_rule), model_drop_oldest(&model, number_of_rule));
        } else if (round % 20 == 0) {
            CHECK_EQ(fc_queue_drop_unstarted(&queue), model_drop_from(&model, staying(&model)));
            model.items[0].is_pong = false; /* the one that has stayed stays */
        }
        expect_like(&queue, &model);
    }
    CHECK_EQ(fc_queue_clear(&queue), model_drop_from(&model, 0));
    CHECK_BYTES(queues_ended, sizeof queues_ended, model.ended, sizeof queues_ended);
    for (unsigned i = 0; i < QUEUES_SUBJECTS; i++)
        CHECK(model.ended[i][FC_DELIVERED] > 1000 && model.ended[i][FC_DROPPED] > 1000);
    queues_close(&queue);
}

int main(void)
{
    RUN(random_traffic_goes_like_the_model);
    return 0;
}
