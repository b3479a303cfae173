"""A fleet in one process: every device simulated, stacked, with real bytes between the halves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor

from sflam.codec.guard import Guard
from sflam.cost.memory import FleetMemory
from sflam.cost.training import Step
from sflam.data.sampling import most_rows
from sflam.learn.activation_cache import expect_frozen, unkept
from sflam.learn.adapter_exchange import AdapterCodec
from sflam.learn.averaging import Averaged, Averaging
from sflam.learn.carried_moments import lent_moments, take_moments
from sflam.learn.counted_memory import split_memory
from sflam.learn.delta import DeltaExchange
from sflam.learn.device import Devices
from sflam.learn.device_ranks import DeviceRanks
from sflam.learn.drawing import drawn_for
from sflam.learn.edge_servers import Servers, steps_alone
from sflam.learn.evaluate import Score
from sflam.learn.examples import Examples
from sflam.learn.exchange_kinds import exchange_of
from sflam.learn.fleet import Fleet
from sflam.learn.halves import expect_trained, follow, halves, most_numbers, weigh
from sflam.learn.kept_memory import with_kept, with_personal
from sflam.learn.local.registry import local_rule
from sflam.learn.personal import PersonalParts
from sflam.learn.residual import Corrections
from sflam.learn.round import Passes, local_steps
from sflam.learn.selection import Chances, chances_of, select_devices
from sflam.learn.settings import FleetSettings, LearnSettings
from sflam.learn.steps import Average, Steps
from sflam.learn.u_shape import local_steps_at_home
from sflam.learn.weighting import expected_rows, weighting_of
from sflam.learn.world.world import ALONE, World
from sflam.model.adapters import State, adapted_layers, state_of
from sflam.model.backbone import Backbone
from sflam.plan import ALL_LOCAL, Placement, overlay


class LocalFleet(Fleet):
    """Devices and server in one process; see :class:`sflam.learn.fleet.Fleet`.

    Args:
        backbone: the model, adapted in place by ``model``.
        model: its peft wrapper.
        examples: the training samples of all devices.
        parts: the samples of each device, int64 [n_k].
        placements: cut, server and bits of every device.
        settings: who takes part.
        learn: how a round is run.
        scheme: the quantizer of what crosses the cut.
        seed: seed of the run.
        labels: where head and loss live: ``server`` or ``device``.
        sampling: ``data.sampling``.
        delta: ``quant.delta``.
        adapters: how adapters go up; as floats by default.
        guard: what devices do to what crosses the cut, before it is encoded.
        world: the ranks that train together; of each round a rank runs devices of its own.

    Raises:
        ModelError: a cut outside 0..L.
        ConfigError: nothing is left to train.
    """

    devices: Devices
    servers: Servers

    def __init__(
        self,
        backbone: Backbone,
        model: PeftModel,
        examples: Examples,
        parts: Sequence[NDArray[Any]],
        *,
        placements: Sequence[Placement],
        settings: FleetSettings,
        learn: LearnSettings,
        scheme: str,
        seed: int,
        labels: str = "server",
        sampling: str = "local",
        delta: bool = False,
        adapters: AdapterCodec | None = None,
        guard: Guard | None = None,
        world: World = ALONE,
    ) -> None:
        self.world = world
        self.settings, self.learn, self.seed, self.labels = settings, learn, seed, labels
        self.sampling = sampling
        self.examples, self.parts = examples, parts
        self.backbone, self.model = backbone, model
        self.exchange = exchange_of(scheme, seed, backbone.task, delta=delta, cache=learn.cache, guard=guard)
        self.ranks = DeviceRanks(settings.ranks)
        self.adapters = adapters or AdapterCodec()
        self.placements: tuple[Placement, ...] = ()
        self.rule = local_rule(learn, sampling, examples, dict(enumerate(parts)))
        self._home = [placement.cut for placement in placements]
        self.place(placements)
        expect_frozen(learn.cache, self.devices.segment, self.devices.cuts)
        self.corrections = Corrections(adapted_layers(model), self._holds)
        trained = {*self.devices.segment.names(), *self.servers.names()}
        expect_trained(trained, learn)
        start = state_of(model)
        self.personal = PersonalParts.among(learn.personal, start, trained, self.devices.segment.names())
        self.averaging = Averaging(learn, sampling, factors=bool(self.corrections.state()))
        self._start: State = {}
        self._follow()

    def select(self, round: int) -> tuple[int, ...]:
        """Return the devices of a round."""
        return select_devices(self.settings, self.seed, round, self.counted_samples(round))

    def place(self, placements: Sequence[Placement]) -> None:
        """Give devices other cuts, servers and bits, between rounds; devices that are not listed stay as they are.

        Where a cut, a server or what is tuned changes, everything starts anew but the global adapters and, with
        ``learn.state = "keep"``, the momenta of copies that train what they did; see :mod:`carried_moments`.
        """
        before, self.placements = self.placements, overlay(self.placements, placements)
        where = attrgetter("cut", "server", "tuned")
        if list(map(where, before)) != list(map(where, self.placements)):
            assert not before or (self.learn.cache == "off" and not isinstance(self.exchange, DeltaExchange))
            lent = lent_moments(self.devices, self.servers) if before else {}
            self.devices, self.servers = halves(
                self.backbone,
                self.model,
                self.placements,
                self.learn,
                labels=self.labels,
                sampling=self.sampling,
                ranks=self.ranks,
                seats=self.seats(),
                world=self.world,
            )
            self.devices.protect(self.exchange.guard, self.backbone.task)
            if before:
                take_moments(lent, self.devices, self.servers)
                self.exchange.remember({})
                self._follow()
        self.exchange = self.exchange.with_bits(
            {placement.device: placement.bits for placement in self.placements}
        )

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Start both halves of the devices from the global adapters; return the bytes sent to devices."""
        self._start = state
        mine = self.mine(round, devices)
        there = self.servers.here(devices, mine)
        self.devices.seat(mine)
        self.servers.seat(there)
        self.rule.begin(state)
        self.devices.open()
        self.servers.open(there, state)
        sent = 0
        for device in mine:
            names = self.personal.shared(self.devices.names(device))
            received, size = self.ranks.transfer(round, device, 0, state, names, self.adapters)
            self.devices.segment.stack.write(device, received)
            sent += size
        for device in there if self.personal else ():
            own = self.personal.of(device)
            if device in mine:
                self.devices.segment.stack.write(device, own)
            self.servers.write(device, own)
        for device in self.servers.alone(there):
            home = self.servers.trunk_of(device)
            names = self.personal.shared(home.segment.names(0, device))
            received, size = self.ranks.transfer(round, device, 0, state, names)
            home.segment.stack.write(home.copy_of(device), received)
            sent += size if device in mine else 0
        return sent + sum(self._beside(round, {device: self.rule.down(device) for device in mine}))

    def mine(self, round: int, devices: Sequence[int]) -> list[int]:
        """Return the devices of a round that are run on this rank."""
        return self.world.mine(
            devices, lambda: {d: sum(map(len, own)) for d, own in self.drawn(round, devices).items()}
        )

    def seat(self, devices: Sequence[int]) -> None:
        """Let ``devices`` be those whose trained numbers are held: a round's, or any that are looked at."""
        self.devices.seat(devices)
        self.servers.seat(devices)

    def seats(self) -> int:
        """Return how many devices have trained numbers at once; 0 for all."""
        return self.settings.asked

    def put(self, device: int, state: State) -> None:
        """Write trained tensors into both halves of a device, its copy of the server's included."""
        self.devices.segment.stack.write(device, state)
        self.servers.write(device, state)

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Run every local step of the devices' round; on one of several ranks, of its own devices."""
        mine = set(self.mine(round, devices))
        batches = {
            device: [partial(self.examples.take, i) if len(i) and device in mine else None for i in own]
            for device, own in self.drawn(round, devices).items()
        }
        self.weigh(devices, self.counted_samples(round))
        alone = {device: batches.pop(device) for device in self.servers.alone(devices)}
        at_home = partial(local_steps_at_home, silent=self.silent(round))
        run = at_home if self.labels == "device" else local_steps
        steps = run(round, batches, self.devices, self.servers, self.exchange, self.passes(round))
        if alone:
            home = self.servers.trunks[ALL_LOCAL]
            steps.add(steps_alone(round, alone, self.devices, home, self.seed))
        return steps

    def passes(self, round: int) -> Passes:
        """Return who takes which step of a round, in order; empty where every device takes its own."""
        return ()

    def silent(self, round: int) -> Mapping[int, int]:
        """Return device -> the step in the middle of which it stays away from the round, with labels at home."""
        return {}

    def counted_samples(self, round: int) -> dict[int, int]:
        """Return device -> n_k of those whose samples count in the weights of a round."""
        return {device: len(part) for device, part in enumerate(self.parts)}

    def unkept(self, round: int, devices: Sequence[int]) -> dict[int, int]:
        """Return the samples of the devices' round whose activations are still to be made (``learn.cache``)."""
        return unkept(self.drawn(round, devices), self.exchange, self.devices.kept)

    def drawn(self, round: int, devices: Sequence[int]) -> dict[int, list[NDArray[Any]]]:
        """Return the samples of each mini-batch of the devices' round."""
        parts = {device: self.parts[device] for device in devices}
        return drawn_for(self.learn, self.examples, self.sampling, parts, self.seed, round)

    def weigh(self, devices: Sequence[int], samples: Mapping[int, int]) -> None:
        """Weight the devices of a round at their servers.

        Args:
            devices: those of the round.
            samples: device -> n_k, of all devices.
        """
        chance, how = chances_of(self.settings, samples), partial(weighting_of, self.learn, self.sampling)
        weigh(self.devices, self.servers, devices, samples, how, chance)
        rows = expected_rows(self.learn, self.sampling, samples)
        self.servers.expect(rows)
        self.devices.expect(rows)

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the sample-weighted average; a block counts on whichever side each device trained it."""
        return self.averaged_over(round, devices, steps, self.rows(devices))

    def rows(self, devices: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """Return device -> the rows [P] of what was trained: its own, and its server's for it."""
        stack = self.devices.segment.stack
        return {device: (stack.row(device), self.servers.row(device)) for device in devices}

    def averaged_over(
        self, round: int, devices: Sequence[int], steps: Steps, rows: Mapping[int, tuple[Tensor, Tensor]]
    ) -> Average:
        """Return the average of the ``rows`` of a round, as :meth:`rows` gives them."""
        held = {device: len(self.parts[device]) for device in devices}
        states, sent = self.collected(round, devices, steps, rows)
        self.adapters.follow(states, self._start, self.devices.names)
        self.ranks.keep_untouched(states, self._start, self.limited)
        drawn = chances_of(self.settings, self.counted_samples(round))
        found = self.averaged(self._start, states, steps.samples, held, drawn)
        return self.concluded(round, found, tuple(devices), sent)

    def concluded(self, round: int, found: Averaged, devices: Sequence[int], sent: int) -> Average:
        """Return what comes of an average; its residuals are added to the frozen weights, also those of ``devices``."""
        residual = self.corrections.add(round, devices, found.residual) if found.residual else 0
        return Average(found.state, found.error, sent, residual, moved=found.moved)

    def collected(
        self, round: int, devices: Sequence[int], steps: Steps, rows: Mapping[int, tuple[Tensor, Tensor]]
    ) -> tuple[dict[int, State], int]:
        """Return what each device trained in both halves, as it arrives, and the bytes that devices sent for it."""
        states, sent = dict[int, State](), 0
        for device in devices:
            cut, samples = self.devices.cuts[device], steps.samples[device]
            own_row, served_row = rows[device]
            served = self.servers.named(device, cut, served_row)
            alone = self.placements[device].alone
            own = served if alone else self.devices.segment.stack.named(own_row)
            names = list(served) if alone else self.devices.names(device)
            self.personal.keep(device, own | served)
            which = self.personal.shared(names)
            received, size = self.ranks.upload(self.adapters, round, device, samples, own, self._start, which)
            beside = [] if alone else self.personal.shared(served)
            states[device] = received | {name: served[name] for name in beside}
            sent += size
        return states, sent + sum(self._beside(round, self.rule.end(devices)))

    def limited(self, device: int, name: str) -> bool:
        """Whether what a device trained under ``name`` has the device's rank, and not a shared trunk's."""
        own = self.devices.segment.holds(name, self.devices.cuts[device], device)
        return own or not self.servers.trunk_of(device).shared

    def averaged(
        self,
        start: State,
        states: Mapping[int, State],
        trained: Mapping[int, int],
        held: Mapping[int, int],
        chance: Chances,
    ) -> Averaged:
        """Return the outcome of a round, every server's devices averaged first; see :class:`Averaging`."""
        mean = partial(self.servers.average, tuple(states))
        return self.averaging(start, states, trained, held, chance, mean)

    def _beside(self, round: int, sent: Mapping[int, State]) -> Iterator[int]:
        """Yield the bytes of what each device sends or receives beside its adapters: of the names that it holds."""
        for device, state in sent.items():
            names = self.personal.shared(name for name in state if self._holds(device, name))
            if names:
                yield self.ranks.transfer(round, device, 0, state, names)[1]

    def score(self, state: State, evaluate: Callable[[State], Score]) -> Score:
        """Return how good the global adapters are, or the mean over the models that devices make of them."""
        return self.personal.score(len(self.parts), state, evaluate)

    def own_parts(self) -> Mapping[int, State]:
        """Return the personal parts of each device that has trained."""
        return self.personal.own

    def _follow(self) -> None:
        """Let the rule for the devices' own learning act on what is theirs and travels."""
        follow(self.rule, self.devices, self.servers, self.personal.shared)

    def _holds(self, device: int, name: str) -> bool:
        """Whether what has this name is on a device's side."""
        alone, cut = self.servers.server_of[device] == ALL_LOCAL, self.devices.cuts[device]
        return alone or self.devices.segment.holds(name, cut, device)

    def diverged(self) -> list[int]:
        """Return the devices whose adapters, or the server's own copy of them, hold NaN or infinity."""
        stack = self.devices.segment.stack
        rows = [*((device, stack.row(device)) for device in stack.seated), *self.servers.rows()]
        return sorted({device for device, values in rows if not values.isfinite().all()})

    def numbers(self) -> int:
        """Return the numbers, frozen and trained, of the device that holds most."""
        return most_numbers(self.devices, self.servers)

    def memory(self, step: Step) -> FleetMemory:
        """Return what its machines need for a training step."""
        selected, held = self.settings.asked, [len(part) for part in self.parts]
        rows = most_rows(held, step.training.batch, selected, self.sampling)
        need = split_memory(self.backbone.model, self.devices, self.servers, selected, step, rows)
        samples = [self.examples.tokens(part, step.tokens) for part in self.parts]
        need = with_kept(need, self.exchange, self.learn.cache, self.placements, samples, step)
        served = self.learn.personal == "head" and self.labels == "server"
        return with_personal(need, self.personal, len(self.parts), served=served)

    def keep_in(self, folder: Path, kept: int) -> None:
        """Keep what is remembered of absent devices in files of a folder; see :class:`sflam.learn.moments`."""
        self.devices.keep_in(folder / "devices.pages", kept)
        self.servers.keep_in(folder, kept)

    def state(self) -> dict[str, Any]:
        """Return what, beside the global adapters, must survive a crash between rounds."""
        kept = self.personal.state()
        if self.learn.practice.aggregation == "residual":
            kept["frozen"] = self.corrections.state()
        kept |= self.averaging.state() | self.adapters.state()
        if rule := self.rule.state():
            kept["local"] = rule
        if self.learn.practice.state == "keep":
            kept |= {"devices": self.devices.state(), "servers": self.servers.state()}
            kept |= {"cuts": cuts} if (cuts := [each.cut for each in self.placements]) != self._home else {}
        if memory := self.exchange.memory():
            kept["left_out"] = memory
        if isinstance(self.exchange, DeltaExchange):
            kept["activations"] = self.exchange.state()
        return kept

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned, on a freshly built fleet."""
        self.personal.restore(state)
        if "frozen" in state:
            self.corrections.restore(state["frozen"])
        self.averaging.restore(state)
        self.adapters.restore(state)
        if "local" in state:
            self.rule.restore(state["local"])
        if self.learn.practice.state == "keep":
            pairs = zip(self.placements, state.get("cuts", self._home), strict=True)
            self.place([replace(at, cut=cut) for at, cut in pairs])
            self.devices.restore(state["devices"])
            self.servers.restore(state["servers"])
        self.exchange.remember(state.get("left_out", {}))
        if isinstance(self.exchange, DeltaExchange):
            self.exchange.restore(state["activations"])
