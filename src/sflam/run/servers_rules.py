"""Rules of plans and simulated runs among several servers."""

from __future__ import annotations

from sflam.allocate.settings import EDGE_METHODS
from sflam.planner import edge as planning_edge
from sflam.run.conditions import NETWORK, SIMULATE, Rule, holds, is_none_of, is_one_of, is_set, method_where
from sflam.run.situations import one_server, several

RATES = ("network.downlink_mbps", "network.backhaul_mbps")
TRUNKLESS = method_where(lambda method: not method.split or method.relay)
BITS_CHOSEN = holds("plan.optimize", "bits")
AVERAGED = is_one_of("learn.device_half", "averaged")
FROZEN = is_one_of("learn.device_half", "frozen")

SERVERS_RULES: tuple[Rule, ...] = (
    Rule("several-method", (several, TRUNKLESS), "this method has no trunks at several servers",
         'use learn.method = "sflam", "sfl-v1" or "sfl-v2", or network.servers = 1', (SIMULATE,)),
    Rule("several-allocator", (several, is_none_of("plan.method", "optimal", *EDGE_METHODS)),
         "this method plans for one server", f"use one of {', '.join(EDGE_METHODS)}", NETWORK),
    Rule("several-bits", (several, BITS_CHOSEN), "bits are not chosen among several servers",
         'leave "bits" out of plan.optimize', NETWORK),
    Rule("several-averaged", (several, AVERAGED), "plans for several servers count as many bits at every split",
         "use another learn.device_half, or one server", NETWORK),
    Rule("several-frozen", (several, FROZEN), "plans for several servers count as much for a layer on either side",
         "use another learn.device_half, or one server", NETWORK),
    *(Rule(f"several-{key}", (several, is_set(key)), "plans for several servers do not know it", f"leave {key} out",
           NETWORK)
      for key in (f"plan.{name}" for name in planning_edge.UNUSED)),
    *(Rule(f"several-{key}", (several, is_set(key)), "plans for several servers do not know it", f"leave {key} out",
           (SIMULATE,))
      for key in ("plan.budget", "plan.measure_every", "plan.late", "network.battery_j", "network.calibrate")),
    *(Rule(f"several-{key}", (several, is_one_of("plan.counts", "activations"), is_set(key)),
           "activations alone count, as published, and nothing else takes time",
           f'leave {key} out, or use plan.counts = "all"', NETWORK)
      for key in RATES),
    Rule("unused-network.backhaul_mbps", (one_server, is_set("network.backhaul_mbps")),
         "no other server is there to average adapters with",
         "leave network.backhaul_mbps out, or use several servers", NETWORK),
)  # fmt: skip
