"""Frames on their way out, compressed where that pays. As src/connection/deflating.hpp and pace.hpp, which say why."""

import itertools
from _collections import deque

from .errors import ProtocolError
from .frames import CHUNK, DEFLATED, HEADER, PROBE
from .system import now

SEGMENT = 32 * 1024  # bytes between two probes, about
FAST_LEVEL, GOOD_LEVEL = 1, 6
LEAST_DEFLATED = 256  # bytes; less is not worth it


class Pace(object):
    """How fast the line is. passed() is for the receiver, all else for who writes."""

    SLOW, VERY_SLOW = 16e6, 4e6  # bytes per second, below which it pays to compress, and to compress well
    FIRST = 16 << 10  # bytes, before which nothing is measured
    ON_CREDIT = 8 << 20  # bytes that may be compressed while nothing is known
    SEGMENTS, MOST_SEGMENTS = 4, 128  # of a measurement at first, and at once
    LEAST_PRESSED = 2  # of them, to call a line slow
    INTERVALS = (1 << 20, 32 << 20)  # between two
    SLOW_INTERVALS = (4 << 20, 64 << 20)
    PAUSES = (512 << 10, 16 << 20)
    DRY_UNIT, DRY_UNITS = 32 << 10, 4
    MORE_HOPE = 1.25  # each time
    SURE = 0.06  # seconds that a measurement has to take before it tells of a slow line

    def __init__(self):
        self._slow = None  # whether it is; None: not known
        self._rate = 0.0
        self._hurries = False  # to compress well takes longer than the line does
        self._most = 0.0  # bytes per second that could be compressed when the line waited; 0: not known
        self._credit, self._paused, self._next_pause = self.ON_CREDIT, 0, self.PAUSES[0]
        self._since_probe = self._since_measure = 0
        self._interval = self.FIRST
        self._segments = self._segments_left = self._segments_bytes = 0  # sent this time for this measurement
        self._begun, self._begun_at = False, 0.0
        self._numbers = 0
        # [number, when it was sent, bytes of the segment before it, whether it was under way when the answer to the one
        # before came, whether it is the last of its measurement]
        self._under_way = deque()
        self._passed_at = self._passed_sent = 0.0
        self._measured = []  # (bytes, seconds, pressed)
        self._dry_units, self._dry_since, self._dry_bytes, self._dry_rate = 0, 0.0, 0, 0.0

    def level(self):
        if self._segments_left or self._paused > 0:
            return 0
        if self._slow is None:
            return GOOD_LEVEL if self._begun and self._credit > 0 else 0
        if not self._slow:
            return 0
        return GOOD_LEVEL if self._rate < self.VERY_SLOW and not self._hurries else FAST_LEVEL

    def measures(self):
        """Whether what is written now is measured, or the next is: then it should be written in frames of SEGMENT."""
        return self._segments_left > 0 or self._slow is None and not self._begun

    def wants_probe(self):
        if self._segments_left:
            return not self._begun or self._since_probe >= SEGMENT
        return self._slow is True and self._since_probe >= (SEGMENT if self._under_way else SEGMENT // 8)

    def probe(self, time):
        """The number of the probe that is written now."""
        segment = 0
        if self._segments_left:
            if self._begun:
                segment = self._since_probe
                self._segments_left -= 1
                self._segments_bytes += segment
            else:
                self._begun_at = time
            self._begun = True
        self._since_probe = 0
        self._numbers = self._numbers % 0xFFFFFFFF + 1
        self._under_way.append([self._numbers, time, segment, False, segment > 0 and not self._segments_left])
        return self._numbers

    def passed(self, number, time):
        # One that an interrupt has kept from being written is never answered.
        while self._under_way and self._under_way[0][0] != number:
            self._under_way.popleft()
        if not self._under_way:
            raise ProtocolError("PASSED for probe %d, which is not under way" % number)
        _, sent, segment, pressed, last = self._under_way.popleft()
        if segment:
            self._measured.append((segment, time - max(self._passed_at, self._passed_sent), pressed))
        for following in itertools.islice(self._under_way, 1):
            following[3] = True
        self._passed_at, self._passed_sent = time, sent
        if last:
            self._judge()

    def wrote(self, size):
        """So many bytes are written as they are."""
        self._since_probe += size
        self._since_measure += size
        self._paused -= min(self._paused, size)
        if not self._slow:
            self._measure_if_due()

    def deflated(self, size, unit, time):
        """So many bytes have become a unit of that size."""
        self._since_probe += unit
        self._since_measure += size
        if self._slow is None:
            self._credit -= size
        if unit > size - size // 8:
            self._paused = self._next_pause
            self._next_pause = min(2 * self._next_pause, self.PAUSES[1])
        else:
            self._next_pause = self.PAUSES[0]
        if self._slow and self._since_measure < self.SLOW_INTERVALS[1]:
            self._look_for_doubt(size, time)
        else:
            self._measure_if_due()

    def _measure_if_due(self):
        if self._since_measure >= self._interval and not self._segments_left:
            if not any(probe[4] for probe in tuple(self._under_way)):
                self._measured = []
                self._since_measure = 0
                self._send_segments(self.SEGMENTS)

    def _send_segments(self, count):
        self._begun, self._segments_bytes = False, 0
        self._segments = self._segments_left = count

    def _judge(self):
        pressed = [measured for measured in self._measured if measured[2]]
        seems_slow = rate_of(self._measured) < self.SLOW and len(pressed) >= self.LEAST_PRESSED
        seems_slow = seems_slow and rate_of(pressed) < self.SLOW
        with_round_trip = self._segments_bytes / max(self._passed_at - self._begun_at, 1e-6)
        seems_fast = rate_of(self._measured) >= self.SLOW > with_round_trip
        is_short = seems_slow and sum(each[1] for each in pressed) < self.SURE
        if is_short or (seems_fast and self._segments < self.MOST_SEGMENTS):
            self._send_segments(self.SEGMENTS if seems_slow else 2 * self._segments)
            return
        dry_rate, self._dry_rate = self._dry_rate, 0.0
        if rate_of(self._measured) >= self.SLOW:
            self._set_slow(False)
        elif seems_slow:
            self._rate = rate_of(pressed)
            if dry_rate and (self._hurries or self._rate >= self.VERY_SLOW):
                self._most = dry_rate
            self._hurries = dry_rate > 0
            too_late = 0 < self._most < self._rate
            if too_late:
                self._most *= self.MORE_HOPE
            self._set_slow(not too_late)
        else:
            self._interval = self.INTERVALS[0]

    def _set_slow(self, slow):
        same, self._slow = self._slow is slow, slow
        self._interval = min(2 * self._interval, self.INTERVALS[1]) if same else self.INTERVALS[0]
        if slow:
            self._interval = max(self._interval, self.SLOW_INTERVALS[0])
        self._dry_units = self._since_measure = 0

    def _look_for_doubt(self, size, time):
        if size < self.DRY_UNIT:
            return
        if self._under_way:
            self._dry_units = 0
            return
        if not self._dry_units:
            self._dry_since, self._dry_bytes = time, -size
        self._dry_units += 1
        self._dry_bytes += size
        if self._dry_units > self.DRY_UNITS and self._since_measure >= self._interval:
            self._dry_rate = rate_of([(self._dry_bytes, time - self._dry_since, False)])
            self._measure_if_due()


def rate_of(measured):
    """Bytes per second."""
    return sum(each[0] for each in measured) / max(sum(each[1] for each in measured), 1e-6)


class Deflating(object):
    """The same for what a connection writes. pack() and written() with its _out_lock held."""

    def __init__(self, zlib):
        self.pace = Pace()
        self._zlib = zlib
        self._level, self._stream, self._used = 0, None, None

    def chunk(self):
        """How long a frame may be now."""
        return SEGMENT if self.pace.measures() else CHUNK

    def pack(self, frame, trace):
        """What is to be written in place of the frame. Call written() when it is."""
        probe, level = b"", self.pace.level() if len(frame) >= LEAST_DEFLATED else 0
        if self.pace.wants_probe():
            probe = HEADER.pack(PROBE, 0, 0, 0, 0, self.pace.probe(now()))
            if trace is not None:
                trace.sends(probe)
        if trace is not None:
            trace.sends(frame)
        if not level:
            self.pace.wrote(len(frame))
            return probe + frame
        # If a signal handler's exception comes in between, the unit is not written. Another stream begins then, as the
        # reader has not seen what this one refers to.
        self._used, self._stream = self._stream, None
        if self._used is None or level != self._level:
            self._used, self._level = self._zlib.compressobj(level, self._zlib.DEFLATED, -self._zlib.MAX_WBITS), level
        unit = self._used.compress(frame) + self._used.flush(self._zlib.Z_SYNC_FLUSH)
        header = HEADER.pack(DEFLATED, 0, 0, 0, len(unit), len(frame))
        if trace is not None:
            trace.sends(header)
        self.pace.deflated(len(frame), len(unit), now())
        return probe + header + unit

    def written(self):
        if self._used is not None:
            self._stream, self._used = self._used, None
