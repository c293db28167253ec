"""Values of every type, in both directions."""

from __future__ import annotations

import math
from typing import Any

import pytest

import execnet
import vectors

INTEGERS = [
    sign * (2**bits + near)
    for bits in (0, 7, 8, 15, 16, 31, 32, 53, 63, 64, 100)
    for near in (-1, 0, 1)
    for sign in (1, -1)
]
FLOATS = [0.0, -0.0, 1.5, -1e300, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, 0.1]
TEXTS = ["", "a", "with\0zero", "é€😀", "\x7f\x80\xff", "line\r\nline\n", "x" * 70_000]
BYTES = [b"", b"a", b"\x00\xff\x80", bytes(range(256)), b"Q" * 300_000]
CONTAINERS: list[Any] = [
    [],
    (),
    {},
    set(),
    frozenset(),
    [None, True, False],
    [[[]], ([],), {"a": {}}],
    {1: "a", "b": 2, (1, 2): [3], None: {4}, b"k": 2.5, frozenset([7]): 1j, 3: False},
    {1, "two", (3,), 4.5, None},
    frozenset([frozenset(), (1, "x")]),
    list(range(1000)),
    {f"key {number}": [number, (number,)] for number in range(300)},
]


@pytest.mark.parametrize(
    "items",
    [
        pytest.param([None, True, False], id="constants"),
        pytest.param(INTEGERS, id="integers"),
        pytest.param(FLOATS, id="floats"),
        pytest.param([1j, complex(-0.0, math.inf), 1.5 - 2.5j], id="complex"),
        pytest.param(TEXTS, id="texts"),
        pytest.param(BYTES, id="bytes"),
        pytest.param(CONTAINERS, id="containers"),
    ],
)
def test_what_is_sent_comes_back_as_it_was(echo: execnet.Channel, items: list[Any]) -> None:
    for item in items:
        echo.send(item)
    for item in items:
        # The representation distinguishes types, and -0.0 from 0.0. Sets have no order in it.
        received = echo.receive()
        assert received == item
        assert shape(received) == shape(item)


def shape(value: Any) -> Any:
    """The value with the types of everything in it, for comparison."""
    if isinstance(value, dict):
        return dict, sorted((repr(shape(key)), repr(shape(item))) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return type(value), [shape(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return type(value), sorted(repr(shape(item)) for item in value)
    return type(value), repr(value)


def test_not_a_number_stays_one(echo: execnet.Channel) -> None:
    echo.send(math.nan)
    assert math.isnan(echo.receive())


# An echo would not show a mistake that is made in both directions. Here each side makes the value by itself.


CASES = [vector for vector in vectors.values() if vector.mode == "both" and vector.value != "nan"]


def test_a_value_made_here_is_the_same_there(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        from __future__ import unicode_literals

        inf = float("inf")
        for text, value in channel:
            expected = eval(text)
            channel.send((value == expected, repr(value)))
        """
    )
    for vector in CASES:
        channel.send((vector.value, eval(vector.value, {"inf": math.inf})))
    for vector in CASES:
        equal, seen = channel.receive()
        assert equal, f"{vector.name}: {vector.value} arrived as {seen}"


def test_a_value_made_there_is_the_same_here(worker: Any, gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        from __future__ import unicode_literals

        inf = float("inf")
        for text in channel:
            channel.send(eval(text))
        """
    )
    if worker.is_python2:
        channel.reconfigure(py2str_as_py3str=False)
    # In Python 2 b'k' and 'k' are the same key of a dict.
    cases = [vector for vector in CASES if not (worker.is_python2 and "b'k'" in vector.value)]
    for vector in cases:
        channel.send(vector.value)
    for vector in cases:
        expected = eval(vector.value, {"inf": math.inf})
        received = channel.receive()
        assert shape(received) == shape(expected), vector.name


def test_an_integer_of_thousands_of_digits_goes_both_ways(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.send(channel.receive() == 10**5000); channel.send(-(10**5000) + 1)")
    channel.send(10**5000)
    assert channel.receive() is True
    assert channel.receive() == -(10**5000) + 1


def test_bytes_of_many_chunks_go_both_ways(echo: execnet.Channel) -> None:
    big = bytes(range(256)) * 20_000  # 5 MB
    echo.send(big)
    assert echo.receive() == big


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_a_thousand_levels_of_nesting_go_both_ways(echo: execnet.Channel) -> None:
    echo.send(nested(1000))
    value, levels = echo.receive(), 1
    while value:
        value, levels = value[0], levels + 1
    assert levels == 1000


def test_one_level_more_is_refused_by_either_side(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        value = []
        for _ in range(1000):
            value = [value]
        channel.send(value)
        """
    )
    with pytest.raises(execnet.DumpError, match="1000 levels"):
        channel.send(nested(1001))
    with pytest.raises(execnet.RemoteError, match=r"DumpError.*1000 levels"):
        channel.receive()


def test_a_value_that_cannot_be_dumped_there_is_named_with_its_path(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec("channel.send([0, 1, 2, {'status': (object(),)}])")
    with pytest.raises(execnet.RemoteError) as caught:
        channel.receive()
    assert "DumpError: can't serialize <" in str(caught.value)
    assert "'object'> at [3]['status'][0]" in str(caught.value)


def test_types_named_like_builtin_ones_are_dumped_as_these(gw: execnet.Gateway) -> None:
    # numpy.bool_ of NumPy 2 is named "bool".
    channel = gw.remote_exec(
        """
        class Truth(object):
            def __bool__(self):
                return True

            __nonzero__ = __bool__

        for name, base in (("bool", Truth), ("list", list), ("int", int)):
            channel.send([type(name, (base,), {})()])
        channel.send([type("list", (list,), {})([1, object()])])
        """
    )
    received = [channel.receive(timeout=60) for _ in range(3)]
    assert received == [[True], [[]], [0]]
    assert [type(item) for [item] in received] == [bool, list, int]
    with pytest.raises(execnet.RemoteError, match=r"'object'> at \[0\]\[1\]"):
        channel.receive(timeout=60)


def test_a_value_that_cannot_be_dumped_does_no_harm_to_the_channel(gw: execnet.Gateway) -> None:
    channel = gw.remote_exec(
        """
        try:
            channel.send([1, object()])
        except Exception as error:
            channel.send(type(error).__name__)
        channel.send("after")
        """
    )
    assert channel.receive() == "DumpError"
    assert channel.receive() == "after"


def test_strings_of_python_2_load_as_told(worker: Any, gw: execnet.Gateway) -> None:
    if not worker.is_python2:
        pytest.skip("about python2.7 only")
    assert gw.remote_exec("channel.send('a' + chr(233))").receive() == "a\xe9"
    channel = gw.remote_exec("channel.receive(); channel.send('a' + chr(233))")
    channel.reconfigure(py2str_as_py3str=False)
    channel.send(None)
    assert channel.receive() == b"a\xe9"
    channel = gw.remote_exec("channel.receive(); channel.send(type(channel.receive()).__name__)")
    channel.reconfigure(py3str_as_py2str=True)
    channel.send(None)
    channel.send("text")
    assert channel.receive() == "str"
