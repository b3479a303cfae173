"""Rewrite docs/reference/files.md: every module with the first line of its docstring. Run it after adding a file."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARK = "<!-- tree -->\n"


def described(path: Path) -> str:
    """Return the first sentence line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].rstrip(".") if text else ""


def tree(package: Path) -> str:
    """Return the modules of a package as an indented list, rooms after files."""
    return "\n".join([f"src/{package.name}/", *_lines(package, "  ")])


def _lines(room: Path, indent: str) -> list[str]:
    files = sorted(path for path in room.glob("*.py") if path.name != "__init__.py")
    lines = [f"{indent}{path.name:<{22 - len(indent)}} {described(path)}" for path in files]
    for inner in sorted(path for path in room.iterdir() if (path / "__init__.py").exists()):
        lines += [f"{indent}{inner.name}/", *_lines(inner, indent + "  ")]
    return lines


def main() -> None:
    """Replace the fenced block after the mark."""
    page = ROOT / "docs" / "reference" / "files.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARK)
    after = rest.partition("```text\n")[2].partition("```\n")[2]
    block = f"{MARK}```text\n{tree(ROOT / 'src' / 'sflam')}\n```\n"
    page.write_text(before + block + after, encoding="utf-8")


if __name__ == "__main__":
    main()
