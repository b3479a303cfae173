"""``report``: a run or a comparison as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sflam.cli import shared
from sflam.errors import ConfigError


@shared.command("sflam report runs/digits-nano-vit-sflam-1", "sflam report runs/compare --out page.html")
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs or comparisons.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page of a single folder; FOLDER/report.html by default.")
    ] = None,
) -> None:
    """Write one self-contained HTML page per run or comparison: it opens from disk and fetches nothing.

    Configuration, tables, plots, a timeline of a round, what each device was given, versions, how to repeat it.
    """
    if out is not None and len(folders) > 1:
        raise ConfigError(f"--out names one page, but {len(folders)} folders are given; leave it out")
    from sflam.report.pages.written import write_page

    for folder in folders:
        shared.remark(f"wrote {write_page(folder, out or folder / 'report.html')}")
