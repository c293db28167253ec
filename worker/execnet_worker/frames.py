"""Frames, as docs/wire_format.md has them, and whole messages out of them."""

import struct

from .errors import ProtocolError

PROTOCOL = 1
MAGIC = b"EXECNET\x01"

(HELLO, EXEC, DATA, CLOSE, CLOSE_ERROR, LAST, TERMINATE, STATUS, RECONFIGURE, CREDIT,
 OPEN, WINDOW, RINGS, DEFLATED, PROBE, PASSED) = range(1, 17)
WITHOUT_PAYLOAD = frozenset([CLOSE, LAST, TERMINATE, STATUS, CREDIT, PROBE, PASSED])
NUMBERED = (CREDIT, PROBE, PASSED)  # where the last field of the header is what it says
OF_GATEWAY = (HELLO, TERMINATE, DEFLATED, PROBE, PASSED)  # with channel 0
HEADER = struct.Struct("<BBHIII")  # type, flags, reserved, channel, length, credit; docs/wire_format.md
MORE, ABORT = 1, 2
CHUNK = 256 * 1024  # longer payloads are sent in several frames
MAX_LENGTH = 1024 * 1024
MAX_INFLATED = 1024 * 1024


class Inflater(object):
    """What makes frames of DEFLATED ones again. All of a stream are one stream of raw deflate."""

    def __init__(self, zlib):
        self._error, self._stream = zlib.error, zlib.decompressobj(-zlib.MAX_WBITS)

    def inflate(self, unit, size):
        """No more is made of it than what it has said, and a byte. Throws ProtocolError."""
        try:
            data = self._stream.decompress(unit, size + 1)
        except self._error as error:
            raise ProtocolError("a DEFLATED frame cannot be inflated: %s" % error)
        if len(data) != size or self._stream.unused_data or getattr(self._stream, "eof", False):
            raise ProtocolError("a DEFLATED frame of %d bytes does not become %d, as it says" % (len(unit), size))
        return data


def read_messages(stream, unfinished=None, trace=None, inflater=None):
    """Yields (type, channel id, payload, or of NUMBERED that) until the stream ends. Throws ProtocolError.

    `unfinished` is a dictionary for what has come of messages in several frames: channel id -> (type, payloads).
    `trace` is told of each frame, if there is one. What an Inflater makes is put back to the stream, an Incoming.
    """
    chunks = {} if unfinished is None else unfinished
    inflated, unit = 0, None  # bytes, of which the next frames are, and the header of the DEFLATED one
    while True:
        if 0 < inflated < HEADER.size:
            raise ProtocolError("a DEFLATED frame ends within a header")
        header = stream.read(HEADER.size)
        if len(header) < HEADER.size:
            return
        kind, flags, reserved, channel, length, credit = HEADER.unpack(header)
        if not HELLO <= kind <= PASSED or kind == RINGS:
            raise ProtocolError("unknown frame type %d" % kind)
        if flags > ABORT or reserved:
            raise ProtocolError("reserved bits are set: flags %d, reserved %d" % (flags, reserved))
        if length > MAX_LENGTH:
            raise ProtocolError("a frame of %d bytes is over the limit of %d" % (length, MAX_LENGTH))
        if (length or flags == MORE) and (kind in WITHOUT_PAYLOAD or flags == ABORT):
            raise ProtocolError("a frame of type %d and flags %d cannot have a payload" % (kind, flags))
        if (channel == 0) != (kind in OF_GATEWAY) and kind != RECONFIGURE:
            raise ProtocolError("type %d is out of place on channel %d" % (kind, channel))
        if inflated:
            inflated -= HEADER.size + length
            if inflated < 0 or kind == DEFLATED:
                raise ProtocolError("a frame of type %d is out of place within a DEFLATED one" % kind)
        elif kind == DEFLATED and (inflater is None or flags or not length or not 0 < credit <= MAX_INFLATED):
            raise ProtocolError("a DEFLATED frame of %d bytes, to become %d, is out of place" % (length, credit))
        payload = stream.read(length) if length else b""
        if len(payload) < length:
            return
        if trace is not None:
            if kind != DEFLATED:
                trace.received(header, payload)
            if unit is not None and not inflated:  # the sender, too, knows of it when its frames are known
                trace.received(unit, b"")
                unit = None
        if kind == DEFLATED:
            inflated, unit = credit, header
            stream.put_back(inflater.inflate(payload, credit))
            continue
        if flags or channel in chunks:
            first_kind, payloads = chunks.setdefault(channel, (kind, []))
            if kind != first_kind:
                raise ProtocolError("type %d among the chunks of a message of type %d" % (kind, first_kind))
            payloads.append(payload)
            if flags == MORE:
                continue
            del chunks[channel]
            if flags == ABORT:
                continue
            payload = b"".join(payloads)
        yield kind, channel, credit if kind in NUMBERED else payload
