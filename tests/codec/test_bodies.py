"""The codec: both ways, the safetensors library's too, and nothing but valid bodies accepted."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.codec.bodies import decode, encode
from sflam.codec.messages import AdapterFrame, GradientFrame, Message, StepFrame
from sflam.errors import WireError
from sflam.sizes import HEADER_BYTES
from tests.codec.frames import adapter, flat, gradient, messages, packed, step

LENGTHS, LABELS = np.array([4, 2], np.int32), np.array([7, -100, 3], np.int32)
FULL = step(lengths=LENGTHS, labels=LABELS)


def rewritten(message: Message, change: Any, tail: bytes = b"") -> bytes:
    """Return the body of ``message`` after ``change(header)``, padded and measured again."""
    body = encode(message)
    header = json.loads(body[8:HEADER_BYTES])
    header = change(header) or header
    text = json.dumps(header).encode().ljust(HEADER_BYTES - 8)
    return len(text).to_bytes(8, "little") + text + body[HEADER_BYTES:] + tail


@settings(deadline=None, max_examples=80)
@given(message=messages(), kind=st.sampled_from([bytes, bytearray, memoryview]))
def test_every_message_survives_the_way_there_and_back(message: Message, kind: Any) -> None:
    body = encode(message)
    again = decode(kind(body))
    assert flat(again) == flat(message)
    assert encode(again) == body


@pytest.mark.parametrize(
    "loss", [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1 / 3, float("nan"), float("-inf")]
)
def test_the_loss_travels_exactly(loss: float) -> None:
    again = decode(encode(GradientFrame(0, 0, 0, loss, None)))
    assert isinstance(again, GradientFrame) and repr(again.loss) == repr(loss)


def test_decoded_arrays_are_views_into_the_body() -> None:
    body = bytearray(encode(FULL))
    frame = decode(body)
    assert isinstance(frame, StepFrame) and frame.lengths is not None
    for array in (frame.activations.codes, frame.activations.side, frame.lengths):
        assert np.shares_memory(array, np.frombuffer(body, np.uint8))
    read_only = decode(bytes(body))
    assert isinstance(read_only, StepFrame) and not read_only.activations.codes.flags.writeable


def test_the_safetensors_library_reads_our_bodies() -> None:
    tensors = safetensors.torch.load(encode(FULL))
    assert tensors["side"].dtype == torch.bfloat16 and tensors["side"].shape == (6, 2)
    assert np.array_equal(tensors["side"].view(torch.int16).numpy().view(np.uint16), FULL.activations.side)
    assert np.array_equal(tensors["codes"].numpy(), FULL.activations.codes)
    assert tensors["lengths"].tolist() == LENGTHS.tolist() and tensors["labels"].dtype == torch.int32
    values = safetensors.numpy.load(encode(adapter()))["values"]
    assert values.dtype == np.float32 and np.array_equal(values, adapter().values)
    for dtype in (np.float32, np.float64):
        floats = packed(6, 5, 8, "identity", dtype)
        codes = safetensors.numpy.load(encode(step(activations=floats, lengths=LENGTHS)))["codes"]
        assert codes.dtype == dtype and codes.shape == (6, 5) and codes.tobytes() == floats.codes.tobytes()


@settings(deadline=None, max_examples=40)
@given(message=messages())
def test_the_safetensors_library_accepts_every_body(message: Message) -> None:
    safetensors.torch.load(encode(message))


def written_by_the_library(tensors: dict[str, torch.Tensor], message: Message) -> bytes:
    """Return the library's own body with our metadata, its header padded to our size."""
    metadata = json.loads(encode(message)[8:HEADER_BYTES])["__metadata__"]
    body = safetensors.torch.save(tensors, metadata)
    size = int.from_bytes(body[:8], "little")
    text = body[8 : 8 + size].rstrip().ljust(HEADER_BYTES - 8)
    return len(text).to_bytes(8, "little") + text + body[8 + size :]


def test_we_read_what_the_safetensors_library_writes_once_its_header_is_padded() -> None:
    side = torch.from_numpy(FULL.activations.side.view(np.int16)).view(torch.bfloat16)
    tensors = {"codes": torch.from_numpy(FULL.activations.codes), "side": side}
    tensors |= {"lengths": torch.from_numpy(LENGTHS), "labels": torch.from_numpy(LABELS)}
    assert flat(decode(written_by_the_library(tensors, FULL))) == flat(FULL)
    values = {"values": torch.from_numpy(adapter().values)}
    assert flat(decode(written_by_the_library(values, adapter()))) == flat(adapter())
    for dtype in (np.float32, np.float64):
        floats = step(activations=packed(6, 5, 8, "identity", dtype), labels=LABELS)
        codes = torch.from_numpy(floats.activations.codes.view(dtype).reshape(6, 5))
        tensors = {"codes": codes, "labels": torch.from_numpy(LABELS)}
        assert flat(decode(written_by_the_library(tensors, floats))) == flat(floats)


@pytest.mark.parametrize("message", [FULL, gradient(), adapter(), GradientFrame(0, 0, 0, 1.0, None)])
def test_truncated_and_trailing_bytes_are_refused(message: Message) -> None:
    body = encode(message)
    for wrong in (b"", body[:7], body[:8], body[: HEADER_BYTES - 1], body[:-1], body + b"\0"):
        with pytest.raises(WireError):
            decode(wrong)


@pytest.mark.parametrize(
    "length", [0, HEADER_BYTES - 9, HEADER_BYTES - 7, HEADER_BYTES, 2**31, 2**63, 2**64 - 1]
)
def test_any_other_header_length_is_refused(length: int) -> None:
    with pytest.raises(WireError, match="header"):
        decode(length.to_bytes(8, "little") + encode(FULL)[8:])


@pytest.mark.parametrize(
    "text",
    [b"\xff\xfe", b"{", b"[]", b"null", b'"step"', b"[" * 504, b'{"a":' * 100, b"{}", b'{"__metadata__":[]}'],
)
def test_headers_that_are_no_json_object_with_metadata_are_refused(text: bytes) -> None:
    with pytest.raises(WireError, match="header"):
        decode(encode(FULL)[:8] + text.ljust(HEADER_BYTES - 8) + encode(FULL)[HEADER_BYTES:])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "stepp"),
        ("kind", "gradient"),
        ("kind", "adapter"),
        ("kind", 1),
        ("kind", None),
        ("round", "-1"),
        ("round", "1.0"),
        ("round", "1_0"),
        ("round", " 1"),
        ("round", "\u0663"),
        ("round", "9" * 30),
        ("round", ""),
        ("round", 1),
        ("rows", "3"),
        ("rows", "999999999"),
        ("tokens", "7"),
        ("tokens", "999999999"),
        ("dim", "0"),
        ("dim", "6"),
        ("bits", "0"),
        ("bits", "5"),
        ("bits", "17"),
        ("bits", "32"),
        ("scheme", "identity"),
        ("scheme", "cubic"),
        ("extra", "1"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(field: str, value: Any) -> None:
    with pytest.raises(WireError):
        decode(rewritten(FULL, lambda header: header["__metadata__"].update({field: value})))


@pytest.mark.parametrize(
    "field", ["kind", "round", "step", "device", "rows", "scheme", "bits", "tokens", "dim"]
)
def test_missing_metadata_is_refused(field: str) -> None:
    with pytest.raises(WireError):
        decode(rewritten(FULL, lambda header: header["__metadata__"].pop(field) and None))


@pytest.mark.parametrize(
    ("tensor", "entry"),
    [
        ("codes", {"dtype": "I8"}),
        ("codes", {"dtype": "U8", "shape": [3, 5]}),
        ("side", {"dtype": "F16"}),
        ("side", {"dtype": "U16"}),
        ("side", {"shape": [12]}),
        ("lengths", {"dtype": "F32"}),
        ("lengths", {"shape": [-2]}),
        ("lengths", {"shape": [3]}),
        ("lengths", {"shape": ["2"]}),
        ("lengths", {"shape": []}),
        ("lengths", {"shape": None}),
        ("labels", {"shape": [999999999]}),
        ("labels", {"shape": [10**300]}),
        ("lengths", {"data_offsets": [0, 8]}),  # overlaps labels
        ("lengths", {"data_offsets": [16, 24]}),  # leaves a gap
        ("codes", {"data_offsets": [44, 10**9]}),  # exceeds the body
        ("codes", {"data_offsets": [59, 44]}),
        ("codes", {"data_offsets": [-15, 0]}),
        ("codes", {"data_offsets": []}),
        ("codes", {"extra": 1}),
    ],
)
def test_tensor_tables_that_do_not_fit_are_refused(tensor: str, entry: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        decode(rewritten(FULL, lambda header: header[tensor].update(entry)))


@pytest.mark.parametrize("entry", [None, 1, [], "U8", {}])
@pytest.mark.parametrize("tensor", ["codes", "labels", "other", "values"])
def test_tensor_entries_that_are_no_entries_are_refused(tensor: str, entry: Any) -> None:
    with pytest.raises(WireError):
        decode(rewritten(FULL, lambda header: header.update({tensor: entry})))


@pytest.mark.parametrize("tensor", ["codes", "side", "lengths"])
def test_missing_tensors_are_refused(tensor: str) -> None:
    with pytest.raises(WireError):
        decode(rewritten(FULL, lambda header: header.pop(tensor) and None))


def test_an_adapter_without_values_is_refused() -> None:
    with pytest.raises(WireError, match="values"):
        decode(rewritten(adapter(0), lambda header: header.pop("values") and None))


@pytest.mark.parametrize("loss", ["", "one", "0x1", "1,5"])
def test_a_loss_that_is_no_number_is_refused(loss: str) -> None:
    with pytest.raises(WireError, match="loss"):
        decode(rewritten(gradient(), lambda header: header["__metadata__"].update(loss=loss)))


@pytest.mark.parametrize("pattern", [0x7FC0, 0x7F80, 0xFF80])
def test_nan_and_inf_in_the_side_information_are_refused(pattern: int) -> None:
    body = bytearray(encode(gradient()))
    body[HEADER_BYTES + 8 : HEADER_BYTES + 10] = pattern.to_bytes(2, "little")
    with pytest.raises(WireError, match="token 2"):
        decode(body)


def test_lengths_and_adapter_values_are_checked_after_transport_too() -> None:
    body = bytearray(encode(FULL))
    body[HEADER_BYTES + 12 : HEADER_BYTES + 20] = np.array([7, -1], np.int32).tobytes()  # after three labels
    with pytest.raises(WireError, match="lengths from -1"):
        decode(body)
    body = bytearray(encode(adapter()))
    body[HEADER_BYTES : HEADER_BYTES + 4] = np.array([np.nan], np.float32).tobytes()
    with pytest.raises(WireError, match="NaN"):
        decode(body)


class Bomb:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('unpickled')",)


def test_nothing_received_is_ever_unpickled() -> None:
    bomb = pickle.dumps(Bomb())
    for body in (
        bomb,
        bomb.ljust(2000),
        encode(FULL)[:8] + bomb.ljust(HEADER_BYTES),
        encode(FULL)[:HEADER_BYTES] + bomb,
    ):
        with pytest.raises(WireError):
            decode(body)
    codes = np.frombuffer(bomb.ljust(100, b"."), np.uint8)
    floats = packed(25, 1, 8, "identity")
    hidden = type(floats)("uniform", 8, 100, 1, codes, np.zeros((100, 2), np.uint16))
    frame = decode(encode(step(activations=hidden)))
    assert isinstance(frame, StepFrame) and frame.activations.codes.tobytes() == codes.tobytes()


def test_a_huge_claim_allocates_nothing() -> None:
    import tracemalloc

    body = rewritten(
        adapter(), lambda h: h["values"].update(shape=[999_999_999], data_offsets=[0, 3_999_999_996])
    )
    tracemalloc.start()
    with pytest.raises(WireError):
        decode(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_keys_in_another_order_are_read_alike() -> None:
    body = rewritten(FULL, lambda header: dict(reversed(header.items())))
    assert flat(decode(body)) == flat(FULL)
    assert isinstance(decode(encode(adapter())), AdapterFrame)
