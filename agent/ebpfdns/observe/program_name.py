"""The name that a program gave to its lookup: the question shows it with a search domain.

Owns: finding it among what the frames of the resolver's API point to.
Must not know: how memory is read, that is handed in; pids.

The question "www.corp.example." may come from "www". Between the frame that adds search domains and the
program's own lie pointers to the name as it was given. What they point to counts when the question is that
text, or begins with it; two different such texts prove nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.observe.user_stack import WORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ebpfdns.observe.user_stack import Frame, Stack

    #: addresses, limit → the NUL-ended texts there; none where there is none
    ReadTexts = Callable[[Iterable[int], int], Iterable[bytes]]

MAX_POINTERS = 512
MAX_NAME_BYTES = 256
LOWEST_ADDRESS, HIGHEST_ADDRESS = 0x1_0000, 1 << 56
_SEARCH = frozenset({"__res_context_search", "__libc_res_nsearch"})
_API = frozenset(
    {
        *("getaddrinfo", "gethostbyname", "gethostbyname2", "gethostbyname_r", "gethostbyname2_r"),
        *("res_search", "res_nsearch", "__res_search", "__res_nsearch"),
    }
)


def program_name(stack: Stack, frames: Sequence[Frame], question: str, read_texts: ReadTexts) -> str | None:
    """The name given to the API, proven; None when no search domain could be added, or it cannot be told."""
    symbols = [frame.symbol for frame in frames]
    searching = [index for index, symbol in enumerate(symbols) if symbol in _SEARCH]
    outermost = [index for index, symbol in enumerate(symbols[:-1]) if symbol in _API]
    if not searching or not outermost or outermost[-1] <= searching[-1]:
        return None
    start, end = frames[searching[-1] + 1].sp, frames[outermost[-1] + 1].sp
    texts = set(read_texts(_pointers(stack, start, end), MAX_NAME_BYTES))
    found = {text for text in texts if text and _may_become(text, question)}
    return found.pop().decode("ascii") if len(found) == 1 else None


def _pointers(stack: Stack, start: int, end: int) -> list[int]:
    """Words between two places of the stack that may be addresses, each once."""
    memory = stack.memory[start - stack.start : end - stack.start]
    pieces = (memory[at : at + WORD_BYTES] for at in range(0, len(memory), WORD_BYTES))
    words = dict.fromkeys(int.from_bytes(piece, "little") for piece in pieces)
    plausible = [word for word in words if LOWEST_ADDRESS <= word < HIGHEST_ADDRESS]
    return plausible[:MAX_POINTERS]


def _may_become(text: bytes, question: str) -> bool:
    """Whether a resolver that was given this text may ask this question."""
    wanted, given = question.encode().lower(), text.lower()
    return wanted == given.removesuffix(b".") + b"." or (
        not given.endswith(b".") and wanted.startswith(given + b".")
    )
