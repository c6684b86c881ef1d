"""Who takes part: the process, thread and container that wait, the server that is asked, and when.

Owns: time, process, thread, container, Kubernetes names, server, network, error.
Must not know: lookups, connects, or when a line is written.
"""

from __future__ import annotations

from ebpfdns.publish.schema.terms import Schema, choice, constant, count, measure, or_null, record, text

PORT_MAX = 65535

TRANSPORTS = {
    "udp": "datagrams.",
    "tcp": "a connection.",
    "unix": "a local socket of a name service daemon.",
}
FAMILIES = {"ipv4": "IPv4.", "ipv6": "IPv6.", "unix": "a local socket."}
STATUS_IN_FLIGHT = {"in_flight": "not ended yet."}
STATUS_ENDED = {
    "ok": "it gave a result.",
    "failed": "it ended with an error.",
    "abandoned": "the thread or process went away.",
}
GO_RESOLVERS = {"go": "Go's own resolver.", "cgo": "the C library's, called by Go."}
PURPOSES = {
    "dns": "name resolution, port 53.",
    "dot": "DNS over TLS, port 853.",
    "nss": "a local name service daemon.",
    "application": "anything else: what the program does with the address.",
}


def timestamp(description: str) -> Schema:
    """A time as `ts` has it."""
    return text(
        f"{description} RFC 3339, UTC, six to nine digits of a second.",
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6,9}Z$",
        examples=["2026-03-02T09:14:07.512345Z"],
    )


def _start_time() -> Schema:
    return text(
        "When the process started, as exactly as the kernel says; pid and this name one process for good.",
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?Z$",
        examples=["2026-03-02T09:14:03.201Z"],
    )


def _executable() -> Schema:
    return record(
        "The program; bytes that are not printable are written as \\xNN.",
        {
            "name": or_null(text("Its file name; null when it could not be read.")),
            "path": or_null(
                text("Its path in the process's own mount namespace; null when it could not be read.")
            ),
        },
    )


def _pid() -> Schema:
    return count("Process id in the agent's pid namespace.", at_least=1)


def process() -> Schema:
    """The process that a line is about."""
    return record(
        "The process that the line is about.",
        {"pid": _pid(), "executable": _executable(), "start_time": or_null(_start_time())},
        {"vpid": count("Process id in its own pid namespace, when that is another one.", at_least=1)},
    )


def hop_process() -> Schema:
    """A process further down the chain, of which less may be known."""
    return record(
        "The process at this hop.",
        {"pid": _pid()},
        {
            "executable": _executable(),
            "start_time": or_null(_start_time()),
            "vpid": count("Process id in its own pid namespace, when that is another one.", at_least=1),
        },
    )


def thread() -> Schema:
    """The thread that waits."""
    return record(
        "The thread that the line is about; absent where none can be named (Go, wire).",
        {
            "id": count("Thread id in the agent's pid namespace.", at_least=1),
            "name": or_null(
                text("Its name (comm), escaped like every name; null when it could not be read.")
            ),
        },
    )


def container() -> Schema:
    """The container of the process."""
    return record(
        "The container that the process runs in, when known.",
        {"id": text("The container's id, from the process's cgroup.")},
        {
            "name": text("Its name, when the runtime told it."),
            "runtime": text("The runtime that made it.", examples=["containerd", "docker"]),
        },
    )


def k8s() -> Schema:
    """Where this is in Kubernetes."""
    namespace = record("The pod's namespace.", {"name": text("Its name.")})
    pod = record("The pod.", {}, {"name": text("Its name."), "uid": text("Its uid, from the cgroup's path.")})
    return record(
        "The Kubernetes objects that the process belongs to, as far as known.",
        {},
        {
            "namespace": namespace,
            "pod": pod | {"minProperties": 1},
            "container": record("The container in the pod.", {"name": text("Its name in the pod.")}),
            "node": record("The node.", {"name": text("Its name.")}),
        },
    ) | {"minProperties": 1}


def server() -> Schema:
    """The other end."""
    return record(
        "The server that is asked.",
        {
            "address": text("IP address; the path where it is a local socket.", examples=["127.0.0.53"]),
            "port": or_null(count("Port; null on a local socket.", at_most=PORT_MAX)),
        },
    )


def transport() -> Schema:
    """How bytes get there."""
    return or_null(choice("How it is asked; null when that was not observed.", TRANSPORTS))


def lost_end() -> Schema:
    """Marks an end of which nothing is known."""
    return constant(
        value=True, description="The end was lost, so how it ended is not known; absent otherwise."
    )


def end_known() -> list[Schema]:
    """A duration is known exactly when start and end were seen; a status, when the end was."""
    no_duration = {"duration_ms": {"type": "null"}}
    unless_earlier = {
        "if": _BEFORE_ATTACH,
        "then": {"properties": no_duration},
        "else": {"properties": {"duration_ms": {"type": "number"}, "status": {"type": "string"}}},
    }
    lost = {"properties": {"status": {"type": "null"}, **no_duration}}
    return [{"if": {"required": ["lost_end"]}, "then": lost, "else": unless_earlier}, age_known()]


def age_known() -> Schema:
    """Of what began before tracing its least age is told, and nothing that would need its start."""
    unknown = {"elapsed_ms": {"type": "null"}, "started": {"type": "null"}}
    known = {"elapsed_ms": {"type": "number"}, "started": {"type": "string"}, "open_for_at_least_ms": False}
    return {
        "if": _BEFORE_ATTACH,
        "then": {"properties": unknown, "required": ["open_for_at_least_ms"]},
        "else": {"properties": known},
    }


def least_age() -> Schema:
    """What is known of the age of a thing that began before tracing."""
    return measure(
        "With `before_attach` only: its least age, by how long its thread has slept in this very wait, "
        "or the agent has seen it."
    )


_BEFORE_ATTACH: Schema = {"properties": {"since": {"const": "before_attach"}}, "required": ["since"]}


def lookup_link(description: str) -> Schema:
    """Which lookup this belongs to."""
    return record(
        description,
        {"id": text("`lookup.id` of that lookup."), "name": or_null(text("The name it looked up."))},
    )
