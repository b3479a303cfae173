"""The rounds as TensorBoard events: ``tensorboard --logdir RUN/events``."""

from __future__ import annotations

import os
import platform
import struct
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from sflam.errors import RunError
from sflam.files import write_all, writing
from sflam.records.history import RoundRecord


class Events:
    """Writes each record's scalars to a new file in ``folder/events``, one step per round, when ``add`` is called.

    tensorboardX's own SummaryWriter leaves that to a thread, whose errors (a full disk) are lost.

    Args:
        folder: the run's folder.
        done: rounds an earlier process ran. They are logged again and TensorBoard forgets what that process logged:
            it may have been killed between a round and its events.

    Raises:
        RunError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, done: Iterable[RoundRecord] = ()) -> None:
        self._path = folder / "events"
        with self._writing():
            self._path.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads the files in the order of their names; a file torn by a kill is never written again.
            number = len(os.listdir(self._path))
            name = f"events.out.tfevents.{int(time.time())}.{platform.node()}.{number:05d}"
            self._descriptor = os.open(self._path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            self._write(file_version="brain.Event:2")
            self._write(step=0, session_log=SessionLog(status=SessionLog.START))
            for record in done:
                self.add(record)
        except RunError:
            self.close()
            raise

    def add(self, record: RoundRecord) -> None:
        """Log one round; values that were not measured are left out. Raises RunError when the disk refuses."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(record).items()]
        self._write(step=record.round, summary=Summary(value=values))

    def close(self) -> None:
        """Release the event file."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, **fields: Any) -> None:
        """Append one event as a TFRecord: length, its checksum, the event, its checksum."""
        body = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(body))
        sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, body)]
        with self._writing():
            write_all(self._descriptor, length + sums[0] + body + sums[1])

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self._path, "free space, or choose another run folder")


def scalars(record: RoundRecord) -> dict[str, float]:
    """Return tag -> value of one round; tags before the slash group TensorBoard's charts."""
    values = {
        "loss/train": record.loss,
        "loss/test": record.test_loss,
        "accuracy/test": record.accuracy,
        "loss/validation": record.validation_loss,
        "accuracy/validation": record.validation_accuracy,
        "bytes/activations_up": record.bytes_up,
        "bytes/gradients_down": record.bytes_down,
        "bytes/adapters_up": record.adapter_bytes_up,
        "bytes/adapters_down": record.adapter_bytes_down,
        "bytes/residual": record.residual_bytes,
        "aggregation/error": record.aggregation_error,
        "speed/seconds": record.seconds,
        "speed/device_steps_per_second": record.device_steps / record.seconds if record.seconds > 0 else None,
    }
    if record.charge is not None:
        values |= {
            "virtual/clock": record.charge.clock,
            "virtual/round": record.charge.seconds,
            "virtual/energy": record.charge.energy,
            "virtual/gap": record.charge.gap,
        }
    return {tag: float(value) for tag, value in values.items() if value is not None}
