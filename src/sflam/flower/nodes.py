"""The devices of a round called through Flower: its strategy chooses nodes, a message goes to each, a reply comes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from sflam.errors import ServeError, SflamError
from sflam.flower.node_places import NodePlaces
from sflam.flower.records import ADAPTERS, ORDER, REPORT, adapter_record, body_of, body_record
from sflam.flower.round_order import RoundOrder
from sflam.model.adapters import State
from sflam.serve.fleet import Stopped
from sflam.serve.handover import delivered_size, hand_over_message
from sflam.serve.ingress import Ingress

LOG = logging.getLogger("flwr")
OWN_KEYS = {"server-round"}
"""What a strategy may say to a node without our devices having to know it."""
LOOK = 0.5
"""Seconds between two looks for replies, or nodes."""


class SeenNodes:
    """A grid on which a strategy sees the nodes that may be chosen alone.

    Args:
        grid: the whole one.
        nodes: returns who may be chosen.
    """

    def __init__(self, grid: Grid, nodes: Callable[[], Sequence[int]]) -> None:
        self._grid, self._nodes = grid, nodes

    def get_node_ids(self) -> list[int]:
        """Return the nodes that may be chosen."""
        return list(self._nodes())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)


@dataclass(frozen=True)
class Sent:
    """A message under way: to which device, by which call."""

    device: int
    call: int


class NodeSummons:
    """Calls the nodes of every round; see :class:`sflam.serve.summons.Summons`.

    Args:
        grid: the way to the nodes.
        strategy: chooses them.
        places: which node is which device.
        ingress: takes what they trained.
        order: returns what goes to a device's node for a round; anew where another node takes the device's place.
        bodies: returns device -> the adapters that a round begins with, as the link's protocol has them.
        names: the adapters that are trained, in the order of the global ones.
        gather: seconds that nodes which never came are waited for, once.
        fewest: nodes that a round needs.
    """

    def __init__(
        self,
        grid: Grid,
        strategy: Strategy,
        places: NodePlaces,
        ingress: Ingress,
        *,
        order: Callable[[int, int, int], RoundOrder],
        bodies: Callable[[int, Sequence[int], State], Mapping[int, bytes]],
        names: Sequence[str],
        gather: float,
        fewest: int,
    ) -> None:
        self.grid, self.strategy, self.places, self.ingress = grid, strategy, places, ingress
        self.order, self.bodies, self.names = order, bodies, names
        self.gather, self.fewest = gather, fewest
        self.round = -1
        self.state: State = {}
        self.replies: dict[int, Message] = {}
        """Of the round, device -> the message in which it delivered."""
        self._calls = 0
        self._coming: set[int] = set()
        self._why: dict[int, str] = {}
        """Device -> why it does not come."""
        self._waiting: dict[str, Sent] = {}
        self._grid_lock = threading.Lock()  # of the grid, which may try for long to reach a SuperLink
        self._lock = threading.Lock()  # of what two threads change
        self._end = threading.Event()
        self._collector = threading.Thread(target=self._collect, daemon=True)

    def begin(self, round: int, state: State) -> None:
        """Note the global adapters ``state`` that a round begins with."""
        self.round, self.state = round, state

    def call(self, out: Collection[int]) -> None:
        """Let the strategy choose among the nodes here, and send each chosen one a message.

        Raises:
            ServeError: it chooses none, or wants of nodes what our devices do not know.
            Stopped: the server was asked to stop.
        """
        self._wait_for_nodes()
        arrays = adapter_record(self.state, self.names)
        seen = SeenNodes(
            self.grid, lambda: sorted(n for n, device in self._here().items() if device not in out)
        )
        wanted = list(self.strategy.configure_train(self.round + 1, arrays, ConfigRecord(), seen))
        self._expect_known(wanted)
        here = self._here()
        chosen = {here[node]: node for node in (each.metadata.dst_node_id for each in wanted) if node in here}
        if not chosen:
            raise ServeError(
                f"round {self.round + 1}: the strategy {type(self.strategy).__name__} chose no node of {len(here)}; "
                "raise its fraction_train"
            )
        bodies = self.bodies(self.round, sorted(chosen), self.state)
        messages = []
        for device, node in sorted(chosen.items()):
            order = ConfigRecord(self.order(device, node, self.round).plain())
            content = RecordDict({ORDER: order, ADAPTERS: body_record(bodies[device])})
            messages.append(Message(content, dst_node_id=node, message_type=MessageType.TRAIN))
        with self._grid_lock:
            numbers = list(self.grid.push_messages(messages))
        with self._lock:
            self.replies, self._why = {}, {}
            self._coming = set(chosen)
            self._calls += 1
            taken = dict(zip(sorted(chosen), numbers, strict=False))
            for device in sorted(chosen):
                if (number := taken.get(device)) is not None:
                    self._waiting[number] = Sent(device, self._calls)
                else:
                    self._fails(device, "Flower did not take the message to its node")
        if not self._collector.is_alive():
            self._collector.start()

    def called(self) -> tuple[int, ...]:
        """Return the devices that are coming, or have come; raises ServeError where none is left."""
        with self._lock:
            if not self._coming:
                reasons = "; ".join(f"device {device}: {why}" for device, why in sorted(self._why.items()))
                raise ServeError(f"round {self.round + 1}: no node can take part ({reasons})")
            return tuple(sorted(self._coming))

    def close(self) -> None:
        """Look for no more replies."""
        self._end.set()
        if self._collector.is_alive():
            self._collector.join(10)

    def _here(self) -> dict[int, int]:
        """Return node -> device of the nodes that are connected and have a place."""
        with self._grid_lock:
            return self.places.seat(self.grid.get_node_ids())

    def _wait_for_nodes(self) -> None:
        """Wait for a node in every place, ``gather`` seconds, once; then as long as there are too few."""
        until, shown = time.monotonic() + self.gather, -1
        while True:
            here = len(self._here())
            if here >= self.places.count or (here >= self.fewest and time.monotonic() >= until):
                self.gather = 0.0
                return
            if here != shown:
                LOG.info("round %d: waiting for nodes: %d of %d", self.round + 1, here, self.places.count)
                shown = here
            if self.ingress.dispatch.stopping:
                raise Stopped("the server was stopped")
            time.sleep(LOOK)

    def _expect_known(self, messages: Sequence[Message]) -> None:
        """Raise ServeError where a strategy tells nodes something that changes what they do."""
        for message in messages:
            asked = {key for record in message.content.config_records.values() for key in record}
            if unknown := sorted(asked - OWN_KEYS):
                raise ServeError(
                    f"the strategy {type(self.strategy).__name__} wants nodes to follow {', '.join(unknown)}, which "
                    "devices of sflam do not; choose another, and what devices add to their learning by learn.local"
                )

    def _collect(self) -> None:
        """Take replies as they come."""
        while not self._end.wait(LOOK):
            try:
                with self._lock:
                    numbers = list(self._waiting)
                with self._grid_lock:
                    found = list(self.grid.pull_messages(numbers)) if numbers else []
                for reply in found:
                    with self._lock:
                        sent = self._waiting.pop(reply.metadata.reply_to_message_id, None)
                    if sent is not None:
                        self._take(sent, reply)
            except Exception as error:  # whatever Flower's transport raises: it is asked again
                LOG.warning("replies cannot be asked for (%s); trying again", error)

    def _take(self, sent: Sent, reply: Message) -> None:
        """Hand a reply to the open round, or go on without its device."""
        device, dispatch = sent.device, self.ingress.dispatch
        if sent.call == self._calls:  # one of a call before comes too late, and its device may be here again
            try:
                self._hand_over(device, reply)
            except (SflamError, KeyError, TypeError, ValueError) as error:
                with self._lock:
                    self._fails(device, str(error))
                dispatch.drop(device, "its node's reply cannot be used")
            with dispatch.locked() as session:
                session.leave(device)

    def _hand_over(self, device: int, reply: Message) -> None:
        """Give the open round what a reply holds; raises SflamError where it holds nothing that was agreed."""
        if reply.has_error():
            raise ServeError(f"its node failed: {str(reply.error.reason)[:200]}")
        beside = {str(key): str(value) for key, value in reply.content[REPORT].items()}
        round, attempt = int(beside.get("round", "-1")), int(beside.get("attempt", "-1"))
        body = body_of(reply.content[ADAPTERS], delivered_size(self.ingress.contracts[device]))
        with self._lock:
            self.replies[device] = reply
        hand_over_message(self.ingress, device, round, attempt, body, beside)

    def _fails(self, device: int, why: str) -> None:
        self._coming.discard(device)
        self._why[device] = why
        LOG.warning("round %d: goes on without device %d (%s)", self.round + 1, device, why)
        self.ingress.event_log("uncalled", device=device, round=self.round, reason=why[:300])
