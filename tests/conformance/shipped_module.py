"""A module whose source is sent; the other side never imports it."""

import os

value = os.path.join("a", "b")


def double(number):
    return 2 * number


if __name__ == "__channelexec__":
    channel.send([__name__, value, double(channel.receive())])  # noqa: F821
    raise ValueError("at the end")
