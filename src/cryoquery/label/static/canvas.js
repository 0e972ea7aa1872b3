// Drawing: the micrograph on one canvas, everything that lies on it on another.

export const COLORS = {
  particle: "#56b4e9",
  suggestion: "#f0a12b",
  rejected: "#8a9099",
  hover: "#ffffff",
  selected: "#f0e442",
  ignore: "#d991bd",
  done: "#2fb58c",
  cursor: "#f0e442",
};
const SCORE_COLORS = ["#d1495b", "#e06a3c", "#ec8f2e", "#f3b02b", "#f7d038"];
const HALO = "rgba(0, 0, 0, 0.55)";
const VEIL = "rgba(8, 9, 11, 0.38)"; // over what is not to be labeled
const SPRITE_LIMIT = 160; // radius in device px above which circles are drawn one by one

/** Give `canvas` as many pixels as the device shows; true if it changed. */
export function fitCanvas(canvas, width, height, ratio) {
  const size = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width === size[0] && canvas.height === size[1]) return false;
  [canvas.width, canvas.height] = size;
  return true;
}

/** Draw the part of `bitmap` that is on the screen. */
export function drawPicture(canvas, view, bitmap, ratio) {
  const context = canvas.getContext("2d", { alpha: false });
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!bitmap) return;
  const [top, left, height, width] = view.extent;
  const perPixel = [bitmap.width / width, bitmap.height / height];
  context.imageSmoothingEnabled = (view.scale * ratio) / perPixel[0] < 3;
  context.imageSmoothingQuality = "medium";
  // From the edge of the first pixel of the picture, in image px.
  const shown = view.visible();
  const from = { x: Math.max(shown.left + 0.5 - left, 0), y: Math.max(shown.top + 0.5 - top, 0) };
  const size = {
    x: Math.min(shown.right + 0.5 - left, width) - from.x,
    y: Math.min(shown.bottom + 0.5 - top, height) - from.y,
  };
  if (size.x <= 0 || size.y <= 0) return;
  const corner = view.toScreen(top + from.y - 0.5, left + from.x - 0.5);
  context.drawImage(
    bitmap,
    from.x * perPixel[0],
    from.y * perPixel[1],
    size.x * perPixel[0],
    size.y * perPixel[1],
    corner.x * ratio,
    corner.y * ratio,
    size.x * view.scale * ratio,
    size.y * view.scale * ratio,
  );
}

/** Draw `tiles`, [{bitmap, y, x, factor}] with their first pixels at (y, x) of the image. */
export function drawTiles(canvas, view, tiles, ratio) {
  const context = canvas.getContext("2d", { alpha: false });
  for (const { bitmap, y, x, factor } of tiles) {
    context.imageSmoothingEnabled = view.scale * ratio * factor < 3;
    const from = view.toScreen(y - 0.5, x - 0.5);
    const to = view.toScreen(y + bitmap.height * factor - 0.5, x + bitmap.width * factor - 0.5);
    // Whole pixels of the device: tiles would show seams otherwise.
    const [left, top, right, bottom] = [from.x, from.y, to.x, to.y].map((value) => Math.round(value * ratio));
    context.drawImage(bitmap, left, top, right - left, bottom - top);
  }
}

/** Draws one `scene`, see `draw`; keeps pictures of circles so that thousands of them cost little. */
export class Overlay {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.sprites = new Map();
  }

  /**
   * `scene`: {diameter, size: of marks in diameters, mark: "circle" | "box" | "point", particles, suggestions, rejected,
   * selected: Set of keys, hover: key or null, regions, shown: [top, left, height, width] of the picture,
   * frame: the same of what is to be labeled, outlined, path, cursor, brush, hidden, heat: canvas over
   * whole: [top, left, height, width] or null}.
   */
  draw(view, scene, ratio) {
    const { context } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (scene.heat) this.#heat(view, scene);
    this.#dim(view, scene);
    for (const region of scene.regions) this.#region(view, region, scene.hover === region.key);
    if (!scene.hidden) this.#marks(view, scene, ratio);
    if (scene.path) this.#path(view, scene.path);
    if (scene.cursor) this.#cursor(view, scene);
    if (scene.brush) this.#brush(view, scene.brush);
  }

  #heat(view, { heat, whole, shown }) {
    const { context } = this;
    context.save();
    context.beginPath();
    context.rect(...this.#rectangle(view, shown));
    context.clip();
    context.imageSmoothingQuality = "medium";
    context.drawImage(heat, ...this.#rectangle(view, whole));
    context.restore();
  }

  #marks(view, scene, ratio) {
    const radius = (scene.diameter / 2) * scene.size * view.scale;
    const draw = (points, color, kind) => this.#points(view, points, radius, color, kind, scene.mark, ratio);
    draw(scene.rejected, COLORS.rejected, "cross");
    for (const [color, points] of byScore(scene.suggestions)) draw(points, color, "dashed");
    draw(scene.particles, COLORS.particle, "solid");
    const all = [...scene.particles, ...scene.suggestions];
    const chosen = scene.selected.size ? all.filter((point) => scene.selected.has(point.key)) : [];
    draw(chosen, COLORS.selected, "thick");
    const hovered = scene.hover === null ? undefined : all.find((point) => point.key === scene.hover);
    if (hovered) draw([hovered], COLORS.hover, scene.suggestions.includes(hovered) ? "dashed thick" : "thick");
  }

  #points(view, points, radius, color, kind, mark, ratio) {
    const shown = view.visible();
    const margin = (radius + 4) / view.scale;
    const sprite = radius * ratio <= SPRITE_LIMIT ? this.#sprite(radius, color, kind, mark, ratio) : null;
    for (const { y, x } of points) {
      if (y < shown.top - margin || y > shown.bottom + margin) continue;
      if (x < shown.left - margin || x > shown.right + margin) continue;
      const left = view.left + (x + 0.5) * view.scale;
      const top = view.top + (y + 0.5) * view.scale;
      if (sprite) {
        const side = sprite.width / ratio;
        this.context.drawImage(sprite, left - side / 2, top - side / 2, side, side);
      } else {
        this.context.save();
        this.context.translate(left, top);
        outline(this.context, radius, color, kind, mark);
        this.context.restore();
      }
    }
  }

  #sprite(radius, color, kind, mark, ratio) {
    const name = `${radius.toFixed(2)} ${color} ${kind} ${mark} ${ratio}`;
    if (!this.sprites.has(name)) {
      if (this.sprites.size > 60) this.sprites.clear();
      const sprite = document.createElement("canvas");
      sprite.width = sprite.height = 2 * Math.ceil((Math.max(radius, 8) + 5) * ratio);
      const context = sprite.getContext("2d");
      context.translate(sprite.width / 2, sprite.height / 2);
      context.scale(ratio, ratio);
      outline(context, radius, color, kind, mark);
      this.sprites.set(name, sprite);
    }
    return this.sprites.get(name);
  }

  #trace(view, polygon) {
    for (const [index, [y, x]] of polygon.entries()) {
      const at = view.toScreen(y, x);
      if (index === 0) this.context.moveTo(at.x, at.y);
      else this.context.lineTo(at.x, at.y);
    }
  }

  #dim(view, scene) {
    const whole = this.#rectangle(view, scene.frame);
    if (scene.outlined) {
      this.context.beginPath();
      this.context.rect(...this.#rectangle(view, scene.shown));
      this.context.rect(...whole);
      this.context.fillStyle = VEIL;
      this.context.fill("evenodd");
      this.context.strokeStyle = "rgba(255, 255, 255, 0.75)";
      this.context.lineWidth = 1.5;
      this.context.strokeRect(...whole);
    }
    const done = scene.regions.filter((region) => region.kind === "done");
    if (done.length) this.#dimOutside(view, done, whole);
  }

  // [top, left, height, width] in image px as x, y, width, height on the screen.
  #rectangle(view, [top, left, height, width]) {
    const { x, y } = view.toScreen(top - 0.5, left - 0.5);
    return [x, y, width * view.scale, height * view.scale];
  }

  // Made apart, region by region, so that overlapping ones do not cancel.
  #dimOutside(view, done, whole) {
    const { context } = this;
    this.veil ??= document.createElement("canvas");
    const { veil } = this;
    if (veil.width !== this.canvas.width || veil.height !== this.canvas.height) {
      [veil.width, veil.height] = [this.canvas.width, this.canvas.height];
    }
    const own = this.context;
    const on = veil.getContext("2d");
    on.setTransform(1, 0, 0, 1, 0, 0);
    on.globalCompositeOperation = "copy";
    on.fillStyle = VEIL;
    on.fillRect(0, 0, veil.width, veil.height);
    on.globalCompositeOperation = "destination-out";
    on.setTransform(own.getTransform());
    on.fillStyle = "#000";
    this.context = on;
    for (const region of done) {
      on.beginPath();
      this.#trace(view, region.polygon);
      on.fill("evenodd");
    }
    this.context = own;
    context.save();
    context.beginPath();
    context.rect(...whole);
    context.clip();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(veil, 0, 0);
    context.restore();
  }

  #region(view, region, hovered) {
    const { context } = this;
    const color = COLORS[region.kind];
    context.beginPath();
    this.#trace(view, region.polygon);
    context.closePath();
    if (region.kind === "ignore") {
      context.fillStyle = this.#hatching();
      context.fill("evenodd");
    }
    context.setLineDash(region.kind === "ignore" ? [] : [10, 4]);
    context.lineWidth = hovered ? 3 : 1.75;
    context.strokeStyle = color;
    context.stroke();
    context.setLineDash([]);
  }

  #hatching() {
    if (!this.hatch) {
      const tile = document.createElement("canvas");
      tile.width = tile.height = 12;
      const context = tile.getContext("2d");
      context.fillStyle = "rgba(217, 145, 189, 0.10)";
      context.fillRect(0, 0, 12, 12);
      context.strokeStyle = "rgba(217, 145, 189, 0.45)";
      context.lineWidth = 1;
      context.beginPath();
      for (const shift of [-12, 0, 12]) {
        context.moveTo(shift, 12);
        context.lineTo(shift + 12, 0);
      }
      context.stroke();
      this.hatch = this.context.createPattern(tile, "repeat");
    }
    return this.hatch;
  }

  #path(view, path) {
    const { context } = this;
    context.beginPath();
    this.#trace(view, path.points);
    if (path.closed) context.closePath();
    context.fillStyle = "rgba(255, 255, 255, 0.06)";
    context.fill("evenodd");
    context.lineWidth = 1.5;
    context.setLineDash([5, 4]);
    context.strokeStyle = path.color;
    context.stroke();
    context.setLineDash([]);
    if (path.freehand || !path.points.length) return;
    context.fillStyle = path.color;
    for (const [y, x] of path.corners) {
      const at = view.toScreen(y, x);
      context.fillRect(at.x - 2.5, at.y - 2.5, 5, 5);
    }
  }

  #brush(view, { y, x, radius, accepts }) {
    const at = view.toScreen(y, x);
    for (const [width, color] of [[3, HALO], [1.2, accepts ? COLORS.particle : COLORS.hover]]) {
      this.context.beginPath();
      this.context.arc(at.x, at.y, radius * view.scale, 0, 2 * Math.PI);
      this.context.lineWidth = width;
      this.context.strokeStyle = color;
      this.context.stroke();
    }
  }

  #cursor(view, scene) {
    const { context } = this;
    const at = view.toScreen(scene.cursor.y, scene.cursor.x);
    const radius = Math.max((scene.diameter / 2) * view.scale, 6);
    for (const [width, color] of [[3.5, HALO], [1.5, COLORS.cursor]]) {
      context.beginPath();
      for (const [dy, dx] of [[0, 1], [0, -1], [1, 0], [-1, 0]]) {
        context.moveTo(at.x + dx * 4, at.y + dy * 4);
        context.lineTo(at.x + dx * (radius + 10), at.y + dy * (radius + 10));
      }
      context.lineWidth = width;
      context.strokeStyle = color;
      context.stroke();
    }
  }
}

// The lower the score, the redder.
function byScore(suggestions) {
  const groups = new Map(SCORE_COLORS.map((color) => [color, []]));
  for (const point of suggestions) groups.get(scoreColor(point.score)).push(point);
  return groups;
}

/** The color of a suggestion with this score, in [0, 1]. */
export function scoreColor(score) {
  return SCORE_COLORS[Math.min(Math.floor(score * SCORE_COLORS.length), SCORE_COLORS.length - 1)];
}

/** One mark around the origin; `kind`: solid, dashed, thick, "dashed thick" or cross. */
function outline(context, radius, color, kind, mark) {
  context.beginPath();
  if (kind === "cross") {
    const arm = Math.min(Math.max(radius / 3, 3), 7);
    context.moveTo(-arm, -arm);
    context.lineTo(arm, arm);
    context.moveTo(-arm, arm);
    context.lineTo(arm, -arm);
  } else if (mark === "point") {
    context.arc(0, 0, 3.5, 0, 2 * Math.PI);
  } else {
    context.arc(0, 0, radius, 0, 2 * Math.PI);
    if (mark === "box") context.rect(-radius, -radius, 2 * radius, 2 * radius);
  }
  const thick = kind.includes("thick");
  const dash = Math.max(3, Math.min(7, radius / 3));
  context.setLineDash(kind.includes("dashed") && mark !== "point" ? [dash, 0.7 * dash] : []);
  context.lineWidth = thick ? 5 : 3.75;
  context.strokeStyle = HALO;
  context.stroke();
  context.lineWidth = thick ? 3 : 2;
  context.strokeStyle = color;
  context.stroke();
  if (mark === "point" && !kind.includes("dashed") && kind !== "cross") {
    context.fillStyle = color;
    context.fill();
  }
}
