"""The host's own verification agrees with a library in every case, and with the vectors of RFC 8032."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioner.host.ed25519 import BASE, NEUTRAL, ORDER, P, decode, encode, sum_of_products, verify

# RFC 8032, section 7.1: public key, message, signature.
VECTORS = {
    "1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "sha(abc)": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}


def library(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_of_the_rfc(name: str) -> None:
    """Each verifies, and with one bit turned anywhere none does."""
    public, message, signature = (bytes.fromhex(text) for text in VECTORS[name])
    assert library(public, message, signature)
    assert verify(public, message, signature)
    for bit in range(0, 512, 37):
        turned = bytearray(signature)
        turned[bit // 8] ^= 1 << bit % 8
        assert not verify(public, message, bytes(turned))
    assert not verify(public, message + b"\0", signature)


@settings(max_examples=40, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=200))
def test_what_the_library_signs_verifies(seed: bytes, message: bytes) -> None:
    """Any key, any message."""
    key = Ed25519PrivateKey.from_private_bytes(seed)

    assert verify(key.public_key().public_bytes_raw(), message, key.sign(message))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.binary(min_size=32, max_size=32),
    message=st.binary(min_size=1, max_size=64),
    part=st.sampled_from(["public", "message", "signature"]),
    bit=st.integers(min_value=0),
)
def test_one_bit_turned(seed: bytes, message: bytes, part: str, bit: int) -> None:
    """The library and this program say the same, which is no."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    values = {
        "public": bytearray(key.public_key().public_bytes_raw()),
        "message": bytearray(message),
        "signature": bytearray(key.sign(message)),
    }
    place = bit % (len(values[part]) * 8)
    values[part][place // 8] ^= 1 << place % 8
    public, changed, signature = (bytes(values[name]) for name in ("public", "message", "signature"))

    assert not verify(public, changed, signature)
    assert not library(public, changed, signature)


@settings(max_examples=60, deadline=None)
@given(public=st.binary(min_size=32, max_size=32), signature=st.binary(min_size=64, max_size=64))
def test_random_bytes(public: bytes, signature: bytes) -> None:
    """No error, and the same answer as the library's."""
    assert verify(public, b"m", signature) == library(public, b"m", signature)


@pytest.mark.parametrize("length", [0, 31, 33, 63, 65])
def test_wrong_lengths(length: int) -> None:
    """A key is 32 bytes and a signature 64, nothing else."""
    public, message, signature = (bytes.fromhex(text) for text in VECTORS["3"])

    assert not verify(public, message, signature[:length] if length != 65 else signature + b"\0")
    assert not verify(public[:length] if length < 32 else public + b"\0", message, signature)


def test_a_second_spelling_of_a_signature_is_refused() -> None:
    """s and s + L are the same number: only the smaller may be written (RFC 8032, 5.1.7), or signatures multiply."""
    public, message, signature = (bytes.fromhex(text) for text in VECTORS["2"])
    other = int.from_bytes(signature[32:], "little") + ORDER

    assert not verify(public, message, signature[:32] + other.to_bytes(32, "little"))


def test_y_beyond_the_field_is_no_point() -> None:
    """Nor is a y whose x does not exist, nor "minus zero"."""
    assert decode((P + 1).to_bytes(32, "little")) is None
    assert decode((2).to_bytes(32, "little")) is None
    assert decode((1 | 1 << 255).to_bytes(32, "little")) is None
    assert decode((1).to_bytes(32, "little")) == NEUTRAL


@settings(max_examples=25, deadline=None)
@given(a=st.integers(0, ORDER - 1), b=st.integers(0, ORDER - 1))
def test_products_add_up(a: int, b: int) -> None:
    """[a]B + [b]B = [(a + b) mod L]B."""
    both = sum_of_products(a, BASE, b, BASE)

    assert encode(both) == encode(sum_of_products((a + b) % ORDER, BASE, 0, BASE))
