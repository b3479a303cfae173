"""From a folder to its page on disk, and to figures and tables beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sflam.errors import RunError
from sflam.files import replace_file, writing
from sflam.records.run_folder import RunFolder
from sflam.records.saved import SAVED, is_comparison, read_comparison, read_run
from sflam.report.export import export_comparison, export_run, export_together
from sflam.report.pages.comparison import comparison_page
from sflam.report.pages.run import run_page
from sflam.report.pages.together import together_page
from sflam.report.together import read_together


def write_page(folder: Path, path: Path, figures: Path | None = None, width: str = "") -> Path:
    """Write the page of a run or a comparison to ``path``, and return it.

    Args:
        folder: of the run or the comparison.
        path: of the page.
        figures: a folder for its figures and tables as files; None writes none.
        width: of these figures; see ``sflam.draw_accuracy``.

    Raises:
        RunError: the folder holds neither, or a comparison that has not finished, or one that cannot be read, or
            something cannot be written.
        ConfigError: there is no such width.
    """
    if is_comparison(folder):
        comparison = read_comparison(folder)
        text = comparison_page(comparison)
        if figures is not None:
            export_comparison(comparison, figures, width)
    elif RunFolder(folder).config.is_file():
        run = read_run(folder, unfinished=True)
        text = run_page(run)
        if figures is not None:
            export_run(run, figures, width)
    else:
        raise RunError(
            f"{folder} holds neither a run (config.toml) nor a finished comparison ({SAVED}); give the folder that "
            "sflam train, simulate or compare wrote"
        )
    return _write(path, text)


def write_together(
    folders: Sequence[Path], labels: Sequence[str], path: Path, figures: Path | None = None, width: str = ""
) -> Path:
    """Write the page of some finished runs side by side to ``path``, and return it; else as :func:`write_page`.

    Args:
        folders: of the runs.
        labels: one for each; empty takes the folders' names.
        path: of the page.
        figures: a folder for figures and tables as files; None writes none.
        width: of these figures.

    Raises:
        SflamError: a folder holds no finished run, there are not as many labels, or something cannot be written.
    """
    found = read_together(folders, labels)
    text = together_page(found)
    if figures is not None:
        export_together(found, figures, width)
    return _write(path, text)


def _write(path: Path, text: str) -> Path:
    with writing(path, "choose another with --out"):
        replace_file(path, text.encode())
    return path
