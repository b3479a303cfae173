"""A model's tokenizer by its ``tokenizer.json`` alone, through the ``tokenizers`` library: the ids of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sflam.errors import DataError
from sflam.files import from_json

UNLIMITED = 10**9
"""Tokenizers without a limit report a number far above this."""


class TokenizerFile:
    """The tokenizer in a folder with ``tokenizer.json``, ``tokenizer_config.json`` and the model's ``config.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: Any = None

    @property
    def loaded(self) -> Any:
        """The tokenizer; raises DataError where there is none, or the library is missing."""
        if self._loaded is None:
            path = self.folder / "tokenizer.json"
            if not path.is_file():
                raise DataError(
                    "the server gives no tokenizer.json, so texts cannot become the model's token ids here; give token "
                    "ids in an .npz"
                )
            try:
                from tokenizers import Tokenizer
            except ImportError as error:
                raise DataError(
                    "texts need the tokenizers library; pip install 'sflam[device-text]', or give token ids in an .npz"
                ) from error
            try:
                self._loaded = Tokenizer.from_file(str(path))
            except Exception as error:  # the library raises bare exceptions
                raise DataError(f"{path}: not a tokenizer that can be read ({error}); join again") from error
            self._loaded.no_padding()
        return self._loaded

    def encode(self, texts: list[str], limit: int) -> list[list[int]]:
        """Return the token ids of each text, special tokens included, cut to ``limit`` unless that is 0.

        Raises:
            DataError: there is no tokenizer, or it cannot cut to so few tokens.
        """
        if not texts:
            return []
        try:
            if limit:
                side = self._config("tokenizer_config.json").get("truncation_side", "right")
                self.loaded.enable_truncation(limit, direction=side)
            else:
                self.loaded.no_truncation()
            return [list(row.ids) for row in self.loaded.encode_batch(texts)]
        except DataError:
            raise
        except BaseException as error:  # its panics are no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"the server's tokenizer fails ({reason}); raise data.max_tokens") from error

    def longest(self) -> int:
        """Return the most tokens the model sees, 0 when nothing limits them."""
        config = self._config("config.json")
        positions = int(config.get("max_position_embeddings") or 0)
        if positions and config.get("model_type") == "roberta":  # its positions begin after the padding id
            positions -= int(config.get("pad_token_id") or 0) + 1
        own = int(self._config("tokenizer_config.json").get("model_max_length") or UNLIMITED)
        return min((limit for limit in (positions, own) if 0 < limit < UNLIMITED), default=0)

    def _config(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            found = from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path}: not JSON ({error}); join again") from error
        return found if isinstance(found, dict) else {}
