"""What a saved run predicted: probabilities, what was right, what was taken for what, and whether to believe it."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sflam.errors import DataError
from sflam.files import replace_file, writing
from sflam.learn.metrics import Classified, balanced_accuracy, macro_f1
from sflam.report.charts.predictions import draw_predictions
from sflam.report.notebook import frame, html_table
from sflam.report.tables import csv_text, write_text
from sflam.report.totals import percent
from sflam.run.device_shares import DeviceShare

BINS = 10
"""Bins of equal width that the confidences of predictions are sorted into."""


@dataclass(frozen=True)
class Confidences:
    """The predictions whose confidence lies in one bin.

    Attributes:
        low: the least confidence of the bin, not included but for 0.
        high: the largest.
        count: how many predictions.
        confidence: their mean confidence.
        accuracy: the share of them that are right.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a saved run predicts for N samples.

    Attributes:
        data: name of the data.
        classes: names of the C labels.
        probabilities: float64 [N,C], what the model gives each class.
        labels: int64 [N], the true labels, or None where the data has none.
        loss: mean cross-entropy, or None.
        notes: sentences about what was guessed on the way.
        devices: how well every device's model does on its own share of the run's data; empty where that was not asked
            for (``per_device``).
    """

    data: str
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64] | None
    loss: float | None
    notes: tuple[str, ...] = ()
    devices: tuple[DeviceShare, ...] = ()

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """[N] the likeliest label of each sample."""
        found: NDArray[np.int64] = self.probabilities.argmax(1).astype(np.int64)
        return found

    @cached_property
    def probability(self) -> NDArray[np.float64]:
        """[N] its probability."""
        found: NDArray[np.float64] = self.probabilities.max(1)
        return found

    @property
    def accuracy(self) -> float | None:
        """Share predicted right, in [0, 1]; None without labels."""
        return None if self.labels is None else float((self.predicted == self.labels).mean())

    @property
    def per_class(self) -> dict[str, float]:
        """Class -> share of its samples predicted right; classes without samples are left out."""
        return {
            name: float(row[label] / row.sum())
            for label, (name, row) in enumerate(zip(self.classes, self.confusion, strict=True))
            if row.sum()
        }

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """[C,C] how many samples of the class of the row were taken for the class of the column; 0 without labels."""
        count = len(self.classes)
        if self.labels is None:
            return np.zeros((count, count), dtype=np.int64)
        pairs = np.bincount(self.labels * count + self.predicted, minlength=count * count)
        return pairs.reshape(count, count).astype(np.int64)

    @cached_property
    def calibration(self) -> tuple[Confidences, ...]:
        """The bins of confidence that hold predictions, for a reliability diagram; empty without labels.

        Source: C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
        """
        if self.labels is None:
            return ()
        edges = np.linspace(0.0, 1.0, BINS + 1)
        places = np.clip(np.searchsorted(edges, self.probability, side="left") - 1, 0, BINS - 1)
        right = self.predicted == self.labels
        return tuple(
            Confidences(
                float(edges[bin_]),
                float(edges[bin_ + 1]),
                int(own.sum()),
                float(self.probability[own].mean()),
                float(right[own].mean()),
            )
            for bin_ in range(BINS)
            if (own := places == bin_).any()
        )

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error: the mean |confidence - accuracy| over bins, by samples; None without labels."""
        if self.labels is None:
            return None
        gaps = sum(each.count * abs(each.confidence - each.accuracy) for each in self.calibration)
        return gaps / len(self.labels)

    @property
    def brier(self) -> float | None:
        """Mean squared distance of the probabilities from the truth (0 best, 2 worst); None without labels.

        Source: G. W. Brier, "Verification of Forecasts Expressed in Terms of Probability", 1950.
        """
        if self.labels is None:
            return None
        truth = np.eye(len(self.classes))[self.labels]
        return float(((self.probabilities - truth) ** 2).sum(1).mean())

    def metrics(self) -> dict[str, Any]:
        """Return the numbers ``sflam predict --json`` prints."""
        more: dict[str, Any] = {"balanced_accuracy": None, "macro_f1": None, "confusion": None}
        if self.labels is not None:
            confidence = self.probability.astype(np.float32)
            judged = Classified(self.labels, self.predicted, confidence, len(self.classes))
            more = {
                "balanced_accuracy": balanced_accuracy(judged),
                "macro_f1": macro_f1(judged),
                "confusion": self.confusion.tolist(),
            }
        return {
            "data": self.data,
            "samples": len(self.predicted),
            "classes": list(self.classes),
            "accuracy": self.accuracy,
            "loss": self.loss,
            "per_class": self.per_class,
            "calibration_error": self.calibration_error,
            "brier": self.brier,
            **more,
            "devices": [asdict(each) for each in self.devices],
        }

    def device_rows(self) -> list[tuple[str, DeviceShare]]:
        """Return ``worst``, ``median`` and ``best`` with the device of that accuracy; nothing without devices."""
        ranked = sorted(self.devices, key=lambda each: (each.accuracy, each.device))
        places = {"worst": 0, "median": (len(ranked) - 1) // 2, "best": len(ranked) - 1}
        return [(name, ranked[place]) for name, place in places.items()] if ranked else []

    def to_frame(self) -> Any:
        """Return a row per sample: a pandas DataFrame, or name -> array where pandas is not installed."""
        truth = (
            [None] * len(self.predicted) if self.labels is None else [self.classes[n] for n in self.labels]
        )
        return frame(
            [
                {"predicted": self.classes[label], "probability": float(share), "label": true}
                for label, share, true in zip(self.predicted, self.probability, truth, strict=True)
            ]
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: how many are right, and of which class."""
        accuracy = "no labels" if self.accuracy is None else f"{percent(self.accuracy)} right"
        rows = [(name, percent(share)) for name, share in self.per_class.items()]
        shown = html_table(
            ["class", "right"], rows, f"{self.data}: {len(self.predicted)} samples, {accuracy}"
        )
        if not self.devices:
            return shown
        each = [
            (f"{name}: device {of.device}", of.samples, percent(of.accuracy))
            for name, of in self.device_rows()
        ]
        return shown + html_table(
            ["device", "samples", "right"], each, f"{len(self.devices)} devices on their own samples"
        )

    def draw(self) -> Figure:
        """Return a figure of the confusion matrix, a reliability diagram and, where they are known, the devices.

        Raises:
            DataError: the data has no labels, so nothing is known to be right.
        """
        if self.labels is None:
            raise DataError(
                f"data {self.data!r} has no labels, so there is nothing to draw; name them with --label"
            )
        bins = [(each.confidence, each.accuracy, each.count) for each in self.calibration]
        return draw_predictions(
            self.confusion,
            self.classes,
            bins,
            title=f"{self.data}, {len(self.labels)} samples",
            devices=[(each.device, each.accuracy) for each in self.devices],
        )

    def write_csv(self, path: str | Path, *, every_class: bool = False) -> None:
        """Write one line per sample: index, predicted class, its probability, and the true class where known.

        With ``every_class`` the probability of each class follows, in columns named ``p(class)``.
        """
        text = io.StringIO()
        writer = csv.writer(text)
        head = ["index", "predicted", "probability", *(["label"] if self.labels is not None else [])]
        writer.writerow([*head, *(f"p({name})" for name in self.classes if every_class)])
        for index, (label, probability) in enumerate(zip(self.predicted, self.probability, strict=True)):
            truth = [] if self.labels is None else [self.classes[self.labels[index]]]
            each = [f"{share:.6f}" for share in self.probabilities[index] if every_class]
            writer.writerow([index, self.classes[label], f"{probability:.6f}", *truth, *each])
        with writing(path, "choose another --out"):
            replace_file(Path(path), text.getvalue().encode())

    def write_devices(self, path: str | Path) -> None:
        """Write one line per device: its number, samples, accuracy, loss, and a column per metric.

        Raises:
            DataError: nothing was predicted per device.
        """
        if not self.devices:
            raise DataError("there are no predictions per device; ask for them with --per-device")
        rows = [
            {
                "device": of.device,
                "samples": of.samples,
                "accuracy": of.accuracy,
                "loss": of.loss,
                **of.metrics,
            }
            for of in self.devices
        ]
        write_text(Path(path), csv_text(rows))
