// Seconds in which a person works: input within the last half minute, and the page is seen.

const IDLE_MS = 30000;
const INPUTS = ["pointermove", "pointerdown", "keydown", "wheel", "input"];

export class Activity {
  constructor() {
    this.seconds = 0;
    this.last = -Infinity; // input
    this.since = performance.now(); // counted up to here
    const touch = () => {
      this.#count();
      this.last = performance.now();
    };
    for (const name of INPUTS) addEventListener(name, touch, { capture: true, passive: true });
    document.addEventListener("visibilitychange", () => {
      this.#count();
      if (document.hidden) this.last = -Infinity;
    });
  }

  #count() {
    const now = performance.now();
    this.seconds += Math.max(0, Math.min(now, this.last + IDLE_MS) - this.since) / 1000;
    this.since = now;
  }

  /** Whether there was input lately. */
  get active() {
    return performance.now() - this.last < IDLE_MS;
  }

  /** Seconds since this was asked last. */
  take() {
    this.#count();
    const seconds = Math.round(this.seconds * 10) / 10;
    this.seconds = 0;
    return seconds;
  }
}
