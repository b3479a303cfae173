"""Names that hold escape sequences or markup are shown as they are, by every way to a terminal."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from sflam.cli import shared, user_errors
from sflam.device.cli import main as device
from sflam.errors import ConfigError, DataError
from sflam.printable import printable

NASTY = "\x1b]0;owned\x07\x1b[2J[/red]\u202egnp.exe\r\n\x9b31m"


@given(st.text(st.characters(), max_size=40))
def test_nothing_that_is_obeyed_is_left(text):
    found = printable(text)
    found.encode()  # it can be written
    assert all(letter == "\t" or letter.isprintable() or not letter.isascii() for letter in found)
    assert not set(found) & set("\x1b\x07\r\n\x7f\x9b\u202e\u2028")
    assert printable(found) == found


def test_what_is_harmless_stays():
    assert printable("Käse — 猫 [bold] :smile: \\n") == "Käse — 猫 [bold] :smile: \\n"


def test_tables_and_lines(monkeypatch):
    for console in (shared.stdout, shared.stderr):
        monkeypatch.setattr(console, "_file", io.StringIO())
        monkeypatch.setattr(console, "_width", 200)
    table = Table("class", NASTY)
    table.add_row(NASTY, "[bold]x[/]")
    shared.show(False, table, NASTY)
    shown = shared.stdout.file.getvalue()
    assert "\x1b]0" not in shown and "\x07" not in shown and "\u202e" not in shown
    assert "[/red]" in shown and "[bold]x[/]" in shown


def test_remarks_and_errors(capsys, tmp_path):
    shared.remark(NASTY)
    for error in (DataError(NASTY), ConfigError([NASTY, "x"])):
        try:
            with user_errors():
                raise error
        except SystemExit:
            pass
    device(["http://127.0.0.1:9", "--token-file", str(tmp_path / "\x1b[2Jtoken")])
    shown = capsys.readouterr().err
    assert shown.count("\\x1b") >= 4 and not set(shown) & set("\x1b\x07\u202e\x9b")
