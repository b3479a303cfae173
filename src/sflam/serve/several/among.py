"""A job among the others of its process: what is the job's own, and what all of them share."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from sflam.printable import printable
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.peers import WrongTokens
from sflam.serve.several.turns import Turns


@dataclass
class Process:
    """What the jobs of a process share.

    Attributes:
        turns: whose turn it is to compute.
        wrong_tokens: how many an address may try, at whichever job.
        bodies: the bodies in flight of every job; ``--memory`` bounds them together.
        devices: how many the jobs so far have together.
    """

    turns: Turns = field(default_factory=Turns)
    wrong_tokens: WrongTokens = field(default_factory=WrongTokens)
    bodies: list[Bounds] = field(default_factory=list)
    devices: int = 0


@dataclass(frozen=True)
class Among:
    """One job of a process.

    Attributes:
        name: of the job.
        process: what it shares with the others.
    """

    name: str
    process: Process

    def notify(self, line: str) -> None:
        """Show a line about the job to the user of the server."""
        print(printable(f"{self.name}: {line}"), file=sys.stderr, flush=True)

    def share(self, ingress: Ingress) -> None:
        """Let the job's requests, and what it computes, be bounded with the others'."""
        process = self.process
        ingress.wrong_tokens = process.wrong_tokens
        process.bodies.append(ingress.bounds)
        ingress.bounds.together = process.bodies
        ingress.first, process.devices = process.devices, process.devices + len(ingress.contracts)
        ingress.dispatch.away = process.turns.others
