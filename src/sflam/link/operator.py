"""What an operator asks of a server: its devices, and one act after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sflam.errors import ServeError
from sflam.link.https_client import Link

PLAIN, NAMED = ("pause", "resume", "close"), ("approve", "drain", "undrain", "kick", "revoke", "unbind")
ACTS = ("list", *PLAIN, "deadline", "cut", "server", *NAMED)
AUTO = "auto"
"""In place of a number of blocks, or of a server: what a device has without orders."""
GIVEN = {
    "cut": ("blocks", "the blocks that they keep"),
    "server": ("server", "the number of their trunk server"),
}


def request_of(act: str, words: Sequence[str]) -> tuple[str, str, dict[str, Any] | None]:
    """Return method, path and JSON of an act.

    Args:
        act: one of ``ACTS``.
        words: what it is about: names of devices, seconds, or nothing.

    Raises:
        ServeError: no such act, or other words than it takes.
    """
    if act not in ACTS:
        raise ServeError(f"no act {act!r}; there are {', '.join(ACTS)}")
    if act in NAMED:
        if not words:
            raise ServeError(f"{act} what? give names of devices; sflam admin SERVER list shows them")
        return "POST", f"/v1/admin/{act}", {"names": list(words)}
    if act == "deadline":
        try:
            (seconds,) = map(float, words)
        except ValueError:
            given = " ".join(words) or "nothing"
            raise ServeError(
                f"deadline takes the seconds that the open round may last from now on, as 600; {given[:40]} was given"
            ) from None
        return "POST", "/v1/admin/deadline", {"seconds": seconds}
    if act in GIVEN:
        key, what = GIVEN[act]
        *names, number = words or [""]
        if not names or not (number == AUTO or (number.isascii() and number.isdigit() and len(number) < 6)):
            raise ServeError(
                f"{act} takes names of devices and then {what}, or auto, as in {act} kitchen-pi 1; "
                f"{' '.join(words)[:40] or 'nothing'} was given"
            )
        return "POST", f"/v1/admin/{act}", {"names": names, key: None if number == AUTO else int(number)}
    if words:
        raise ServeError(f"{act} takes nothing more; {' '.join(words)[:40]} was given")
    return ("GET", "/v1/admin", None) if act == "list" else ("POST", f"/v1/admin/{act}", {})


def ask(link: Link, act: str, words: Sequence[str]) -> dict[str, Any]:
    """Return what a server answers to an act.

    Raises:
        ServeError: as :func:`request_of` and :meth:`Link.call` do, or it answers with something else.
    """
    found = link.json(*request_of(act, words))
    if not isinstance(found, dict) or ("devices" if act == "list" else "done") not in found:
        raise ServeError(f"{link.host}:{link.port} answers {act} with something else; is it an sflam server?")
    return found
