"""One self-contained HTML page: nothing is fetched, no script runs, words that come from files are escaped."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from sflam import __version__
from sflam.config import Job, changes, digest, toml_value
from sflam.report.pages.markup import Html, element, joined

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load for the page: nothing."""


def page(title: str, beneath: str, sections: Sequence[tuple[str, str, Html]], *, before: Html) -> str:
    """Return a whole page.

    Args:
        title: of the page.
        beneath: a sentence under the title.
        sections: (id, heading, content), in order.
        before: what stands before the first section.
    """
    style = resources.files("sflam.report").joinpath("style.css").read_text(encoding="utf-8")
    links = [element("a", heading, href=f"#{name}") for name, heading, _ in sections]
    body = [element("section", element("h2", heading), inside, id=name) for name, heading, inside in sections]
    head = joined(
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{title} - sflam"),
        element("style", Html(style)),
    )
    top = element(
        "header", element("h1", title), element("p", beneath, class_="quiet"), element("nav", *links)
    )
    foot = element(
        "footer", f"Written by sflam {__version__}. Times and energies are those of the network model."
    )
    whole = element("body", top, element("main", before, *body), foot)
    return f"<!doctype html>\n{element('html', element('head', head), whole, lang='en')}\n"


def key_figures(figures: Sequence[tuple[str, str]]) -> Html:
    """Return the numbers that matter most: (number, what it is)."""
    return element(
        "div",
        *(element("div", element("b", value), element("span", said)) for value, said in figures),
        class_="figures",
    )


def paragraph(text: str) -> Html:
    """Return a quiet sentence."""
    return element("p", text, class_="quiet")


def charts(*figures: Html) -> Html:
    """Return figures side by side, as many as the screen has room for."""
    return element("div", *figures, class_="charts")


def folded(summary: str, *inside: Html, opened: bool = False) -> Html:
    """Return something that opens when asked for."""
    return element("details", element("summary", summary), *inside, open="" if opened else None)


def code(text: str) -> Html:
    """Return text as it is."""
    return element("pre", element("code", text), tabindex=0)


def settings(job: Job) -> Html:
    """Return every setting of a job, section by section; those that are not the default are bold."""
    unusual = changes(job, json.loads(json.dumps(asdict(Job())))).keys()
    blocks = []
    for section, values in _sections(job).items():
        rows = []
        for key, value in values.items():
            name = f"{section}.{key}" if section else key
            mark = "changed" if name in unusual else None
            rows.append(element("tr", element("td", key, class_=mark), element("td", value, class_=mark)))
        heading = element("h3", f"[{section}]" if section else "job")
        blocks.append(element("div", heading, element("table", *rows, class_="settings")))
    note = paragraph(f"Bold: not the default. Digest of the whole configuration: {digest(job)}.")
    return joined(note, element("div", *blocks, class_="sections"))


def environment(versions: Mapping[str, str], job: Job) -> Html:
    """Return what the numbers depend on beside the configuration."""
    rows = [*versions.items(), ("precision", job.model.dtype), ("seed", str(job.seed))]
    rows += [
        ("bit-equal when repeated", "yes, on this type of machine" if job.learn.canonical else "to rounding")
    ]
    body = [element("tr", element("td", name), element("td", value)) for name, value in rows]
    return element("table", *body, class_="settings")


def command(words: Sequence[str]) -> str:
    """Return a command for a shell, an option a line."""
    lines, line = [], ""
    for word in words:
        quoted = shlex.quote(word)
        if word.startswith("--") and line:
            lines.append(line)
            line = f"  {quoted}"
        else:
            line = f"{line} {quoted}" if line else quoted
    return " \\\n".join([*lines, line])


def _sections(job: Job) -> dict[str, dict[str, str]]:
    plain: dict[str, dict[str, str]] = {"": {"seed": str(job.seed)}}
    for name in asdict(job):
        value: Any = getattr(job, name)
        if name != "seed":
            keys = value.__dataclass_fields__
            plain[name] = {key: _shown(getattr(value, key)) for key in keys}
    return plain


def _shown(value: Any) -> str:
    return "-" if value is None else toml_value(value)
