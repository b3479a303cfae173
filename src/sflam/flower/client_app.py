"""The ClientApp: a message brings the adapters of a round, its steps go over the stream, the reply has what it made."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from sflam.errors import ConfigError, ServeError, SflamError, WireError
from sflam.flower.message_way import MessageWay
from sflam.flower.records import ADAPTERS, ORDER, REPORT, body_of, body_record
from sflam.flower.round_order import order_from
from sflam.link.https_client import LARGEST, Link
from sflam.serve.join import join

LOG = logging.getLogger("flwr")
GONE = 45.0
"""Seconds without an answer after which a trunk is gone: one that comes back has another message for this node."""
KINDS = {
    "data": str,
    "share": bool,
    "column": str,
    "label": str,
    "folder": str,
    "device": str,
    "threads": int,
}
"""What a SuperNode's ``--node-config`` may hold for us; other apps may have keys of their own."""


def client_app() -> ClientApp:
    """Return the ClientApp of a Flower app that trains a split model: on ``data`` of the node's configuration.

    Without ``data`` a node takes its share of the job's data, where that is public, as a simulated device would.
    """
    app = ClientApp()
    app.train()(_train)
    return app


def _train(message: Message, context: Context) -> Message:
    """Return the reply to a message of a round; raises SflamError, which is in the node's log as one line, too."""
    try:
        return _trained(message, context)
    except SflamError as error:
        LOG.error("%s", error)
        raise


def _trained(message: Message, context: Context) -> Message:
    own = settings_of(context.node_config)
    try:
        order = order_from(message.content[ORDER])
        body = body_of(message.content[ADAPTERS], LARGEST)
    except KeyError as error:
        raise WireError(f"the message has no {error}; use the same version of sflam on both sides") from error
    way = MessageWay(order.round, body)
    link = Link(order.address, order.token, pinned=order.certificate, patience=GONE, notify=LOG.info)
    join(
        link,
        own.get("data"),
        Path(own.get("folder") or Path.home() / ".sflam" / "flower" / str(context.node_id)),
        share=own.get("share", "data" not in own),
        column=own.get("column", ""),
        label=own.get("label", ""),
        device=own.get("device", "auto"),
        threads=own.get("threads"),
        state_every=0,  # a message is never sent again, so there is no going on within a round
        adapters=way,
        notify=LOG.info,
    )
    if way.trained is None:
        raise ServeError(f"round {order.round + 1} went on without this node")
    beside = {name.lower(): value for name, value in way.headers.items()}
    report = ConfigRecord({**beside, "round": str(order.round), "attempt": str(way.attempt)})
    return Message(RecordDict({ADAPTERS: body_record(way.trained), REPORT: report}), reply_to=message)


def settings_of(node_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a node's configuration says to us; raises ConfigError for a value of the wrong type."""
    own = {name: node_config[name] for name in KINDS if name in node_config}
    wrong = [name for name, value in own.items() if type(value) is not KINDS[name]]
    if wrong:
        raise ConfigError(
            [f"--node-config {name}={own[name]!r}: it must be a {KINDS[name].__name__}" for name in wrong]
        )
    return own
