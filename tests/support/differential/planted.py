"""Mistakes planted into modules while they run."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["planted"]


@contextmanager
def planted(module: ModuleType, right: str, wrong: str) -> Iterator[None]:
    """Run a module with one piece of its source, which it must hold just once, replaced by another.

    Functions keep their identity, since others have imported them: they get other code. Constants are put in place of the old,
    but for tables of functions, which get other code as they are.
    """
    source = inspect.getsource(module)
    assert source.count(right) == 1, f"{module.__name__} has {right!r} {source.count(right)} times"
    changed: dict[str, Any] = {"__name__": module.__name__, "__file__": module.__file__}
    exec(compile(source.replace(right, wrong), str(module.__file__), "exec"), changed)
    mutant = {name: value for name, value in changed.items() if not name.startswith("__")}
    theirs = dict(_functions(mutant, module.__name__))
    codes = {}
    for name, function in _functions(vars(module), module.__name__):
        codes[function] = function.__code__
        function.__code__ = theirs[name].__code__
    constants = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, str | int | float | tuple | dict | frozenset | timedelta)
        and not name.startswith("__")
        and not (isinstance(value, dict) and any(map(callable, value.values())))
        and repr(mutant.get(name)) != repr(value)
    }
    for name in constants:
        setattr(module, name, mutant[name])
    try:
        yield
    finally:
        for function, code in codes.items():
            function.__code__ = code
        for name, value in constants.items():
            setattr(module, name, value)


def _functions(names: dict[str, Any], module: str) -> Iterator[tuple[str, FunctionType]]:
    """Yield the functions and methods of a module, by qualified name."""
    for value in list(names.values()):
        found = inspect.unwrap(value) if callable(value) and not isinstance(value, type) else value
        if isinstance(found, FunctionType) and found.__module__ == module:
            yield found.__qualname__, found
        elif isinstance(found, type) and found.__module__ == module:
            for member in vars(found).values():
                inner = getattr(member, "__func__", getattr(member, "fget", member))
                if isinstance(inner, FunctionType) and inner.__module__ == module:
                    yield inner.__qualname__, inner
