"""`report.html`: the comparison on one page that needs nothing from any network."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure

from cryoquery.report import figures, gallery
from cryoquery.report.analysis import TESTED
from cryoquery.report.findings import Findings
from cryoquery.report.methods import methods, provenance
from cryoquery.report.runs import RANDOM, STRATIFIED, label, short_label
from cryoquery.report.tables import COLUMNS, table_notes, table_rows
from cryoquery.report.words import listed, p_value, plural, signed


@dataclass(frozen=True)
class Drawing:
    """A figure as the page shows it."""

    source: str
    """Data URI."""
    alt: str
    caption: str


def page(findings: Findings) -> str:
    """The whole page; the same findings give the same bytes."""
    environment = Environment(
        loader=PackageLoader("cryoquery.report"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"png": _png, "p": p_value, "signed": signed, "interval": _interval}
    results, analysis = findings.results, findings.analysis
    dataset = findings.dataset
    return environment.get_template("report.html.j2").render(
        name=results.config.out.name,
        split=results.split,
        seeds=results.seeds_of_any(),
        hypotheses=analysis["hypotheses"].values(),
        notices=notices(findings),
        curves=_curves(findings),
        asked=_asked(findings),
        columns=COLUMNS,
        rows=table_rows(findings.table),
        table_notes=table_notes(findings.table),
        against={run: _against(findings, run) for run in analysis["against"]},
        tested=TESTED,
        costs=cost_rows(findings),
        label_cost=results.label_cost,
        wins=_wins(findings),
        limits=limit_sentences(findings),
        first_asked=gallery.first_asked(results, dataset) if dataset else [],
        predictions=gallery.predictions(results, dataset) if dataset else [],
        missing=findings.missing,
        methods=_paragraphs(methods(results, findings.measurements, dataset)),
        provenance=provenance(results, results.config.out),
    )


def notices(findings: Findings) -> list[str]:
    """What a reader must know before the numbers."""
    results = findings.results
    said = []
    if results.unfinished:
        said.append(f"Left out, because unfinished: {'; '.join(results.unfinished)}.")
    for run, seeds in findings.analysis["limits"]["missing_seeds"].items():
        numbers = ", ".join(map(str, seeds))
        said.append(
            f"{label(run)} has no finished run with seed {numbers}: it is compared on the other seeds only."
        )
    for group in results.identical:
        why = ""
        if set(group) == {"uncertainty_sampling", "margin_sampling"}:
            why = " For one sigmoid output margin is twice least confidence: the two rank images alike."
        said.append(
            f"{listed([label(run) for run in group])} labelled the same images in every iteration and seed. "
            f"They are one experiment and count as one in all tests.{why}"
        )
    return said


def _curves(findings: Findings) -> list[Drawing]:
    results = findings.results
    drawings = [
        _draw(
            figures.learning_curves,
            results,
            "Pixel F1 (pooled over the held-out pixels) and particle F1 (mean over held-out micrographs) "
            "over "
            "what was labelled: images, particles, and time under the stated cost. Lines are means over "
            "seeds, "
            "bands ± one standard deviation; the gray band is full supervision.",
        ),
        _draw(
            figures.every_seed,
            results,
            "Every seed's own curve (thin), the mean of the run (bold), the mean of random sampling "
            "(dotted), "
            "and full supervision (gray).",
        ),
        _draw(
            figures.secondary_curves,
            results,
            "Precision, recall and IoU at probability 0.5, and AUC, of pixels.",
        ),
    ]
    return [drawing for drawing in drawings if drawing]


def _against(findings: Findings, opponent: str) -> dict[str, Any]:
    compared = findings.analysis["against"][opponent]
    drawing = None
    if any(compared.values()):
        figure = figures.advantages(compared, opponent)
        drawing = _drawing(
            figure,
            f"Each strategy minus {label(opponent).lower()}, paired by seed. Dot: mean; ticks above it: "
            "the seeds; "
            "thick bar: 95 % interval over seeds (bootstrap); thin line: 95 % interval over seeds and "
            "held-out "
            "micrographs.",
        )
    return {"label": label(opponent), "compared": compared, "drawing": drawing, "names": _names(compared)}


def _names(compared: Mapping[str, Any]) -> dict[str, str]:
    return {run: short_label(run) for rows in compared.values() for run in rows}


def _asked(findings: Findings) -> list[Drawing]:
    drawings = []
    if findings.overlaps and len(findings.overlaps[0].runs) > 1:
        more = len(findings.overlaps) - figures.MAX_PANELS
        drawings.append(
            _draw(
                figures.overlap_matrices,
                findings.overlaps,
                "Share of each query that two strategies had in common, mean over seeds."
                + (f" The last {more} queries are in selection.json." if more > 0 else ""),
            )
        )
    if findings.pool and findings.selections:
        figure = figures.compositions(findings.selections, findings.pool)
        drawings.append(
            _drawing(
                figure, "From which groups the labelled images come, beside the whole pool; mean over seeds."
            )
        )
        figure = figures.purchases(findings.selections, findings.pool)
        drawings.append(
            _drawing(
                figure,
                "How crowded the new images of each iteration were, mean over seeds. Crowded images cost "
                "more "
                "time to label.",
            )
        )
    return [drawing for drawing in drawings if drawing]


def cost_rows(findings: Findings) -> list[dict[str, Any]]:
    """For each run what half of the labels cost, and what it took to come near full supervision."""
    results = findings.results
    rows = []
    for run in results.runs():
        half = findings.table["runs"][run]["at_50_percent"]
        by_seed = findings.analysis["runs"][run]["by_seed"]
        reached = [n["to_reach_full_supervision"] for n in by_seed.values()]
        row: dict[str, Any] = {"label": label(run), "half": None, "reached": None}
        if half["f1"] is not None:
            images, particles = (half[f"n_labeled_{what}"]["mean"] for what in ("images", "particles"))
            row["half"] = (images, particles, results.label_cost.minutes(images, particles) / 60)
        found = [numbers for numbers in reached if numbers]
        row["of"] = f"{len(found)} of {len(reached)}"
        if found:
            keys = ("n_labeled_images", "n_labeled_particles", "minutes")
            means = [sum(numbers[key] for numbers in found) / len(found) for key in keys]
            row["reached"] = (means[0], means[1], means[2] / 60)
        rows.append(row)
    return rows


def limit_sentences(findings: Findings) -> list[str]:
    """What cannot be concluded from this experiment."""
    limits = findings.analysis["limits"]
    said = []
    pairs = list(limits["n_paired_seeds"].values())
    if pairs and min(pairs) == 1:
        said.append("With one seed there is no test: chance and effect cannot be told apart.")
    elif pairs and min(pairs) > 1:
        n, p = min(pairs), limits["smallest_wilcoxon_p"]
        sentence = f"With {n} paired seeds no two-sided Wilcoxon test can go below p = {p:.3g}"
        short = (
            "" if p < limits["alpha"] else f"; it takes {limits['seeds_for_wilcoxon']} seeds to go below 0.05"
        )
        said.append(f"{sentence}{short}. The t-test assumes that differences between seeds are near normal.")
    detectable = limits["detectable_aulc_difference"]
    if detectable:
        parts = ", ".join(f"{short_label(run)} {value:.3f}" for run, value in detectable.items())
        said.append(
            "With this number of seeds and this spread, a paired t-test at 5 % (before correction) would "
            "have found a "
            "true difference to random sampling in AULC with 80 % probability if it had been at least: "
            f"{parts}. "
            "Smaller differences may well exist."
        )
    micrographs, groups = limits["n_held_out_micrographs"], limits["n_groups"]
    if micrographs:
        said.append(
            f"Everything was measured on {plural(micrographs, 'held-out micrograph')} of "
            f"{plural(groups, 'group')}; "
            "the intervals over micrographs say what other micrographs of the same groups would give. "
            "Nothing "
            "is said of other proteins, microscopes or label makers."
        )
    if groups and groups > 1 and STRATIFIED not in findings.results.runs():
        said.append(
            "The data come from several groups, and stratified random sampling was not run: a strategy "
            "that beats plain "
            "random may only have found the groups."
        )
    if RANDOM not in findings.results.runs():
        said.append("Random sampling was not run: there is nothing to hold the strategies against.")
    said.append(
        "A strategy is compared at equal numbers of images; where its images are more crowded, it had more "
        "particles "
        "labelled. The curves over particles and time show what that is worth."
    )
    return said


def _wins(findings: Findings) -> dict[str, Any]:
    wins = findings.analysis["wins"]
    names = [short_label(run) for run in wins["runs"]]
    share = [[wins["share"][a][b] for b in wins["runs"]] for a in wins["runs"]]
    return {"names": names, "share": share}


def _draw(draw: Callable[[Any], Figure], what: Any, caption: str) -> Drawing:
    return _drawing(draw(what), caption)


def _drawing(figure: Figure, caption: str) -> Drawing:
    source = base64.b64encode(figures.as_svg(figure)).decode()
    return Drawing(f"data:image/svg+xml;base64,{source}", caption.split(".")[0], caption)


def _png(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _interval(bounds: list[float] | None) -> str:
    return "–" if bounds is None else f"{signed(bounds[0])} … {signed(bounds[1])}"


def _paragraphs(text: str) -> list[str]:
    """Paragraphs of `methods.md` as HTML: of Markdown they use bold only."""
    paragraphs = [part for part in text.split("\n\n") if part and not part.startswith("#")]
    return [re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(part)) for part in paragraphs]
