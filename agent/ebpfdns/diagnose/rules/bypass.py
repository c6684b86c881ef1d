"""`bypass`: the application asks servers of its own, or uses DNS over HTTPS; resolv.conf plays no part.

Owns: the known addresses of DNS over HTTPS, what must have been seen, and the words for it.
Must not know: other causes.

It says why a server is asked at all, so it is asked once a refusal or a silence has been found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS, same_address
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.configured import conf_of, named_servers, troubled_servers, where
from ebpfdns.diagnose.wording import listing, server_text, shown_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import ConnectCase, LookupCase

#: they ask servers of their own because that is what they are for
RESOLVERS = frozenset(
    {b"systemd-resolve", b"dnsmasq", b"unbound", b"named", b"coredns", b"pdns_recursor", b"kresd", b"nscd"}
)
HTTPS_PORT = 443
#: Cloudflare, Google, Quad9, OpenDNS, AdGuard: well-known addresses that answer DNS over HTTPS
DOH_ADDRESSES = frozenset(
    {
        *("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"),
        *("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"),
        *("9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"),
        *("208.67.222.222", "208.67.220.220", "94.140.14.14", "94.140.15.15"),
    }
)


def rule(case: LookupCase) -> Cause | None:
    """A question that no library call explains went to servers that resolv.conf does not name."""
    conf = conf_of(case)
    servers = troubled_servers(case)
    if conf is None or not servers or not case.lookup.is_wire or case.lookup.comm in RESOLVERS:
        return None
    named = named_servers(conf)
    asked = {same_address(query.server.address) for query in case.lookup.queries}
    if not named or asked & named:
        return None
    # An application that reads the file itself, once, may have found them there.
    changed_ns, started_ns = conf.get("mtime_wall_ns"), case.situation.process_started_wall_ns
    was_never_there = changed_ns is not None and started_ns is not None and changed_ns < started_ns
    text = listing(map(server_text, servers))
    return Cause(
        "bypass",
        "confirmed" if was_never_there else "likely",
        f"The application asks {text}, a server of its own choice that does not answer; "
        "resolv.conf plays no part.",
        (
            Evidence(
                "server_not_in_resolv_conf",
                f"{text} was asked by no library call, and {shown_text(where(conf))} names "
                f"{listing(map(shown_text, conf['nameservers']))}",
                {"servers_in_file": len(named), "changed_since_start": not was_never_there},
            ),
        ),
        "Look at the DNS settings of the application itself: which servers it is told to ask",
    )


def of_connect(case: ConnectCase) -> Cause | None:
    """A connection that no lookup explains hangs, to an address known for DNS over HTTPS."""
    connect = case.connect
    server = connect.server
    if server is None or server.port != HTTPS_PORT or connect.lookup_key is not None or connect.in_lookup:
        return None
    if same_address(server.address) not in DOH_ADDRESSES or not case.is_open:
        return None
    return Cause(
        "bypass",
        "likely" if case.elapsed_ns >= A_SECOND_NS else "possible",
        f"The application connects to {server.text}, known for DNS over HTTPS, and no lookup gave it that "
        "address: it resolves names there, past resolv.conf.",
        (
            Evidence(
                "server_not_in_resolv_conf",
                f"{server.text} is a public server of DNS over HTTPS; no lookup of this process gave it",
                {"server": server.address, "port": server.port},
            ),
        ),
        "Look at the DNS settings of the application itself (DNS over HTTPS, a proxy); "
        f"try: nc -vz -w3 {server.address} {server.port}",
    )
