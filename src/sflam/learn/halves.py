"""The halves of a cut model: one side with the copies of all devices, and a trunk for every server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

from peft import PeftModel

from sflam.errors import ConfigError
from sflam.learn.chunks import PassBudget
from sflam.learn.device import Devices
from sflam.learn.device_ranks import DeviceRanks
from sflam.learn.edge_servers import Servers
from sflam.learn.fit import built_step
from sflam.learn.grouping import group_rows
from sflam.learn.local.rule import LocalRule
from sflam.learn.selection import Chances
from sflam.learn.server import Trunk
from sflam.learn.settings import LearnSettings
from sflam.learn.weighting import Weighting
from sflam.learn.world.joint_trunk import JointTrunk
from sflam.learn.world.world import ALONE, World
from sflam.model.backbone import Backbone
from sflam.model.segment import Segment
from sflam.model.split import split_among
from sflam.model.tuned import tuned_blocks
from sflam.plan import ALL_LOCAL, Placement


def halves(
    backbone: Backbone,
    model: PeftModel,
    placements: Sequence[Placement],
    learn: LearnSettings,
    *,
    labels: str,
    sampling: str,
    ranks: DeviceRanks,
    seats: int = 0,
    world: World = ALONE,
) -> tuple[Devices, Servers]:
    """Cut the model for every device, and give each a server; who trains alone has a whole trunk of its own.

    Args:
        backbone: the model, adapted in place by ``model``.
        model: its peft wrapper.
        placements: cut, server and tuned blocks of every device.
        learn: how a round is run.
        labels: where head and loss live.
        sampling: ``data.sampling``.
        ranks: of the devices.
        seats: how many devices have trained numbers at once; 0 for all.
        world: the ranks that train together.

    Raises:
        ModelError: a cut outside 0..L, or more tuned blocks than the model has.
    """
    server_of = tuple(placement.server for placement in placements)
    cuts = tuple(0 if placement.alone else placement.cut for placement in placements)
    device, segments = split_among(
        backbone,
        model,
        cuts,
        server_of,
        shared=learn.practice.shared,
        frozen_a=learn.practice.aggregation == "freeze-a",
        frozen_half=learn.practice.device_half == "frozen",
        labels=labels,
        seats=seats,
    )
    tuned = tuned_by(placements, backbone)
    budget = PassBudget(built_step(backbone, 0, learn, home=labels == "device"))
    kind: Callable[..., Trunk] = (
        Trunk if world is ALONE else partial(JointTrunk, world=world, fleet=len(cuts))
    )
    trunks = {}
    for server, segment in segments.items():
        own = [index for index, name in enumerate(server_of) if name == server]
        shared = learn.practice.shared and server != ALL_LOCAL
        trunks[server] = kind(
            segment,
            backbone.task,
            learn,
            shared=shared,
            devices=own,
            group_rows=group_rows(learn, sampling),
        )
        trunks[server].budget = budget
        if not shared:  # a shared copy keeps the model's rank and blocks
            _limit(segment, dict(enumerate(own)), ranks, tuned)
        segment.checkpointing = learn.checkpointing
    device.checkpointing = learn.checkpointing
    _limit(device, {row: row for row in range(len(cuts))}, ranks, tuned)
    return Devices(device, cuts, learn), Servers(trunks, server_of)


def tuned_by(placements: Sequence[Placement], backbone: Backbone) -> dict[int, range]:
    """Return device -> the blocks that it tunes, of those whose placements say so.

    Raises:
        ModelError: more blocks than the model has.
    """
    return {
        item.device: tuned_blocks(item.tuned, backbone.depth, backbone.name)
        for item in placements
        if item.tuned
    }


def _limit(
    segment: Segment, device_of: Mapping[int, int], ranks: DeviceRanks, tuned: Mapping[int, range]
) -> None:
    """Keep the rows of a stack within what the device of each trains; ``device_of`` is row -> device."""
    segment.tuned_by = dict(tuned)
    beyond, untuned = ranks.beyond(segment.stack, device_of), segment.untuned(device_of)
    if beyond and untuned:
        segment.stack.limit({row: beyond[row] | untuned[row] for row in device_of})
    elif beyond or untuned:
        segment.stack.limit(beyond or untuned)


def expect_trained(names: Collection[str], learn: LearnSettings) -> None:
    """Raise ConfigError where ``names``, all that both halves train, are none."""
    if not names:
        raise ConfigError(
            f"nothing is trained: learn.device_half is {learn.practice.device_half!r}, model.cut keeps every block on "
            'the devices, and no head is trained; cut earlier, set model.trainable = "lora+head", or use '
            'learn.device_half = "trained"'
        )


def weigh(
    devices: Devices,
    servers: Servers,
    present: Sequence[int],
    samples: Mapping[int, int],
    weighting: Callable[[Mapping[int, int], Chances, int], Weighting | None],
    chance: Chances,
) -> None:
    """Weight the devices of a round at their servers.

    Args:
        devices, servers: the halves.
        present: the devices of the round.
        samples: device -> n_k, of all devices.
        weighting: returns what devices with these samples count, of which so many are present.
        chance: p_k.
    """
    for server, trunk in servers.trunks.items():
        own = {d: n for d, n in samples.items() if servers.server_of[d] == server}
        trunk.weighting = weighting(own, chance, sum(servers.server_of[d] == server for d in present))
    devices.weigh(present, weighting(samples, chance, len(present)))


def follow(
    rule: LocalRule, devices: Devices, servers: Servers, shared: Callable[[Iterable[str]], list[str]]
) -> None:
    """Let a rule for the devices' own learning act on what is theirs; ``shared`` returns the names that travel."""
    if not rule.acts:
        devices.follow(rule, {})
        for trunk in servers.trunks.values():
            trunk.follow(rule, {})
        return
    cuts = devices.cuts
    home = {cut: shared(devices.segment.names(cut)) for cut in set(cuts)}
    devices.follow(rule, {d: (d, home[cut]) for d, cut in enumerate(cuts)})
    for trunk in servers.trunks.values():
        there = {cut: shared(trunk.segment.names(cut)) for cut in set(cuts)}
        trunk.follow(rule, {c: (d, there[cuts[d]]) for c, d in trunk.devices_by_copy().items()})


def most_numbers(devices: Devices, servers: Servers) -> int:
    """Return the numbers, frozen and trained, of the device that holds most."""
    device, alone = devices.segment, servers.trunks.get(ALL_LOCAL)
    if alone is None:
        return device.numbers()
    embedding = sum(parameter.numel() for parameter in device.parts.parameters())
    return max(device.numbers(), embedding + alone.segment.numbers())
