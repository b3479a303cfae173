"""Rewrite docs/reference/settings.md from the settings dataclasses. Run it after changing a key."""

from __future__ import annotations

from pathlib import Path

from sflam.template import reference

if __name__ == "__main__":
    (Path(__file__).parents[1] / "docs" / "reference" / "settings.md").write_text(
        reference(), encoding="utf-8"
    )
