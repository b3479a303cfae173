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


class LeanHalves:
    """What devices of one job download, one set per cut.

    Args:
        folder: for the frozen tensors.
        adapted: backbone, its peft wrapper, and examples.
        cuts: of the devices.
        labels: where they are.
        learn: how a round is run.
        tokens: of an image, or the most of a text.
    """

    def __init__(self, folder, adapted, cuts, labels, learn, tokens):
        backbone, model, self.examples = adapted
        self.folder, self.learn, self.causal = folder, learn, backbone.task == CAUSAL
        self.bundles, self.opened = {}, []
        for cut in sorted(set(cuts)):
            half = device_half(backbone, model, cut, labels=labels, tokens=tokens, learn=learn)
            self.bundles[cut] = bundle_of(half)
            practice = learn.practice
            tensors = device_tensors(
                backbone,
                model,
                cut,
                labels,
                frozen_a=practice.aggregation == "freeze-a",
                frozen_half=practice.device_half == "frozen",
            )
            safetensors.torch.save_file(tensors, folder / f"cut-{cut}.safetensors")

    def half(self, cut, part, *, rows=2):
        """Return the half of a device that holds the samples ``part``."""
        engines = Engines(self.bundles[cut], dropout=self.learn.cache == "off")
        samples = OwnSamples(self.examples.dataset, part, self.examples.spec, self.causal)
        weights = Weights(self.folder / f"cut-{cut}.safetensors", keep=bool(rows % 2))
        self.opened.append(weights)
        return LeanHalf(engines, weights, samples, self.learn, Grouping(rows, bool(rows % 2)))

    def close(self):
        """Close the files."""
        for weights in self.opened:
            weights.close()
