// The micrograph on the screen: view, picture and marks, drawn at most once per frame.

import { Overlay, COLORS, drawPicture, drawTiles, fitCanvas } from "./canvas.js";
import { Picture } from "./picture.js";
import { Heat } from "./heat.js";
import { Minimap } from "./minimap.js";
import { View, scaleBar } from "./view.js";

const byId = (id) => document.getElementById(id);

export class Stage {
  /** `look`: see look.js; `failed(message)`: a picture could not be had; `arrived()`: the first
   * one is here; `noHeat()`: there is no heat map of this task. */
  constructor(labeling, look, { failed, arrived, noHeat }) {
    this.labeling = labeling;
    this.look = look;
    this.view = new View();
    this.tools = null;
    this.frames = []; // ms that the last drawings took
    this.pictureCanvas = byId("picture");
    this.overlayCanvas = byId("overlay");
    this.overlay = new Overlay(this.overlayCanvas);
    this.minimap = new Minimap(byId("minimap"), this.view, () => this.redraw(true));
    this.heat = new Heat(() => this.redraw(), noHeat);
    this.arrived = arrived;
    this.waiting = false; // for the first picture
    this.picture = new Picture(() => this.#changed(), failed);
    this.due = false;
    this.pictureDue = true;
    new ResizeObserver(() => this.#resize()).observe(byId("stage"));
    this.#watchRatio();
    this.#resize();
  }

  open() {
    const { task } = this.labeling;
    this.view.open(task.shown);
    this.waiting = true;
    this.picture.open(task, this.lowpass());
    this.redraw(true);
  }

  #changed() {
    if (this.waiting && this.picture.ready) {
      this.waiting = false;
      this.arrived();
    }
    this.redraw(true);
  }

  /** Fetch the picture of another task, as it will be shown first. */
  prepare(task) {
    const [, , height, width] = task.shown;
    const scale = Math.min(this.view.height / height, this.view.width / width);
    return this.picture.prepare(task, this.lowpass(task), Math.max(height, width) * scale * (window.devicePixelRatio || 1));
  }

  /** Low-pass of the picture: what was chosen, where this task offers it. */
  lowpass(task = this.labeling.task) {
    const { lowpass } = this.look;
    return lowpass !== null && (lowpass === 0 || task.lowpass.includes(lowpass)) ? lowpass : task.default_lowpass ?? 0;
  }

  close() {
    this.picture.close();
    this.redraw(true);
  }

  /** Draw soon; `all`: the picture too, not only what lies on it. */
  redraw(all = false) {
    this.pictureDue ||= all;
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      const start = performance.now();
      this.#draw();
      this.frames.push(performance.now() - start);
      if (this.frames.length > 240) this.frames.shift();
    });
  }

  fit() {
    this.view.fit();
    this.redraw(true);
  }

  #resize() {
    const box = byId("stage").getBoundingClientRect();
    this.view.resize(Math.max(box.height, 1), Math.max(box.width, 1));
    // A canvas that changes its size is blank: draw before it is shown.
    this.pictureDue = true;
    this.#draw();
  }

  #watchRatio() {
    const query = matchMedia(`(resolution: ${devicePixelRatio}dppx)`);
    query.addEventListener("change", () => {
      this.#watchRatio();
      this.#resize();
    }, { once: true });
  }

  #draw() {
    const { view, labeling } = this;
    const ratio = window.devicePixelRatio || 1;
    const resized = fitCanvas(this.pictureCanvas, view.width, view.height, ratio);
    fitCanvas(this.overlayCanvas, view.width, view.height, ratio);
    if (this.pictureDue || resized) {
      this.pictureDue = false;
      drawPicture(this.pictureCanvas, view, labeling.task ? this.picture.bitmap : null, ratio);
      if (labeling.task) {
        this.picture.want(Math.max(view.extent[2], view.extent[3]) * view.scale * ratio);
        drawTiles(this.pictureCanvas, view, this.picture.tiles(view.visible(), view.scale * ratio), ratio);
      }
      this.#filter();
      this.minimap.show(labeling.task ? this.picture.bitmap : null, this.pictureCanvas.style.filter);
    }
    if (labeling.task && this.tools) this.overlay.draw(view, this.#scene(), ratio);
    else this.overlay.context.reset?.();
    this.#captions();
  }

  #filter() {
    const { contrast, brightness, gamma, invert } = this.look;
    for (const part of byId("gamma-filter").querySelectorAll("[exponent]")) part.setAttribute("exponent", 1 / gamma);
    const turned = invert ? "invert(1) " : "";
    const curved = gamma === 1 ? "" : "url(#gamma-filter) ";
    this.pictureCanvas.style.filter = `${turned}${curved}contrast(${contrast}%) brightness(${brightness}%)`;
  }

  #scene() {
    const { labeling, tools, look, view } = this;
    const moved = (points) => {
      const { preview } = tools;
      if (!preview) return points;
      return points.map((point) => (point.key === preview.key ? { ...point, y: preview.y, x: preview.x } : point));
    };
    const loop = tools.loop && { points: tools.loop.polygon, color: COLORS.selected, freehand: true, closed: true };
    return {
      diameter: labeling.diameter,
      heat: look.heat && this.picture.ready ? this.heat.of(labeling.task) : null,
      whole: [0, 0, labeling.task.height, labeling.task.width],
      mark: look.mark,
      size: look.size / 100,
      hidden: look.hidden,
      particles: moved(labeling.particles),
      suggestions: moved(tools.spot?.point ? [...labeling.undecided, tools.spot.point] : labeling.undecided),
      rejected: labeling.rejected,
      regions: labeling.regions,
      selected: tools.marked,
      brush: tools.brush,
      hover: tools.hover,
      shown: view.extent,
      frame: labeling.task.region ?? view.extent,
      outlined: labeling.task.region !== null,
      path: tools.path ?? loop,
      cursor: tools.cursor,
    };
  }

  #captions() {
    const { view, labeling, tools } = this;
    const shown = labeling.task !== null;
    byId("loading").hidden = !shown || this.picture.ready;
    byId("scale-bar").hidden = byId("readout").hidden = !shown;
    if (!shown) return;
    const bar = scaleBar(view.scale, labeling.task.pixel_size);
    byId("scale-label").textContent = bar.label;
    byId("scale-line").style.width = `${bar.px.toFixed(1)}px`;
    const place = tools?.place();
    const over = tools?.hover === null ? null : labeling.undecided.find(({ key }) => key === tools.hover);
    const scored = over ? `score ${over.score.toFixed(2)} · ` : "";
    const where = place ? `y ${place.y.toFixed(1)}  x ${place.x.toFixed(1)} px · ` : "";
    byId("readout").textContent = `${scored}${where}${(100 * view.scale).toFixed(0)} %${this.picture.pending ? " · getting sharper …" : ""}`;
  }
}
