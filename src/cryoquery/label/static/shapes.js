// Points and polygons, [y, x] in image px. Pure.

/** Points by place, to find those near a position without looking at all of them. */
export class Grid {
  /** `points`: iterable of objects with y and x; `cell`: side of a cell, about the largest radius asked for. */
  constructor(points, cell) {
    this.cell = Math.max(cell, 1);
    this.cells = new Map();
    for (const point of points) {
      const key = this.#key(this.#index(point.y), this.#index(point.x));
      const cellPoints = this.cells.get(key);
      if (cellPoints) cellPoints.push(point);
      else this.cells.set(key, [point]);
    }
  }

  #index(value) {
    return Math.floor(value / this.cell);
  }

  #key(row, column) {
    return row * 1048576 + column;
  }

  /** The point nearest to (y, x) within `radius`, or null. */
  nearest(y, x, radius) {
    let best = null;
    let least = radius * radius;
    const last = this.#index(x + radius);
    for (let row = this.#index(y - radius); row <= this.#index(y + radius); row++) {
      for (let column = this.#index(x - radius); column <= last; column++) {
        for (const point of this.cells.get(this.#key(row, column)) ?? []) {
          const distance = (point.y - y) ** 2 + (point.x - x) ** 2;
          if (distance <= least) {
            least = distance;
            best = point;
          }
        }
      }
    }
    return best;
  }
}

/** Whether (y, x) lies in `polygon`, by the even-odd rule. */
export function contains(polygon, y, x) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [yi, xi] = polygon[i];
    const [yj, xj] = polygon[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

export function area(polygon) {
  let twice = 0;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    twice += polygon[j][1] * polygon[i][0] - polygon[i][1] * polygon[j][0];
  }
  return Math.abs(twice) / 2;
}

/** Fewer vertices, none of those left out farther than `tolerance` from the line (Douglas & Peucker 1973). */
export function simplify(points, tolerance) {
  if (points.length < 3) return points.slice();
  const keep = new Uint8Array(points.length);
  keep[0] = keep[points.length - 1] = 1;
  const spans = [[0, points.length - 1]];
  while (spans.length) {
    const [from, to] = spans.pop();
    let worst = tolerance;
    let index = -1;
    for (let i = from + 1; i < to; i++) {
      const distance = toSegment(points[i], points[from], points[to]);
      if (distance > worst) [worst, index] = [distance, i];
    }
    if (index < 0) continue;
    keep[index] = 1;
    spans.push([from, index], [index, to]);
  }
  return points.filter((_, i) => keep[i]);
}

/** Distance of a point from a line segment. */
export function toSegment([y, x], [y0, x0], [y1, x1]) {
  const length = (y1 - y0) ** 2 + (x1 - x0) ** 2;
  const along = length ? ((y - y0) * (y1 - y0) + (x - x0) * (x1 - x0)) / length : 0;
  const t = Math.min(Math.max(along, 0), 1);
  return Math.hypot(y - y0 - t * (y1 - y0), x - x0 - t * (x1 - x0));
}
