"""``[privacy]``: what devices do to what they send, so that less can be learned from it. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.ranges import Ranges

NONE, USER = "none", "user"
ADAPTERS = (NONE, USER)
STEP, SAMPLE = "step", "sample"
DRAWS = (STEP, SAMPLE)


@dataclass(frozen=True, kw_only=True)
class PrivacySettings:
    """What devices clip and make noisy before it leaves them; see how-to/protect.md.

    Attributes:
        clip: largest Euclidean norm of a token's activations; longer ones are shortened to it before they are encoded.
            0 leaves them as they are.
        noise: standard deviation of the Gaussian noise on each of these values, in units of the clip; 0 adds none.
        clip_gradients: with labels at home, largest norm of a token's gradient of the loss, which then has the same
            noise in units of this clip; 0 leaves gradients as they are.
        clip_loss: with labels at home, most that one sample's loss counts in the mean that a device reports; 0 reports
            the mean as it is.
        noise_loss: standard deviation of the Gaussian noise on the sum of a step's losses, in units of ``clip_loss``.
        adapters: what is done to the adapters that a device trained: ``none``, or ``user``: the whole change since the
            round began is shortened to ``clip_adapters`` and has noise, before it is sent.
        clip_adapters: largest norm of that change.
        noise_adapters: standard deviation of the noise on each value of it, in units of ``clip_adapters``.
        sample_clip: DP-SGD on the device: largest norm of what one sample's loss adds to the gradient of all that the
            device trains; longer ones are shortened to it before they are summed. 0 takes the gradient of the
            mini-batch as it is.
        sample_noise: standard deviation of the Gaussian noise on each value of that sum, in every step, in units of
            ``sample_clip``.
        distance_correlation: weight, in the loss of a device, of the distance correlation of a mini-batch with its
            activations at the cut, from 0 to 1: what the device trains then learns to send less of what it holds. It
            promises nothing; an audit measures what it is worth. 0 leaves it out.
        drop_tokens: share of a training sample's tokens that a device does not send, from 0 to below 1: all are seen by
            its blocks, and those that stay at home get no gradient. The token that the head reads always goes, and one
            other at least. Predictions send all. It promises nothing; an audit measures what it is worth. 0 sends all.
        drop_draw: ``step`` draws the tokens that go anew for every sample and step, so that a server sees nearly all
            of a sample in the end; ``sample`` draws them once, so that the others never go up in the run.
        delta: the delta at which epsilon is stated.
        reproducible: let the devices of a served run draw their noise from the run's seed, which the server knows and
            could take off again, instead of from a secret of their own: for tests. Simulated devices always do.
        secure_aggregation: sum the adapters that devices trained before the cut under pairwise masks, so that the
            server learns the sum and no device's part; for ``quant.adapters_scale = "common"``.
        secure_threshold: share of the devices that begin such a sum, or of a device's neighbours in large rounds, that
            must remain to its end, above 0.5 and at most 1.
    """

    clip: float = 0.0
    noise: float = 0.0
    clip_gradients: float = 0.0
    clip_loss: float = 0.0
    noise_loss: float = 0.0
    adapters: str = NONE
    clip_adapters: float = 1.0
    noise_adapters: float = 1.0
    sample_clip: float = 0.0
    sample_noise: float = 0.0
    distance_correlation: float = 0.0
    drop_tokens: float = 0.0
    drop_draw: str = STEP
    delta: float = 1e-5
    reproducible: bool = False
    secure_aggregation: bool = False
    secure_threshold: float = 0.66

    def __post_init__(self) -> None:
        ranges = Ranges(self, "privacy")
        ranges.at_least(0, "clip", "noise", "clip_gradients", "noise_adapters", "sample_clip", "sample_noise")
        ranges.at_least(0, "clip_loss", "noise_loss")
        ranges.at_least(0, "distance_correlation", hint=" (1 is common)")
        ranges.positive("clip_adapters")
        ranges.one_of(ADAPTERS, "adapters")
        ranges.one_of(DRAWS, "drop_draw")
        ranges.require(
            0 <= self.drop_tokens < 1,
            "drop_tokens",
            "it must be at least 0 and below 1, for example 0.5: a trunk needs some tokens",
        )
        ranges.require(0 < self.delta < 1, "delta", "it must be in (0, 1), for example 1e-5")
        ranges.require(
            not self.noise or self.clip > 0, "noise", "noise is in units of privacy.clip; set that above 0"
        )
        ranges.require(
            not self.sample_noise or self.sample_clip > 0,
            "sample_noise",
            "noise is in units of privacy.sample_clip; set that above 0",
        )
        ranges.require(
            not self.noise_loss or self.clip_loss > 0,
            "noise_loss",
            "noise is in units of privacy.clip_loss; set that above 0 (about the loss of a guess)",
        )
        ranges.require(
            0.5 < self.secure_threshold <= 1,
            "secure_threshold",
            "it must be above 0.5 and at most 1: with half of the devices each, a server could ask for either secret",
        )
        ranges.check()

    @property
    def on(self) -> bool:
        """Whether anything is clipped or made noisy."""
        return bool(
            self.clip or self.clip_gradients or self.clip_loss or self.adapters != NONE or self.sample_clip
        )

    @property
    def promises(self) -> bool:
        """Whether there is noise, of which an epsilon can be stated."""
        return bool(self.noise or self.sample_noise or (self.adapters != NONE and self.noise_adapters))
