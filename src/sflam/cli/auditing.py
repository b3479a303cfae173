"""``audit``: what a server could learn from what devices send."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated

import typer

from sflam.cli import shared
from sflam.errors import ConfigError, RunError
from sflam.files import replace_file, writing
from sflam.sizes import FLOAT_BITS


@shared.command(
    "sflam audit runs/digits-nano-vit-sflam-1",
    "sflam audit runs/mine --cuts 0,1,2 --bits 2,8,32 --samples 32 --json",
    "sflam audit runs/mine --cuts 1,2 --noise 0,0.05,0.1,0.2",
    "sflam audit runs/mine --cuts 1 --bits 2,4 --scheme rotated",
    "sflam audit runs/mine --cuts 1 --shadows 8",
    "sflam audit job.toml --set model.cut=0 --out audit",
)
def audit(
    subject: Annotated[
        Path,
        typer.Argument(
            help="Run folder, of sflam train, simulate or serve; or a job file, before any training."
        ),
    ],
    cuts: Annotated[str, typer.Option(help="Cuts to attack, separated by commas; by default all.")] = "",
    bits: Annotated[
        str,
        typer.Option(help="Widths of activations, 32 for floats; by default 2, those sent, and floats."),
    ] = "",
    scheme: Annotated[
        str, typer.Option(help="Quantizer that devices are to use; by default the job's.")
    ] = "",
    samples: Annotated[int, typer.Option(help="Inputs to reconstruct.")] = 12,
    steps: Annotated[int, typer.Option(help="Steps of the descent that looks for images.")] = 100,
    noise: Annotated[
        str,
        typer.Option(
            help="Noise of devices to look at, in clips, separated by commas; by default none, and the job's."
        ),
    ] = "",
    clip: Annotated[
        float,
        typer.Option(help="Norm to which noisy tokens are clipped; by default the job's, or their median."),
    ] = 0.0,
    visits: Annotated[
        int,
        typer.Option(
            help="Visits of a sample whose tokens the server puts together, where devices drop some of them."
        ),
    ] = 1,
    shadows: Annotated[
        int,
        typer.Option(
            help="Runs to train again on halves of the samples, to tell who was trained on; each takes about half of "
            "the run's own time. 0 asks by the loss and the gradient alone."
        ),
    ] = 0,
    pretend: Annotated[
        int,
        typer.Option(help="Devices that the server pretends, to read class mixes from adapters; 0 for none."),
    ] = 48,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Override a setting of a job file; repeatable."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for audit.json, .png and .html; by default the run's, or audit."),
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """Attack what devices send as a curious server would, and report what it learns.

    Images and texts are reconstructed at every cut, width and noise; labels that stay at home are guessed, whether a
    sample was trained on, and from the adapters that a device sends its class mix. Every number stands beside what a
    guess gets, the accuracy that is left, and the planner's time and energy.
    """
    with shared.status("loading model and data"):
        from sflam.privacy.audit import COUNTED, widths_of
        from sflam.privacy.audit import audit as attack
        from sflam.privacy.class_mix import by_updates, expect_pretended
        from sflam.privacy.price import prices
        from sflam.privacy.shadows import by_likelihood, expect_shadows
        from sflam.privacy.subject import subject_of
        from sflam.privacy.summary import summary
        from sflam.report.charts.audit import draw_audit
        from sflam.report.pages.audit import audit_page
        from sflam.report.terminal.audit_table import audit_table, width_text
        from sflam.report.terminal.tally import Tally

        audited = subject_of(subject, overrides)
        audited = audited.with_scheme(scheme) if scheme else audited
        expect_shadows(audited, shadows)
        expect_pretended(pretend)
    places = whole("--cuts", cuts) or list(range(audited.backbone.depth + 1))
    widths = [None if each == FLOAT_BITS else each for each in whole("--bits", bits)] or widths_of(audited)
    noises = shared.numbers("--noise", noise) if noise else [0.0, audited.job.privacy.noise]
    with Tally("cut, width and noise") as tally:
        got = attack(
            audited,
            cuts=places,
            widths=widths,
            samples=samples,
            steps=steps,
            noises=list(dict.fromkeys(noises)),
            clip=clip,
            visits=visits,
            seen=tally.count,
        )
    with shared.status("reading class mixes from adapters"):
        mixes = by_updates(audited, pretend)
    for mix in mixes:
        got = got.with_finding(mix)
    if shadows:
        with Tally("shadow runs") as tally:
            got = got.with_finding(by_likelihood(audited, shadows, COUNTED, places[0], tally.count))
    priced, why = prices(audited.job, list(got.worth))
    shared.notes([why] if why else [])
    found = summary(got, audited, priced, visits)
    title = f"{subject.name}: what the server could learn"
    shared.show(as_json, audit_table(found, title))
    first = next(iter(got.pictures.values()), None)
    sent = audited.job.placements[0].bits_up
    shown = sent if sent in widths else widths[0]
    rows = [] if first is None else [("original", first.original)]
    rows += [
        (
            f"cut {cut}, {width_text(width)}{' bits' * (width is not None)}{f', noise {level:g}' * bool(level)}",
            each.found,
        )
        for (cut, width, level), each in got.pictures.items()
        if width == shown
    ]
    folder = out or (subject if subject.is_dir() else Path("audit"))
    shared.write(folder, "audit", found, draw_audit(found, rows, title=title), RunError)
    with writing(folder / "audit.html", "give another --out"):
        replace_file(folder / "audit.html", audit_page(found, audited.job, rows, title=title).encode())
    shared.show_json(as_json, found)


def whole(option: str, text: str) -> list[int]:
    """Return the whole numbers of an option, each once; ConfigError names what is none."""
    found = shared.numbers(option, text) if text else []
    if strange := [each for each in found if not isfinite(each) or each != int(each)]:
        raise ConfigError(f"{option} holds {strange[0]:g}; give whole numbers")
    return list(dict.fromkeys(map(int, found)))
