"""Device halves without torch for the threads of a test: traced once, in the main thread."""

from __future__ import annotations

import safetensors.torch

from sflam.device.engines import Engines
from sflam.device.half import Grouping, LeanHalf
from sflam.device.samples import OwnSamples
from sflam.device.weights import Weights
from sflam.model.device_graphs import bundle_of, device_half
from sflam.model.export import device_tensors
from sflam.model.families import CAUSAL
from sflam.model.lower_rank import first_components


class LeanHalves:
    """What devices of one job download, one set per cut.

    Args:
        folder: for the frozen tensors.
        adapted: backbone, its peft wrapper, and examples.
        cuts: of the devices.
        labels: where they are.
        learn: how a round is run.
        tokens: of an image, or the most of a text.
        ranks: of the devices; none where all have the model's.
    """

    def __init__(self, folder, adapted, cuts, labels, learn, tokens, ranks=()):
        backbone, model, self.examples = adapted
        self.folder, self.learn, self.causal = folder, learn, backbone.task == CAUSAL
        self.bundles, self.opened = {}, []
        self.engines = {}
        """Cut -> those that all share, which then run one after the other; by default each has its own."""
        for cut, rank in sorted(set(zip(cuts, ranks or (0,) * len(cuts), strict=True))):
            half = device_half(backbone, model, cut, labels=labels, tokens=tokens, learn=learn, rank=rank)
            self.bundles[cut, rank] = bundle_of(half)
            practice = learn.practice
            tensors = device_tensors(
                backbone,
                model,
                cut,
                labels,
                frozen_a=practice.aggregation == "freeze-a",
                frozen_half=practice.device_half == "frozen",
            )
            own = {
                name: first_components(name, t, rank).contiguous() if rank else t
                for name, t in tensors.items()
            }
            safetensors.torch.save_file(own, folder / f"cut-{cut}-{rank}.safetensors")

    def half(self, cut, part, *, rows=2, rank=0, drop=None):
        """Return the half of a device that holds the samples ``part``."""
        engines = self.engines.get(cut) or Engines(self.bundles[cut, rank], dropout=self.learn.cache == "off")
        samples = OwnSamples(self.examples.dataset, part, self.examples.spec, self.causal)
        weights = Weights(self.folder / f"cut-{cut}-{rank}.safetensors", keep=bool(rows % 2))
        self.opened.append(weights)
        return LeanHalf(engines, weights, samples, self.learn, Grouping(rows, bool(rows % 2)), drop=drop)

    def close(self):
        """Close the files."""
        for weights in self.opened:
            weights.close()
