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
from libc.stdint cimport UINT32_MAX, uint32_t, uint64_t, uint8_t

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    str PyUnicode_DecodeUTF8(const char *text, Py_ssize_t size, const char *errors)


cdef int check(int result) except -1:
    if result == 0:
        return 0
    if result == -_errno.ENOMEM:
        raise MemoryError()
    raise OSError(-result, os.strerror(-result))


cdef inline fc_span span_of(bytes data) noexcept:
    cdef fc_span span
    span.bytes = <const char *>data
    span.length = len(data)
    return span


cdef inline bytes bytes_of(fc_span span):
    return PyBytes_FromStringAndSize(<const char *>span.bytes, <Py_ssize_t>span.length)


cdef inline str text_of(fc_span span):
    return PyUnicode_DecodeUTF8(<const char *>span.bytes, <Py_ssize_t>span.length, NULL)


cdef class Hub:
    """The shards of one server.

    Lives in three steps: constructed (nothing runs), ``start()``, ``stop()`` until ``running`` is 0. All sizes are
    in bytes and all times in milliseconds.

    ``listeners`` is a list with one list of listening, non-blocking sockets' fds for each shard, all of the same
    length; the hub owns and closes them. ``timeout``, ``too_large`` and ``full`` are the complete HTTP responses
    408, 431 and 503, which the shards send without asking. ``handled`` gives the clients' messages to ``messages()``
    instead of relaying them.

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
        size_t max_queue,
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
        str io="auto",
        bint handled=False,
        bint shared_table=False,
    ):
        cdef fc_options options
        cdef size_t each = len(listeners[0]) if listeners else 0
        cdef size_t i = 0

        if each == 0 or {len(fds) for fds in listeners} != {each}:
            raise ValueError("every shard needs the same number of listeners, at least one")
        memset(&options, 0, sizeof(options))
        options.shards = <unsigned int>len(listeners)
        options.listeners_each = <unsigned int>each
        options.max_connections = UINT32_MAX if max_connections is None else max_connections
        options.max_handshakes = UINT32_MAX if max_handshakes is None else max_handshakes
        options.max_message = max_message
        options.max_queue = max_queue
        options.max_backlog = max_backlog
        options.max_head = max_head
        options.flush_interval = flush_interval
        options.handshake_timeout = handshake_timeout
        options.ping_interval = ping_interval
        options.ping_timeout = ping_timeout
        options.close_timeout = close_timeout
        options.io = {"auto": FC_IO_AUTO, "epoll": FC_IO_EPOLL, "uring": FC_IO_URING}[io]
        options.handled = handled
        options.shared_table = shared_table
        options.timeout = span_of(timeout)
        options.too_large = span_of(too_large)
        options.full = span_of(full)

        cdef int *fds_array = <int *>malloc(len(listeners) * each * sizeof(int))
        if fds_array == NULL:
            raise MemoryError()
        try:
            for fds in listeners:
                for fd in fds:
                    fds_array[i] = fd
                    i += 1
            options.listeners = fds_array
            check(fc_hub_create(&self.hub, &options))
        finally:
            free(fds_array)

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
        """Readable when ``requests()`` or ``messages()`` has something to give, or a shard has ended."""
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
        """Take the oldest request heads that wait, 256 at most, as a list of (client id, head)."""
        cdef fc_events *taken = fc_hub_requests(self.hub)
        cdef size_t i
        if taken == NULL:
            return []
        try:
            return [(taken.events[i].client, bytes_of(taken.events[i].bytes)) for i in range(taken.count)]
        finally:
            fc_hub_release(self.hub, taken)

    def messages(self):
        """Take the oldest messages that wait, 256 at most, as a list of (client id, channel, str or bytes).

        There are some only if ``handled``.
        """
        cdef fc_events *taken = fc_hub_messages(self.hub)
        cdef size_t i
        if taken == NULL:
            return []
        try:
            return [
                (
                    taken.events[i].client,
                    text_of(taken.events[i].channel),
                    text_of(taken.events[i].bytes) if taken.events[i].text else bytes_of(taken.events[i].bytes),
                )
                for i in range(taken.count)
            ]
        finally:
            fc_hub_release(self.hub, taken)

    def answer(self, list answers not None):
        """Answer clients that asked, by (client id, response, channel) for each.

        The response is written; then the WebSocket is open on the channel or, where that is None, the connection
        ends. A client that has gone in the meantime is no error.
        """
        cdef Py_ssize_t n = len(answers)
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t length
        cdef int result
        cdef fc_answer *array = <fc_answer *>malloc(n * sizeof(fc_answer) + 1)
        if array == NULL:
            raise MemoryError()
        try:
            for client, response, channel in answers:
                length = 0
                array[i].client = client
                array[i].response = span_of(<bytes?>response)
                array[i].channel.bytes = NULL
                if channel is not None:
                    array[i].channel.bytes = PyUnicode_AsUTF8AndSize(channel, &length)
                array[i].channel.length = <size_t>length
                i += 1
            with nogil:
                result = fc_hub_answer(self.hub, array, <size_t>n)
        finally:
            free(array)
        check(result)

    def publish(self, str channel not None, object data):
        """Send str as text, or bytes-like data as binary, to every client of the channel.

        Raises BlockingIOError while the shards are too far behind, OSError with ESHUTDOWN once the hub is stopping,
        with EMSGSIZE for more than 1 GiB.
        """
        cdef Py_ssize_t length = 0
        cdef Py_buffer view
        cdef fc_span name
        cdef fc_span payload
        cdef int result

        name.bytes = PyUnicode_AsUTF8AndSize(channel, &length)
        name.length = <size_t>length
        if isinstance(data, str):
            payload.bytes = PyUnicode_AsUTF8AndSize(data, &length)
            payload.length = <size_t>length
            with nogil:
                result = fc_hub_publish(self.hub, name, True, payload)
        else:
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            payload.bytes = view.buf
            payload.length = <size_t>view.len
            with nogil:
                result = fc_hub_publish(self.hub, name, False, payload)
            PyBuffer_Release(&view)
        check(result)

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
