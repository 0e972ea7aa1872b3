// Moving the view: the wheel of a mouse, two fingers on a touch pad, two fingers on a screen.

const SCROLL_MS = 250; // a touch pad's movement goes on as it began

/** Listens on `canvas`; calls `moved()` when `view` changed, `taken()` when a second finger came down. */
export class Gestures {
  constructor(canvas, view, { open, moved, taken }) {
    Object.assign(this, { canvas, view, open, moved, taken });
    this.fingers = new Map(); // pointer → {x, y}
    this.scrolled = -Infinity;
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event), { capture: true });
    canvas.addEventListener("pointermove", (event) => this.#move(event), { capture: true });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.fingers.delete(event.pointerId), { capture: true });
    }
  }

  /** Whether two fingers hold the picture. */
  get pinching() {
    return this.fingers.size > 1;
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  #down(event) {
    if (event.pointerType !== "touch") return;
    this.fingers.set(event.pointerId, this.#at(event));
    if (this.pinching) this.taken();
  }

  #move(event) {
    if (!this.fingers.has(event.pointerId)) return;
    const before = this.#span();
    this.fingers.set(event.pointerId, this.#at(event));
    if (!this.pinching || !this.open()) return;
    const after = this.#span();
    this.view.pan(after.x - before.x, after.y - before.y);
    if (before.length > 0) this.view.zoom(after.length / before.length, after.x, after.y);
    this.moved();
  }

  // Middle and distance of the first two fingers.
  #span() {
    const [one, other = one] = this.fingers.values();
    return { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, length: Math.hypot(one.x - other.x, one.y - other.y) };
  }

  #wheel(event) {
    event.preventDefault();
    if (!this.open()) return;
    const { x, y } = this.#at(event);
    const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? 400 : 1;
    if (!event.ctrlKey && this.#isTouchPad(event)) {
      this.view.pan(-event.deltaX * lines, -event.deltaY * lines);
    } else {
      const delta = Math.min(Math.max(event.deltaY * lines, -240), 240);
      this.view.zoom(Math.exp(-delta * (event.ctrlKey ? 0.008 : 0.002)), x, y);
    }
    this.moved();
  }

  // A wheel turns by notches up and down; fingers move in any direction, by fractions of these. With Ctrl, which
  // browsers also report of two fingers that spread, both zoom.
  #isTouchPad({ deltaX, deltaY, deltaMode, timeStamp }) {
    const goesOn = timeStamp - this.scrolled < SCROLL_MS;
    const found = deltaX !== 0 || (deltaMode === 0 && (goesOn || Math.abs(deltaY) < 20));
    if (found) this.scrolled = timeStamp;
    return found;
  }
}
