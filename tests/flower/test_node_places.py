"""Nodes and places: a node keeps its place while it is here, over restarts, and one that is gone leaves it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.errors import ServeError
from sflam.flower.node_places import NodePlaces


def test_nodes_take_places_in_order_and_keep_them(tmp_path):
    places = NodePlaces(tmp_path / "nodes.json", 3)
    assert places.seat([70, 30]) == {30: 0, 70: 1}
    assert places.seat([70, 30, 10]) == {30: 0, 70: 1, 10: 2}
    assert places.seat([70, 10]) == {70: 1, 10: 2}
    assert NodePlaces(tmp_path / "nodes.json", 3).seat([10, 30, 70]) == {30: 0, 70: 1, 10: 2}


def test_a_node_beyond_the_places_waits_until_one_is_left(tmp_path):
    places = NodePlaces(tmp_path / "nodes.json", 2)
    places.seat([1, 2])
    assert places.seat([1, 2, 3]) == {1: 0, 2: 1}
    assert places.seat([2, 3]) == {3: 0, 2: 1}
    assert places.seat([1, 2, 3]) == {3: 0, 2: 1}


def test_a_place_that_nobody_had_is_taken_before_one_that_was_left(tmp_path):
    places = NodePlaces(tmp_path / "nodes.json", 2)
    places.seat([5])
    assert places.seat([6]) == {6: 1}
    assert places.seat([5, 6]) == {5: 0, 6: 1}


@given(st.lists(st.sets(st.integers(1, 8), max_size=6), min_size=1, max_size=8), st.integers(1, 4))
def test_every_node_has_one_place_and_none_stays_empty_in_vain(tmp_path_factory, calls, count):
    places = NodePlaces(tmp_path_factory.mktemp("places") / "nodes.json", count)
    before = {}
    for nodes in calls:
        found = places.seat(nodes)
        assert len(set(found.values())) == len(found) == min(count, len(nodes))
        assert found.keys() <= nodes and set(found.values()) <= set(range(count))
        assert all(found[node] == before[node] for node in before.keys() & nodes)
        before = found


@pytest.mark.parametrize("text", ["", "[]", '{"devices": [1]}', '{"devices": ["a", 2]}', '{"devices": 3}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "nodes.json").write_text(text)
    with pytest.raises(ServeError, match=r"nodes\.json cannot be used"):
        NodePlaces(tmp_path / "nodes.json", 2)
