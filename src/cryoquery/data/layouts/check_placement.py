"""Refuse labels that lie beside the particles, before hours are spent on them."""

from __future__ import annotations

from collections import defaultdict

from cryoquery.data.layouts.read import Source
from cryoquery.data.placement import find_placement
from cryoquery.data.source import SourceMicrograph
from cryoquery.errors import DataError


def refuse_misplaced(source: Source) -> None:
    """Compare the contrast at the labels of each group with that of all other placements.

    A few micrographs of each group are read. Labels that are painted masks are looked at, too.

    Raises:
        DataError: those of a group fit clearly better turned or scaled; the message names the options
            that do it. Or a micrograph that is looked at cannot be read.
    """
    groups: dict[str, list[SourceMicrograph]] = defaultdict(list)
    for micrograph in source.micrographs:
        if len(micrograph.particles):
            groups[micrograph.group].append(micrograph)
    now = source.options.placement
    for group, micrographs in sorted(groups.items()):
        by_name = {micrograph.name: micrograph for micrograph in micrographs}
        verdict = find_placement(
            {name: now.undo(m.particles[:, :2], m.shape) for name, m in by_name.items()},
            # The diameters of label files are no help: many are sizes of boxes, or at another scale.
            lambda name, by_name=by_name: by_name[name].read(),  # type: ignore[misc]
            applied=now,
        )
        if verdict.finding == "misplaced":
            right = verdict.best.options
            remedy = f"use {right}" if right else f"leave out {now.options}"
            raise DataError(
                f"group {group}: the labels do not lie on the particles (contrast "
                f"{abs(verdict.contrast_as_is):.0f} standard errors, otherwise {abs(verdict.contrast):.0f}); "
                f"{remedy}, or --force if they are right"
            )
