"""Values as bytes and back."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import struct
import sys
import unittest

from worker_client import PY3, load, repr_of, text_type, worker


class Values(unittest.TestCase):
    def check(self, value, data=None):
        dumped = worker["dump"](value)
        if data is not None:
            self.assertEqual(dumped, data)
        loaded = load(dumped)
        self.assertEqual(loaded, value)
        self.assertEqual(type(loaded), type(value))

    def refuse(self, value, text):
        with self.assertRaises(worker["DumpError"]) as caught:
            worker["dump"](value)
        self.assertEqual(str(caught.exception), text)

    def reject(self, data, text, offset):
        with self.assertRaises(worker["LoadError"]) as caught:
            load(data)
        self.assertIn(text, str(caught.exception))
        self.assertEqual(caught.exception.offset, offset)
        self.assertIn("at byte %d" % offset, str(caught.exception))

    def test_plain_values_have_their_opcodes(self):
        self.check(None, b"LQ")
        self.check(True, b"RQ")
        self.check(False, b"CQ")
        self.check(5, b"F\x00\x00\x00\x05Q")
        self.check(-1, b"F\xff\xff\xff\xffQ")
        self.check(1.5, b"D\x3f\xf8" + b"\0" * 6 + b"Q")
        self.check(1 - 2j)
        self.check(u"", None)
        self.assertEqual(worker["dump"](u"\xe4")[1:], b"\0\0\0\x02\xc3\xa4Q")
        self.check(u"\xe4\u20ac")
        self.check(u"\U0001f600")

    def test_bytes_and_text_per_interpreter(self):
        if PY3:
            self.check(b"ab", b"A\0\0\0\x02abQ")
            self.check(u"ab", b"N\0\0\0\x02abQ")
            self.assertEqual(load(b"M\0\0\0\x01\xe4Q"), u"\xe4")
            self.assertEqual(load(b"M\0\0\0\x01\xe4Q", py2str_as_py3str=False), b"\xe4")
        else:
            self.check("ab", b"M\0\0\0\x02abQ")
            self.check(u"ab", b"S\0\0\0\x02abQ")
            self.assertEqual(load(b"N\0\0\0\x02\xc3\xa4Q"), u"\xe4")
            self.assertEqual(load(b"N\0\0\0\x02\xc3\xa4Q", py3str_as_py2str=True), "\xc3\xa4")
        self.assertEqual(load(b"S\0\0\0\x02\xc3\xa4Q"), u"\xe4")
        self.assertEqual(load(b"A\0\0\0\x01\xe4Q"), b"\xe4")

    def test_wide_strings_are_read(self):
        self.assertEqual(load(b"U" + struct.pack(">q", 2) + b"abQ"), b"ab")
        self.assertEqual(load(b"V" + struct.pack(">q", 2) + b"\xc3\xa4Q"), u"\xe4")
        self.reject(b"V" + struct.pack(">q", -1) + b"Q", "bad length -1", 0)
        self.reject(b"U" + struct.pack(">q", 1 << 62) + b"Q", "bad length", 0)

    def test_strings_too_long_for_four_bytes_have_the_wide_opcode(self):
        class Long(bytes):
            def __len__(self):
                return 1 << 31

        pieces = []
        worker["data_writer"](65, 85)(pieces.append, Long())
        self.assertEqual(pieces[0], b"U" + struct.pack(">q", 1 << 31))

    def test_worked_example_of_the_format(self):
        data = b"K\0\0\0\x02F\0\0\0\0F\0\0\0\x01PF\0\0\0\x01R" + b"PQ"
        self.check([1, True], data)

    def test_containers(self):
        for value in (
            [],
            (),
            {},
            set(),
            frozenset(),
            [[]],
            ([], {}),
            {u"a": [1, (2, 3)], 4: {5: None}},
            set([1, 2]),
            frozenset([(1, 2), frozenset([3])]),
            [None] * 3,
            list(range(1000)),
            tuple(range(1000)),
            dict((i, str(i)) for i in range(1000)),
            {(1, (2, frozenset([3]))): u"x"},
        ):
            self.check(value)

    def test_integers(self):
        for value in (2**31 - 1, -(2**31), 2**31, -(2**31) - 1, 2**63, -(2**63), 10**30, -(10**30)):
            self.assertEqual(load(worker["dump"](value)), value)
            self.assertEqual(worker["dump"](value)[0:1] in (b"F", b"G"), -(2**31) <= value < 2**31)
        self.assertEqual(worker["dump"](2**31), b"H\0\0\0\x0a2147483648Q")
        if not PY3:
            self.assertEqual(worker["dump"](eval("5L")), b"G\0\0\0\x05Q")
            self.assertEqual(worker["dump"](eval("2L ** 63"))[:1], b"I")
            self.assertEqual(type(load(b"G\0\0\0\x05Q")), type(eval("5L")))
        self.assertEqual(load(b"I\0\0\0\x02-7Q"), -7)

    def test_integers_beyond_the_interpreters_limit_of_digits(self):
        for digits in (499, 500, 501, 999, 1000, 1001, 1499, 1501, 4299, 4301, 12345):
            for value in (10**digits, 10**digits - 1, -(10**digits) - 7, 7 * 10 ** (digits // 2)):
                data = worker["dump"](value)
                self.assertEqual(load(data), value)
                self.assertIn(data[5:6], (b"1", b"9", b"-", b"7"))

    def test_lists_of_numbers_are_as_if_written_and_read_one_by_one(self):
        def outcome(data):
            try:
                return repr_of(load(data))
            except worker["LoadError"] as error:
                return str(error)

        def one_by_one(function, argument):
            worker["MANY_NUMBERS"] = 1 << 30
            try:
                return function(argument)
            finally:
                worker["MANY_NUMBERS"] = 16

        ints, floats = list(range(-8, 12)), [i / 7.0 for i in range(20)]
        for numbers in (ints, floats, [2**31 - 1, -(2**31)] * 8, [float("nan"), float("-inf"), -0.0] * 6):
            mixed = [numbers + [2**31], numbers + [True], [numbers, {1: numbers}]]
            for value in [numbers, numbers[:15], numbers * 99, mixed] + mixed:
                data = worker["dump"](value)
                self.assertEqual(data, one_by_one(worker["dump"], value))
                self.assertEqual(repr_of(load(data)), repr_of(value))
        for numbers in (ints, floats):
            data = worker["dump"](numbers)
            for at in range(len(data)):
                for byte in (b"F", b"D", b"L", b"P", b"Q", b"\x00", b"\x01", b"\x11", b"\x7f", b"\xff"):
                    damaged = data[:at] + byte + data[at + 1 :]
                    self.assertEqual(outcome(damaged), one_by_one(outcome, damaged))
                self.assertEqual(outcome(data[:at]), one_by_one(outcome, data[:at]))

    def test_words_that_come_again_are_not_mistaken_for_others(self):
        words = [u"a" * size for size in range(70)] + [u"\xe4" * size for size in range(70)]
        words += [u"word %d" % number for number in range(500)]
        for value in (words * 2, dict((word, word) for word in words), [str(word.count(u"a")) for word in words]):
            self.assertEqual(load(worker["dump"](value)), value)

    def test_integers_have_a_limit(self):
        self.assertEqual(load(b"H" + struct.pack(">i", 10**6) + b"9" * 10**6 + b"Q") + 1, 10 ** (10**6))
        self.refuse(10 ** (10**6), "can't serialize an integer of more than 1000000 digits")
        self.reject(b"H" + struct.pack(">i", 10**6 + 1) + b"9" * (10**6 + 1) + b"Q", "more than 1000000 digits", 0)

    def test_integers_are_digits_and_nothing_else(self):
        for digits in (b"", b"-", b"+1", b" 1", b"1_0", b"--1", b"1.0", b"\xd9\xa1"):
            self.reject(b"H" + struct.pack(">i", len(digits)) + digits + b"Q", "decimal digits", 0)

    def test_nesting_is_bounded_not_by_the_interpreter(self):
        limit = sys.getrecursionlimit()
        for build in (lambda x: [x], lambda x: (x,), lambda x: {1: x}, lambda x: frozenset([x])):
            value = None
            for _ in range(1000):
                value = build(value)
            sys.setrecursionlimit(120)
            try:
                loaded = load(worker["dump"](value))
                depth = 0
                while loaded is not None:
                    loaded = loaded[1] if type(loaded) is dict else next(iter(loaded))
                    depth += 1
                with self.assertRaises(worker["DumpError"]) as caught:
                    worker["dump"]([value])
            finally:
                sys.setrecursionlimit(limit)
            self.assertEqual(depth, 1000)
            self.assertIn("more than 1000 levels of nesting", str(caught.exception))

    def test_nesting_is_bounded_when_loading(self):
        one = struct.pack(">i", 1)
        key = b"F\0\0\0\0"
        for data in (
            b"L" + (b"@" + one) * 1001 + b"Q",
            b"L" + (b"E" + one) * 100000 + b"Q",
            (b"K" + one + key) * 1001 + b"L" + b"P" * 1001 + b"Q",
            (b"J" + key) * 1001 + b"L" + b"P" * 1001 + b"Q",
            b"JL" + (b"@" + one) * 1000 + b"LPQ",
        ):
            with self.assertRaises(worker["LoadError"]) as caught:
                load(data)
            self.assertIn("more than 1000 levels", str(caught.exception))
        load(b"L" + (b"@" + one) * 1000 + b"Q")
        load(b"JL" + (b"@" + one) * 999 + b"LPQ")
        deep = b"K" + struct.pack(">i", 2) + key + (b"K" + one + key) * 998 + b"L" + b"P" * 999 + b"F" + one + b"JP"
        load(deep + b"@" + one + b"Q")
        with self.assertRaises(worker["LoadError"]) as caught:  # what comes after the deepest item changes nothing
            load(deep + (b"@" + one) * 2 + b"Q")
        self.assertIn("more than 1000 levels", str(caught.exception))
        wide = b"J" + b"".join(b"F" + struct.pack(">i", i) + b"J" + b"P" for i in range(3000)) + b"Q"
        self.assertEqual(len(load(wide)), 3000)

    def test_refused_values_are_named_with_their_path(self):
        name = repr(object)
        self.refuse(object(), "can't serialize " + name)
        self.refuse([1, 2, 3, {"status": object()}], "can't serialize %s at [3]['status']" % name)
        self.refuse((0, [object(), 5]), "can't serialize %s at [1][0]" % name)
        self.refuse([frozenset([object])], "can't serialize %s at [0]{...}" % repr(type))
        self.refuse({1: 2, 3: {5: (), 7: [[], type]}}, "can't serialize %s at [3][7][1]" % repr(type))
        self.refuse({type: 1}, "can't serialize %s at {%r: ...}" % (repr(type), type))
        value = object()
        for _ in range(30):
            value = [0, value]
        self.refuse(value, "can't serialize %s at %s...%s" % (name, "[1]" * 8, "[1]" * 8))

    def test_lone_surrogates_are_refused(self):
        self.refuse([u"\ud800"], "can't serialize a string: lone surrogates are not UTF-8 at [0]")

    def test_subclasses_are_refused(self):
        class Text(text_type):
            pass

        self.refuse([Text(u"a")], "can't serialize %r at [0]" % Text)

    def test_hostile_bytes_are_load_errors(self):
        self.reject(b"", "truncated", 0)
        self.reject(b"F\0\0", "truncated", 0)
        self.reject(b"L", "truncated", 1)
        self.reject(b"Q", "ends with 0 items", 0)
        self.reject(b"LLQ", "ends with 2 items", 2)
        self.reject(b"LQL", "1 bytes after the end", 2)
        self.reject(b"L?Q", "unknown opcode 63", 1)
        self.reject(b"LWQ", "unknown opcode 87", 1)
        self.reject(b"A\xff\xff\xff\xffQ", "bad length -1", 0)
        self.reject(b"LA\x7f\xff\xff\xffQ", "bad length", 1)
        self.reject(b"K\x7f\xff\xff\xffQ", "more than the input can fill", 0)
        self.reject(b"K\xff\xff\xff\xffQ", "-1 items", 0)
        self.reject(b"@\xff\xff\xff\xffQ", "-1 items", 0)
        self.reject(b"L@\0\0\0\x02Q", "2 items wanted, 1 there", 1)
        self.reject(b"PQ", "nothing to work on", 0)
        self.reject(b"LLLPQ", "list or dict only", 3)
        self.reject(b"JJLPQ", "unhashable", 3)
        self.reject(b"JO\0\0\0\x01Q", "unhashable", 1)
        self.reject(b"N\0\0\0\x01\xffQ", "utf", 0)
        self.reject(b"B\0\0\0\0Q", "bad channel id 0", 0)
        self.reject(b"K\0\0\0\x01" + b"F\xff\xff\xff\xffLPQ", "bad list index -1", 11)
        self.reject(b"K\0\0\0\x01" + b"CLP" + b"Q" * 6, "bad list index False", 7)
        self.reject(b"K\0\0\0\x01" + b"F\0\0\0\x01LPQ", "bad list index 1", 11)

    def test_every_truncation_of_a_value_is_a_load_error(self):
        data = worker["dump"]([1, 2.5, {u"a": (None, True, 10**30, 1j)}, frozenset([u"b"]), b"x"])
        for size in range(len(data)):
            with self.assertRaises(worker["LoadError"]):
                load(data[:size])

    def test_lists_share_the_bytes_that_could_fill_them(self):
        data = (b"K" + struct.pack(">i", 100)) * 100 + b"Q"
        self.reject(data, "more than the input can fill", 0 if 100 > len(data) // 6 else 5)

    def test_channels_are_asked_for_by_id(self):
        self.assertEqual(load(b"B\0\0\0\x07Q"), ("channel", 7))

    def test_all_bytes_as_input_end_in_a_value_or_a_load_error(self):
        state = 12345
        for _ in range(3000):
            data = bytearray()
            for _ in range(12):
                state = (state * 1103515245 + 12345) & 0x7FFFFFFF
                data.append(64 + (state >> 16) % 23 if state >> 8 & 3 else 0)
            try:
                load(bytes(data) + b"Q")
            except worker["LoadError"]:
                pass


if __name__ == "__main__":
    unittest.main()
