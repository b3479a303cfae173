"""The oracle: split federated fine-tuning device by device, in the plainest way there is.

Every device has a deep copy of the whole peft model. Its forward is the unmodified Hugging Face class with one
hook, which lets the activations cross :func:`tests.codec.boundary.boundary` before block ``cut``. Nothing of the
segments, the stacked adapters, the trunk or the wire is used.
"""

from __future__ import annotations

import copy

import torch

from sflam.codec.torch_quantizers import torch_quantizer
from sflam.data.batches import round_batches
from sflam.learn.selection import select_devices
from sflam.model.adapters import PREFIX, load_state, state_of
from sflam.model.families import blocks_of
from sflam.seeds import derive
from tests.codec.boundary import boundary


class PlainLoop:
    """SFL-V1 (with a quantizer: SFLAM), one device after the other."""

    def __init__(self, backbone, model, examples, parts, *, cuts, settings, learn, quant, seed):
        self.backbone, self.examples, self.parts, self.cuts = backbone, examples, parts, cuts
        self.settings, self.learn, self.quant, self.seed = settings, learn, quant, seed
        self.models = [copy.deepcopy(model).train() for _ in parts]
        self.optimizers = [None] * len(parts)
        self.state = state_of(model)
        self.losses = []

    def sides(self, k):
        """Return the trained parameters of device k: below the cut, and from the cut on."""
        family = self.backbone.family
        path = f"{PREFIX}{family.base}.{family.blocks}."
        device, server = [], []
        for name, parameter in self.models[k].named_parameters():
            if parameter.requires_grad:
                below = name.startswith(path) and int(name[len(path) :].split(".")[0]) < self.cuts[k]
                (device if below else server).append(parameter)
        return device, server

    def make_optimizers(self, k):
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}[
            self.learn.optimizer
        ]
        options = {"lr": self.learn.practice.lr, "weight_decay": self.learn.weight_decay}
        if self.learn.optimizer == "sgd":
            options["momentum"] = self.learn.momentum
        return [kind(side, **options) if side else None for side in self.sides(k)]

    def round(self, number):
        states, samples = [], []
        for k in select_devices(self.settings, self.seed, number):
            load_state(self.models[k], self.state)
            if self.learn.practice.state == "reset" or self.optimizers[k] is None:
                self.optimizers[k] = self.make_optimizers(k)
            batches = round_batches(
                self.parts[k],
                self.learn.batch,
                seed=self.seed,
                round=number,
                device=k,
                steps=self.learn.local_steps,
                epochs=self.learn.local_epochs,
            )
            for step, indices in enumerate(batches):
                self.step(k, number, step, self.examples.take(indices))
            states.append(state_of(self.models[k]))
            samples.append(sum(map(len, batches)))
        self.state = self.merged(states, samples)

    def merged(self, states, samples):
        """Return the new global adapters from what the devices trained."""
        total = sum(samples)
        return {
            name: sum(state[name] * (n / total) for state, n in zip(states, samples, strict=True))
            for name in self.state
        }

    def loss(self, k, arguments):
        """Return the loss of a mini-batch of device k."""
        return self.models[k](**arguments).loss

    def amend(self, k):
        """Change the gradients of device k, before they are clipped."""

    def step(self, k, number, step, one):
        model = self.models[k]
        arguments = dict(one.inputs, labels=one.labels)
        mask = None
        if one.lengths is not None:
            width = one.inputs["input_ids"].shape[1]
            mask = torch.arange(width)[None, :] < one.lengths[:, None]
            arguments["attention_mask"] = mask.long()

        def cross(hidden):
            if hidden.requires_grad:
                hidden.retain_grad()
            torch.manual_seed(derive(self.seed, "dropout", number, step, -1))
            return boundary(
                hidden,
                torch_quantizer(self.quant.scheme),
                self.quant.bits_up,
                self.quant.bits_down,
                derive(self.seed, "quantizer", number, step, k, 0),
                derive(self.seed, "quantizer", number, step, k, 1),
                mask,
            )

        blocks = blocks_of(model.get_base_model(), self.backbone.family)
        if self.cuts[k] < len(blocks):
            handle = blocks[self.cuts[k]].register_forward_pre_hook(lambda _, a: (cross(a[0]), *a[1:]))
        else:
            handle = blocks[-1].register_forward_hook(lambda _, a, out: cross(out))
        torch.manual_seed(derive(self.seed, "dropout", number, step, k))
        try:
            loss = self.loss(k, arguments)
            model.zero_grad()
            loss.backward()
        finally:
            handle.remove()
        self.amend(k)
        for side, optimizer in zip(self.sides(k), self.optimizers[k], strict=True):
            if optimizer is not None:
                if self.learn.clip:
                    torch.nn.utils.clip_grad_norm_(side, self.learn.clip)
                optimizer.step()
        self.losses.append(float(loss.detach()))
