"""The text that is compiled, and the table of what is attached where: each function in both."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from ebpfdns.model.boundary import Api
from ebpfdns.observe import go_probes, probes, sources
from ebpfdns.observe.sources import Sizes, Variant

#: A function that BCC makes a program of: not INLINE, written out or by the macro of the calls.
PROGRAM = re.compile(r"^(?:int (\w+)\((?!.*;$)|ENTRY\((\w+),)", re.MULTILINE)
TEXTS = {name: (sources.directory() / f"{name}.c").read_text() for name in sources.FILES}


def programs_in_text():
    return {first or second for text in TEXTS.values() for first, second in PROGRAM.findall(text)}


def programs_in_tables():
    return {
        *(
            point.function
            for point in (*probes.TRACEPOINTS, probes.RAW_STATES, probes.FOLLOW, *probes.FOLLOW_INSIDE)
        ),
        *(hook.function for hook in probes.CGROUP_HOOKS),
        *probes.CALLS.values(),
        *(function for _, function in probes.TAIL_CALLS),
        *go_probes.FUNCTIONS,
        probes.ALL_CALLS_FUNCTION,
        probes.RETURN_FUNCTION,
        probes.RARE_FUNCTION,
        probes.POOL_FUNCTION,
    }


def test_every_program_is_attached_somewhere():
    """Each program in bpf/ is in a table, and each table names programs that are there."""
    assert programs_in_text() == programs_in_tables()


def test_every_file_is_compiled():
    """Each .c file of the folder is in the list, in which the maps come first."""
    assert {path.stem for path in sources.directory().glob("*.c")} == set(sources.FILES)
    assert sources.FILES[0] == "maps"


def test_tail_calls_name_maps_that_exist():
    """Each jump goes through an array of programs that the text declares."""
    declared = set(re.findall(r"BPF_PROG_ARRAY\((\w+),", "".join(TEXTS.values())))
    assert {name for name, _ in probes.TAIL_CALLS} == declared


def test_every_library_call_has_its_api():
    """Each probed library function has a number in the boundary, and each number but these a function."""
    assert {name.upper() for name in probes.CALLS} == {api.name for api in Api} - {
        "NONE",
        "WIRE",
        "UV_GETADDRINFO",
        "GO",
        "CGO",
    }


@pytest.mark.parametrize(("name", "function"), probes.CALLS.items())
def test_a_library_call_is_counted_under_its_own_name(name, function):
    """The program at a library function passes on that function's number."""
    assert f"ENTRY({function}, API_{name.upper()})" in TEXTS["lookups"]


def test_program_names_fit_the_kernel():
    """What tells programs apart in bpftool is the first 15 bytes: no two have the same."""
    names = {point.function[:15] for point in (*probes.TRACEPOINTS, probes.RAW_STATES, probes.FOLLOW)}
    names |= {hook.function[:15] for hook in probes.CGROUP_HOOKS}
    assert len(names) == len(probes.TRACEPOINTS) + 2 + len(probes.CGROUP_HOOKS)


@pytest.mark.parametrize(
    ("function", "by_link", "expected"),
    [
        ("socket_closes", False, (probes.CGROUP_SOCK, probes.SOCK_RELEASE)),
        ("packet_leaves", False, (probes.CGROUP_SKB, probes.EGRESS)),
        ("thread_exits", False, (probes.RAW_TRACEPOINT, 0)),
        ("tcp_state_changes", False, (probes.TRACEPOINT, 0)),
        ("raw_state_changes", False, (probes.RAW_TRACEPOINT, 0)),
        ("task_is_made", False, (probes.TRACEPOINT, 0)),
        ("socket_errs_raw", False, (probes.RAW_TRACEPOINT, 0)),
        ("getaddrinfo_begins", False, (probes.KPROBE, 0)),
        ("library_call_begins", True, (probes.KPROBE, probes.TRACE_UPROBE_MULTI)),
    ],
)
def test_each_function_is_loaded_as_its_kind(function, by_link, expected):
    """The kernel wants to know what a program is for before it is attached."""
    assert probes.program_kind(function, by_link=by_link) == expected


def defined(variant):
    return dict(re.findall(r"^#define (\S+?)(?: (.*))?$", sources.definitions(variant), re.MULTILINE))


PORT_TEST = "IS_DNS_PORT(port)"


@pytest.mark.parametrize(
    ("variant", "name", "value"),
    [
        (Variant(), PORT_TEST, "((port) == 53)"),
        (Variant(dns_ports=(53, 5353)), PORT_TEST, "((port) == 53 || (port) == 5353)"),
        (Variant(sizes=Sizes(ring_pages=8)), "RING_PAGES", "8"),
        (Variant(sizes=Sizes(calls=9)), "MAX_CALLS", "9"),
        (Variant(sizes=Sizes(lookups=10)), "MAX_LOOKUPS", "10"),
        (Variant(sizes=Sizes(questions=11)), "MAX_QUESTIONS", "11"),
        (Variant(sizes=Sizes(sockets=12)), "MAX_SOCKETS", "12"),
        (Variant(sizes=Sizes(connects=13)), "MAX_CONNECTS", "13"),
        (Variant(sizes=Sizes(waits=14)), "MAX_WAITS", "14"),
        (Variant(pid_namespace=(4, 0xEFFF_FFFC)), "PIDNS_DEVICE", "4ULL"),
        (Variant(pid_namespace=(4, 0xEFFF_FFFC)), "PIDNS_INODE", f"{0xEFFF_FFFC}ULL"),
        (Variant(filter_calls=True), "FILTER_CALLS", ""),
        (Variant(follow_children=True), "FOLLOW_CHILDREN", ""),
        (Variant(), "CURRENT_IN_PACKETS", ""),
    ],
)
def test_each_choice_is_a_definition(variant, name, value):
    """What a variant chooses stands in front of the programs."""
    assert defined(variant)[name] == value


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        (Variant(), "PIDNS_INODE"),
        (Variant(), "FILTER_CALLS"),
        (Variant(), "FOLLOW_CHILDREN"),
        (Variant(current_in_packets=False), "CURRENT_IN_PACKETS"),
    ],
)
def test_what_is_not_chosen_is_not_defined(variant, name):
    """What a variant does not choose is left out."""
    assert name not in defined(variant)


ALL_CHOSEN = Variant(pid_namespace=(1, 2), filter_calls=True, follow_children=True)


@pytest.mark.parametrize("name", defined(ALL_CHOSEN))
def test_each_definition_is_used(name):
    """No definition is made that no program looks at."""
    assert re.search(rf"\b{name.split('(')[0]}\b", "".join(TEXTS.values()))


def test_the_text_is_in_order_and_names_its_files():
    """Header, definitions, then the files in order, each under its own name for the compiler's errors."""
    text = sources.assemble(Variant())
    places = [text.index(f'#line 1 "bpf/{name}.c"') for name in sources.FILES]
    assert places == sorted(places)
    assert text.index("EBPFDNS_EVENTS_H") < text.index("#define RING_PAGES") < places[0]
    assert all(content in text for content in TEXTS.values())


def test_the_text_does_not_depend_on_the_locale():
    """In a locale without letters beyond ASCII the compiler gets the same text."""
    script = "import sys; from ebpfdns.observe import sources as s; print(hash(s.assemble(s.Variant())))"
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    hashes = {
        subprocess.run(
            [sys.executable, "-c", script], env=environment | locale, check=True, capture_output=True
        ).stdout
        for locale in (poor, {"LC_ALL": "C.UTF-8"})
    }
    assert len(hashes) == 1
