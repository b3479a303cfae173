"""A program that trains several jobs, one after another, on one set of ranks.

python -m tests.run.ranked N FOLDER         # FOLDER/jobs.json: name -> settings; each run goes to FOLDER/name
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import sflam
from sflam.run.ranks import together
from sflam.run.start import start


def main(ranks: int, folder: Path) -> None:
    """Train every job of a folder."""
    torch.set_num_threads(1)
    jobs = json.loads((folder / "jobs.json").read_text())
    with together(ranks) as world:
        for name, settings in jobs.items():
            run = start(sflam.load(None, settings), folder / name, world=world)
            list(run.rounds())
            run.finish()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
