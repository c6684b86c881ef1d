"""The words that the schema is written in: each makes one piece of JSON Schema, with its description.

Owns: how a type, an enum or an object is spelt in JSON Schema.
Must not know: any field of an event.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def text(description: str, *, pattern: str | None = None, examples: list[str] | None = None) -> Schema:
    """A string that is not empty."""
    schema: Schema = {"description": description, "type": "string", "minLength": 1}
    if pattern:
        schema["pattern"] = pattern
    if examples:
        schema["examples"] = examples
    return schema


def count(description: str, *, at_least: int = 0, at_most: int | None = None) -> Schema:
    """A whole number."""
    schema: Schema = {"description": description, "type": "integer", "minimum": at_least}
    if at_most is not None:
        schema["maximum"] = at_most
    return schema


def measure(description: str) -> Schema:
    """A number with fractions that is not negative: milliseconds, mostly."""
    return {"description": description, "type": "number", "minimum": 0}


def flag(description: str) -> Schema:
    """True or false."""
    return {"description": description, "type": "boolean"}


def constant(value: object, description: str) -> Schema:
    """One value only."""
    return {"description": description, "const": value}


def choice(description: str, meanings: dict[str, str]) -> Schema:
    """One of these words; the description says what each means."""
    told = " ".join(f"`{value}`: {meaning}" for value, meaning in meanings.items())
    return {"description": f"{description} {told}", "type": "string", "enum": list(meanings)}


def ref(name: str, description: str) -> Schema:
    """A shape of `$defs`, and what it is here."""
    return {"description": description, "$ref": f"#/$defs/{name}"}


def items(description: str, of: Schema, *, at_least: int = 0) -> Schema:
    """A list."""
    schema: Schema = {"description": description, "type": "array", "items": of}
    if at_least:
        schema["minItems"] = at_least
    return schema


def record(description: str, required: dict[str, Schema], may: dict[str, Schema] | None = None) -> Schema:
    """An object with exactly these fields."""
    schema: Schema = {
        "description": description,
        "type": "object",
        "properties": required | (may or {}),
        "additionalProperties": False,
    }
    if required:
        schema["required"] = list(required)
    return schema


def or_null(schema: Schema) -> Schema:
    """The same, or null: it may not have been observed."""
    if "$ref" in schema:
        options = [{"$ref": schema["$ref"]}, {"type": "null"}]
        return {"description": schema["description"], "anyOf": options}
    nullable = {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def when(
    condition: dict[str, Any], *, needs: list[str] | None = None, bars: list[str] | None = None
) -> Schema:
    """If the fields have these values, some others must be there and others must not."""
    then: Schema = {}
    if needs:
        then["required"] = needs
    if bars:
        then["properties"] = dict.fromkeys(bars, False)
    fits = {
        "properties": {name: {"const": value} for name, value in condition.items()},
        "required": list(condition),
    }
    return {"if": fits, "then": then}
