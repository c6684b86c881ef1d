"""One name asked for by every way of a host, side by side, for people.

Owns: that table. Must not know: how the questions were sent, or what the answers mean together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType

    Answer = Mapping[str, Any]

WORDS = {
    "answered": ("answers", "green"),
    "no_such_name": ("no such name", "green"),
    "no_address": ("no address", "green"),
    "error_code": ("error", "bold red"),
    "timed_out": ("silent", "bold red"),
    "refused": ("refused", "bold red"),
    "unreachable": ("unreachable", "bold red"),
    "tls_failed": ("no TLS", "bold red"),
    "failed": ("failed", "bold red"),
}
RULES = {"libc": "libc's rules", "go": "Go's rules"}
TRANSPORTS = {"udp": "UDP", "tcp": "TCP", "dot": "TLS, port 853"}
MAX_ADDRESSES = 2


def parts(comparison: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Heading, conclusions, table."""
    yield Text(f"\n{comparison['name']}, asked for by every way", style="bold")
    yield Padding(Text(comparison["notice"], style="dim"), (0, 0, 0, 2), expand=False)
    for conclusion in comparison["conclusions"]:
        text = Text(conclusion["text"])
        if conclusion["remedy"]:
            text.append(f"\ntry: {conclusion['remedy']}", style="cyan")
        yield Padding(text, (0, 0, 0, 2), expand=False)
    table = Table.grid(padding=(0, 2))
    for answer in comparison["answers"]:
        word, style = WORDS[answer["outcome"]]
        took = Text(f"{answer['took_ms']:.1f} ms", justify="right")
        table.add_row(_server(answer), _how(answer), Text(word, style=style), took, Text(_detail(answer)))
    yield Padding(table, (1, 0, 0, 2), expand=False)


def _server(answer: Answer) -> Text:
    if answer["rules"]:
        return Text(RULES[answer["rules"]])
    behind = " (behind)" if answer["role"] == "uplink" else ""
    return Text(f"{answer['server']}{behind}")


def _how(answer: Answer) -> Text:
    edns = ", EDNS0" if answer["edns"] and answer["transport"] == "udp" else ""
    return Text(f"{TRANSPORTS[answer['transport']]}{edns}")


def _detail(answer: Answer) -> str:
    """Addresses, the error, and what was asked last, where that tells something."""
    addresses = answer["addresses"]
    more = f" and {len(addresses) - MAX_ADDRESSES} more" if len(addresses) > MAX_ADDRESSES else ""
    found = ", ".join(addresses[:MAX_ADDRESSES]) + more
    if answer["truncated"]:
        found = f"{found} (cut off)".strip()
    if answer["outcome"] == "error_code":
        found = answer["rcode"]
    if answer["rules"]:
        found = f"{found}  {answer['name']} of {answer['server']}".strip()
    return found or (answer["error"] or "")
