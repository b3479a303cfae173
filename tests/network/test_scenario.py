"""Settings and a seed make a network: pure, stable across rounds where it must be, and as the tables say."""

from __future__ import annotations

import numpy as np
import pytest

from sflam.config import load
from sflam.errors import ConfigError
from sflam.network.channel import rate
from sflam.network.profiles import DEVICES, SERVERS
from sflam.network.reference import ref_a
from sflam.network.scenario import build
from sflam.network.settings import NetworkSettings


def settings(*overrides):
    return load(None, [f"network.{override}" for override in overrides]).network


def test_a_network_is_a_pure_function_of_settings_seed_and_round():
    some = settings("devices=7", "shadowing_db=8")
    first, again, other = build(some, 3, 5), build(some, 3, 5), build(some, 4, 5)
    for name in ("gain", "max_clock", "positions"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_only_the_fading_changes_over_rounds_and_moves_no_device():
    some = settings("devices=7", "shadowing_db=8")
    first, later = build(some, 0, 0), build(some, 0, 1)
    assert np.array_equal(first.positions, later.positions) and np.array_equal(
        first.max_clock, later.max_clock
    )
    assert not np.any(first.gain == later.gain)
    steady = build(settings("devices=7", "shadowing_db=8", "fading=none"), 0, 1)
    assert np.array_equal(steady.positions, first.positions)
    distance = np.linalg.norm(steady.positions, axis=1)
    assert np.all((distance >= 10) & (distance <= 250))


def test_more_devices_leave_the_streams_of_others_alone():
    few, many = build(settings("devices=3"), 0), build(settings("devices=9"), 0)
    assert np.array_equal(few.max_clock, many.max_clock[:3])


def test_the_reference_cell_is_the_reference_cell():
    built, expected = build(settings("scenario=refA", "devices=50"), 3), ref_a(50, 3)
    assert np.array_equal(built.gain, expected.gain) and np.array_equal(built.max_clock, expected.max_clock)
    later = build(settings("scenario=refA", "devices=50"), 3, 2)
    assert np.array_equal(later.max_clock, expected.max_clock) and not np.any(later.gain == expected.gain)
    still = ref_a(50, 3, fading=False).gain
    assert np.median(later.gain / still) == pytest.approx(np.log(2), rel=0.4)


def test_a_square_has_a_gain_per_server_and_device():
    network = build(settings("scenario=square", "devices=30", "servers=4", "server_profile=t4"), 0)
    assert network.gain.shape == (4, 30) and len(network) == 30
    assert network.server_clock == pytest.approx([1.59e9] * 4)
    assert network.server_flops_per_cycle == pytest.approx([2560.0] * 4)


def test_profiles_fill_in_and_tables_overrule_them(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text(
        """
        [network]
        bandwidth_mhz = 10
        profiles = { "raspberry-pi-5" = 2, "jetson-orin-nano" = 1 }
        [[network.device]]
        name = "mine"
        profile = "raspberry-pi-4"
        distance_m = 30
        max_power_dbm = 20
        clock_ghz = 1.5
        memory_gb = 0
        weight = 2
        [[network.device]]
        gain_db = -100
        count = 2
        [[network.server]]
        profile = "l4"
        bandwidth_mhz = 5
        """
    )
    network = build(load(path).network, 0)
    assert network.names == (
        *("mine", "device-1", "device-2", "raspberry-pi-5-3", "raspberry-pi-5-4"),
        "jetson-orin-nano-5",
    )
    five, four = DEVICES["raspberry-pi-5"], DEVICES["raspberry-pi-4"]
    assert network.max_clock[[0, 3]] == pytest.approx([1.5e9, 2.4e9])
    assert network.kappa[[0, 3]] == pytest.approx([four.kappa, five.kappa])
    assert five.kappa * five.clock**3 == pytest.approx(6.0)
    assert network.flops_per_cycle[5] == 1024 and network.static_power[5] == 5
    assert network.memory[0] == np.inf and network.memory[3] == 8e9
    assert network.energy_weight.tolist() == [2, 1, 1, 1, 1, 1]
    assert network.max_power[:2] == pytest.approx([0.1, 10**-0.7])
    assert np.linalg.norm(network.positions[0]) == pytest.approx(30)
    assert np.all(network.gain[0, 1:3] == 1e-10) and network.gain[0, 1] != network.gain[0, 3]
    assert network.bandwidth == [5e6] and network.server_clock == [SERVERS["l4"].clock]


def test_a_measured_rate_is_the_rate_of_the_whole_band():
    network = build(settings("device=[{rate_mbps = 40}]", "snr_gap_db=3"), 0)
    found = rate(network.bandwidth, network.max_power, network.gain[0], network.noise)
    assert found == pytest.approx([40e6])


def test_a_profile_file_is_named_like_a_profile(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        "[profile]\ncores = 2\nflops_per_cycle = 8\nclock_ghz = 3\nmemory_gb = 4\nefficiency = 1\n"
    )
    network = build(settings(f'profiles={{"{path}" = 2}}'), 0)
    assert network.names == ("mine-0", "mine-1")
    assert network.flops_per_cycle.tolist() == [16, 16] and network.kappa.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cores = 1", "flops_per_cycle is missing"),
        ("cores = 1.5\nflops_per_cycle = 1\nclock_ghz = 1\nmemory_gb = 1", "must be a whole number"),
        ("cores = 1\nflops_per_cycle = nan\nclock_ghz = 1\nmemory_gb = 1", "flops_per_cycle is nan"),
        ("cores = 1\nflops_per_cycle = 1\nclock_ghz = -1\nmemory_gb = 1", "clock_ghz is -1"),
        ("cores = 1\nflops_per_cycle = 1\nclock_ghz = 1\nmemory_gb = 1\nefficiency = 2", "at most 1"),
        ("core = 1", "unknown key 'core', did you mean 'cores'"),
        ("profile = 3", "profile is no table"),
        ("x = = 1", "cannot be read"),
    ],
)
def test_a_wrong_profile_file_is_refused(tmp_path, text, sentence):
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        build(settings(f'profiles={{"{tmp_path / "p.toml"}" = 1}}'), 0)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("devices=0", "network.devices is 0; it must be at least 1"),
        ("bandwidth_mhz=-20", "network.bandwidth_mhz is -20.0; it must be positive"),
        ("max_power_dbm=200", r"network.max_power_dbm is 200.0; it must be between -60 and 60 \(dBm"),
        ("noise_dbm_hz=174", "network.noise_dbm_hz is 174"),
        ("amplifier_efficiency=1.2", "network.amplifier_efficiency is 1.2; it must be between 1e-06 and 1"),
        ("circuit_power_w=-1", "network.circuit_power_w is -1.0; it must be 0 or more"),
        ("bandwith_mhz=2", r"unknown key of \[network\] 'bandwith_mhz', did you mean 'bandwidth_mhz'"),
        ("clock_ghz=[2, 1]", "give the lowest and the highest"),
        ("min_distance_m=300", "must be below network.radius_m"),
        ("fading=rayleihg", "did you mean 'rayleigh'"),
        ("scenario=refa", "did you mean 'refA'"),
        ("profiles={phone = 0}", "0 of 'phone'"),
        ("profiles={phone = 1.5}", "a table, each value a whole number"),
        ("profiles=[1]", "it must be a table"),
        ("device=3", r"write each as a table under \[\[network.device\]\]"),
        (
            "device=[{distance_m = -1}]",
            "network.device 1: network.device.distance_m is -1.0; it must be positive",
        ),
        ("device=[{}, {gain = 1}]", r"network.device 2: unknown key of \[network.device\] 'gain'"),
        ("device=[{gain_db = -90, distance_m = 3}]", "distance_m and gain_db; give one of them"),
        ("device=[{position_m = [1]}]", "give x and y"),
        ("device=[{count = 0}]", "count is 0"),
        ("server=[{bandwidth_mhz = 0}]", "network.server 1: network.server.bandwidth_mhz is 0"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_fix(override, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        settings(override)
    assert len(caught.value.problems) == 1


def test_all_problems_come_together():
    with pytest.raises(ConfigError) as caught:
        NetworkSettings(devices=0, servers=0, bandwidth_mhz=-1, fading="x")
    assert len(caught.value.problems) == 4


def test_a_fixed_scenario_says_what_it_fixes():
    with pytest.raises(ConfigError, match=r"network\.kappa is set, but scenario refA fixes it"):
        settings("scenario=refA", "kappa=1e-27")
    with pytest.raises(ConfigError, match="choose 'cell'"):
        build(settings("scenario=refA", "fading=rician"), 0)


def test_an_unknown_profile_is_reported_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'raspberry-pi-5'"):
        build(settings('profiles={"raspberry-pi5" = 1}'), 0)


def test_a_gain_beyond_all_numbers_is_refused():
    with pytest.raises(
        ConfigError, match=r"'device-0' has a channel gain of \[inf\]; it must be positive and finite"
    ):
        build(settings("device=[{rate_mbps = 1e6}]"), 0)
    with pytest.raises(ConfigError, match=r"gain of \[0.0\]"):
        build(settings("path_loss_db=1e5"), 0)
    with pytest.raises(ConfigError, match=r"gain_db is -9999\.0; it must be between -250 and 0"):
        settings("device=[{gain_db = -9999}]")


def test_radios_come_from_the_device_then_its_profile_then_the_network():
    found = build(
        settings(
            "amplifier_efficiency=0.5",
            "circuit_power_w=0.2",
            'profiles={"phone-lte" = 1, "phone" = 1}',
            'device=[{profile = "phone-lte", circuit_power_w = 0.0, receive_power_w = 0.7}]',
        ),
        0,
    )
    np.testing.assert_array_equal(found.amplifier_efficiency, [0.35, 0.35, 0.5])
    np.testing.assert_array_equal(found.circuit_power, [0.0, 1.288, 0.2])
    np.testing.assert_array_equal(found.receive_power, [0.7, 1.288, 0.0])
    plain = build(settings(), 0)
    assert (plain.amplifier_efficiency == 1).all()
    assert not plain.circuit_power.any() and not plain.receive_power.any()


def test_channels_change_gradually_where_that_is_asked():
    """Device by device, a round's gain is nearer to the last one's than to that of a round long after."""
    asked = settings("devices=200", "coherence=0.98")
    gains = [10 * np.log10(build(asked, 0, number).gain[0]) for number in (10, 11, 200)]
    assert np.abs(gains[1] - gains[0]).mean() < 0.5 * np.abs(gains[2] - gains[0]).mean()
    still = build(settings("devices=200", "fading=none"), 0, 10).gain[0]
    assert (10 ** (gains[0] / 10) / still).mean() == pytest.approx(1, abs=0.2)
    assert (build(asked, 0, 10).gain == build(asked, 0, 10).gain).all()
