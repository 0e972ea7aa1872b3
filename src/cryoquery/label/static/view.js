// Where the micrograph lies on the screen. Pure geometry.
//
// Pixel centers are integers: an image of width W spans -0.5 to W - 0.5. Screen coordinates are CSS
// pixels from the top left corner of the canvas.

const LARGEST_SCALE = 16;

export class View {
  constructor() {
    this.height = 1; // of the canvas, CSS px
    this.width = 1;
    this.imageHeight = 1; // px
    this.imageWidth = 1;
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
    if (this.fitted) this.fit(this.frame);
    else this.center(middle.y, middle.x);
  }

  open(imageHeight, imageWidth, frame = null) {
    this.imageHeight = imageHeight;
    this.imageWidth = imageWidth;
    this.fit(frame);
  }

  /** Show `frame` [top, left, height, width] as a whole; null: the whole image. */
  fit(frame = null, margin = 12) {
    this.frame = frame;
    const [top, left, height, width] = frame ?? [0, 0, this.imageHeight, this.imageWidth];
    const room = (length) => Math.max(length - 2 * margin, 1);
    this.scale = Math.min(room(this.height) / height, room(this.width) / width, LARGEST_SCALE);
    this.center(top + (height - 1) / 2, left + (width - 1) / 2);
    this.fitted = true;
  }

  smallestScale() {
    return 0.5 * Math.min(this.height / this.imageHeight, this.width / this.imageWidth, 1);
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

  // Some of the image always stays on the screen.
  #keep() {
    const inside = (start, length, room) => {
      const rest = Math.min(length, room) / 3;
      return Math.min(Math.max(start, rest - length), room - rest);
    };
    this.left = inside(this.left, this.imageWidth * this.scale, this.width);
    this.top = inside(this.top, this.imageHeight * this.scale, this.height);
  }
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
