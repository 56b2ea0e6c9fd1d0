# The functions of core/fastcast.h that _core.pyx calls; that header is their documentation.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "fastcast.h" nogil:
    struct fc_hub:
        pass

    enum fc_io_choice:
        FC_IO_AUTO
        FC_IO_EPOLL
        FC_IO_URING

    struct fc_span:
        const void *bytes
        size_t length

    struct fc_options:
        unsigned int shards
        const int *listeners
        unsigned int listeners_each
        uint32_t max_connections
        uint32_t max_handshakes
        size_t max_message
        size_t max_queue
        size_t max_backlog
        size_t max_head
        uint32_t flush_interval
        uint32_t handshake_timeout
        uint32_t ping_interval
        uint32_t ping_timeout
        uint32_t close_timeout
        fc_io_choice io
        bint handled
        bint shared_table
        fc_span timeout
        fc_span too_large
        fc_span full

    struct fc_event:
        uint64_t client
        fc_span bytes
        fc_span channel
        bint text

    struct fc_events:
        size_t count
        fc_event *events

    struct fc_answer:
        uint64_t client
        fc_span response
        fc_span channel

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

    int fc_hub_create(fc_hub **hub, const fc_options *options)
    int fc_hub_start(fc_hub *hub)
    int fc_hub_event_fd(const fc_hub *hub)
    void fc_hub_reset_event(fc_hub *hub)
    fc_events *fc_hub_requests(fc_hub *hub)
    fc_events *fc_hub_messages(fc_hub *hub)
    void fc_hub_release(fc_hub *hub, fc_events *events)
    int fc_hub_answer(fc_hub *hub, const fc_answer *answers, size_t n)
    int fc_hub_publish(fc_hub *hub, fc_span channel, bint text, fc_span payload)
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
