"""The text that is compiled: where bpf/ lies, in which order its files go together, and the sizes of maps.

Owns: the list of files (a new one is one line here) and the definitions in front of them.
Must not know: bcc, or what the programs do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebpfdns.observe.drops import DropLayout, drop_layout
from ebpfdns.observe.host import INITIAL_PIDNS_INODE
from ebpfdns.observe.socket_places import SocketPlaces, socket_places

if TYPE_CHECKING:
    from ebpfdns.observe.host import Host

#: Concatenated, because BCC rewrites map operations in the main text only; each needs those above it.
FILES = (
    *("maps", "targets", "records", "lookups", "descriptors", "thread_pools", "goroutines", "go"),
    *("connects", "dns_sockets", "tcp_states", "packets", "handshakes", "exchanges"),
    *("queries", "wire_lookups", "questions", "replies", "wire", "sockets", "drops", "waits", "lifetimes"),
)

CURRENT_IN_PACKETS_SINCE = LINKED_CALLS_SINCE = (6, 10)
#: x86: a function with a return probe ends in uretprobe(), which seccomp filters before 6.14 do not know
SINCE_RETURNS, UNTIL_RETURNS = (6, 11), (6, 14)

PACKAGE = Path(__file__).resolve().parents[1]
#: In an installed wheel bpf/ is package data; in a checkout it lies at the top.
PLACES = (PACKAGE / "bpf", PACKAGE.parents[1] / "bpf")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many entries each map has; together they stay below 16 MiB."""

    ring_pages: int = 256  # a power of two
    calls: int = 13_824  # threads, and goroutines: up to four for a lookup of Go's
    lookups: int = 4_128
    questions: int = 10_240
    sockets: int = 7_424
    connects: int = 1_536
    waits: int = 10_752
    queued: int = 256
    go_asks: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What differs between one compilation and another."""

    dns_ports: tuple[int, ...] = (53,)
    sizes: Sizes = Sizes()
    #: (device, inode) of the agent's pid namespace when that is not the initial one
    pid_namespace: tuple[int, int] | None = None
    #: uprobes are not bound to a process: each hit asks whether it is a target
    filter_calls: bool = False
    follow_children: bool = False
    #: the kernel lets packet programs ask who is running (6.10)
    current_in_packets: bool = True
    #: one link for all functions of a library (6.6; until 6.10 it followed one thread only)
    linked_calls: bool = True
    #: return probes make a system call from the target, which a seccomp filter may answer with death
    returns_use_syscall: bool = False
    #: what is needed to see dropped packets; None: they are not seen
    drops: DropLayout | None = None
    #: what is needed to follow TCP states by the raw tracepoint; None: by the one that can be passed over
    socket_places: SocketPlaces | None = None


def fitting(host: Host, **choices: Any) -> Variant:  # noqa: ANN401 - fields of Variant
    """The variant for this host; `choices` are the fields that a user decides."""
    is_initial = host.pidns_inode in (None, INITIAL_PIDNS_INODE)
    return Variant(
        pid_namespace=None if is_initial else (host.pidns_device or 0, host.pidns_inode or 0),
        current_in_packets=host.kernel >= CURRENT_IN_PACKETS_SINCE,
        linked_calls=host.kernel >= LINKED_CALLS_SINCE,
        drops=drop_layout(host.tracefs),
        socket_places=socket_places(),
        returns_use_syscall=host.machine == "x86_64" and SINCE_RETURNS <= host.kernel < UNTIL_RETURNS,
        **choices,
    )


def directory() -> Path:
    """The folder with the programs' text."""
    return next(place for place in PLACES if (place / "events.h").is_file())


def definitions(variant: Variant) -> str:
    """The #define lines of a variant."""
    sizes = variant.sizes
    ports = " || ".join(f"(port) == {port}" for port in variant.dns_ports)
    lines = [
        f"#define IS_DNS_PORT(port) ({ports})",
        f"#define RING_PAGES {sizes.ring_pages}",
        f"#define MAX_CALLS {sizes.calls}",
        f"#define MAX_LOOKUPS {sizes.lookups}",
        f"#define MAX_QUESTIONS {sizes.questions}",
        f"#define MAX_SOCKETS {sizes.sockets}",
        f"#define MAX_CONNECTS {sizes.connects}",
        f"#define MAX_WAITS {sizes.waits}",
        f"#define MAX_QUEUED {sizes.queued}",
        f"#define MAX_GO_ASKS {sizes.go_asks}",
    ]
    if variant.pid_namespace is not None:
        device, inode = variant.pid_namespace
        lines += [f"#define PIDNS_DEVICE {device}ULL", f"#define PIDNS_INODE {inode}ULL"]
    if variant.filter_calls:
        lines.append("#define FILTER_CALLS")
    if variant.follow_children:
        lines.append("#define FOLLOW_CHILDREN")
    if variant.current_in_packets:
        lines.append("#define CURRENT_IN_PACKETS")
    if variant.drops is not None:
        drops = variant.drops
        lines += [
            f"#define DROP_NETFILTER {drops.netfilter}",
            f"#define DROP_CGROUP_EGRESS {drops.cgroup_egress}",
            f"#define DROP_NO_SOCKET {drops.no_socket}",
            f"#define SKB_HEAD {drops.head}",
            f"#define SKB_TRANSPORT_HEADER {drops.transport_header}",
            f"#define SKB_NETWORK_HEADER {drops.network_header}",
        ]
    if variant.socket_places is not None:
        places = variant.socket_places
        lines += [f"#define SOCK_PROTOCOL {places.protocol}", f"#define SOCK_V6_ADDRESS {places.address_v6}"]
        lines.append(f"#define SOCK_ERROR {places.error}")
    return "\n".join(lines)


def assemble(variant: Variant) -> str:
    """The whole text; errors in it name the file and line they are in."""
    folder = directory()
    parts = ["#include <uapi/linux/ptrace.h>", _text(folder / "events.h"), definitions(variant)]
    parts += [f'#line 1 "bpf/{name}.c"\n{_text(folder / f"{name}.c")}' for name in FILES]
    return "\n".join(parts)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")  # whatever the locale
