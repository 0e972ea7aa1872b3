"""`report.html`: the comparison on one page that needs nothing from any network."""

from __future__ import annotations

import base64
import html
import re
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from cryoquery.report import computing, figures, gallery
from cryoquery.report.analysis import TESTED
from cryoquery.report.answer import size_and_date
from cryoquery.report.findings import Comparison
from cryoquery.report.methods import methods, provenance
from cryoquery.report.remarks import area_rows, cost_rows, elsewhere_rows, limit_sentences, notices
from cryoquery.report.runs import Results, label, short_label
from cryoquery.report.tables import COLUMNS, interpolated, table_notes, table_rows
from cryoquery.report.words import p_value, signed


@dataclass(frozen=True)
class Drawing:
    """A figure as the page shows it."""

    source: str
    """Data URI."""
    alt: str
    caption: str


def page(findings: Comparison) -> str:
    """The whole page; the same findings give the same bytes."""
    environment = Environment(
        loader=PackageLoader("cryoquery.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"png": _png, "p": p_value, "signed": signed, "interval": _interval}
    results, analysis = findings.results, findings.analysis
    dataset = findings.dataset
    return environment.get_template("report.html.j2").render(
        name=results.config.out.name,
        facts=size_and_date(results, len(findings.measurements.micrographs)),
        seeds=results.seeds_of_any(),
        several=len(results.seeds_of_any()) > 1,
        answer=analysis["answer"],
        next=analysis["next"],
        main_curve=_main_curve(findings),
        interpolated=interpolated(findings.table),
        hypotheses=analysis["hypotheses"].values(),
        notices=notices(findings),
        curves=_curves(findings),
        asked=_asked(findings),
        columns=COLUMNS,
        rows=table_rows(findings.table),
        table_notes=table_notes(findings.table),
        against={run: _against(findings, run) for run in analysis["against"]},
        tested=TESTED,
        areas=area_rows(findings),
        elsewhere=elsewhere_rows(findings),
        costs=cost_rows(findings),
        computing=computing.in_words(analysis["computing"]),
        label_cost=results.label_cost,
        wins=_wins(findings),
        limits=limit_sentences(findings),
        first_asked=gallery.first_asked(results, dataset) if dataset else [],
        predictions=gallery.predictions(results, dataset) if dataset else [],
        missing=findings.missing,
        methods=_paragraphs(methods(findings)),
        provenance=provenance(results, results.config.out),
    )


def _has_curves(results: Results) -> bool:
    return any(run not in figures.WHOLE for run in results.runs())


def _main_curve(findings: Comparison) -> Drawing | None:
    if not _has_curves(findings.results):
        return None
    return _drawing(
        figures.main_curve(findings.results),
        "Pixel F1 over what is labeled. Bold: mean over seeds; band: ± one standard deviation; thin: every "
        "seed; gray: full supervision.",
    )


def _curves(findings: Comparison) -> list[Drawing]:
    results = findings.results
    if not _has_curves(results):
        return []
    return [
        _drawing(
            figures.learning_curves(results),
            "Pixel F1 (pooled over the held-out pixels) and particle F1 (mean over held-out micrographs) "
            "over what was labeled: images, particles, and time under the stated cost. Bold: mean over "
            "seeds; band: ± one standard deviation; thin: every seed; gray: full supervision.",
        ),
        _drawing(
            figures.every_seed(results),
            "Every seed's own curve (thin), the mean of the run (bold), the mean of random sampling "
            "(dotted), and full supervision (gray).",
        ),
        _drawing(
            figures.secondary_curves(results),
            "Precision, recall and IoU at probability 0.5, and AUC, of pixels; drawn as above.",
        ),
    ]


def _against(findings: Comparison, baseline: str) -> dict[str, Any]:
    compared = findings.analysis["against"][baseline]
    drawing = None
    if any(compared.values()):
        figure = figures.advantages(compared, baseline)
        drawing = _drawing(
            figure,
            f"Each strategy minus {label(baseline).lower()}, paired by seed. Dot: mean; ticks above it: the "
            "seeds; thick bar: 95 % interval over seeds; thin line: 95 % interval over seeds and held-out "
            "micrographs, with one seed over micrographs alone.",
        )
    names = {run: short_label(run) for rows in compared.values() for run in rows}
    return {"label": label(baseline), "compared": compared, "drawing": drawing, "names": names}


def _asked(findings: Comparison) -> list[Drawing]:
    drawings = []
    if findings.overlaps and len(findings.overlaps[0].runs) > 1:
        more = len(findings.overlaps) - figures.MAX_PANELS
        drawings.append(
            _drawing(
                figures.overlap_matrices(findings.overlaps),
                "Share of each query that two strategies had in common, mean over seeds."
                + (f" The last {more} queries are in selection.json." if more > 0 else ""),
            )
        )
    if findings.pool and findings.selections:
        figure = figures.compositions(findings.selections, findings.pool)
        drawings.append(
            _drawing(
                figure, "From which groups the labeled images come, beside the whole pool; mean over seeds."
            )
        )
        figure = figures.purchases(findings.selections, findings.pool)
        drawings.append(
            _drawing(
                figure,
                "How crowded the new images of each iteration were, mean over seeds. Crowded images cost "
                "more time to label.",
            )
        )
    return drawings


def _wins(findings: Comparison) -> dict[str, Any]:
    wins = findings.analysis["wins"]
    names = [short_label(run) for run in wins["runs"]]
    share = [[wins["share"][a][b] for b in wins["runs"]] for a in wins["runs"]]
    return {"names": names, "share": share}


def _drawing(figure: Figure, caption: str) -> Drawing:
    source = base64.b64encode(figures.as_svg(figure)).decode()
    return Drawing(f"data:image/svg+xml;base64,{source}", caption.split(". ")[0], caption)


def _png(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _interval(bounds: list[float] | None) -> str:
    return "–" if bounds is None else f"{signed(bounds[0])} … {signed(bounds[1])}"


def _paragraphs(text: str) -> list[str]:
    """Paragraphs of `methods.md` as HTML: of Markdown they use bold only."""
    paragraphs = [part for part in text.split("\n\n") if part and not part.startswith("#")]
    return [re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(part)) for part in paragraphs]
