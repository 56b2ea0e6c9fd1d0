# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False
"""The door to the load client: converts options and results, releases the GIL, turns errno into exceptions.

Nothing here loops over connections or messages, makes a system call, or knows the protocol.
"""

import errno as _errno
import json as _json

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t, uint64_t
from libc.stdio cimport FILE, fclose
from libc.stdlib cimport free, malloc

cdef extern from "<stdio.h>":
    FILE *open_memstream(char **text, size_t *size) nogil

cdef extern from "load.h":
    const size_t FC_LOAD_PROBLEM
    const char *fc_load_phase_names[]

    enum fc_load_phase:
        pass

    enum fc_load_expect:
        FC_LOAD_EXPECT_ALL
        FC_LOAD_EXPECT_SENDER
        FC_LOAD_EXPECT_ANY

    struct fc_histogram:
        pass

    struct fc_load_tally_row:
        char name[48]
        uint64_t count

    struct fc_load_tally:
        fc_load_tally_row rows[24]
        unsigned used

    struct fc_load_snapshot:
        fc_load_phase phase
        double seconds
        uint64_t made
        uint64_t failed
        uint64_t open
        uint64_t in_progress
        uint64_t waiting
        uint64_t closed_unexpectedly
        uint64_t sent
        uint64_t received
        uint64_t duplicated
        uint64_t reordered
        uint64_t damaged
        uint64_t unexpected
        const fc_load_tally *failures
        const fc_load_tally *retried
        const fc_histogram *latency
        const fc_histogram *handshake
        bint server_known
        double server_seconds
        uint64_t server_pss
        uint64_t server_rss
        unsigned server_threads
        uint64_t kernel_tcp
        uint64_t kernel_slab
        double client_seconds

    struct fc_load_arrival:
        uint32_t count
        double rate

    struct fc_load_options:
        const char *url
        uint32_t connections
        uint32_t threads
        const char *sources
        double connect_rate
        uint32_t connect_window
        const fc_load_arrival *arrivals
        uint32_t arrivals_used
        double handshake_timeout
        double retry
        bint storm
        bint storm_reset
        uint32_t senders
        uint32_t messages
        fc_load_expect expect
        uint32_t in_flight
        double rate
        double think
        bint think_fixed
        uint32_t sender_base
        uint32_t senders_total
        uint32_t size
        bint text
        uint32_t stalled
        double churn
        double hold
        double settle
        double timeout
        double patience
        int server_pid
        bint check_heads_only
        const char *headers
        const char *subprotocol
        int (*progress)(void *context, const fc_load_snapshot *snapshot) noexcept nogil
        int (*cancelled)(void *context) noexcept nogil
        int (*gate)(void *context, fc_load_phase phase) noexcept nogil
        double interval
        void *context

    struct fc_load_histograms:
        fc_histogram latency
        fc_histogram first_receiver
        fc_histogram last_receiver
        fc_histogram spread
        fc_histogram handshake
        fc_histogram storm_handshake
        fc_histogram storm_back

    struct fc_load_report:
        fc_load_histograms histograms

    void fc_load_options_init(fc_load_options *options)
    int fc_load_run(const fc_load_options *options, fc_load_report *report, char *problem, size_t room) nogil
    int fc_load_report_write(const fc_load_report *report, FILE *out) nogil
    bint fc_histogram_next(const fc_histogram *histogram, unsigned *at, uint64_t *value, uint64_t *count)


cdef dict _EXPECTATIONS = {
    "all": FC_LOAD_EXPECT_ALL,
    "sender": FC_LOAD_EXPECT_SENDER,
    "any": FC_LOAD_EXPECT_ANY,
}


cdef list pairs_of(const fc_histogram *histogram):
    cdef unsigned at = 0
    cdef uint64_t value = 0
    cdef uint64_t count = 0
    cdef list pairs = []
    while fc_histogram_next(histogram, &at, &value, &count):
        pairs.append([value, count])
    return pairs


cdef dict tally_of(const fc_load_tally *tally):
    # Cython's C forgets that the array in a constant struct is constant.
    cdef fc_load_tally *rows = <fc_load_tally *>tally
    return {rows.rows[i].name.decode("utf-8", "replace"): rows.rows[i].count for i in range(rows.used)}


cdef dict dict_of(const fc_load_snapshot *snapshot):
    cdef object server = None
    if snapshot.server_known:
        server = {
            "cpu_seconds": snapshot.server_seconds,
            "pss": snapshot.server_pss,
            "rss": snapshot.server_rss,
            "threads": snapshot.server_threads,
        }
    return {
        "phase": fc_load_phase_names[<int>snapshot.phase].decode("ascii"),
        "seconds": snapshot.seconds,
        "connections": {
            "made": snapshot.made,
            "failed": snapshot.failed,
            "open": snapshot.open,
            "closed_unexpectedly": snapshot.closed_unexpectedly,
            "in_progress": snapshot.in_progress,
            "waiting": snapshot.waiting,
        },
        "failures": tally_of(snapshot.failures),
        "retried": tally_of(snapshot.retried),
        "sent": snapshot.sent,
        "received": snapshot.received,
        "duplicated": snapshot.duplicated,
        "reordered": snapshot.reordered,
        "damaged": snapshot.damaged,
        "unexpected": snapshot.unexpected,
        "latency": pairs_of(snapshot.latency),
        "handshake": pairs_of(snapshot.handshake),
        "server": server,
        "kernel": {"tcp": snapshot.kernel_tcp, "slab": snapshot.kernel_slab},
        "client": {"cpu_seconds": snapshot.client_seconds},
    }


cdef class _Run:
    """What a run borrows from Python: its callbacks, the exception that one of them raised, its text and lists."""

    cdef object progress
    cdef object gate
    cdef BaseException error
    cdef list kept
    cdef fc_load_arrival *arrivals

    def __cinit__(self):
        self.kept = []
        self.arrivals = NULL

    def __dealloc__(self):
        free(self.arrivals)

    cdef const char *keep(self, str name, object value) except? NULL:
        if value is None:
            return NULL
        if not isinstance(value, str):
            raise TypeError(f"{name} is a str, not {type(value).__name__}")
        cdef bytes text = (<str>value).encode("utf-8")
        if b"\0" in text:
            raise ValueError(f"{name} has a NUL in it")
        self.kept.append(text)
        return text

    cdef int keep_arrivals(self, fc_load_options *options, object value) except -1:
        cdef list batches = list(value)
        cdef size_t i
        free(self.arrivals)
        self.arrivals = <fc_load_arrival *>malloc((len(batches) + 1) * sizeof(fc_load_arrival))
        if self.arrivals == NULL:
            raise MemoryError()
        for i in range(<size_t>len(batches)):
            count, rate = batches[i]
            self.arrivals[i].count = count
            self.arrivals[i].rate = rate
        options.arrivals = self.arrivals
        options.arrivals_used = <uint32_t>len(batches)
        return 0

    cdef int set(self, fc_load_options *options, str name, object value) except -1:
        if name == "url": options.url = self.keep(name, value)
        elif name == "connections": options.connections = value
        elif name == "threads": options.threads = value
        elif name == "sources": options.sources = self.keep(name, value)
        elif name == "connect_rate": options.connect_rate = value
        elif name == "connect_window": options.connect_window = value
        elif name == "arrivals": self.keep_arrivals(options, value)
        elif name == "handshake_timeout": options.handshake_timeout = value
        elif name == "retry": options.retry = value
        elif name == "storm": options.storm = value
        elif name == "storm_reset": options.storm_reset = value
        elif name == "senders": options.senders = value
        elif name == "messages": options.messages = value
        elif name == "expect":
            if value not in _EXPECTATIONS:
                raise ValueError(f"expect is all, sender or any, not {value}")
            options.expect = _EXPECTATIONS[value]
        elif name == "in_flight": options.in_flight = value
        elif name == "rate": options.rate = value
        elif name == "think": options.think = value
        elif name == "think_fixed": options.think_fixed = value
        elif name == "sender_base": options.sender_base = value
        elif name == "senders_total": options.senders_total = value
        elif name == "size": options.size = value
        elif name == "text": options.text = value
        elif name == "stalled": options.stalled = value
        elif name == "churn": options.churn = value
        elif name == "hold": options.hold = value
        elif name == "settle": options.settle = value
        elif name == "timeout": options.timeout = value
        elif name == "patience": options.patience = value
        elif name == "server_pid": options.server_pid = value or 0
        elif name == "check_heads_only": options.check_heads_only = value
        elif name == "headers": options.headers = self.keep(name, value)
        elif name == "subprotocol": options.subprotocol = self.keep(name, value)
        else:
            raise TypeError(f"there is no option {name!r}")
        return 0


# The first exception ends the run, and is raised when it has ended: no callback is asked again after it.

cdef int on_progress(void *context, const fc_load_snapshot *snapshot) noexcept with gil:
    cdef _Run run = <_Run>context
    if run.error is not None:
        return -1
    try:
        return 1 if run.progress(dict_of(snapshot)) else 0
    except BaseException as error:
        run.error = error
        return -1


cdef int on_gate(void *context, fc_load_phase phase) noexcept with gil:
    cdef _Run run = <_Run>context
    if run.error is not None:
        return -1
    try:
        return 1 if run.gate(fc_load_phase_names[<int>phase].decode("ascii")) else 0
    except BaseException as error:
        run.error = error
        return -1


cdef int on_turn(void *context) noexcept with gil:
    cdef _Run run = <_Run>context
    if run.error is None:
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            run.error = error
    return 0 if run.error is None else -1


def run(options, progress=None, gate=None, interval=0.5):
    """Put a WebSocket server under load, and say what became of every connection and every message.

    ``options`` are fields of ``struct fc_load_options`` in ``load/load.h``, by name: times in seconds, rates per
    second, sizes in bytes. ``arrivals`` is a list of (count, rate), ``expect`` is ``"all"``, ``"sender"`` or
    ``"any"``. ``progress`` gets a snapshot every ``interval`` seconds and one at the end; a true answer ends the
    run early. ``gate`` is asked before each phase, by its name, until it answers with something true.

    Returns the report. Raises TypeError for an unknown option, ValueError for a bad value and for options that
    contradict each other, OSError with one line when the run can't start, and whatever a callback raised.
    """
    cdef fc_load_options given
    cdef fc_load_report *report
    cdef char *text = NULL
    cdef size_t size = 0
    cdef FILE *out
    cdef int code
    cdef _Run held = _Run()
    cdef bytearray problem = bytearray(FC_LOAD_PROBLEM)
    cdef char *line = problem
    cdef size_t room = FC_LOAD_PROBLEM

    fc_load_options_init(&given)
    for name, value in options.items():
        try:
            held.set(&given, name, value)
        except OverflowError:
            raise ValueError(f"{name} is out of range: {value}") from None
    held.progress = progress
    held.gate = gate
    if progress is not None:
        given.progress = on_progress
    if gate is not None:
        given.gate = on_gate
    given.cancelled = on_turn
    given.interval = interval
    given.context = <void *>held

    report = <fc_load_report *>malloc(sizeof(fc_load_report))
    if report == NULL:
        raise MemoryError()
    try:
        with nogil:
            code = fc_load_run(&given, report, line, room)
        if held.error is not None:
            raise held.error
        if code == -_errno.EINVAL:
            raise ValueError(line.decode("utf-8", "replace"))
        if code != 0:
            raise OSError(-code, line.decode("utf-8", "replace"))
        out = open_memstream(&text, &size)
        if out == NULL:
            raise MemoryError()
        code = fc_load_report_write(report, out)
        fclose(out)
        if code != 0:
            raise MemoryError()
        result = _json.loads(text[:size])
        result["histograms"] = {
            "latency": pairs_of(&report.histograms.latency),
            "handshake": pairs_of(&report.histograms.handshake),
            "first_receiver": pairs_of(&report.histograms.first_receiver),
            "last_receiver": pairs_of(&report.histograms.last_receiver),
            "spread": pairs_of(&report.histograms.spread),
            "storm_handshake": pairs_of(&report.histograms.storm_handshake),
            "storm_back": pairs_of(&report.histograms.storm_back),
        }
        return result
    finally:
        free(text)
        free(report)
