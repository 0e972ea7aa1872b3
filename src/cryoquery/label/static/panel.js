// The tools beside the micrograph: what is marked, what is suggested, how the picture is shown.

import { inWords } from "./doubts.js";
import { drawHistogram, leftOf } from "./histogram.js";

const byId = (id) => document.getElementById(id);
const write = (id, text) => {
  byId(id).textContent = text;
};
const press = (id, on) => byId(id).setAttribute("aria-pressed", String(on));

const percent = (value) => `${value} %`;
const SLIDERS = { contrast: percent, brightness: percent, gamma: (value) => value.toFixed(2), size: percent };

/** Connect buttons and sliders to `actions`. */
export function connect(actions) {
  const click = (id, name, ...rest) => byId(id).addEventListener("click", () => actions[name](...rest));
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.addEventListener("click", () => actions.tool(button.dataset.tool));
  }
  for (const button of document.querySelectorAll("[data-loop]")) {
    button.addEventListener("click", () => actions.loop(button.dataset.loop));
  }
  for (const name of ["undo", "redo", "empty", "skip", "bad", "submit", "invert", "hide"]) click(name, name);
  click("accept-all", "acceptAll");
  click("next-suggestion", "suggestion", undefined, "j");
  click("gallery-button", "gallery");
  click("overview-button", "overview");
  click("next-doubt", "doubt", undefined, "u");
  click("help-button", "help");
  byId("threshold").addEventListener("input", (event) => actions.setThreshold(Number(event.target.value)));
  for (const name of Object.keys(SLIDERS)) {
    byId(name).addEventListener("input", (event) => actions.setLook(name, Number(event.target.value)));
  }
  click("auto", "resetLook");
  click("theme", "theme");
  click("heat", "heat");
  byId("mark").addEventListener("change", (event) => actions.setLook("mark", event.target.value));
  byId("lowpass").addEventListener("change", (event) => actions.setLook("lowpass", Number(event.target.value)));
  // After the mouse, keys belong to the micrograph again.
  const back = (event) => {
    if (event.target.closest("#tool-panel, #header, #stage") && !document.querySelector("dialog[open]")) {
      byId("overlay").focus({ preventScroll: true });
    }
  };
  addEventListener("click", (event) => event.detail > 0 && event.target.closest("button") && back(event));
  addEventListener("change", (event) => event.target.closest("select, input[type=range]") && back(event));
}

let announcement = 0;

// For those who do not see the counts: a moment after the last change.
function announce(text) {
  clearTimeout(announcement);
  announcement = setTimeout(() => write("live", text), 700);
}

const many = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;

/** Show how `labeling` stands. */
export function showLabeling(labeling, tool) {
  const open = labeling.task !== null;
  const { editable } = labeling;
  const document_ = labeling.document;
  for (const button of document.querySelectorAll("[data-tool]")) {
    button.classList.toggle("on", button.dataset.tool === tool);
    button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    button.disabled = !editable;
  }
  byId("undo").disabled = !editable || document_.cursor === 0;
  byId("redo").disabled = !editable || document_.cursor === document_.nOps;
  for (const id of ["empty", "skip", "bad", "submit"]) byId(id).disabled = !editable;
  if (!open) return;
  const { particles, regions } = labeling;
  const accepted = particles.filter((particle) => particle.origin === "suggestion").length;
  write("n-particles", particles.length);
  write("particles-word", particles.length === 1 ? "particle" : "particles");
  announce(`${many(particles.length, "particle")}, ${many(labeling.undecided.length, "suggestion")} undecided`);
  write("n-origin", accepted ? `${accepted} accepted` : "");
  write("n-ignore", regions.filter((region) => region.kind === "ignore").length);
  write("n-done", regions.filter((region) => region.kind === "done").length);
  press("empty", document_.empty);
  showSuggestions(labeling);
  const size = [`⌀ ${Math.round(labeling.diameter)} px`];
  const { pixel_size: pixel, height, width } = labeling.task;
  if (pixel) size.unshift(`⌀ ${Math.round(labeling.diameter * pixel)} Å`);
  write("facts", `${size.join(" = ")} · ${width} × ${height} px`.replace("= ⌀ ", "= "));
}

function suggestedBy(model) {
  if (model === "picks_0") return "the model that training starts from";
  return model.startsWith("picks_") ? "picks of another program" : "the newest model";
}

function showSuggestions(labeling) {
  const any = labeling.suggestions.length > 0;
  byId("suggestion-section").hidden = !any;
  byId("unsuggested").hidden = any || !labeling.task.model;
  if (!any) return;
  const { undecided, rejected, threshold, editable } = labeling;
  write("suggestion-title", `Suggested by ${suggestedBy(labeling.task.model)}`);
  write("n-suggestions", undecided.length);
  write("n-rejected", rejected.length ? `${rejected.length} rejected` : "");
  byId("threshold").value = threshold;
  write("threshold-value", threshold.toFixed(2));
  byId("threshold").setAttribute("aria-valuetext", `${threshold.toFixed(2)}, ${undecided.length} undecided`);
  drawHistogram(byId("histogram"), labeling.suggestions.map((suggestion) => suggestion.score), threshold);
  const { counts, n_items: nItems } = labeling.task.all_scores;
  write("n-here", labeling.suggestions.filter(({ score }) => score >= threshold).length.toLocaleString("en"));
  write("n-everywhere", nItems > 1 ? `, ${leftOf(counts, threshold).toLocaleString("en")} in all ${nItems}` : "");
  write("doubts", inWords(labeling.doubts));
  byId("doubts-row").hidden = !labeling.doubts.length;
  byId("accept-all").disabled = !editable || !undecided.length;
  byId("next-suggestion").disabled = !undecided.length;
}

/** Show how the picture is shown; `offered`: low-passes of this task, `lowpass`: the one in use. */
export function showLook(look, offered, lowpass, angstrom) {
  for (const [name, words] of Object.entries(SLIDERS)) {
    byId(name).value = look[name];
    write(`${name}-value`, words(look[name]));
  }
  press("heat", look.heat);
  document.documentElement.dataset.theme = look.theme;
  write("theme", look.theme === "dark" ? "Light" : "Dark");
  press("invert", look.invert);
  press("hide", look.hidden);
  byId("mark").value = look.mark;
  document.body.classList.toggle("wide", look.wide);
  const values = offered.includes(0) ? offered : [0, ...offered];
  const unit = angstrom ? "Å" : "px";
  byId("lowpass").replaceChildren(
    ...values.map((value) => {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = value ? `${value} ${unit}` : "off";
      option.selected = value === lowpass;
      return option;
    }),
  );
}

/** Show what the lasso holds; null hides it. */
export function showLoop(loop) {
  byId("loop").hidden = !loop;
  if (!loop) return;
  const [n, m] = [loop.particles.length, loop.suggestions.length];
  const [one, other] = [n === 1 ? "particle" : "particles", m === 1 ? "suggestion" : "suggestions"];
  write("loop-text", `${n} ${one}, ${m} ${other}`);
  byId("loop").querySelector("[data-loop=delete]").disabled = !n;
  for (const what of ["accept", "reject"]) byId("loop").querySelector(`[data-loop=${what}]`).disabled = !m;
}

const SAVE = {
  saved: () => "saved",
  saving: (n) => (n > 1 ? `saving ${n}` : "saving"),
  offline: (n) => `offline, ${n} kept here`,
  retrying: (n, seconds) => `${n} kept here, trying again in ${seconds} s`,
  blocked: (n) => `${n} not saved`,
  refused: () => "not all is saved",
  "signed out": (n) => `signed out, ${n} kept here: do not reload, open the link that cryoquery label shows`,
};

/** Show whether everything is saved. */
export function showSaving({ name, retryAt }, pending, refused) {
  if (name === "saved" && refused) name = "refused";
  byId("refused").hidden = !refused;
  if (!refused) byId("forget").hidden = true;
  write("refused", `Download ${refused} refused`);
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  const text = SAVE[name](pending, seconds);
  byId("save").dataset.state = name;
  byId("retry").hidden = name !== "offline" && name !== "retrying";
  if (byId("save-text").textContent !== text) write("save-text", text);
}

/** Show a sentence for some seconds. */
export function say(text, kind = "") {
  const toasts = byId("toasts");
  const last = toasts.lastElementChild;
  if (last?.textContent === text || (kind && last?.className === kind && kind !== "warn")) last.remove();
  const toast = document.createElement("p");
  toast.textContent = text;
  toast.className = kind;
  toasts.append(toast);
  while (toasts.children.length > 3) toasts.firstElementChild.remove();
  setTimeout(() => toast.remove(), 2500 + 45 * text.length);
}
