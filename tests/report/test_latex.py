"""What is meant for a manuscript compiles there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from test_report import CURVES, fake_experiment
from tiers import second_tier

from cryoquery import compare
from cryoquery.report.tables import latex_text

DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage{booktabs}
\begin{document}
%s

\input{results_table.tex}
\end{document}
"""


@second_tier
def test_the_table_and_the_methods_compile(tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None or not _knows("booktabs.sty"):
        pytest.skip("no pdflatex with booktabs: Debian's texlive-latex-recommended is missing")
    out = compare(fake_experiment(tmp_path / "e", CURVES))
    methods = latex_text((out / "methods.md").read_text().replace("# Methods", "").replace("**", ""))
    (out / "paper.tex").write_text(DOCUMENT % methods)
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"],
        cwd=out, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout.split("results_table.tex")[1], done.stdout[-2000:]
    assert (out / "paper.pdf").read_bytes().startswith(b"%PDF")


def _knows(package: str) -> bool:
    return bool(subprocess.run(["kpsewhich", package], capture_output=True, check=False).stdout.strip())
