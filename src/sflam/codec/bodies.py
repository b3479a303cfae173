"""Messages to bytes and back: the safetensors layout with a header of fixed size.

A body is an 8-byte little-endian length, a JSON header padded with spaces to ``sizes.HEADER_BYTES`` in all,
and the tensors' little-endian bytes without gaps, widest type first, then by name. ``__metadata__`` holds the
plain numbers as strings. They and the lengths of vectors determine the table of tensors; a body with any other
table is refused. Nothing is executed, and nothing is allocated by a size the sender gives: a decoded message's arrays
are views into the body.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from sflam.codec.messages import AdapterFrame, ChangeFrame, GradientFrame, Message, StepFrame, TokenFrame
from sflam.codec.quantizer import Packed
from sflam.codec.quantizers import QUANTIZERS, quantizer
from sflam.errors import QuantizerError, WireError, unknown
from sflam.files import from_json
from sflam.sizes import (
    BODY_LIMIT,
    COUNT_LIMIT,
    HEADER_BYTES,
    IDENTITY,
    MAX_BITS,
    MIN_BITS,
    adapter_groups,
    codes_bytes,
    is_variable,
)

Array = npt.NDArray[Any]
Body = bytes | bytearray | memoryview
Spec = tuple[str, str, tuple[int, ...]]  # name, type tag, shape
Table = dict[str, Any]  # name -> {"dtype": tag, "shape": [...], "data_offsets": [start, stop]}

DTYPES = {tag: np.dtype(code) for tag, code in (("F64", "<f8"), ("F32", "<f4"), ("I32", "<i4"), ("U8", "u1"))}
DTYPES["BF16"] = np.dtype("<u2")  # NumPy has no bfloat16; its bit patterns travel
TAGS = {dtype: tag for tag, dtype in DTYPES.items()}
PREFIX = (HEADER_BYTES - 8).to_bytes(8, "little")
JSON = json.JSONEncoder(separators=(",", ":"))
SHAPES = 256
"""Tables kept, of bodies of one kind and shape: those of all steps but a pass's last are alike."""

# kind -> numbers in the metadata; vectors, which may be absent, with their possible types
KINDS: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "step": (
        ("round", "step", "device", "rows"),
        {"lengths": ("I32",), "labels": ("I32",), "samples": ("I32",)},
    ),
    "gradient": (("round", "step", "device"), {}),
    "tokens": (("round", "step", "device"), {}),
    "adapter": (("round", "device", "samples"), {"values": ("F32", "F64")}),
    "change": (("round", "device", "samples"), {}),
}
TOKENS = {"scheme", "bits", "tokens", "dim"}


def encode(message: Message) -> bytes:
    """Return the body of ``message``; ``payload`` gives its exact size beforehand.

    Raises:
        WireError: the body would reach ``sizes.BODY_LIMIT``.
    """
    metadata, sent = _content(message)
    table = layout((name, TAGS[array.dtype], array.shape) for name, array in sent.items())
    return b"".join(
        [PREFIX, header(metadata, table), *(np.ascontiguousarray(sent[name]).data for name in table)]
    )


def reserve(message: StepFrame | TokenFrame) -> tuple[bytearray, Packed]:
    """Return the body of ``message`` but for its tokens, and these as arrays in the body, to be filled.

    Args:
        message: with :func:`unfilled` tokens, of a scheme whose size does not vary.

    Raises:
        WireError: the body would reach ``sizes.BODY_LIMIT``.
    """
    metadata, sent = _content(message)
    tokens = message.activations if isinstance(message, StepFrame) else message.tokens
    table = layout((name, TAGS[array.dtype], array.shape) for name, array in sent.items())
    body = bytearray(HEADER_BYTES + max(entry["data_offsets"][1] for entry in table.values()))
    body[:HEADER_BYTES] = PREFIX + header(metadata, table)
    views = _views(body, table, [(name, TAGS[array.dtype], array.shape) for name, array in sent.items()])
    for name in sent.keys() - {"codes", "side"}:
        views[name][:] = sent[name]
    codes, side = views["codes"].reshape(-1).view(np.uint8), views.get("side", np.empty((0, 2), np.uint16))
    return body, Packed(tokens.scheme, tokens.bits, tokens.tokens, tokens.dim, codes, side)


def unfilled(scheme: str, bits: int, tokens: int, dim: int) -> Packed:
    """Return tokens whose values are to come, of a scheme whose size does not vary; takes no memory by itself."""
    codes = np.empty(codes_bytes(tokens, dim, bits, scheme), np.uint8)
    return Packed(
        scheme, bits, tokens, dim, codes, np.empty((0 if scheme == IDENTITY else tokens, 2), np.uint16)
    )


def _content(message: Message) -> tuple[dict[str, str], dict[str, Array]]:
    """Return the metadata and the tensors of a message."""
    arrays: dict[str, Array | None]
    packed: Packed | None = None
    match message:
        case StepFrame():
            kind, packed = "step", message.activations
            arrays = {name: getattr(message, name) for name in KINDS["step"][1]}
        case GradientFrame():
            kind, packed, arrays = "gradient", message.gradient, {}
        case TokenFrame():
            kind, packed, arrays = "tokens", message.tokens, {}
        case AdapterFrame():
            kind, arrays = "adapter", {"values": message.values, "side": message.grid}
        case ChangeFrame():
            kind, packed, arrays = "change", message.change, {}
    metadata = {"kind": kind} | {key: str(int(getattr(message, key))) for key in KINDS[kind][0]}
    if isinstance(message, GradientFrame):
        metadata["loss"] = repr(float(message.loss))
    if packed is not None:
        metadata |= {key: str(getattr(packed, key)) for key in ("scheme", "bits", "tokens", "dim")}
        arrays |= _token_arrays(packed)
    return metadata, {name: array for name, array in arrays.items() if array is not None}


def decode(body: Body) -> Message:
    """Return the message in ``body``; its arrays are views, read-only where ``body`` is.

    Raises:
        WireError: anything but a body that ``encode`` could have written (the order of JSON keys is free), or
            tokens that no quantizer could decode.
    """
    metadata, table = _read_header(body)
    kind = metadata.get("kind", "")
    if kind not in KINDS:
        raise WireError(unknown("message kind", kind[:40], KINDS))
    numbers, vectors = KINDS[kind]
    tokens = kind in ("step", "tokens", "change") or (kind == "gradient" and "scheme" in metadata)
    fields = {"kind", *numbers} | ({"loss"} if kind == "gradient" else set()) | (TOKENS if tokens else set())
    if metadata.keys() != fields:
        raise WireError(f"the {kind} message must have the fields {', '.join(sorted(fields))} and no other")
    specs: list[Spec] = [_vector(table, name, tags) for name, tags in vectors.items() if name in table]
    if kind == "adapter" and specs and "side" in table:
        specs.append(("side", "BF16", (adapter_groups(specs[0][2][0]), 2)))
    shape = _shape(metadata) if tokens else (0, 0, 0)
    arrays = _views(body, table, specs + (token_specs(metadata["scheme"], *shape, table) if tokens else []))
    counts = {key: _count(metadata, key) for key in numbers}
    packed = _read_tokens(metadata["scheme"], shape, arrays) if tokens else None
    if kind == "step":
        assert packed is not None
        lengths, labels, samples = (arrays.get(name) for name in ("lengths", "labels", "samples"))
        return StepFrame(**counts, activations=packed, lengths=lengths, labels=labels, samples=samples)
    if kind == "gradient":
        return GradientFrame(**counts, loss=_loss(metadata), gradient=packed)
    if kind == "tokens":
        assert packed is not None
        return TokenFrame(**counts, tokens=packed)
    if kind == "change":
        assert packed is not None
        return ChangeFrame(**counts, change=packed)
    if "values" not in arrays:
        raise WireError("an adapter message without the tensor 'values'; send one vector")
    return AdapterFrame(**counts, values=arrays["values"], grid=arrays.get("side"))


def codes_start(head: Body) -> int | None:
    """Return where a body's codes begin, from its first ``HEADER_BYTES``; None where it has no tokens.

    What comes before the codes is small. :func:`decode` of a body whose codes are still to come checks all but them,
    for schemes whose size does not vary.

    Raises:
        WireError: no header.
    """
    match _read_header(head)[1].get("codes"):
        case None:
            return None
        case {"data_offsets": [int(start), int(stop)]} if 0 <= start <= stop < BODY_LIMIT:
            return HEADER_BYTES + start
    raise WireError("the codes of a body must have an offset")


def layout(specs: Iterable[Spec]) -> Table:
    """Return the table of tensors: widest type first, so that each is aligned, then by name, without gaps.

    It is kept for the next body of these shapes, so it is read and never changed.

    Raises:
        WireError: the body would reach ``sizes.BODY_LIMIT``.
    """
    return _table(tuple(specs))


@lru_cache(maxsize=SHAPES)
def _table(specs: tuple[Spec, ...]) -> Table:
    table, start = {}, 0
    for name, tag, shape in sorted(specs, key=lambda spec: (-DTYPES[spec[1]].itemsize, spec[0])):
        size = DTYPES[tag].itemsize
        for count in shape:
            size *= count
        table[name] = {"dtype": tag, "shape": list(shape), "data_offsets": [start, start + size]}
        start += size
    if HEADER_BYTES + start >= BODY_LIMIT:
        raise WireError(
            f"a body of {HEADER_BYTES + start} bytes; the limit is {BODY_LIMIT}: send smaller batches"
        )
    return table


def header(metadata: dict[str, str], table: Table) -> bytes:
    """Return the JSON header, padded with spaces to ``HEADER_BYTES - 8``."""
    text = JSON.encode({"__metadata__": metadata} | table).encode()
    assert len(text) <= HEADER_BYTES - 8  # the limits in payload see to it
    return text.ljust(HEADER_BYTES - 8)


def _read_header(body: Body) -> tuple[dict[str, str], Table]:
    if len(body) < HEADER_BYTES or bytes(body[:8]) != PREFIX:
        raise WireError(
            f"a body of {len(body)} bytes whose header length is 0x{bytes(body[:8])[::-1].hex()}; "
            f"every body starts with a header of {HEADER_BYTES - 8} bytes"
        )
    try:
        table = from_json(bytes(body[8:HEADER_BYTES]).decode())
    except (ValueError, RecursionError) as error:
        raise WireError(f"the header is not JSON in UTF-8 ({error})") from None
    metadata = table.pop("__metadata__", None) if isinstance(table, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WireError("the header must be a JSON object whose __metadata__ maps strings to strings")
    return metadata, table


def _count(metadata: dict[str, str], key: str) -> int:
    text = metadata[key]
    if not (text.isascii() and text.isdigit() and len(text) < len(str(COUNT_LIMIT))):
        raise WireError(f"{key} is {text[:40]!r}; it must be a decimal number below {COUNT_LIMIT}")
    return int(text)


def _shape(metadata: dict[str, str]) -> tuple[int, int, int]:
    return _count(metadata, "bits"), _count(metadata, "tokens"), _count(metadata, "dim")


def _loss(metadata: dict[str, str]) -> float:
    try:
        return float(metadata["loss"])
    except ValueError:
        raise WireError(f"loss is {metadata['loss'][:40]!r}; it must be a number") from None


def _vector(table: Table, name: str, tags: tuple[str, ...]) -> Spec:
    match table[name]:
        case {"shape": [int(count)], "dtype": str(tag)} if 0 <= count < COUNT_LIMIT and tag in tags:
            return name, tag, (count,)
    raise WireError(
        f"tensor {name!r} must be {' or '.join(tags)} with a shape of one number below {COUNT_LIMIT}"
    )


def _views(body: Body, table: Table, specs: list[Spec]) -> dict[str, Array]:
    """Return the arrays in ``body`` after checking that ``table`` is exactly what ``specs`` need."""
    expected = layout(specs)
    if table != expected:
        raise WireError(f"tensors {table}; the message's numbers need {expected}")
    size = HEADER_BYTES + max((entry["data_offsets"][1] for entry in expected.values()), default=0)
    if len(body) != size:
        raise WireError(f"a body of {len(body)} bytes; the message's numbers need {size}")
    data = np.frombuffer(body, np.uint8)[HEADER_BYTES:]
    arrays = {}
    for name, tag, shape in specs:
        start, stop = expected[name]["data_offsets"]
        arrays[name] = data[start:stop].view(DTYPES[tag]).reshape(shape)
    return arrays


def _token_arrays(packed: Packed) -> dict[str, Array | None]:
    if packed.scheme == IDENTITY:
        floats = packed.codes.view(DTYPES[f"F{packed.bits}"])
        return {"codes": floats.reshape(packed.tokens, packed.dim)}
    return {"side": packed.side, "codes": packed.codes}


def token_specs(scheme: str, bits: int, tokens: int, dim: int, table: Table | None = None) -> list[Spec]:
    """Return the tensors that hold ``tokens`` x ``dim`` values.

    Args:
        scheme: name of the quantizer.
        bits: per value.
        tokens: n.
        dim: d.
        table: says how many codes there are where that varies; without one they are as many as there can be.

    Raises:
        WireError: unknown scheme, ``bits`` that it does not have, or codes beyond the bound.
    """
    if scheme not in QUANTIZERS:
        raise WireError(unknown("scheme", scheme[:40], QUANTIZERS))
    if not (bits in (32, 64) if scheme == IDENTITY else MIN_BITS <= bits <= MAX_BITS):
        raise WireError(
            f"{scheme} tokens of {bits} bits; identity has 32 or 64, others {MIN_BITS}..{MAX_BITS}"
        )
    if scheme == IDENTITY:
        return [("codes", f"F{bits}", (tokens, dim))]
    count = codes_bytes(tokens, dim, bits, scheme)
    if is_variable(scheme) and table is not None:
        most = count
        if "codes" not in table:
            raise WireError(f"{scheme} tokens without the tensor 'codes'")
        [count] = _vector(table, "codes", ("U8",))[2]
        if count > most:
            raise WireError(f"{scheme} codes of {count} bytes; {tokens} x {dim} values have at most {most}")
    return [("side", "BF16", (tokens, 2)), ("codes", "U8", (count,))]


def _read_tokens(scheme: str, shape: tuple[int, int, int], arrays: dict[str, Array]) -> Packed:
    (bits, tokens, dim), codes = shape, arrays["codes"]
    side = arrays.get("side", np.empty((0, 2), np.uint16))
    try:
        packed = Packed(scheme, bits, tokens, dim, codes.reshape(-1).view(np.uint8), side)
        quantizer(scheme).check_side(packed)
        return packed
    except QuantizerError as error:
        raise WireError(str(error)) from None
