// What mouse and pen do on the micrograph.

import { area, simplify, toSegment } from "./shapes.js";
import { COLORS } from "./canvas.js";
import { Gestures } from "./gestures.js";

const CLICK_PX = 4; // farther is a drag
const CLOSE_PX = 9; // to the first corner of a polygon
const CORNERS = 500;
const PATH_COLORS = { lasso: COLORS.selected, ignore: COLORS.ignore, done: COLORS.done };

/**
 * Listens on `canvas`. Asks `ready()` whether there is a picture; calls `changed()` to redraw, `moved()` when the
 * view changed, `looped(loop)` when the lasso closed around something.
 */
export class Tools {
  constructor(canvas, view, labeling, { ready, changed, moved, looped }) {
    Object.assign(this, { canvas, view, labeling, ready, changed, moved, looped });
    this.tool = "pick";
    this.space = false;
    this.reset();
    this.gestures = new Gestures(canvas, view, { open: () => labeling.task !== null, moved, taken: () => this.cancel() });
    const on = (name, handler, options) => canvas.addEventListener(name, handler.bind(this), options);
    on("pointerdown", this.#down);
    on("pointermove", this.#move);
    on("pointerup", this.#up);
    on("pointercancel", this.cancel);
    on("pointerleave", this.#leave);
    on("dblclick", this.#double);
    on("contextmenu", (event) => event.preventDefault());
  }

  /** Forget everything that belongs to the task before. */
  reset() {
    this.hover = null;
    this.selected = null; // key of a particle that was clicked, and that a drag moves
    this.spot = null; // {y, x, point} a doubtful one that keys have gone to
    this.walking = false; // from suggestion to suggestion, by keys
    this.pointer = null; // {y, x} image px, where the mouse is
    this.cursor = null; // {y, x} image px, moved by arrow keys
    this.carried = null; // {kind, point} moved by arrow keys
    this.path = null;
    this.loop = null;
    this.press = null;
    this.preview = null; // {key, y, x} a point on its way
  }

  choose(tool) {
    this.cancel();
    this.tool = tool;
    this.changed();
  }

  /** Give up what was begun; whether there was something. */
  cancel() {
    const begun = Boolean(this.path || this.loop || this.press || this.cursor || this.selected);
    this.path = this.loop = this.press = this.preview = this.cursor = this.carried = this.selected = null;
    this.walking = false;
    this.changed();
    return begun;
  }

  setSpace(held) {
    this.space = held;
    this.#shape();
  }

  /** Where keys act: the keyboard's cursor, or else the mouse. */
  place() {
    return this.cursor ?? this.pointer;
  }

  /** Radius in image px within which a particle is meant. */
  reach() {
    const { diameter } = this.labeling;
    return Math.min(Math.max(0.45 * diameter, 7 / this.view.scale), 0.75 * diameter);
  }

  hitAt(y, x) {
    return this.labeling.task ? this.labeling.hit(y, x, this.reach()) : null;
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const y = event.clientY - box.top;
    return { screen: { x, y }, ...this.view.toImage(x, y) };
  }

  #down(event) {
    this.canvas.focus({ preventScroll: true });
    if (!this.labeling.task || !this.ready() || this.press || this.gestures.pinching) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.#at(event);
    this.cursor = this.carried = null;
    this.walking = false;
    this.press = { from: at, last: at.screen, moved: false, hit: this.hitAt(at.y, at.x), does: null };
    const primary = event.button === 0;
    if (!primary || this.space) {
      this.press.does = "pan";
      this.press.click = event.button === 2 && !this.space ? "remove" : null;
    } else if (event.altKey) {
      this.press.click = "remove";
    } else if (this.tool === "pick") {
      const { hit } = this.press;
      this.press.click = hit && !event.shiftKey ? hit.kind : "add";
      const holds = hit && (event.ctrlKey || event.metaKey || hit.point.key === this.selected);
      this.press.does = holds ? "carry" : "pan";
    } else if (this.tool === "erase") {
      this.press.click = event.shiftKey ? "suggestion" : "remove";
      this.press.does = event.shiftKey ? "accept" : "erase";
    } else {
      this.press.does = "draw";
      this.#corner(at);
    }
    this.#shape();
    this.changed();
  }

  #move(event) {
    if (!this.labeling.task) return;
    const at = this.#at(event);
    this.pointer = { y: at.y, x: at.x };
    const { press } = this;
    if (!press) {
      this.cursor = this.carried ? this.cursor : null;
      this.spot = null;
      this.#hoverAt(at);
      if (this.path) this.path.points = [...this.path.corners, [at.y, at.x]];
      this.changed();
      return;
    }
    if (this.gestures.pinching) return;
    const distance = Math.hypot(at.screen.x - press.from.screen.x, at.screen.y - press.from.screen.y);
    if (!press.moved && distance < CLICK_PX) return;
    press.moved = true;
    if (press.does === "pan") {
      this.view.pan(at.screen.x - press.last.x, at.screen.y - press.last.y);
      this.moved();
    } else if (press.does === "carry" && this.labeling.editable) {
      const { point } = press.hit;
      this.preview = { key: point.key, y: point.y + at.y - press.from.y, x: point.x + at.x - press.from.x };
    } else if (press.does === "erase" || press.does === "accept") {
      this.#brush(press, at);
    } else if (press.does === "draw" && this.path) {
      this.path.freehand = true;
      for (const passed of event.getCoalescedEvents?.() ?? []) this.#trail(this.#at(passed));
      this.#trail(at);
      this.path.points = this.path.corners;
    }
    press.last = at.screen;
    this.#shape();
    this.changed();
  }

  #trail({ y, x }) {
    this.path.corners.push([y, x]);
  }

  // Everything between the last place and this one is under the brush.
  #brush(press, at) {
    press.under ??= { particles: new Set(), suggestions: new Map() };
    const { under } = press;
    const last = press.at ?? press.from;
    press.at = at;
    const reach = this.brushRadius();
    const near = ({ y, x }) => toSegment([y, x], [last.y, last.x], [at.y, at.x]) <= reach;
    if (press.does === "erase") for (const point of this.labeling.particles) if (near(point)) under.particles.add(point.key);
    for (const point of this.labeling.undecided) if (near(point)) under.suggestions.set(point.key, point);
  }

  /** Image px. */
  brushRadius() {
    return Math.max(0.5 * this.labeling.diameter, 8 / this.view.scale);
  }

  /** Keys of what the lasso holds, the brush has gone over, or a click has selected. */
  get marked() {
    const { press, loop, selected } = this;
    if (press?.under) return new Set([...press.under.particles, ...press.under.suggestions.keys()]);
    if (loop) return new Set([...loop.particles, ...loop.suggestions]);
    return new Set(selected === null ? [] : [selected]);
  }

  /** {radius, does} of the brush under the mouse, or null. */
  get brush() {
    if (this.tool !== "erase" || !this.pointer || !this.labeling.task) return null;
    return { ...this.pointer, radius: this.brushRadius(), accepts: this.press?.does === "accept" };
  }

  #up(event) {
    const { press } = this;
    if (!press) return;
    this.press = null;
    const { from } = press;
    if (press.does === "draw") {
      if (press.moved) this.closePath();
    } else if (!press.moved) {
      if (press.click) this.#click(press.click, press.hit, from);
    } else if (press.under) {
      const suggestions = [...press.under.suggestions.values()];
      if (press.does === "accept") this.labeling.accept(suggestions);
      else this.labeling.erase([...press.under.particles], suggestions.map((point) => point.key));
    } else if (this.preview) {
      this.drop(press.hit, this.preview);
    }
    this.preview = null;
    this.#hoverAt(this.#at(event));
    this.changed();
  }

  #click(what, hit, { y, x }) {
    this.selected = what === "particle" && hit.point.key !== this.selected ? hit.point.key : null;
    if (what === "add") this.labeling.add(y, x);
    else if (what === "suggestion" && hit?.kind === "suggestion") this.labeling.accept([hit.point]);
    else if (what === "remove") this.remove(y, x);
  }

  #leave() {
    this.pointer = null;
    this.hover = null;
    this.changed();
  }

  #double(event) {
    event.preventDefault();
    if (this.path) this.closePath();
  }

  #hoverAt({ y, x, screen }) {
    const inside = screen.x >= 0 && screen.y >= 0;
    const hit = inside && !this.path ? this.hitAt(y, x) : null;
    const region = !hit && this.tool === "erase" && inside ? this.regionAt(y, x) : null;
    this.hover = hit?.point.key ?? region?.key ?? null;
    const held = hit !== null && hit.point.key === this.selected;
    this.#shape(held ? "held" : hit?.kind ?? (region ? "region" : null));
  }

  #shape(over = null) {
    let shape = "crosshair";
    if (this.press?.does === "pan" && this.press.moved) shape = "grabbing";
    else if (this.space) shape = "grab";
    else if (this.press?.does === "carry" || over === "held") shape = "move";
    else if (this.tool === "erase") shape = over ? "pointer" : "default";
    else if (this.tool === "pick" && over) shape = "pointer";
    this.canvas.dataset.cursor = shape;
  }

  /** The region whose outline is near (y, x), or null. */
  regionAt(y, x) {
    const near = 8 / this.view.scale;
    const close = ({ polygon }) =>
      polygon.some((corner, i) => toSegment([y, x], corner, polygon[(i + 1) % polygon.length]) < near);
    const regions = this.labeling.regions;
    return regions.find(close) ?? null;
  }

  /** Remove what is at (y, x): delete a particle, reject a suggestion, delete a region. */
  remove(y, x) {
    const hit = this.hitAt(y, x);
    if (hit?.kind === "particle") return this.labeling.delete([hit.point.key]);
    if (hit) return this.labeling.reject([hit.point.key]);
    const region = this.regionAt(y, x);
    return region ? this.labeling.deleteRegion(region.key) : false;
  }

  /** A particle or suggestion was carried to `place`. */
  drop(hit, place) {
    if (hit.kind === "particle") return this.labeling.move(hit.point.key, place.y, place.x);
    return this.labeling.accept([hit.point], place);
  }

  #corner(at) {
    if (!this.labeling.editable) {
      this.press = null;
      return;
    }
    this.loop = null;
    this.path ??= { corners: [], points: [], color: PATH_COLORS[this.tool], freehand: false };
    const [first] = this.path.corners;
    if (first && this.path.corners.length >= 3) {
      const start = this.view.toScreen(...first);
      if (Math.hypot(start.x - at.screen.x, start.y - at.screen.y) < CLOSE_PX) {
        this.press = null;
        this.closePath();
        return;
      }
    }
    const last = this.path.corners.at(-1);
    if (!last || last[0] !== at.y || last[1] !== at.x) this.path.corners.push([at.y, at.x]);
    this.path.points = this.path.corners;
  }

  /** Add a corner where keys act; whether a polygon is being drawn with this tool. */
  keyCorner() {
    const place = this.place();
    if (!PATH_COLORS[this.tool] || !place) return false;
    this.#corner({ ...place, screen: this.view.toScreen(place.y, place.x) });
    this.changed();
    return true;
  }

  dropCorner() {
    if (!this.path) return false;
    this.path.corners.pop();
    if (!this.path.corners.length) this.path = null;
    else this.path.points = this.path.corners;
    this.changed();
    return true;
  }

  /** The polygon is complete. */
  closePath() {
    const polygon = this.#polygon(this.path?.corners ?? []);
    this.path = null;
    if (polygon) {
      if (this.tool === "lasso") this.#enclose(polygon);
      else this.labeling.addRegion(this.tool, polygon);
    }
    this.changed();
  }

  #enclose(polygon) {
    this.loop = { polygon, ...this.labeling.within(polygon) };
    this.looped(this.loop);
  }

  // Within what is to be labeled, with no more corners than it takes; null if it encloses nothing.
  #polygon(corners) {
    const { extent } = this.labeling;
    const [top, left, height, width] = extent.region ?? [0, 0, extent.height, extent.width];
    const clamp = (value, from, length) => Math.min(Math.max(value, from - 0.5), from + length - 0.5);
    const inside = corners.map(([y, x]) => [clamp(y, top, height), clamp(x, left, width)]);
    let tolerance = this.path?.freehand ? 0.75 / this.view.scale : 0;
    let polygon = simplify(inside, tolerance);
    while (polygon.length > CORNERS) {
      tolerance = 1.5 * tolerance + 0.1;
      polygon = simplify(inside, tolerance);
    }
    const least = (6 / this.view.scale) ** 2;
    return polygon.length >= 3 && area(polygon) >= least ? polygon : null;
  }
}
