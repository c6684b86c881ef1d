"""bpf/events.h as the C compiler understands it: the boundary tests' own source of offsets and numbers.

Nothing here comes from model/boundary.py: the two are compared.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEADER = Path(__file__).parents[2] / "bpf/events.h"
TYPES = """
typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32;
typedef unsigned long long __u64; typedef int __s32;
"""
STRUCT = re.compile(r"^struct (\w+) \{(.*?)^\};", re.MULTILINE | re.DOTALL)
ENUM = re.compile(r"^enum \w+ \{(.*?)^\};", re.MULTILINE | re.DOTALL)
DEFINE = re.compile(r"^#define (\w+) +\S", re.MULTILINE)
FIELD = re.compile(r"(\w+)\s*((?:\[\w+\])*);")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


@dataclass(frozen=True)
class Field:
    """Where a field lies; `is_signed` of a plain number, else None."""

    offset: int
    size: int
    is_signed: bool | None


@dataclass(frozen=True)
class Header:
    """What the compiler says: struct → size, struct → field → place, name → number."""

    sizes: dict[str, int]
    fields: dict[str, dict[str, Field]]
    numbers: dict[str, int]


def text() -> str:
    return HEADER.read_text()


@functools.cache
def compiled(header_text: str | None = None) -> Header:
    """Compile a program that prints every size, offset and number of the header, and run it."""
    source = header_text or text()
    plain = COMMENT.sub("", source)
    structs = {name: FIELD.findall(body) for name, body in STRUCT.findall(plain)}
    names = [name.split("=")[0].strip() for body in ENUM.findall(plain) for name in body.split(",")]
    names = [name for name in names if name] + DEFINE.findall(plain)
    lines = [f'printf("number {name} 0 %lld 0\\n", (long long)({name}));' for name in names]
    for struct, fields in structs.items():
        lines.append(f'printf("size {struct} 0 %zu 0\\n", sizeof(struct {struct}));')
        for field, dimensions in fields:
            at = f"((struct {struct} *)0)->{field}"
            is_number = not dimensions and field != "queries"
            signed = f"(__typeof__({at}))-1 < 0" if is_number else "2"
            lines.append(
                f'printf("field {struct}.{field} %zu %zu %d\\n", '
                f"__builtin_offsetof(struct {struct}, {field}), sizeof({at}), {signed});"
            )
    program = (
        f"#include <stdio.h>\n{TYPES}\n{source}\nint main(void) {{\n" + "\n".join(lines) + "\nreturn 0; }\n"
    )
    return _parsed(_run(program))


def _run(program: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "layout")
        command = ["cc", "-w", "-x", "c", "-", "-o", str(path)]
        subprocess.run(command, input=program, text=True, check=True)
        return subprocess.run([path], capture_output=True, text=True, check=True).stdout


def _parsed(output: str) -> Header:
    found = Header({}, {}, {})
    for line in output.splitlines():
        kind, name, first, second, third = line.split()
        if kind == "size":
            found.sizes[name] = int(second)
        elif kind == "number":
            found.numbers[name] = int(second)
        else:
            struct, field = name.split(".")
            is_signed = {"0": False, "1": True, "2": None}[third]
            found.fields.setdefault(struct, {})[field] = Field(int(first), int(second), is_signed)
    return found


def number(name: str) -> int:
    """The number that the header calls by this name."""
    return compiled().numbers[name]


def packed(struct: str, **values: Any) -> bytes:
    """The bytes of a struct with these fields, all others zero; numbers are little-endian."""
    layout = compiled()
    raw = bytearray(layout.sizes[struct])
    for name, value in values.items():
        field = layout.fields[struct][name]
        part = value if isinstance(value, bytes) else _integer(value, field)
        assert len(part) <= field.size, name
        raw[field.offset : field.offset + len(part)] = part
    return bytes(raw)


def _integer(value: int, field: Field) -> bytes:
    return value.to_bytes(field.size, "little", signed=bool(field.is_signed))


def lookup_frame(queries: list[dict[str, Any]], **values: Any) -> bytes:
    """A struct lookup as a frame carries it: with as many queries as it has."""
    blank = {"kind": number("FRAME_LOOKUP"), "query_count": len(queries)}
    raw = packed("lookup", **(blank | values))
    head = raw[: compiled().fields["lookup"]["queries"].offset]
    return head + b"".join(packed("query", **query) for query in queries)
