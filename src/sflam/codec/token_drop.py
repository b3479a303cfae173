"""Which tokens of a sample a device sends where ``privacy.drop_tokens`` keeps the others at home.

The token that the head reads always goes; of the others as many as :func:`sflam.sizes.sent_tokens` says, every subset
as likely as any (Liu et al., PatchDropout, arXiv 2208.07220, drops patches of images so, for speed). They go in their
order. The draw is of the run's seed: the server sees which places came, as activations hold their positions.

B rows, T tokens of the longest, M tokens sent of the row with most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sflam.privacy.settings import STEP, PrivacySettings
from sflam.seeds import generator
from sflam.sizes import sent_tokens


@dataclass(frozen=True)
class TokenDrop:
    """How a device draws the tokens that it sends.

    Attributes:
        share: of the tokens that the head does not read, which stay at home; in (0, 1).
        seed: of the run.
        anew: whether every step draws other tokens of a sample, or they are the same in the whole run.
    """

    share: float
    seed: int
    anew: bool = True

    def counts(self, counts: ArrayLike) -> NDArray[np.int32]:
        """Return how many tokens go up, int32 [B], of rows with ``counts`` [B] valid tokens."""
        own = np.asarray(counts, np.int64)
        table = [sent_tokens(tokens, self.share) for tokens in range(int(own.max(initial=0)) + 1)]
        return np.array(table, np.int32)[own]

    def places(
        self, counts: ArrayLike, step: int, samples: Sequence[int], *, last: bool = False
    ) -> NDArray[np.int64]:
        """Return the places [B,M] of the tokens that go up, ascending in every row; T where a row has fewer.

        Args:
            counts: [B] valid tokens.
            step: seed of the device's step.
            samples: B numbers of the samples.
            last: whether the head reads the last valid token, not the first.
        """
        own = np.asarray(counts, np.int64)
        rows, width = len(own), int(own.max())
        if self.anew:
            draw = generator(step, "tokens").random((rows, width))
        else:
            draw = np.ones((rows, width))
            for row, (sample, count) in enumerate(zip(samples, own.tolist(), strict=True)):
                draw[row, :count] = generator(self.seed, "tokens", sample).random(count)
        at = np.arange(width)
        draw[at >= own[:, None]] = 2.0  # padding comes after all others
        draw[np.arange(rows), own - 1 if last else 0] = -1.0
        sent = self.counts(own)
        most = int(sent.max())
        found = np.argsort(draw, axis=1, kind="stable")[:, :most]
        found = np.where(np.arange(most) < sent[:, None], found, width)
        found.sort(axis=1)
        return found


def drop_of(settings: PrivacySettings, seed: int) -> TokenDrop | None:
    """Return how devices of a run of ``seed`` drop tokens; None where they send all."""
    if not settings.drop_tokens:
        return None
    return TokenDrop(settings.drop_tokens, seed, settings.drop_draw == STEP)
