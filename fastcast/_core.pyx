# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False
"""The door to the C core: converts arguments, releases the GIL, turns errno into exceptions. No more.

Nothing here loops over clients, makes a system call, or knows the protocol.
"""

import errno as _errno
import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from libc.stdint cimport UINT32_MAX, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    str PyUnicode_DecodeUTF8(const char *text, Py_ssize_t size, const char *errors)


MESSAGE = FC_EVENT_MESSAGE
CLOSED = FC_EVENT_CLOSED
JOINED = FC_EVENT_JOINED
LEFT = FC_EVENT_LEFT
SLOW = FC_EVENT_SLOW
MISSING = FC_EVENT_MISSING
FLUSHED = FC_EVENT_FLUSHED
INFO = FC_EVENT_INFO

cdef tuple POLICIES = ("close", "drop-oldest", "drop-newest", "latest")
cdef tuple RELAYS = ("channel", "all", "off")
cdef tuple RECORDINGS = ("all", "others")


include "_convert.pxi"


cdef class Hub:
    """The shards of one server.

    Lives in three steps: constructed (nothing runs), ``start()``, ``stop()`` until ``running`` is 0. All sizes are
    in bytes and all times in milliseconds.

    ``rules`` are (name or pattern, policy, bytes, messages or None, messages to keep or None, milliseconds to keep them or
    None) for channels, of which the first that takes in a channel's name holds; the last one is for everything else. With
    neither of the last two a channel has no history; all histories together have ``max_history``. ``listeners`` is a list with one list of listening, non-blocking sockets' fds for each shard, all of the same
    length; the hub owns and closes them. ``timeout``, ``too_large``, ``full`` and ``too_many`` are the complete HTTP
    responses 408, 431, 503 and 429, which the shards send without asking. ``handled`` gives the clients' messages to
    ``events()`` instead of relaying them; ``closes`` and ``presence`` ask for those events.

    Raises OSError when the system refuses what is needed, MemoryError, ValueError for a bad argument.
    """

    cdef fc_hub *hub

    def __cinit__(
        self,
        *,
        list listeners not None,
        object max_connections,
        object max_handshakes,
        size_t max_message,
        size_t max_backlog,
        size_t max_head,
        uint32_t flush_interval,
        uint32_t handshake_timeout,
        uint32_t ping_interval,
        uint32_t ping_timeout,
        uint32_t close_timeout,
        bytes timeout not None,
        bytes too_large not None,
        bytes full not None,
        bytes too_many not None,
        list rules not None,
        size_t max_history=0,
        double rate_limit=0,
        uint32_t rate_burst=1,
        object max_per_address=None,
        str relay="channel",
        bint handled=False,
        bint closes=False,
        bint presence=False,
        bint remotes=False,
        bint proxy_protocol=False,
        str io="auto",
        bint shared_table=False,
    ):
        cdef fc_options options
        cdef fc_rule *rule_array = NULL
        cdef size_t each = len(listeners[0]) if listeners else 0
        cdef size_t i = 0

        if each == 0 or {len(fds) for fds in listeners} != {each}:
            raise ValueError("every shard needs the same number of listeners, at least one")
        if not 1 <= len(rules) <= FC_RULES_MAX:
            raise ValueError(f"there must be 1 to {FC_RULES_MAX} rules")
        memset(&options, 0, sizeof(options))
        options.shards = <unsigned int>len(listeners)
        options.listeners_each = <unsigned int>each
        options.max_connections = UINT32_MAX if max_connections is None else max_connections
        options.max_handshakes = UINT32_MAX if max_handshakes is None else max_handshakes
        options.max_message = max_message
        _, policy, max_bytes, max_messages, keep_messages, keep_time = rules[len(rules) - 1]
        options.policy = <fc_policy><int>POLICIES.index(policy)
        options.max_queue = max_bytes
        options.max_messages = max_messages or 0
        options.keep_messages = keep_messages or 0
        options.keep_time = keep_time or 0
        options.max_history = max_history
        options.max_backlog = max_backlog
        options.max_head = max_head
        options.flush_interval = flush_interval
        options.handshake_timeout = handshake_timeout
        options.ping_interval = ping_interval
        options.ping_timeout = ping_timeout
        options.close_timeout = close_timeout
        options.io = {"auto": FC_IO_AUTO, "epoll": FC_IO_EPOLL, "uring": FC_IO_URING}[io]
        options.relay = <fc_relay><int>RELAYS.index(relay)
        options.rate_limit = rate_limit
        options.rate_burst = rate_burst
        options.max_per_address = max_per_address or 0
        options.handled = handled
        options.closes = closes
        options.presence = presence
        options.remotes = remotes
        options.proxy_protocol = proxy_protocol
        options.shared_table = shared_table
        options.timeout = span_of(timeout)
        options.too_large = span_of(too_large)
        options.full = span_of(full)
        options.too_many = span_of(too_many)

        cdef int *fds_array = <int *>malloc(len(listeners) * each * sizeof(int))
        rule_array = <fc_rule *>malloc(len(rules) * sizeof(fc_rule))
        try:
            if fds_array == NULL or rule_array == NULL:
                raise MemoryError()
            for i in range(<size_t>len(rules) - 1):
                name, policy, max_bytes, max_messages, keep_messages, keep_time = rules[i]
                rule_array[i].channels = text_span(name)
                rule_array[i].policy = <fc_policy><int>POLICIES.index(policy)
                rule_array[i].max_queue = max_bytes
                rule_array[i].max_messages = max_messages or 0
                rule_array[i].keep_messages = keep_messages or 0
                rule_array[i].keep_time = keep_time or 0
            options.rules = rule_array
            options.rule_count = <unsigned int>(len(rules) - 1)
            i = 0
            for fds in listeners:
                for fd in fds:
                    fds_array[i] = fd
                    i += 1
            options.listeners = fds_array
            check(fc_hub_create(&self.hub, &options))
        finally:
            free(fds_array)
            free(rule_array)

    def __dealloc__(self):
        if self.hub != NULL:
            with nogil:
                fc_hub_destroy(self.hub)

    def start(self):
        """Start the shards; they listen when this returns."""
        cdef int result
        with nogil:
            result = fc_hub_start(self.hub)
        check(result)

    def stop(self, uint32_t timeout):
        """Begin the end: deliver, close everyone with 1001, be gone within ``timeout`` milliseconds."""
        with nogil:
            fc_hub_stop(self.hub, timeout)

    @property
    def running(self):
        """How many shards run."""
        return fc_hub_running(self.hub)

    @property
    def event_fd(self):
        """Readable when ``requests()`` or ``events()`` has something to give, or a shard has ended."""
        return fc_hub_event_fd(self.hub)

    @property
    def shards(self):
        return fc_hub_shards(self.hub)

    @property
    def capacity(self):
        """How many clients there is room for. After ``start()``."""
        return fc_hub_capacity(self.hub)

    @property
    def backend(self):
        """The name of the I/O backend. After ``start()``."""
        return fc_hub_backend(self.hub).decode("ascii")

    @property
    def uring_error(self):
        """The errno for which ``io="auto"`` fell back to epoll, or 0. After ``start()``."""
        return fc_hub_uring_error(self.hub)

    @property
    def private_tables(self):
        """Whether every shard has an fd table of its own. After ``start()``."""
        return fc_hub_private_tables(self.hub)

    def reset_event(self):
        """Make ``event_fd`` unreadable until there's more; then look at everything that it stands for."""
        fc_hub_reset_event(self.hub)

    def requests(self):
        """Take the oldest request heads that wait, 256 at most, as a list of (client id, head, host, port).

        The last two say where the request is from, if ``remotes`` asked for it; else they are "" and 0.
        """
        cdef fc_events *taken = fc_hub_requests(self.hub)
        cdef const fc_event *event
        cdef size_t i
        cdef list requests = []
        if taken == NULL:
            return requests
        try:
            for i in range(taken.count):
                event = &taken.events[i]
                remote = text_of(event.remote) if event.remote.length else ""
                requests.append((event.client, bytes_of(event.bytes), remote, event.port))
            return requests
        finally:
            fc_hub_release(self.hub, taken)

    def events(self):
        """Take the oldest events that wait, 256 at most, as a list of tuples that begin with the kind.

        (MESSAGE, client id, channel or None, str or bytes), (CLOSED, client id, code, reason), (JOINED, client id,
        channel), (LEFT, client id, channel), (SLOW, client id, policy, bytes that wait), (MISSING, client id).
        """
        return events_of(self.hub, fc_hub_events(self.hub))

    def replies(self):
        """The same for replies: (FLUSHED, token) of each shard, (INFO, token, dict or None).

        Raises MemoryError once if some will not come.
        """
        if fc_hub_unanswered(self.hub):
            raise MemoryError("a shard has no memory to reply")
        return events_of(self.hub, fc_hub_replies(self.hub))

    def answer(self, list answers not None):
        """Answer clients that asked, by (client id, response, channels, address, since) for each.

        The response is written; then the WebSocket is open on the channels or, where they are None, the connection
        ends. The address counts for ``max_per_address``, unless it's "". ``since`` is what the client wants of histories:
        None for nothing, "new", "all", or a list of its positions, an epoch of 12 bytes and an offset each. A client that
        has gone in the meantime is no error.
        """
        cdef Py_ssize_t n = len(answers)
        cdef Py_ssize_t total = 0
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t used = 0
        cdef Py_ssize_t positions = 0
        cdef Py_ssize_t placed = 0
        cdef int result
        for answer in answers:
            total += 0 if answer[2] is None else len(answer[2])
            positions += len(answer[4]) if isinstance(answer[4], list) else 0
        cdef fc_answer *array = <fc_answer *>malloc(n * sizeof(fc_answer) + 1)
        cdef fc_span *names = <fc_span *>malloc(total * sizeof(fc_span) + 1)
        cdef fc_position *places = <fc_position *>malloc(positions * sizeof(fc_position) + 1)
        try:
            if array == NULL or names == NULL or places == NULL:
                raise MemoryError()
            for client, response, channels, address, since in answers:
                array[i].client = client
                array[i].response = span_of(<bytes?>response)
                array[i].accept = channels is not None
                array[i].channels = names + used
                array[i].channel_count = 0
                array[i].address = text_span(address)
                array[i].resume = resume_of(since)
                array[i].positions = places + placed
                array[i].position_count = 0
                if isinstance(since, list):
                    array[i].position_count = <size_t>len(since)
                    for position in since:
                        set_position(&places[placed], position)
                        placed += 1
                if channels is not None:
                    array[i].channel_count = <size_t>len(channels)
                    for channel in channels:
                        names[used] = text_span(channel)
                        used += 1
                i += 1
            with nogil:
                result = fc_hub_answer(self.hub, array, <size_t>n)
        finally:
            free(array)
            free(names)
            free(places)
        check(result)

    def publish(self, str channel not None, object data, str key=None):
        """Send str as text, or bytes-like data as binary, to every client of the channel; returns how many.

        Raises BlockingIOError while the shards are too far behind, OSError with ESHUTDOWN once the hub is stopping,
        with EMSGSIZE for more than 1 GiB, ValueError for what isn't the name of a channel.
        """
        cdef _Payload payload = _Payload(data)
        cdef fc_span name = text_span(channel)
        cdef fc_span its_key = key_span(key)
        cdef uint64_t reached = 0
        cdef int result

        with nogil:
            result = fc_hub_publish(self.hub, name, payload.text, payload.span, its_key, &reached)
        check(result)
        return reached

    def lead_history(self, str channel not None, tuple position not None, object stored=()):
        """Give the channel's messages offsets from outside, with ``record``; ``position`` is that of the last one so far,
        but for those that are ``stored`` behind it: pairs of an offset and data, which nobody hears.

        Forgets what was kept. ValueError for a channel that has no history, and for offsets that don't rise. MemoryError:
        without what came before some message.
        """
        cdef fc_span name = text_span(channel)
        cdef fc_position its
        cdef list payloads = [_Payload(data) for _, data in stored]
        cdef size_t n = len(payloads)
        cdef size_t i
        cdef int result
        cdef fc_stored *kept = <fc_stored *>malloc((n + 1) * sizeof(fc_stored))
        if kept == NULL:
            raise MemoryError()
        try:
            set_position(&its, position)
            for i in range(n):
                kept[i].offset = stored[i][0]
                kept[i].text = (<_Payload>payloads[i]).text
                kept[i].payload = (<_Payload>payloads[i]).span
            with nogil:
                result = fc_hub_lead_history(self.hub, name, &its, kept, n)
        finally:
            free(kept)
        check(result)

    def release_history(self, str channel not None):
        """End that, and forget what is kept."""
        cdef fc_span name = text_span(channel)
        with nogil:
            fc_hub_release_history(self.hub, name)

    def record(self, str channel not None, object data, uint64_t offset, str key=None, str to="all"):
        """``publish`` to a channel that is led, with an offset; returns whether that is a new one.

        Otherwise nothing happens. ``to`` is ``"all"``, or ``"others"`` for what the history has already: those who don't
        resume.
        """
        cdef fc_recording recording = <fc_recording><int>RECORDINGS.index(to)
        cdef _Payload payload = _Payload(data)
        cdef fc_span name = text_span(channel)
        cdef fc_span its_key = key_span(key)
        cdef uint64_t reached = 0
        cdef int result

        with nogil:
            result = fc_hub_record(self.hub, name, payload.text, payload.span, its_key, offset, recording, &reached)
        if result == -_errno.EALREADY:
            return False
        check(result)
        return True

    def skip_history(self, str channel not None, uint64_t offset):
        """Tell those who resume that messages up to the offset are lost, of a channel that is led."""
        cdef fc_span name = text_span(channel)
        cdef int result
        with nogil:
            result = fc_hub_skip_history(self.hub, name, offset)
        check(result)

    def forget_histories(self):
        """Forget all that is kept: each channel begins an epoch of its own. Raises MemoryError."""
        cdef int result

        with nogil:
            result = fc_hub_forget_histories(self.hub)
        check(result)

    def expire(self):
        """Drop what was kept for its time in channels where nothing is published any more."""
        with nogil:
            fc_hub_expire(self.hub)

    def broadcast(self, object data):
        """The same to every client."""
        cdef _Payload payload = _Payload(data)
        cdef uint64_t reached = 0
        cdef int result
        with nogil:
            result = fc_hub_broadcast(self.hub, payload.text, payload.span, &reached)
        check(result)
        return reached

    def send(self, uint64_t client, object data):
        """The same to one client, which may have gone."""
        cdef _Payload payload = _Payload(data)
        cdef int result
        with nogil:
            result = fc_hub_send(self.hub, client, payload.text, payload.span)
        check(result)

    def subscribe(self, uint64_t client, str channel not None):
        """Make an open client a member of a channel or pattern. ValueError for a bad name."""
        cdef fc_span name = text_span(channel)
        cdef int result
        with nogil:
            result = fc_hub_subscribe(self.hub, client, name)
        check(result)

    def unsubscribe(self, uint64_t client, str channel not None):
        """End that."""
        cdef fc_span name = text_span(channel)
        cdef int result
        with nogil:
            result = fc_hub_unsubscribe(self.hub, client, name)
        check(result)

    def close(self, uint64_t client, uint16_t code, str reason not None):
        """Close an open client behind all that is published. ValueError for a wrong code or too long a reason."""
        cdef fc_span why = text_span(reason)
        cdef int result
        with nogil:
            result = fc_hub_close(self.hub, client, code, why)
        check(result)

    def check(self, uint64_t client):
        """Have a MISSING event come if the client isn't open; behind its CLOSED, if it had one."""
        cdef int result
        with nogil:
            result = fc_hub_check(self.hub, client)
        check(result)

    def inspect(self, uint64_t client, uint64_t token):
        """Have an INFO reply with the token come."""
        cdef int result
        with nogil:
            result = fc_hub_inspect(self.hub, client, token)
        check(result)

    def flush(self, uint64_t token):
        """Have a FLUSHED reply with the token come from each shard, when all that is published by now is written."""
        cdef int result
        with nogil:
            result = fc_hub_flush(self.hub, token)
        check(result)

    def members(self, str channel not None):
        """The ids of those whom a message to the channel reaches; of a pattern, of its subscribers."""
        cdef fc_span name = text_span(channel)
        cdef uint64_t *ids = NULL
        cdef size_t count = 0
        cdef size_t i
        cdef int result
        with nogil:
            result = fc_hub_members(self.hub, name, &ids, &count)
        check(result)
        try:
            return [ids[i] for i in range(count)]
        finally:
            free(ids)

    def count(self, str channel not None):
        """How many subscriptions a message to the channel reaches."""
        cdef fc_span name = text_span(channel)
        cdef uint64_t count = 0
        cdef int result
        with nogil:
            result = fc_hub_count(self.hub, name, &count)
        check(result)
        return count

    def channels(self):
        """The channels and patterns that have clients, as a list of (name, clients)."""
        cdef dict found = {}
        check(fc_hub_channels(self.hub, note_channel, <void *>found))
        return list(found.items())

    def channel_stats(self, str channel not None):
        """What became of messages to subscribers of just this name; None if there are none."""
        cdef fc_channel_stats stats
        if not fc_hub_read_channel(self.hub, text_span(channel), &stats):
            return None
        return stats

    def address_count(self, str address not None):
        """Open clients that count for the address."""
        return fc_hub_address_count(self.hub, text_span(address))

    def stats(self):
        """Counters and gauges: of the hub, summed over the shards, and of each shard under ``"shards"``."""
        cdef fc_hub_stats hub
        cdef fc_shard_stats shard
        cdef unsigned int i
        cdef list shards = []

        for i in range(fc_hub_shards(self.hub)):
            fc_hub_read_shard_stats(self.hub, i, &shard)
            shards.append(shard)
        total = {name: sum(each[name] for each in shards) for name in shards[0]}
        fc_hub_read_stats(self.hub, &hub)
        total.update(hub)
        total["shards"] = shards
        return total


def encode_frame(bytes payload not None, bint text=False):
    """The unmasked, unfragmented frame of a payload, as the core builds it."""
    cdef size_t n = len(payload)
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(fc_frame_header_size(n) + n))
    cdef uint8_t *out = <uint8_t *><char *>frame
    out += fc_frame_write_header(out, FC_OP_TEXT if text else FC_OP_BINARY, n)
    memcpy(out, <const char *>payload, n)
    return frame


def unmask(bytes payload not None, bytes mask not None):
    """The payload with the 4-byte mask applied, as the core does it for what clients send."""
    cdef Py_ssize_t n = len(payload)
    cdef bytes plain = PyBytes_FromStringAndSize(NULL, n)
    if len(mask) != 4:
        raise ValueError("a mask has 4 bytes")
    fc_frame_unmask(
        <uint8_t *><char *>plain, <const uint8_t *><const char *>payload, <size_t>n, <const uint8_t *><const char *>mask, 0
    )
    return plain
