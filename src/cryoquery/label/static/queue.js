// The list of what to label next, and why.

import { thumbnailPath } from "./api.js";
import { show } from "./thumbnails.js";

const NAME_LENGTH = 22;
const STATES = { leased: "open", drafted: "begun", submitted: "submitted", skipped: "skipped", bad: "bad" };

export class QueueList {
  /** `list`: an <ol>; `choose(task)` is called when a person picks one. */
  constructor(list, choose) {
    this.list = list;
    this.choose = choose;
    this.rows = new Map();
    this.current = null;
    list.addEventListener("keydown", (event) => this.#walk(event));
  }

  /** Show `entries`, those that `person` has begun first; those that stay keep their place on the page and their focus. */
  show(entries, person) {
    const kept = new Map();
    const own = ({ status, person: who }) => who === person && (status === "leased" || status === "drafted");
    const sorted = [...entries.filter(own), ...entries.filter((entry) => !own(entry))];
    const rows = sorted.map((entry) => {
      const row = this.rows.get(entry.task) ?? this.#row(entry);
      this.#fill(row, entry, person);
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

  #fill({ button, name, why, state }, entry, person) {
    const other = entry.person !== null && entry.person !== person;
    const open = entry.status === "leased" || entry.status === "drafted";
    const word = STATES[entry.status] ?? "";
    const who = other && open ? `${entry.person} has it` : word;
    button.dataset.status = entry.status;
    button.dataset.item = entry.item;
    button.dataset.other = String(other && open);
    const rank = entry.rank === null ? "" : `${entry.rank + 1}. `;
    name.textContent = `${rank}${ending(entry.micrograph)}`;
    state.textContent = who && entry.reason ? `${who} · ` : who;
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

// Names of micrographs begin alike and end differently.
function ending(name) {
  return name.length > NAME_LENGTH ? `…${name.slice(1 - NAME_LENGTH)}` : name;
}
