"""``[network]``: devices and servers, their hardware and gains. Units as people write them. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from sflam.ranges import Ranges

SCENARIOS = ("cell", "square", "refA", "refB")
FADINGS = ("rayleigh", "rician", "none")
ACCESSES = ("fdma", "airtime")
COUNTS = {"devices": 20, "servers": 1}
REFERENCE_KEYS = {
    "refA": {
        "scenario",
        "devices",
        "radius_m",
        "bandwidth_mhz",
        "access",
        "fading",
        "downlink_mbps",
        "simulate",
        "calibrate",
        "battery_j",
        "idle_always",
        "failure",
        "presence",
    },
    "refB": {"scenario", "devices", "servers", "bandwidth_mhz", "server_flops_per_cycle"},
}
"""What the reference networks leave open; the rest of them is fixed."""
DEFAULT_SERVER_FLOPS_PER_CYCLE = 1e5
"""Where none is set, and the scenario has no value of its own."""


PLACES = ("distance_m", "position_m", "gain_db", "rate_mbps")
"""Keys of which a device has one at most: each sets its gain."""
LEAST_EFFICIENCY = 1e-6
"""Of an amplifier: less is none."""
DBM = " (dBm: 20 is 0.1 W)"


@dataclass(frozen=True, kw_only=True)
class DeviceEntry:
    """One ``[[network.device]]``; what is left out comes from its profile, then from ``[network]``.

    Attributes:
        name: what to call it; made from the profile where empty.
        count: how many alike.
        profile: a name of ``sflam.network.profiles`` or a file that ``sflam profile`` wrote.
        distance_m: from the first server; drawn where neither this nor a position nor a gain is given.
        position_m: x and y.
        gain_db: measured channel gain at every server; then neither path loss, shadowing nor fading is added.
        rate_mbps: measured rate at full power over the whole band of the first server, instead of a gain.
        max_power_dbm: highest transmit power.
        clock_ghz: highest clock.
        flops_per_cycle: of all cores together.
        kappa: W s^3 of kappa f^3.
        static_power_w: drawn at any clock, over the whole round.
        amplifier_efficiency: radiated over drawn power of the amplifier.
        circuit_power_w: drawn by the rest of the radio while it sends.
        receive_power_w: drawn by the radio while it receives.
        downlink_mbps: measured rate of its way down, instead of ``network.downlink_mbps``.
        latency_ms: what an exchange of a step takes beside its bytes and the server.
        memory_gb: what training may use; 0 for no limit.
        weight: of its energy in the objective.
        failure: ``network.failure`` of its own.
        joins_s: s on the clock of a simulated run at which it comes; from the start where it is left out.
        leaves_s: s at which it leaves for good; never where it is left out.
    """

    name: str = ""
    count: int = 1
    profile: str = ""
    distance_m: float | None = None
    position_m: tuple[float, ...] | None = None
    gain_db: float | None = None
    rate_mbps: float | None = None
    max_power_dbm: float | None = None
    clock_ghz: float | None = None
    flops_per_cycle: float | None = None
    kappa: float | None = None
    static_power_w: float | None = None
    amplifier_efficiency: float | None = None
    circuit_power_w: float | None = None
    receive_power_w: float | None = None
    downlink_mbps: float | None = None
    latency_ms: float | None = None
    memory_gb: float | None = None
    weight: float = 1.0
    failure: float | None = None
    joins_s: float | None = None
    leaves_s: float | None = None

    def __post_init__(self) -> None:
        ranges = Ranges(self, "network.device")
        ranges.positive("distance_m", "rate_mbps", "clock_ghz", "flops_per_cycle", "downlink_mbps")
        ranges.at_least(
            0, "kappa", "static_power_w", "circuit_power_w", "receive_power_w", "memory_gb", "weight"
        )
        ranges.at_least(0, "latency_ms", "joins_s")
        ranges.between(0, 1, "failure")
        if self.leaves_s is not None:
            ranges.require(
                self.leaves_s > (self.joins_s or 0.0), "leaves_s", "it must be after network.device.joins_s"
            )
        ranges.between(LEAST_EFFICIENCY, 1, "amplifier_efficiency")
        ranges.at_least(1, "count")
        ranges.between(-250, 0, "gain_db")
        ranges.between(-60, 60, "max_power_dbm", hint=DBM)
        ranges.require(self.position_m is None or len(self.position_m) == 2, "position_m", "give x and y")
        places = [key for key in PLACES if getattr(self, key) is not None]
        if len(places) > 1:
            ranges.problems.append(f"network.device has {' and '.join(places)}; give one of them")
        ranges.check()


@dataclass(frozen=True, kw_only=True)
class ServerEntry:
    """One ``[[network.server]]``; what is left out comes from its profile, then from ``[network]``.

    Attributes:
        profile: a name of ``sflam.network.profiles`` or a file that ``sflam profile`` wrote.
        position_m: x and y; the first of a cell is at the origin.
        bandwidth_mhz: of its band.
        clock_ghz: to share among its devices.
        flops_per_cycle: of all cores together.
        kappa: W s^3 of kappa f^3; a profile does not set it.
    """

    profile: str = ""
    position_m: tuple[float, ...] | None = None
    bandwidth_mhz: float | None = None
    clock_ghz: float | None = None
    flops_per_cycle: float | None = None
    kappa: float | None = None

    def __post_init__(self) -> None:
        ranges = Ranges(self, "network.server")
        ranges.positive("bandwidth_mhz", "clock_ghz", "flops_per_cycle")
        ranges.at_least(0, "kappa")
        ranges.require(self.position_m is None or len(self.position_m) == 2, "position_m", "give x and y")
        ranges.check()


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The radio network of the devices and servers.

    Attributes:
        scenario: ``cell`` (a disc around one server), ``square`` (devices and servers anywhere in it), or ``refA``
            or ``refB`` (the reference cell and the reference square, with their own orders of draws).
        devices: how many, where neither ``profiles`` nor ``[[network.device]]`` lists them.
        servers: how many, where no ``[[network.server]]`` lists them.
        profiles: kinds of devices and how many of each, ``{"raspberry-pi-5" = 10, "phone" = 5}``.
        server_profile: kind of the servers; empty takes the ``server_`` keys.
        device: tables of single devices, ``[[network.device]]``.
        server: tables of single servers, ``[[network.server]]``.
        radius_m: radius of the cell.
        side_m: side of the square.
        min_distance_m: least distance of a device from a server.
        bandwidth_mhz: band of every server, shared by its devices.
        access: what devices share of it: ``fdma``, each has a part of the band for all of the time; or ``airtime``,
            each has the whole band in a share of the time (WiFi, TDMA, a wired link). There a share changes seconds and
            not joules, what comes down takes its part of the time, too, and devices whose rate was measured send at
            full power.
        max_power_dbm: highest transmit power of a device.
        noise_dbm_hz: noise density N0.
        snr_gap_db: signal-to-noise ratio that a real code needs beyond Shannon's.
        path_loss_db: path loss at 1 km.
        path_loss_slope_db: path loss that every tenfold distance adds.
        shadowing_db: standard deviation of the shadowing; the same in every round.
        fading: ``rayleigh``, ``rician`` or ``none``; drawn anew every round.
        coherence: correlation of the scattered paths' amplitudes from one round to the next, from 0, anew every round,
            to 0.99; J0(2 pi f_D T) with the Doppler frequency f_D and the time T from round to round.
        rician_db: power of the steady path over the scattered ones.
        clock_ghz: lowest and highest of the devices' highest clocks, drawn evenly.
        flops_per_cycle: FLOP per clock cycle of a device, all cores together.
        kappa: W s^3: a device draws kappa f^3 while computing.
        static_power_w: power that a device draws at any clock: over the whole round, waiting included, where it takes
            part; among several servers, while it computes. See ``idle_always``.
        amplifier_efficiency: power that a device radiates over what its amplifier draws, eta: sending at p W draws
            p / eta. 1 counts radiated power alone; measured amplifiers reach 0.2 to 0.5, 0.35 in Cui, Goldsmith, Bahai
            (IEEE Transactions on Wireless Communications, 2005).
        circuit_power_w: power that the rest of a device's radio draws while it sends, whatever it radiates. 0 counts
            none; 0.098 in the sensor of Cui et al., 1.288 in the LTE phones that Huang et al. measured (MobiSys 2012).
        receive_power_w: power that a device's radio draws while it receives, which takes no time without
            ``downlink_mbps``. 0 counts none; 0.113 and 1.288 there.
        memory_gb: memory of a device that training may use; 0 for no limit.
        server_clock_ghz: clock of a server.
        server_flops_per_cycle: FLOP per clock cycle of a server, all cores together; 0 takes 1e5, in refB 1024.
        server_kappa: W s^3 of a server's kappa f^3; 0 leaves its energy to the mains, with any profile.
        downlink_mbps: rate of the way down to each device, in its own slots where time is shared; 0 leaves its time
            out.
        backhaul_mbps: rate of the links between several servers, each of which sends the adapters of the whole model
            once a round to be averaged, and gets them back; 0 leaves that time out.
        simulate: train on a virtual clock over this network, as ``sflam simulate`` does.
        calibrate: in a simulated run, a step takes as long as it was measured to take on this machine, which stands for
            the fastest device and for the server, and bodies count whole, headers too; virtual time then depends on
            this machine. Otherwise both are modelled.
        battery_j: energy of every device for the whole simulated run; 0 for the mains.
        idle_always: in a simulated run, static power is charged in every second of every device, also where no plan
            counts it: to devices that take no part, in a relay while others train, and among several servers while a
            device waits. A battery that is empty draws none.
        failure: in a simulated run, the probability that a device fails within a round, at an instant of its own part
            of it drawn evenly; what it did until then is charged, and it can be in the next round.
        presence: in a simulated run, a CSV file of who is there when: ``device``, ``since_s`` and ``until_s`` on the
            run's clock, a row per stay; an empty ``until_s`` is for good. Devices that it does not name are always
            there. One that leaves within a round is like one that fails.
        trace: a CSV or parquet file of measured gains or rates, a row per device and round, a JSON file of iperf3, a
            mahimahi trace (``.up``, ``.down``, ``.mahi``), or a folder with one of these per device; empty draws
            fading. Rows at uneven times are resampled. One of a served run is of devices that share time: it takes
            ``access = "airtime"``.
    """

    scenario: str = "cell"
    devices: int = COUNTS["devices"]
    servers: int = COUNTS["servers"]
    profiles: dict[str, int] = field(default_factory=dict)
    server_profile: str = ""
    device: tuple[DeviceEntry, ...] = ()
    server: tuple[ServerEntry, ...] = ()
    radius_m: float = 250.0
    side_m: float = 500.0
    min_distance_m: float = 10.0
    bandwidth_mhz: float = 20.0
    access: str = "fdma"
    max_power_dbm: float = 23.0
    noise_dbm_hz: float = -174.0
    snr_gap_db: float = 0.0
    path_loss_db: float = 128.1
    path_loss_slope_db: float = 37.6
    shadowing_db: float = 0.0
    fading: str = "rayleigh"
    coherence: float = 0.0
    rician_db: float = 6.0
    clock_ghz: tuple[float, ...] = (0.5, 1.5)
    flops_per_cycle: float = 512.0
    kappa: float = 1e-28
    static_power_w: float = 0.0
    amplifier_efficiency: float = 1.0
    circuit_power_w: float = 0.0
    receive_power_w: float = 0.0
    memory_gb: float = 0.0
    server_clock_ghz: float = 1.0
    server_flops_per_cycle: float = 0.0
    server_kappa: float = 0.0
    downlink_mbps: float = 0.0
    backhaul_mbps: float = 0.0
    simulate: bool = False
    calibrate: bool = False
    battery_j: float = 0.0
    idle_always: bool = False
    failure: float = 0.0
    presence: str = ""
    trace: str = ""

    def __post_init__(self) -> None:
        ranges = Ranges(self, "network")
        ranges.positive(
            "radius_m", "side_m", "min_distance_m", "bandwidth_mhz", "flops_per_cycle", "server_clock_ghz"
        )
        ranges.at_least(
            0, "snr_gap_db", "path_loss_slope_db", "shadowing_db", "kappa", "static_power_w", "memory_gb"
        )
        ranges.at_least(0, "circuit_power_w", "receive_power_w")
        ranges.between(LEAST_EFFICIENCY, 1, "amplifier_efficiency")
        ranges.between(0, 1, "failure")
        ranges.between(0, 0.99, "coherence", hint=" (0.9 is slow; 0 is drawn anew every round)")
        ranges.at_least(
            0, "server_kappa", "server_flops_per_cycle", "downlink_mbps", "backhaul_mbps", "battery_j"
        )
        ranges.between(-60, 60, "max_power_dbm", hint=DBM)
        ranges.between(-250, -50, "noise_dbm_hz", hint=" (dBm/Hz)")
        ranges.named("scenario", SCENARIOS, "scenario")
        ranges.named("fading", FADINGS, "fading")
        ranges.one_of(ACCESSES, "access")
        ranges.at_least(1, "devices", "servers")
        for name, count in self.profiles.items():
            if count < 1:
                ranges.problems.append(f"network.profiles: {count} of {name!r}; it must be at least 1")
        ends = self.clock_ghz
        ranges.require(
            len(ends) == 2 and 0 < ends[0] <= ends[1], "clock_ghz", "give the lowest and the highest, above 0"
        )
        ranges.require(
            self.min_distance_m < self.radius_m,
            "min_distance_m",
            f"it must be below network.radius_m = {self.radius_m:g}",
        )
        if self.scenario in REFERENCE_KEYS:
            ranges.problems += self._fixed()
        ranges.check()

    def _fixed(self) -> list[str]:
        """Return a problem per setting that the reference network fixes."""
        plain = {item.name: item.default for item in fields(self)} | {"profiles": {}}
        return [
            f"network.{key} is set, but scenario {self.scenario} fixes it; choose 'cell' or leave {key} out"
            for key, default in plain.items()
            if key not in REFERENCE_KEYS[self.scenario] and getattr(self, key) != default
        ]
