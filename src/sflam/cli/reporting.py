"""``report``: a run or a comparison as one page, runs side by side, and their figures and tables as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sflam.cli import shared
from sflam.errors import ConfigError


@shared.command(
    "sflam report runs/digits-nano-vit-sflam-1",
    "sflam report runs/compare --out page.html --figures figures --width ieee-1",
    "sflam report runs/a runs/b runs/mine --together --labels sflam,fedlora,mine",
)
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, also unfinished ones, or comparisons."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The page; FOLDER/report.html, or together.html with --together, by default."),
    ] = None,
    together: Annotated[bool, typer.Option("--together", help="All runs side by side on one page.")] = False,
    labels: Annotated[
        str | None, typer.Option(help="Names of the runs, by commas; runs of one name are its seeds.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="Also write figures (PNG, PDF, SVG, CSV) and tables (LaTeX, Markdown, CSV) here."),
    ] = None,
    width: Annotated[
        str, typer.Option(help="Of these figures: ieee-1 or ieee-2, one and two columns of a paper.")
    ] = "",
) -> None:
    """Write one self-contained HTML page per run or comparison: it opens from disk and fetches nothing.

    Configuration, tables, plots, a timeline of a round, what each device was given, versions, how to repeat it.
    """
    if labels is not None and not together:
        raise ConfigError("--labels names runs side by side; add --together, or leave it out")
    if width and figures is None:
        raise ConfigError(
            "--width is of the figures that --figures FOLDER writes; add it, or leave --width out"
        )
    if not together and len(folders) > 1 and (out is not None or figures is not None):
        named = "--out names one page" if out is not None else "--figures names one folder"
        raise ConfigError(f"{named}, but {len(folders)} folders are given; leave it out, or add --together")
    from sflam.report.pages.written import write_page, write_together

    if together:
        names = [] if labels is None else [label.strip() for label in labels.split(",")]
        path = out or Path("together.html")
        shared.remark(f"wrote {write_together(folders, names, path, figures, width)}")
    else:
        for folder in folders:
            path = out or folder / "report.html"
            shared.remark(f"wrote {write_page(folder, path, figures, width)}")
    if figures is not None:
        shared.remark(f"wrote figures and tables to {figures}")
