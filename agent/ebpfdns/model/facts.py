"""What was observed, as plain values: lookups, queries, connects, waits.

Owns: these types and their names.
Must not know: bytes (`decode`), time passing (`correlate`), causes (`diagnose`).
Times are CLOCK_MONOTONIC nanoseconds. None says that a thing was not observed, and is never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

#: in coverage.missing, where it is so
DROPS_UNSEEN = "packets that this host drops (a reply from another address, a firewall) are not seen"

#: unseen: it has ended, and how was not seen, for it began before tracing did
StatusWord = Literal["in_flight", "ok", "failed", "abandoned", "unseen"]
#: returned: whether with an answer or an error is not known
AttemptWord = Literal["running", "ok", "failed", "returned"]
LoopKind = Literal["epoll", "poll", "select"]


@dataclass(frozen=True, slots=True)
class Server:
    """Where a packet or connection goes."""

    address: str
    port: int

    @property
    def text(self) -> str:
        """As people write it: 192.0.2.1:53, [2001:db8::1]:53."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Query:
    """A DNS question on one socket to one server, with its repetitions; or an attempt at one that failed."""

    server: Server
    transport: Literal["udp", "tcp"] | None
    sent_ns: int
    sent_is_known: bool = True  # otherwise it left before tracing began, and sent_ns is later
    was_sent: bool = True  # a packet left; otherwise the kernel refused the connect or the send
    socket: int = 0  # equal numbers: the same socket
    name: bytes | None = None  # presentation form, lower-level bytes; None: cut, or never sent
    type: int | None = None
    id: int | None = None
    attempts: int = 1
    resent_ns: int | None = None
    reply_ns: int | None = None
    rcode: int | None = None
    answers: int | None = None
    truncated: bool = False
    settled: bool = False  # another server has answered the same question
    has_edns: bool = False  # something stands behind the question: an OPT record
    reply_bytes: int | None = None
    late_ns: int | None = None  # a reply came when the socket was closed
    dropped_ns: int | None = None  # a reply came, and this host's own firewall dropped it
    error: int | None = None  # errno the kernel gave the socket (111 ECONNREFUSED …)
    local_port: int | None = None
    #: how the attempt of Go's resolver that it belongs to stands; None: of another resolver
    attempt: AttemptWord | None = None

    @property
    def is_answered(self) -> bool:
        """Whether a reply to it has arrived."""
        return self.reply_ns is not None


@dataclass(frozen=True, slots=True)
class Wait:
    """What a thread waits in, and when it last came back from an epoll instance."""

    syscall: str | None  # epoll_wait, poll, …; None: in none of them
    since_ns: int | None = None
    last_loop: str | None = None  # the epoll call it last came back from; None: from none
    last_loop_fd: int | None = None
    last_loop_ns: int | None = None
    #: its event loop: what it came back from twice or more, and when last; None: it has none
    loop: LoopKind | None = None
    loop_return_ns: int | None = None
    is_in_loop: bool = False  # it waits there now
    pid: int = 0
    tid: int = 0

    def away_ns(self, now_ns: int) -> int | None:
        """For how long the thread has been away from its event loop; None when it has none, or is there."""
        if self.loop is None or self.loop_return_ns is None or self.is_in_loop:
            return None
        return max(0, now_ns - self.loop_return_ns)


@dataclass(frozen=True, slots=True)
class GoError:
    """A net.DNSError: what Go's resolver told its caller."""

    text: bytes  # its field Err
    server: bytes | None = None
    is_cut: bool = False
    is_timeout: bool = False
    is_temporary: bool = False
    is_not_found: bool = False


@dataclass(frozen=True, slots=True)
class Lookup:
    """One lookup, as last seen. `key` and `start_ns` together name it."""

    key: int
    start_ns: int
    pid: int
    tid: int
    host_pid: int
    api: str
    status: StatusWord
    name: bytes | None = None  # as the program asked; presentation form for wire lookups; None: not readable
    name_cut: bool = False
    address: str | None = None  # reverse lookups: what was asked for
    end_ns: int | None = None
    code: int | None = None  # the function's own error code, when it tells one
    family: Literal["inet", "inet6", "unspec"] | None = None
    service: bytes | None = None
    comm: bytes = b""
    queries: tuple[Query, ...] = ()
    more_queries: int = 0
    wrong_ids: int = 0  # replies that came to its sockets and fit no question
    wrong_questions: int = 0  # with the id of a question, to another one
    wrong_senders: int = 0  # with the right id, from an address that was not asked
    stray_sender: str | None = None  # the latest of these addresses
    addresses: tuple[str, ...] = ()
    more_addresses: int = 0
    nested_calls: int = 0
    descriptor_error: int | None = None  # EMFILE, ENFILE: a socket or file was refused inside it
    socket_closed: bool = False
    may_be_missed: bool = False  # a map was full: queries of it may be missing
    answer_unread: bool = False  # wire: its thread was away from its event loop when the answers came
    before_attach: bool = False  # then since start_ns it is known to have been in flight
    is_supporting: bool = False  # of a daemon that is followed, not of a target
    goroutine_id: int | None = None
    go_error: GoError | None = None

    @property
    def unexpected_replies(self) -> int:
        """All that its resolver must refuse."""
        return self.wrong_ids + self.wrong_questions + self.wrong_senders

    @property
    def is_wire(self) -> bool:
        """Whether it is known from packets only."""
        return self.api == "wire"

    @property
    def is_of_go(self) -> bool:
        """Whether a goroutine asked: through Go's own resolver, or through cgo."""
        return self.api in {"go", "cgo"}

    @property
    def is_of_unknown_code(self) -> bool:
        """Whether it may be a resolver of the program's own: no call was seen, nor found on a stack."""
        return self.api in {"wire", "none"}


@dataclass(frozen=True, slots=True)
class Connect:
    """One connect, as last seen."""

    key: int
    start_ns: int
    pid: int
    tid: int
    host_pid: int
    status: StatusWord
    server: Server | None = None
    path: bytes | None = None  # AF_UNIX; an abstract name begins with a NUL byte
    family: Literal["ipv4", "ipv6", "unix"] = "ipv4"
    transport: Literal["tcp", "udp", "unix"] | None = None
    end_ns: int | None = None
    error: int | None = None
    fd: int | None = None
    comm: bytes = b""
    in_lookup: bool = False
    non_blocking: bool = False
    refused_here: bool = False  # this host's own firewall drops what it sends
    tcp_state: str | None = None
    retransmits: int = 0
    lookup_key: int | None = None  # the lookup that gave this address
    lookup_start_ns: int | None = None
    lookup_name: bytes | None = None
    before_attach: bool = False  # then since start_ns it is known to have been in flight
    is_tls: bool = False  # the connection is up; what has no answer, or had none so long, is its ClientHello
    is_supporting: bool = False  # of a daemon that is followed, not of a target


@dataclass(frozen=True, slots=True)
class Sibling:
    """Another address that the lookup gave which gave a connect's own."""

    address: str
    connected_ns: int | None  # when the process last had a connection to it
    in_flight: bool  # a connect to it is stuck, too


@dataclass(frozen=True, slots=True)
class HopConnect:
    """A connection of a daemon to one of its servers: being made, or there."""

    server: Server
    is_up: bool
    begun_ns: int | None = None  # when its SYN left first; None: not seen
    hello_ns: int | None = None  # a ClientHello left then, and nothing has come since
    state: str | None = None
    retransmits: int | None = None
    bytes_sent: int | None = None
    bytes_received: int | None = None
    sent_ago_ns: int | None = None  # when data left last, and when some came last
    received_ago_ns: int | None = None
    is_silent: bool = False  # it is up, something was sent on it since our lookup began, and nothing comes


@dataclass(frozen=True, slots=True)
class Hop:
    """A process behind the one that asked, and what it waits for itself."""

    role: Literal["stub", "upstream", "daemon"]
    pid: int
    asked_at: str  # the address or path where it is asked
    name: str | None = None  # as the kernel calls it: cut after 15 bytes
    process_state: str | None = None  # R, S, T, …
    syscall: str | None = None
    queries: tuple[Query, ...] = ()  # its own open questions: for this name where there are such
    is_joined: bool = False  # `queries` are for the very name and type
    others_open: int = 0  # questions for other names that wait, too
    connects: tuple[HopConnect, ...] = ()
    past: tuple[Query, ...] = ()  # for the same name, and over: asked again otherwise, or given up
    dns_over_tls: str | None = None  # as configured: yes, opportunistic, no
    dnssec: str | None = None

    @property
    def is_resolved(self) -> bool:
        """Whether it is systemd-resolved."""
        return self.name is not None and self.name.startswith("systemd-resolve")

    @property
    def is_stopped(self) -> bool:
        """Whether it can do nothing at all."""
        return self.process_state in {"T", "t", "D", "Z"}


@dataclass(frozen=True, slots=True)
class ProcessEvent:
    """A traced process forked a child, or runs a new program."""

    change: Literal["forked", "execed"]
    at_ns: int
    pid: int
    parent_pid: int | None = None


@dataclass(frozen=True, slots=True)
class Other:
    """Another lookup of the same process that is stuck too, and what was last said of it."""

    id: str
    lookup: Lookup
    cause_id: str
    cause_summary: str


@dataclass(frozen=True, slots=True)
class Parent:
    """The target whose child a lookup is in that is not traced itself."""

    pid: int
    name: str | None
    syscall: str | None


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a rule may look at: one lookup or connect, at one moment, with what surrounds it."""

    now_ns: int
    lookup: Lookup | None = None
    connect: Connect | None = None
    #: the thread's snapshot: keys as `observe.snapshot` gives them; None: not taken
    thread: dict[str, Any] | None = None
    #: the target's /etc/resolv.conf as it is now (`observe.resolv_conf`); None: not read
    resolv_conf: dict[str, Any] | None = None
    #: wall clock at now_ns, and when the process began; None: not known
    now_wall_ns: int | None = None
    process_started_wall_ns: int | None = None
    #: the whole process's snapshot: keys as `observe.process_snapshot` gives them; None: not taken
    process: dict[str, Any] | None = None
    others: tuple[Other, ...] = ()  # the oldest first
    first_of_name: Other | None = None  # of those with its very name, and before it; of a storm, too
    siblings: tuple[Sibling, ...] = ()  # of a connect's address
    parent: Parent | None = None  # the lookup is in a child of this target
    chain: tuple[Hop, ...] = ()  # who is behind the one that was asked, in order
    #: of the systemd-resolved that is followed: dns_over_tls, dnssec
    stub_settings: dict[str, Any] = field(default_factory=dict)
    wait: Wait | None = None  # of its thread; None: it never waited in epoll, poll or select
    #: "udp:40001" → {fd, rx_queue_bytes} of the sockets that it asked from; what is not there was not found
    queues: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: address → plain_ns, edns_ns: when the server last answered the process each kind of question
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: calls into libc's resolver that are in flight in the process; None: not counted
    libc_calls: int | None = None
    resolver: str = "unknown"  # glibc, musl, go, unknown
    wire: bool = True  # coverage: DNS packets are seen
    lost: dict[str, int] = field(default_factory=dict)  # loss counters that moved since the lookup began
    missing: tuple[str, ...] = ()  # coverage.missing
