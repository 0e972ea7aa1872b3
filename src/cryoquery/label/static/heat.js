// Where the model sees particles: its probability, laid over the micrograph in color.

import { heatPath, picture } from "./api.js";

// From what is hardly seen to red, through yellow: [probability, red, green, blue, opacity].
const STOPS = [
  [0, 80, 80, 255, 0],
  [0.15, 120, 90, 220, 70],
  [0.5, 250, 210, 60, 130],
  [1, 230, 40, 40, 165],
];

const COLORS = Array.from({ length: 256 }, (_, level) => {
  const p = level / 255;
  const next = Math.max(STOPS.findIndex(([at]) => at >= p), 1);
  const [from, to] = [STOPS[next - 1], STOPS[next]];
  const share = (p - from[0]) / (to[0] - from[0]);
  return [1, 2, 3, 4].map((i) => Math.round(from[i] + share * (to[i] - from[i])));
});

/** The map of one task at a time; calls `changed()` when it has come, `missing()` when there is none. */
export class Heat {
  constructor(changed, missing) {
    Object.assign(this, { changed, missing });
    this.path = null;
    this.canvas = null;
  }

  /** The map over the whole micrograph of `task`, a canvas; null: none yet. */
  of(task) {
    const path = task.suggested ? heatPath(task.item, task.model) : null;
    if (path !== this.path) this.#load(path);
    return this.canvas;
  }

  async #load(path) {
    this.path = path;
    this.canvas = null;
    if (path === null) {
      this.missing();
      return;
    }
    try {
      const canvas = colored(await createImageBitmap(await picture(path)));
      if (path !== this.path) return;
      this.canvas = canvas;
      this.changed();
    } catch {
      if (path === this.path) this.missing();
    }
  }
}

function colored(bitmap) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < image.data.length; i += 4) image.data.set(COLORS[image.data[i]], i);
  context.putImageData(image, 0, 0);
  return canvas;
}
