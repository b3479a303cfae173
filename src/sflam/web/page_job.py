"""What the page must know of a job beside ``/v1/job``: settings with every default resolved."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sflam.config import Job
from sflam.data.images import ImageSpec
from sflam.link.needs import needs_of


@dataclass(frozen=True, kw_only=True)
class PageJob:
    """A job as pages take part in it.

    Attributes:
        job: as it is served.
        image: what the model's images look like; None for texts.
        vocabulary: token ids are below it; 0 for images.
        longest: most tokens of a text; 0 for images.
        drawn: height and width of the job's pictures, where they are digits that can be drawn; else None.
    """

    job: Job
    image: ImageSpec | None
    vocabulary: int = 0
    longest: int = 0
    drawn: tuple[int, int] | None = None

    def described(self, share: int | None) -> dict[str, Any]:
        """Return what a page is sent, as JSON.

        Args:
            share: samples of the device's part of the job's own data, where it is given out; else None.
        """
        job, practice = self.job, self.job.learn.practice
        return {
            "seed": str(job.seed),  # as text: a whole number of JavaScript ends at 2^53
            "needs": needs_of(job) | {"quant.scheme": job.quant.scheme},
            "learn": asdict(job.learn) | asdict(practice),
            "sampling": job.sampling,
            "buckets": job.data.buckets,
            "image": None if self.image is None else asdict(self.image),
            "text": None if self.image else {"vocabulary": self.vocabulary, "most": self.longest},
            "share": share,
            "drawn": self.drawn,
        }
