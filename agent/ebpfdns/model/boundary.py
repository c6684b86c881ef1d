"""The mirror of bpf/events.h: name, type and order of every field of every struct that crosses over.

Owns: the byte layouts and the numbers of the enums. Must not know: what a field means beyond its type.
A test compiles events.h and compares size and offset of every field by name; nothing else may spell a layout.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LOOKUP_NAME_BYTES = 256
SERVICE_BYTES = 32
QUERY_NAME_BYTES = 92
GIVEN_NAME_BYTES = 128
PATH_BYTES = 108
COMM_BYTES = 16
MAX_QUERIES = 8
MAX_ADDRESSES = 8
STRAY_SENDER = 7
SOCKET_OPEN_KEYS = 8
MAX_UNREAD = 8
WAIT_ON_SEVERAL, WAIT_ON_ONE = -1, -2
LOOP_RETURNS = 2
HISTOGRAM_SHIFT = 10
HISTOGRAM_BUCKETS = 28
#: in the key of a call, lookup or connect that was under way when tracing began
EARLIER_BIT = 1 << 62
#: the highest bit in the key of a goroutine's call: behind it the host pid, and the goroutine's id
GO_BIT = 1 << 61
GO_ID_BITS = 39
GO_SERVER_BYTES = 24
GO_ERROR_BYTES = 112
GO_COOKIE_ID, GO_COOKIE_PARENT, GO_COOKIE_TEXT, GO_COOKIE_ERROR = 8, 20, 32, 38


class Layout:
    """One struct: `fields` are (name, struct code) in order; padding fields are named `pad…`."""

    def __init__(self, name: str, fields: Iterable[tuple[str, str]]) -> None:
        self.name = name
        self.fields = tuple(fields)
        self._struct = struct.Struct("=" + "".join(code for _, code in self.fields))
        self.size = self._struct.size
        kept = [field for field, code in self.fields if "x" not in code]
        made: Any = namedtuple(name, kept)  # type: ignore[misc]  # noqa: PYI024 - from data
        self._make = made._make

    def unpack(self, raw: bytes | memoryview, offset: int = 0) -> Any:  # noqa: ANN401 - a tuple with these names
        """The fields at `offset`; struct.error when `raw` is too short."""
        return self._make(self._struct.unpack_from(raw, offset))

    def pack(self, **values: Any) -> bytes:  # noqa: ANN401 - numbers and bytes
        """The bytes with these fields, all others zero."""
        blank = self.unpack(bytes(self.size))
        return self._struct.pack(*blank._replace(**values))

    def offsets(self) -> Iterator[tuple[str, int, int]]:
        """(field, offset, size) of every field, as the test wants them."""
        at = 0
        for field, code in self.fields:
            size = struct.calcsize("=" + code)
            yield field, at, size
            at += size


def go_key(host_pid: int, goroutine_id: int) -> int:
    """The key of a goroutine's call."""
    return GO_BIT | host_pid << GO_ID_BITS | goroutine_id & (1 << GO_ID_BITS) - 1


def go_host_pid(key: int) -> int:
    """The host pid in the key of a goroutine's call."""
    return (key & (GO_BIT - 1)) >> GO_ID_BITS


def is_go_key(key: int) -> bool:
    """Whether it is the key of a goroutine's call."""
    return key >> GO_BIT.bit_length() - 1 == 1


class FrameKind(IntEnum):
    """First word of a frame."""

    LOOKUP = 1
    CONNECT = 2
    PROCESS = 3


class Api(IntEnum):
    """The function that was called."""

    NONE = 0
    GETADDRINFO = 1
    GETHOSTBYNAME = 2
    GETHOSTBYNAME2 = 3
    GETHOSTBYNAME_R = 4
    GETHOSTBYNAME2_R = 5
    GETHOSTBYADDR = 6
    GETHOSTBYADDR_R = 7
    GETNAMEINFO = 8
    RES_QUERY = 9
    RES_SEARCH = 10
    RES_SEND = 11
    RES_NQUERY = 12
    RES_NSEARCH = 13
    RES_NSEND = 14
    WIRE = 15
    UV_GETADDRINFO = 16
    GO = 17
    CGO = 18


class Status(IntEnum):
    """How a lookup or connect stands."""

    IN_FLIGHT = 0
    OK = 1
    FAILED = 2
    ABANDONED = 3
    UNSEEN = 4


class LookupFlag(IntEnum):
    """lookup.flags."""

    NAME_CUT = 1
    NAME_UNREAD = 2
    NAME_IS_WIRE = 4
    NAME_IS_ADDRESS = 8
    CODE_IS_KNOWN = 16
    SOCKET_CLOSED = 32
    MAY_BE_MISSED = 64
    ANSWER_UNREAD = 128
    BEFORE_ATTACH = 256
    GOES_BY_TCP = 512
    LEFT = 1024
    MOVED = 2048
    MAY_ASK_AGAIN = 4096
    SUPPORTING = 1048576
    ERROR_CUT = 2097152
    GOES_ON = 4194304


class QueryFlag(IntEnum):
    """query.flags."""

    ANSWERED = 1
    TRUNCATED = 2
    NAME_CUT = 4
    NO_MESSAGE = 8
    SETTLED = 16
    EDNS = 32
    LATE = 64
    REPLY_REFUSED = 128


class Attempt(IntEnum):
    """query.attempt: how a query stands for Go's resolver."""

    NONE = 0
    RUNNING = 1
    OK = 2
    FAILED = 3
    RETURNED = 4


class GoErrorFlag(IntEnum):
    """lookup.code of a goroutine's lookup that failed: what its DNSError says."""

    IS_TIMEOUT = 1
    IS_TEMPORARY = 2
    IS_NOT_FOUND = 4


class Role(IntEnum):
    """call.role."""

    FLIGHT = 1
    ATTEMPT = 2
    JOINED = 4


class GoFunctionKind(IntEnum):
    """What a probe on a Go function is at."""

    NOTHING = 0
    LOOKUP_IP_ADDR = 1
    LOOKUP_HOST = 2
    LOOKUP_CNAME = 3
    LOOKUP_SRV = 4
    LOOKUP_RECORDS = 5
    FLIGHT = 6
    EXCHANGE = 7
    ROUND_TRIP = 8
    STREAM_ROUND_TRIP = 9
    CALL_LIBC = 10


class ConnectFlag(IntEnum):
    """connect.flags."""

    IN_LOOKUP = 1
    NON_BLOCKING = 2
    HAS_LOOKUP = 4
    PATH_IS_ABSTRACT = 8
    IS_LINK = 16
    IS_TLS = 32
    BEFORE_ATTACH = 64
    REFUSED_HERE = 128
    SUPPORTING = 1048576


class WaitKind(IntEnum):
    """The system call a thread waits in."""

    EPOLL_WAIT = 0
    EPOLL_PWAIT = 1
    EPOLL_PWAIT2 = 2
    POLL = 3
    PPOLL = 4
    SELECT = 5
    PSELECT6 = 6


class ProcessChange(IntEnum):
    """process_change.change."""

    FORKED = 1
    EXECED = 2


class Counter(IntEnum):
    """Index of the map `counters`."""

    LOOKUPS_STARTED = 0
    LOOKUPS_OK = 1
    LOOKUPS_FAILED = 2
    LOOKUPS_ABANDONED = 3
    CONNECTS_STARTED = 4
    CONNECTS_OK = 5
    CONNECTS_FAILED = 6
    CONNECTS_ABANDONED = 7
    QUERIES_SENT = 8
    QUERIES_ANSWERED = 9
    QUERIES_UNANSWERED = 10
    FRAMES_SUBMITTED = 11
    FRAMES_KEPT = 12
    LOST_RING_FULL = 13
    LOST_CALLS_FULL = 14
    LOST_LOOKUPS_FULL = 15
    LOST_SOCKETS_FULL = 16
    LOST_CONNECTS_FULL = 17
    LOST_WAITS_FULL = 18
    LOST_NAMES_CUT = 19
    LOST_MEMORY_UNREAD = 20
    LOST_PACKETS_ODD = 21
    LOST_SOCKET_KEYS_FULL = 22
    LOST_TARGETS_FULL = 23
    HANDSHAKES_STARTED = 24
    HANDSHAKES_ENDED = 25
    LOOKUPS_UNSEEN = 26
    CONNECTS_UNSEEN = 27


class Latency(IntEnum):
    """Row of the map `histogram`; waits follow, one row a `WaitKind`."""

    LOOKUP = 0
    CONNECT = 1
    QUERY = 2
    WAIT = 3


LATENCIES = Latency.WAIT + len(WaitKind)

QUERY = Layout(
    "query",
    (
        ("socket", "Q"),
        ("sent_ns", "Q"),
        ("resent_ns", "Q"),
        ("reply_ns", "Q"),
        ("server", "16s"),
        ("server_port", "H"),
        ("id", "H"),
        ("type", "H"),
        ("answers", "H"),
        ("error", "i"),
        ("family", "B"),
        ("transport", "B"),
        ("attempts", "B"),
        ("rcode", "B"),
        ("flags", "B"),
        ("name_bytes", "B"),
        ("name", f"{QUERY_NAME_BYTES}s"),
        ("local_port", "H"),
        ("question_hash", "I"),
        ("reply_bytes", "H"),
        ("attempt", "B"),
        ("pad", "x"),
    ),
)

#: struct lookup without its queries, which follow it
LOOKUP = Layout(
    "lookup",
    (
        ("kind", "I"),
        ("flags", "I"),
        ("key", "Q"),
        ("start_ns", "Q"),
        ("end_ns", "Q"),
        ("pid", "I"),
        ("tid", "I"),
        ("host_pid", "I"),
        ("host_tid", "I"),
        ("code", "i"),
        ("more_answered", "H"),
        ("descriptor_error", "B"),
        ("wrong_senders", "B"),
        ("family", "H"),
        ("more_queries", "H"),
        ("wrong_ids", "B"),
        ("wrong_questions", "B"),
        ("name_bytes", "H"),
        ("api", "B"),
        ("status", "B"),
        ("query_count", "B"),
        ("address_count", "B"),
        ("more_addresses", "B"),
        ("nested_calls", "B"),
        ("is_expected", "B"),
        ("answered", "B"),
        ("comm", f"{COMM_BYTES}s"),
        ("service", f"{SERVICE_BYTES}s"),
        ("name", f"{LOOKUP_NAME_BYTES}s"),
        ("address_families", f"{MAX_ADDRESSES}s"),
        ("addresses", f"{MAX_ADDRESSES * 16}s"),
    ),
)
LOOKUP_BYTES = LOOKUP.size + MAX_QUERIES * QUERY.size

CALL = Layout(
    "call",
    (
        ("start_ns", "Q"),
        ("stack", "Q"),
        ("name", "Q"),
        ("service", "Q"),
        ("hints", "Q"),
        ("result", "Q"),
        ("code_at", "Q"),
        ("pid", "I"),
        ("tid", "I"),
        ("family", "I"),
        ("name_size", "I"),
        ("api", "B"),
        ("has_record", "B"),
        ("is_paused", "B"),
        ("nested_calls", "B"),
        ("descriptor_error", "B"),
        ("is_earlier", "B"),
        ("role", "B"),
        ("function", "B"),
    ),
)

#: what `service` of a goroutine's lookup holds
GO_PART = Layout("go_part", (("goroutine", "Q"), ("server", f"{GO_SERVER_BYTES}s")))

CONNECT = Layout(
    "connect",
    (
        ("kind", "I"),
        ("flags", "I"),
        ("key", "Q"),
        ("start_ns", "Q"),
        ("end_ns", "Q"),
        ("pid", "I"),
        ("tid", "I"),
        ("host_pid", "I"),
        ("host_tid", "I"),
        ("error", "i"),
        ("fd", "I"),
        ("family", "H"),
        ("port", "H"),
        ("transport", "B"),
        ("status", "B"),
        ("tcp_state", "B"),
        ("path_bytes", "B"),
        ("retransmits", "I"),
        ("lookup_tid", "I"),
        ("lookup_start_ns", "Q"),
        ("lookup_key", "Q"),
        ("comm", f"{COMM_BYTES}s"),
        ("lookup_name", f"{GIVEN_NAME_BYTES}s"),
        ("address", "16s"),
        ("path", f"{PATH_BYTES}s"),
        ("pad", "4x"),
    ),
)

WAIT = Layout(
    "wait",
    (
        ("start_ns", "Q"),
        ("last_return_ns", "Q"),
        ("pid", "I"),
        ("tid", "I"),
        ("fd", "i"),
        ("last_fd", "i"),
        ("wait_kind", "B"),
        ("last_kind", "B"),
        ("has_unread", "B"),
        ("pad_1", "1x"),
        ("returns", "H"),
        ("set_size", "H"),
        ("set", "Q"),
    ),
)

UNREAD = Layout("unread", (("keys", f"{MAX_UNREAD * 8}s"),))

PROCESS_CHANGE = Layout(
    "process_change",
    (("kind", "I"), ("change", "I"), ("at_ns", "Q"), ("pid", "I"), ("parent_pid", "I")),
)

DNS_SOCKET = Layout(
    "dns_socket",
    (
        ("socket", "Q"),
        ("call_key", "Q"),
        ("open_keys", f"{SOCKET_OPEN_KEYS * 8}s"),
        ("pid", "I"),
        ("tid", "I"),
        ("server", "16s"),
        ("server_port", "H"),
        ("family", "B"),
        ("transport", "B"),
        ("next_sent_seq", "I"),
        ("next_received_seq", "I"),
        ("sent_pending", "H"),
        ("received_pending", "H"),
        ("has_sent_seq", "B"),
        ("has_received_seq", "B"),
        ("has_part", "B"),
        ("is_supporting", "B"),
        ("part_id", "H"),
        ("part_bits", "H"),
        ("part_answers", "H"),
        ("pad_2", "2x"),
        ("more_open", "I"),
    ),
)

HISTOGRAM_ROW = Layout("histogram_row", (("sum_ns", "Q"), ("count", f"{HISTOGRAM_BUCKETS * 8}s")))
SETTINGS = Layout("settings", (("slow_after_ns", "Q"), ("publish_all", "I"), ("target_count", "I")))

LAYOUTS = (
    *(QUERY, LOOKUP, CALL, GO_PART, CONNECT, WAIT, UNREAD),
    *(PROCESS_CHANGE, DNS_SOCKET, HISTOGRAM_ROW, SETTINGS),
)
#: enums whose names and numbers are the header's, after their prefix there
ENUMS = {
    FrameKind: "FRAME_",
    Api: "API_",
    Status: "STATUS_",
    LookupFlag: "LOOKUP_",
    QueryFlag: "QUERY_",
    Attempt: "ATTEMPT_",
    GoErrorFlag: "GO_ERROR_",
    Role: "ROLE_",
    GoFunctionKind: "GO_",
    ConnectFlag: "CONNECT_",
    WaitKind: "WAIT_",
    ProcessChange: "PROCESS_",
    Counter: "",
    Latency: "LATENCY_",
}
