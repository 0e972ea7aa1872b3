// What is marked and suggested in one micrograph as small pictures, sorted by score, to weed out many at a time.
//
// Only the rows on the screen are on the page, and the pictures of a few dozen places come as one.

import { cutoutsPath, picture } from "./api.js";
import { Grid } from "./shapes.js";

const CELL = 88; // CSS px, with its margin
const BATCH = 48;
const BEYOND = 3; // rows above and below the screen
const RETRY_MS = 3000;
const byId = (id) => document.getElementById(id);
const WANTED = {
  shown: (entry, labeling) => entry.state === "particle" || (entry.state === "suggestion" && entry.score >= labeling.threshold),
  particle: (entry) => entry.state === "particle",
  suggestion: (entry) => entry.state === "suggestion",
  rejected: (entry) => entry.state === "rejected",
};

export class Gallery {
  /** `lowpass()`: of the picture; `go(place)`: show a place of the micrograph, large. */
  constructor(labeling, lowpass, go) {
    Object.assign(this, { labeling, lowpass, go });
    this.dialog = byId("gallery");
    this.scroller = byId("gallery-scroller");
    this.room = byId("gallery-room");
    this.entries = []; // {key, y, x, score, at: place among all that were there when it was opened}
    this.listed = [];
    this.selected = new Set();
    this.last = null; // key that was clicked last
    this.cells = new Map();
    this.sheets = new Map(); // path → pictures of a few dozen places, the URL of one on its way
    this.scroller.addEventListener("scroll", () => this.#draw());
    this.room.addEventListener("click", (event) => this.#click(event));
    this.room.addEventListener("dblclick", (event) => this.#visit(event));
    this.dialog.addEventListener("close", () => this.#clear()); // also by Escape
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    for (const id of ["gallery-what", "gallery-order"]) byId(id).addEventListener("change", () => this.#list());
    for (const name of ["accept", "remove", "all", "undo", "close"]) byId(`gallery-${name}`).addEventListener("click", () => this[name]());
    labeling.addEventListener("changed", () => this.dialog.open && (labeling.task ? this.#list() : this.close()));
    new ResizeObserver(() => this.dialog.open && this.#draw()).observe(this.scroller);
  }

  open() {
    const { labeling } = this;
    if (!labeling.task) return;
    const scored = new Grid(labeling.suggestions, labeling.diameter);
    const score = ({ y, x }) => scored.nearest(y, x, labeling.diameter / 2)?.score ?? 0;
    const all = [
      ...labeling.particles.map((point) => ({ ...point, score: score(point) })),
      ...labeling.open,
      ...labeling.rejected,
    ];
    this.entries = all.sort((a, b) => b.score - a.score).map((entry, at) => ({ ...entry, at }));
    this.selected.clear();
    this.item = labeling.task.item;
    this.dialog.showModal();
    this.#list();
    this.scroller.scrollTop = 0;
    this.scroller.focus();
  }

  close() {
    this.dialog.close();
  }

  #clear() {
    if (this.dialog.open) return;
    this.room.replaceChildren();
    this.cells.clear();
    for (const sheet of this.sheets.values()) sheet.then((url) => URL.revokeObjectURL(url), () => {});
    this.sheets.clear();
  }

  #sheet(path) {
    const { sheets } = this;
    if (!sheets.has(path)) {
      sheets.set(path, picture(path).then((blob) => URL.createObjectURL(blob)));
      sheets.get(path).catch(() => setTimeout(() => sheets.delete(path) && this.dialog.open && this.#list(), RETRY_MS));
    }
    return sheets.get(path);
  }

  #list() {
    const { labeling } = this;
    const { particles, rejected } = labeling.document;
    const wanted = WANTED[byId("gallery-what").value];
    for (const entry of this.entries) {
      entry.state = particles.has(entry.key) ? "particle" : rejected.has(entry.key) ? "rejected" : /^s[0-9]+$/.test(entry.key) ? "suggestion" : "gone";
    }
    this.listed = this.entries.filter((entry) => wanted(entry, labeling));
    if (byId("gallery-order").value === "low") this.listed.reverse();
    const there = new Set(this.listed.map((entry) => entry.key));
    for (const key of this.selected) if (!there.has(key)) this.selected.delete(key);
    for (const cell of this.cells.values()) cell.remove();
    this.cells.clear();
    this.#draw();
  }

  get #columns() {
    return Math.max(1, Math.floor(this.scroller.clientWidth / CELL));
  }

  #draw() {
    const columns = this.#columns;
    this.room.style.height = `${Math.ceil(this.listed.length / columns) * CELL}px`;
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / CELL) - BEYOND) * columns;
    const last = (Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / CELL) + BEYOND) * columns;
    const shown = new Map(this.listed.slice(first, last).map((entry, i) => [entry.key, { entry, index: first + i }]));
    for (const [key, cell] of this.cells) {
      if (shown.has(key)) continue;
      cell.remove();
      this.cells.delete(key);
    }
    for (const [key, { entry, index }] of shown) {
      const cell = this.cells.get(key) ?? this.#cell(entry);
      cell.style.left = `${(index % columns) * CELL}px`;
      cell.style.top = `${Math.floor(index / columns) * CELL}px`;
      cell.setAttribute("aria-selected", String(this.selected.has(key)));
    }
    const n = this.selected.size;
    byId("gallery-count").textContent = `${this.listed.length.toLocaleString("en")} shown, ${n.toLocaleString("en")} selected`;
    for (const name of ["accept", "remove"]) byId(`gallery-${name}`).disabled = !n || !this.labeling.editable;
  }

  #cell(entry) {
    const cell = document.createElement("div");
    cell.className = `cell ${entry.state}`;
    cell.dataset.key = entry.key;
    cell.setAttribute("role", "option");
    cell.setAttribute("aria-label", `${entry.state}, score ${entry.score.toFixed(2)}`);
    const from = entry.at - (entry.at % BATCH);
    const places = this.entries.slice(from, from + BATCH).map(({ y, x }) => `${y.toFixed(1)},${x.toFixed(1)}`);
    const small = document.createElement("span");
    const show = (url) => { small.style.backgroundImage = `url("${url}")`; };
    this.#sheet(cutoutsPath(this.item, places, this.lowpass())).then(show, () => {});
    small.style.backgroundSize = `${places.length * 100}% 100%`;
    small.style.backgroundPosition = places.length > 1 ? `${((entry.at - from) / (places.length - 1)) * 100}% 0` : "0 0";
    const score = document.createElement("b");
    score.className = "number";
    score.textContent = entry.score ? entry.score.toFixed(2) : "–";
    cell.append(small, score);
    this.cells.set(entry.key, cell);
    this.room.append(cell);
    return cell;
  }

  #click(event) {
    const key = event.target.closest(".cell")?.dataset.key;
    if (!key) return;
    this.scroller.focus();
    const index = (wanted) => this.listed.findIndex((entry) => entry.key === wanted);
    const from = event.shiftKey ? index(this.last) : -1;
    if (from >= 0) {
      const [low, high] = [from, index(key)].sort((a, b) => a - b);
      for (const entry of this.listed.slice(low, high + 1)) this.selected.add(entry.key);
    } else if (this.selected.has(key)) {
      this.selected.delete(key);
    } else {
      this.selected.add(key);
    }
    this.last = key;
    this.#draw();
  }

  #visit(event) {
    const entry = this.listed.find(({ key }) => key === event.target.closest(".cell")?.dataset.key);
    if (!entry) return;
    this.close();
    this.go(entry);
  }

  #key(event) {
    const control = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    if (event.target.closest("select, button") && (key === "enter" || key === " " || key.startsWith("arrow"))) return;
    const does = { enter: "accept", r: "remove", delete: "remove", g: "close" }[key];
    if (control && key === "a") this.all();
    else if (control && key === "z" && event.shiftKey) this.labeling.redo();
    else if (control && key === "z") this.undo();
    else if (does && !control) this[does]();
    else return;
    event.preventDefault();
  }

  all() {
    for (const { key } of this.listed) this.selected.add(key);
    this.#draw();
  }

  undo() {
    this.labeling.undo();
  }

  #chosen(...states) {
    return this.entries.filter(({ key, state }) => this.selected.has(key) && states.includes(state));
  }

  accept() {
    this.labeling.accept(this.#chosen("suggestion", "rejected"));
  }

  remove() {
    const keys = (state) => this.#chosen(state).map((entry) => entry.key);
    this.labeling.erase(keys("particle"), keys("suggestion"));
  }
}
