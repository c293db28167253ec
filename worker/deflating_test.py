"""What a worker compresses, and when. The coordinator's side of it has its tests in src/connection/."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import unittest
import zlib

from worker_client import (
    DATA,
    DEFLATED,
    EXEC,
    MORE,
    PASSED,
    PROBE,
    TERMINATE,
    LiveTest,
    dump,
    frame,
    hello,
    load,
    worker,
)

MIB = 1 << 20


def unit(stream, data, lie=0):
    deflated = stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)
    return frame(DEFLATED, 0, deflated, credit=len(data) + lie)


def new_stream():
    return zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)


class Line(object):
    """A line of so many bytes per second, and who writes to it, on a clock of their own."""

    def __init__(self, rate, ratio=0.25, round_trip=0.001):
        self.pace = worker["Pace"]()
        self.rate, self.ratio, self.round_trip = rate, ratio, round_trip
        self.time, self.free_at, self.deflated = 1000.0, 0.0, 0
        self.probes = []

    def answer(self):
        while self.probes and self.probes[0][1] <= self.time:
            self.pace.passed(*self.probes.pop(0))

    def send(self, size, piece=65536, under_way=MIB):
        for _ in range(size // piece):
            self.time = max(self.time, self.free_at - under_way / self.rate)
            self.answer()
            if self.pace.wants_probe():
                self.probes.append((self.pace.probe(self.time), max(self.time, self.free_at) + self.round_trip))
            level, on_line = self.pace.level(), piece
            if level:
                self.time += piece / (80e6 if level == 1 else 25e6)
                on_line = int(piece * self.ratio)
                self.deflated += piece
                self.answer()
                self.pace.deflated(piece, on_line, self.time)
            else:
                self.pace.wrote(piece)
            self.free_at = max(self.free_at, self.time) + on_line / self.rate
            self.answer()


class Pacing(unittest.TestCase):
    def test_a_slow_line_gets_nearly_all_compressed(self):
        line = Line(12e6)
        line.send(40 * MIB)
        self.assertGreater(line.deflated, 37 * MIB)
        self.assertEqual(line.pace.level(), 1)

    def test_a_very_slow_line_gets_it_compressed_well(self):
        line = Line(2.5e6)
        line.send(20 * MIB)
        self.assertEqual(line.pace.level(), 6)

    def test_a_fast_line_gets_no_more_than_what_is_on_credit(self):
        for round_trip in (0.001, 0.15):
            line = Line(200e6, 0.25, round_trip)
            line.send(100 * MIB, under_way=16 * MIB)
            self.assertLessEqual(line.deflated, 9 * MIB)
            self.assertEqual(line.pace.level(), 0)

    def test_a_line_that_changes_is_noticed(self):
        line = Line(2.5e6)
        line.send(20 * MIB)
        line.rate = 400e6
        line.send(100 * MIB)
        self.assertEqual(line.pace.level(), 0)
        line.rate = 2.5e6
        line.send(100 * MIB)
        self.assertGreater(line.pace.level(), 0)

    def test_what_cannot_be_compressed_goes_as_it_is_for_a_while(self):
        line = Line(2.5e6, 1.001)
        line.send(60 * MIB)
        self.assertLess(line.deflated, MIB)

    def test_answers_that_come_late_and_all_at_once_are_no_fast_line(self):
        line = Line(12e6)
        numbers = []
        while len(numbers) < 5:
            if line.pace.wants_probe():
                numbers.append(line.pace.probe(line.time))
            line.pace.wrote(32768)
        line.time += 0.05
        for number in numbers:
            line.pace.passed(number, line.time)
        line.send(40 * MIB)
        self.assertGreater(line.deflated, 37 * MIB)

    def test_an_answer_belongs_to_a_probe(self):
        pace = worker["Pace"]()
        with self.assertRaises(worker["ProtocolError"]):
            pace.passed(1, 0.0)
        pace.probe(0.0)
        pace.probe(0.0)
        pace.passed(2, 1.0)  # the first was interrupted before it was written
        with self.assertRaises(worker["ProtocolError"]):
            pace.passed(1, 1.0)


class Packing(unittest.TestCase):
    def setUp(self):
        self.deflating = worker["Deflating"](zlib)
        self.deflating.pace.level = lambda: 1
        self.stream = zlib.decompressobj(-zlib.MAX_WBITS)

    def unpacked(self, packed):
        kind, _, _, _, length, size = worker["HEADER"].unpack(packed[:16])
        self.assertEqual((kind, length), (DEFLATED, len(packed) - 16))
        data = self.stream.decompress(packed[16:])
        self.assertEqual(len(data), size)
        return data

    def test_what_was_written_before_is_not_said_again(self):
        data = frame(DATA, 1, bytes(bytearray(number * number % 251 for number in range(1000))))
        sizes = []
        for _ in range(3):
            packed = self.deflating.pack(data, None)
            self.deflating.written()
            self.assertEqual(self.unpacked(packed), data)
            sizes.append(len(packed))
        self.assertLess(sizes[1], 60)

    def test_a_unit_that_was_interrupted_is_not_referred_to(self):
        data = frame(DATA, 1, b"text " * 200)
        self.deflating.pack(data, None)  # and that is lost
        for _ in range(2):
            packed = self.deflating.pack(data, None)
            self.deflating.written()
            self.assertEqual(self.unpacked(packed), data)

    def test_what_is_small_goes_as_it_is(self):
        data = frame(DATA, 1, b"x" * 200)
        self.assertEqual(self.deflating.pack(data, None), data)

    def test_the_level_may_change(self):
        for level in (1, 6, 1):
            self.deflating.pace.level = lambda level=level: level
            packed = self.deflating.pack(frame(DATA, 1, b"text " * 200), None)
            self.deflating.written()
            self.assertEqual(self.unpacked(packed), frame(DATA, 1, b"text " * 200))


class Serving(LiveTest):
    SOURCE = u"for item in channel: channel.send(item)"

    def take(self, client, size):
        """Reads frames until those of items, compressed ones included, have so many bytes of data."""
        stream, self.kinds, self.data, self.wire = zlib.decompressobj(-zlib.MAX_WBITS), [], b"", 0
        while len(self.data) < size:
            kind, _, _, payload, credit = client.read_frame()
            self.kinds.append(kind)
            self.wire += len(payload)
            if kind == DEFLATED:
                inflated = stream.decompress(payload)
                self.assertEqual(len(inflated), credit)
                self.assertEqual(worker["HEADER"].unpack(inflated[:16])[4], len(inflated) - 16)
                self.data += inflated[16:]
            elif kind == DATA:
                self.data += payload

    def test_a_worker_that_is_offered_it_says_that_it_can(self):
        self.assertEqual(self.start(greeting=hello(deflate=True)).hello["features"], [u"deflate"])

    def test_probes_are_answered(self):
        client = self.start(greeting=hello(deflate=True))
        for number in (7, 4000000000):
            client.send(PROBE, 0, credit=number)
            self.assertEqual(client.read_frame(), (PASSED, 0, 0, b"", number))

    def test_what_comes_compressed_is_taken_in(self):
        client = self.start(greeting=hello(deflate=True))
        stream, payload = new_stream(), dump(b"x" * 500000)
        code = frame(EXEC, 1, dump((self.SOURCE, None, 1, None, {})))
        client.write(unit(stream, code + frame(DATA, 1, payload[:300000], flags=MORE)))
        client.write(frame(DATA, 1, payload[300000:400000], flags=MORE))
        client.write(unit(stream, frame(DATA, 1, payload[400000:]) + frame(DATA, 1, dump(2))))
        client.write(frame(DATA, 1, dump(3)))
        self.take(client, len(payload) + len(dump(2)) + len(dump(3)))
        self.assertEqual(load(self.data[: len(payload)]), b"x" * 500000)
        self.assertEqual(self.data[len(payload) :], dump(2) + dump(3))

    def test_on_a_line_of_which_nothing_is_known_some_is_compressed(self):
        client = self.start(greeting=hello(deflate=True))
        number = client.execute(u"channel.send(b'text' * 250000); channel.send(b'more' * 250000)")
        first, second = dump(b"text" * 250000), dump(b"more" * 250000)
        self.take(client, len(first) + len(second))
        self.assertEqual(self.kinds.count(PROBE), 5)
        self.assertLess(self.wire, 500000)
        self.assertEqual(self.data, first + second)
        self.assertEqual(client.read()[1], number)
        client.terminate()

    def test_what_is_no_unit_ends_the_worker(self):
        whole = frame(DATA, 1, dump(b"item"))
        two = unit(new_stream(), unit(new_stream(), whole))
        for data, text in (
            (frame(DEFLATED, 0, b"\xff\xff\xff\xff", credit=10), "cannot be inflated"),
            (unit(new_stream(), whole, 1), "does not become"),
            (unit(new_stream(), whole, -1), "does not become"),
            (unit(new_stream(), b"x" * MIB, 1 - MIB), "does not become"),
            (frame(DEFLATED, 0, b"x", credit=MIB + 1), "out of place"),
            (unit(new_stream(), whole[:20]), "out of place within"),
            (unit(new_stream(), whole + whole[:9]), "within a header"),
            (two, "out of place within"),
            (frame(PASSED, 0, credit=1), "which is not under way"),
        ):
            client = self.start(greeting=hello(deflate=True))
            client.write(data)
            self.assertEqual(client.wait(), 1, text)
            self.assertIn(text, client.captured(client.err) + client.captured(client.real_err))

    def test_what_was_not_agreed_on_ends_the_worker(self):
        for data in (unit(new_stream(), frame(TERMINATE, 0)), frame(PASSED, 0, credit=1)):
            client = self.start()
            self.assertEqual(client.hello["features"], [])
            client.write(data)
            self.assertEqual(client.wait(), 1)


if __name__ == "__main__":
    unittest.main()
