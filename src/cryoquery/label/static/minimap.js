// The whole micrograph, small, with a frame around what is on the screen; seen when not all of it is.

const SIDE = 150; // CSS px

export class Minimap {
  /** `moved()` is called when a press or drag on `canvas` has moved `view`. */
  constructor(canvas, view, moved) {
    Object.assign(this, { canvas, view, moved });
    const go = (event) => {
      const box = canvas.getBoundingClientRect();
      const [top, left, height, width] = view.extent;
      const y = top + ((event.clientY - box.top) / box.height) * height;
      view.center(y, left + ((event.clientX - box.left) / box.width) * width);
      view.fitted = false;
      moved();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      go(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && go(event));
  }

  /** `filter`: of the large picture. */
  show(bitmap, filter) {
    const { canvas, view } = this;
    const [top, left, height, width] = view.extent;
    const seen = view.visible();
    const all = seen.top <= top && seen.left <= left && seen.bottom >= top + height - 1 && seen.right >= left + width - 1;
    canvas.hidden = !bitmap || all;
    if (canvas.hidden) return;
    const scale = SIDE / Math.max(height, width);
    const ratio = window.devicePixelRatio || 1;
    const size = [width * scale * ratio, height * scale * ratio].map(Math.round);
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    canvas.style.width = `${width * scale}px`;
    const context = canvas.getContext("2d");
    context.filter = "none";
    if (!filter.includes("url")) context.filter = filter;
    context.imageSmoothingQuality = "medium";
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    context.filter = "none";
    const at = (value, start) => (value + 0.5 - start) * scale * ratio;
    const frame = [at(seen.left, left), at(seen.top, top), (seen.right - seen.left) * scale * ratio, (seen.bottom - seen.top) * scale * ratio];
    for (const [color, line] of [["rgba(0, 0, 0, 0.7)", 4], ["#f0e442", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = line * Math.min(ratio, 1.5);
      context.strokeRect(...frame);
    }
  }
}
