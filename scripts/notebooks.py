"""Make docs/notebooks/*.ipynb: run the cells of the .py files beside them, and keep what they show. Takes two minutes.

A cell begins with ``# %%``, a text with ``# %% [markdown]``. The same cells make the same file, but for what
depends on the machine.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
BEGIN = re.compile(r"^# %%(.*)$", re.MULTILINE)
QUIET = {"PYTHONWARNINGS": "ignore:IProgress", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
SECONDS = 600


def cells_of(text: str) -> list[NotebookNode]:
    """Return the cells of a .py file, none of them run."""
    _, *parts = BEGIN.split(text)
    found = []
    for number, (kind, body) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        if "[markdown]" in kind:
            lines = (line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines())
            cell = nbformat.v4.new_markdown_cell("\n".join(lines))
        else:
            cell = nbformat.v4.new_code_cell(body.strip())
        cell["id"] = f"cell-{number}"
        found.append(cell)
    return found


def executed(source: Path) -> NotebookNode:
    """Return the notebook of a .py file with what its cells show, run in an empty folder."""
    book = nbformat.v4.new_notebook(cells=cells_of(source.read_text(encoding="utf-8")))
    before = dict(os.environ)
    os.environ.update(QUIET)
    try:
        with tempfile.TemporaryDirectory() as folder:
            client = NotebookClient(book, timeout=SECONDS, resources={"metadata": {"path": folder}})
            client.execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    for cell in book.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = {}
    book.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return book


def main() -> None:
    """Write every notebook."""
    for source in sorted(FOLDER.glob("*.py")):
        nbformat.write(executed(source), source.with_suffix(".ipynb"))
        print(f"wrote {source.with_suffix('.ipynb').name}")


if __name__ == "__main__":
    main()
