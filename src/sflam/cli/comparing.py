"""``compare`` and ``study``: methods, allocators and settings side by side, from options or from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sflam import config
from sflam.cli import comparison_output, paper_output, shared
from sflam.errors import ConfigError


@shared.command(
    "sflam compare job.toml --seeds 3",
    "sflam compare job.toml --methods sflam,sflam+equal,fedlora --target 0.9 --set network.radius_m=800 --json",
    "sflam compare job.toml --methods sflam --bits 2,4,8 --alphas 0.1,0.5,1 --weights 0.1,0.5,0.9",
    "sflam compare job.toml --seeds 3 --rates 0.001,0.003,0.01",
    "sflam compare job.toml --methods sflam --vary learn.lr=0.001,0.003 --vary model.cut=1,2,4",
    "sflam compare job.toml --seeds 3 --target 0.8 --target 0.9 --baseline central",
    "sflam compare job.toml --seeds 3 --shard 0/2 --out first",
    "sflam compare --join first --join second --out runs/all",
)
def compare(
    job: shared.JobFile = None,
    overrides: shared.Set = None,
    methods: Annotated[
        str | None,
        typer.Option(help="METHOD or METHOD+ALLOCATOR, perhaps followed by SECTION.KEY=VALUE; by commas."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each method, with seeds from the job's own on.")] = 1,
    rates: Annotated[
        str | None, typer.Option(help="Learning rates to choose from, by validation score, e.g. 0.001,0.003.")
    ] = None,
    target: Annotated[
        list[float] | None,
        typer.Option(help="Accuracy whose cost is reported; may be repeated; by default 95 % of the best."),
    ] = None,
    baseline: Annotated[
        str, typer.Option(metavar="METHOD", help="Report the others' differences to this one, seed by seed.")
    ] = "",
    bits: Annotated[str | None, typer.Option(help="Also sweep the bits at the cut, e.g. 2,4,8.")] = None,
    alphas: Annotated[str | None, typer.Option(help="Also sweep the skew of the data, e.g. 0.1,1.")] = None,
    weights: Annotated[
        str | None, typer.Option(help="Also sweep the weight of time against energy, e.g. 0.1,0.5,0.9.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SECTION.KEY=V,V",
            help="Every method at each of these values of any key; may be repeated.",
        ),
    ] = None,
    zip_values: Annotated[
        bool, typer.Option("--zip", help="Take the values of all --vary together, not in every combination.")
    ] = False,
    only_list: comparison_output.ListRuns = False,
    shard: comparison_output.Shard = None,
    only: comparison_output.Only = None,
    join: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Join this folder of a share into --out; may be repeated."),
    ] = None,
    jobs: comparison_output.Jobs = None,
    out: Annotated[Path, typer.Option(help="Folder of runs, table, pictures.")] = Path("runs/compare"),
    as_json: shared.Json = False,
) -> None:
    """Train methods side by side: same samples, seeds and simulated network; accuracy, time, energy, bytes.

    Runs that are finished are not repeated, and one that was stopped goes on. Exit code 1 where some runs failed: their
    methods are left out. Without a network to simulate, add --set network.simulate=false.
    """
    if join:
        asked = (job, overrides, methods, rates, target, bits, alphas, weights, vary, shard, only)
        if any(asked) or baseline or only_list or zip_values or seeds != 1:
            raise ConfigError(
                "--join takes what the folders were asked for; leave out all options but --join, --out and --json"
            )
        comparison_output.joined(join, out, as_json)
        return
    wanted = config.load(job, ["network.simulate=true", *(overrides or [])])
    axes = {"bits": ("--bits", bits), "alpha": ("--alphas", alphas), "weight": ("--weights", weights)}
    sweeps = {axis: shared.numbers(name, text) for axis, (name, text) in axes.items() if text is not None}
    grid = None if rates is None else shared.numbers("--rates", rates)
    with shared.loading("loading"):
        from sflam.compare.lines import parted, varied
        from sflam.compare.study import Study
        from sflam.compare.variants import DEFAULT

    names = parted(methods) if methods is not None else list(DEFAULT)
    study = Study(
        job=wanted,
        methods=tuple(varied(names, vary or [], together=zip_values)),
        seeds=seeds,
        sweeps={axis: tuple(values) for axis, values in sweeps.items()},
        rates=None if grid is None else tuple(grid),
        targets=tuple(target or ()),
        baseline=baseline,
    )
    comparison_output.run(study, out, only_list=only_list, shard=shard, only=only, jobs=jobs, as_json=as_json)


@shared.command(
    "sflam study study.toml",
    "sflam study study.toml --list",
    "sflam study study.toml --shard 0/4 --out runs/study-0",
    "sflam study configs/sflam/study.toml --scale twin",
)
def study(
    file: Annotated[Path, typer.Argument(help="A TOML file: job, methods, vary, seeds, targets, baseline.")],
    scale: Annotated[
        str, typer.Option(help="Of a file of several parts: which of its scales; the first by default.")
    ] = "",
    only_list: comparison_output.ListRuns = False,
    shard: comparison_output.Shard = None,
    only: comparison_output.Only = None,
    jobs: comparison_output.Jobs = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of runs, table, pictures; runs/NAME of the file by default.")
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """Run a study file: what sflam compare would be asked for by options, in one TOML file.

    Keys: job (a job file, or a table of settings), set, methods, seeds, targets, baseline, rates, zip, [vary] and
    [sweeps]. A file of several parts has tables [parts.NAME], [[claims]] that they decide, and perhaps scales.
    """
    with shared.loading("loading"):
        from sflam.compare.study_file import read_table, study_of
        from sflam.paper.paper_file import has_parts, paper_study

    values = read_table(file)
    if has_parts(values):
        if shard:
            raise ConfigError(
                f"--shard {shard} is of one comparison, and {file} has parts; take some of them with --only"
            )
        papers = paper_study(values, file, scale)
        folder = out or Path("runs") / "-".join(filter(None, (file.stem, papers.scale)))
        paper_output.run(papers, folder, only_list=only_list, only=only or "", jobs=jobs, as_json=as_json)
        return
    if scale:
        raise ConfigError(
            f"--scale {scale} is of a file of several parts, and {file} is one comparison; leave it out"
        )
    comparison_output.run(
        study_of(values, file),
        out or Path("runs") / file.stem,
        only_list=only_list,
        shard=shard,
        only=only,
        jobs=jobs,
        as_json=as_json,
    )
