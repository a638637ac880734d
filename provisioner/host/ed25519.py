"""Verifies Ed25519 signatures with nothing but integers: hosts have no library for it. It can not sign.

Source: RFC 8032, sections 5.1.3 (decoding), 5.1.4 (addition and doubling in extended coordinates) and 5.1.7
(verification, without the cofactor). Nothing here is secret, so nothing here needs to take constant time.
"""

import hashlib

MYPY = False
if MYPY:  # never true: annotations stand in quotes for Python 3.6
    Point = tuple[int, int, int, int]  # X, Y, Z, T with x = X/Z, y = Y/Z, x * y = T/Z

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
NEUTRAL = (0, 1, 1, 0)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (64 bytes) is that of the key `public` (32 bytes) over `message`."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key = decode(public)
    s = int.from_bytes(signature[32:], "little")
    if key is None or s >= ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    h = int.from_bytes(digest, "little") % ORDER
    # R = [s]B - [h]A: both products in one walk over the bits.
    minus_key = (P - key[0], key[1], key[2], P - key[3])
    return encode(sum_of_products(s, BASE, h, minus_key)) == signature[:32]


def sum_of_products(a: int, first: "Point", b: int, second: "Point") -> "Point":
    """[a]first + [b]second."""
    both = add(first, second)
    result = NEUTRAL
    for bit in range(max(a.bit_length(), b.bit_length()) - 1, -1, -1):
        result = double(result)
        pair = (a >> bit & 1, b >> bit & 1)
        if pair == (1, 1):
            result = add(result, both)
        elif pair == (1, 0):
            result = add(result, first)
        elif pair == (0, 1):
            result = add(result, second)
    return result


def add(one: "Point", two: "Point") -> "Point":
    a = (one[1] - one[0]) * (two[1] - two[0]) % P
    b = (one[1] + one[0]) * (two[1] + two[0]) % P
    c = 2 * one[3] * two[3] * D % P
    d = 2 * one[2] * two[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def double(point: "Point") -> "Point":
    a = point[0] * point[0] % P
    b = point[1] * point[1] % P
    h = a + b
    e = h - (point[0] + point[1]) ** 2 % P
    g = a - b
    f = 2 * point[2] * point[2] % P + g
    return e * f % P, g * h % P, f * g % P, e * h % P


def encode(point: "Point") -> bytes:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decode(data: bytes) -> "Point | None":
    """The point that 32 bytes stand for, None when they stand for none."""
    y = int.from_bytes(data, "little")
    sign = y >> 255
    y &= (1 << 255) - 1
    x = x_of(y, sign) if y < P else None
    return None if x is None else (x, y, 1, x * y % P)


def x_of(y: int, sign: int) -> "int | None":
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    if square == 0:
        return None if sign else 0
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    if (x * x - square) % P:
        return None
    return P - x if x & 1 != sign else x


BASE = decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little")) or NEUTRAL
