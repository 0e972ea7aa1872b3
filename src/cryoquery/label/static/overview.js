// How far labeling has come: the learning curve, what it took, what more would bring, and who does what.

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [520, 236, 46, 14, 12, 42];

/** Show `status`, the server's answer to /api/status, and from `entries` of the queue who is at what. */
export function showOverview(status, entries) {
  const measured = status.steps.filter((step) => typeof step.particle_f1 === "number" && typeof step.n_labeled_items === "number");
  byId("curve").replaceChildren(...(measured.length ? [curve(measured)] : []));
  byId("curve-note").textContent = measured.length
    ? `F1 of picks, with its 95 % interval, by the number of ${status.unit}s trained on.`
    : "The learning curve begins when something is labeled that was drawn at random to measure F1.";
  const left = entries.filter(({ status: state }) => ["waiting", "leased", "drafted"].includes(state)).length;
  const minutes = 60 * status.hours;
  const facts = [
    [`${status.n_labeled} of ${status.n_items}`, `${status.unit}s labeled`],
    [status.n_particles.toLocaleString("en"), "particles"],
    [status.n_labeled ? (minutes / status.n_labeled).toFixed(1) : "–", `minutes per ${status.unit}`],
    [minutes < 90 ? `${minutes.toFixed(0)} min` : `${status.hours.toFixed(1)} h`, "of labeling, all people"],
    [String(left), "left in this list"],
  ];
  byId("facts-list").replaceChildren(...facts.map(fact));
  byId("outlook").textContent = status.sentence ? `${status.sentence}.` : "";
  const at = new Map(entries.filter((entry) => entry.status === "leased").map((entry) => [entry.person, entry.micrograph]));
  byId("people").replaceChildren(...status.people.map((one) => person(one, at.get(one.person))));
  byId("people-table").hidden = status.people.length === 0;
  byId("overview").showModal();
}

function fact([value, words]) {
  const pair = document.createElement("div");
  pair.append(element("dt", value, "number"), element("dd", words));
  return pair;
}

function person(one, at) {
  const same = one.consistency;
  const cells = [
    one.person,
    one.n_items,
    one.n_particles,
    one.seconds_per_item === null ? "–" : (one.seconds_per_item / 60).toFixed(1),
    one.seconds_per_particle === null ? "–" : one.seconds_per_particle.toFixed(1),
    !same || same.value === null ? "–" : same.low === null ? `${same.value.toFixed(2)} of ${same.n}` : `${same.value.toFixed(2)} (${same.low.toFixed(2)} to ${same.high.toFixed(2)})`,
    at ?? "",
  ];
  const row = document.createElement("tr");
  row.append(...cells.map((text, i) => {
    const cell = element(i ? "td" : "th", String(text), i ? "number" : "");
    if (!i) cell.scope = "row";
    return cell;
  }));
  return row;
}

function element(name, text, kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function curve(steps) {
  const labeled = steps.map((step) => step.n_labeled_items);
  const lowest = Math.min(...steps.map((step) => step.particle_f1_low ?? step.particle_f1));
  const highest = Math.max(...steps.map((step) => step.particle_f1_high ?? step.particle_f1));
  const from = Math.max(0, Math.floor(10 * lowest - 0.5) / 10);
  const to = Math.min(1, Math.ceil(10 * highest + 0.5) / 10);
  const most = Math.max(...labeled, 1);
  const x = (n) => LEFT + (n / most) * (WIDTH - LEFT - RIGHT);
  const y = (f1) => TOP + ((to - f1) / (to - from)) * (HEIGHT - TOP - BOTTOM);
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const last = steps.at(-1);
  svg.setAttribute("aria-label", `Learning curve: F1 ${last.particle_f1.toFixed(2)} with ${last.n_labeled_items} labeled`);
  for (let f1 = from; f1 <= to + 1e-9; f1 += 0.1) {
    svg.append(shape("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(f1), y2: y(f1), class: "grid" }));
    svg.append(label(f1.toFixed(1), LEFT - 8, y(f1) + 4, "end"));
  }
  for (const n of new Set(labeled)) svg.append(label(String(n), x(n), HEIGHT - BOTTOM + 18, "middle"));
  svg.append(label("labeled to train on", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, "middle"));
  const points = steps.map((step) => `${x(step.n_labeled_items)},${y(step.particle_f1)}`);
  svg.append(shape("polyline", { points: points.join(" "), class: "line" }));
  for (const step of steps) {
    const at = x(step.n_labeled_items);
    if (typeof step.particle_f1_low === "number") {
      svg.append(shape("line", { x1: at, x2: at, y1: y(step.particle_f1_low), y2: y(step.particle_f1_high), class: "line" }));
    }
    svg.append(shape("circle", { cx: at, cy: y(step.particle_f1), r: 4, class: "point" }));
  }
  return svg;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function label(text, x, y, anchor) {
  const made = shape("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  return made;
}
