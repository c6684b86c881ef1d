"""The boundary: model/boundary.py mirrors bpf/events.h, field by field and number by number."""

from __future__ import annotations

import re

import header
import pytest

from ebpfdns.model import boundary

LAYOUTS = {layout.name: layout for layout in boundary.LAYOUTS}
#: Only the programs use it: an array of its own behind the fields of a lookup.
ARRAYS_OF_STRUCTS = {("lookup", "queries")}
#: The number of entries of an enum, by the name of its last entry.
ENDS = {
    "COUNTERS": len(boundary.Counter),
    "WAIT_KINDS": len(boundary.WaitKind),
    "LATENCIES": boundary.LATENCIES,
}


def differences(struct: str, layout: boundary.Layout, truth: header.Header) -> list[str]:
    """What the mirror of a struct says otherwise than the compiler, in words."""
    expected = {
        name: (field.offset, field.size)
        for name, field in truth.fields[struct].items()
        if (struct, name) not in ARRAYS_OF_STRUCTS
    }
    mirrored = {name: (offset, size) for name, offset, size in layout.offsets()}
    return [
        f"{struct}.{name}: (offset, size) is {mirrored.get(name)} here, {expected.get(name)} in events.h"
        for name in [*expected, *(mirrored.keys() - expected)]
        if mirrored.get(name) != expected.get(name)
    ]


@pytest.mark.parametrize("struct", header.compiled().sizes)
def test_every_field_is_where_the_compiler_puts_it(struct):
    """Size and offset of each field, padding too, are the compiler's, and neither side has one more."""
    assert differences(struct, LAYOUTS[struct], header.compiled()) == []


@pytest.mark.parametrize("struct", header.compiled().sizes)
def test_signs_are_the_compilers(struct):
    """A number is signed in Python exactly when it is in C."""
    truth = header.compiled().fields[struct]
    mirrored = {
        name: code.islower() for name, code in LAYOUTS[struct].fields if len(code) == 1 and code != "x"
    }
    assert mirrored == {name: truth[name].is_signed for name in mirrored}


@pytest.mark.parametrize("struct", sorted(header.compiled().sizes.keys() - {"lookup"}))
def test_sizes_are_the_compilers(struct):
    """A whole struct has the compiler's size, so that arrays of it are read in step."""
    assert LAYOUTS[struct].size == header.compiled().sizes[struct]


def test_size_of_a_lookup_is_the_compilers():
    """A lookup's queries follow right behind its own fields and end with the struct."""
    truth = header.compiled()
    queries = truth.fields["lookup"]["queries"]
    assert (boundary.LOOKUP.size, boundary.LOOKUP_BYTES) == (queries.offset, truth.sizes["lookup"])
    assert queries.size == boundary.MAX_QUERIES * boundary.QUERY.size


def test_every_struct_is_mirrored():
    """Each struct of the header has its layout, and no layout is of another struct."""
    assert LAYOUTS.keys() == header.compiled().sizes.keys()


def mirrored_numbers() -> dict[str, int]:
    """Every number of boundary.py under the header's name for it."""
    named = {f"{prefix}{entry.name}": int(entry) for enum, prefix in boundary.ENUMS.items() for entry in enum}
    plain = {name: value for name, value in vars(boundary).items() if name.isupper() and type(value) is int}
    return named | plain


@pytest.mark.parametrize("name", sorted(header.compiled().numbers.keys() - ENDS.keys()))
def test_every_number_of_the_header_is_mirrored(name):
    """Each enumerator and each #define has its name and value on both sides."""
    assert mirrored_numbers().get(name) == header.number(name)


def test_no_number_is_invented():
    """Python knows no number of the boundary that the header does not have."""
    calculated = {"LOOKUP_BYTES", "LATENCIES"}
    assert mirrored_numbers().keys() - calculated - header.compiled().numbers.keys() == set()


@pytest.mark.parametrize("name", ENDS)
def test_enums_have_as_many_entries(name):
    """Counters, kinds of waits and histogram rows are as many as the header says."""
    assert ENDS[name] == header.number(name)


@pytest.mark.parametrize(
    ("struct", "first", "second"),
    [
        ("query", "sent_ns", "resent_ns"),
        ("lookup", "more_queries", "name_bytes"),
        ("connect", "tcp_state", "status"),
        ("process_change", "pid", "parent_pid"),
    ],
)
def test_swapped_fields_are_noticed(struct, first, second):
    """Two fields of one type that change places in the header are noticed in that struct only, by name."""
    body = re.search(rf"^struct {struct} \{{.*?^\}};", header.text(), re.MULTILINE | re.DOTALL)[0]
    swaps = {first: second, second: first}
    swapped = re.sub(rf"\b({first}|{second});", lambda found: f"{swaps[found[1]]};", body)
    truth = header.compiled(header.text().replace(body, swapped))
    found = {name: differences(name, layout, truth) for name, layout in LAYOUTS.items()}
    told = found.pop(struct)
    assert {line.split(":")[0] for line in told} == {f"{struct}.{first}", f"{struct}.{second}"}
    assert not any(found.values())


@pytest.mark.parametrize("struct", ["query", "lookup", "connect"])
def test_a_new_field_is_noticed(struct):
    """A field that is added to the header only is noticed by its name."""
    grown = header.text().replace(f"struct {struct} {{", f"struct {struct} {{\n  __u64 added;", 1)
    assert any("added" in line for line in differences(struct, LAYOUTS[struct], header.compiled(grown)))


def test_layouts_refuse_too_little():
    """A layout reads its own size and not a byte less."""
    for layout in boundary.LAYOUTS:
        assert layout.unpack(bytes(layout.size)) == layout.unpack(bytes(layout.size + 3), 3)
        with pytest.raises(Exception, match="requires a buffer"):
            layout.unpack(bytes(layout.size - 1))
