"""Rewrite docs/reference/settings.md and combinations.md from the settings and the rules. Run it after changing one."""

from __future__ import annotations

from pathlib import Path

from sflam.run.compatibility import RULES
from sflam.run.conditions import ALL
from sflam.template import reference

PAGES = Path(__file__).parents[1] / "docs" / "reference"
HEAD = """# Settings that do not go together

Every rule about several settings, or about a setting and a command. A job that breaks one is refused, and the message
names the keys, the reason and the fix. This page is written by `scripts/settings.py` from `run/compatibility.py`.

| rule | commands | why | what to do |
|---|---|---|---|
"""


def combinations() -> str:
    """Return the rules as a Markdown page."""
    rows = []
    for rule in RULES:
        commands = "all" if set(rule.commands) == set(ALL) else ", ".join(rule.commands)
        why, fix = (text.replace("|", "\\|") for text in (rule.why, rule.fix))
        rows.append(f"| {rule.name} | {commands} | {why} | {fix} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    (PAGES / "settings.md").write_text(reference(), encoding="utf-8")
    (PAGES / "combinations.md").write_text(combinations(), encoding="utf-8")
