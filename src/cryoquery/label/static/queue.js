// The list of what to label next, and why.

import { thumbnailPath } from "./api.js";
import { shortNames } from "./names.js";
import { show } from "./thumbnails.js";

const byId = (id) => document.getElementById(id);
const OPEN = ["leased", "drafted"];
const FILTERS = {
  all: () => true,
  open: ({ status }) => status === "waiting" || OPEN.includes(status),
  mine: (entry, person) => entry.person === person,
  submitted: ({ status }) => status === "submitted",
  skipped: ({ status }) => status === "skipped" || status === "bad",
  measure: ({ purpose }) => purpose === "measure",
};
const last = (value) => value ?? Infinity;
const ORDERS = {
  rank: null,
  name: (a, b) => a.micrograph.localeCompare(b.micrograph, "en", { numeric: true }),
  particles: (a, b) => b.n_particles - a.n_particles,
  defocus: (a, b) => last(a.defocus_um) - last(b.defocus_um),
  ice: (a, b) => last(a.ice) - last(b.ice),
};
const STATES = { leased: "open", drafted: "begun", submitted: "submitted", skipped: "skipped", bad: "bad" };

export class QueueList {
  /** `list`: an <ol>; `choose(task)` is called when a person picks one. */
  constructor(list, choose) {
    this.list = list;
    this.choose = choose;
    this.rows = new Map();
    this.current = null;
    this.entries = [];
    this.person = null;
    list.addEventListener("keydown", (event) => this.#walk(event));
    for (const id of ["filter", "order"]) byId(id).addEventListener("change", () => this.#list());
    byId("search").addEventListener("input", () => this.#list());
  }

  /** Show `entries` as they are filtered and sorted, those that `person` has begun first. */
  show(entries, person) {
    Object.assign(this, { entries, person });
    this.#list();
  }

  // Those that stay keep their place on the page and their focus.
  #list() {
    const { entries, person } = this;
    const kept = new Map();
    const names = shortNames(entries.map((entry) => entry.micrograph));
    const own = ({ status, person: who }) => who === person && OPEN.includes(status);
    const words = byId("search").value.trim().toLowerCase();
    const wanted = FILTERS[byId("filter").value];
    const found = entries.filter((entry) => wanted(entry, person) && entry.micrograph.toLowerCase().includes(words));
    const by = ORDERS[byId("order").value];
    const sorted = by ? found.toSorted(by) : [...found.filter(own), ...found.filter((entry) => !own(entry))];
    byId("no-rows").hidden = found.length > 0 || !entries.length;
    const rows = sorted.map((entry) => {
      const row = this.rows.get(entry.task) ?? this.#row(entry);
      this.#fill(row, entry, person, names.get(entry.micrograph));
      kept.set(entry.task, row);
      return row.place;
    });
    const same = rows.length === this.list.children.length && rows.every((row, i) => this.list.children[i] === row);
    if (!same) this.list.replaceChildren(...rows);
    this.rows = kept;
    this.mark(this.current);
  }

  mark(task) {
    this.current = task;
    for (const [name, { button }] of this.rows) {
      if (name === task) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }

  reveal(task) {
    this.rows.get(task)?.place.scrollIntoView({ block: "nearest" });
  }

  focus() {
    (this.rows.get(this.current) ?? this.rows.values().next().value)?.button.focus();
  }

  #row(entry) {
    const place = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    const image = document.createElement("img");
    image.decoding = "async";
    image.alt = "";
    image.width = image.height = 52;
    show(image, thumbnailPath(entry.item));
    const [name, why, state] = ["name", "reason", "state"].map((kind) => {
      const part = document.createElement("span");
      part.className = kind;
      return part;
    });
    const words = document.createElement("span");
    words.className = "why";
    words.append(state, why);
    button.append(image, name, words);
    button.addEventListener("click", () => this.choose(entry.task));
    place.append(button);
    return { place, button, name, why, state };
  }

  #fill({ button, name, why, state }, entry, person, short) {
    const other = entry.person !== null && entry.person !== person;
    const open = entry.status === "leased" || entry.status === "drafted";
    const word = STATES[entry.status] ?? "";
    const who = other && open ? `${entry.person} has it` : word;
    button.dataset.status = entry.status;
    button.dataset.item = entry.item;
    button.dataset.other = String(other && open);
    const rank = entry.rank === null ? "" : `${entry.rank + 1}. `;
    name.textContent = `${rank}${short}`;
    const facts = [who];
    if (entry.n_particles) facts.push(`${entry.n_particles} ${entry.n_particles === 1 ? "particle" : "particles"}`);
    if (entry.defocus_um !== null) facts.push(`${entry.defocus_um.toFixed(1)} µm`);
    if (entry.ice !== null) facts.push(`ice ${entry.ice.toPrecision(2)}`);
    const said = facts.filter(Boolean).join(" · ");
    state.textContent = said && entry.reason ? `${said} · ` : said;
    why.textContent = entry.reason;
    const score = typeof entry.score === "number" ? `, score ${entry.score.toPrecision(3)}` : "";
    button.title = entry.reason ? `${entry.micrograph}: ${entry.reason}${score}` : entry.micrograph;
  }

  #walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...this.rows.values()].map((row) => row.button);
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    next?.focus();
  }
}
