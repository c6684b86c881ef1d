"""The schema of what is not one lookup: targets, event loops, statistics, losses.

Owns: every field below `target`, `event_loop`, `stats` and `lost`.
Must not know: lookups (beyond a link to one), causes, how anything is counted.
"""

from __future__ import annotations

from ebpfdns.publish.schema.participants import (
    GO_RESOLVERS,
    PURPOSES,
    lookup_link,
    server,
    timestamp,
    transport,
)
from ebpfdns.publish.schema.terms import (
    Schema,
    choice,
    count,
    flag,
    items,
    measure,
    or_null,
    record,
    ref,
    text,
)

TARGET_ROLES = {"supporting": "a local daemon that targets ask for names: what it asks itself is in `chain`."}
TARGET_STATUS = {
    "attached": "tracing has begun.",
    "exited": "the process has ended.",
    "detached": "tracing has ended, the process goes on.",
}
LOOP_KINDS = {
    "epoll": "it waits in epoll_wait or its kin.",
    "poll": "it waits in poll or ppoll.",
    "select": "it waits in select or pselect6.",
}
THREAD_STATES = {
    "R": "running, or ready to run.",
    "S": "asleep, can be woken.",
    "D": "asleep in the kernel, cannot be woken.",
    "T": "stopped by a signal.",
    "t": "stopped by a debugger.",
    "Z": "ended, not yet waited for.",
    "X": "dead.",
    "I": "idle.",
}
WAIT_KINDS = ("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6")


def target() -> Schema:
    """A traced process, and how much of it can be seen."""
    coverage = record(
        "What of this process can be seen.",
        {
            "libc": or_null(text("The C library and its version.", examples=["glibc 2.36", "musl 1.2.3"])),
            "go": or_null(text("The Go release it was built with.", examples=["go1.27.3"])),
            "go_resolver": or_null(
                choice(
                    "Which resolver a Go program takes for an ordinary name; null: not Go, or not known.",
                    GO_RESOLVERS,
                )
            ),
            "wire": flag("Whether DNS questions and answers themselves are seen."),
            "missing": items(
                "What cannot be seen, and why; empty when nothing is missing.", text("A sentence.")
            ),
        },
        {
            "go_resolver_why": items(
                "What decides `go_resolver`: build, environment, files; only of Go programs.",
                text("A sentence."),
            ),
        },
    )
    return record(
        "The traced process.",
        {"status": choice("What happened to it.", TARGET_STATUS), "coverage": coverage},
        {"role": choice("Why it is traced; absent where that was asked for.", TARGET_ROLES)},
    )


def event_loop() -> Schema:
    """A thread that owes its event loop a visit."""
    socket = record(
        "What it is connected to.",
        {
            "server": or_null(server()),
            "network": or_null(record("The way it takes.", {"transport": transport()})),
        },
    )
    ready = record(
        "Something that waits for the thread.",
        {
            "fd": count("File descriptor number in the process."),
            "socket": or_null(socket),
            "purpose": or_null(choice("What it is for.", PURPOSES)),
            "rx_queue_bytes": or_null(count("Bytes that have arrived and were not read.")),
            "ready_ms": or_null(measure("For how long it has been ready, at the least.")),
        },
    )
    doing = record(
        "What the thread does instead.",
        {
            "state": or_null(choice("Its state, as in /proc.", THREAD_STATES)),
            "syscall": or_null(text("The system call it is in; null: none, or not observed.")),
            "throttled_ms": or_null(measure("For how long its cgroup was out of CPU time meanwhile.")),
        },
    )
    return record(
        "An event loop that is not served.",
        {
            "update": count("1 in the first line about this absence, then 2, 3 …", at_least=1),
            "kind": choice("How it waits for events.", LOOP_KINDS),
            "fd": or_null(count("The epoll file descriptor; null with poll and select.")),
            "away_ms": measure("For how long the thread has not come back."),
            "last_return": or_null(timestamp("When it last got events.")),
            "ready": items("What has been waiting for it.", ready),
            "doing": doing,
            "lookup": or_null(lookup_link("The lookup that this holds up; null when none is known.")),
        },
    )


def lost() -> Schema:
    """What was dropped."""
    where = text(
        "The stage that dropped it: `kernel_ring`: the ring buffer was full. `kernel_map`: a map was full. "
        "`output`: the reader was too slow, or the disk full. Others as named in `stats.lost`.",
        pattern="^[a-z][a-z0-9_]*$",
        examples=["kernel_ring", "kernel_map", "output"],
    )
    return record(
        "What was dropped.",
        {
            "where": where,
            "count": count("How many since the last such line about this stage.", at_least=1),
            "since": timestamp("From when on."),
            "remedy": text("The option or command to try."),
        },
    )


def histogram() -> Schema:
    """How long something took, in buckets."""
    bucket = {
        "description": "An upper bound in ms, and how many took that long or less (cumulative).",
        "type": "array",
        "prefixItems": [measure("Upper bound, ms."), count("How many took at most that long.")],
        "items": False,
        "minItems": 2,
    }
    return record(
        "How long things took.",
        {
            "buckets": items("Rising bounds; what took longer than the last is only in `count`.", bucket),
            "sum": or_null(measure("All of them together, ms.")),
            "count": count("How many."),
        },
    )


def stats() -> Schema:
    """Counters since the agent's start."""
    waits = {kind: ref("histogram", f"Waits in {kind}.") for kind in WAIT_KINDS}
    latency = {
        "lookup": or_null(ref("histogram", "From a lookup's start to its end.")),
        "connect": or_null(ref("histogram", "From a connect's start to its end.")),
        "query": or_null(ref("histogram", "From a question's first sending to its answer.")),
    }
    return record(
        "Counters since `since`; each is exact, and null where this kernel cannot give it.",
        {
            "since": timestamp("When counting began."),
            "targets": _counter("Processes traced now."),
            "lookups": _counters("Lookups.", *ENDS, may=("end_unseen",)),
            "connects": _counters("Connects.", *ENDS, may=("end_unseen",)),
            "queries": _counters("DNS questions.", "sent", "answered", "unanswered"),
            "latency_ms": record(
                "Latency histograms.",
                {**latency, "event_loop_wait": record("Waits of event loops, by system call.", {}, waits)},
            ),
            "lost": {
                "description": "What was dropped, by stage: the names of `lost.where`.",
                "type": "object",
                "propertyNames": {"pattern": "^[a-z][a-z0-9_]*$"},
                "additionalProperties": count("How many."),
            },
            "agent": _agent(),
        },
    )


ENDS = ("started", "ok", "failed", "abandoned", "stuck", "in_flight")
COUNTERS = {
    "started": "began, or were found in flight when tracing began.",
    "ok": "ended with a result.",
    "failed": "ended with an error.",
    "abandoned": "were left unfinished: their socket was closed, or thread and process went away.",
    "stuck": "were in flight for `--stuck-after` or longer.",
    "in_flight": "have not ended yet.",
    "end_unseen": "began before tracing and ended without a sign of how; absent when none did.",
    "sent": "were sent.",
    "answered": "got an answer.",
    "unanswered": "got none before their lookup ended or the resolver gave up.",
}


def _counter(description: str) -> Schema:
    return or_null(count(description))


def _counters(what: str, *names: str, may: tuple[str, ...] = ()) -> Schema:
    always, sometimes = (
        {name: _counter(f"How many {COUNTERS[name]}") for name in some} for some in (names, may)
    )
    return record(what, always, sometimes)


def _agent() -> Schema:
    bpf = record(
        "Its programs in the kernel.",
        {
            "run_ms": or_null(measure("CPU time they took.")),
            "runs": _counter("How often they ran."),
            "map_bytes": _counter("Memory of their maps."),
        },
    )
    return record(
        "What the agent itself costs.",
        {
            "cpu_ms": or_null(measure("CPU time of its process.")),
            "rss_bytes": _counter("Its resident memory."),
            "bpf": bpf,
        },
    )
