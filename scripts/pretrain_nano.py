"""Make the bundled nano ViT: pretrain a small vision transformer on rendered glyphs, never on a digit.

    python scripts/pretrain_nano.py                # writes src/sflam/model/nano_vit in a quarter of an hour
    python scripts/pretrain_nano.py --steps 100 --out /tmp/nano

Letters and symbols of the DejaVu fonts that come with matplotlib are drawn by Pillow, distorted like
handwriting, and reduced to 8 x 8 pixels of 17 levels exactly as the handwritten digits of scikit-learn were
(a 32 x 32 black-and-white bitmap, ink counted in 4 x 4 blocks). The model learns to name the glyph; its
backbone is kept. Digits in any form (superscript, circled, fractions, ...) are left out, so fine-tuning on
digits is real transfer. docs/explanation/nano_vit.md tells the whole story with numbers.

G glyph drawings, B batch, all images one grey channel.
"""

from __future__ import annotations

import argparse
import math
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification

from sflam.data.images import ImageSpec, to_pixels
from sflam.data.settings import DataSettings
from sflam.data.sources import load

OUT = Path(__file__).parents[1] / "src" / "sflam" / "model" / "nano_vit"
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
CANVAS, BITMAP, DIGIT = 48, 32, 8  # sides in pixels: drawing, black-and-white bitmap, final image
SPEC = ImageSpec(size=16, channels=1, mean=(0.5,), std=(0.5,))
ALPHABETS = (
    ("Latin", 0x0041, 0x024F),
    ("Greek", 0x0370, 0x03FF),
    ("Cyrillic", 0x0400, 0x045F),
    ("Armenian", 0x0531, 0x0587),
    ("Georgian", 0x10D0, 0x10FA),
)
SYMBOLS = "!#$%&*+/<=>?@\\^{}[]()|~£€¥¶±×÷ª°µ¿†‡←↑→↓↔↕∀∂∃∅∆∇∈∋∏∐∑√∝∞∠∧∨∩∪∫∴∼≅≈≠≡≤≥⊂⊃⊆⊇⊕⊗⊥⌂⌐⌠⌡"
SYMBOLS += "─│┌┐└┘├┤┬┴┼▲▼◄►◊○●◘◙☺☼♀♂♠♣♥♦♪♫✓✗✚✦✱"

# Words in the Unicode name of letters that were made from digits, such as Ƨ, "tone two".
NUMBER_WORDS = {"TONE", "ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"}


def characters() -> list[str]:
    """Return the characters to draw: undecorated letters and symbols; nothing with a numeric meaning."""
    letters = [chr(code) for _, first, last in ALPHABETS for code in range(first, last + 1)]
    # An accented letter is its base letter at 8 x 8 pixels, two classes for one picture: left out.
    plain = [c for c in letters if c.isalpha() and len(unicodedata.normalize("NFKD", c)) == 1]
    return [c for c in [*plain, *SYMBOLS] if not is_digit(c)]


def is_digit(character: str) -> bool:
    """Say whether a character is a digit or a number in any form: 2, ², ②, ½, Ⅷ, or the tone letter Ƽ."""
    forms = character + unicodedata.normalize("NFKD", character)
    numeric = any(unicodedata.category(form).startswith("N") for form in forms)
    return numeric or not NUMBER_WORDS.isdisjoint(unicodedata.name(character, "").split())


def draw(character: str, font: ImageFont.FreeTypeFont) -> NDArray[np.uint8] | None:
    """Return the glyph as uint8 [48, 48], its longer side 36 pixels; None when it is a mere dot or dash."""
    left, top, right, bottom = (int(side) for side in font.getbbox(character))
    image = Image.new("L", (right - left + 8, bottom - top + 8))
    ImageDraw.Draw(image).text((4 - left, 4 - top), character, fill=255, font=font)
    box = image.getbbox()
    if box is None or box[3] - box[1] < font.size / 4:
        return None
    glyph = image.crop(box)
    scale = 36 / max(glyph.size)
    width, height = (max(1, round(side * scale)) for side in glyph.size)
    canvas = Image.new("L", (CANVAS, CANVAS))
    glyph = glyph.resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    canvas.paste(glyph, ((CANVAS - width) // 2, (CANVAS - height) // 2))
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(1.0)))  # soft edges rank pixels for count_ink


def glyphs() -> tuple[Tensor, Tensor, list[str]]:
    """Return all drawings float [G, 1, 48, 48] in 0..1, their classes int64 [G], and a name per class.

    Characters that look alike (Latin A, Greek Alpha, Cyrillic A; c and C) become one class.
    """
    faces = sorted(FONTS.glob("DejaVu*.ttf"))
    drawings: list[dict[str, NDArray[np.uint8]]] = []
    for face in faces:
        font, known = ImageFont.truetype(str(face), 96), FT2Font(str(face)).get_charmap()
        drawn = {c: draw(c, font) for c in characters() if ord(c) in known}
        drawings.append({c: image for c, image in drawn.items() if image is not None})
    reference = drawings[[face.name for face in faces].index("DejaVuSans.ttf")]
    names = merge(reference)
    classes = {c: index for index, alike in enumerate(names) for c in alike}
    chosen = [(image, classes[c]) for drawn in drawings for c, image in drawn.items() if c in classes]
    images = np.stack([image for image, _ in chosen])[:, np.newaxis].astype(np.float32) / 255
    return torch.from_numpy(images), torch.tensor([label for _, label in chosen]), names


def merge(reference: dict[str, NDArray[np.uint8]], alike: float = 0.9) -> list[str]:
    """Return groups of characters whose ink overlaps by ``alike`` (intersection over union) or more."""
    groups: list[tuple[NDArray[np.bool_], str]] = []
    for character, image in reference.items():
        ink = image > 127
        for index, (other, members) in enumerate(groups):
            if (ink & other).sum() >= alike * (ink | other).sum():
                groups[index] = (other, members + character)
                break
        else:
            groups.append((ink, character))
    return [members for _, members in groups]


def handwrite(images: Tensor, rng: torch.Generator) -> Tensor:
    """Return uint8 [B, 8, 8, 1] in 17 levels: glyphs [B, 1, 48, 48] distorted as if written by hand.

    Random rotation, shear, stretch and a smooth elastic field bend the glyph; the share of ink, drawn
    around that of the digits, sets the width of the pen; cropping to the ink fills the height, as the makers
    of the digits did.
    """
    count = len(images)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    angle, shear = 0.2 * normal(count), 0.3 * normal(count)
    stretch = torch.exp(0.15 * normal(count))
    cos, sin = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    skew = torch.zeros(count, 2, 2)
    skew[:, 0, 0], skew[:, 1, 1], skew[:, 0, 1] = stretch, 1 / stretch, shear
    affine = torch.cat([1.1 * turn @ skew, torch.zeros(count, 2, 1)], dim=-1)
    grid = functional.affine_grid(affine, [count, 1, CANVAS, CANVAS], align_corners=False)
    coarse = 0.1 * torch.rand(count, 1, 1, 1, generator=rng) * normal(count, 2, 5, 5)
    bend = functional.interpolate(coarse, size=(CANVAS, CANVAS), mode="bicubic", align_corners=True)
    canvas = functional.grid_sample(images, grid + bend.permute(0, 2, 3, 1), align_corners=False)
    bitmap = crop(canvas, rng)
    return count_ink(bitmap, 0.32 + 0.045 * normal(count), rng)


def crop(canvas: Tensor, rng: torch.Generator) -> Tensor:
    """Return [B, 1, 32, 32]: the ink's bounding box stretched to the full height, its width kept roughly."""
    count = len(canvas)
    ink = canvas[:, 0] > 0.5 * canvas.amax(dim=(1, 2, 3), keepdim=True)[:, 0]
    places = torch.arange(CANVAS, dtype=torch.float32)
    spans = []
    for axis in (1, 2):  # the axis that is collapsed: rows for the horizontal span, columns for the vertical
        hit = ink.any(dim=axis)
        first = torch.where(hit, places, torch.inf).amin(dim=1)
        last = torch.where(hit, places, -torch.inf).amax(dim=1) + 1
        spans.append((first, last - first))
    (left, width), (top, height) = spans
    wish = BITMAP * width / height * torch.exp(0.15 * torch.randn(count, generator=rng))
    target = torch.minimum(wish.clamp(min=6), 24 + 2 * torch.rand(count, generator=rng))
    shift = 15.0 + 1.0 * torch.randn(count, generator=rng)  # pixel of the bitmap where the middle comes
    pixels = torch.arange(BITMAP, dtype=torch.float32) + 0.5
    x = left[:, None] + width[:, None] * ((pixels - shift[:, None]) / target[:, None] + 0.5)
    y = top[:, None] + height[:, None] * (pixels / BITMAP).expand(count, -1)
    grid = torch.stack([x[:, None, :].expand(-1, BITMAP, -1), y[:, :, None].expand(-1, -1, BITMAP)], dim=-1)
    return functional.grid_sample(canvas, 2 * grid / CANVAS - 1, align_corners=False)


def count_ink(bitmap: Tensor, share: Tensor, rng: torch.Generator) -> Tensor:
    """Return uint8 [B, 8, 8, 1]: the brightest ``share`` [B] of each bitmap is ink, counted in 4 x 4 blocks.

    The soft edges of the drawings rank the pixels from the middle of a stroke outwards, so a larger share is
    a broader pen, whatever the weight of the font.
    """
    values = bitmap[:, 0].flatten(1)
    values = values + 0.02 * torch.randn(values.shape, generator=rng)  # frayed edges; breaks ties
    rank = (share.clamp(0.12, 0.5) * values.shape[1]).long()
    threshold = values.sort(dim=1, descending=True).values.gather(1, rank[:, None])
    ink = (values > threshold.clamp(min=0.1)).float().view(-1, 1, BITMAP, BITMAP)
    levels = functional.avg_pool2d(ink, BITMAP // DIGIT) * 16
    return (levels * (255 / 16)).round().to(torch.uint8).permute(0, 2, 3, 1)


def new_model(classes: int) -> ViTForImageClassification:
    """Return the nano ViT with random weights: 17 tokens of 96, six blocks, 452 thousand parameters and a head."""
    config = ViTConfig(
        image_size=SPEC.size,
        patch_size=4,
        num_channels=1,
        hidden_size=96,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=192,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=classes,
        initializer_range=0.1,  # 1 / sqrt(96); the library's 0.02 is for widths near 768 and learns far slower
    )
    return ViTForImageClassification(config)


def train(steps: int, batch: int, lr: float, seed: int) -> ViTForImageClassification:
    """Return the model after ``steps`` mini-batches of freshly distorted glyphs."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    images, labels, names = glyphs()
    print(f"{len(images)} drawings of {len(names)} classes: {' '.join(names)}")
    model = new_model(len(names)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, betas=(0.9, 0.98))
    warmup = max(1, min(200, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / warmup) * (0.51 + 0.49 * math.cos(math.pi * step / steps)),
    )
    loss_mean, right_mean = 0.0, 0.0
    with Progress() as progress:
        task = progress.add_task("pretraining", total=steps)
        for step in range(steps):
            picked = torch.randint(len(images), (batch,), generator=rng)
            pixels = to_pixels(handwrite(images[picked], rng).numpy(), SPEC)
            logits = model(pixel_values=torch.from_numpy(pixels)).logits
            loss = functional.cross_entropy(logits, labels[picked], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            keep = 0.98 if step else 0.0
            loss_mean = keep * loss_mean + (1 - keep) * loss.item()
            right_mean = (
                keep * right_mean + (1 - keep) * (logits.argmax(1) == labels[picked]).float().mean().item()
            )
            said = f"loss {loss_mean:.3f}, right {right_mean:.1%}"
            progress.update(task, advance=1, description=said)
            if (step + 1) % 500 == 0:
                progress.console.print(f"step {step + 1}: {said}")
    return model.eval()


def probe(model: ViTForImageClassification, seed: int) -> float:
    """Return the test accuracy on the digits of a linear classifier over the frozen class token."""
    from sklearn.linear_model import LogisticRegression

    splits = load(DataSettings(name="digits"), seed)
    features = []
    for part in (splits.train, splits.test):
        with torch.no_grad():
            hidden = model.vit(pixel_values=torch.from_numpy(to_pixels(part.inputs, SPEC))).last_hidden_state
        features.append(hidden[:, 0].numpy())
    reader = LogisticRegression(max_iter=2000).fit(features[0], splits.train.labels)
    return float(reader.score(features[1], splits.test.labels))


def save(model: ViTForImageClassification, out: Path) -> None:
    """Write the backbone, without the glyph classifier, and its preprocessor in Hugging Face format."""
    out.mkdir(parents=True, exist_ok=True)
    model.config.num_labels = 2  # the library's default: the names of the glyph classes stay behind
    model.config.initializer_range = 0.02  # for the heads of others
    model.vit.float().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    text = (
        '{\n  "image_processor_type": "ViTImageProcessor",\n  "do_resize": true,\n'
        f'  "size": {{"height": {SPEC.size}, "width": {SPEC.size}}},\n  "resample": {SPEC.resample},\n'
        '  "do_rescale": true,\n  "rescale_factor": 0.00392156862745098,\n  "do_normalize": true,\n'
        f'  "image_mean": {list(SPEC.mean)},\n  "image_std": {list(SPEC.std)}\n}}\n'
    )
    (out / "preprocessor_config.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Read the options, train, save, and print a linear probe on the digits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000, help="mini-batches (default 5000)")
    parser.add_argument("--batch", type=int, default=128, help="glyphs in a mini-batch (default 128)")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate (default 2e-3)")
    parser.add_argument("--seed", type=int, default=0, help="weights, glyphs and distortions (default 0)")
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads; more is faster but rounds differently"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write (default: the bundled one)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = train(options.steps, options.batch, options.lr, options.seed)
    save(model, options.out)
    count = sum(parameter.numel() for parameter in model.vit.parameters())
    print(f"{count} parameters in {options.out}; linear probe on the digits: {probe(model, 0):.4f}")


if __name__ == "__main__":
    main()
