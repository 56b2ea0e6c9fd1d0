/* The door to the histories of channels; see door.c. */
#include "door.h"

#include "clock.h"
#include "frame.h"
#include "publish.h"
#include "topic.h"

#include <errno.h>
#include <string.h>

static bool rises(const struct fc_position *position, const struct fc_stored *stored, size_t n)
{
    uint64_t last = position->offset;

    for (size_t i = 0; i < n; last = stored[i++].offset) {
        if (stored[i].offset <= last)
            return false;
    }
    return true;
}

/* Under the record's lock. Without memory the history begins behind the message. */
static int keep(struct fc_exchange *exchange, struct fc_channel *record, const char *epoch, const struct fc_stored *stored)
{
    struct fc_message *message = fc_message_frame(&exchange->account, stored->text ? FC_OP_TEXT : FC_OP_BINARY,
                                                  stored->payload.bytes, stored->payload.length);
    struct fc_message *made;

    if (!message) {
        struct fc_position behind = {.offset = stored->offset};
        memcpy(behind.epoch, epoch, FC_EPOCH_SIZE);
        fc_history_lead(&exchange->histories, record->history, &behind);
        return -ENOMEM;
    }
    int error = fc_history_append(&exchange->histories, record->history, &message, 1, stored->offset, fc_clock_ms(), &made);
    if (!error)
        fc_message_unref(made);
    fc_message_unref(message);
    return error;
}

int fc_hub_lead_history(struct fc_hub *hub, struct fc_span name, const struct fc_position *position,
                        const struct fc_stored *stored, size_t n)
{
    struct fc_exchange *exchange = &hub->exchange;
    int result = 0;

    if (!fc_topic_valid(name.bytes, name.length) || !fc_channels_keep(&exchange->channels, name.bytes, name.length) ||
        !rises(position, stored, n))
        return -EINVAL;
    struct fc_channel *record = fc_channels_get_record(&exchange->channels, name.bytes, name.length);
    if (!record)
        return -ENOMEM;
    pthread_mutex_lock(&record->lock);
    fc_history_lead(&exchange->histories, record->history, position);
    for (size_t i = 0; i < n; i++) {
        int error = keep(exchange, record, position->epoch, &stored[i]);
        result = error ? error : result;
    }
    pthread_mutex_unlock(&record->lock);
    fc_channel_unref(&exchange->channels, record);
    fc_histories_trim(&exchange->histories, &exchange->channels);
    return result;
}

void fc_hub_release_history(struct fc_hub *hub, struct fc_span name)
{
    struct fc_exchange *exchange = &hub->exchange;
    struct fc_channel *record = fc_channels_find_record(&exchange->channels, name.bytes, name.length);

    if (!record)
        return;
    fc_history_release(&exchange->histories, &exchange->channels, record->history);
    fc_channel_unref(&exchange->channels, record);
}

/* -EINVAL if none among them is a record that is led; -EALREADY if that has the offset. */
static int check_record(const struct fc_audience *audience, uint64_t offset, enum fc_recording recording)
{
    for (unsigned i = 0; i < audience->count; i++) {
        struct fc_channel *record = audience->channels[i];
        if (!record->history)
            continue;
        pthread_mutex_lock(&record->lock);
        bool is_led = record->history->led;
        bool is_old = offset <= record->history->last && recording != FC_RECORD_OTHERS;
        pthread_mutex_unlock(&record->lock);
        return !is_led ? -EINVAL : is_old ? -EALREADY : 0;
    }
    return -EINVAL;
}

/* What is to be recorded, and for whom; nothing on an error. */
static int prepare(struct fc_hub *hub, struct fc_span name, bool text, struct fc_span payload, struct fc_span key,
                   uint64_t offset, enum fc_recording recording, struct fc_audience *audience,
                   struct fc_message **message)
{
    int error = fc_door_address(hub, name, payload, audience);

    if (error)
        return error;
    error = check_record(audience, offset, recording);
    if (!error && !(*message = fc_door_message(hub, name, text, payload, key)))
        error = -ENOMEM;
    if (error)
        fc_channels_release(&hub->exchange.channels, audience);
    return error;
}

/* No memory even to begin: a gap, rather than a history that goes on as if there had been nothing. */
static void lose(struct fc_exchange *exchange, struct fc_span name, uint64_t offset)
{
    struct fc_channel *record = fc_channels_find_record(&exchange->channels, name.bytes, name.length);

    if (record)
        (void)fc_publish_gap(exchange, record, offset);
    fc_channel_unref(&exchange->channels, record);
}

int fc_hub_record(struct fc_hub *hub, struct fc_span name, bool text, struct fc_span payload, struct fc_span key,
                  uint64_t offset, enum fc_recording recording, uint64_t *reached)
{
    struct fc_exchange *exchange = &hub->exchange;
    struct fc_audience audience;
    struct fc_message *message;

    *reached = 0;
    int error = prepare(hub, name, text, payload, key, offset, recording, &audience, &message);
    if (error == -ENOMEM && recording != FC_RECORD_OTHERS)
        lose(exchange, name, offset);
    if (error)
        return error;
    uint64_t lost = recording == FC_RECORD_OTHERS
                        ? fc_publish_others(exchange, audience.channels, audience.count, message, reached)
                        : fc_publish_record(exchange, audience.channels, audience.count, message, offset, reached);
    fc_channels_release(&exchange->channels, &audience);
    return lost > 0 ? -ENOMEM : 0;
}

int fc_hub_skip_history(struct fc_hub *hub, struct fc_span name, uint64_t offset)
{
    struct fc_exchange *exchange = &hub->exchange;
    struct fc_channel *record = fc_channels_find_record(&exchange->channels, name.bytes, name.length);

    if (!record)
        return -EINVAL;
    int error = fc_publish_gap(exchange, record, offset);
    fc_channel_unref(&exchange->channels, record);
    return error;
}

int fc_hub_forget_histories(struct fc_hub *hub)
{
    return fc_histories_release(&hub->exchange.histories, &hub->exchange.channels);
}

void fc_hub_expire(struct fc_hub *hub)
{
    fc_histories_expire(&hub->exchange.histories, &hub->exchange.channels, fc_clock_ms());
    fc_histories_trim(&hub->exchange.histories, &hub->exchange.channels); /* who only comes and goes trims nothing */
}
