"""The rounds as TensorBoard events: ``tensorboard --logdir RUN/events``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboardX import SummaryWriter

from sflam.errors import RunError
from sflam.history import RoundRecord


class Events:
    """Writes each record's scalars to ``folder/events``, one step per round.

    Args:
        folder: the run's folder.
        done: rounds an earlier process ran. They are logged again and TensorBoard forgets what that process logged:
            it may have been killed before its last events reached the disk.

    Raises:
        RunError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, done: Iterable[RoundRecord] = ()) -> None:
        path = folder / "events"
        try:
            self._writer = SummaryWriter(logdir=str(path), purge_step=0, flush_secs=1)
        except OSError as error:
            raise RunError(
                f"{path} cannot be written: {error.strerror}; choose another run folder"
            ) from error
        for record in done:
            self.add(record)

    def add(self, record: RoundRecord) -> None:
        """Log one round; it is on disk within a second or so. Values that were not measured are left out."""
        for tag, value in scalars(record).items():
            self._writer.add_scalar(tag, value, record.round)

    def close(self) -> None:
        """Finish the event file."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def scalars(record: RoundRecord) -> dict[str, float]:
    """Return tag -> value of one round; tags before the slash group TensorBoard's charts."""
    values = {
        "loss/train": record.loss,
        "loss/test": record.test_loss,
        "accuracy/test": record.accuracy,
        "bytes/activations_up": record.bytes_up,
        "bytes/gradients_down": record.bytes_down,
        "bytes/adapters_up": record.adapter_bytes_up,
        "bytes/adapters_down": record.adapter_bytes_down,
        "bytes/residual": record.residual_bytes,
        "aggregation/error": record.aggregation_error,
        "speed/seconds": record.seconds,
        "speed/device_steps_per_second": record.device_steps / record.seconds if record.seconds > 0 else None,
    }
    return {tag: float(value) for tag, value in values.items() if value is not None}
