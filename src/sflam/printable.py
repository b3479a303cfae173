"""Words of others on a terminal: class names, file names and a server's messages are shown, never obeyed."""

from __future__ import annotations

import re

OBEYED = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f"  # controls, escape sequences among them; a tab is harmless
    "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"  # what turns the direction of a line, or ends it
    "\ud800-\udfff]"  # halves of a character, which cannot be written
)


def printable(text: str) -> str:
    """Return one line with everything that a terminal would obey spelled out, as ``\\x1b``."""
    return OBEYED.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)
