"""Messages out of frames."""

# The formatter would take away the u of strings, which Python 2 needs.
# fmt: off
import io
import unittest

from worker_client import ABORT, CLOSE, DATA, MORE, TERMINATE, frame, worker


class Frames(unittest.TestCase):
    def messages(self, data):
        return list(worker["read_messages"](io.BytesIO(data)))

    def reject(self, data, text):
        with self.assertRaises(worker["ProtocolError"]) as caught:
            self.messages(data)
        self.assertIn(text, str(caught.exception))

    def test_messages_are_put_together_from_chunks(self):
        data = (
            frame(DATA, 1, b"ab", flags=MORE)
            + frame(DATA, 3, b"x")
            + frame(DATA, 1, b"cd", flags=MORE)
            + frame(DATA, 1, b"")
            + frame(TERMINATE, 0)
        )
        self.assertEqual(self.messages(data), [(DATA, 3, b"x"), (DATA, 1, b"abcd"), (TERMINATE, 0, b"")])

    def test_abort_takes_back(self):
        data = frame(DATA, 1, b"ab", flags=MORE) + frame(DATA, 1, flags=ABORT) + frame(DATA, 1, b"c")
        self.assertEqual(self.messages(data), [(DATA, 1, b"c")])
        self.assertEqual(self.messages(frame(DATA, 1, flags=ABORT) + frame(DATA, 1, b"c")), [(DATA, 1, b"c")])

    def test_a_stream_may_end_anywhere(self):
        data = frame(DATA, 1, b"ab")
        for size in range(len(data)):
            self.assertEqual(self.messages(data[:size]), [])

    def test_what_is_not_of_the_protocol_is_an_error(self):
        self.reject(frame(0, 1), "unknown frame type 0")
        self.reject(frame(13, 0), "unknown frame type 13")
        self.reject(frame(17, 1), "unknown frame type 17")
        self.reject(frame(DATA, 1, flags=4), "reserved")
        self.reject(frame(DATA, 1, flags=MORE | ABORT), "reserved")
        self.reject(frame(DATA, 1, reserved=1), "reserved")
        self.reject(frame(DATA, 1, length=1024 * 1024 + 1), "over the limit")
        self.reject(frame(CLOSE, 1, b"x"), "cannot have a payload")
        self.reject(frame(DATA, 1, b"x", flags=ABORT), "cannot have a payload")
        self.reject(frame(DATA, 1, b"x", flags=MORE) + frame(CLOSE, 1), "among the chunks")


if __name__ == "__main__":
    unittest.main()
