"""Files are whole or absent; JSON of anyone is values or a ValueError."""

from __future__ import annotations

import os

import pytest

from sflam.files import from_json, replace_file


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "{", b"\xff", bytearray(b"[1")])
def test_json_that_cannot_be_read_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        from_json(text)


def test_json_that_can_be_read():
    assert from_json('{"a": [1, 2.5, null]}') == from_json(b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}


def test_a_file_is_replaced_whole_or_stays(tmp_path, monkeypatch):
    path = tmp_path / "file"
    replace_file(path, b"first")

    def refuse(*arguments):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="no space"):
        replace_file(path, b"second")
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["file"]
