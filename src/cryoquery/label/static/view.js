// Where the micrograph lies on the screen. Pure geometry.
//
// Pixel centers are integers: an image of width W spans -0.5 to W - 0.5. Screen coordinates are CSS
// pixels from the top left corner of the canvas.

const LARGEST_SCALE = 16;

export class View {
  constructor() {
    this.height = 1; // of the canvas, CSS px
    this.width = 1;
    this.extent = [0, 0, 1, 1]; // (top, left, height, width) of what there is to see, image px
    this.scale = 1; // CSS px per image px
    this.top = 0; // of the image on the canvas, CSS px
    this.left = 0;
    this.fitted = true;
  }

  /** The canvas has a new size: what was in its middle stays there. */
  resize(height, width) {
    const middle = this.toImage(this.width / 2, this.height / 2);
    this.height = height;
    this.width = width;
    if (this.fitted) this.fit();
    else this.center(middle.y, middle.x);
  }

  /** Show `extent`, [top, left, height, width] in image px. */
  open(extent) {
    this.extent = extent;
    this.fit();
  }

  /** Show everything. */
  fit(margin = 12) {
    const [top, left, height, width] = this.extent;
    this.scale = Math.min(this.#room(this.height, margin) / height, this.#room(this.width, margin) / width, LARGEST_SCALE);
    this.center(top + (height - 1) / 2, left + (width - 1) / 2);
    this.fitted = true;
  }

  #room(length, margin) {
    return Math.max(length - 2 * margin, 1);
  }

  smallestScale() {
    const [, , height, width] = this.extent;
    return 0.5 * Math.min(this.height / height, this.width / width, 1);
  }

  toScreen(y, x) {
    return { x: this.left + (x + 0.5) * this.scale, y: this.top + (y + 0.5) * this.scale };
  }

  toImage(x, y) {
    return { y: (y - this.top) / this.scale - 0.5, x: (x - this.left) / this.scale - 0.5 };
  }

  center(y, x) {
    this.left = this.width / 2 - (x + 0.5) * this.scale;
    this.top = this.height / 2 - (y + 0.5) * this.scale;
    this.#keep();
  }

  pan(dx, dy) {
    this.left += dx;
    this.top += dy;
    this.fitted = false;
    this.#keep();
  }

  /** Zoom by `factor`; what lies at the screen point (x, y) stays there. */
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const scale = Math.min(Math.max(this.scale * factor, this.smallestScale()), LARGEST_SCALE);
    this.left = x - ((x - this.left) * scale) / this.scale;
    this.top = y - ((y - this.top) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.#keep();
  }

  /** Scroll as little as needed to have (y, x) on the screen, `margin` CSS px from its border. */
  reveal(y, x, margin = 60) {
    const at = this.toScreen(y, x);
    const shift = (value, length) => {
      const edge = Math.min(margin, length / 3);
      return Math.max(edge - value, 0) + Math.min(length - edge - value, 0);
    };
    const dx = shift(at.x, this.width);
    const dy = shift(at.y, this.height);
    if (dx || dy) this.pan(dx, dy);
  }

  /** The part of the image on the screen, in image px. */
  visible() {
    const from = this.toImage(0, 0);
    const to = this.toImage(this.width, this.height);
    return { top: from.y, left: from.x, bottom: to.y, right: to.x };
  }

  // Some of it always stays on the screen.
  #keep() {
    const [top, left, height, width] = this.extent;
    this.left = kept(this.left, left * this.scale, width * this.scale, this.width);
    this.top = kept(this.top, top * this.scale, height * this.scale, this.height);
  }
}

// Where the origin goes so that of `length` CSS px from `start` on a third stays within `room`.
function kept(origin, start, length, room) {
  const rest = Math.min(length, room) / 3;
  return Math.min(Math.max(origin, rest - length - start), room - rest - start);
}

/** A round length for a scale bar of at most `most` CSS px: {px, label}; `pixelSize` in Å/px or null. */
export function scaleBar(scale, pixelSize, most = 140) {
  const unit = pixelSize ?? 1;
  const longest = (most / scale) * unit;
  const power = 10 ** Math.floor(Math.log10(longest));
  const length = [5, 2, 1].map((n) => n * power).find((n) => n <= longest) ?? power;
  const px = (length / unit) * scale;
  if (pixelSize === null) return { px, label: `${format(length)} px` };
  return { px, label: length >= 1000 ? `${format(length / 10)} nm` : `${format(length)} Å` };
}

const format = (value) => String(Number(value.toPrecision(3)));
