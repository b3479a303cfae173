"""sflam: fine-tune large transformers on devices that could never hold them."""

from __future__ import annotations

__version__ = "0.1.0"
