"""Parts of the model that are each device's own: trained, never sent, never averaged.

``head`` keeps what is trained after the blocks at home (FedPer, Arivazhagan et al., arXiv 1912.00818); ``device-half``
what is trained before the cut, and, with labels at home, the head too (local representations: LG-FedAvg, Liang et al.,
arXiv 2001.01523; adapters as the personal part of a model: Pillutla et al., arXiv 2204.03809).

The global adapters keep the start values of these tensors. A device that has not trained yet begins with those.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch

from sflam.errors import ConfigError
from sflam.learn.evaluate import Score, mean_score
from sflam.model.adapters import State
from sflam.model.lower_rank import A_ENDS, B_ENDS

NOTHING = {
    "head": (
        'learn.personal is "head", but no head of this model is trained; set model.trainable = "lora+head", or '
        'learn.personal = "none"'
    ),
    "device-half": (
        'learn.personal is "device-half", but devices train nothing before the cut; set model.cut to 1 or more, or '
        'learn.personal = "none"'
    ),
}


class PersonalParts:
    """What each device of a fleet keeps for itself.

    Args:
        kind: ``learn.personal``.
        names: of the tensors that are personal; none for ``none``.
        start: the global adapters at the start, from which every device begins.

    Raises:
        ConfigError: a kind that names nothing in this fleet.
    """

    def __init__(self, kind: str, names: Iterable[str], start: State) -> None:
        self.start = {name: start[name] for name in names}
        if kind != "none" and not self.start:
            raise ConfigError(NOTHING[kind])
        self.own: dict[int, State] = {}

    @classmethod
    def among(cls, kind: str, start: State, trained: Collection[str], half: Iterable[str]) -> PersonalParts:
        """Return those of a fleet.

        Args:
            kind: ``learn.personal``.
            start: the global adapters at the start.
            trained: names of what is trained on either side.
            half: those of the devices' side.
        """
        names = {"none": [], "head": head_of(n for n in start if n in trained), "device-half": half}
        return cls(kind, names[kind], start)

    def __bool__(self) -> bool:
        return bool(self.start)

    def shared(self, names: Iterable[str]) -> list[str]:
        """Return those of ``names`` that travel and are averaged."""
        return [name for name in names if name not in self.start]

    def of(self, device: int) -> State:
        """Return the personal tensors of a device: its own, or the start values before it has trained."""
        return self.own.get(device, self.start)

    def keep(self, device: int, state: Mapping[str, torch.Tensor]) -> None:
        """Keep the personal tensors of what a device trained."""
        if self.start:
            self.own[device] = {name: state[name].clone() for name in self.start}

    def score(self, devices: int, state: State, evaluate: Callable[[State], Score]) -> Score:
        """Return the mean over all devices of what each one's own model scores: the global adapters with its parts."""
        if not self.start:
            return evaluate(state)
        found = {device: evaluate(state | parts) for device, parts in self.own.items()}
        if len(found) < devices:  # one model for all that never trained
            found = dict.fromkeys(range(devices), evaluate(state)) | found
        return mean_score([found[device] for device in range(devices)])

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds; empty where nothing is personal."""
        return {"personal": dict(self.own)} if self.start else {}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned; raises ValueError when it is of other tensors."""
        for device, parts in state.get("personal", {}).items():
            if {n: t.shape for n, t in parts.items()} != {n: t.shape for n, t in self.start.items()}:
                raise ValueError("its personal parts have other names or shapes")
            self.own[device] = {name: parts[name].to(tensor) for name, tensor in self.start.items()}


def head_of(names: Iterable[str]) -> list[str]:
    """Return the trained tensors after the blocks: all that are no factors of an adapter, which only blocks have."""
    return [name for name in names if not name.endswith((A_ENDS, B_ENDS))]


def travelling(state: State, kind: str) -> State:
    """Return the trained tensors of the whole model that are sent by a device that holds all of it."""
    return state if kind != "head" else {n: t for n, t in state.items() if n.endswith((A_ENDS, B_ENDS))}
