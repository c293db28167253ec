"""Makes wrong inputs out of right ones. The same seed gives the same inputs. C++ has mutator.hpp for this."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterator, Sequence

NUMBERS = (0, 1, 2, 6, 0x7F, 0xFF, 0x100, 0xFFFF, 0x100000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_PACKED = [struct.pack(order, number) for order in ("<I", ">I") for number in NUMBERS]
_LONGEST = 4096
_FRAME = struct.Struct("<BBHIII")
HELLO, EXEC, DATA, CLOSE, CLOSE_ERROR, LAST, TERMINATE, STATUS, RECONFIGURE, CREDIT = range(1, 11)


def soak_inputs(short_form: int) -> int:
    """How many inputs a test takes: EXECNET_SOAK_INPUTS, or the given number in the short form."""
    return int(os.environ.get("EXECNET_SOAK_INPUTS", short_form))


def soak_runs(short_form: int) -> int:
    """How often a test runs: EXECNET_SOAK_RUNS, or the given number in the short form."""
    return int(os.environ.get("EXECNET_SOAK_RUNS", short_form))


def soak_seconds(short_form: int) -> int:
    """How many seconds a test measures: EXECNET_SOAK_SECONDS, or the given number in the short form."""
    return int(os.environ.get("EXECNET_SOAK_SECONDS", short_form))


def soak_gateways(short_form: int) -> int:
    """How many gateways a group has: EXECNET_SOAK_GATEWAYS, or the given number in the short form."""
    return int(os.environ.get("EXECNET_SOAK_GATEWAYS", short_form))


def soak_seed() -> int:
    """The seed of the random numbers: EXECNET_SOAK_SEED. Prints it; a failing test shows stdout."""
    seed = int(os.environ.get("EXECNET_SOAK_SEED", 1))
    print(f"seed {seed} (EXECNET_SOAK_SEED=... for another)")
    return seed


def peak_megabytes() -> float:
    """The most memory that this process has ever had in RAM."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))


class Mutator:
    """Makes mutants of seeds: one to four changes of bits, bytes, lengths or pieces, or the end cut off."""

    def __init__(self, seed: int) -> None:
        self._bits = random.Random(seed).getrandbits

    def below(self, count: int) -> int:
        return self._bits(30) % count

    def mutants(self, seeds: Sequence[bytes], count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield self.mutant(seeds)

    def mutant(self, seeds: Sequence[bytes]) -> bytes:
        bits = self._bits
        text = bytearray(seeds[bits(30) % len(seeds)])
        for _ in range(1 + bits(30) % (1 + bits(2))):
            other = seeds[bits(30) % len(seeds)]
            if not text:
                text = bytearray(other)
                continue
            at = bits(30) % len(text)
            size = 1 + bits(6)
            kind = bits(30) % 8
            if kind == 0:
                text[at] ^= 1 << bits(3)
            elif kind == 1:
                text[at] = bits(8)
            elif kind == 2:
                text[at] = 64 + bits(30) % 24  # an opcode, or nearly
            elif kind == 3:
                text[at : at + 4] = _PACKED[bits(30) % len(_PACKED)]
            elif kind == 4:
                del text[at : at + size]
            elif kind == 5:
                del text[at:]
            elif kind == 6 and len(text) < _LONGEST:
                text[at:at] = text[at : at + size]
            elif other:
                start = bits(30) % len(other)
                text[at : at + size] = other[start : start + 1 + bits(6)]
        return bytes(text)


class FrameMutator:
    """Streams of a hostile coordinator: mostly well formed, so that they reach every part of a worker."""

    def __init__(self, seed: int, payloads: Sequence[bytes], dump: Callable[[object], bytes]) -> None:
        self._mutator = Mutator(seed)
        self._payloads = payloads
        self._usual = {
            RECONFIGURE: dump((True, False)),
            CLOSE_ERROR: dump("an error"),
            EXEC: dump(("pass", None, 1, None, {})),
        }

    def frame(self, kind: int, channel: int, payload: bytes = b"", flags: int = 0) -> bytes:
        return _FRAME.pack(kind, flags, 0, channel, len(payload), 0) + payload

    def stream(self) -> bytes:
        below = self._mutator.below
        stream = b"".join([self._random_frame() for _ in range(1 + below(3))])
        return self._mutator.mutant([stream]) if below(20) == 0 else stream

    def _random_frame(self) -> bytes:
        below = self._mutator.below
        kind = (
            below(12) if below(40) == 0 else (DATA, DATA, DATA, CLOSE, LAST, CLOSE_ERROR, STATUS, RECONFIGURE)[below(8)]
        )
        channel = NUMBERS[below(len(NUMBERS))] if below(200) == 0 else 1 + below(12)
        payload, flags = b"", 0
        if kind == DATA:
            payload = (
                self._mutator.mutant(self._payloads) if below(4) == 0 else self._payloads[below(len(self._payloads))]
            )
            flags = below(3) if below(6) == 0 else 0
            payload = b"" if flags == 2 else payload
        elif kind in self._usual:
            payload = self._usual[kind]
            if below(20) == 0:
                payload = self._mutator.mutant([payload])
        return self.frame(kind, channel, payload, flags)
