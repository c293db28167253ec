"""dumps and loads: round trips, golden bytes, and refusals with their path or offset."""

from __future__ import annotations

import enum
import gc
import importlib.util
import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import execnet
import vectors

settings.register_profile("suite", database=None, deadline=None, max_examples=60)
settings.load_profile("suite")

MODES = {
    "both": {"py2str_as_py3str": True},
    "load": {"py2str_as_py3str": True},
    "load-py2str-as-bytes": {"py2str_as_py3str": False},
    "load-py3str-as-bytes": {"py2str_as_py3str": True, "py3str_as_py2str": True},
}
VECTORS = [vector for vector in vectors.values() if vector.mode in MODES]


def value_of(vector: vectors.Vector) -> Any:
    return eval(vector.value, {"inf": math.inf, "nan": math.nan})


def same(one: Any, other: Any) -> bool:
    """Whether the values are equal and have the same types in them. NaN equals itself here."""
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_golden_bytes_load_as_their_value(vector: vectors.Vector) -> None:
    assert same(execnet.loads(vector.data, **MODES[vector.mode]), value_of(vector))


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.mode == "both"], ids=lambda vector: vector.name)
def test_values_dump_as_their_golden_bytes(vector: vectors.Vector) -> None:
    assert execnet.dumps(value_of(vector)) == vector.data


@pytest.mark.parametrize("case", vectors.malformed(), ids=lambda case: case.name)
def test_malformed_bytes_are_refused_with_the_offset(case: vectors.Malformed) -> None:
    with pytest.raises(execnet.LoadError, match=rf"at byte {case.offset}\b") as caught:
        execnet.loads(case.data)
    assert caught.value.offset == case.offset


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
hashables = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4) | st.tuples(), max_leaves=8
)
values = st.recursive(
    hashables,
    lambda inner: st.lists(inner) | st.dictionaries(hashables, inner) | st.sets(hashables) | st.tuples(inner, inner),
    max_leaves=25,
)


@given(values)
def test_every_value_comes_back(value: Any) -> None:
    loaded = execnet.loads(execnet.dumps(value))
    assert loaded == value
    assert type(loaded) is type(value)


def offset_of_damage(data: bytes) -> int:
    """The offset of the error that loads() finds; 0 if there is none. Exceptions other than LoadError pass through."""
    try:
        execnet.loads(data)
    except execnet.LoadError as error:
        return error.offset
    return 0


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_raise_loaderror(data: bytes) -> None:
    assert 0 <= offset_of_damage(b"\x02" + data + b"Q") <= len(data) + 2


@given(values, st.data())
def test_damaged_dumps_do_no_more_than_raise_loaderror(value: Any, data: st.DataObject) -> None:
    dumped = bytearray(execnet.dumps(value))
    dumped[data.draw(st.integers(0, len(dumped) - 1))] = data.draw(st.integers(0, 255))
    assert 0 <= offset_of_damage(bytes(dumped)) <= len(dumped)


@given(values)
def test_a_dump_cut_short_is_refused(value: Any) -> None:
    dumped = execnet.dumps(value)
    for size in range(0, len(dumped), 1 + len(dumped) // 10):
        with pytest.raises(execnet.LoadError):
            execnet.loads(dumped[:size])


@pytest.mark.parametrize(
    "number", [-(2**31) - 1, 2**31, 10**5000, -(10**5000)], ids=["below", "above", "huge", "-huge"]
)
def test_integers_of_any_size_are_dumped(number: int) -> None:
    assert execnet.loads(execnet.dumps(number)) == number


def test_files_are_written_and_read() -> None:
    file = io.BytesIO()
    execnet.dump(file, [1, "a"])
    assert file.getvalue() == execnet.dumps([1, "a"])
    file.seek(0)
    assert execnet.load(file) == [1, "a"]


class Colour(enum.Enum):
    RED = 1


class Text(str):
    __slots__ = ()


cyclic: list[Any] = []
cyclic.append(cyclic)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Colour.RED, "can't serialize <enum 'Colour'>"),
        ([0, 1, 2, {"status": Colour.RED}], "can't serialize <enum 'Colour'> at [3]['status']"),
        ((1, [object()]), "can't serialize <class 'object'> at [1][0]"),
        ({"a": {2: {None: {4, Colour.RED}}}}, "at ['a'][2][None]{...}"),
        ([{Colour.RED: 1}], "can't serialize <enum 'Colour'> at [0]"),
        (["\ud800"], "at [0]"),
        ([Text("a")], "Text'> at [0]"),
    ],
    ids=["itself", "in a dict", "in a tuple", "in a set", "a key", "a lone surrogate", "a subclass"],
)
def test_what_cannot_be_dumped_is_named_with_its_path(value: Any, text: str) -> None:
    with pytest.raises(execnet.DumpError) as caught:
        execnet.dumps(value)
    assert text in str(caught.value)


class _Number:
    real, imag = 2.0, 1.0

    def __bool__(self) -> bool:
        return False

    def __index__(self) -> int:
        return 2**40

    def __float__(self) -> float:
        return 0.5


class _Items:
    def __iter__(self) -> Iterator[object]:
        return iter([1, (2,)])

    def items(self) -> list[tuple[object, object]]:
        return [("a", [1])]


@pytest.mark.parametrize(
    ("name", "base", "value"),
    [
        ("bool", _Number, False),
        ("int", _Number, 2**40),
        ("long", _Number, 2**40),
        ("float", _Number, 0.5),
        ("complex", _Number, 2 + 1j),
        ("NoneType", _Number, None),
        ("list", _Items, [1, (2,)]),
        ("tuple", _Items, (1, (2,))),
        ("set", _Items, {1, (2,)}),
        ("frozenset", _Items, frozenset({1, (2,)})),
        ("dict", _Items, {"a": [1]}),
        ("int", int, 0),
        ("float", float, 0.0),
        ("complex", complex, 0j),
        ("str", str, ""),
        ("bytes", bytes, b""),
        ("bytes", bytearray, b""),
        ("list", list, []),
        ("tuple", tuple, ()),
        ("set", set, set()),
        ("frozenset", frozenset, frozenset()),
        ("dict", dict, {}),
    ],
)
def test_a_type_with_the_name_of_a_builtin_one_is_dumped_as_that(name: str, base: type, value: Any) -> None:
    # execnet 2.1 goes by the name, and so numpy.bool_ of NumPy 2 could always be sent.
    item = type(name, (base,), {})()
    assert same(execnet.loads(execnet.dumps([item, {"in": (item,)}])), [value, {"in": (value,)}])


@pytest.mark.parametrize("name", ["int", "float", "complex", "str", "bytes", "list", "set", "dict", "bool_", "float64"])
def test_a_name_alone_makes_no_value(name: str) -> None:
    with pytest.raises(execnet.DumpError, match=rf"can't serialize <class '.*{name}'> at \[1\]"):
        execnet.dumps([0, type(name, (), {})()])


def test_the_path_into_what_is_named_like_a_builtin_type() -> None:
    with pytest.raises(execnet.DumpError, match=r"<class 'object'> at \[0\]\[1\]"):
        execnet.dumps([type("list", (list,), {})([1, object()])])


def test_what_code_of_the_program_raises_is_not_hidden() -> None:
    def fail(_: object) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        execnet.dumps(type("bool", (), {"__bool__": fail})())


NUMPY = """
import execnet, numpy

print(execnet.loads(execnet.dumps({"passed": [numpy.bool_(True)]})))
for value in (numpy.int64(1), numpy.float64(1), numpy.str_("a"), numpy.bytes_(b"a"), numpy.complex128(1)):
    try:
        print(execnet.dumps(value))
    except execnet.DumpError as error:
        print(error)
"""


@pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="NumPy is not installed")
def test_numbers_of_numpy_are_dumped_if_their_types_are_named_like_builtin_ones() -> None:
    # Elsewhere, since it starts threads.
    done = subprocess.run([sys.executable, "-c", NUMPY], capture_output=True, text=True, timeout=60, check=True)
    passed, *refused = done.stdout.splitlines()
    assert passed == "{'passed': [True]}"
    assert [line.split(" <class")[0] for line in refused] == ["can't serialize"] * 5


def test_a_cycle_is_too_deep() -> None:
    with pytest.raises(execnet.DumpError, match="1000 levels"):
        execnet.dumps(cyclic)


def test_a_channel_is_for_channels_only(gateway: execnet.Gateway) -> None:
    with pytest.raises(execnet.DumpError, match="at \\[0\\]"):
        execnet.dumps([gateway.newchannel()])


def test_the_errors_are_of_one_family() -> None:
    assert issubclass(execnet.DumpError, execnet.DataFormatError)
    assert issubclass(execnet.LoadError, execnet.DataFormatError)
    assert not issubclass(execnet.DataFormatError, (OSError, ValueError))


def test_strings_that_come_again_are_not_mistaken_for_others() -> None:
    """loads() recognises short strings. For each length: one that differs at each place, and all of them twice."""
    strings = []
    for size in range(40):
        text = "a" * size
        strings += [text, *(text[:at] + "b" + text[at + 1 :] for at in range(size))]
    strings += [text.replace("a", "\u00e4") for text in strings]
    for value in (strings * 2, {text: text for text in strings}, [{text: at} for at, text in enumerate(strings)]):
        assert execnet.loads(execnet.dumps(value)) == value
    known, again = execnet.loads(execnet.dumps(["abc", "abc", *strings]))[:2]
    assert known is again


@pytest.mark.parametrize("enabled", [True, False])
def test_loads_leaves_the_garbage_collector_as_it_is(enabled: bool) -> None:
    dumped = execnet.dumps([[number] for number in range(2000)])
    try:
        if not enabled:
            gc.disable()
        execnet.loads(dumped)
        with pytest.raises(execnet.LoadError):
            execnet.loads(dumped[:-1])
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def arenas(capfd: pytest.CaptureFixture[str]) -> dict[str, int]:
    """Arenas for small objects: how many the interpreter has made in "total", and has "current"ly."""
    capfd.readouterr()
    sys._debugmallocstats()
    return {
        name: int(number) for name, number in re.findall(r"arenas allocated (\w+) *= *(\d+)", capfd.readouterr().err)
    }


@pytest.mark.skipif("EXECNET_TEST_SANITIZER" in os.environ, reason="sanitizers have memory of their own")
@pytest.mark.parametrize(
    "value",
    [
        list(range(1000, 200_000)),
        [number / 7 for number in range(200_000)],
        [f"a string {number}" for number in range(100_000)],
        {number: [str(number)] for number in range(1000, 100_000)},
    ],
    ids=["integers", "floats", "strings", "a dict"],
)
def test_a_large_value_finds_the_memory_of_the_one_before(value: object, capfd: pytest.CaptureFixture[str]) -> None:
    dumped = execnet.dumps(value)
    execnet.loads(dumped)
    before = arenas(capfd)
    for _ in range(10):
        execnet.loads(dumped)
    # If no arena stayed, each value would need all of its arenas anew: at least four, and so forty. Where there is room
    # depends on what the interpreter has made before, so some values need one more.
    assert arenas(capfd)["total"] < before["total"] + 20
    # And the memory that stays is bounded.
    execnet.loads(execnet.dumps(list(range(1000, 2_000_000))))
    assert arenas(capfd)["current"] <= before["current"] + 40


# --- Limits ---


@pytest.mark.parametrize(
    ("value", "items"),
    [
        (1, 1),
        ([], 1),
        ([1, 2, 3], 4),
        ({1: 2, "a": [1]}, 6),
        ([[[]], [7]], 5),
        ((1, {2}, frozenset()), 5),
        ([b"", 1j], 3),
    ],
)
def test_a_value_of_more_items_than_wanted_is_refused(value: Any, items: int) -> None:
    data = execnet.dumps(value)
    assert execnet.loads(data, max_items=items) == value
    assert execnet.load(io.BytesIO(data), max_items=items) == value
    for load in (
        lambda: execnet.loads(data, max_items=items - 1),
        lambda: execnet.load(io.BytesIO(data), max_items=items - 1),
    ):
        with pytest.raises(execnet.LoadError, match=f"more than {items - 1} items"):
            load()


@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.integers(), inner), max_leaves=30))
def test_items_are_counted_as_they_are(value: Any) -> None:
    def count(one: Any) -> int:
        if isinstance(one, dict):
            return 1 + sum(1 + count(item) for item in one.values())
        return 1 + sum(map(count, one)) if isinstance(one, (list, tuple, set, frozenset)) else 1

    items = count(value)
    assert same(execnet.loads(execnet.dumps(value), max_items=items), value)
    with pytest.raises(execnet.LoadError, match="items"):
        execnet.loads(execnet.dumps(value), max_items=items - 1)


def test_more_bytes_than_wanted_are_refused_and_not_read() -> None:
    data = execnet.dumps("x" * 1000)
    assert execnet.loads(data, max_bytes=len(data)) == "x" * 1000
    assert execnet.load(io.BytesIO(data + data), max_bytes=len(data)) == "x" * 1000
    file = io.BytesIO(data)
    for load in (lambda: execnet.loads(data, max_bytes=100), lambda: execnet.load(file, max_bytes=100)):
        with pytest.raises(execnet.LoadError, match="more than 100 bytes"):
            load()
    assert file.tell() <= 100


@pytest.mark.parametrize("limit", ["max_bytes", "max_items"])
def test_a_limit_of_less_than_nothing_is_a_valueerror(limit: str) -> None:
    with pytest.raises(ValueError, match="negative"):
        execnet.loads(execnet.dumps(1), **{limit: -1})
    assert execnet.loads(execnet.dumps(1), **{limit: None}) == 1


def colliding(count: int) -> bytes:
    """A dict whose keys all have one hash: what is left of them by the modulus of hashes, 2**61 - 1."""
    keys = [str(number * (2**61 - 1)).encode() for number in range(1, count + 1)]
    items = b"".join(b"I" + len(key).to_bytes(4, "big") + key + b"LP" for key in keys)
    return b"\x02J" + items + b"Q"


def test_keys_that_collide_are_as_many_as_are_allowed() -> None:
    data = colliding(20_000)
    with pytest.raises(execnet.LoadError, match="more than 1000 items at byte"):
        execnet.loads(data, max_items=1000)
    assert len(execnet.loads(colliding(400), max_items=801)) == 400


def test_empty_dicts_are_as_many_as_are_allowed() -> None:
    count = 1_000_000
    data = b"\x02" + b"J" * count + b"@" + count.to_bytes(4, "big") + b"Q"
    with pytest.raises(execnet.LoadError, match="more than 100000 items at byte 100001"):
        execnet.loads(data, max_items=100_000)
