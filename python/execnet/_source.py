"""What remote_exec() sends: the text of a source and its origin.

Imported when the first source is sent, as it takes a while to load what it needs.
"""

from __future__ import annotations

import ast
import builtins
import dis
import functools
import inspect
import linecache
import textwrap
import types
from collections.abc import Iterator

Description = tuple[str, "str | None", int, "str | None"]  # text, file, line of the file it starts on, function

_KEPT = 16384  # characters of a source; what is sent again and again is looked at once
_dedent = functools.lru_cache(maxsize=32)(textwrap.dedent)

_FUTURE = "from __future__ import annotations\n"
_INDENTED = "if True:\n"


def describe(source: object, kwargs: dict[str, object]) -> Description:
    """Raises ValueError for a function that cannot run elsewhere, TypeError for an object of another type."""
    if isinstance(source, types.FunctionType):
        return _describe_function(source)
    if kwargs:
        raise TypeError(f"only a function takes keyword arguments, not {_kind(source)}")
    if isinstance(source, types.ModuleType):
        filename, text, _ = _read(source)
        return text, filename, 1, None
    if isinstance(source, str):
        return _dedent(source) if len(source) <= _KEPT else textwrap.dedent(source), None, 1, None
    raise TypeError(f"source must be a str, a function or a module, not {_kind(source)}")


def _kind(source: object) -> str:
    return type(source).__name__


def _read(source: types.FunctionType | types.ModuleType) -> tuple[str | None, str, int]:
    """The file of an object, its text there, and the line on which that begins."""
    try:
        filename = inspect.getsourcefile(source)
        linecache.checkcache(filename)
        lines, line = inspect.getsourcelines(source)
    except (OSError, TypeError) as error:
        raise ValueError(f"the source of {source!r} cannot be found: {error}") from error
    return filename, "".join(lines), max(line, 1)


def _describe_function(function: types.FunctionType) -> Description:
    code = function.__code__
    name = code.co_name  # as in its text, whatever it is called now
    if name == "<lambda>":
        raise ValueError("a lambda cannot be sent, only a function made with def")
    if code.co_varnames[: code.co_argcount][:1] != ("channel",):
        raise ValueError(f"the first argument of {name}() must be named 'channel'")
    if function.__closure__:
        raise ValueError(f"{name}() has a closure, over {', '.join(code.co_freevars)}: pass these as arguments")
    filename, text, line = _read(function)
    text = textwrap.dedent(text)
    if text[:1].isspace():  # a comment or the text of a string lies further left than the function
        text, line = _INDENTED + text, line - 1
    tree = ast.parse(text)
    foreign = _foreign({*_globals_of(code), *_names_in(_evaluated_outside(tree))})
    if foreign:
        raise ValueError(f"{name}() uses globals that are not builtin, {', '.join(foreign)}: import them inside of it")
    if _foreign(set(_names_in(_annotations(tree)))):  # must not be evaluated there
        text, line = _FUTURE + text, line - 1
    return text, filename, line, name


def _foreign(names: set[str]) -> list[str]:
    return sorted(name for name in names if not hasattr(builtins, name))


def _globals_of(code: types.CodeType) -> set[str]:
    """The globals that code, with the functions and classes in it, reads but does not set."""
    read, stored = set(), set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(instruction.argval)
        elif instruction.opname in ("STORE_GLOBAL", "STORE_NAME"):
            stored.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            read |= _globals_of(constant)
    return read - stored


def _definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    first = tree.body[0]
    body = first.body if isinstance(first, ast.If) else tree.body  # of _INDENTED
    return (node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _evaluated_outside(tree: ast.Module) -> Iterator[ast.expr]:
    """What the code of a function does not show: its decorators and defaults."""
    for node in _definitions(tree):
        yield from node.decorator_list
        yield from node.args.defaults
        yield from (default for default in node.args.kw_defaults if default is not None)


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
        if annotation is not None:
            yield annotation


def _names_in(expressions: Iterator[ast.expr]) -> Iterator[str]:
    for expression in expressions:
        yield from (node.id for node in ast.walk(expression) if isinstance(node, ast.Name))
