"""Frames, as docs/wire_format.md has them, and whole messages out of them."""

import struct

from .errors import ProtocolError

PROTOCOL = 1
MAGIC = b"EXECNET\x01"

(HELLO, EXEC, DATA, CLOSE, CLOSE_ERROR, LAST, TERMINATE, STATUS, RECONFIGURE, CREDIT,
 OPEN, WINDOW, RINGS) = range(1, 14)
WITHOUT_PAYLOAD = frozenset([CLOSE, LAST, TERMINATE, STATUS, CREDIT])
HEADER = struct.Struct("<BBHIII")  # type, flags, reserved, channel, length, credit (of CREDIT)
MORE, ABORT = 1, 2
CHUNK = 256 * 1024  # longer payloads are sent in several frames
MAX_LENGTH = 1024 * 1024


def read_messages(stream, unfinished=None, trace=None):
    """Yields (type, channel id, payload, of CREDIT the credit) until the stream ends. Throws ProtocolError.

    `unfinished` is a dictionary for what has come of messages in several frames: channel id -> (type, payloads).
    `trace` is told of each frame, if there is one.
    """
    chunks = {} if unfinished is None else unfinished
    while True:
        header = stream.read(HEADER.size)
        if len(header) < HEADER.size:
            return
        kind, flags, reserved, channel, length, credit = HEADER.unpack(header)
        if not HELLO <= kind <= WINDOW:
            raise ProtocolError("unknown frame type %d" % kind)
        if flags > ABORT or reserved:
            raise ProtocolError("reserved bits are set: flags %d, reserved %d" % (flags, reserved))
        if length > MAX_LENGTH:
            raise ProtocolError("a frame of %d bytes is over the limit of %d" % (length, MAX_LENGTH))
        if (length or flags == MORE) and (kind in WITHOUT_PAYLOAD or flags == ABORT):
            raise ProtocolError("a frame of type %d and flags %d cannot have a payload" % (kind, flags))
        if (channel == 0) != (kind in (HELLO, TERMINATE)) and kind != RECONFIGURE:
            raise ProtocolError("type %d is out of place on channel %d" % (kind, channel))
        payload = stream.read(length) if length else b""
        if len(payload) < length:
            return
        if trace is not None:
            trace.received(header, payload)
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
        yield kind, channel, credit if kind == CREDIT else payload
