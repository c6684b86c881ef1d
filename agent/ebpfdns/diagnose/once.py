"""A property that is worked out once for an object, and then lies in it.

Owns: that. Must not know: of what. As functools.cached_property, without the lock that it has before Python
3.12: ten of them are asked for in each of a thousand lookups that are stuck at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")


class worked_out_once(Generic[Value]):  # noqa: N801 - read as a decorator
    """For objects with a `__dict__`: what lies there goes before a descriptor that only reads."""

    def __init__(self, work_out: Callable[[Any], Value]) -> None:
        self._work_out = work_out
        self._name = work_out.__name__
        self.__doc__ = work_out.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object, owner: type) -> Self | Value:
        """The value, when it is asked for the first time."""
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._work_out(instance)
        return value
