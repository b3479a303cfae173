"""The privacy that a run spends, round by round, and what that number covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from sflam.config import Job
from sflam.cost.privacy_loss import epsilon_of, epsilon_of_coins, most_visits, squared_mu
from sflam.cost.sampled_sums import epsilon_of_sums
from sflam.data.poisson import rate as rate_of
from sflam.data.poisson import step_count
from sflam.data.settings import POISSON
from sflam.learn.fleet import Fleet, FleetAround
from sflam.model.built import token_shape
from sflam.privacy.settings import NONE
from sflam.records.history import RoundRecord
from sflam.records.privacy_spent import PrivacySpent
from sflam.run.assemble import Assembly
from sflam.sizes import sent_tokens

SAMPLE, INPUTS = "sample", "inputs only"
ACTIVATIONS, ADAPTERS = "activations only", "adapters only"
LABELS = "labels go to the server as they are"


class AccountedFleet(FleetAround):
    """A fleet whose records say what its devices have given away.

    Args:
        inner: the fleet.
        assembly: of the run.
        records: rounds that are done.
    """

    def __init__(self, inner: Fleet, assembly: Assembly, records: Sequence[RoundRecord]) -> None:
        super().__init__(inner)
        self.job, halves = assembly.job, assembly.halves
        assert halves is not None, "run.compatibility lets methods with a cut through"
        last = records[-1].spent if records else None
        nothing = np.zeros(self.job.fleet.devices)
        self._squares = nothing if last is None else np.square(last.mu)
        self._coins = nothing.astype(int) if last is None or not last.coins else np.array(last.coins)
        self._rate = nothing.copy() if last is None or not last.rate else np.array(last.rate)
        self._asked: set[int] = set()
        self._tokens = tokens_of(assembly)
        self._trains = [bool(halves.devices.names(device)) for device in range(self.job.fleet.devices)]
        self._covers = covers(self.job, any(self._trains))[0]

    def select(self, round: int) -> tuple[int, ...]:
        """Return the devices of a round."""
        found = self.inner.select(round)
        self._asked = set(found)
        return found

    def after(self, record: RoundRecord) -> RoundRecord:
        """Return the record with what every device has given away by now; one that was asked has given all."""
        record = self.inner.after(record)
        held = self.inner.counted_samples(record.round)
        for device, times in sorted(self._times(record).items()):
            if self.job.sampling == POISSON:
                self._throw(device, held, times)
            else:
                self._squares[device] += times * self._round(device, held, record.participants)
        mu, delta = np.sqrt(self._squares), self.job.privacy.delta
        if self.job.sampling == POISSON:
            coins, rate = tuple(self._coins.tolist()), tuple(self._rate.tolist())
            thrown = list(zip(coins, rate, self._squares.tolist(), self._trains, strict=True))
            found = {one: self._epsilon_of_coins(*one) for one in set(thrown)}
            epsilon = tuple(found[one] for one in thrown)
        else:
            coins, rate = (), ()
            known = {each: epsilon_of(each, delta) for each in set(mu.tolist())}
            epsilon = tuple(known[each] for each in mu.tolist())
        spent = PrivacySpent(
            epsilon=epsilon, mu=tuple(mu.tolist()), delta=delta, covers=self._covers, coins=coins, rate=rate
        )
        return replace(record, spent=spent)

    def _times(self, record: RoundRecord) -> dict[int, int]:
        """Return device -> at how many openings of a round it was asked."""
        found = record.measured
        opened = found or (record.charge.close if record.charge else None)
        every = dict.fromkeys(self._asked | {*record.participants}, 1 if opened is None else opened.openings)
        return every if found is None else every | dict(zip(found.asked, found.times, strict=True))

    @property
    def _legs(self) -> int:
        """Noisy messages with a token that every visit sends; what the server keeps goes up once."""
        return int(self.job.learn.cache != "server") + int(gradients_go(self.job))

    def _epsilon_of_coins(self, coins: int, rate: float, certain: float, trains: bool) -> float:
        """Return epsilon of a device by its coins: seen with its rows, and hidden in sums from who sees no rows."""
        privacy = self.job.privacy
        visit = self._visits(1, trains)
        shown = epsilon_of_coins(coins, rate, visit, certain, privacy.delta)
        if privacy.noise or not privacy.sample_noise or certain or not rate:
            return shown
        samples = round(self.job.learn.batch / rate) if rate < 1 else 1
        return min(shown, epsilon_of_sums(coins, samples, rate, privacy.sample_noise, privacy.delta))

    def _visits(self, count: int, trains: bool) -> float:
        """Return mu^2 of so many visits of a sample of a device with Poisson draws."""
        return squared_mu(
            self.job.privacy,
            visits=count,
            tokens=self._tokens,
            legs=self._legs,
            adapters=trains and _clips_samples(self.job),
            losses=gradients_go(self.job),
        )

    def _throw(self, device: int, held: Mapping[int, int], times: int) -> None:
        """Count a round of a device by its coins; where it was opened again, as if each sample went up every time."""
        learn, privacy, trains = self.job.learn, self.job.privacy, self._trains[device]
        steps = step_count(held.get(device, 1), learn.batch, learn.local_steps, learn.local_epochs)
        once = int(learn.cache == "server" and not self._coins[device])  # whatever the coins show
        self._coins[device] += steps
        self._rate[device] = max(self._rate[device], rate_of(held.get(device, 1), learn.batch))
        self._squares[device] += (
            (self._visits((times - 1) * steps, trains) if times > 1 else 0.0)
            + squared_mu(privacy, visits=once, tokens=self._tokens, legs=1, adapters=False)
            + times * squared_mu(privacy, visits=0, tokens=self._tokens, legs=0, adapters=trains)
        )

    def _round(self, device: int, held: Mapping[int, int], came: Sequence[int]) -> float:
        """Return mu^2 of a round of a device; with global sampling of those that were asked, or ``came``."""
        job, learn = self.job, self.job.learn
        up, back = (0, 0) if job.placements[device].alone else (1, int(gradients_go(job)))
        visits = learn.local_steps or learn.local_epochs  # of a device of unknown samples
        if job.sampling == "global":
            drawn = [each for each in sorted(self._asked or {*came}) if each in held]
            if drawn:
                pool, rows = sum(held[each] for each in drawn), learn.batch * len(drawn)
                visits = most_visits(pool, rows, learn.local_steps, learn.local_epochs)
        elif device in held:
            visits = most_visits(held[device], learn.batch, learn.local_steps, learn.local_epochs)
        if learn.cache == "server":  # activations go up once in the run
            up, first = 0, int(up and not self._squares[device])
        else:
            first = 0
        steps = squared_mu(
            job.privacy,
            visits=visits,
            tokens=self._tokens,
            legs=up + back,
            adapters=self._trains[device],
            losses=gradients_go(job),
        )
        return steps + squared_mu(job.privacy, visits=first, tokens=self._tokens, legs=1, adapters=False)


def tokens_of(assembly: Assembly) -> int:
    """Return the most tokens of a sample that go up: of an image's, or of a text's by ``data.max_tokens``."""
    train = assembly.splits.train
    share = assembly.job.privacy.drop_tokens
    if train.kind == "text":
        return sent_tokens(assembly.job.data.max_tokens or int(train.inputs.shape[1]), share)
    assert assembly.halves is not None
    sample = assembly.halves.examples.take(np.arange(1)).inputs
    return sent_tokens(token_shape(assembly.backbone, sample)[0], share)


def uncovered(assembly: Assembly) -> tuple[str, ...]:
    """Return what leaves the devices of a run without noise, where any of it has noise; else nothing."""
    job, halves = assembly.job, assembly.halves
    if not job.privacy.promises or halves is None:
        return ()
    return covers(job, any(halves.devices.names(device) for device in range(job.fleet.devices)))[1]


def _clips_samples(job: Job) -> bool:
    """Whether the sum of every step has noise."""
    return bool(job.privacy.sample_noise)


def gradients_go(job: Job) -> bool:
    """Whether devices send gradients of a loss of their own."""
    return job.model.labels == "device"


def covers(job: Job, trains: bool) -> tuple[str, tuple[str, ...]]:
    """Return what epsilon holds for, and why not for a sample: what else of it leaves the device.

    Args:
        job: of the run.
        trains: whether any device trains something.
    """
    privacy, learn = job.privacy, job.learn
    if not privacy.noise:
        given = ["the trunk's weights, which learn from them, are taken as given"] * _clips_samples(job)
        return ADAPTERS, ("activations have no noise", *given)
    reasons = []
    if job.model.labels == "server":
        reasons.append(LABELS)
    else:
        if not privacy.noise_loss:
            reasons.append("the mean loss of a round goes to the server as it is")
        if not privacy.clip_gradients:
            reasons.append("gradients of the loss have no noise")
    if trains and not _clips_samples(job):  # else all that it trains follows from sums with noise
        if privacy.adapters == NONE or not privacy.noise_adapters:
            summed = job.privacy.secure_aggregation
            reasons.append(
                "the sum of what devices train has no noise"
                if summed
                else "what devices train goes up as it is"
            )
        elif learn.local_steps != 1 or learn.practice.state == "keep" or learn.personal != "none":
            reasons.append("what a step trained shows in the activations of the next")
    elif trains and reasons == [LABELS]:
        return INPUTS, (LABELS,)
    return (ACTIVATIONS if reasons else SAMPLE), tuple(reasons)
