"""Several servers, each with a trunk for its own devices, and the devices that train the whole model themselves.

A device that trains alone runs its embedding and then a trunk of its own from the first block on: what other devices
have on a server. Nothing of it crosses a network but its adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from sflam.learn.aggregate import average_of_servers, weights_of
from sflam.learn.device import Devices
from sflam.learn.frames import Answer, Frame
from sflam.learn.round import SERVER, Batches, each_step, moments_of
from sflam.learn.server import Trunk
from sflam.learn.settings.schedule import Moment
from sflam.learn.steps import Steps
from sflam.model.adapters import State
from sflam.plan import ALL_LOCAL
from sflam.seeds import derive


class Servers:
    """The trunks of a fleet, which answer like one.

    Args:
        trunks: server -> its trunk; ``ALL_LOCAL`` -> the trunks of the devices that train alone, stacked.
        server_of: the server of each device, or ``ALL_LOCAL``.
    """

    def __init__(self, trunks: Mapping[int, Trunk], server_of: Sequence[int]) -> None:
        self.trunks, self.server_of = dict(trunks), tuple(server_of)
        first = next(iter(trunks.values()))
        self.task = first.task
        self.one_by_one = any(trunk.one_by_one for trunk in trunks.values())
        self.turn = (0, 1)

    def trunk_of(self, device: int) -> Trunk:
        """Return the trunk that serves ``device``."""
        return self.trunks[self.server_of[device]]

    @property
    def shared(self) -> bool:
        """Whether one copy serves all devices of a server."""
        return any(trunk.shared for trunk in self.trunks.values())

    def copies(self, devices: Iterable[int]) -> dict[tuple[int, int], int]:
        """Return the (server, copy) that serve ``devices`` -> the first device of each."""
        found: dict[tuple[int, int], int] = {}
        for device in sorted(devices):
            found.setdefault((self.server_of[device], self.trunk_of(device).copy_of(device)), device)
        return found

    def here(self, devices: Iterable[int], mine: Collection[int]) -> list[int]:
        """Return those of a round's ``devices`` whose copies are on this rank: its own, and all of a joint trunk."""
        return [device for device in devices if device in mine or self.trunk_of(device).joint]

    def alone(self, devices: Iterable[int]) -> list[int]:
        """Return those of ``devices`` that train the whole model themselves."""
        return [device for device in devices if self.server_of[device] == ALL_LOCAL]

    def pace(self, moments: Mapping[int, Moment]) -> None:
        """Set the rate of the step that comes, each trunk's by the devices it serves."""
        for server, trunk in self.trunks.items():
            trunk.turn = self.turn
            trunk.pace({d: moment for d, moment in moments.items() if self.server_of[d] == server})

    def expect(self, rows: Mapping[int, int]) -> None:
        """Let the losses of these devices count so many rows, whatever comes; those of others count what comes."""
        for trunk in self.trunks.values():
            trunk.expected = rows

    def step(self, frames: Sequence[Frame], seed: int) -> list[Answer]:
        """Train on one frame per device, each at its own server; see :meth:`sflam.learn.server.Trunk.step`."""
        return self._answers(lambda trunk, *own: trunk.step(*own), frames, seed)

    def differentiate(self, frames: Sequence[Frame], seed: int) -> list[Answer]:
        """Answer as :meth:`step` does, and learn nothing; see :meth:`sflam.learn.server.Trunk.differentiate`."""
        return self._answers(lambda trunk, *own: trunk.differentiate(*own), frames, seed)

    def forward(self, frames: Sequence[Frame], seed: int) -> dict[int, Tensor]:
        """First exchange with labels at home; see :meth:`sflam.learn.server.Trunk.forward`."""
        found: dict[int, Tensor] = {}
        for server, group in self._by_server(frames).items():
            found |= self.trunks[server].forward(group, seed_of(seed, server))
        return found

    def backward(self, gradients: Mapping[int, Tensor]) -> dict[int, Tensor | None]:
        """Second exchange with labels at home; see :meth:`sflam.learn.server.Trunk.backward`."""
        found: dict[int, Tensor | None] = {}
        for server in sorted({self.server_of[device] for device in gradients}):
            own = {device: grad for device, grad in gradients.items() if self.server_of[device] == server}
            found |= self.trunks[server].backward(own)
        return found

    def seat(self, devices: Iterable[int]) -> None:
        """Let the copies of ``devices`` be those that have trained numbers."""
        own: dict[int, list[int]] = {}
        for device in devices:
            own.setdefault(self.server_of[device], []).append(device)
        for server, members in own.items():
            self.trunks[server].seat(members)

    def open(self, devices: Sequence[int], state: State) -> None:
        """Start a round of ``devices``, which have seats, from the global adapters."""
        for trunk in self.trunks.values():
            trunk.open()
        for server in sorted({self.server_of[device] for device in devices}):
            trunk = self.trunks[server]
            for copy in sorted({trunk.copy_of(d) for d in devices if self.server_of[d] == server}):
                trunk.segment.stack.write(copy, state)

    def write(self, device: int, state: State) -> None:
        """Write trained tensors into the copy that serves a device."""
        trunk = self.trunk_of(device)
        trunk.segment.stack.write(trunk.copy_of(device), state)

    def row(self, device: int) -> Tensor:
        """Return the row [P] of the copy that serves a device."""
        trunk = self.trunk_of(device)
        return trunk.segment.stack.row(trunk.copy_of(device))

    def names(self) -> set[str]:
        """Return the names of what any of the trunks trains."""
        return {name for trunk in self.trunks.values() for name in trunk.segment.names()}

    def named(self, device: int, cut: int, row: Tensor) -> State:
        """Return the tensors of a ``row`` that were trained for a device cut at ``cut`` outside its own segment."""
        segment = self.trunk_of(device).segment
        served = segment.stack.named(row)
        return {name: served[name] for name in segment.names(cut, device)}

    def average(self, devices: Sequence[int], states: Sequence[State], samples: Sequence[float]) -> State:
        """Return the average by samples: every server over its devices, then over the servers.

        A device that trains alone counts like a server of its own.
        """
        groups: dict[tuple[int, int], tuple[list[State], list[float]]] = {}
        for device, state, count in zip(devices, states, samples, strict=True):
            server = self.server_of[device]
            own = groups.setdefault((server, device if server == ALL_LOCAL else 0), ([], []))
            own[0].append(state)
            own[1].append(count)
        return average_of_servers([(own, weights_of(counts), sum(counts)) for own, counts in groups.values()])

    def rows(self) -> list[tuple[int, Tensor]]:
        """Return (device, [P] its own trained numbers at its server) wherever a device has a copy of its own."""
        return [
            (device, trunk.segment.stack.row(copy))
            for device in range(len(self.server_of))
            if not (trunk := self.trunk_of(device)).shared
            and trunk.segment.stack.has([copy := trunk.copy_of(device)])
        ]

    def keep_in(self, folder: Path, kept: int) -> None:
        """Keep what is remembered of absent devices in files of a folder."""
        for server, trunk in self.trunks.items():
            name = "alone" if server == ALL_LOCAL else f"server-{server}"
            trunk.keep_in(folder / f"{name}.pages", kept)

    def state(self) -> dict[int, object]:
        """Return the optimisers' states, server by server."""
        return {server: trunk.state() for server, trunk in self.trunks.items()}

    def restore(self, state: Mapping[int, object]) -> None:
        """Put back what :meth:`state` returned; raises ValueError when it is of other servers."""
        if state.keys() != self.trunks.keys():
            raise ValueError("its servers are others")
        for server, trunk in self.trunks.items():
            trunk.restore(state[server])  # type: ignore[arg-type]

    def _answers(
        self, how: Callable[[Trunk, Sequence[Frame], int], list[Answer]], frames: Sequence[Frame], seed: int
    ) -> list[Answer]:
        found: dict[int, Answer] = {}
        for server, group in self._by_server(frames).items():
            answers = how(self.trunks[server], group, seed_of(seed, server))
            found |= {answer.device: answer for answer in answers}
        return [found[frame.device] for frame in frames]

    def _by_server(self, frames: Sequence[Frame]) -> dict[int, list[Frame]]:
        groups: dict[int, list[Frame]] = {}
        for frame in frames:
            groups.setdefault(self.server_of[frame.device], []).append(frame)
        together = {server for server, trunk in self.trunks.items() if trunk.joint}
        return {server: groups.get(server, []) for server in sorted(groups.keys() | together)}


def steps_alone(
    number: int,
    batches: Batches,
    devices: Devices,
    home: Trunk,
    seed: int,
) -> Steps:
    """Run the local steps of the devices that train alone: no body is sent and nothing is quantized.

    Args:
        number: the round.
        batches: device -> its mini-batches, made when their step comes.
        devices: the device halves; those of these devices hold the embedding alone.
        home: the trunks these devices run themselves.
        seed: seed of the run.
    """
    done = Steps(samples=dict.fromkeys(batches, 0))
    for now, at, seeds in each_step(number, batches, seed):
        home.pace(moments_of(at, batches))
        hidden = devices.forward(now, seeds)
        frames = [Frame(d, 0, hidden[d], now[d].lengths, now[d].labels) for d in now]
        for answer in home.step(frames, seed_of(seeds[SERVER], ALL_LOCAL)):
            done.learned(answer.device, answer.loss, len(now[answer.device]))
        done.device_steps += len(now)
    return done


def seed_of(seed: int, server: int) -> int:
    """Return a server's own seed; the first one's is that of a fleet with a single server."""
    return derive(seed, "server", server) if server else seed
