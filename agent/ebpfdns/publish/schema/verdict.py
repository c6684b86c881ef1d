"""The schema of the verdict: why a lookup is stuck, and what is behind the first hop.

Owns: every field of `cause` and `chain`.
Must not know: which rule says what (the catalogue's ids are handed in), nor how hops are found.
"""

from __future__ import annotations

from ebpfdns.publish.schema.terms import Schema, choice, count, flag, items, or_null, record, ref, text

CONFIDENCES = {
    "confirmed": "every fact that makes this cause was observed, and every neighbour is excluded.",
    "likely": "the deciding fact was observed, an excluding one was not.",
    "possible": "it only fits the pattern, or the deciding fact may have been lost.",
}
ROLES = {
    "stub": "a local resolver that the program asks, such as systemd-resolved or dnsmasq.",
    "upstream": "a server that the hop before asks in its turn.",
    "daemon": "a name service daemon asked over a local socket, such as nscd or sssd.",
}


STATES = {
    "waiting": "it waits for its own servers.",
    "idle": "it waits for nothing that was seen.",
    "stopped": "it cannot work: stopped, or blocked in the kernel.",
    "seen_before": "the lookup has ended; this is what was last seen of it.",
}


def cause(ids: tuple[str, ...]) -> Schema:
    """Why."""
    identity: Schema = {
        "description": "An id of the catalogue of causes; `unknown` is an honest answer.",
        "type": "string",
        "enum": list(ids),
    }
    return record(
        "Why the lookup or connect takes so long.",
        {
            "id": identity,
            "confidence": choice("How sure that is.", CONFIDENCES),
            "summary": text("One sentence that a person on call understands."),
            "evidence": items("What was observed that speaks for it.", _evidence(), at_least=1),
            "remedy": text("The command or setting to try."),
        },
    )


def _evidence() -> Schema:
    """A fact has an id, a sentence, and the numbers that it rests on, under names of its own."""
    piece = record(
        "One observed fact.",
        {
            "fact": text("Stable id of the fact.", pattern="^[a-z][a-z0-9_]*$", examples=["no_reply"]),
            "text": text("The fact as a sentence."),
        },
    )
    value = {"type": ["number", "string", "boolean", "null"], "description": "A number or name it rests on."}
    return piece | {
        "additionalProperties": False,
        "patternProperties": {"^[a-z][a-z0-9_]*$": value},
    }


def chain() -> Schema:
    """What is behind."""
    return items(
        "The hops behind the server that was asked, in order: what it waits for itself. "
        "Empty when there is nothing behind, or it was not followed.",
        ref("hop", "A hop."),
    )


def hop() -> Schema:
    """One process behind the one that asked."""
    return record(
        "One hop.",
        {
            "role": choice("What it is to the hop before.", ROLES),
            "process": or_null(ref("hop_process", "Who is at this hop; null when not known.")),
            "queries": items("Its own open DNS questions.", ref("query", "A question.")),
            "connects": items(
                "The connections that it makes or has to its servers.", ref("hop_connect", "A connection.")
            ),
            "state": choice("What it is doing.", STATES),
        },
        {
            "asked_at": text("The address or path where the hop before asks it.", examples=["127.0.0.53"]),
            "joined": flag(
                "Whether `queries` are for the very name that was looked up; otherwise they are what it "
                "waits for, whoever wants that."
            ),
            "more_waiting": count("Open questions of its own beyond `queries`."),
        },
    )
