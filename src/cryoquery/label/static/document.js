// What is marked in one micrograph, and the operations that change it: the rules of the server's
// project/document.py once more, so that the page can show at once what the server will say. Pure.

export const MAX_PARTICLES = 20000;
export const MAX_REGIONS = 1000;
export const MIN_VERTICES = 3;
export const MAX_VERTICES = 1000;

/** An operation or a step of undo that cannot be done; nothing has changed. */
export class Impossible extends Error {}

/** Undo or redo of a step so long ago that only the server remembers it. */
export class Forgotten extends Error {}

/** Whether (y, x) lies in what is to be labeled; `extent`: {height, width, region}. */
export function holds(extent, y, x) {
  const [top, left, height, width] = extent.region ?? [0, 0, extent.height, extent.width];
  return top - 0.5 <= y && y <= top + height - 0.5 && left - 0.5 <= x && x <= left + width - 0.5;
}

/**
 * Tables of cells that never change themselves, and steps of edits [table, key, before, after]
 * between them; `undefined`: nothing is there.
 */
export class Document {
  /** `given`, its place among the operations and the last of these, as the server tells them. */
  constructor(given = null, cursor = 0, nOps = 0, steps = { done: [], undone: [] }) {
    this.particles = new Map();
    this.regions = new Map();
    this.rejected = new Map();
    this.flags = new Map();
    this.done = steps.done.map(readStep);
    this.undone = steps.undone.map(readStep);
    this.before = cursor - this.done.length;
    this.after = nOps - cursor - this.undone.length;
    for (const { key, ...particle } of given?.particles ?? []) this.particles.set(key, particle);
    for (const { key, ...region } of given?.regions ?? []) this.regions.set(key, region);
    for (const key of given?.rejected ?? []) this.rejected.set(key, true);
    if (given?.empty) this.flags.set("empty", true);
  }

  get empty() {
    return this.flags.has("empty");
  }

  /** How many operations count. */
  get cursor() {
    return this.before + this.done.length;
  }

  /** How many can be gone to. */
  get nOps() {
    return this.cursor + this.undone.length + this.after;
  }

  /** What the server says of a document, to compare with. */
  plain() {
    const list = (table) => Array.from(table, ([key, value]) => ({ key, ...value }));
    return {
      particles: list(this.particles),
      regions: list(this.regions),
      rejected: [...this.rejected.keys()],
      empty: this.empty,
    };
  }

  /** Take one more step; what was undone can no longer be redone. */
  apply(op, extent) {
    const make = OPERATIONS[op?.op];
    if (!make) throw new Impossible(`there is no operation ${op?.op}`);
    const step = make(this, op, extent);
    this.#put(step);
    this.done.push(step);
    this.undone = [];
    this.after = 0;
  }

  undo() {
    if (this.cursor === 0) throw new Impossible("There is nothing to undo.");
    if (this.done.length === 0) throw new Forgotten();
    const step = this.done.pop();
    this.#put(step.map(([table, key, before, after]) => [table, key, after, before]).reverse());
    this.undone.push(step);
  }

  redo() {
    if (this.cursor === this.nOps) throw new Impossible("There is nothing to redo.");
    if (this.undone.length === 0) throw new Forgotten();
    const step = this.undone.pop();
    this.#put(step);
    this.done.push(step);
  }

  #put(step) {
    for (const [table, key, , after] of step) {
      if (after === undefined) this[table].delete(key);
      else this[table].set(key, after);
    }
  }
}

// In JSON nothing is null.
const readStep = (step) => step.map(([table, key, before, after]) => [table, key, before ?? undefined, after ?? undefined]);

const OPERATIONS = {
  add(document, { key, y, x }, extent) {
    checkNew(key, document.particles);
    checkPoint(y, x, extent);
    checkRoom(document, 1);
    return [...notEmpty(document), ["particles", key, undefined, { y, x, origin: "person" }]];
  },
  move(document, { key, y, x }, extent) {
    const before = known(key, document.particles);
    checkPoint(y, x, extent);
    return [["particles", key, before, { ...before, y, x }]];
  },
  delete(document, { keys }) {
    return removed("particles", document.particles, keys);
  },
  accept(document, { picks }, extent) {
    const edits = notEmpty(document);
    const seen = new Set();
    for (const { key, y, x } of picks) {
      checkNew(key, document.particles);
      checkSuggestion(key);
      if (seen.has(key)) throw new Impossible(`Suggestion ${key} is accepted twice.`);
      seen.add(key);
      checkPoint(y, x, extent);
      if (document.rejected.has(key)) edits.push(["rejected", key, true, undefined]);
      edits.push(["particles", key, undefined, { y, x, origin: "suggestion" }]);
    }
    checkRoom(document, seen.size);
    return edits;
  },
  reject(document, { keys }) {
    for (const key of keys) {
      checkSuggestion(key);
      if (document.particles.has(key)) throw new Impossible(`Suggestion ${key} is a particle already.`);
    }
    const fresh = [...new Set(keys)].filter((key) => !document.rejected.has(key));
    if (document.rejected.size + fresh.length > MAX_PARTICLES) {
      throw new Impossible(`At most ${MAX_PARTICLES} suggestions can be rejected.`);
    }
    return fresh.map((key) => ["rejected", key, undefined, true]);
  },
  region(document, { key, kind, polygon }, extent) {
    checkNew(key, document.regions);
    if (document.regions.size >= MAX_REGIONS) throw new Impossible(`At most ${MAX_REGIONS} regions are possible.`);
    if (kind !== "ignore" && kind !== "done") throw new Impossible(`There is no kind of region ${kind}.`);
    if (polygon.length < MIN_VERTICES || polygon.length > MAX_VERTICES) {
      throw new Impossible(`A region has ${MIN_VERTICES} to ${MAX_VERTICES} corners.`);
    }
    for (const [y, x] of polygon) checkPoint(y, x, extent);
    return [["regions", key, undefined, { kind, polygon }]];
  },
  delete_region(document, { keys }) {
    return removed("regions", document.regions, keys);
  },
  empty(document, { value }) {
    if (value && document.particles.size) {
      throw new Impossible(
        `${document.particles.size} particles are marked here; delete them to say that there are none.`,
      );
    }
    if (value === document.empty) return [];
    return [["flags", "empty", document.empty || undefined, value || undefined]];
  },
};

function removed(name, table, keys) {
  if (new Set(keys).size < keys.length) throw new Impossible("One stands there twice.");
  return keys.map((key) => [name, key, known(key, table), undefined]);
}

function notEmpty(document) {
  return document.empty ? [["flags", "empty", true, undefined]] : [];
}

function known(key, table) {
  if (!table.has(key)) throw new Impossible(`There is no ${key}.`);
  return table.get(key);
}

function checkNew(key, table) {
  if (!/^[A-Za-z0-9_.-]{1,40}$/.test(key)) throw new Impossible(`${key} cannot be a key.`);
  if (table.has(key)) throw new Impossible(`${key} is there already.`);
}

function checkSuggestion(key) {
  if (!/^s(0|[1-9][0-9]{0,8})$/.test(key)) throw new Impossible(`${key} is not a suggestion.`);
}

function checkRoom(document, more) {
  if (document.particles.size + more > MAX_PARTICLES) {
    throw new Impossible(`At most ${MAX_PARTICLES} particles are possible.`);
  }
}

function checkPoint(y, x, extent) {
  if (!Number.isFinite(y) || !Number.isFinite(x)) throw new Impossible("That is no place.");
  if (!holds(extent, y, x)) {
    throw new Impossible(
      extent.region ? "That lies outside of the field that is to be labeled." : "That lies outside of the micrograph.",
    );
  }
}
