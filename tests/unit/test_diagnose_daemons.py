"""Local daemons from the side of their clients: nscd, systemd-resolved, Avahi, and names on the link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from situations import EAI_AGAIN, ask, both, conf, rows, situation, thread, udp, verdict

from ebpfdns.diagnose.judge import judge

if TYPE_CHECKING:
    from ebpfdns.model.facts import Situation


NSCD, IPC, STUB = "nscd_stall", "resolved_ipc_stall", "resolved_stub_silent"
AVAHI, MDNS = "avahi_stall", "mdns_timeout"
SOCKETS = {
    NSCD: "/var/run/nscd/socket",
    IPC: "/run/systemd/resolve/io.systemd.Resolve",
    AVAHI: "/run/avahi-daemon/socket",
}
STUB_ADDRESS = "127.0.0.53"
ASLEEP, STOPPED = {"state": "S", "syscall": "epoll_wait"}, {"state": "T", "syscall": None}


def owner(**fields: Any) -> dict[str, Any]:
    """The process behind a socket."""
    return {"pid": 412, "name": "daemon", **fields}


def local(path: str | None, **peer: Any) -> dict[str, Any]:
    """A unix socket whose peer is at this path."""
    return {"fd": 5, "inode": 99, "kind": "unix", "state": "CONNECTED", "peer": {"path": path, **peer}}


def at_socket(cause: str, age: float = 1.0, *, peer: dict[str, Any] | None = None, **more: Any) -> Situation:
    """A lookup that waits at the socket of the daemon that the cause is about."""
    return situation(**{"age": age, "thread": thread(local(SOCKETS[cause], **(peer or {}))), **more})


@rows(
    *(
        row
        for cause in (NSCD, IPC)
        for row in (
            (
                f"{cause}: it is stopped",
                at_socket(cause, peer={"owner": owner(**STOPPED)}),
                cause,
                "confirmed",
            ),
            (
                f"{cause}: it does not accept",
                at_socket(cause, peer={"listener_backlog": 1}),
                cause,
                "confirmed",
            ),
            (f"{cause}: it does not read", at_socket(cause, peer={"rx_queue_bytes": 9}), cause, "confirmed"),
            (f"{cause}: too early", at_socket(cause, 0.5, peer={"listener_backlog": 1}), cause, "likely"),
            (
                f"{cause}: it is at work",
                at_socket(cause, peer={"owner": owner(**ASLEEP), "listener_backlog": 0}),
                cause,
                "likely",
            ),
            (f"{cause}: nothing is known of it", at_socket(cause), cause, "likely"),
            (f"{cause}: a server was asked", at_socket(cause, queries=both()), "ns_silent", "likely"),
            (
                f"{cause}: the thread works",
                at_socket(cause, thread=thread(local(SOCKETS[cause]), state="R")),
                "unknown",
                "possible",
            ),
        )
    ),
    ("somebody else's socket", situation(thread=thread(local("/run/other/socket"))), "unknown", "possible"),
    ("the peer was not seen", situation(thread=thread(local(None))), "unknown", "possible"),
    (
        "the process's table knows it",
        situation(
            thread=thread({"fd": 5, "inode": 99, "kind": "unix", "path": None}),
            process={"sockets": [local("/run/nscd/socket", listener_backlog=1)]},
        ),
        NSCD,
        "confirmed",
    ),
)
def test_waiting_at_a_daemon(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A daemon is stuck for sure when it is seen to be stopped, not to accept, or not to read."""
    assert verdict(seen) == expected


def test_the_daemon_is_named() -> None:
    """Evidence and remedy name the daemon's process, and how to let a stopped one go on."""
    cause = judge(at_socket(IPC, peer={"owner": owner(name="systemd-resolve", **STOPPED)}))
    assert cause is not None
    assert [fact.fact for fact in cause.evidence] == ["unix_peer_waited_for", "peer_stopped", "query_sent"]
    assert cause.evidence[1].text == "systemd-resolve (process 412) is stopped by a signal"
    assert "kill -CONT 412" in cause.remedy


LOCAL = b"printer.local"
NO_LOCAL = ask(name=b"local.", reply=0.1, rcode=3)


def mdns(age: float = 1.0, **more: Any) -> Situation:
    """A lookup of a name on the link, at Avahi's socket."""
    return at_socket(AVAHI, age, **{"name": LOCAL, **more})


def ended(age: float, code: int = -2, name: bytes = LOCAL, **more: Any) -> Situation:
    """A lookup that failed without a question to a server."""
    return situation(age=age, status="failed", code=code, name=name, **more)


@rows(
    ("Avahi is stopped", mdns(peer={"owner": owner(**STOPPED)}), AVAHI, "confirmed"),
    ("Avahi does not accept", mdns(peer={"listener_backlog": 1}), AVAHI, "confirmed"),
    ("stopped, but too early", mdns(0.5, peer={"owner": owner(**STOPPED)}), AVAHI, "likely"),
    ("longer than one family takes", mdns(6.5), AVAHI, "likely"),
    ("longer than both take", mdns(11.5), AVAHI, "confirmed"),
    ("Avahi may be asking the link", mdns(1.0), MDNS, "possible"),
    ("a single label", mdns(name=b"printer"), MDNS, "possible"),
    ("no name of the link", mdns(name=b"www.lab.test"), "unknown", "possible"),
    (
        "a multicast socket of its own",
        mdns(thread=thread(udp() | {"remote": ["224.0.0.251", 5353]})),
        MDNS,
        "likely",
    ),
    ("ended after 5 s", ended(5.0), MDNS, "likely"),
    ("DNS has no local", ended(5.0, queries=[NO_LOCAL]), MDNS, "likely"),
    (
        "Avahi after DNS has no local",
        mdns(12, queries=[NO_LOCAL]),
        AVAHI,
        "confirmed",
    ),
    ("after both families", ended(10.1, code=1), MDNS, "likely"),
    ("at once", ended(0.1), None, None),
    ("after 2 s", ended(2.0), "unknown", "possible"),
    ("it failed otherwise", ended(5.0, code=-3), "unknown", "possible"),
    ("of DNS", ended(5.0, name=b"www.lab.test"), "unknown", "possible"),
    ("servers were asked", ended(5.0, queries=both(error=None, reply=4.9, rcode=3)), "unknown", "possible"),
)
def test_names_on_the_link(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """Avahi is stuck when it is seen to be, or takes longer than it can; before that nobody may answer."""
    assert verdict(seen) == expected


def stub(age: float = 1.5, listener: dict[str, Any] | None = None, **more: Any) -> Situation:
    """A lookup that asked the stub of systemd-resolved, which has not answered."""
    defaults: dict[str, Any] = {
        "queries": both(STUB_ADDRESS),
        "thread": thread(udp(STUB_ADDRESS)),
        "resolv_conf": conf(STUB_ADDRESS),
        "process": None if listener is None else {"listeners": {STUB_ADDRESS: listener}},
    }
    return situation(age=age, **{**defaults, **more})


@rows(
    ("it is stopped", stub(listener={"listening": True, "owner": owner(**STOPPED)}), STUB, "confirmed"),
    ("questions lie unread", stub(listener={"listening": True, "rx_queue_bytes": 768}), STUB, "confirmed"),
    ("too early", stub(0.5, {"owner": owner(**STOPPED)}), STUB, "likely"),
    ("it is at work", stub(listener={"listening": True, "owner": owner(**ASLEEP)}), STUB, "likely"),
    ("nothing is known of it", stub(), STUB, "likely"),
    ("at the end", stub(status="failed", code=-3), STUB, "likely"),
    ("packets are not seen", stub(wire=False), STUB, "possible"),
    ("another server waits too", stub(queries=both(STUB_ADDRESS) + both()), "ns_silent", "likely"),
    (
        "it answered one",
        stub(queries=[ask(STUB_ADDRESS, reply=0.1), ask(STUB_ADDRESS, 28)]),
        "one_reply_lost",
        "likely",
    ),
    ("it refuses", stub(0.1, queries=both(STUB_ADDRESS, error=111), **EAI_AGAIN), "ns_refused", "confirmed"),
)
def test_resolved_stub_silent(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """The stub is stuck for sure when its daemon is stopped or does not read; else it may be at work."""
    assert verdict(seen) == expected
