"""Pictures of pages with few colours, in few bytes: a browser writes PNG files for speed, and not for size."""

from __future__ import annotations

import struct
import zlib
from collections import Counter

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS_MAX = 256
KEPT_BITS = 0xF0
"""Of each part of a colour the upper four bits are kept. Edges of letters have no more shades than eyes need."""


def shrunk(png: bytes) -> bytes:
    """The same picture with a palette. ``png`` has 8 bits for each of three or four parts, as browsers write it."""
    width, height, depth, kind = struct.unpack(">IIBB", png[16:26])
    parts = {2: 3, 6: 4}[kind]
    if depth != 8:
        raise ValueError("not a picture of a browser")
    rows = unfiltered(zlib.decompress(data_of(png)), width * parts, parts)
    lines = [[rounded(row[place : place + 3]) for place in range(0, width * parts, parts)] for row in rows]
    common = [colour for colour, _ in Counter(colour for line in lines for colour in line).most_common(COLOURS_MAX)]
    index = {colour: place for place, colour in enumerate(common)}
    for colour in {colour for line in lines for colour in line} - {*common}:
        index[colour] = min(range(len(common)), key=lambda place: distance(colour, common[place]))
    body = b"".join(b"\0" + bytes(index[colour] for colour in line) for line in lines)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    palette = b"".join(common)
    return SIGNATURE + b"".join(
        chunk(name, data)
        for name, data in (
            (b"IHDR", header),
            (b"PLTE", palette),
            (b"IDAT", zlib.compress(body, 9)),
            (b"IEND", b""),
        )
    )


def rounded(colour: bytes | bytearray) -> bytes:
    """The nearest colour of those that are kept. White stays white."""
    return bytes(min(255, (part & KEPT_BITS) | (part & KEPT_BITS) >> 4) for part in colour)


def distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def data_of(png: bytes) -> bytes:
    """The compressed rows of the picture."""
    place, found = len(SIGNATURE), b""
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            found += png[place + 8 : place + 8 + length]
        place += 12 + length
    return found


def unfiltered(data: bytes, stride: int, step: int) -> list[bytearray]:
    """The rows, each of which was written as a difference from what is to its left and above."""
    rows: list[bytearray] = []
    above = bytearray(stride)
    for start in range(0, len(data), stride + 1):
        way, row = data[start], bytearray(data[start + 1 : start + 1 + stride])
        for place in range(stride):
            left = row[place - step] if place >= step else 0
            corner = above[place - step] if place >= step else 0
            row[place] = (row[place] + predicted(way, left, above[place], corner)) & 0xFF
        rows.append(row)
        above = row
    return rows


def predicted(way: int, left: int, up: int, corner: int) -> int:
    """What a filter of PNG expects at a place, from what is around it."""
    match way:
        case 1:
            return left
        case 2:
            return up
        case 3:
            return (left + up) // 2
        case 4:
            guess = left + up - corner
            return min((left, up, corner), key=lambda one: abs(guess - one))
    return 0
