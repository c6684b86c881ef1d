"""What a Go binary's DWARF says of structs and functions: how the tables in observe/ are checked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from elftools.elf.elffile import ELFFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POINTERS = {"DW_TAG_pointer_type", "DW_TAG_base_type", "DW_TAG_subroutine_type", "DW_TAG_enumeration_type"}


class Value(NamedTuple):
    """A parameter, or a result: how many registers it needs (None: it never fits into any), and its size."""

    registers: int | None
    bytes: int
    alignment: int


class GoDwarf:
    """The types and functions of one package."""

    def __init__(self, units: list[Any]) -> None:
        self._named: dict[tuple[str, str], Any] = {}
        for die in (die for unit in units for die in unit.iter_DIEs()):
            name = die.attributes.get("DW_AT_name")
            if name is not None and die.tag in {"DW_TAG_structure_type", "DW_TAG_subprogram"}:
                self._named[die.tag, name.value.decode()] = die

    def offset(self, struct: str, member: str) -> int | None:
        """Where a member is in a struct; None: it has none of that name."""
        for die in self._named["DW_TAG_structure_type", struct].iter_children():
            if die.attributes["DW_AT_name"].value.decode() == member:
                return int(die.attributes["DW_AT_data_member_location"].value)
        return None

    def has(self, function: str) -> bool:
        return ("DW_TAG_subprogram", function) in self._named

    def parameters(self, function: str) -> tuple[dict[str, Value], dict[str, Value]]:
        """What a function takes and what it returns, by name; a compiler may write one of them twice."""
        die = self._named["DW_TAG_subprogram", function]
        if "DW_AT_abstract_origin" in die.attributes:
            die = die.get_DIE_from_attribute("DW_AT_abstract_origin")
        taken: dict[str, Value] = {}
        returned: dict[str, Value] = {}
        for child in die.iter_children():
            if child.tag == "DW_TAG_formal_parameter":
                side = returned if child.attributes["DW_AT_variable_parameter"].value else taken
                name = child.attributes["DW_AT_name"].value.decode()
                side[name] = value_of(child.get_DIE_from_attribute("DW_AT_type"))
        return taken, returned


def value_of(die: Any) -> Value:
    """How a value of a type is passed."""
    if die.tag == "DW_TAG_typedef":
        return value_of(die.get_DIE_from_attribute("DW_AT_type"))
    if die.tag == "DW_TAG_structure_type":
        members = [
            value_of(child.get_DIE_from_attribute("DW_AT_type"))
            for child in die.iter_children()
            if child.tag == "DW_TAG_member"
        ]
        registers = [member.registers for member in members]
        needed = None if None in registers else sum(number or 0 for number in registers)
        alignment = max((member.alignment for member in members), default=1)
        return Value(needed, die.attributes["DW_AT_byte_size"].value, alignment)
    if die.tag == "DW_TAG_array_type":
        element = value_of(die.get_DIE_from_attribute("DW_AT_type"))
        (bounds,) = die.iter_children()
        count = bounds.attributes["DW_AT_count"].value
        needed = {0: 0, 1: element.registers}.get(count)
        return Value(needed, count * element.bytes, element.alignment)
    assert die.tag in POINTERS, die.tag
    size = die.attributes["DW_AT_byte_size"].value if "DW_AT_byte_size" in die.attributes else 8
    return Value(1, size, size)


@contextmanager
def opened(path: Path) -> Iterator[dict[str, list[Any]]]:
    """The compilation units of a Go binary, by package; a package's assembly has units of its own."""
    with path.open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        units: dict[str, list[Any]] = {}
        for unit in dwarf.iter_CUs():
            name = unit.get_top_DIE().attributes.get("DW_AT_name")
            if name is not None:
                units.setdefault(name.value.decode(), []).append(unit)
        yield units
