"""Every rule about settings that do not go together, in one table; each row names the settings, the reason and the fix.

A row holds for the commands it names. Limits of one setting are checked by its section; what depends on things that
must be loaded first (the depth of a model, the devices of a network, the rounds of a trace) is checked where they are.
"""

from __future__ import annotations

from sflam.config import Job, toml_value
from sflam.errors import ConfigError
from sflam.model.settings import ModelSettings
from sflam.plan import ALL_LOCAL
from sflam.run.airtime_rules import AIRTIME_RULES
from sflam.run.association_rules import ASSOCIATION_RULES
from sflam.run.bits_rules import BITS_RULES
from sflam.run.buffered_rules import BUFFERED_RULES
from sflam.run.conditions import ALL, NETWORK, RUNS, SERVE, SIMULATE, TRAIN, Rule
from sflam.run.conditions import holds as _holds
from sflam.run.conditions import is_none_of as _not
from sflam.run.conditions import is_one_of as _is
from sflam.run.conditions import is_set as _set
from sflam.run.conditions import method_where as _method
from sflam.run.conditions import where as _where
from sflam.run.decorrelation_rules import DECORRELATION_RULES
from sflam.run.drop_rules import DROP_RULES
from sflam.run.flower_rules import FLOWER_RULES
from sflam.run.leakage_rules import LEAKAGE_RULES
from sflam.run.lean_rules import LEAN_RULES
from sflam.run.passes_rules import PASSES_RULES
from sflam.run.poisson_rules import POISSON_RULES
from sflam.run.presence_rules import PRESENCE_RULES
from sflam.run.privacy_rules import PRIVACY_RULES
from sflam.run.ranks_rules import RANKS_RULES
from sflam.run.repartition_rules import REPARTITION_RULES
from sflam.run.robust_rules import ROBUST_RULES
from sflam.run.sample_rules import SAMPLE_RULES
from sflam.run.secure_rules import SECURE_RULES
from sflam.run.served_rules import SERVED_RULES
from sflam.run.servers_rules import SERVERS_RULES
from sflam.run.situations import (
    chosen_bits,
    chosen_cut,
    flipped_beyond,
    many_servers,
    moving_cuts,
    nothing_apart,
    one_server,
    rank_above,
    several,
    trained_cut,
)
from sflam.run.subchannel_rules import SUBCHANNEL_RULES
from sflam.run.timing_rules import TIMING_RULES
from sflam.run.trunk_rules import TRUNK_RULES
from sflam.run.tuned_rules import TUNED_RULES
from sflam.run.unused import UNUSED
from sflam.run.weights_rules import WEIGHTS_RULES
from sflam.sizes import IDENTITY, is_variable


def check(job: Job, command: str = "") -> None:
    """Raise ConfigError with every rule that a job breaks.

    Args:
        job: what was asked for.
        command: one of ``COMMANDS``; by default ``simulate`` or ``train``, as ``network.simulate`` gives.
    """
    problems = problems_of(job, command)
    if problems:
        raise ConfigError(problems)


def problems_of(job: Job, command: str = "") -> list[str]:
    """Return the message of every rule that a job breaks; see :func:`check`."""
    command = command or (SIMULATE if job.network.simulate else TRAIN)
    return [message for rule in RULES if (message := rule.broken(job, command))]


SPLIT = _method(lambda method: method.split)
UNSPLIT = _method(lambda method: not method.split)
WHOLE = _method(lambda method: method.whole)
TRUNKLESS = _method(lambda method: not method.split or method.relay)
RELAY = _method(lambda method: method.relay)
SHARED = _is("learn.trunk", "shared")
APART = _is("learn.trunk", "per-device")
FROZEN = _is("learn.device_half", "frozen")
AVERAGED = _is("learn.device_half", "averaged")
GLOBAL = _is("data.sampling", "global")
FULL = _is("model.trainable", "full")
AT_HOME = _is("model.labels", "device")
CACHED = _not("learn.cache", "off")
DELTA = _is("quant.delta", True)
LONE = _method(lambda method: not method.averages)
SVD = _is("learn.aggregation", "svd")
FEDLC = _is("learn.local", "fedlc")
SCAFFOLD = _is("learn.local", "scaffold")
DRIFT = _is("learn.local", "fedprox", "scaffold")
OPTIMIZED = _not("learn.server_optimizer", "none")
RESIDUAL = _is("learn.aggregation", "residual")
PERSONAL, OWN_HALF = _set("learn.personal"), _is("learn.personal", "device-half")
RANKS = _set("fleet.ranks")
SEVERAL_CUTS = _where("fleet.cuts", lambda cuts: len(set(cuts)) > 1)
WITHOUT_SERVER = _where("fleet.servers", lambda servers: ALL_LOCAL in servers)
VARIABLE = _where("quant.scheme", is_variable)
QUANTIZED = _method(lambda method: method.quantized)
BITS_CHOSEN = _holds("plan.optimize", "bits")

RULES: tuple[Rule, ...] = (
    # what is trained, and how it is averaged
    Rule("full-factors", (FULL, _not("learn.aggregation", "fedavg")),
         "full training has no adapter factors to average", 'use learn.aggregation = "fedavg"'),
    Rule("full-adapter", (FULL, _set("model.adapter")),
         "full training has no adapter to go on from", "give the merged folder of a run as model.name"),
    Rule("full-tuned", (FULL, _set("model.tuned")),
         "full training has no adapters, and trains every block", "leave model.tuned out"),
    Rule("full-bfloat16", (FULL, _is("model.dtype", "bfloat16")),
         "small updates would be lost", 'use model.dtype = "float32"'),
    Rule("fedavg-adapters", (_is("learn.method", "fedavg"), _not("model.trainable", "full")),
         "fedavg trains every weight", 'set model.trainable = "full", or use learn.method = "fedlora"'),
    Rule("whole-full", (WHOLE, _not("learn.method", "fedavg"), FULL),
         "this method trains adapters", 'set model.trainable = "lora", or use learn.method = "fedavg"'),
    Rule("whole-residual", (WHOLE, RESIDUAL),
         "residuals correct the halves of a model that is cut, and this method cuts none",
         'use learn.aggregation = "fedavg" or "freeze-a"'),
    Rule("local-best", (_is("learn.method", "local"), _is("learn.keep", "best")),
         "every device has a model of its own, so there is no best one", 'set learn.keep = "last"'),
    *(Rule(f"{key}-evaluate", (_not(f"learn.{key}", off), _is("learn.evaluate_every", 0)),
           "only the last round is evaluated, so there is nothing to choose from",
           f"set learn.evaluate_every = 1, or learn.{key} = {toml_value(off)}")
      for key, off in (("keep", "last"), ("stop_after", 0))),
    Rule("best-residual", (_is("learn.keep", "best"), RESIDUAL),
         "residuals change the frozen weights in every round, and those of the best round are not kept",
         'use learn.keep = "last", or another learn.aggregation'),
    Rule("trunk-bits-residual", (_set("model.trunk_bits"), RESIDUAL),
         "residuals correct frozen weights, and rounding these would lose the correction",
         "set model.trunk_bits = 0, or use another learn.aggregation"),
    Rule("trunk-bits-full", (_set("model.trunk_bits"), FULL),
         "weights are only quantized where they are frozen",
         'use model.trainable = "lora", or model.trunk_bits = 0'),
    Rule("trunk-bits-float64", (_set("model.trunk_bits"), _is("model.dtype", "float64")),
         "weights in float64 are not quantized", "use another model.dtype, or model.trunk_bits = 0"),
    # how samples are shared out
    *(Rule(f"partition-{partition}", (_is("data.partition", partition), _is(f"data.{key}", "")), why, fix)
      for partition, key, why, fix in (
          ("column", "column", "samples are shared out by a column", "name it, as in data.column = \"writer\""),
          ("file", "indices", "samples are shared out as a file lists them", "give the path of a .json or .npz file"))),
    Rule("flipped-devices", (_set("data.flipped"), flipped_beyond), "there is no such device",
         "name indices from 0 to fleet.devices - 1"),
    Rule("flipped-unlabelled", (_set("data.flipped"), _is("data.label", "")), "texts alone have no labels to flip",
         "name their column, or set data.flipped = 0"),
    # where the model is cut
    Rule("cache-unsplit", (CACHED, UNSPLIT),
         "this method has no cut whose activations could be kept", 'set learn.cache = "off"'),
    Rule("cache-deep", (CACHED, trained_cut, _not("learn.device_half", "frozen")),
         "devices train the blocks they keep, so activations change",
         'set learn.device_half = "frozen", or model.cut = 0 without fleet.cuts, or learn.cache = "off"'),
    Rule("cache-variable", (_is("learn.cache", "server"), VARIABLE, QUANTIZED),
         "the server keeps and joins activations of one size", 'use learn.cache = "device", or another quant.scheme'),
    Rule("relay-cuts", (RELAY, SEVERAL_CUTS),
         "devices pass one device half on, which has one cut", "give all devices one cut"),
    # differences between activations
    Rule("delta-unquantized", (DELTA, _method(lambda method: not method.quantized)),
         "this method sends no quantized activations", "set quant.delta = false"),
    Rule("delta-cache", (DELTA, CACHED), "activations that are kept do not change between visits",
         "leave one of them out"),
    Rule("delta-identity", (DELTA, _is("quant.scheme", IDENTITY)), "raw floats gain nothing by a difference",
         "choose another quant.scheme, or set quant.delta = false"),
    Rule("delta-serve", (DELTA,), "sample numbers and tables of activations do not travel over a network",
         "set quant.delta = false", (SERVE,)),
    Rule("delta-moving", (DELTA, moving_cuts), "cuts change from plan to plan",
         "do not choose the cut, or set quant.delta = false", (SIMULATE,)),
    *(Rule(f"delta-{name}", (DELTA, condition), "noise is counted as that of whole activations",
           "leave one of them out", (SIMULATE,))
      for name, condition in (("bits", chosen_bits), ("measure", _set("plan.measure_every")))),
    # what a method's name sets, and what is set instead
    *(Rule(f"unsplit-{key}", (_set(f"learn.{key}"), UNSPLIT), "this method has no cut, so no server half",
           f"leave learn.{key} out, or use a method that cuts the model")
      for key in ("trunk", "server_update", "device_half")),
    Rule("update-apart", (_not("learn.server_update", "sequential"), APART, SPLIT),
         "every device has a server copy of its own, and no rows to share",
         'set learn.trunk = "shared", or leave learn.server_update out'),
    Rule("server-batch", (_set("learn.server_batch"), _is("learn.server_update", "sequential", "batched")),
         "only mixed groups have a size", 'set learn.server_update = "mixed", or leave learn.server_batch out'),
    Rule("relay-apart", (RELAY, APART), "one server half is handed from device to device",
         "leave learn.trunk out, or use another method"),
    Rule("relay-update", (RELAY, _not("learn.server_update", "sequential")), "devices take turns",
         "leave learn.server_update out, or use another method"),
    Rule("relay-half", (RELAY, AVERAGED), "devices take turns", "leave learn.device_half out, or use another method"),
    *(Rule(f"{key}-cuts", (half, SEVERAL_CUTS),
           "devices need one cut to have the same half", "give all devices one cut")
      for key, half in (("averaged", AVERAGED), ("frozen", FROZEN))),
    *(Rule(f"{key}-servers", (half, WITHOUT_SERVER),
           "a device without a server has no half of its own", "give every device a server")
      for key, half in (("averaged", AVERAGED), ("frozen", FROZEN))),
    Rule("averaged-moving", (AVERAGED, chosen_cut), "a device with less memory may get an earlier cut than others",
         "do not choose the cut, or use another learn.device_half", (SIMULATE,)),
    Rule("frozen-moving", (FROZEN, chosen_cut), "cuts change from plan to plan",
         "do not choose the cut, or use another learn.device_half", (SIMULATE,)),
    Rule("frozen-full", (FROZEN, FULL), "full training trains every weight", 'use model.trainable = "lora"'),
    Rule("averaged-serve", (AVERAGED,), "gradients of the device half do not travel over a network",
         'use "trained" or "frozen"', (SERVE,)),
    Rule("mixed-labels", (AT_HOME, _is("learn.server_update", "mixed")),
         "with labels on devices every group of rows would be an exchange of its own",
         'use learn.server_update = "batched", or labels = "server"'),
    Rule("weights-labels", (AT_HOME, SHARED, _is("learn.server_update", "sequential"),
                            _is("learn.weights", "samples")),
         "a server that answers device after device does not know how many there are",
         'use learn.server_update = "batched"'),
    Rule("global-labels", (AT_HOME, SHARED, _is("learn.server_update", "sequential"), GLOBAL),
         "a server that answers device after device does not know what the others' shares are",
         'use learn.server_update = "batched"'),
    Rule("relay-weights", (RELAY, _is("learn.weights", "samples")), "devices take turns, and none shares a step",
         "leave learn.weights out, or use another method"),
    Rule("averaged-selected", (AVERAGED, _is("learn.state", "keep"), _set("fleet.selected")),
         "devices that were in other rounds have other momenta, so their halves would part",
         'set learn.state = "reset", or fleet.selected = 0'),
    # what devices keep for themselves
    *(Rule(f"personal-{key}", (condition, PERSONAL), why, fix) for key, condition, why, fix in (
        ("method", _is("learn.method", "central", "local"), "nothing is averaged of which a part could be kept",
         'set learn.personal = "none"'),
        ("relay", RELAY, "devices hand one half on", 'set learn.personal = "none"'),
        ("full", FULL, "full training has no head apart from the rest", 'use model.trainable = "lora+head"'),
        ("best", _is("learn.keep", "best"), "what devices had of their own in the best round is not kept",
         'set learn.keep = "last"'),
        ("residual", RESIDUAL, "residuals leave a merged model, which has no part of a device's own",
         "use another learn.aggregation"),
        ("averaged", AVERAGED, "a half that is averaged in every step has no part of a device's own",
         'use learn.device_half = "trained"'))),
    *(Rule(f"personal-serve{key}", conditions, "the server scores models, and would not hold all of them", fix,
           (SERVE,)) for key, conditions, fix in (
        ("", (OWN_HALF,), 'use learn.personal = "head" with labels = "server"'),
        ("-labels", (_is("learn.personal", "head"), AT_HOME), 'use model.labels = "server"'))),
    Rule("head-shared", (_is("learn.personal", "head"), SHARED, _is("model.labels", "server"), SPLIT),
         "one server copy has one head", 'set model.labels = "device", or learn.trunk = "per-device"'),
    *(Rule(f"own-half-{key}", (OWN_HALF, condition), why, fix, commands) for key, condition, why, fix, commands in (
        ("unsplit", UNSPLIT, "this method has no cut", 'use learn.personal = "head"', RUNS),
        ("frozen", FROZEN, "devices train nothing before the cut", 'use learn.device_half = "trained"', RUNS),
        ("cuts", SEVERAL_CUTS, "a block would be one device's own and another's to average", "give all one cut",
         RUNS),
        ("servers", WITHOUT_SERVER, "a device without a server has no half of its own", "give every device a server",
         RUNS),
        ("moving", moving_cuts, "cuts change from plan to plan", "do not choose the cut", (SIMULATE,)))),
    # ranks of devices
    *(Rule(f"ranks-{key}", (*conditions, RANKS), why, fix) for key, conditions, why, fix in (
        ("above", (rank_above, _where("model.rank", bool)), "a device trains a part of the model's rank",
         "raise model.rank, or lower them"),
        ("full", (FULL,), "full training has no adapters", "leave fleet.ranks out"),
        ("method", (_is("learn.method", "central", "local"),), "nothing is averaged", "leave fleet.ranks out"),
        ("relay", (RELAY,), "devices hand one half on", "leave fleet.ranks out"),
        ("residual", (RESIDUAL,), "what a device of lower rank does not get would not be in the residual",
         'use learn.aggregation = "fedavg", "svd" or "freeze-a"'),
        ("averaged", (AVERAGED,), "devices that average every step have the same half", "leave fleet.ranks out"),
        ("frozen", (FROZEN, SHARED), "only device halves would have ranks, and they train nothing",
         "leave fleet.ranks out"))),
    # what a device adds to its learning, and the server to the average
    *(Rule(f"lone-{key}", (LONE, condition), "it averages nothing that devices train apart",
           f"leave learn.{key} out, or use another method")
      for key, condition in (("local", _not("learn.local", "plain")), ("server_optimizer", OPTIMIZED),
                             ("aggregation", SVD))),
    Rule("drift-averaged", (DRIFT, AVERAGED), "devices have one half, which drifts from none of them",
         'use learn.device_half = "trained", or another learn.local'),
    Rule("drift-nothing", (DRIFT, SHARED, nothing_apart), "devices train nothing apart, so nothing drifts",
         'use learn.local = "plain", or let devices train blocks of their own'),
    Rule("drift-ranks", (DRIFT, RANKS), "it compares a device's adapters with global ones of another rank",
         "leave fleet.ranks out, or use another learn.local"),
    Rule("fedlc-shared", (FEDLC, SHARED, _is("model.labels", "server")),
         "a shared trunk learns from the labels of all devices, which are not skewed as those of one are",
         'use learn.trunk = "per-device", or another learn.local'),
    Rule("fedlc-labels", (FEDLC, _is("data.label", "")), "a language model has no classes to count",
         "use another learn.local"),
    Rule("fedlc-loss", (FEDLC, _not("learn.loss", "cross-entropy")), "calibrated logits belong to that loss",
         'use learn.loss = "cross-entropy", or another learn.local'),
    Rule("svd-optimizer", (SVD, OPTIMIZED), "its factors are other ones in every round, so their change means nothing",
         'use another learn.aggregation, or learn.server_optimizer = "none"'),
    Rule("svd-scaffold", (SVD, SCAFFOLD),
         "its factors are other ones in every round, and control variates are of those before",
         "use another learn.aggregation or learn.local"),
    Rule("svd-keep", (SVD, _is("learn.state", "keep")),
         "its factors are other ones in every round, and momenta are of those before",
         'use learn.state = "reset", or another learn.aggregation'),
    Rule("residual-optimizer", (RESIDUAL, OPTIMIZED), "residuals correct the average as it is",
         'use another learn.aggregation, or learn.server_optimizer = "none"'),
    Rule("scaffold-moving", (SCAFFOLD, moving_cuts),
         "cuts change from plan to plan, and control variates would have to change sides", "do not choose the cut",
         (SIMULATE,)),
    Rule("scaffold-serve", (SCAFFOLD,), "control variates do not travel over a network",
         'use "plain" or "fedprox", or train without a network', (SERVE,)),
    Rule("fedlc-serve", (FEDLC, _is("model.labels", "server")),
         "the server has the loss, and counts of labels do not travel over a network",
         'use labels = "device", or another learn.local', (SERVE,)),
    # which rows a step has
    Rule("global-unsplit", (GLOBAL, TRUNKLESS), "its devices take no steps together", 'set data.sampling = "local"'),
    Rule("global-buckets", (GLOBAL, _is("data.buckets", True)), "lengths would decide which rows come together",
         'set data.sampling = "local", or data.buckets = false'),
    Rule("global-servers", (GLOBAL, _set("fleet.servers")), "no server sees the rows of all devices",
         'set data.sampling = "local"'),
    Rule("global-several", (GLOBAL, several), "no server sees the rows of all devices",
         'set data.sampling = "local"', (SIMULATE,)),
    # fleet.plan
    *(Rule(f"plan-and-{key}", (_set("fleet.plan"), _set(f"fleet.{key}")),
           "the plan decides that", "leave one of them out")
      for key in ("cuts", "servers", "tuned", "bits_up", "bits_down")),
    Rule("plan-unsplit", (_set("fleet.plan"), UNSPLIT), "this method has no cut to plan", "leave fleet.plan out"),
    # sflam serve
    Rule("serve-unsplit", (TRUNKLESS,), "it has no trunk that serves devices at once",
         'use learn.method = "sflam", "sfl-v1" or "sfl-v2"', (SERVE,)),
    Rule("serve-cache", (_is("learn.cache", "server"), _set("privacy.noise")),
         "what a server lost would go up again with other noise", 'use learn.cache = "device" or "off"', (SERVE,)),
    Rule("serve-simulate", (_is("network.simulate", True),), "real devices use a real network",
         "set network.simulate = false", (SERVE,)),
    Rule("serve-sequential", (AT_HOME, SHARED, _is("learn.server_update", "sequential")),
         "devices would have to wait for each other within a step", 'use learn.server_update = "batched"', (SERVE,)),
    # without a simulated network
    *(Rule(f"policy-samples-{key}", (_is("fleet.policy", "samples"), condition), why,
           f'use fleet.policy = "uniform"{more}')
      for key, condition, why, more in (
          ("lone", LONE, "it averages nothing that would make up for how often a device is drawn", ""),
          ("global", GLOBAL, "the devices of a round share its rows by their samples already",
           ', or data.sampling = "local"'),
          ("servers", _set("fleet.servers"), "chances are those of all devices together", ""))),
    Rule("policy", (_not("fleet.policy", "uniform", "samples"), _is("network.simulate", False)),
         "the policy chooses devices by what a network shows",
         'run it with sflam simulate, or use "uniform" or "samples"', (TRAIN, SERVE)),
    # sflam simulate
    Rule("simulate-method", (_is("learn.method", "central", "local"),), "it uses no network",
         "train it without simulating", (SIMULATE,)),
    *(Rule(f"labels-{key}", (AT_HOME, _set(key)), "with labels on devices nothing is measured on the way",
           f"leave {key} out", (SIMULATE,)) for key in ("plan.measure_every", "network.calibrate")),
    Rule("simulate-full", (FULL, several, _not("learn.method", "fedavg")),
         "plans for several servers count adapters",
         'simulate with model.trainable = "lora"', (SIMULATE,)),
    *(Rule(f"simulate-{key}", (_set(key),), "bits are what a plan gives", "leave it out", (SIMULATE,))
      for key in ("fleet.bits_up", "fleet.bits_down")),
    Rule("calibrate-whole", (_is("network.calibrate", True), WHOLE),
         "calibration measures both halves of a cut model, and this method cuts none",
         "set network.calibrate = false", (SIMULATE,)),
    Rule("bits-cache", (BITS_CHOSEN, _is("learn.cache", "server")),
         "the server keeps activations that came with other bits", "leave one of them out", (SIMULATE,)),
    Rule("measure-identity",
         (_set("plan.measure_every"), _is("quant.scheme", IDENTITY), _method(lambda method: method.quantized)),
         "identity adds no noise to measure", 'set plan.measure_every = 0, or quant.scheme = "uniform"', (SIMULATE,)),
    Rule("measure-variable", (_set("plan.measure_every"), VARIABLE, QUANTIZED),
         "the slowdown is that of unbiased noise, and this scheme leaves values out",
         'set plan.measure_every = 0, or use quant.scheme = "uniform" or "rotated"', (SIMULATE,)),
    Rule("bits-variable", (chosen_bits, VARIABLE),
         "plans choose bits by what unbiased noise costs, and this scheme leaves values out",
         'do not choose bits, or use quant.scheme = "uniform" or "rotated"', NETWORK),
    Rule("plan-bits-variable", (_is("fleet.plan", "computed", "measured"), chosen_bits, VARIABLE),
         "plans choose bits by what unbiased noise costs, and this scheme leaves values out",
         'do not choose bits, or use quant.scheme = "uniform" or "rotated"', (TRAIN, SERVE)),
    Rule("server-of-one", (_where("fleet.servers", any), one_server), "the network has one server",
         'simulate several with network.scenario = "square" and network.servers', (SIMULATE,)),
    # plans that choose the cut
    Rule("cut-method", (chosen_cut, TRUNKLESS), "this method has no cut of its own for every device",
         "do not choose the cut", (SIMULATE,)),
    Rule("cut-cuts", (chosen_cut, _set("fleet.cuts")), "the plan chooses the cut", "leave one of them out",
         (SIMULATE,)),
    Rule("cut-state", (moving_cuts, _not("learn.state", "reset")), "cuts change from plan to plan",
         'set learn.state = "reset"', (SIMULATE,)),
    Rule("cut-cache", (moving_cuts, CACHED), "cuts change from plan to plan", 'set learn.cache = "off"', (SIMULATE,)),
    *(Rule(f"cut-{key}", (chosen_cut, _set(key)), "it is about a cut that stays",
           f"leave {key} out, or do not choose the cut", (SIMULATE,))
      for key in ("plan.budget", "plan.measure_every", "network.calibrate")),
    # plans
    Rule("endless", (_is("plan.latency_weight", 0), _is("plan.deadline", 0)), "no round would be too long",
         "give either", ALL),
    Rule("budget-method", (_set("plan.budget"), _not("plan.method", "optimal")),
         "only optimal plans keep a budget", 'use plan.method = "optimal"', ALL),
    Rule("budget-bits", (_set("plan.budget"), BITS_CHOSEN), "plans that keep a budget do not choose bits",
         "leave one of them out", ALL),
    Rule("budget-every", (_set("plan.budget"), _not("plan.every", 1)), "a budget is kept by planning every round",
         "set plan.every = 1", ALL),
    *SUBCHANNEL_RULES,
    Rule("ref-labels", (_is("network.scenario", "refA"), AT_HOME, _is("model.name", ModelSettings().name)),
         "the reference cell's published numbers have labels on the server",
         "name another model, or choose another network.scenario", NETWORK),
    # networks
    Rule("cell-servers", (_is("network.scenario", "cell"), many_servers), "a cell has one server",
         'choose network.scenario = "square"', ALL),
    *(Rule(f"listed-{key}-{tables}", (_set(f"network.{key}"), _set(f"network.{tables}")),
           "the tables or profiles list them", "leave one of the two out", ALL)
      for key, tables in (("devices", "device"), ("devices", "profiles"), ("servers", "server"))),
    Rule("ref-fading", (_is("network.scenario", "refA"), _is("network.fading", "rician")),
         "the reference cell has rayleigh fading or none", 'choose network.scenario = "cell"', NETWORK),
    Rule("trace-servers", (_set("network.trace"), many_servers), "a trace is measured at one server",
         "leave network.trace out", NETWORK),
    *AIRTIME_RULES, *ASSOCIATION_RULES, *BITS_RULES, *BUFFERED_RULES, *DECORRELATION_RULES, *DROP_RULES,
    *FLOWER_RULES, *LEAN_RULES,
    *PRESENCE_RULES, *PRIVACY_RULES, *RANKS_RULES, *REPARTITION_RULES, *ROBUST_RULES, *SAMPLE_RULES, *SECURE_RULES,
    *SERVED_RULES, *SERVERS_RULES, *TIMING_RULES, *LEAKAGE_RULES, *PASSES_RULES, *POISSON_RULES, *TRUNK_RULES,
    *TUNED_RULES, *UNUSED, *WEIGHTS_RULES,
)  # fmt: skip
