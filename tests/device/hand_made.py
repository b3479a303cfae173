"""A device half written by hand, and the same in torch: blocks h + tanh(h Wᵀ + h Aᵀ Bᵀ), a mean, a linear head."""

from __future__ import annotations

import numpy as np
import safetensors.numpy
import torch

from sflam.data.dataset import Dataset
from sflam.data.images import ImageSpec
from sflam.device.samples import OwnSamples
from sflam.graph.bundle import Binding, Block, BlockKind, Bundle, Piece, Source
from sflam.graph.size import N, Size, shape_of
from tests.graph.examples import Drawing

DIM, RANK, CLASSES, WORDS, SIDE, PATCH = 6, 2, 3, 11, 4, 2
PATCHES = (SIDE // PATCH) ** 2


def trained_shapes(cut, head):
    shapes = {
        f"{name}{k}": shape for k in range(cut) for name, shape in (("a", (RANK, DIM)), ("b", (DIM, RANK)))
    }
    return shapes | ({"c": (CLASSES, DIM)} if head else {})


def tokens_of(text):
    return N if text else Size.of(PATCHES)


def rows_of(text):
    return Size.of(1) if text else N


def embed(text):
    draw = Drawing()
    if text:
        draw.input("ids", 1, N, numbers="int")
        draw.input("table", WORDS, DIM, weight=True)
        hidden = draw("take", "table", "ids")
        given = {"ids": Source("sample", "input_ids"), "table": Source("frozen", "embed.words")}
    else:
        draw.input("pixels", N, 1, SIDE, SIDE)
        draw.input("w", DIM, PATCH * PATCH, weight=True)
        k = SIDE // PATCH
        x = draw("reshape", "pixels", shape=shape_of(N, k, PATCH, k, PATCH))
        x = draw("transpose", x, axes=(0, 1, 3, 2, 4))
        x = draw("reshape", x, shape=shape_of(N, PATCHES, PATCH * PATCH))
        hidden = draw("linear", x, "w", transposed=False)
        given = {"pixels": Source("sample", "pixel_values"), "w": Source("frozen", "embed.patches")}
    tilt = draw("mul", draw("fill", shape=shape_of(1), value=1.0, numbers="float"), 0.5)
    return Piece(
        draw.graph(hidden, tilt),
        Binding(given, {hidden: Source("hidden"), tilt: Source("surrounding", "tilt")}),
    )


def start(draw, text, p):
    """Return (z, h, masked h, mask) of a block, flattened [rows, d]."""
    draw.input("h", rows_of(text), tokens_of(text), DIM)
    draw.input("tilt", 1)
    draw.input("w", DIM, DIM, weight=True)
    draw.input("a", RANK, DIM)
    draw.input("b", DIM, RANK)
    rows = rows_of(text) * tokens_of(text)
    h = draw("reshape", "h", shape=shape_of(rows, DIM))
    dropped, mask = h, None
    if p:
        mask = draw("dropout_mask", shape=shape_of(rows, DIM), p=p, stream=1)
        dropped = draw("mul", h, mask)
    u = draw("linear", dropped, "a", transposed=False)
    z = draw("add", draw("linear", h, "w", transposed=False), draw("linear", u, "b", transposed=False))
    z = draw("mul", z, "tilt")
    return z, h, dropped, mask, u, rows


def block_kind(text, p):
    forward, joint = Drawing(), Drawing()
    z, h, *_, rows = start(forward, text, p)
    out = forward("add", h, forward("tanh", z))
    out = forward("reshape", out, shape=shape_of(rows_of(text), tokens_of(text), DIM))
    z, h, dropped, mask, u, rows = start(joint, text, p)
    joint.input("g", rows_of(text), tokens_of(text), DIM)
    g = joint("reshape", "g", shape=shape_of(rows, DIM))
    t = joint("tanh", z)
    gz = joint("mul", joint("mul", g, joint("sub", 1.0, joint("mul", t, t))), "tilt")
    gu = joint("linear", gz, "b", transposed=True)
    gb = joint("matmul", joint("transpose", gz, axes=(1, 0)), u)
    ga = joint("matmul", joint("transpose", gu, axes=(1, 0)), dropped)
    through = joint("linear", gu, "a", transposed=True)
    if mask is not None:
        through = joint("mul", through, mask)
    gh = joint("add", joint("add", g, joint("linear", gz, "w", transposed=True)), through)
    gh = joint("reshape", gh, shape=shape_of(rows_of(text), tokens_of(text), DIM))
    return BlockKind(forward.graph(out), joint.graph(gh, ga, gb)), (out, gh, ga, gb)


def head(text):
    draw = Drawing()
    draw.input("h", rows_of(text), tokens_of(text), DIM)
    draw.input("labels", rows_of(text), numbers="int")
    draw.input("share")
    draw.input("c", CLASSES, DIM)
    pooled = draw("mean", "h", axes=(1,), keep=False)
    logits = draw("linear", pooled, "c", transposed=False)
    logp, hot = draw("log_softmax", logits, axis=1), draw("one_hot", "labels", size=Size.of(CLASSES))
    loss = draw("mul", draw("neg", draw("sum", draw("mul", logp, hot), axes=(0, 1), keep=False)), "share")
    gl = draw("mul", draw("sub", draw("exp", logp), hot), "share")
    gc = draw("matmul", draw("transpose", gl, axes=(1, 0)), pooled)
    gp = draw(
        "div", draw("linear", gl, "c", transposed=True), draw("count", size=tokens_of(text), numbers="float")
    )
    gp = draw("reshape", gp, shape=shape_of(rows_of(text), 1, DIM))
    gh = draw(
        "add",
        gp,
        draw("fill", shape=shape_of(rows_of(text), tokens_of(text), DIM), value=0.0, numbers="float"),
    )
    given = {
        "h": Source("hidden"),
        "labels": Source("labels"),
        "share": Source("share"),
        "c": Source("trained", "c"),
    }
    made = {loss: Source("loss"), gh: Source("gradient"), gc: Source("trained", "c")}
    return Piece(draw.graph(loss, gh, gc), Binding(given, made))


def bundle(text, cut, *, labels_at_home=False, dropout=0.0, dtype="float64"):
    kind, (out, gh, ga, gb) = block_kind(text, dropout)
    blocks = []
    for k in range(cut):
        given = {"h": Source("hidden"), "g": Source("gradient"), "tilt": Source("surrounding", "tilt")}
        given |= {
            "w": Source("frozen", f"blocks.{k}.w"),
            "a": Source("trained", f"a{k}"),
            "b": Source("trained", f"b{k}"),
        }
        made = {out: Source("hidden"), gh: Source("gradient"), ga: Source("trained", f"a{k}")}
        blocks.append(Block(0, Binding(given, made | {gb: Source("trained", f"b{k}")})))
    return Bundle(
        cut=cut,
        dim=DIM,
        text=text,
        tokens=9 if text else PATCHES,
        task="sequence-classification" if text else "image-classification",
        dtype=dtype,
        embed=embed(text),
        kinds=(kind,) if cut else (),
        blocks=tuple(blocks),
        head=head(text) if labels_at_home else None,
        trained=trained_shapes(cut, labels_at_home),
    )


def write_tensors(path, cut, dtype="float64"):
    rng = np.random.default_rng(2)
    tensors = {
        "embed.words": rng.normal(size=(WORDS, DIM)),
        "embed.patches": rng.normal(size=(DIM, 1, PATCH, PATCH)),
    }
    tensors |= {f"blocks.{k}.w": rng.normal(size=(DIM, DIM)) for k in range(cut)}
    tensors = {name: value.astype(dtype) for name, value in tensors.items()}
    safetensors.numpy.save_file(tensors, path)
    return tensors


def samples(text, count=13):
    rng = np.random.default_rng(3)
    labels = np.arange(count) % CLASSES
    if text:
        lengths = rng.integers(1, 9, count).astype(np.int32)
        dataset = Dataset("x", "text", rng.integers(0, WORDS, (count, 9)), lengths, labels, tuple("abc"))
        return OwnSamples(dataset, np.arange(count), None, False)
    images = rng.integers(0, 256, (count, SIDE, SIDE, 1)).astype(np.uint8)
    spec = ImageSpec(size=SIDE, channels=1, mean=(0.5,), std=(0.5,))
    return OwnSamples(
        Dataset("x", "image", images, None, labels, tuple("abc")), np.arange(count), spec, False
    )


def torch_hidden(own, tensors, trained, indices, text):
    """Return the activations at the cut of each row, [T, d] each."""
    given = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    found = []
    for index in indices.tolist():
        if text:
            h = given["embed.words"][torch.from_numpy(own.tokens(index)[0])]
        else:
            pixels = torch.from_numpy(own.pixels(np.array([index]))).to(given["embed.patches"])
            h = torch.nn.functional.conv2d(pixels, given["embed.patches"], stride=PATCH).flatten(2)[0].T
        for k in range(sum(name.startswith("blocks") for name in tensors)):
            z = h @ given[f"blocks.{k}.w"].T + h @ trained[f"a{k}"].T @ trained[f"b{k}"].T
            h = h + torch.tanh(0.5 * z)
        found.append(h)
    return found
