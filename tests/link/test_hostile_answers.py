"""A server that answers anything at all: a device ends in one line or goes on, and its state on disk stays whole."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sflam.errors import SflamError
from sflam.link import state
from sflam.sizes import COUNT_LIMIT
from tests.link.test_loop import Memory, client

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.just(1 << 40), st.just(COUNT_LIMIT), st.text(max_size=5),
    st.floats(allow_nan=False), st.just([4, 4]), st.just([4, 1 << 40]), st.just({}), st.just([[[[]]]]),
)  # fmt: skip
KEYS = [
    "phase",
    "round",
    "attempt",
    "known",
    "seated",
    "delivered",
    "exchange",
    "bits",
    "shares",
    "run",
    "job",
]
LIES = st.lists(
    st.one_of(
        st.just(("honest",)),
        st.tuples(st.just("key"), st.sampled_from(KEYS), ODD),
        st.tuples(st.just("lack"), st.sampled_from(KEYS)),
        st.tuples(st.just("json"), ODD),
        st.tuples(st.just("cut"), st.floats(0, 1)),
        st.tuples(st.just("flip"), st.floats(0, 0.999), st.integers(1, 255)),
        st.tuples(st.just("body"), st.binary(max_size=40)),
        st.tuples(st.just("again")),
    ),
    min_size=1,
    max_size=25,
)


class Liar(Memory):
    """Tells the truth, or one of the lies, in order; then it breaks off."""

    def __init__(self, lies):
        super().__init__()
        self.lies, self.before, self.inside = iter(lies), b"", False

    def sleep(self, seconds):
        pass

    def next(self):
        lie = next(self.lies, None)
        if lie is None:
            raise SflamError("the end of the test")
        return lie

    def json(self, method, path, body=None):
        if self.inside:  # it asks itself for the next round
            return super().json(method, path, body)
        self.inside = True
        found = super().json(method, path, body)
        self.inside = False
        lie = self.next()
        if lie[0] == "key":
            found = found | {lie[1]: lie[2]}
        elif lie[0] == "lack":
            found = {key: value for key, value in found.items() if key != lie[1]}
        elif lie[0] == "json":
            found = lie[1]
        return json.loads(json.dumps(found))

    def _answer(self, method, path, body):
        lie = self.next()
        true = super()._answer(method, path, body)
        found = bytearray(true)
        if lie[0] == "cut":
            found = found[: int(lie[1] * len(found))]
        elif lie[0] == "flip" and found:
            found[int(lie[1] * len(found))] ^= lie[2]
        elif lie[0] == "body":
            found = bytearray(lie[1])
        elif lie[0] == "again":
            found = bytearray(self.before)
        self.before = true
        return bytes(found)


@given(LIES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_answer_is_a_traceback(tmp_path, lies):
    device = client(Liar(lies), tmp_path)
    try:
        device.run()
    except SflamError as error:
        assert 0 < len(str(error)) < 1000
    finally:
        device.release()
    state.load(tmp_path / "state")
