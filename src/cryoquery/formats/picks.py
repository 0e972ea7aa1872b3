"""Picks of particles, as files of any format hold them."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Region(NamedTuple):
    """A part of a micrograph that is neither particle nor background."""

    micrograph: str
    """Its name as of picks."""
    polygon_yx: NDArray[np.float64]
    """(k, 2) vertices in pixels, as of picks."""


@dataclass(frozen=True)
class Picks:
    """Picks of one micrograph or of many, one row each.

    ``np.asarray(picks)`` is ``centers_yx``.

    Examples:
        >>> picks = Picks.of([[12, 30], [40, 8]], micrograph=["a.mrc", "b.mrc"], scores=[0.9, 0.4])
        >>> picks.rows(picks.scores > 0.5).micrographs.tolist()
        ['a.mrc']
    """

    centers_yx: NDArray[np.float64]
    """(n, 2) centers in pixels of the original micrograph, first row on top, 0 in the center of a pixel."""
    micrographs: NDArray[np.object_]
    """(n,) name of the micrograph as the file has it; empty where the file does not say."""
    scores: NDArray[np.float64] | None = None
    """(n,) figure of merit, the higher the better, NaN for a pick without one; None where there are none."""
    diameters_px: NDArray[np.float64] | None = None
    """(n,) particle diameter in pixels, NaN for a pick without one; None where unknown."""
    pixel_size: float | None = None
    """Å/px of the micrographs, where the file states one for all."""
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What else the file held, (n, ...) each, by the name it has there: carried through a round trip."""
    optics: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)
    """RELION's table of optics groups, (n_groups,) per label; empty where the file has none."""
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """(height, width) in pixels of the micrographs that the file states it of, by name."""
    file_format: str | None = None
    """The format these were read from; boxes ("box", "cbox") give their size as the diameter."""
    listed: tuple[str, ...] = ()
    """Micrographs that the file says it is of, those without picks included."""
    notes: tuple[str, ...] = ()
    """How the file was read where it could be read otherwise, and what was left out; one line each."""
    regions: tuple[Region, ...] = ()
    """Parts that the file says are to be ignored."""

    def __post_init__(self) -> None:
        n = len(self.centers_yx)
        assert self.centers_yx.shape == (n, 2), self.centers_yx.shape
        columns = [self.micrographs, self.scores, self.diameters_px, *self.extra.values()]
        assert all(len(column) == n for column in columns if column is not None), "columns differ in length"

    def __len__(self) -> int:
        return len(self.centers_yx)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.centers_yx, dtype=dtype) if copy else np.asarray(self.centers_yx, dtype=dtype)

    @classmethod
    def of(
        cls,
        centers_yx: ArrayLike,
        *,
        micrograph: str | Sequence[str] = "",
        scores: ArrayLike | None = None,
        diameters_px: ArrayLike | None = None,
        pixel_size: float | None = None,
    ) -> Picks:
        """Picks from arrays; one micrograph, or one diameter, may stand for all rows.

        Args:
            centers_yx: (n, 2) in pixels.
            micrograph: its name, or (n,) names.
            scores: (n,).
            diameters_px: a number or (n,).
            pixel_size: Å/px.
        """
        centers = np.array(centers_yx, dtype=np.float64).reshape(-1, 2)
        n = len(centers)
        names = np.empty(n, dtype=object)
        names[:] = micrograph
        return cls(
            centers,
            names,
            None if scores is None else np.array(scores, dtype=np.float64).reshape(n),
            None if diameters_px is None else np.full(n, diameters_px, dtype=np.float64),
            pixel_size,
        )

    def replace(self, **fields: Any) -> Picks:
        """The same picks with other values of some fields."""
        return dataclasses.replace(self, **fields)

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.integer] | slice) -> Picks:
        """Those rows that a mask (n,), an index (k,) or a slice chooses, in its order."""
        return self.replace(
            centers_yx=self.centers_yx[chosen],
            micrographs=self.micrographs[chosen],
            scores=None if self.scores is None else self.scores[chosen],
            diameters_px=None if self.diameters_px is None else self.diameters_px[chosen],
            extra={name: column[chosen] for name, column in self.extra.items()},
        )

    def by_micrograph(self) -> dict[str, Picks]:
        """Picks of each micrograph by its name; rows keep their order.

        Names are in order of first appearance, then those that are only listed, without picks.
        """
        rows: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(self.micrographs.tolist()):
            rows[name].append(row)
        for name in (*self.listed, *(region.micrograph for region in self.regions)):
            rows[name]
        return {
            name: self.rows(np.array(own, dtype=np.int64)).replace(
                listed=(name,) if name else (),
                regions=tuple(region for region in self.regions if region.micrograph == name),
            )
            for name, own in rows.items()
        }

    def with_micrograph(self, name: str) -> Picks:
        """The same picks, with ``name`` where the file did not name the micrograph, with picks or without."""
        if not len(self) and not self.listed and name:
            return self.replace(listed=(name,), regions=self._named_regions(name))
        if self.micrographs.all():
            return self
        names = self.micrographs.copy()
        names[~names.astype(bool)] = name
        return self.replace(micrographs=names, regions=self._named_regions(name))

    def _named_regions(self, name: str) -> tuple[Region, ...]:
        return tuple(region._replace(micrograph=region.micrograph or name) for region in self.regions)

    @property
    def diameter_px(self) -> float | None:
        """Median diameter in pixels; None where unknown."""
        if self.diameters_px is None or not np.isfinite(self.diameters_px).any():
            return None
        return float(np.nanmedian(self.diameters_px))


def no_picks(file_format: str | None = None) -> Picks:
    """Picks of a file that holds none."""
    return Picks.of(np.empty((0, 2))).replace(file_format=file_format)


def concatenate(parts: Sequence[Picks]) -> Picks:
    """One after the other.

    What only some of the parts have is NaN (scores, diameters) or an empty text (extra) in the
    others. A pixel size that differs becomes None, tables of optics groups that differ are dropped.
    """
    if not parts:
        return no_picks()
    if len(parts) == 1:
        return parts[0]
    sizes = {part.pixel_size for part in parts if part.pixel_size is not None}
    formats = {part.file_format for part in parts}
    optics = parts[0].optics
    if any(_unequal(part.optics, optics) for part in parts):
        optics = {}
    names = dict.fromkeys(name for part in parts for name in part.extra)
    return Picks(
        np.concatenate([part.centers_yx for part in parts]),
        np.concatenate([part.micrographs for part in parts]),
        _filled([part.scores for part in parts], parts),
        _filled([part.diameters_px for part in parts], parts),
        sizes.pop() if len(sizes) == 1 else None,
        {name: column for name in names if (column := _joined(name, parts)) is not None},
        optics,
        {name: shape for part in parts for name, shape in part.shapes.items()},
        formats.pop() if len(formats) == 1 else None,
        tuple(dict.fromkeys(name for part in parts for name in part.listed)),
        tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        tuple(region for part in parts for region in part.regions),
    )


def _unequal(a: Mapping[str, NDArray[np.object_]], b: Mapping[str, NDArray[np.object_]]) -> bool:
    return a.keys() != b.keys() or any(not np.array_equal(a[name], b[name]) for name in a)


def _filled(
    columns: Sequence[NDArray[np.float64] | None], parts: Sequence[Picks]
) -> NDArray[np.float64] | None:
    if all(column is None for column in columns):
        return None
    pairs = zip(columns, parts, strict=True)
    return np.concatenate([np.full(len(part), np.nan) if own is None else own for own, part in pairs])


def _joined(name: str, parts: Sequence[Picks]) -> NDArray[Any] | None:
    """One column of all parts; None where it cannot be: of several dimensions and missing in a part."""
    columns = [part.extra.get(name) for part in parts]
    present = [column for column in columns if column is not None]
    if len(present) == len(columns) and len({(c.dtype.kind, c.shape[1:]) for c in present}) == 1:
        return np.concatenate(present)
    if any(column.ndim > 1 for column in present):
        return None
    texts = [
        np.full(len(part), "", dtype=object) if column is None else column.astype(object)
        for column, part in zip(columns, parts, strict=True)
    ]
    return np.concatenate(texts)
