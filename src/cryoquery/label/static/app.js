// The page: puts its parts together and starts.

import * as api from "./api.js";
import { Activity } from "./activity.js";
import { makeActions } from "./actions.js";
import { askName } from "./dialogs.js";
import { Flow, rememberedTask } from "./flow.js";
import { describe, listen } from "./keys.js";
import { Gallery } from "./gallery.js";
import { Labeling } from "./labeling.js";
import { storedLook } from "./look.js";
import { countKept, Outbox } from "./outbox.js";
import { connect, say, showLabeling, showLook, showLoop, showSaving } from "./panel.js";
import { QueueList } from "./queue.js";
import { KEPT } from "./session.js";
import { Stage } from "./stage.js";
import { Tools } from "./tools.js";

const POLL_MS = 10000;
const LEARNING_POLL_MS = 2000; // where new models come by themselves
const byId = (id) => document.getElementById(id);

async function signIn() {
  let session = await api.open();
  if (!session.person) session = await askName(null, api.introduce);
  byId("person").textContent = session.person;
  byId("project").textContent = session.project;
  document.title = `${session.project} – cryoquery`;
  byId("person").addEventListener("click", async () => {
    const renamed = await askName(session.person, api.introduce);
    // Another person has other leases and another outbox: begin anew.
    if (renamed && renamed.person !== session.person) location.reload();
  });
  return session;
}

/** Go on after another window of this browser has logged in. */
async function signInAgain(session, outbox) {
  try {
    const answer = await api.open({ person: session.person, project: session.id });
    if (answer.person === session.person && answer.id === session.id) outbox.retryNow();
  } catch (error) {
    say(`${error.message}.`, "warn");
  }
}

/** Give the person what was refused as a file. */
function download(refused) {
  const link = document.createElement("a");
  const content = JSON.stringify(refused.map(({ key, ...rest }) => rest), null, 1);
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  link.download = "cryoquery_refused.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

/** What the server says of the project, asked for now and then. */
class News {
  constructor(list, flow, person) {
    Object.assign(this, { list, flow, person, queue: null, asked: 0 });
  }

  /** Ask again when it is time; called every second. */
  tick() {
    if (this.queue) this.#showStep(this.queue);
    if (!document.hidden && Date.now() - this.asked >= (this.queue?.learns ? LEARNING_POLL_MS : POLL_MS)) this.poll();
  }

  async poll() {
    this.asked = Date.now();
    try {
      const queue = await api.queue();
      const arrived = this.queue !== null && queue.step !== this.queue.step;
      this.queue = queue;
      this.#show(queue);
      this.flow.check(queue.entries);
      const refreshed = arrived ? this.#arrived() : false;
      if (arrived || !this.status) this.#showStatus(await api.status());
      if (arrived) this.#tell(queue, await refreshed);
    } catch (error) {
      if (!(error instanceof api.Refused) && !(error instanceof api.Unreachable)) throw error;
    }
  }

  #show(queue) {
    this.list.show(queue.entries, this.person);
    const open = queue.entries.filter(({ status }) => ["waiting", "leased", "drafted"].includes(status)).length;
    byId("queue-count").textContent = `${open} open, ${queue.n_submitted} submitted`;
    byId("sentence").textContent = queue.sentence ?? "";
    byId("f1").hidden = /^F1 of picks/.test(queue.sentence ?? "");
    byId("progress").title = queue.sentence ?? "";
    this.#showStep(queue);
  }

  #showStep({ stepping, learns, now }) {
    const note = byId("queue-note");
    note.hidden = !stepping;
    if (!stepping) return;
    const seconds = Math.max(0, Math.round(now - stepping.since + (Date.now() - this.asked) / 1000));
    note.textContent = `${learns ? "learning" : "training step"}: ${stepping.message} … ${seconds} s`;
  }

  // Whether the open task has the new model's suggestions: nothing was done in it yet.
  #arrived() {
    this.flow.forgetAhead();
    if (this.flow.labeling.task !== null) return this.flow.refresh();
    this.flow.next();
    return true;
  }

  #tell(queue, refreshed) {
    const next = refreshed ? "" : " They count from the next one on.";
    say(`A new model (step ${queue.step}) and a new list have arrived.${next} ${learned(this.status)}`.trim());
  }

  #showStatus(status) {
    this.status = status;
    byId("f1").textContent = f1(status.steps.at(-1));
  }
}

/** What the last step made of the labels, and what it changed; empty where it does not say. */
function learned({ steps, unit }) {
  const [before, now] = [steps.at(-2), steps.at(-1)];
  if (!now || typeof now.n_labeled_items !== "number") return "";
  const was = typeof now.particle_f1 === "number" && typeof before?.particle_f1 === "number" ? `, ${before.particle_f1.toFixed(2)} before` : "";
  return `Learned from ${now.n_labeled_items} ${unit}s in ${Math.round(now.seconds)} s; ${f1(now)}${was}.`;
}

/** What `step` measured, with its 95 % interval; undefined: there is no step yet. */
function f1(step) {
  if (!step) return "F1 of picks: not known before the first step";
  const { particle_f1: value, particle_f1_low: low, particle_f1_high: high } = step;
  if (typeof value !== "number") return "F1 of picks: not known yet";
  if (typeof low !== "number") return "F1 of picks: too early to say";
  return `F1 of picks ${value.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
}

function describeTask(labeling, flow, queue) {
  const { task } = labeling;
  byId("nothing").hidden = task !== null;
  byId("nothing").textContent = flow.nothing;
  byId("title").hidden = byId("facts").hidden = task === null;
  byId("banner").hidden = !labeling.closed;
  if (!task) return;
  byId("title").textContent = task.reason ? `${task.micrograph} – ${task.reason}` : task.micrograph;
  if (labeling.closed) {
    const states = { submitted: "This is submitted.", skipped: "This was skipped.", bad: "This is a bad micrograph." };
    byId("banner-text").textContent = states[task.status];
    byId("banner-action").textContent = task.status === "submitted" ? "Reopen to correct" : "Label it after all";
  }
  queue.mark(task.task);
}

async function start() {
  const session = await signIn();
  const look = storedLook();
  const activity = new Activity();
  const outbox = new Outbox(`cryoquery/${session.id}/${encodeURIComponent(session.person)}`, api.sendCommands);
  const labeling = new Labeling(outbox, activity);
  const stage = new Stage(labeling, look, {
    failed: (message) => say(`The picture does not come (${message}); trying again.`, "warn"),
    arrived: () => flow.lookAhead(),
    noHeat: () => say("There is no heat map here: this one is shown without suggestions, or its step left none."),
  });
  const list = new QueueList(byId("queue"), (task) => flow.open(task));
  const shown = () => {
    showLabeling(labeling, tools.tool);
    showLoop(tools.loop);
    const offered = labeling.task?.lowpass ?? [];
    showLook(look, offered, labeling.task ? stage.lowpass() : 0, Boolean(labeling.task?.pixel_size));
  };
  const tools = new Tools(byId("overlay"), stage.view, labeling, {
    ready: () => stage.picture.ready,
    changed: () => stage.redraw(),
    moved: () => stage.redraw(true),
    looped: shown,
  });
  stage.tools = tools;
  let name = null;
  const opened = () => {
    if (labeling.name !== name) {
      name = labeling.name;
      tools.reset();
      tools.choose("pick");
      if (name === null) stage.close();
      else stage.open();
      list.reveal(name);
    }
    describeTask(labeling, flow, list);
    shown();
    news.poll();
  };
  const flow = new Flow({ labeling, outbox, project: session.id, person: session.person, opened, say, prepare: (task) => stage.prepare(task) });
  const news = new News(list, flow, session.person);
  const gallery = new Gallery(labeling, () => stage.lowpass(), (place) => actions.go(place));
  const actions = makeActions({ gallery, labeling, stage, tools, look, flow, list, shown, say });
  connect(actions);
  listen(actions, (held) => tools.setSpace(held));
  describe(byId("help-keys"));

  labeling.addEventListener("changed", () => {
    if (tools.loop) Object.assign(tools.loop, labeling.task ? labeling.within(tools.loop.polygon) : {});
    describeTask(labeling, flow, list);
    shown();
    stage.redraw();
  });
  labeling.addEventListener("say", (event) => say(event.detail.text, event.detail.kind));
  const saving = () => showSaving(outbox.state, outbox.pending(), outbox.refused.length);
  outbox.addEventListener("state", saving);
  outbox.addEventListener("full", () => say("This browser's storage is full: do not reload before all is saved.", "warn"));
  setInterval(saving, 1000);
  byId("retry").addEventListener("click", () => outbox.retryNow());
  byId("refused").addEventListener("click", () => {
    download(outbox.refused);
    byId("forget").hidden = false;
  });
  byId("forget").addEventListener("click", () => outbox.forgetRefused());
  addEventListener("storage", (event) => event.key === KEPT && signInAgain(session, outbox));
  byId("banner-action").addEventListener("click", () => flow.reopen());
  setInterval(() => news.tick(), 1000);
  addEventListener("focus", () => news.poll());
  window.cryoquery = { labeling, stage, tools, outbox, flow, api };

  const wanted = rememberedTask(session.id);
  if (wanted) await flow.open(wanted);
  if (labeling.task === null) await flow.next();
}

start().catch((error) => {
  const kept = error instanceof api.Stranger ? countKept() : 0;
  const unsent = kept ? ` What was not saved yet (${kept}) is kept in this browser.` : "";
  byId("nothing").hidden = false;
  byId("nothing").textContent = `${error.message}.${unsent || " Reload the page to try again."}`;
});
