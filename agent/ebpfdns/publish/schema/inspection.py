"""The shape of what `ebpfdns inspect --format json` prints.

Owns: every field of that object. Must not know: the event lines, whose schema is of another version.
"""

from __future__ import annotations

from ebpfdns.publish.schema import inspection_comparison
from ebpfdns.publish.schema.participants import GO_RESOLVERS
from ebpfdns.publish.schema.terms import (
    Schema,
    choice,
    constant,
    count,
    items,
    measure,
    or_null,
    record,
    text,
)

SEVERITIES = {
    "problem": "lookups cannot work, or hang.",
    "warning": "lookups are slower than need be, or may go wrong.",
    "note": "worth knowing.",
}


def schema() -> Schema:
    """One report."""
    required = {
        "v": constant(1, "Version of this shape; another number means other names."),
        "process": or_null(_process()),
        "container": or_null(_container()),
        "os": or_null(_os()),
        "resolver": _resolver(),
        "resolv_conf": _resolv_conf(),
        "nameservers": items("Those of resolv.conf, in its order.", _nameserver()),
        "cost": or_null(_cost()),
        "findings": items("What is odd, the worst first; none when all is in order.", _finding()),
        "threads": items("What each thread does right now; up to 256 of them.", _thread()),
        "threads_total": or_null(count("How many threads there are.")),
        "goroutines": or_null(
            items("Goroutines that are inside a lookup; null: not Go, or not to be read.", _goroutine())
        ),
        "not_seen": items("What could not be looked at, and why.", text("One thing.")),
        "comparison": or_null(inspection_comparison.schema()),
    }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "ebpfdns inspect"}
    return head | record("One look at how a process resolves names.", required)


def _process() -> Schema:
    executable = record(
        "What it runs.", {"name": or_null(text("Its file's name.")), "path": or_null(text("Its path."))}
    )
    fields = {"pid": count("Its number."), "executable": executable, "start_time": or_null(text("RFC 3339."))}
    return record("The process that was looked at.", fields)


def _container() -> Schema:
    fields = {
        "id": text("64 hexadecimal digits."),
        "runtime": or_null(text("docker, containerd, cri-o, podman.")),
    }
    return record("The container that it runs in.", fields)


def _os() -> Schema:
    fields = {"id": or_null(text("debian, ubuntu, rocky, alpine …")), "name": or_null(text("For people."))}
    return record("os-release in the root of the process.", fields)


def _resolver() -> Schema:
    step = record(
        "One source of names.", {"source": text("Its word."), "text": text("What asking it means.")}
    )
    fields = {
        "kind": choice(
            "Whose code.", {"glibc": "", "musl": "", "go": "Go's own.", "unknown": "none was found."}
        ),
        "go": _yes_or_no("Whether Go built the program."),
        "static": _yes_or_no("Whether it is linked statically."),
        "go_resolver": or_null(_go_resolver()),
        "libc": or_null(text("With its version, where it tells one.")),
        "why": text("One sentence."),
        "steps": items("In the order in which they are asked.", step),
    }
    return record("Which way a lookup takes.", fields)


def _go_resolver() -> Schema:
    fields = {
        "version": or_null(text("The Go release it was built with.", examples=["go1.27.3"])),
        "choice": or_null(choice("The one for an ordinary name; null: not known.", GO_RESOLVERS)),
        "sources": or_null(text("In Go's words, where its own resolver is taken: files,dns or dns,files …")),
        "why": items("What decides: build, environment, files.", text("One sentence.")),
    }
    return record("Which of its two resolvers a Go program takes; null: Go did not build it.", fields)


def _resolv_conf() -> Schema:
    manager = record("Who writes it.", {"id": text("For programs."), "text": text("For people.")})
    words = {"nameservers", "search", "options"}
    fields: dict[str, Schema] = {
        "path": or_null(text("As the process names it.")),
        "links": or_null(
            items("Where each link on the way leads.", text("A path, as the process names it."))
        ),
        "target": or_null(text("Where its links lead in the end.")),
        "present": {"type": ["boolean", "null"], "description": "null: may not be read."},
        "size_bytes": or_null(count("Its length.")),
        "mtime_wall_ns": or_null(count("When it was changed, nanoseconds since 1970.")),
        "manager": or_null(manager),
    }
    fields |= {word: {"type": ["array", "null"], "items": {"type": "string"}} for word in sorted(words)}
    return record("/etc/resolv.conf as the process sees it.", fields)


def _yes_or_no(description: str) -> Schema:
    return {"type": ["boolean", "null"], "description": f"{description} null: not known."}


def _nameserver() -> Schema:
    route = record(
        "The kernel's answer for a packet to it from the process's network.",
        {
            "kind": or_null(text("unicast, local, unreachable …")),
            "device": or_null(text("It would leave by this.")),
            "gateway": or_null(text("And by this router.")),
            "error": or_null(count("The errno that a send would meet.")),
        },
    )
    owner = record("Who that is.", {"pid": or_null(count("Its pid.")), "name": or_null(text("Its name."))})
    listener = record(
        "Of an address on loopback: whether somebody has UDP port 53 there.",
        {
            "listening": {"type": "boolean", "description": "Whether somebody has it."},
            "owner": or_null(owner),
        },
    )
    fields: dict[str, Schema] = {
        "address": text("As it stands in the file."),
        "asked": {"type": "boolean", "description": "false: behind the three that libcs take."},
        "route": or_null(route),
        "listener": or_null(listener),
        "text": text("The same in words."),
    }
    return record("One nameserver. No packet was sent to it.", fields)


def _cost() -> Schema:
    fields = {
        "name": text("A name with two dots."),
        "names_tried": items("In this order, until one exists.", text("A name.")),
        "questions": count("How many questions that may be."),
        "silent_s": or_null(measure("How long it takes when no server answers; null: not known.")),
        "text": text("The same in words."),
    }
    return record("What one lookup may cost.", fields)


def _finding() -> Schema:
    fields: dict[str, Schema] = {
        "id": text("Stable."),
        "severity": choice("How bad it is.", SEVERITIES),
        "text": text("One sentence."),
        "evidence": {"type": "object", "description": "What it rests on."},
        "remedy": or_null(text("What to do.")),
    }
    return record("One thing that is odd.", fields)


def _goroutine() -> Schema:
    question = record(
        "A question that is under way for it.",
        {
            "name": text("With its final dot."),
            "type": text("A, AAAA …"),
            "id": or_null(count("Of the message; null: not found.")),
            "server": or_null({"type": "array", "description": "[address, port]; null: not found."}),
            "transport": or_null(text("udp or tcp; null: its socket is not ready.")),
            "fd": or_null(count("The socket; null: not found.")),
        },
    )
    fields = {
        "id": count("Its number, as in a Go stack trace."),
        "call": text("What the program has called.", examples=["(*Resolver).lookupIPAddr"]),
        "name": or_null(text("What it looks up; null: its memory does not prove it.")),
        "questions": items("None: it waits for another goroutine's.", question),
        "text": text("The same in words."),
    }
    return record("One goroutine.", fields)


def _thread() -> Schema:
    lookup = record(
        "That it is inside a lookup.",
        {
            "seen_by": choice(
                "What shows it.",
                {
                    "dns": "a socket to a DNS server.",
                    "service": "a local name service's socket.",
                    "stack": "its stack.",
                },
            ),
            "api": or_null(text("The function, when the stack shows it.")),
            "name": or_null(text("What is looked up, when the stack shows it.")),
        },
    )
    fields = {
        "tid": count("Its number."),
        "name": or_null(text("Its name.")),
        "state": or_null(text("As ps has it.")),
        "syscall": or_null(text("The system call it sits in; `running` in none.")),
        "stack": or_null(items("Functions that have not returned, innermost first.", text("Its name."))),
        "asleep_ms": or_null(measure("It has not run for so long, at the least; null: not told.")),
        "lookup": or_null(lookup),
        "text": text("What it waits for, in words."),
    }
    return record("One thread.", fields)
