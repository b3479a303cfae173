"""Many devices enrolled at once, each token in a file of its own."""

from __future__ import annotations

from itertools import count as naturals
from itertools import islice
from pathlib import Path

from sflam.errors import ServeError
from sflam.files import reading, replace_file, writing
from sflam.serve.roster import Roster


def enrol_many(roster: Roster, which: int | Path, folder: Path, days: float) -> list[Path]:
    """Enrol devices, all or none; return the files of their tokens, ``NAME.token``.

    Args:
        roster: that they come into.
        which: so many new ones, or those named in a file, a name a line.
        folder: for the files; one that is there is not overwritten, as its device would lose its token.
        days: until the tokens expire.

    Raises:
        ServeError: a name is odd or there twice; a file is there already, or cannot be written.
    """
    names = _new(roster, which) if isinstance(which, int) else _named(which)
    paths = {name: folder / f"{name}.token" for name in names}
    if there := [path.name for path in paths.values() if path.exists()]:
        raise ServeError(
            f"{folder} holds {there[0]} already; give another --out, or delete it to give that device a new token"
        )
    with writing(folder, "give another --out", ServeError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    tokens = roster.enrol_all(names, days)
    with writing(folder, "enrol the same devices again with another --out", ServeError):
        for name, path in paths.items():
            replace_file(path, f"{tokens[name]}\n".encode(), mode=0o600)
    return list(paths.values())


def _new(roster: Roster, count: int) -> list[str]:
    """Return names that no device has."""
    known = roster.entries()
    return list(islice((name for n in naturals(1) if (name := f"device-{n:03d}") not in known), count))


def _named(path: Path) -> list[str]:
    with reading(f"names {path}", "give a text file, a name a line", ServeError):
        raw = path.read_bytes()
    names = [line.strip() for line in raw.decode("utf-8", "replace").splitlines() if line.strip()]
    if not names:
        raise ServeError(f"{path} holds no names; write one a line")
    return names
