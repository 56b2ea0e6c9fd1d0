# What goes in and comes out of the core, to and from Python; included by _core.pyx.

cdef int check(int result) except -1:
    if result == 0:
        return 0
    if result == -_errno.ENOMEM:
        raise MemoryError()
    if result == -_errno.EINVAL:
        raise ValueError("not a name of a channel, or not one for this; or not a code and reason to close with")
    raise OSError(-result, os.strerror(-result))


cdef inline fc_span span_of(bytes data) noexcept:
    cdef fc_span span
    span.bytes = <const char *>data
    span.length = len(data)
    return span


cdef inline fc_span text_span(str text) except *:
    cdef Py_ssize_t length = 0
    cdef fc_span span
    span.bytes = PyUnicode_AsUTF8AndSize(text, &length)
    span.length = <size_t>length
    return span


cdef inline fc_span key_span(str key) except *:
    """Empty for None."""
    cdef fc_span span
    span.bytes = NULL
    span.length = 0
    return span if key is None else text_span(key)


cdef inline bytes bytes_of(fc_span span):
    return PyBytes_FromStringAndSize(<const char *>span.bytes, <Py_ssize_t>span.length)


cdef inline str text_of(fc_span span):
    return PyUnicode_DecodeUTF8(<const char *>span.bytes, <Py_ssize_t>span.length, NULL)


cdef class _Payload:
    """A message's text or bytes for the time of a call."""

    cdef fc_span span
    cdef bint text
    cdef object owner
    cdef Py_buffer view

    def __cinit__(self, object data):
        self.text = isinstance(data, str)
        self.owner = data
        if self.text:
            self.span = text_span(<str>data)
        else:
            PyObject_GetBuffer(data, &self.view, PyBUF_SIMPLE)
            self.span.bytes = self.view.buf
            self.span.length = <size_t>self.view.len

    def __dealloc__(self):
        if not self.text:
            PyBuffer_Release(&self.view)


cdef object event_of(const fc_event *event):
    """What Python gets for an event: its kind, and what belongs to that."""
    if event.kind == FC_EVENT_MESSAGE:
        return (
            MESSAGE,
            event.client,
            text_of(event.channel) if event.channel.length else None,
            text_of(event.bytes) if event.text else bytes_of(event.bytes),
        )
    if event.kind == FC_EVENT_CLOSED:
        return CLOSED, event.client, event.code, text_of(event.bytes) if event.bytes.length else ""
    if event.kind == FC_EVENT_JOINED or event.kind == FC_EVENT_LEFT:
        return <int>event.kind, event.client, text_of(event.channel)
    if event.kind == FC_EVENT_SLOW:
        return SLOW, event.client, POLICIES[event.code], event.number
    if event.kind == FC_EVENT_MISSING:
        return MISSING, event.client
    if event.kind == FC_EVENT_FLUSHED:
        return FLUSHED, event.client
    return INFO, event.number, info_of(event) if event.bytes.length else None


cdef list events_of(fc_hub *hub, fc_events *taken):
    """What was taken from the hub, which gets it back."""
    cdef size_t i
    if taken == NULL:
        return []
    try:
        return [event_of(&taken.events[i]) for i in range(taken.count)]
    finally:
        fc_hub_release(hub, taken)


cdef dict info_of(const fc_event *event):
    cdef fc_info info
    cdef const char *at = <const char *>event.bytes.bytes
    cdef uint32_t length
    cdef fc_span name
    cdef uint32_t i
    cdef list channels = []

    # A copy, since the bytes may lie at any address.
    memcpy(&info, at, sizeof(fc_info))
    at += sizeof(fc_info)
    for i in range(info.channels):
        memcpy(&length, at, sizeof(length))
        name.bytes = at + sizeof(length)
        name.length = length
        channels.append(text_of(name))
        at += sizeof(length) + length
    return {
        "id": event.client,
        "state": "open" if info.open else "closing",
        "channels": channels,
        "queued": info.queued,
        "queued_bytes": info.queued_bytes,
        "idle": info.idle / 1000,
        "remote": info.remote.decode("ascii"),
        "port": info.port,
    }


cdef fc_resume resume_of(object since) except *:
    if isinstance(since, list):
        return FC_RESUME_SINCE
    if since is None:
        return FC_RESUME_OFF
    return FC_RESUME_ALL if since == "all" else FC_RESUME_NEW


cdef int set_position(fc_position *position, tuple given) except -1:
    epoch, offset = given
    if len(<bytes?>epoch) != FC_EPOCH_SIZE:
        raise ValueError(f"an epoch has {FC_EPOCH_SIZE} characters")
    memcpy(position.epoch, <const char *>epoch, FC_EPOCH_SIZE)
    position.offset = offset
    return 0


cdef void note_channel(void *context, fc_span name, uint64_t members) noexcept with gil:
    cdef dict found = <dict>context
    cdef str key = text_of(name)
    found[key] = found.get(key, 0) + members  # those of its record come apart
