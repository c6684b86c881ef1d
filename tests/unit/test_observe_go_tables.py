"""Go's function table: names, places and stack frames as put in; only its own error from broken ones."""

from __future__ import annotations

import pytest
from go_elf import BASE, MODULE_AT, TABLE, TEXT, Made, opened, program
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpfdns.observe import go_tables
from ebpfdns.observe.go_tables import GoTablesError, open_tables

START = BASE + TEXT
FUNCTIONS = {
    "runtime.goexit": Made(b"\x90" * 16, kind=8, flags=go_tables.FLAG_TOP_FRAME),
    "net.lookup": Made(b"\x90" * 100, stack=((0, 4), (472, 90), (0, 100))),
    "net._C2func_x": Made(b"\x90" * 31),
    "net.lookupIP": Made(b"\x90" * 9),
}
VALID = program(FUNCTIONS)


@pytest.mark.parametrize("magic", [0xFFFFFFF0, 0xFFFFFFF1])
@pytest.mark.parametrize("tells_text", [False, True])
def test_functions_are_found_by_their_whole_names(magic: int, *, tells_text: bool) -> None:
    """Each function is found where it lies, also the first of the table; parts of names are no names."""
    contents = program(FUNCTIONS, magic=magic, tells_text=tells_text, has_module=not tells_text)
    with opened(contents) as elf:
        tables = open_tables(elf)
        found = tables.functions_named(["runtime.goexit", "net.lookup", "net.look", "lookup", "lookupIP"])
        assert {name: [entry.address for entry in entries] for name, entries in found.items()} == {
            "runtime.goexit": [START],
            "net.lookup": [START + 32],
        }
        assert found["net.lookup"][0].end == START + 160
        assert found["runtime.goexit"][0][-2:] == (8, go_tables.FLAG_TOP_FRAME)
        assert tables.module == (None if tells_text else BASE + 0x5000 + MODULE_AT)
        assert tables.count == 4


def test_one_name_may_be_two_functions() -> None:
    """A function and the wrapper for the other calling convention have one name, and both are returned."""
    names = ["aa.f", "bb.f", "cc.f"]
    contents = program({name: Made(b"\x90" * 40) for name in names})
    with opened(contents.replace(b"\0cc.f\0", b"\0aa.f\0")) as elf:
        found = open_tables(elf).functions_named(["aa.f", "bb.f"])
    assert [entry.address for entry in found["aa.f"]] == [START, START + 128]
    assert [entry.address for entry in found["bb.f"]] == [START + 64]


def test_every_address_of_go_code_has_its_function() -> None:
    """Padding belongs to the function before; before the first and after the last there is none."""
    with opened(VALID) as elf:
        tables = open_tables(elf)
        names = [
            entry and entry.name
            for entry in map(
                tables.function_at, (START - 1, START, START + 31, START + 32, START + 223, START + 224)
            )
        ]
    assert names == [None, "runtime.goexit", "runtime.goexit", "net.lookup", "net.lookupIP", None]


def test_the_stack_frame_is_known_at_each_instruction() -> None:
    """The frame grows after the prologue, and is gone before the return."""
    with opened(VALID) as elf:
        tables = open_tables(elf)
        (lookup,) = tables.functions_named(["net.lookup"])["net.lookup"]
        (other,) = tables.functions_named(["net.lookupIP"])["net.lookupIP"]
        at = [tables.stack_bytes(lookup, lookup.address + offset) for offset in (0, 3, 4, 89, 90, 99, 100)]
        assert at == [0, 0, 472, 472, 0, 0, None]
        assert tables.stack_bytes(lookup, lookup.address - 1) is None
        assert tables.stack_bytes(other, other.address) is None


def test_a_file_without_the_table_says_so() -> None:
    """No table, one of an older Go, and code whose place is not told are errors in words."""
    for contents, words in (
        (VALID.replace(b"\xf1\xff\xff\xff", bytes(4)), "no function table"),
        (program(FUNCTIONS, has_module=False), "where its code starts is not said"),
        (VALID[: TABLE + 80], "cut off"),
        (VALID[: TABLE + 40], "no function table"),
    ):
        with opened(contents) as elf, pytest.raises(GoTablesError, match=words):
            open_tables(elf)


def walk(contents: bytes) -> None:
    """Ask everything of a file, whatever is in it."""
    with opened(contents) as elf:
        try:
            tables = open_tables(elf)
            for entries in tables.functions_named(FUNCTIONS).values():
                for entry in entries:
                    tables.stack_bytes(entry, entry.address + 5)
            tables.function_at(START + 40)
        except GoTablesError:
            pass


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(TABLE, TABLE + 400), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0x1000, len(VALID)),
)
def test_a_broken_table_is_an_error_at_most(changes: list[tuple[int, int]], size: int) -> None:
    """Whatever bytes are changed and wherever the file ends, nothing but GoTablesError is raised."""
    contents = bytearray(VALID)
    for at, value in changes:
        contents[at] = value
    walk(bytes(contents[:size]))


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(range(TABLE + 8, TABLE + 72, 8)), st.integers(0, (1 << 64) - 1)), max_size=3
    )
)
def test_any_numbers_in_the_header_are_an_error_at_most(words: list[tuple[int, int]]) -> None:
    """Places and counts beyond all bounds are refused."""
    contents = bytearray(VALID)
    for at, value in words:
        contents[at : at + 8] = value.to_bytes(8, "little")
    walk(bytes(contents))
