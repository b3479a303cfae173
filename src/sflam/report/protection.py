"""What protection a run had, in words, for its model card and its table."""

from __future__ import annotations

from collections.abc import Sequence

from sflam.config import Job
from sflam.privacy.settings import STEP, USER
from sflam.records.history import RoundRecord


def defences(job: Job) -> list[str]:
    """Return what ``[privacy]`` has devices do, a phrase each; empty for nothing."""
    privacy, found = job.privacy, []
    for clip, what in ((privacy.clip, "activations"), (privacy.clip_gradients, "gradient of the loss")):
        if clip:
            noise = (
                f" and Gaussian noise of {privacy.noise:g} times that" if privacy.noise else ", without noise"
            )
            found.append(f"each token's {what} clipped to norm {clip:g}{noise}")
    if privacy.adapters == USER:
        noise = (
            f" and Gaussian noise of {privacy.noise_adapters:g} times that" if privacy.noise_adapters else ""
        )
        found.append(f"each device's change of its adapters clipped to norm {privacy.clip_adapters:g}{noise}")
    if privacy.clip_loss:
        noise = (
            f" and Gaussian noise of {privacy.noise_loss:g} times that on their sum"
            if privacy.noise_loss
            else ""
        )
        found.append(
            f"each sample's loss counted up to {privacy.clip_loss:g} in what a device reports{noise}"
        )
    if privacy.sample_clip:
        noise = (
            f" and Gaussian noise of {privacy.sample_noise:g} times that on their sum"
            if privacy.sample_noise
            else ""
        )
        found.append(
            f"each sample's gradient of what the device trains clipped to norm {privacy.sample_clip:g}{noise}"
        )
    if privacy.distance_correlation:
        weight = privacy.distance_correlation
        found.append(
            f"distance correlation of inputs with activations in the devices' loss, {weight:g} times"
        )
    if privacy.drop_tokens:
        often = "drawn anew in every step" if privacy.drop_draw == STEP else "the same in the whole run"
        found.append(f"{privacy.drop_tokens:.0%} of a training sample's tokens kept on the device, {often}")
    return found


def spent_line(record: RoundRecord) -> str:
    """Return the largest epsilon of a round's devices, and what it covers; "" where nothing is counted."""
    if record.spent is None:
        return ""
    most = max(range(len(record.spent.epsilon)), key=record.spent.epsilon.__getitem__)
    return (
        f"epsilon {record.spent.epsilon[most]:.3g} at delta {record.spent.delta:g} (device {most}, the most), "
        f"covering {'a sample' if record.spent.covers == 'sample' else record.spent.covers}"
    )


def secured_line(records: Sequence[RoundRecord]) -> str:
    """Return in how many rounds adapters were summed under masks, and of how many devices; "" for none."""
    found = [record.secured for record in records if record.secured]
    if not found:
        return ""
    fewest, most = min(len(each.devices) for each in found), max(len(each.devices) for each in found)
    count = str(fewest) if fewest == most else f"{fewest} to {most}"
    rounds = f"{len(found)} round{'s' * (len(found) > 1)}"
    return (
        f"what devices trained before the cut was summed under masks of {found[-1].bits} bits in {rounds}: the server "
        f"learned the sums over {count} devices, and no device's part; what it trains itself it knows"
    )


def protection(job: Job, records: Sequence[RoundRecord], uncovered: Sequence[str]) -> str:
    """Return what was done, the epsilon that was spent, and what is not covered; "" for a run without defences.

    Args:
        job: of the run.
        records: its rounds.
        uncovered: what else leaves a device as it is.
    """
    parts, summed = defences(job), secured_line(records)
    if not parts:
        return summed
    last = records[-1] if records else RoundRecord(round=0, loss=0.0)
    if line := spent_line(last):
        parts.append(line + (f": {', and '.join(uncovered)}" if uncovered else ""))
    else:
        parts.append("nothing is promised")
    if last.measured is not None and job.privacy.reproducible and job.privacy.promises:
        parts.append("noise was drawn from the run's seed, which the server knows: for tests alone")
    return "; ".join([*parts, *[summed] * bool(summed)])
