"""From settings and a seed to a network: positions, hardware and the gains of a given round.

Every draw has its own stream: changing the fading does not move a device. The network of a round is a pure function
of (settings, seed, round); positions, shadowing and machines do not change over rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sflam.errors import ConfigError
from sflam.network import channel, trace
from sflam.network.network import Floats, Network
from sflam.network.profiles import DEVICES, GIGA, SERVERS, Profile, profile
from sflam.network.reference import SERVER_FLOPS_PER_CYCLE, Edge, ref_a, ref_b
from sflam.network.settings import (
    COUNTS,
    DEFAULT_SERVER_FLOPS_PER_CYCLE,
    DeviceEntry,
    NetworkSettings,
    ServerEntry,
)
from sflam.seeds import generator
from sflam.units import db_to_ratio, dbm_to_watt

MOST_EFFICIENT = 10.0
"""bit/s/Hz: a link whose measured rate is higher has a wider band than the settings have, if it has any."""


def build(settings: NetworkSettings, seed: int, round_number: int = 0) -> Network:
    """Return the network of a round.

    Raises:
        ConfigError: a profile or trace that cannot be used, or a trace of other devices.
    """
    if settings.scenario == "refA":
        return _accessed(settings, _reference(settings, seed, round_number))
    if settings.scenario == "refB":
        return reference_square(settings, seed, round_number).network
    if settings.trace:
        measured = trace.read(settings.trace)
        settings = _named_by(settings, measured)
        if measured.shares_time and settings.access != "airtime":
            raise ConfigError(
                f"network.access is {settings.access!r}, but the devices of trace {settings.trace} shared the time of "
                'one link, as its column contention has it; set network.access = "airtime"'
            )
    still = _accessed(settings, _still(settings, seed))
    noise = dbm_to_watt(settings.noise_dbm_hz) * db_to_ratio(settings.snr_gap_db)
    if settings.trace:
        if len(still.bandwidth) > 1:
            raise ConfigError("network.trace with several servers; a trace is measured at one")
        order = [measured.names.index(name) for name in still.names]
        gain = measured.at(round_number)[order]
        if measured.kind == "rate":
            if (
                settings.access == "airtime"
            ):  # of a link that may be no radio: what it carries counts, not its band
                still = replace(
                    still, bandwidth=np.maximum(still.bandwidth, measured.values.max() / MOST_EFFICIENT)
                )
            gain = channel.gain_of_rate(gain, still.bandwidth[0], still.max_power, noise)
            still = replace(still, full_power=np.ones(len(still)))
        return _checked_gains(replace(still, gain=gain[None, :]))
    shape, kind, steady = still.gain.shape, settings.fading, settings.rician_db
    if settings.coherence and kind != "none":
        new = partial(generator, seed, "scattered")
        faded = channel.coherent_fading(
            new, round_number, shape, kind, coherence=settings.coherence, rician_db=steady
        )
    else:
        faded = channel.fading(generator(seed, "fading", round_number), shape, kind, rician_db=steady)
    measured_gain = np.array([machine.is_measured for machine in _machines(settings)])
    return _checked_gains(replace(still, gain=np.where(measured_gain, still.gain, still.gain * faded)))


def _accessed(settings: NetworkSettings, network: Network) -> Network:
    """Return the network with what its devices share: the band, or the time of the whole band."""
    return replace(network, airtime=1.0) if settings.access == "airtime" else network


def _checked_gains(network: Network) -> Network:
    """Return the network; raises ConfigError where a gain is zero or infinite."""
    good = (np.isfinite(network.gain) & (network.gain > 0)).all(axis=0)
    if not good.all():
        index = int(np.argmin(good))
        raise ConfigError(
            f"device {network.names[index]!r} has a channel gain of {network.gain[:, index].tolist()}; it must be "
            "positive and finite: check its distance, gain or rate, and the path loss"
        )
    return network


def _reference(settings: NetworkSettings, seed: int, round_number: int) -> Network:
    if settings.fading == "rician":
        raise ConfigError("network.fading is 'rician', but scenario refA has rayleigh or none; choose 'cell'")
    network = ref_a(
        settings.devices,
        seed,
        bandwidth=settings.bandwidth_mhz * 1e6,
        radius=settings.radius_m,
        fading=settings.fading == "rayleigh",
    )
    names = tuple(f"device-{index}" for index in range(settings.devices))
    if round_number == 0 or settings.fading == "none":
        return replace(network, names=names)
    # Round 0 is the published cell; later rounds keep its positions and clocks.
    return replace(network, names=names, gain=_redrawn(network.gain, seed, round_number, settings.devices))


def reference_square(settings: NetworkSettings, seed: int, round_number: int = 0) -> Edge:
    """Return the reference square of a round, with its users' data; later rounds redraw the fading alone."""
    users, servers = settings.devices, settings.servers
    edge = ref_b(
        users,
        servers,
        seed,
        settings.server_flops_per_cycle or SERVER_FLOPS_PER_CYCLE,
        bandwidth=settings.bandwidth_mhz * 1e6,
    )
    if round_number == 0:
        return edge
    gain = _redrawn(edge.network.gain, seed, round_number, (users + servers, 2))
    return replace(edge, network=replace(edge.network, gain=gain))


def _redrawn(gain: Floats, seed: int, round_number: int, positions: int | tuple[int, int]) -> Floats:
    """Return a reference network's gains [M, K] with the fading of a later round; positions are drawn before it."""
    draw = np.random.default_rng(seed)
    draw.uniform(size=positions)
    first = channel.fading(draw, gain.shape[::-1], "rayleigh").T
    again = channel.fading(generator(seed, "fading", round_number), gain.shape, "rayleigh")
    faded: Floats = gain / first * again
    return faded


@dataclass(frozen=True)
class _Machine:
    """One device's entry beside its profile."""

    entry: DeviceEntry
    profile: Profile | None
    name: str

    @property
    def rate(self) -> float:
        """Measured bit/s, or 0."""
        if self.entry.rate_mbps is not None:
            return self.entry.rate_mbps * 1e6
        placed = self.entry.distance_m or self.entry.position_m or self.entry.gain_db is not None
        return self.profile.rate if self.profile and not placed else 0.0

    @property
    def is_measured(self) -> bool:
        """Whether its channel was measured, so that nothing is drawn on top."""
        return self.entry.gain_db is not None or self.rate > 0


def _machines(settings: NetworkSettings) -> list[_Machine]:
    entries = list(settings.device)
    entries += [DeviceEntry(profile=name, count=count) for name, count in settings.profiles.items()]
    entries = entries or [DeviceEntry(count=settings.devices)]
    found: list[_Machine] = []
    for entry in entries:
        kind = profile(entry.profile, DEVICES | SERVERS) if entry.profile else None
        stem = entry.name or entry.profile.rpartition("/")[2].removesuffix(".toml") or "device"
        alone = bool(entry.name) and entry.count == 1
        found += [
            _Machine(entry, kind, stem if alone else f"{stem}-{len(found) + index}")
            for index in range(entry.count)
        ]
    return found


def _still(settings: NetworkSettings, seed: int) -> Network:
    """Return the network without fading: gains are path loss and shadowing, or what was measured."""
    machines = _machines(settings)
    servers = list(settings.server) or [ServerEntry(profile=settings.server_profile)] * settings.servers
    device_places, server_places = _places(settings, machines, servers, seed)
    distance = np.linalg.norm(server_places[:, None, :] - device_places[None, :, :], axis=-1)
    gain = channel.path_gain(
        distance,
        loss_db=settings.path_loss_db,
        slope_db=settings.path_loss_slope_db,
        nearest=settings.min_distance_m,
    )
    gain = gain * channel.shadowing(generator(seed, "shadowing"), gain.shape, spread_db=settings.shadowing_db)
    low, high = settings.clock_ghz
    clocks = generator(seed, "clocks").uniform(low * GIGA, high * GIGA, len(machines))
    kinds = [(machine.entry, machine.profile) for machine in machines]
    stations = [
        (server, profile(server.profile, SERVERS | DEVICES) if server.profile else None) for server in servers
    ]
    memory = _column(kinds, "memory_gb", GIGA, "memory", settings.memory_gb * GIGA)
    useful = "useful_flops_per_cycle"
    network = Network(
        gain=gain,
        max_power=np.array(
            [dbm_to_watt(_or(machine.entry.max_power_dbm, settings.max_power_dbm)) for machine in machines]
        ),
        max_clock=_column(kinds, "clock_ghz", GIGA, "clock", clocks),
        flops_per_cycle=_column(kinds, "flops_per_cycle", 1, useful, settings.flops_per_cycle),
        kappa=_column(kinds, "kappa", 1, "kappa", settings.kappa),
        static_power=_column(kinds, "static_power_w", 1, "idle", settings.static_power_w),
        amplifier_efficiency=_radio(kinds, "amplifier_efficiency", settings.amplifier_efficiency),
        circuit_power=_radio(kinds, "circuit_power_w", settings.circuit_power_w),
        receive_power=_radio(kinds, "receive_power_w", settings.receive_power_w),
        down_rate=np.array([_or(own.downlink_mbps, np.inf) * 1e6 for own, _ in kinds]),
        exchange_s=np.array([_or(own.latency_ms, 0.0) / 1e3 for own, _ in kinds]),
        memory=np.where(memory > 0, memory, math.inf),
        energy_weight=np.array([machine.entry.weight for machine in machines]),
        noise=dbm_to_watt(settings.noise_dbm_hz) * db_to_ratio(settings.snr_gap_db),
        bandwidth=np.array([_or(server.bandwidth_mhz, settings.bandwidth_mhz) * 1e6 for server in servers]),
        server_clock=_column(stations, "clock_ghz", GIGA, "clock", settings.server_clock_ghz * GIGA),
        server_flops_per_cycle=_column(
            stations,
            "flops_per_cycle",
            1,
            useful,
            settings.server_flops_per_cycle or DEFAULT_SERVER_FLOPS_PER_CYCLE,
        ),
        server_kappa=np.array([_or(server.kappa, settings.server_kappa) for server in servers]),
        names=tuple(machine.name for machine in machines),
        positions=device_places,
        server_positions=server_places,
    )
    full = np.array([float(machine.rate > 0) for machine in machines])
    return replace(network, gain=_measured(network, machines), full_power=full)


def _measured(network: Network, machines: list[_Machine]) -> Floats:
    """Return the gains with the measured ones in place of the drawn ones."""
    gain = network.gain.copy()
    for index, machine in enumerate(machines):
        if machine.entry.gain_db is not None:
            gain[:, index] = db_to_ratio(machine.entry.gain_db)
        elif machine.rate:
            power, band = network.max_power[index], float(network.bandwidth[0])
            gain[:, index] = channel.gain_of_rate(np.asarray(machine.rate), band, power, network.noise)
    return gain


def _places(
    settings: NetworkSettings, machines: list[_Machine], servers: list[ServerEntry], seed: int
) -> tuple[Floats, Floats]:
    """Return [K, 2] and [M, 2] in m."""
    draw, server_draw = generator(seed, "positions"), generator(seed, "server-positions")
    count = len(machines)
    if settings.scenario == "square":
        devices = draw.uniform(0.0, settings.side_m, (count, 2))
        stations = server_draw.uniform(0.0, settings.side_m, (len(servers), 2))
    else:
        radius = np.sqrt(draw.uniform(settings.min_distance_m**2, settings.radius_m**2, count))
        angle = draw.uniform(0.0, 2.0 * math.pi, count)
        devices = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        stations = np.zeros((len(servers), 2))
    for index, server in enumerate(servers):
        if server.position_m is not None:
            stations[index] = server.position_m
    for index, machine in enumerate(machines):
        if machine.entry.position_m is not None:
            devices[index] = machine.entry.position_m
        elif machine.entry.distance_m is not None:
            away = devices[index] - stations[0]
            away = away / np.linalg.norm(away) if np.any(away) else np.array([1.0, 0.0])
            devices[index] = stations[0] + machine.entry.distance_m * away
    return devices, stations


def _named_by(settings: NetworkSettings, measured: trace.Trace) -> NetworkSettings:
    """Return the settings with the trace's devices: by name where tables name them, else that many."""
    if not settings.device and not settings.profiles:
        if settings.devices not in (COUNTS["devices"], len(measured.names)):
            raise ConfigError(
                f"network.devices is {settings.devices}, but trace {settings.trace} has {len(measured.names)}; "
                "leave it out"
            )
        tables = tuple(DeviceEntry(name=name) for name in measured.names)
        return replace(settings, device=tables, devices=COUNTS["devices"])
    names = [machine.name for machine in _machines(settings)]
    if sorted(names) != sorted(measured.names):
        strange = sorted(set(names) ^ set(measured.names))[0]
        raise ConfigError(
            f"trace {settings.trace} has {len(measured.names)} devices, the network {len(names)}; {strange!r} is not "
            "in both: give them the same names"
        )
    return settings


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _column(
    entries: Sequence[tuple[DeviceEntry | ServerEntry, Profile | None]],
    key: str,
    unit: float,
    attribute: str,
    default: float | Floats,
) -> Floats:
    """Return for each the value of its entry, else of its profile, else the default."""
    column = np.broadcast_to(np.asarray(default, dtype=np.float64), (len(entries),)).copy()
    for index, (entry, kind) in enumerate(entries):
        value = getattr(entry, key)
        if value is not None:
            column[index] = value * unit
        elif kind is not None:
            column[index] = getattr(kind, attribute)
    return column


def _radio(entries: Sequence[tuple[DeviceEntry, Profile | None]], key: str, default: float) -> Floats:
    """Return for each the value of its entry, else of its profile where that knows its radio, else the default."""
    values = [getattr(entry, key) for entry, _ in entries]
    attribute = key.removesuffix("_w")
    kinds = [None if kind is None else getattr(kind, attribute) for _, kind in entries]
    return np.array([_or(value, _or(kind, default)) for value, kind in zip(values, kinds, strict=True)])
