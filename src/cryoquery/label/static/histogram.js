// How many suggestions have which score: bars above the slider, those that it leaves in color.

import { scoreColor } from "./canvas.js";

const BINS = 50;

/** Draw the scores, in [0, 1], into `canvas`; `threshold`: the lowest that is left. */
export function drawHistogram(canvas, scores, threshold) {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (!width) return;
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const counts = new Array(BINS).fill(0);
  for (const score of scores) counts[Math.min(Math.floor(score * BINS), BINS - 1)] += 1;
  const most = Math.max(...counts, 1);
  // The middle of a slider's knob, about 14 px wide, goes from 7 px to 7 px before the end.
  const step = (width - 14) / BINS;
  for (const [i, count] of counts.entries()) {
    if (!count) continue;
    const tall = Math.max(2, Math.sqrt(count / most) * height); // so that few are seen beside many
    context.globalAlpha = (i + 0.5) / BINS >= threshold ? 1 : 0.35;
    context.fillStyle = scoreColor((i + 0.5) / BINS);
    context.fillRect(7 + i * step, height - tall, Math.max(step - 1, 1), tall);
  }
}

/** How many of `counts`, of scores in as many equal bins of [0, 1], are left from `threshold` on. */
export function leftOf(counts, threshold) {
  return counts.slice(Math.round(threshold * counts.length)).reduce((sum, count) => sum + count, 0);
}
