"""What a page makes of files, pictures and drawings is what every other device makes of them, to the bit."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import numpy as np

from sflam.data.images import ImageSpec, in_colours, to_pixels
from sflam.data.resize import resized
from tests.web.node import needs_node, packed_array, run_check

GREY = ImageSpec(size=16, channels=1, mean=(0.5,), std=(0.5,))
COLOUR = ImageSpec(size=24, channels=3, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resample=3)
DIGITS = [str(number) for number in range(10)]


def pictures():
    rng = np.random.default_rng(3)
    specs = (
        GREY,
        COLOUR,
        *(ImageSpec(size=9, channels=1, mean=(0.1,), std=(0.3,), resample=r) for r in (1, 4, 5)),
    )
    for spec in specs:
        for shape in ((8, 8, 1), (16, 16, 3), (31, 17, 3), (64, 90, 1), (5, 200, 3), (24, 24, 3)):
            image = rng.integers(0, 256, shape, np.uint8)
            square = resized(in_colours(image, spec.channels), spec.size, spec.size, spec.resample)
            mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
            pixels = (square.astype(np.float32) * np.float32(1 / 255) - mean) / std
            if max(shape[:2]) <= spec.size:  # where no Pillow is asked
                assert np.array_equal(to_pixels(image[None], spec)[0], pixels.transpose(2, 0, 1))
            yield {
                "name": f"{shape} to {spec.size} by {spec.resample}", "shape": shape, "spec": asdict(spec),
                "pixels": packed_array(image.reshape(-1)), "square": packed_array(square.reshape(-1)),
                "wanted": packed_array(pixels.transpose(2, 0, 1).reshape(-1)),
            }  # fmt: skip


def written(compressed=False, **arrays):
    body = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(body, **arrays)
    return packed_array(np.frombuffer(body.getvalue(), np.uint8))


def archives():
    rng = np.random.default_rng(4)
    for shape, spec in (((7, 8, 8, 1), GREY), ((4, 8, 8), GREY), ((5, 12, 12, 3), COLOUR)):
        images = rng.integers(0, 256, shape, np.uint8)
        labels = rng.integers(0, 10, len(images))
        pixels = to_pixels(images if images.ndim == 4 else images[..., None], spec)
        for kind, own in (
            ("numbers", labels),
            ("names", np.array(DIGITS)[labels]),
            ("small", labels.astype("u1")),
        ):
            yield {
                "name": f"{shape} {kind}", "spec": asdict(spec), "classes": DIGITS, "count": len(images),
                "file": written(kind == "names", image=images, label=own),
                "pixels": packed_array(pixels.reshape(-1)), "labels": packed_array(labels.astype(np.int32)),
            }  # fmt: skip


def text(content):
    return packed_array(np.frombuffer(content.encode(), np.uint8))


def texts():
    ids, names = [[5, 9, 3], [4, 4]], ["good", "bad"]
    padded = np.array([[5, 9, 3], [4, 4, 0]])
    rows = [{"input_ids": own, "label": name} for own, name in zip(ids, names, strict=True)]
    files = {
        "a.npz": written(input_ids=padded, lengths=np.array([3, 2]), label=np.array(names)),
        "a.json": text(json.dumps(rows)),
        "b.json": text(json.dumps({"input_ids": ids, "label": names})),
        "a.jsonl": text("\n".join(map(json.dumps, rows))),
        "a.csv": text('label,input_ids\ngood,"5 9 3"\n"bad","[4, 4]"\n'),
        "b.csv": text("input_ids,label\r\n5 9 3,good\r\n4 4,bad"),
    }
    for name, file in files.items():
        spec, classes = {"vocabulary": 10, "most": 4}, ["bad", "good"]
        for causal in (False, True):
            found = {"name": name, "file": file, "spec": spec, "classes": classes, "causal": causal}
            yield found | {"texts": ids, "labels": [1, 0]}


def refused():
    images, labels = np.zeros((3, 8, 8), np.uint8), np.arange(3)
    text_spec, image_spec = {"vocabulary": 10, "most": 3}, asdict(GREY)
    for name, file, sentence in (
        ("not a zip", text("nothing of the kind"), "no .npz file"),
        ("no labels", written(image=images), "needs an array label of 3"),
        ("another class", written(image=images, label=labels + 9), "class 10, which the job does not know"),
        ("floats", written(image=images.astype(np.float32), label=labels), "give uint8"),
        ("no inputs", written(x=images, label=labels), "name the inputs"),
        ("objects", written(image=np.array([{}] * 3), label=labels), "plain array"),
    ):
        yield {
            "name": name,
            "kind": "image",
            "file": file,
            "spec": image_spec,
            "classes": DIGITS,
            "sentence": sentence,
        }
    for name, content, sentence in (
        (
            "a.json",
            '[{"input_ids": [1, 10], "label": "1"}]',
            "token id 10, but the job's vocabulary ends at 9",
        ),
        ("b.json", '[{"input_ids": [1, 2, 3, 4], "label": "1"}]', "a row of 4 tokens"),
        ("c.csv", "text,label\nhello,1\n", "has no token ids"),
        ("d.json", "{", "neither JSON nor JSON lines"),
        ("e.csv", "input_ids,label\n", "no rows"),
    ):
        yield {
            "name": name, "kind": "text", "file": text(content), "spec": text_spec, "classes": DIGITS,
            "sentence": sentence,
        }  # fmt: skip


def drawings():
    """A digit drawn anywhere, of any size, is the same picture: as high as it is, ink counted in cells of 16 levels."""
    ink = np.zeros((64, 64), np.uint8)
    ink[8:40, 20:24] = 255  # a bar of 32 x 4 dots: the digit one of the scanned ones
    wanted = np.zeros((8, 8), np.uint8)
    wanted[:, 3] = 128  # half of the cells of 4 x 4 dots that it touches
    wanted[:, 4] = 128
    yield {"name": "a bar", "ink": ink, "width": 64, "wanted": wanted}
    yield {"name": "a bar elsewhere", "ink": np.roll(ink, (9, -15), (0, 1)), "width": 64, "wanted": wanted}
    yield {
        "name": "larger",
        "ink": np.kron(ink[:50, 10:40], np.ones((3, 3), np.uint8)),
        "width": 90,
        "wanted": wanted,
    }
    yield {"name": "nothing", "ink": np.zeros((64, 64), np.uint8), "width": 64, "wanted": None}


def drawn(case):
    wanted = None if case["wanted"] is None else packed_array(case["wanted"].reshape(-1))
    return case | {"ink": packed_array(case["ink"].reshape(-1)), "wanted": wanted}


@needs_node
def test_samples_are_those_of_every_device(tmp_path):
    made = {each.__name__: list(each()) for each in (pictures, archives, texts, refused)}
    run_check("samples", made | {"drawings": [drawn(case) for case in drawings()]}, tmp_path)
