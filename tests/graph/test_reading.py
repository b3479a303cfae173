"""What is written is read again, and what a hostile server wrote is one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.errors import GraphError
from sflam.graph.graph import Graph
from sflam.graph.reading import MOST_BYTES, bundle_from_json, graph_from_json, read_bundle
from sflam.graph.writing import bundle_to_json, graph_to_json, write_bundle
from tests.graph.examples import bundle, graphs
from tests.graph.hostile import HOSTILE, PLACES, broken


@settings(deadline=None, max_examples=200)
@given(graphs())
def test_a_graph_is_read_as_it_was_written(graph: Graph) -> None:
    assert graph_from_json(json.loads(json.dumps(graph_to_json(graph)))) == graph


def test_a_bundle_is_read_as_it_was_written() -> None:
    assert read_bundle(write_bundle(bundle())) == bundle()


@settings(deadline=None, max_examples=600)
@given(st.sampled_from(PLACES), st.sampled_from(HOSTILE), st.sampled_from(["put", "drop", "double"]))
def test_anything_put_anywhere_is_read_or_refused_in_one_line(
    path: tuple[Any, ...], hostile: Any, how: str
) -> None:
    try:
        read = read_bundle(broken(path, hostile, how))
    except GraphError as error:
        assert len(str(error)) < 600 and "\n" not in str(error)
    else:
        assert read_bundle(write_bundle(read)) == read


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[" * 100_000, b"{", b'{"version": NaN}', b"3", b'"add"']
)
def test_bytes_that_are_no_bundle_are_refused(body: bytes) -> None:
    with pytest.raises(GraphError) as refused:
        read_bundle(body)
    assert "\n" not in str(refused.value)


def test_a_file_beyond_the_limit_is_not_parsed() -> None:
    with pytest.raises(GraphError, match="at most"):
        read_bundle(b" " * (MOST_BYTES + 1))


def test_a_name_given_twice_in_one_object_is_refused() -> None:
    with pytest.raises(GraphError, match="twice"):
        read_bundle(b'{"version": 1, "version": 1}')


def changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """The example's plain data with one thing changed."""
    data = bundle_to_json(bundle())
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return data


FORWARD = ("kinds", 0, "forward")
JOINT = ("kinds", 0, "joint")


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("version",), 2, "version 2"),
        (("dtype",), "float16", "dtype"),
        (("cut",), 2, "1 blocks; the cut is 2"),
        (("blocks", 0, "kind"), 1, "of kind 1; there are 1"),
        (("trained",), {"b": [2, 4]}, "which is not trained"),
        (("trained", "other"), [3], "gradient of other"),
        (("dim",), 5, r"\[1, n, 5\]"),
        ((*FORWARD, "operations", 0, 0), "exec", "unknown kind of operation 'exec'"),
        ((*FORWARD, "operations", 0, 1), ["hidden", "nowhere"], "uses nowhere before it is made"),
        ((*FORWARD, "operations", 0, 2), ["hidden"], "made twice"),
        ((*FORWARD, "operations", 0, 3), {}, "has the attributes"),
        ((*FORWARD, "values", "hidden"), ["float", [1, [0, 1], 5]], "does not fit a matrix"),
        ((*FORWARD, "values", "extra"), ["float", []], "never made"),
        ((*FORWARD, "outputs"), ["w", "w"], "named twice"),
        ((*FORWARD, "weights"), ["nowhere"], "is no input"),
        ((*FORWARD, "weights"), [], "its graph differs"),
        ((*JOINT, "operations", 0, 3, "shape"), [[0, 2], 4], "holds 4n numbers|holds 4 n numbers"),
        ((*JOINT, "operations", 1, 3, "stop"), 9, "out of order"),
        (("blocks", 0, "inputs", "a"), ["labels"], "is bound to labels"),
        (("blocks", 0, "inputs", "a"), ["surrounding", "mask"], "does not give"),
        (("blocks", 0, "inputs", "hidden"), ["gradient", "x"], "with a name"),
        (("embed", "inputs", "ids"), ["sample", "/etc"], "is no name"),
        (("embed", "inputs", "ids"), ["sample", "labels"], "samples are"),
    ],
)
def test_what_does_not_hang_together_is_refused_by_name(
    path: tuple[Any, ...], value: Any, reason: str
) -> None:
    with pytest.raises(GraphError, match=reason):
        read_bundle(json.dumps(changed(path, value)).encode())


def test_a_bundle_that_does_not_hang_together_still_reads_as_data() -> None:
    assert bundle_from_json(changed(("cut",), 2)).cut == 2
