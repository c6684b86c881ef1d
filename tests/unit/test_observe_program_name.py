"""The name as the program gave it: proven by what its call's frames point to, or not told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe.program_name import program_name
from ebpfdns.observe.user_stack import Frame, Stack

if TYPE_CHECKING:
    from collections.abc import Iterable

START = 0x7FFC_0000_0000
QUESTION = "www.corp.test."
FRAMES = ("poll", "__res_context_search", "_nss_dns_gethostbyname4_r", "getaddrinfo", "main")
SEARCH, NSS, GETADDRINFO, MAIN = range(1, 5)


def found(texts: dict[int, bytes], symbols: tuple[str | None, ...] = FRAMES) -> str | None:
    """With a frame of one word each, that points to a text."""
    pointers = {word: 0x5000_0000 + word for word in texts}
    memory = b"".join(pointers.get(word, 0).to_bytes(8, "little") for word in range(len(symbols)))
    frames = [Frame("libc", symbol, 0x1000, START + 8 * at) for at, symbol in enumerate(symbols)]

    def read_texts(addresses: Iterable[int], _limit: int) -> list[bytes]:
        return [texts[address - 0x5000_0000] for address in addresses]

    return program_name(Stack(START, memory), frames, QUESTION, read_texts)


@pytest.mark.parametrize("text", ["www", "www.corp", "www.corp.test", "www.corp.test.", "WWW"])
@pytest.mark.parametrize("word", [NSS, GETADDRINFO])
def test_a_text_that_may_become_the_question_is_the_name(text: str, word: int) -> None:
    """Alone in the frames between the search and the program, in any case, with a final dot or not."""
    assert found({word: text.encode()}) == text


@pytest.mark.parametrize("text", [b"", b"ww", b"www.", b"corp.test", b"www.corp.test.x", b"w\xffw", b"."])
def test_other_texts_are_no_name(text: bytes) -> None:
    """What the resolver would not have made this question of is something else."""
    assert found({GETADDRINFO: text}) is None


def test_two_names_prove_nothing() -> None:
    """The same text twice is one name; two texts may be of two lookups."""
    assert found({NSS: b"www", GETADDRINFO: b"www"}) == "www"
    assert found({NSS: b"www", GETADDRINFO: b"www.corp.test"}) is None


@pytest.mark.parametrize("word", [0, SEARCH, MAIN])
def test_frames_of_the_search_and_of_the_program_do_not_count(word: int) -> None:
    """The search has the name that it made itself; the program may have many."""
    assert found({word: b"www"}) is None


@pytest.mark.parametrize(
    "symbols",
    [
        ("poll", "__res_context_search", None, None, "main"),  # which API is not known
        ("poll", None, None, "getaddrinfo", "main"),  # nothing could be added
        ("poll", "__res_context_search", None, "getaddrinfo"),  # where it ends is not known
        (),
    ],
)
def test_without_the_frames_there_is_no_name(symbols: tuple[str | None, ...]) -> None:
    """Both ends of the region must be proven."""
    assert found(dict.fromkeys(range(len(symbols)), b"www"), symbols) is None


@given(st.dictionaries(st.integers(0, 4), st.binary(max_size=30)))
def test_any_texts_can_be_pointed_to(texts: dict[int, bytes]) -> None:
    """Whatever they are: the question starts with the name, or there is none."""
    name = found(texts)
    assert name is None or QUESTION.startswith(name.lower().rstrip("."))
