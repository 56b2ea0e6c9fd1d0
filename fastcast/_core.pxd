# The functions of core/fastcast.h that _core.pyx calls; that header is their documentation.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "fastcast.h" nogil:
    struct fc_hub:
        pass

    enum fc_io_choice:
        FC_IO_AUTO
        FC_IO_EPOLL
        FC_IO_URING

    enum fc_policy:
        FC_POLICY_CLOSE
        FC_POLICY_DROP_OLDEST
        FC_POLICY_DROP_NEWEST
        FC_POLICY_LATEST

    enum fc_relay:
        FC_RELAY_CHANNEL
        FC_RELAY_ALL
        FC_RELAY_OFF

    struct fc_span:
        const void *bytes
        size_t length

    struct fc_rule:
        fc_span channels
        fc_policy policy
        size_t max_queue
        uint64_t max_messages
        uint64_t keep_messages
        uint64_t keep_time

    struct fc_options:
        unsigned int shards
        const int *listeners
        unsigned int listeners_each
        uint32_t max_connections
        uint32_t max_handshakes
        size_t max_message
        size_t max_queue
        uint64_t max_messages
        fc_policy policy
        uint64_t keep_messages
        uint64_t keep_time
        size_t max_history
        const fc_rule *rules
        unsigned int rule_count
        size_t max_backlog
        size_t max_head
        uint32_t flush_interval
        uint32_t handshake_timeout
        uint32_t ping_interval
        uint32_t ping_timeout
        uint32_t close_timeout
        fc_io_choice io
        fc_relay relay
        double rate_limit
        uint32_t rate_burst
        uint32_t max_per_address
        bint handled
        bint closes
        bint presence
        bint remotes
        bint proxy_protocol
        bint shared_table
        fc_span timeout
        fc_span too_large
        fc_span full
        fc_span too_many

    unsigned int FC_RULES_MAX

    enum fc_event_kind:
        FC_EVENT_REQUEST
        FC_EVENT_MESSAGE
        FC_EVENT_CLOSED
        FC_EVENT_JOINED
        FC_EVENT_LEFT
        FC_EVENT_SLOW
        FC_EVENT_MISSING
        FC_EVENT_FLUSHED
        FC_EVENT_INFO

    struct fc_event:
        fc_event_kind kind
        uint16_t code
        uint16_t port
        bint text
        uint64_t client
        uint64_t number
        fc_span bytes
        fc_span channel
        fc_span remote

    struct fc_info:
        uint64_t queued
        uint64_t queued_bytes
        uint32_t idle
        bint open
        char remote[64]
        uint16_t port
        uint32_t channels

    struct fc_events:
        size_t count
        fc_event *events

    const size_t FC_EPOCH_SIZE

    struct fc_position:
        char *epoch
        uint64_t offset

    enum fc_resume:
        FC_RESUME_OFF
        FC_RESUME_NEW
        FC_RESUME_ALL
        FC_RESUME_SINCE

    struct fc_answer:
        uint64_t client
        fc_span response
        bint accept
        const fc_span *channels
        size_t channel_count
        fc_span address
        fc_resume resume
        const fc_position *positions
        size_t position_count

    struct fc_channel_stats:
        uint64_t members
        uint64_t sent
        uint64_t delivered
        uint64_t dropped
        uint64_t gone

    struct fc_shard_stats:
        uint64_t accepted
        uint64_t closed
        uint64_t requests
        uint64_t opened
        uint64_t refused
        uint64_t full
        uint64_t handed_over
        uint64_t handshake_timeouts
        uint64_t shed
        uint64_t received
        uint64_t received_bytes
        uint64_t sent
        uint64_t delivered
        uint64_t dropped
        uint64_t gone
        uint64_t sent_bytes
        uint64_t slow
        uint64_t dropped_oldest
        uint64_t dropped_newest
        uint64_t conflated
        uint64_t replayed
        uint64_t gaps
        uint64_t ignored
        uint64_t rate_limited
        uint64_t address_limited
        uint64_t dead
        uint64_t violations
        uint64_t pings
        uint64_t no_files
        uint64_t no_memory
        uint64_t connections
        uint64_t clients
        uint64_t handshakes
        uint64_t asked
        uint64_t lagging
        uint64_t queued
        uint64_t queued_bytes
        uint64_t capacity

    struct fc_hub_stats:
        uint64_t messages
        uint64_t message_bytes
        uint64_t channels
        uint64_t threads
        uint64_t published
        uint64_t history_messages
        uint64_t history_bytes
        uint64_t histories

    int fc_hub_create(fc_hub **hub, const fc_options *options)
    int fc_hub_start(fc_hub *hub)
    int fc_hub_event_fd(const fc_hub *hub)
    void fc_hub_reset_event(fc_hub *hub)
    fc_events *fc_hub_requests(fc_hub *hub)
    fc_events *fc_hub_replies(fc_hub *hub)
    bint fc_hub_unanswered(fc_hub *hub)
    fc_events *fc_hub_events(fc_hub *hub)
    void fc_hub_release(fc_hub *hub, fc_events *events)
    int fc_hub_answer(fc_hub *hub, const fc_answer *answers, size_t n)
    int fc_hub_publish(fc_hub *hub, fc_span channel, bint text, fc_span payload, fc_span key, uint64_t *reached)
    struct fc_stored:
        uint64_t offset
        bint text
        fc_span payload

    int fc_hub_lead_history(
        fc_hub *hub, fc_span channel, const fc_position *position, const fc_stored *stored, size_t n
    )
    void fc_hub_release_history(fc_hub *hub, fc_span channel)
    enum fc_recording:
        FC_RECORD

    int fc_hub_record(
        fc_hub *hub,
        fc_span channel,
        bint text,
        fc_span payload,
        fc_span key,
        uint64_t offset,
        fc_recording recording,
        uint64_t *reached,
    )
    int fc_hub_skip_history(fc_hub *hub, fc_span channel, uint64_t offset)
    int fc_hub_forget_histories(fc_hub *hub)
    void fc_hub_expire(fc_hub *hub)
    int fc_hub_broadcast(fc_hub *hub, bint text, fc_span payload, uint64_t *reached)
    int fc_hub_send(fc_hub *hub, uint64_t client, bint text, fc_span payload)
    int fc_hub_subscribe(fc_hub *hub, uint64_t client, fc_span channel)
    int fc_hub_unsubscribe(fc_hub *hub, uint64_t client, fc_span channel)
    int fc_hub_close(fc_hub *hub, uint64_t client, uint16_t code, fc_span reason)
    int fc_hub_check(fc_hub *hub, uint64_t client)
    int fc_hub_inspect(fc_hub *hub, uint64_t client, uint64_t token)
    int fc_hub_flush(fc_hub *hub, uint64_t token)
    int fc_hub_members(fc_hub *hub, fc_span channel, uint64_t **ids, size_t *count)
    int fc_hub_count(fc_hub *hub, fc_span channel, uint64_t *count)
    bint fc_hub_read_channel(fc_hub *hub, fc_span channel, fc_channel_stats *stats)
    int fc_hub_channels(fc_hub *hub, void (*each)(void *context, fc_span name, uint64_t members) noexcept, void *context)
    uint32_t fc_hub_address_count(fc_hub *hub, fc_span address)
    void fc_hub_stop(fc_hub *hub, uint32_t timeout)
    unsigned int fc_hub_running(fc_hub *hub)
    unsigned int fc_hub_shards(const fc_hub *hub)
    uint64_t fc_hub_capacity(fc_hub *hub)
    const char *fc_hub_backend(fc_hub *hub)
    int fc_hub_uring_error(fc_hub *hub)
    bint fc_hub_private_tables(fc_hub *hub)
    void fc_hub_read_stats(fc_hub *hub, fc_hub_stats *stats)
    void fc_hub_read_shard_stats(fc_hub *hub, unsigned int shard, fc_shard_stats *stats)
    void fc_hub_destroy(fc_hub *hub)


# What the core does to single frames, for tests and benchmarks; servers never call it from Python.
cdef extern from "frame.h" nogil:
    enum:
        FC_OP_TEXT
        FC_OP_BINARY
        FC_FRAME_HEADER_MAX
    size_t fc_frame_header_size(uint64_t length)
    size_t fc_frame_write_header(uint8_t *out, uint8_t opcode, uint64_t length)
    void fc_frame_unmask(uint8_t *out, const uint8_t *data, size_t n, const uint8_t *mask, uint64_t phase)
