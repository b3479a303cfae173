"""The halves of a cut model: one side with the copies of all devices, and a trunk for every server."""

from __future__ import annotations

from collections.abc import Sequence

from peft import PeftModel

from sflam.learn.chunks import PassBudget
from sflam.learn.device import Devices
from sflam.learn.device_ranks import DeviceRanks
from sflam.learn.edge_servers import Servers
from sflam.learn.fit import built_step
from sflam.learn.grouping import group_rows
from sflam.learn.server import Trunk
from sflam.learn.settings import LearnSettings
from sflam.model.backbone import Backbone
from sflam.model.split import split_among
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
) -> tuple[Devices, Servers]:
    """Cut the model for every device, and give each a server; who trains alone has a whole trunk of its own.

    Args:
        backbone: the model, adapted in place by ``model``.
        model: its peft wrapper.
        placements: cut and server of every device.
        learn: how a round is run.
        labels: where head and loss live.
        sampling: ``data.sampling``.
        ranks: of the devices.
        seats: how many devices have trained numbers at once; 0 for all.

    Raises:
        ModelError: a cut outside 0..L.
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
    budget = PassBudget(built_step(backbone, 0, learn, home=labels == "device"))
    trunks = {}
    for server, segment in segments.items():
        own = [index for index, name in enumerate(server_of) if name == server]
        shared = learn.practice.shared and server != ALL_LOCAL
        trunks[server] = Trunk(
            segment,
            backbone.task,
            learn,
            shared=shared,
            devices=own,
            group_rows=group_rows(learn, sampling),
        )
        trunks[server].budget = budget
        if not shared:  # a shared copy keeps the model's rank
            ranks.limit(segment.stack, dict(enumerate(own)))
        segment.checkpointing = learn.checkpointing
    device.checkpointing = learn.checkpointing
    ranks.limit(device.stack, {row: row for row in range(len(cuts))})
    return Devices(device, cuts, learn), Servers(trunks, server_of)
