// The pictures of one micrograph, in the sizes the server offers, loaded as the zoom asks for them.

import { picture, picturePath } from "./api.js";

/** Calls `changed()` when a better picture has come, `failed(message)` when one could not be had. */
export class Picture {
  constructor(changed, failed) {
    this.changed = changed;
    this.failed = failed;
    this.close();
  }

  open(item, levels, lowpass) {
    if (this.item !== item) this.close();
    this.item = item;
    this.levels = [...levels].sort((a, b) => a - b);
    this.setLowpass(lowpass);
  }

  /** Until a picture with the new low-pass is here, the old one stays. */
  setLowpass(lowpass) {
    if (lowpass === this.lowpass) return;
    this.lowpass = lowpass;
    this.generation += 1;
    this.level = null;
    this.loading.clear();
    if (this.wanted) this.want(this.wanted);
  }

  /** The micrograph is shown `longSide` device px long; load what that takes. */
  want(longSide) {
    this.wanted = longSide;
    if (this.item === null) return;
    const enough = this.levels.find((level) => level >= 0.9 * longSide) ?? this.levels.at(-1);
    if (this.level === null && this.loading.size === 0) {
      const first = this.levels.find((level) => level >= 1000) ?? this.levels.at(-1);
      if (first < enough) this.#load(first);
    }
    if (this.level === null || this.level < enough) this.#load(enough);
  }

  async #load(level) {
    if (this.loading.has(level)) return;
    this.loading.add(level);
    const generation = this.generation;
    const path = picturePath(this.item, level, this.lowpass);
    try {
      const bitmap = await createImageBitmap(await picture(path));
      if (generation !== this.generation || (this.level !== null && this.level >= level)) {
        bitmap.close();
        return;
      }
      this.bitmap?.close();
      this.bitmap = bitmap;
      this.level = level;
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

  close() {
    this.generation = (this.generation ?? 0) + 1;
    this.bitmap?.close();
    this.bitmap = null;
    this.item = null;
    this.lowpass = undefined;
    this.level = null;
    this.levels = [];
    this.wanted = 0;
    this.loading = new Set();
  }
}
