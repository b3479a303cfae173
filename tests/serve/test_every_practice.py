"""All that ``[learn]`` can ask for, on devices without torch: a round that ends as the simulation's, or a refusal.

The list is that of the settings and of the registry of methods, so that nothing new is forgotten.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from sflam import config
from sflam.data.settings import DRAWS, SAMPLINGS
from sflam.device.settings import OFFERS
from sflam.errors import ServeError
from sflam.learn.methods import METHODS
from sflam.learn.screening import Screen
from sflam.learn.settings import learn, practice
from sflam.link.needs import expect_offered
from sflam.run.compatibility import problems_of
from tests.learn.builders import IDENTITY, assert_equal_states
from tests.serve.threads import LEAN, Rig, simulated

pytestmark = pytest.mark.usefixtures("one_thread")
VALUES = {
    "learn.method": tuple(METHODS),
    "learn.trunk": practice.TRUNKS,
    "learn.server_update": practice.SERVER_UPDATES,
    "learn.device_half": practice.DEVICE_HALVES,
    "learn.weights": practice.WEIGHTS,
    "learn.aggregation": practice.AGGREGATIONS,
    "learn.local": practice.LOCALS,
    "learn.server_optimizer": practice.SERVER_OPTIMIZERS,
    "learn.state": practice.STATES,
    "learn.personal": learn.PERSONAL,
    "learn.optimizer": learn.OPTIMIZERS,
    "learn.cache": learn.CACHES,
    "learn.loss": learn.LOSSES,
    "learn.schedule": learn.SCHEDULES,
    "data.sampling": SAMPLINGS[1:],
    "data.draw": DRAWS,
}
WITH = {
    "learn.server_update": ("learn.method=sfl-v2",),
    "learn.weights": ("learn.method=sfl-v2", "learn.server_update=batched"),
    "learn.local=fedprox": ("learn.prox=0.3",),
    "learn.loss=label-smoothing": ("learn.smoothing=0.1",),
    "learn.cache=device": ("learn.device_half=frozen",),
    "data.sampling=global": ("learn.batch=1",),
    "data.draw=poisson": ("learn.batch=1",),
}
"""What else a key or a value needs to mean something."""
BASE = (
    *("learn.rounds=1", "learn.local_steps=3", "learn.batch=2", "learn.lr=0.01", "learn.clip=0.5"),
    *("learn.canonical=true", "learn.device=cpu", "quant.scheme=identity", "fleet.devices=3"),
)
CASES = [
    (f"{key}={value}", labels)
    for key, values in VALUES.items()
    for value in values
    for labels in ("server", "device")
]


def job_of(case, labels):
    more = (*WITH.get(case.partition("=")[0], ()), *WITH.get(case, ()), f"model.labels={labels}")
    return config.load(None, (*BASE, case, *more))


def refusal(job):
    """Return why a served job is none for a device without torch; "" where it is."""
    if problems := problems_of(job, "serve"):
        return " ".join(problems)
    try:
        expect_offered(job, OFFERS, "a device without torch")
    except ServeError as error:
        return str(error)
    return ""


def is_run(case):
    return not refusal(job_of(*case))


@pytest.mark.parametrize(("case", "labels"), [case for case in CASES if not is_run(case)])
def test_what_is_not_run_is_refused_by_name(case, labels):
    reason = refusal(job_of(case, labels))
    key, _, value = case.partition("=")
    assert f"{key} = " in reason or f'"{value}"' in reason or "learn.method" in reason


def test_what_is_run_is_most_of_it():
    served = {case for case, labels in CASES if is_run((case, labels))}
    wanted = ("sflam", "sflam-mixed", "sfl-v1", "sfl-v2")
    assert {f"learn.method={name}" for name in wanted} <= served
    assert {
        f"learn.{key}" for key in ("local=fedprox", "aggregation=svd", "device_half=frozen", "personal=head")
    } <= served
    assert {f"learn.loss={name}" for name in learn.LOSSES} <= served


@pytest.mark.slow
@pytest.mark.parametrize(("case", "labels"), [case for case in CASES if is_run(case)])
def test_what_is_run_ends_as_the_simulation(tmp_path, case, labels):
    job = job_of(case, labels)
    options = {
        "cuts": (1, 1, 1) if job.learn.practice.device_half == "frozen" else (1, 0, 2),
        "labels": labels,
        "quant": IDENTITY,
        "learn": replace(job.learn, rounds=1),
        "sampling": job.sampling,
    }
    _, state = simulated("bert", **options)
    _, found = Rig(tmp_path, "bert", lean=LEAN, screen=Screen("off"), **options).run()
    assert_equal_states(found, state)
