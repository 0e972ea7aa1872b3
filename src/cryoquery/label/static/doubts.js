// Where person and model disagree, or the model is unsure: what a second look is for. Pure.

import { Grid } from "./shapes.js";

const NEAR = 0.1; // of the slider's score
const WORDS = {
  mark: (n) => `${n} ${n === 1 ? "mark that the model doubts" : "marks that the model doubts"}`,
  place: (n) => `${n} ${n === 1 ? "place it would add" : "places it would add"}`,
  near: (n) => `${n} near the threshold`,
};

/**
 * The doubtful spots of `labeling`, [{kind: "mark" | "place" | "near", y, x, text, point?: a suggestion}] in reading order: marks where the
 * model sees little, strong suggestions that were rejected or left, and suggestions close to the slider.
 */
export function doubts(labeling) {
  if (!labeling.suggestions.length || !labeling.particles.length) return []; // that is for a second look
  const { task, diameter, threshold } = labeling;
  const believed = task.threshold ?? 0.5;
  const seen = new Grid(labeling.suggestions, diameter);
  const spots = [];
  for (const { y, x } of labeling.particles) {
    const score = seen.nearest(y, x, diameter / 2)?.score ?? 0;
    if (score < believed / 2) spots.push({ kind: "mark", y, x, text: score ? `The model doubts this mark: ${score.toFixed(2)}.` : "The model sees nothing here." });
  }
  const strong = (believed + 1) / 2;
  for (const { y, x, score } of labeling.rejected) {
    if (score >= strong) spots.push({ kind: "place", y, x, text: `Rejected, but the model is sure: ${score.toFixed(2)}.` });
  }
  for (const point of labeling.open) {
    const { y, x, score } = point;
    if (score >= strong) spots.push({ kind: "place", y, x, point, text: `The model would add this: ${score.toFixed(2)}.` });
    else if (Math.abs(score - threshold) < NEAR) spots.push({ kind: "near", y, x, point, text: `Near the threshold: ${score.toFixed(2)}.` });
  }
  const row = ({ y }) => Math.floor(y / diameter);
  return spots.sort((a, b) => row(a) - row(b) || a.x - b.x);
}

/** How many of each kind there are, in words. */
export function inWords(spots) {
  const parts = Object.entries(WORDS).map(([kind, words]) => [spots.filter((spot) => spot.kind === kind).length, words]);
  return parts.filter(([n]) => n > 0).map(([n, words]) => words(n)).join(", ");
}
