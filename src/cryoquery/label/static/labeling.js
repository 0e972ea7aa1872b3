// One open task: what is marked in it, what the model suggests, and the commands that change it.

import { Document, Forgotten, Impossible, holds } from "./document.js";
import { doubts } from "./doubts.js";
import { newId } from "./outbox.js";
import { Grid, contains } from "./shapes.js";

const SHORT = 10; // characters of a key

const THRESHOLD = "cryoquery/threshold/"; // outlives a reload of the page

function storedThreshold(task) {
  const stored = sessionStorage.getItem(THRESHOLD + task);
  return stored === null ? null : Number(stored);
}

const round = (value) => Math.round(value * 100) / 100;

/**
 * Events: "changed"; "say" {text} with something the person should know; "stale" when the document
 * must be read from the server again.
 */
export class Labeling extends EventTarget {
  constructor(outbox, activity) {
    super();
    this.outbox = outbox;
    this.activity = activity;
    this.task = null;
  }

  /** Show the task's document, as the server tells it in `answer`. */
  show(answer) {
    const { document, cursor, n_ops: nOps, steps, suggestions, ...task } = answer;
    const same = this.task?.task === task.task && this.task.model === task.model;
    this.task = task;
    this.suggestions = suggestions;
    this.extent = { height: task.height, width: task.width, region: task.region };
    this.document = new Document(document, cursor, nOps, steps);
    if (!same) this.threshold = storedThreshold(task.task) ?? task.threshold ?? 0.5;
    this.#changed();
  }

  close() {
    this.task = null;
    this.#changed();
  }

  get name() {
    return this.task?.task ?? null;
  }

  /** Whether this person may change it now. */
  get editable() {
    return this.task !== null && this.task.mine && (this.task.status === "leased" || this.task.status === "drafted");
  }

  get closed() {
    return this.task !== null && ["submitted", "skipped", "bad"].includes(this.task.status);
  }

  get untouched() {
    return this.editable && this.task.status === "leased" && this.document.nOps === 0;
  }

  get diameter() {
    return this.task.diameter_px;
  }

  /** Record a command of `kind`; it is sent as soon as possible. */
  record(kind, more = {}) {
    const active = kind === "reopened" ? {} : { active_seconds: this.activity.take() };
    this.outbox.put(this.name, { kind, ...active, ...more });
  }

  /** Change the document; false, with a word to the person, if that cannot be. */
  do(op) {
    if (!this.#mayEdit()) return false;
    try {
      this.document.apply(op, this.extent);
    } catch (error) {
      if (!(error instanceof Impossible)) throw error;
      this.#say(error.message);
      return false;
    }
    this.task.status = "drafted";
    this.record("drafted", { op });
    this.#changed();
    return true;
  }

  undo() {
    this.#step("undo", "undone");
  }

  redo() {
    this.#step("redo", "redone");
  }

  #step(method, kind) {
    if (!this.#mayEdit()) return;
    try {
      this.document[method]();
    } catch (error) {
      if (error instanceof Forgotten) {
        this.#distant(kind);
        return;
      }
      if (!(error instanceof Impossible)) throw error;
      this.#say(error.message);
      return;
    }
    this.record(kind);
    this.#changed();
  }

  // A step that only the server remembers: it takes it, and the document is read again.
  #distant(kind) {
    if (this.outbox.state.name !== "saved" && this.outbox.state.name !== "saving") {
      this.#say("This step is known to the server alone; it can be undone when the server answers again.");
      return;
    }
    this.record(kind);
    this.dispatchEvent(new Event("stale"));
  }

  #mayEdit() {
    if (this.editable) return true;
    if (this.closed) this.#say("It is submitted or skipped; reopen it to correct it.");
    else if (this.task) this.#say("It is not yours; take another one from the list.");
    return false;
  }

  #say(text, kind = "warn") {
    this.dispatchEvent(new CustomEvent("say", { detail: { text, kind } }));
  }

  #changed() {
    this.lists = null;
    this.dispatchEvent(new Event("changed"));
  }

  setThreshold(value) {
    this.threshold = Math.min(Math.max(round(value), 0), 1);
    sessionStorage.setItem(THRESHOLD + this.name, String(this.threshold));
    this.#changed();
  }

  // Lists of points with keys, made when they are asked for.
  #made() {
    if (this.lists) return this.lists;
    const { document } = this;
    const particles = Array.from(document.particles, ([key, p]) => ({ key, y: p.y, x: p.x, origin: p.origin }));
    const taken = new Grid(particles, this.diameter);
    const ignored = [...document.regions.values()].filter((region) => region.kind === "ignore");
    const open = this.suggestions.filter(
      ({ key, y, x }) =>
        !document.particles.has(key) &&
        holds(this.extent, y, x) &&
        !ignored.some((region) => contains(region.polygon, y, x)) &&
        !taken.nearest(y, x, this.diameter / 2),
    );
    const undecided = open.filter((s) => s.score >= this.threshold && !document.rejected.has(s.key));
    this.lists = {
      particles,
      undecided,
      open: open.filter((s) => !document.rejected.has(s.key)),
      rejected: open.filter((s) => document.rejected.has(s.key)),
      nearParticles: taken,
      nearSuggestions: new Grid(undecided, this.diameter),
      regions: Array.from(document.regions, ([key, region]) => ({ key, ...region })),
    };
    return this.lists;
  }

  get particles() {
    return this.#made().particles;
  }

  /** Suggestions from the slider's score on, neither accepted nor rejected nor covered by a particle. */
  get undecided() {
    return this.#made().undecided;
  }

  /** Suggestions of any score that are neither accepted nor rejected nor covered. */
  get open() {
    return this.#made().open;
  }

  /** Where a second look is worth it, see doubts.js. */
  get doubts() {
    const lists = this.#made();
    lists.doubts ??= doubts(this);
    return lists.doubts;
  }

  get rejected() {
    return this.#made().rejected;
  }

  get regions() {
    return this.#made().regions;
  }

  /** The particle or suggestion nearest to (y, x) within `radius` px: {kind, point}, or null. */
  hit(y, x, radius) {
    const { nearParticles, nearSuggestions } = this.#made();
    const particle = nearParticles.nearest(y, x, radius);
    const suggestion = nearSuggestions.nearest(y, x, radius);
    const distance = (point) => (point ? Math.hypot(point.y - y, point.x - x) : Infinity);
    if (!particle && !suggestion) return null;
    if (distance(particle) <= distance(suggestion)) return { kind: "particle", point: particle };
    return { kind: "suggestion", point: suggestion };
  }

  /** Keys of particles and of undecided suggestions in `polygon`. */
  within(polygon) {
    const keys = (points) => points.filter(({ y, x }) => contains(polygon, y, x)).map((point) => point.key);
    return { particles: keys(this.particles), suggestions: keys(this.undecided) };
  }

  add(y, x) {
    return this.do({ op: "add", key: `p${newId().slice(0, SHORT)}`, y: round(y), x: round(x) });
  }

  move(key, y, x) {
    const before = this.document.particles.get(key);
    if (!this.do({ op: "move", key, y: round(y), x: round(x) })) return false;
    const far = Math.round(Math.hypot(y - before.y, x - before.x));
    this.#say(`Moved a particle by ${far} px; Ctrl Z takes it back.`, "");
    return true;
  }

  delete(keys) {
    return keys.length > 0 && this.do({ op: "delete", keys });
  }

  reject(keys) {
    return keys.length > 0 && this.do({ op: "reject", keys });
  }

  /** Delete particles and reject suggestions; also those that the particles came from, so that they stay away. */
  erase(particles, suggestions) {
    this.delete(particles);
    const known = new Set(this.suggestions.map(({ key }) => key));
    this.reject([...particles.filter((key) => known.has(key)), ...suggestions]);
  }

  /** Make particles of `suggestions`, where they are or, for one, at `place`. */
  accept(suggestions, place = null) {
    if (!suggestions.length) return false;
    const picks = suggestions.map(({ key, y, x, score }) => ({
      key,
      y: round(place?.y ?? y),
      x: round(place?.x ?? x),
      score,
    }));
    return this.do({ op: "accept", picks });
  }

  addRegion(kind, polygon) {
    const rounded = polygon.map(([y, x]) => [round(y), round(x)]);
    return this.do({ op: "region", key: `r${newId().slice(0, SHORT)}`, kind, polygon: rounded });
  }

  deleteRegion(key) {
    return this.do({ op: "delete_region", keys: [key] });
  }

  toggleEmpty() {
    return this.do({ op: "empty", value: !this.document.empty });
  }

  /** Why it cannot be submitted, or null. */
  get incomplete() {
    const done = this.regions.some((region) => region.kind === "done");
    if (this.particles.length || this.document.empty || done) return null;
    return "Nothing is marked. Say “no particles here” (N), or mark a region as done (D).";
  }

  /** Particles in regions to ignore: they are not exported, and count as nothing. */
  get ignored() {
    const regions = this.regions.filter((region) => region.kind === "ignore");
    return this.particles.filter(({ y, x }) => regions.some((region) => contains(region.polygon, y, x)));
  }

  /** What submitting means, in sentences. */
  summary() {
    const left = this.ignored.length;
    const n = this.particles.length - left;
    const undecided = this.undecided.length;
    const ignored = this.regions.filter((region) => region.kind === "ignore").length;
    const done = this.regions.some((region) => region.kind === "done");
    const lines = [n === 0 ? "No particles." : `${n} ${n === 1 ? "particle" : "particles"}.`];
    if (undecided) {
      const counts = undecided === 1 ? "suggestion is undecided and counts" : "suggestions are undecided and count";
      lines.push(`${undecided} ${counts} as background.`);
    }
    if (done) lines.push("Outside of the done regions nothing counts.");
    else lines.push(`Everything else in this ${this.task.region ? "field" : "micrograph"} counts as background.`);
    if (left) lines.push(`${left} ${left === 1 ? "particle lies" : "particles lie"} in ignored regions and will be left out.`);
    if (ignored) lines.push(`${ignored} ignored ${ignored === 1 ? "region counts" : "regions count"} as nothing.`);
    return lines;
  }
}
