"""From a folder to its page on disk."""

from __future__ import annotations

from pathlib import Path

from sflam.errors import RunError
from sflam.files import replace_file, writing
from sflam.records.run_folder import RunFolder
from sflam.records.saved import SAVED, is_comparison, read_comparison, read_run
from sflam.report.pages.comparison import comparison_page
from sflam.report.pages.run import run_page


def write_page(folder: Path, path: Path) -> Path:
    """Write the page of a run or a comparison to ``path``, and return it.

    Raises:
        RunError: the folder holds neither, or one that has not finished or cannot be read, or the page cannot be
            written.
    """
    if is_comparison(folder):
        text = comparison_page(read_comparison(folder))
    elif RunFolder(folder).config.is_file():
        text = run_page(read_run(folder))
    else:
        raise RunError(
            f"{folder} holds neither a run (config.toml) nor a finished comparison ({SAVED}); give the folder that "
            "sflam train, simulate or compare wrote"
        )
    with writing(path, "choose another with --out"):
        replace_file(path, text.encode())
    return path
