"""Two machines with one token: the second sends other bodies than the first, and is refused; the first goes on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sflam.codec.bodies import decode, encode
from sflam.errors import Refused
from sflam.link.https_client import Link
from sflam.serve.session import Again, Fresh, Session, Underway
from tests.serve.test_poisoned_upload import APART
from tests.serve.test_shared_trunk import equal
from tests.serve.threads import Rig, simulated


@pytest.fixture
def session():
    session = Session(1)
    session.hello(0, 4, 0.0)
    session.open(0, 1, {0: 2}, 100.0)
    return session


def test_a_body_is_compared_with_the_one_that_was_taken(session):
    assert session.exchange(0, 0, 1, 0, 1.0, b"a") == Fresh()
    assert session.exchange(0, 0, 1, 0, 1.0, b"a") == Underway()
    with pytest.raises(Refused, match="another machine uses its token"):
        session.exchange(0, 0, 1, 0, 1.0, b"b")
    session.answer(0, 1, 0, b"answer")
    assert session.exchange(0, 0, 1, 0, 1.0, b"a") == Again(b"answer")
    with pytest.raises(Refused, match=r"exchange 0 before.*sflam enrol") as refused:
        session.exchange(0, 0, 1, 0, 1.0, b"b")
    assert refused.value.status == 409
    assert session.exchange(0, 0, 1, 1, 1.0, b"b") == Fresh(), "the next step is another one"
    session.answer(0, 1, 1, b"answer")
    assert session.deliver(0, 0, 1, "result", 1.0, b"c")
    assert not session.deliver(0, 0, 1, "result", 1.0, b"c")
    with pytest.raises(Refused, match="another machine"):
        session.deliver(0, 0, 1, "other", 1.0, b"d")


class Copied(Link):
    """The way of a device whose copy sends the same requests with other data, just after it."""

    told = ()

    def _once(self, method, path, body, headers):
        found = super()._once(method, path, body, headers)
        if method == "POST" and "/steps/" in path and found[0] == 200:
            frame = decode(body)
            labels = (frame.labels + 1) % 3
            status, _, answer = super()._once(method, path, encode(replace(frame, labels=labels)), headers)
            Copied.told += ((status, json.loads(answer)["error"]),)
        return found


@pytest.mark.usefixtures("one_thread")
def test_the_copy_is_told_and_the_job_is_as_without_it(tmp_path):
    job = APART | {"learn": replace(APART["learn"], rounds=1)}
    Copied.told = ()
    _, found = Rig(tmp_path, "vit", links={0: Copied}, lives=1, **job).run()
    _, wanted = simulated("vit", **job)
    assert equal(found, wanted) and len(Copied.told) == 3
    assert all(status == 409 and "another machine uses its token" in error for status, error in Copied.told)
    assert np.all([error.startswith("device 0 sent another body") for _, error in Copied.told])
