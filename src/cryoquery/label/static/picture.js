// The pictures of one micrograph: whole in the sizes that the server offers, and finer in tiles, loaded as the
// zoom asks for them.

import { picture, picturePath, tilePath } from "./api.js";

const AT_ONCE = 4; // tiles that are asked for
const MOST_TILES = 140; // kept
const MOST_AHEAD = 4;

const load = async (path) => createImageBitmap(await picture(path));

/** Calls `changed()` when a better picture has come, `failed(message)` when one could not be had. */
export class Picture {
  constructor(changed, failed) {
    this.changed = changed;
    this.failed = failed;
    this.ahead = new Map(); // path → picture on its way, of micrographs that are opened later
    this.close();
  }

  /** Whether there is something to see. */
  get ready() {
    return this.bitmap !== null;
  }

  /** Whether something finer than what is seen is on its way. */
  get pending() {
    return this.ready && (this.loading.size > 0 || this.missing.length > 0 || this.running.size > 0);
  }

  /** `task`: {item, levels, tiles, shown}; `lowpass`: 0 for none. */
  open(task, lowpass) {
    if (this.item !== task.item) this.close();
    this.item = task.item;
    this.extent = task.shown;
    this.levels = [...task.levels].sort((a, b) => a - b);
    this.tiling = task.tiles;
    this.setLowpass(lowpass);
  }

  /** Until a picture with the new low-pass is here, the old one stays. */
  setLowpass(lowpass) {
    if (lowpass === this.lowpass) return;
    this.lowpass = lowpass;
    this.generation += 1;
    this.level = null;
    this.loading.clear();
    this.#dropTiles();
    if (this.wanted) this.want(this.wanted);
  }

  /** Fetch the picture of another `task` that is going to be shown `longSide` device px long. */
  async prepare(task, lowpass, longSide) {
    const path = picturePath(task.item, levelFor(task.levels, longSide), lowpass);
    if (this.ahead.has(path)) return;
    const coming = load(path);
    this.ahead.set(path, coming);
    while (this.ahead.size > MOST_AHEAD) {
      const [oldest, bitmap] = this.ahead.entries().next().value;
      this.ahead.delete(oldest);
      bitmap.then((made) => made.close(), () => {});
    }
    try {
      await coming;
      await this.#warm(task, lowpass);
    } catch {
      this.ahead.delete(path); // it is asked for again when it is opened
    }
  }

  // The first tile takes the server seconds, the others come at once.
  async #warm({ item, tiles, shown }, lowpass) {
    if (!tiles.factors.length) return;
    const middle = [shown[0] + shown[2] / 2, shown[1] + shown[3] / 2];
    const [row, column] = middle.map((at) => Math.floor(at / tiles.side));
    await picture(tilePath(item, 1, row, column, lowpass)).catch(() => {});
  }

  /** The micrograph is shown `longSide` device px long; load what that takes. */
  want(longSide) {
    this.wanted = longSide;
    if (this.item === null) return;
    const enough = levelFor(this.levels, longSide);
    if (this.level === null && this.loading.size === 0 && !this.ahead.has(picturePath(this.item, enough, this.lowpass))) {
      const first = levelFor(this.levels, 900);
      if (first < enough) this.#load(first);
    }
    if (this.level === null || this.level < enough) this.#load(enough);
  }

  async #load(level) {
    if (this.loading.has(level)) return;
    this.loading.add(level);
    const { generation } = this;
    const path = picturePath(this.item, level, this.lowpass);
    try {
      const bitmap = await (this.ahead.get(path) ?? load(path));
      this.ahead.delete(path);
      if (generation !== this.generation || (this.level !== null && this.level >= level)) {
        bitmap.close();
        return;
      }
      if (this.level === null) this.#warm({ item: this.item, tiles: this.tiling, shown: this.extent }, this.lowpass);
      this.bitmap?.close();
      this.bitmap = bitmap;
      this.level = level;
      this.loading.delete(level);
      this.changed();
    } catch (error) {
      if (generation !== this.generation) return;
      this.failed(error.message);
      setTimeout(() => this.#again(generation, level), 3000);
    }
  }

  #again(generation, level) {
    if (generation !== this.generation) return;
    this.loading.delete(level);
    this.want(this.wanted);
  }

  /**
   * The tiles that lie in `visible`, {top, left, bottom, right} image px, at `density` device px per image px:
   * [{bitmap, y, x, factor}] of those that are here; the others are asked for.
   */
  tiles(visible, density) {
    this.missing = [];
    const factor = this.#factor(density);
    if (factor === null) return [];
    const { side } = this.tiling;
    const [top, left, height, width] = this.extent;
    const index = (value, start, length) => Math.floor(Math.min(Math.max(value, start), start + length - 1) / (factor * side));
    const rows = [index(visible.top, top, height), index(visible.bottom, top, height)];
    const columns = [index(visible.left, left, width), index(visible.right, left, width)];
    const here = [];
    for (let row = rows[0]; row <= rows[1]; row++) {
      for (let column = columns[0]; column <= columns[1]; column++) {
        const path = tilePath(this.item, factor, row, column, this.lowpass);
        const bitmap = this.kept.get(path);
        if (bitmap) {
          this.kept.delete(path);
          this.kept.set(path, bitmap); // the last one to be dropped
          here.push({ bitmap, y: row * side * factor, x: column * side * factor, factor });
        } else if (!this.running.has(path)) {
          const off = Math.hypot(row - (rows[0] + rows[1]) / 2, column - (columns[0] + columns[1]) / 2);
          this.missing.push({ path, off });
        }
      }
    }
    this.missing.sort((a, b) => a.off - b.off);
    this.#fetchTiles();
    return here;
  }

  // Image px per px of the tiles that are needed; null: the whole picture is fine enough.
  #factor(density) {
    const { factors } = this.tiling;
    if (!this.bitmap || !factors.length) return null;
    if (density <= 1.1 * (this.bitmap.width / this.extent[3])) return null;
    return factors.findLast((factor) => 1 / factor >= 0.9 * density) ?? factors[0];
  }

  #fetchTiles() {
    while (this.running.size < AT_ONCE && this.missing.length) this.#loadTile(this.missing.shift().path);
  }

  async #loadTile(path) {
    const { running, kept } = this;
    running.add(path);
    let bitmap = null;
    try {
      bitmap = await load(path);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 1500));
    }
    running.delete(path);
    if (kept !== this.kept) return bitmap?.close();
    if (bitmap) kept.set(path, bitmap);
    while (kept.size > MOST_TILES) {
      const [oldest, dropped] = kept.entries().next().value;
      kept.delete(oldest);
      dropped.close();
    }
    this.#fetchTiles();
    return this.changed();
  }

  #dropTiles() {
    for (const bitmap of this.kept?.values() ?? []) bitmap.close();
    this.kept = new Map(); // path → tile, the one that was not seen for longest first
    this.running = new Set();
    this.missing = [];
  }

  close() {
    this.generation = (this.generation ?? 0) + 1;
    this.bitmap?.close();
    this.bitmap = null;
    this.item = null;
    this.lowpass = undefined;
    this.level = null;
    this.levels = [];
    this.tiling = { side: 1, factors: [] };
    this.extent = [0, 0, 1, 1];
    this.wanted = 0;
    this.loading = new Set();
    this.#dropTiles();
  }
}

const levelFor = (levels, longSide) => levels.find((level) => level >= 0.9 * longSide) ?? levels.at(-1);
