"""What all implementations share: numbers of types, and bytes with their meaning."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import __future__

import io
import os
import re
import unittest

from worker_client import ABORT, CREDIT, DEFLATED, HERE, MORE, PASSED, PROBE, PY3, frame, load, repr_of, worker


class Tables(unittest.TestCase):
    """What the C++ side has in headers, the worker has in tables of its own."""

    def check(self, header, pattern, count):
        with io.open(os.path.join(HERE, "..", "src", "wire", header), encoding="utf-8") as file:
            found = re.findall(pattern, file.read(), re.MULTILINE)
        self.assertEqual(len(found), count)
        names = dict((name.replace("_", ""), value) for name, value in worker.items() if isinstance(value, int))
        for name, value in found:
            self.assertEqual(names[name.upper()], int(value) if value.isdigit() else ord(value), name)

    def test_opcodes(self):
        self.check("opcode.hpp", r"^  k(\w+) = '(.)',$", 23)

    def test_frame_types(self):
        self.check("frame.hpp", r"^  k(\w+) = (\d+),$", 16)


def vectors(file, columns):
    """The rows of a file of tests/vectors/, which says what they mean."""
    with io.open(os.path.join(HERE, "..", "tests", "vectors", file), encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("|", columns - 1) for line in lines if line.strip() and line[0] != "#"]
    assert rows and all(len(row) == columns for row in rows), file
    return [[column.strip() for column in row] for row in rows]


class Vectors(unittest.TestCase):
    """The bytes that all implementations share."""

    def test_values(self):
        for name, mode, data, text in vectors("values.txt", 4):
            data = bytes(bytearray.fromhex(data))[1:]
            names = {"inf": float("inf"), "nan": float("nan"), "channel": lambda number: ("channel", number)}
            value = eval(compile(text, name, "eval", __future__.unicode_literals.compiler_flag), names)
            config = {}
            if mode == "load-py2str-as-bytes":
                config = {"py2str_as_py3str": False}
            elif mode == "load-py3str-as-bytes":
                config = {"py3str_as_py2str": True}
            elif not PY3 and name == "python 2 str":
                value = value.encode("latin-1")  # stays one
            loaded = load(data, **config)
            self.assertEqual(repr_of(loaded), repr_of(value), name)
            if mode == "both":
                written = worker["dump"](value)
                if PY3:
                    self.assertEqual(written, data, name)
                self.assertEqual(repr_of(load(written)), repr_of(value), name)

    def test_malformed(self):
        for name, offset, data in vectors("malformed.txt", 3):
            data = bytes(bytearray.fromhex(data))
            if int(offset) > 0:  # there is no version byte in frames
                try:
                    self.fail("%s is read as %r" % (name, worker["load"](data[1:], None)))
                except worker["LoadError"] as error:
                    self.assertEqual(error.offset + 1, int(offset), name)

    def test_frames(self):
        for name, header, fields in vectors("frames.txt", 3):
            header = bytes(bytearray.fromhex(header))
            kind, flags, _, number, length, credit = worker["HEADER"].unpack(header)
            payload = b"x" * min(length, 1 << 20)
            data = header + payload + (frame(kind, number) if flags == MORE else b"")
            if fields == "refused":
                with self.assertRaises(worker["ProtocolError"]):
                    list(worker["read_messages"](io.BytesIO(data)))
            else:
                self.assertEqual([kind, flags, number, length, credit], [int(field) for field in fields.split()], name)
                if kind == DEFLATED:
                    continue  # that is no data for it: see frames_test.py
                messages = list(worker["read_messages"](io.BytesIO(data)))
                content = credit if kind in (CREDIT, PROBE, PASSED) else payload
                self.assertEqual(messages, [] if flags == ABORT else [(kind, number, content)], name)


if __name__ == "__main__":
    unittest.main()
