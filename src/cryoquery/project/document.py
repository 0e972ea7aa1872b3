"""What a person has marked in one micrograph or field, and the operations that change it.

An operation is turned into edits of single cells, each with what was there before and what is there after:
to undo is to put back what was before. An operation costs what it touches, however long the list of those
before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from cryoquery.errors import ProjectError

MAX_PARTICLES = 20_000
MAX_REGIONS = 1_000
MIN_VERTICES, MAX_VERTICES = 3, 1_000
MAX_KEY = 40
"""Characters in the key of a particle, a suggestion or a region."""

Origin = Literal["person", "suggestion", "imported"]
RegionKind = Literal["ignore", "done"]
REGION_KINDS: tuple[RegionKind, ...] = ("ignore", "done")

_KEY = re.compile(rf"[A-Za-z0-9_.-]{{1,{MAX_KEY}}}")
_SUGGESTION = re.compile(r"s(0|[1-9][0-9]{0,8})")


class Extent(NamedTuple):
    """Where in a micrograph an item lies."""

    height: int
    """Of the whole micrograph, pixels."""
    width: int
    region: tuple[int, int, int, int] | None = None
    """(top, left, height, width) of a field, pixels; None: the whole micrograph."""

    def holds(self, y: float, x: float) -> bool:
        """Whether a point lies in it; the first pixel reaches from -0.5 to 0.5."""
        top, left, height, width = self.region or (0, 0, self.height, self.width)
        return top - 0.5 <= y <= top + height - 0.5 and left - 0.5 <= x <= left + width - 0.5


class Particle(NamedTuple):
    """One particle, at ``(y, x)`` pixels of the original micrograph."""

    y: float
    x: float
    origin: Origin
    score: float | None = None
    """Of the suggestion that it came from."""


class Region(NamedTuple):
    """A polygon: to be ignored, or within which all particles are marked."""

    kind: RegionKind
    polygon: tuple[tuple[float, float], ...]
    """(y, x) vertices, pixels of the original micrograph."""


class Edit(NamedTuple):
    """One cell of a document that changes; None: nothing is there."""

    table: Literal["particles", "regions", "rejected", "flags"]
    key: str
    before: Any
    after: Any


Step = tuple[Edit, ...]


@dataclass
class Document:
    """The particles and regions of one task, with the steps that led there."""

    particles: dict[str, Particle] = field(default_factory=dict)
    regions: dict[str, Region] = field(default_factory=dict)
    rejected: dict[str, bool] = field(default_factory=dict)
    """Suggestions that were rejected; a set that keeps its order."""
    flags: dict[str, bool] = field(default_factory=dict)
    done: list[Step] = field(default_factory=list)
    undone: list[Step] = field(default_factory=list)
    """The last one is redone first."""

    @property
    def empty(self) -> bool:
        """Whether a person said that there is no particle here."""
        return "empty" in self.flags

    @property
    def cursor(self) -> int:
        """How many operations count; the next ones of `n_ops` were undone."""
        return len(self.done)

    @property
    def n_ops(self) -> int:
        """Operations that can be gone to, by undo or redo."""
        return len(self.done) + len(self.undone)

    def copy(self) -> Document:
        """Another one with the same content; what is in the cells never changes and is shared."""
        return Document(**{name: cells.copy() for name, cells in vars(self).items()})

    def apply(self, op: Mapping[str, Any], extent: Extent) -> None:
        """Take one more step; what was undone can no longer be redone.

        Raises:
            ProjectError: the operation cannot be done; nothing has changed.
        """
        step = _step(self, op, extent)
        self._put(step)
        self.done.append(step)
        self.undone.clear()

    def undo(self) -> None:
        """Take the last step back.

        Raises:
            ProjectError: there is none.
        """
        if not self.done:
            raise ProjectError("there is nothing to undo")
        step = self.done.pop()
        self._put(tuple(Edit(e.table, e.key, e.after, e.before) for e in reversed(step)))
        self.undone.append(step)

    def redo(self) -> None:
        """Take the step again that was undone last.

        Raises:
            ProjectError: there is none.
        """
        if not self.undone:
            raise ProjectError("there is nothing to redo")
        step = self.undone.pop()
        self._put(step)
        self.done.append(step)

    def _put(self, step: Step) -> None:
        for edit in step:
            table: dict[str, Any] = getattr(self, edit.table)
            if edit.after is None:
                del table[edit.key]
            else:
                table[edit.key] = edit.after


def _step(document: Document, op: Mapping[str, Any], extent: Extent) -> Step:
    if not isinstance(op, Mapping) or not isinstance(op.get("op"), str) or op["op"] not in _OPERATIONS:
        raise ProjectError(f"op={shown(op)}: expected one of {', '.join(_OPERATIONS)}")
    fields, make = _OPERATIONS[op["op"]]
    if set(op) != {"op", *fields}:
        raise ProjectError(
            f"op {op['op']!r} has the fields {sorted(set(op) - {'op'})}: expected {list(fields)}"
        )
    return make(document, op, extent)


def _add(document: Document, op: Mapping[str, Any], extent: Extent) -> Step:
    key = _new_key(op["key"], document.particles, "particle")
    y, x = _point((op["y"], op["x"]), extent)
    _check_room(document, 1)
    return (*_not_empty(document), Edit("particles", key, None, Particle(y, x, "person")))


def _move(document: Document, op: Mapping[str, Any], extent: Extent) -> Step:
    key = _known_key(op["key"], document.particles, "particle")
    y, x = _point((op["y"], op["x"]), extent)
    before = document.particles[key]
    return (Edit("particles", key, before, before._replace(y=y, x=x)),)


def _delete(document: Document, op: Mapping[str, Any], _: Extent) -> Step:
    keys = _known_keys(op["keys"], document.particles, "particle")
    return tuple(Edit("particles", key, document.particles[key], None) for key in keys)


def _accept(document: Document, op: Mapping[str, Any], extent: Extent) -> Step:
    picks = _some(op["picks"], "picks", MAX_PARTICLES)
    edits = list(_not_empty(document))
    seen: set[str] = set()
    for pick in picks:
        if not isinstance(pick, Mapping) or set(pick) != {"key", "y", "x", "score"}:
            raise ProjectError(f"pick={shown(pick)}: expected key, y, x and score")
        key = _new_key(pick["key"], document.particles, "particle")
        _check_suggestion(key)
        if key in seen:
            raise ProjectError(f"suggestion {key}: is accepted twice")
        seen.add(key)
        y, x = _point((pick["y"], pick["x"]), extent)
        if key in document.rejected:
            edits.append(Edit("rejected", key, True, None))
        score = finite_number(pick["score"], "score")
        edits.append(Edit("particles", key, None, Particle(y, x, "suggestion", score)))
    _check_room(document, len(seen))
    return tuple(edits)


def _reject(document: Document, op: Mapping[str, Any], _: Extent) -> Step:
    keys = [_checked_key(key) for key in _some(op["keys"], "keys", MAX_PARTICLES)]
    for key in keys:
        _check_suggestion(key)
        if key in document.particles:
            raise ProjectError(f"suggestion {key}: is a particle already; delete it")
    fresh = [key for key in dict.fromkeys(keys) if key not in document.rejected]
    if len(document.rejected) + len(fresh) > MAX_PARTICLES:
        raise ProjectError(f"{len(fresh)} suggestions: at most {MAX_PARTICLES} can be rejected in one task")
    return tuple(Edit("rejected", key, None, True) for key in fresh)


def _region(document: Document, op: Mapping[str, Any], extent: Extent) -> Step:
    key = _new_key(op["key"], document.regions, "region")
    if len(document.regions) >= MAX_REGIONS:
        raise ProjectError(f"region {key}: there are {MAX_REGIONS} regions, no more are possible")
    return (Edit("regions", key, None, checked_region(op["kind"], op["polygon"], extent)),)


def _delete_region(document: Document, op: Mapping[str, Any], _: Extent) -> Step:
    keys = _known_keys(op["keys"], document.regions, "region")
    return tuple(Edit("regions", key, document.regions[key], None) for key in keys)


def _empty(document: Document, op: Mapping[str, Any], _: Extent) -> Step:
    if not isinstance(op["value"], bool):
        raise ProjectError(f"value={shown(op['value'])}: expected true or false")
    if op["value"] and document.particles:
        raise ProjectError(
            f"there are {len(document.particles)} particles; delete them to say there are none"
        )
    before, after = document.empty or None, op["value"] or None
    return () if before == after else (Edit("flags", "empty", before, after),)


_OPERATIONS: dict[str, tuple[tuple[str, ...], Callable[[Document, Mapping[str, Any], Extent], Step]]] = {
    "add": (("key", "y", "x"), _add),
    "move": (("key", "y", "x"), _move),
    "delete": (("keys",), _delete),
    "accept": (("picks",), _accept),
    "reject": (("keys",), _reject),
    "region": (("key", "kind", "polygon"), _region),
    "delete_region": (("keys",), _delete_region),
    "empty": (("value",), _empty),
}


def imported_document(labels: Mapping[str, Any], extent: Extent) -> Document:
    """The document of labels from a file; there is nothing to undo in it.

    Args:
        labels: ``particles`` [[y, x], …], and where there are ``regions`` [{kind, polygon}, …] and ``empty``.
        extent: of the item.

    Raises:
        ProjectError: a point outside the item, too many of something, or labels that say nothing.
    """
    if not isinstance(labels, Mapping) or not set(labels) <= {"particles", "regions", "empty"}:
        raise ProjectError(f"labels={shown(labels)}: expected particles, regions and empty")
    document = Document()
    for i, point in enumerate(_some(labels.get("particles", []), "particles", MAX_PARTICLES)):
        document.particles[f"i{i}"] = Particle(*_point(point, extent), "imported")
    for i, region in enumerate(_some(labels.get("regions", []), "regions", MAX_REGIONS)):
        if not isinstance(region, Mapping) or set(region) != {"kind", "polygon"}:
            raise ProjectError(f"region={shown(region)}: expected kind and polygon")
        document.regions[f"ir{i}"] = checked_region(region["kind"], region["polygon"], extent)
    if labels.get("empty") is True and not document.particles:
        document.flags["empty"] = True
    check_answer(document)
    return document


def check_answer(document: Document) -> None:
    """Check that a document can be submitted: it says something.

    Raises:
        ProjectError: no particle, and neither "no particles here" nor a region that is done.
    """
    done = any(region.kind == "done" for region in document.regions.values())
    if not document.particles and not document.empty and not done:
        raise ProjectError("nothing is marked; say “no particles here”, or mark a region as done")


def checked_region(kind: Any, polygon: Any, extent: Extent) -> Region:
    """A region of ``kind``, its vertices within ``extent``.

    Raises:
        ProjectError: another kind, too few or too many vertices, or one outside.
    """
    if kind not in REGION_KINDS:
        raise ProjectError(f"kind={shown(kind)}: expected one of {', '.join(REGION_KINDS)}")
    vertices = _some(polygon, "polygon", MAX_VERTICES)
    if len(vertices) < MIN_VERTICES:
        raise ProjectError(f"a polygon of {len(vertices)} vertices: expected at least {MIN_VERTICES}")
    return Region(kind, tuple(_point(vertex, extent) for vertex in vertices))


def _not_empty(document: Document) -> Step:
    return (Edit("flags", "empty", True, None),) if document.empty else ()


def _check_room(document: Document, n_new: int) -> None:
    if len(document.particles) + n_new > MAX_PARTICLES:
        raise ProjectError(
            f"{len(document.particles) + n_new} particles: at most {MAX_PARTICLES} in one task"
        )


def _check_suggestion(key: str) -> None:
    if not _SUGGESTION.fullmatch(key):
        raise ProjectError(f"suggestion {key}: expected s0, s1, s2, …")


def _checked_key(key: Any) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ProjectError(f"key={shown(key)}: expected 1 to {MAX_KEY} of the characters A-Z a-z 0-9 _ . -")
    return key


def _new_key(key: Any, table: Mapping[str, Any], what: str) -> str:
    if _checked_key(key) in table:
        raise ProjectError(f"{what} {key}: is there already")
    return str(key)


def _known_key(key: Any, table: Mapping[str, Any], what: str) -> str:
    if _checked_key(key) not in table:
        raise ProjectError(f"{what} {key}: there is none of that key")
    return str(key)


def _known_keys(keys: Any, table: Mapping[str, Any], what: str) -> list[str]:
    known = [_known_key(key, table, what) for key in _some(keys, "keys", MAX_PARTICLES)]
    if len(set(known)) < len(known):
        raise ProjectError(f"keys={shown(keys)}: one stands there twice")
    return known


def _some(values: Any, name: str, most: int) -> Sequence[Any]:
    if not isinstance(values, (list, tuple)):
        raise ProjectError(f"{name}={shown(values)}: expected a list")
    if len(values) > most:
        raise ProjectError(f"{name}: {len(values)}, at most {most} are possible")
    return values


def _point(values: Any, extent: Extent) -> tuple[float, float]:
    if not isinstance(values, (list, tuple)) or len(values) != 2:
        raise ProjectError(f"point={shown(values)}: expected [y, x]")
    y, x = finite_number(values[0], "y"), finite_number(values[1], "x")
    if not extent.holds(y, x):
        raise ProjectError(f"y={y:g}, x={x:g}: lies outside of what is to be labeled")
    return y, x


def finite_number(value: Any, name: str) -> float:
    """``value`` as a finite number.

    Raises:
        ProjectError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ProjectError(f"{name}={shown(value)}: expected a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ProjectError(f"{name}={shown(value)}: expected a finite number")
    return number


def shown(value: Any) -> str:
    """``value`` as it stands in a message, the beginning of it where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
