"""Put the claims of a finished study into the page of the papers: python scripts/paper_claims.py [FOLDER]

FOLDER is what ``sflam study configs/sflam/study.toml`` wrote, runs/study-twin by default; nothing is run.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "explanation" / "paper.md"
BLOCK = re.compile(r"(<!-- claims -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def shown_claims() -> list[list[str]]:
    """Return the rows that the page shows, cell by cell."""
    found = BLOCK.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None, f"{PAGE} has no block of claims"
    lines = [line for line in found[2].splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def main() -> None:
    """Rewrite the block."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else Path("runs/study-twin")
    table = (folder / "claims.md").read_text(encoding="utf-8").replace("|---:" * 4 + "|", "|---" * 4 + "|")
    table = re.sub(r"^\|---\|(?:---:?\|)+$", "|---|---|---:|---|---|", table, flags=re.MULTILINE)
    text = PAGE.read_text(encoding="utf-8")
    assert BLOCK.search(text), f"{PAGE} has no block of claims"
    PAGE.write_text(BLOCK.sub(lambda found: f"{found[1]}{table}{found[3]}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
