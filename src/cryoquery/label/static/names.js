// Names of micrographs begin and end alike: what they have in common is shortened, so that what tells them apart is
// seen. Pure.

const LEAST_CUT = 4; // characters that are worth an ellipsis
const KEPT = 3; // of the common beginning
const LONGEST = 14; // beside its rank in the list

/** `names` → a Map from each to what is shown of it. */
export function shortNames(names) {
  const all = [...new Set(names)];
  const start = all.length > 1 ? common(all) : 0;
  const end = all.length > 1 ? common(all.map((name) => [...name.slice(start)].reverse().join(""))) : 0;
  return new Map(all.map((name) => [name, short(name, start, end)]));
}

function short(name, start, end) {
  const [head, tail] = [name.slice(0, start), name.slice(name.length - end)];
  const own = name.slice(start, name.length - end);
  const kept = start >= KEPT + LEAST_CUT ? `${head.slice(0, KEPT)}…` : head;
  const rest = end >= LEAST_CUT ? "…" : tail;
  const whole = kept + own + rest;
  if (name.length <= LONGEST || whole.length <= LONGEST) return name.length <= LONGEST ? name : whole;
  const half = Math.floor((LONGEST - 1) / 2);
  return `${whole.slice(0, half)}…${whole.slice(whole.length - half)}`;
}

// Length of the beginning that all have.
function common([first, ...others]) {
  let length = 0;
  while (length < first.length && others.every((name) => name[length] === first[length])) length++;
  // Numbers stay whole.
  while (length > 0 && /[0-9]/.test(first[length - 1])) length--;
  return length;
}
