"""Devices and servers by name: what they compute, how fast, with what memory and power.

Cores, FLOP per cycle (float32, a fused multiply-add is two), clocks and memory are the vendors' specifications:

- Raspberry Pi 4 B: BCM2711, four Cortex-A72, one 128-bit multiply-add a cycle; 2.7 W idle, 6.4 W with all cores busy.
- Raspberry Pi 5: BCM2712, four Cortex-A76, two 128-bit multiply-adds a cycle; about 3 W idle, 9 W busy.
- Jetson Nano: 128 Maxwell CUDA cores; 10 W mode, about 2 W idle.
- Jetson Orin Nano 8 GB: 1024 Ampere CUDA cores at 625 MHz; 15 W mode, about 5 W idle.
- The same phone over LTE (``phone-lte``): 1.288 W while its radio is active, sending or receiving (Huang et al., "A
  close examination of performance and power characteristics of 4G LTE networks", MobiSys 2012), and an amplifier that
  radiates 0.35 of what it draws (Cui, Goldsmith, Bahai, "Energy-constrained modulation optimization", IEEE Transactions
  on Wireless Communications 4(5), 2005). The other profiles leave their radios to ``[network]``.
- Phone: four large cores of a flagship of 2022-24, two 128-bit multiply-adds a cycle; about 5 W sustained.
- NVIDIA T4, L4, A100 (PCIe): CUDA cores at boost clock, board power; idle as their tools report it.

The powers of the boards are rounded from published measurements of whole boards, and vary by some tens of per cent
with the workload; measure your own with ``sflam profile``. ``efficiency`` is the share of the peak that large
matrix products reach, assumed to be one half where it is not measured.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from sflam.errors import ConfigError, unknown


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One kind of machine. SI units.

    Attributes:
        cores: cores that compute together.
        flops_per_cycle: peak float32 FLOP per cycle of one core.
        clock: highest clock, Hz.
        memory: bytes.
        power: W drawn at the highest clock, above idle; 0 where it is not measured.
        idle: W drawn at any clock.
        efficiency: share of the peak that training reaches.
        rate: bit/s of its uplink at full power over the whole band; 0 where the channel decides.
        amplifier_efficiency: radiated over drawn power of its radio's amplifier; None where ``[network]`` says.
        circuit_power: W that the rest of the radio draws while it sends; None likewise.
        receive_power: W that the radio draws while it receives; None likewise.
    """

    cores: int
    flops_per_cycle: float
    clock: float
    memory: float
    power: float = 0.0
    idle: float = 0.0
    efficiency: float = 0.5
    rate: float = 0.0
    amplifier_efficiency: float | None = None
    circuit_power: float | None = None
    receive_power: float | None = None

    @property
    def useful_flops_per_cycle(self) -> float:
        """FLOP per cycle of all cores together that training reaches (1.12)."""
        return self.cores * self.flops_per_cycle * self.efficiency

    @property
    def kappa(self) -> float:
        """W s^3 of kappa f^3, from the power at the highest clock."""
        return self.power / self.clock**3


GIGA = 1e9
DEVICES: dict[str, Profile] = {
    "raspberry-pi-4": Profile(cores=4, flops_per_cycle=8, clock=1.8e9, memory=4e9, power=3.7, idle=2.7),
    "raspberry-pi-5": Profile(cores=4, flops_per_cycle=16, clock=2.4e9, memory=8e9, power=6.0, idle=3.0),
    "jetson-nano": Profile(cores=128, flops_per_cycle=2, clock=0.921e9, memory=4e9, power=8.0, idle=2.0),
    "jetson-orin-nano": Profile(
        cores=1024, flops_per_cycle=2, clock=0.625e9, memory=8e9, power=10.0, idle=5.0
    ),
    "phone": Profile(cores=4, flops_per_cycle=16, clock=2.8e9, memory=8e9, power=4.5, idle=0.5),
    "phone-lte": Profile(
        cores=4,
        flops_per_cycle=16,
        clock=2.8e9,
        memory=8e9,
        power=4.5,
        idle=0.5,
        amplifier_efficiency=0.35,
        circuit_power=1.288,
        receive_power=1.288,
    ),
}
SERVERS: dict[str, Profile] = {
    "t4": Profile(cores=2560, flops_per_cycle=2, clock=1.59e9, memory=16e9, power=60.0, idle=10.0),
    "l4": Profile(cores=7424, flops_per_cycle=2, clock=2.04e9, memory=24e9, power=56.0, idle=16.0),
    "a100": Profile(cores=6912, flops_per_cycle=2, clock=1.41e9, memory=40e9, power=215.0, idle=35.0),
}

# key of a profile file -> (attribute, factor to SI, whether it may be 0, whether it may be left out)
KEYS: dict[str, tuple[str, float, bool, bool]] = {
    "cores": ("cores", 1, False, False),
    "flops_per_cycle": ("flops_per_cycle", 1, False, False),
    "clock_ghz": ("clock", GIGA, False, False),
    "memory_gb": ("memory", GIGA, False, False),
    "power_w": ("power", 1, True, True),
    "idle_w": ("idle", 1, True, True),
    "efficiency": ("efficiency", 1, False, True),
    "rate_mbps": ("rate", 1e6, True, True),
    "amplifier_efficiency": ("amplifier_efficiency", 1, False, True),
    "circuit_power_w": ("circuit_power", 1, True, True),
    "receive_power_w": ("receive_power", 1, True, True),
}


def profile(name: str, known: dict[str, Profile]) -> Profile:
    """Return a profile by its name in ``known``, or from a ``.toml`` file; raises ConfigError."""
    if name in known:
        return known[name]
    if not name.endswith(".toml"):
        raise ConfigError(f"{unknown('profile', name, known)}; or give a .toml file that sflam profile wrote")
    try:
        values = tomllib.loads(Path(name).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"profile {name} cannot be read: {error}") from error
    return _checked(name, values.get("profile", values))


def _checked(name: str, values: object) -> Profile:
    if not isinstance(values, dict):
        raise ConfigError(f"profile {name}: profile is no table; write its keys under [profile]")
    problems = [f"profile {name}: {unknown('key', key, KEYS)}" for key in values if key not in KEYS]
    built = {}
    for key, (attribute, factor, may_be_zero, optional) in KEYS.items():
        value = values.get(key)
        if value is None:
            if not optional:
                problems.append(f"profile {name}: {key} is missing")
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (0 if may_be_zero else 1e-300) <= value < 1e30:
            problems.append(f"profile {name}: {key} is {value!r}; it must be a positive number")
        elif key == "cores" and value != int(value):
            problems.append(f"profile {name}: cores is {value!r}; it must be a whole number")
        else:
            built[attribute] = int(value) if key == "cores" else float(value) * factor
    for key in ("efficiency", "amplifier_efficiency"):
        if built.get(key, 0.5) > 1:
            problems.append(f"profile {name}: {key} is {built[key]}; it must be at most 1")
    if problems:
        raise ConfigError(problems)
    return Profile(**built)  # type: ignore[arg-type]  # cores is the integer


def to_toml(profile: Profile, *, remarks: tuple[str, ...] = ()) -> str:
    """Return the file that ``profile`` reads back to an equal profile."""
    lines = [*(f"# {remark}" for remark in remarks), "[profile]"]
    for key, (attribute, factor, _, _) in KEYS.items():
        value = getattr(profile, attribute)
        if value is None:
            continue
        lines.append(f"{key} = {value if key == 'cores' else float(value) / factor!r}")
    return "\n".join(lines) + "\n"
