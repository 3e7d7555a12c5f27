"""The search for tests that pass whatever happens: those that check nothing, or only inside loops that may not run."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef

CHECKING_CALLS = frozenset({"raises", "warns", "deprecated_call", "fail"})
"""Names of pytest's functions that check something."""

WRAPPERS = frozenset(
    {"enumerate", "zip", "reversed", "sorted", "list", "tuple", "set", "iter", "product", "permutations"}
    | {"combinations", "pairwise", "chain", "batched", "items", "values", "keys", "dict", "map", "islice"}
)
"""Names of functions and methods that give something where their arguments, or their object, hold something."""


@dataclass(frozen=True)
class Finding:
    """A test whose checks may not run; `place` is its file and name, `reason` says why."""

    place: str
    line: int
    reason: str


def find_unsure_tests(files: Iterable[tuple[str, str]]) -> list[Finding]:
    """Return the tests of files, pairs of a path and a text, that may pass without having checked anything.

    A check is an ``assert``, a context or call of pytest that checks (``raises``), a process that must succeed
    (``check=True``), or the bare call of a function of these files that checks. It is sure to run where no ``if`` and no
    loop is around it, apart from loops over what is written out: literals, constants in capitals, ``range`` of a number, and
    arguments that ``parametrize`` or Hypothesis give. ``assert all(...)`` counts as a loop.
    """
    trees = {path: ast.parse(text) for path, text in files}
    functions = [
        (path, name, function) for path, tree in trees.items() for name, function in _functions(tree.body, "")
    ]
    checking = _checking_names(function for _, _, function in functions)
    found = []
    for path, name, function in functions:
        if not (function.name.startswith("test_") and Path(path).name.startswith("test_")):
            continue
        checks = list(_checks(function.body, _Scope.of(function, checking)))
        if not checks:
            found.append(Finding(f"{path}::{name}", function.lineno, "checks nothing"))
        elif not any(checks):
            found.append(
                Finding(
                    f"{path}::{name}", function.lineno, "checks only in loops or branches that may not run"
                )
            )
    return found


def _functions(body: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[str, Function]]:
    """Yield the functions and methods of a module with their names as pytest writes them, and functions inside functions."""
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            yield from _functions(statement.body, f"{prefix}{statement.name}::")
        elif isinstance(statement, Function):
            yield f"{prefix}{statement.name}", statement
            inner = [s for s in ast.walk(statement) if isinstance(s, Function) and s is not statement]
            yield from ((f"{prefix}{statement.name}.{s.name}", s) for s in inner)


def _checking_names(functions: Iterable[Function]) -> frozenset[str]:
    """Return the names of functions that are sure to check something, by themselves or by what they call."""
    functions = [f for f in functions if not f.name.startswith("test_")]
    names: frozenset[str] = CHECKING_CALLS
    while True:
        more = {f.name for f in functions if any(_checks(f.body, _Scope.of(f, names)))}
        if more <= names:
            return names
        names |= more


@dataclass(frozen=True)
class _Scope:
    """The names of one function: those that hold something for sure, and the functions that check."""

    filled: frozenset[str]
    checking: frozenset[str]

    @staticmethod
    def of(function: Function, checking: frozenset[str]) -> _Scope:
        scope = _Scope(frozenset(_given_names(function)), checking)
        for statement in ast.walk(function):
            if isinstance(statement, ast.Assign) and scope.is_filled(statement.value):
                names = {t.id for t in statement.targets if isinstance(t, ast.Name)}
                scope = _Scope(scope.filled | names, checking)
        return scope

    def is_filled(self, value: ast.expr) -> bool:
        """Return True if an iterable is sure to hold something."""
        match value:
            case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
                return any(not isinstance(p, ast.Starred) or self.is_filled(p.value) for p in parts)
            case ast.Dict(keys=keys):
                return any(key is not None for key in keys)
            case ast.Constant(value=str() | bytes() as text):
                return bool(text)
            case ast.Name(id=name):
                return name.isupper() or name in self.filled
            case ast.Attribute(attr=name):
                return name.isupper()
            case ast.BinOp(op=ast.Add() | ast.BitOr(), left=left, right=right):
                return self.is_filled(left) or self.is_filled(right)
            case ast.BinOp(op=ast.Mult(), left=left):
                return self.is_filled(left)
            case ast.Subscript(value=inner):
                return self.is_filled(inner)
            case (
                ast.ListComp(generators=loops)
                | ast.GeneratorExp(generators=loops)
                | ast.SetComp(generators=loops)
            ):
                return all(self.is_filled(loop.iter) and not loop.ifs for loop in loops)
            case ast.DictComp(generators=loops):
                return all(self.is_filled(loop.iter) and not loop.ifs for loop in loops)
            case ast.Call(func=ast.Name(id="range"), args=arguments):
                return all(isinstance(a, ast.Constant) or self.names_filled(a) for a in arguments)
            case ast.Call(func=ast.Name(id="zip"), keywords=keywords, args=arguments) if any(
                k.arg == "strict" and isinstance(k.value, ast.Constant) and k.value.value for k in keywords
            ):
                return any(map(self.is_filled, arguments))
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in WRAPPERS:
                return bool(arguments) and all(
                    self.is_filled(a) for a in arguments if not isinstance(a, ast.Lambda)
                )
            case ast.Call(func=ast.Attribute(value=inner, attr=name), args=arguments) if name in WRAPPERS:
                return self.is_filled(inner) or (bool(arguments) and all(map(self.is_filled, arguments)))
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str()), attr="split")):
                return True
        return False

    def names_filled(self, value: ast.expr) -> bool:
        """Return True if a number is made of what is sure to hold something: ``len(LEVELS)``, ``values.shape[1]``."""
        return any(isinstance(part, ast.Name) and self.is_filled(part) for part in ast.walk(value))


def _given_names(function: Function) -> Iterator[str]:
    """Yield the arguments that parametrize or Hypothesis give a function."""
    for decorator in function.decorator_list:
        if not isinstance(decorator, ast.Call):
            continue
        name = (
            decorator.func.attr
            if isinstance(decorator.func, ast.Attribute)
            else getattr(decorator.func, "id", "")
        )
        if name == "parametrize" and isinstance(decorator.args[0], ast.Constant):
            yield from (part.strip() for part in str(decorator.args[0].value).split(","))
        elif name == "parametrize" and isinstance(decorator.args[0], ast.Tuple | ast.List):
            yield from (str(p.value) for p in decorator.args[0].elts if isinstance(p, ast.Constant))
        elif name == "given":
            yield from (argument.arg for argument in function.args.args)
            yield from (argument.arg for argument in function.args.kwonlyargs)


def _checks(body: Iterable[ast.stmt], scope: _Scope, is_sure: bool = True) -> Iterator[bool]:
    """Yield one value for each check of a body, in order: True if it is sure to run."""
    for statement in body:
        match statement:
            case ast.Assert(test=test):
                yield is_sure and not _is_loop(test, scope)
            case ast.For(iter=iterable, body=inner) | ast.AsyncFor(iter=iterable, body=inner):
                yield from _checks(inner, scope, is_sure and scope.is_filled(iterable))
                yield from _checks(statement.orelse, scope, is_sure)
            case ast.While(test=test):
                forever = isinstance(test, ast.Constant) and bool(test.value)
                yield from _checks(statement.body, scope, is_sure and forever)
                yield from _checks(statement.orelse, scope, is_sure)
            case ast.If():
                taken, other = (
                    list(_checks(statement.body, scope, is_sure)),
                    list(_checks(statement.orelse, scope, is_sure)),
                )
                yield from [any(taken) and any(other)] * bool(taken or other)
            case ast.Match(cases=cases):
                branches = [list(_checks(case.body, scope, is_sure)) for case in cases]
                yield from [all(map(any, branches))] * any(branches)
            case ast.With(items=items) | ast.AsyncWith(items=items):
                yield from (is_sure for item in items if _is_checking(item.context_expr, scope))
                yield from _checks(statement.body, scope, is_sure)
            case ast.Try():
                for part in (statement.body, statement.orelse, statement.finalbody):
                    yield from _checks(part, scope, is_sure)
                for handler in statement.handlers:
                    yield from _checks(handler.body, scope, False)
            case ast.Expr(value=value) | ast.Assign(value=value) | ast.Return(value=ast.expr() as value):
                bare = value.value if isinstance(value, ast.Await) else value
                counts = isinstance(statement, ast.Expr) and _is_checking(bare, scope)
                if counts or any(_must_succeed(c) for c in ast.walk(value) if isinstance(c, ast.Call)):
                    yield is_sure


def _is_loop(test: ast.expr, scope: _Scope) -> bool:
    """Return True for ``all(...)`` over what may be empty."""
    match test:
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_is_loop(value, scope) for value in values)
        case ast.Call(func=ast.Name(id="all"), args=[ast.GeneratorExp(generators=loops)]):
            return not all(scope.is_filled(loop.iter) for loop in loops)
    return False


def _is_checking(value: ast.expr, scope: _Scope) -> bool:
    """Return True for the call of a function that checks something."""
    if not isinstance(value, ast.Call):
        return False
    name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
    return name in scope.checking or name.startswith(("assert_", "check_"))


def _must_succeed(call: ast.Call) -> bool:
    """Return True for a call with ``check=True``."""
    return any(
        k.arg == "check" and isinstance(k.value, ast.Constant) and k.value.value is True
        for k in call.keywords
    )
