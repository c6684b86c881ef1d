"""Names and sentences of the errors that lookups and connects end with.

Owns: the tables of netdb.h and errno, and the texts of Go's net.DNSError. Must not know: who failed.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ebpfdns.publish.lines import printable

if TYPE_CHECKING:
    from ebpfdns.model.facts import GoError

#: getaddrinfo, getnameinfo (glibc and musl agree on these numbers)
EAI = {
    -1: ("EAI_BADFLAGS", "bad value for ai_flags"),
    -2: ("EAI_NONAME", "name or service not known"),
    -3: ("EAI_AGAIN", "temporary failure in name resolution"),
    -4: ("EAI_FAIL", "non-recoverable failure in name resolution"),
    -5: ("EAI_NODATA", "no address associated with hostname"),
    -6: ("EAI_FAMILY", "address family not supported"),
    -7: ("EAI_SOCKTYPE", "socket type not supported"),
    -8: ("EAI_SERVICE", "service not supported for this socket type"),
    -9: ("EAI_ADDRFAMILY", "address family for hostname not supported"),
    -10: ("EAI_MEMORY", "out of memory"),
    -11: ("EAI_SYSTEM", "system error"),
    -12: ("EAI_OVERFLOW", "argument buffer too small"),
}
#: gethostby*_r, res_n*
H_ERRNO = {
    -1: ("NETDB_INTERNAL", "internal resolver error"),
    1: ("HOST_NOT_FOUND", "host not found"),
    2: ("TRY_AGAIN", "temporary failure in name resolution"),
    3: ("NO_RECOVERY", "non-recoverable failure in name resolution"),
    4: ("NO_DATA", "no record of the type asked for"),
}
ERANGE = 34
EAI_APIS = frozenset({"getaddrinfo", "getnameinfo"})


def lookup_error(api: str, code: int | None) -> dict[str, object]:
    """`error` of a failed library call. A code that the function keeps to itself is null."""
    if code is None:
        return {"type": "FAILED", "code": None, "message": f"{api} failed; its code (h_errno) was not seen"}
    if code == ERANGE and api not in EAI_APIS:
        return {"type": "ERANGE", "code": code, "message": "the caller's buffer was too small"}
    names = EAI if api in EAI_APIS else H_ERRNO
    word, text = names.get(code, (f"CODE_{code}", f"{api} returned {code}"))
    return {"type": word, "code": code, "message": text}


#: what net.DNSError says → a word that stays, however Go words it
GO_TEXTS = {
    b"i/o timeout": "deadline_exceeded",  # alone: the caller's own; of a socket it says which
    b"operation was canceled": "canceled",
    b"no such host": "no_such_host",
    b"server misbehaving": "server_misbehaving",
    b"lame referral": "lame_referral",
    b"no answer from DNS server": "no_answer",
    b"cannot unmarshal DNS message": "bad_answer",
    b"invalid DNS response": "bad_answer",
    b"Temporary failure in name resolution": "temporary_failure",  # of glibc, by way of cgo
    b"Try again": "temporary_failure",  # of musl
}
GO_ENDINGS = {
    b": i/o timeout": "io_timeout",
    b": connection refused": "connection_refused",
    b": operation was canceled": "canceled",
    b": network is unreachable": "network_unreachable",
    b": no route to host": "host_unreachable",
    b": operation not permitted": "not_permitted",
    b": too many open files": "too_many_open_files",
}


def go_error(error: GoError | None, name: str | None) -> dict[str, object]:
    """`error` of a goroutine's lookup: the text is the one that its caller can print."""
    if error is None:
        return {"type": "other", "code": None, "message": None}
    text = printable(error.text) + ("…" if error.is_cut else "")
    server = f" on {printable(error.server)}" if error.server else ""
    message = f"lookup {name}{server}: {text}" if name is not None else text
    return {"type": _go_word(error), "code": None, "message": message}


def _go_word(error: GoError) -> str:
    if error.text in GO_TEXTS:
        return GO_TEXTS[error.text]
    if error.is_not_found:
        return "no_such_host"
    for ending, word in GO_ENDINGS.items():
        if error.text.endswith(ending) and not error.is_cut:
            return word
    return "io_timeout" if error.is_timeout else "other"


def errno_name(code: int) -> str:
    """ECONNREFUSED, …; ERRNO123 for one without a name."""
    return errno.errorcode.get(code, f"ERRNO{code}")


def connect_error(code: int | None) -> dict[str, object]:
    """`error` of a failed connect."""
    return {"type": "EUNKNOWN" if code is None else errno_name(code)}
