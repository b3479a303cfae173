"""Rewrite the table of kinds in docs/reference/protocol.md. Run it after changing src/sflam/graph/operations.py."""

from __future__ import annotations

from pathlib import Path

from sflam.graph.operations import KINDS

PAGE = Path(__file__).parents[1] / "docs/reference/protocol.md"
BEGIN, END = "<!-- kinds -->\n", "<!-- end of kinds -->\n"


def table() -> str:
    """Return the kinds as a Markdown table."""
    lines = ["| kind | inputs | attributes | computes |", "|---|---|---|---|"]
    for name, row in KINDS.items():
        most = row.most or row.least
        inputs = str(row.least) if most == row.least else f"{row.least}..{most}"
        attributes = ", ".join(f"`{key}`: {form}" for key, form in row.attributes.items())
        lines.append(f"| `{name}` | {inputs} | {attributes} | {row.computes.replace('|', 'or')} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """Return the page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
