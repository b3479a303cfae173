"""``[fleet]`` and ``[learn]``. Torch-free."""

from sflam.learn.settings.fleet import FleetSettings
from sflam.learn.settings.learn import LearnSettings

__all__ = ["FleetSettings", "LearnSettings"]
