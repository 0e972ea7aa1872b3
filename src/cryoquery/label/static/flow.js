// From one task to the next: leases, submissions, and what is lost and found on the way.

import * as api from "./api.js";
import { Ahead } from "./ahead.js";
import { askLost, askReason, askSubmit } from "./dialogs.js";

const RENEW_MS = 60000;
const WAIT_MS = 2000;
const RETRY_MS = 5000;
const opened = (project) => `cryoquery/${project}/open`; // not in the address: it would tell a blind repeat

/** The task of `project` that was open in this tab before it was loaded again, or null. */
export const rememberedTask = (project) => sessionStorage.getItem(opened(project));

/**
 * `opened()` after another task was opened or none; `say(text, kind)` tells the person; `prepare(task)` fetches the
 * picture of a task that is opened later.
 */
export class Flow {
  constructor({ labeling, outbox, project, person, opened, say, prepare }) {
    Object.assign(this, { labeling, outbox, project, person, opened, say });
    this.nothing = "";
    this.ahead = new Ahead(api.ahead, prepare);
    this.turn = 0; // of the last wish to open something; older ones no longer count
    this.renewed = Date.now();
    labeling.addEventListener("stale", () => this.reload());
    outbox.addEventListener("answered", (event) => this.#answered(event.detail));
    outbox.addEventListener("refused", (event) => this.#refused(event.detail));
    outbox.addEventListener("lost", (event) => this.#lost(event.detail));
    setInterval(() => this.#renew(), RENEW_MS / 4);
  }

  /** Take the next task, waiting for the server if need be. */
  async next() {
    const turn = ++this.turn;
    this.#leave();
    const kept = this.ahead.take();
    if (kept) {
      this.#show({ ...kept, mine: true, status: kept.status === "drafted" ? "drafted" : "leased" });
      this.#confirm(turn, kept.task);
      return;
    }
    this.nothing = "Looking for the next one …";
    this.opened();
    for (;;) {
      try {
        await this.#sent();
        const answer = await api.lease();
        if (turn !== this.turn) return;
        if (answer.task === null) this.#none();
        else this.#show(answer);
        return;
      } catch (error) {
        if (turn !== this.turn) return;
        if (error instanceof api.Refused && error.status !== 429 && error.status < 500) {
          this.nothing = `${error.message}.`;
          this.opened();
          return;
        }
        this.nothing = "The server does not answer. What you did is kept here; trying again …";
        this.opened();
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
        if (turn !== this.turn) return;
      }
    }
  }

  // What was shown at once is now taken; another person may have been faster.
  async #confirm(turn, task) {
    try {
      await this.#sent();
      const answer = await api.lease(task);
      if (turn !== this.turn) return;
      if (this.labeling.untouched) this.labeling.show(answer);
    } catch (error) {
      if (turn !== this.turn || !(error instanceof api.Refused) || !this.labeling.untouched) return;
      this.say(`${error.message}.`, "warn");
      this.labeling.close();
      this.next();
    }
  }

  /** Read what comes next, so that it is here when it is wanted. */
  lookAhead() {
    if (this.labeling.task) this.ahead.fill(this.labeling.name);
  }

  forgetAhead() {
    this.ahead.drop();
    this.lookAhead();
  }

  /** Look at the `entries` of the queue: what others have taken, and what this person did in another window. */
  check(entries) {
    const rows = new Map(entries.map((entry) => [entry.task, entry]));
    this.ahead.drop((task) => {
      const row = rows.get(task);
      return !row || row.status === "waiting" || row.person === this.person;
    });
    const { labeling } = this;
    const row = rows.get(labeling.name);
    const mine = row?.person === this.person && !this.outbox.pending(labeling.name);
    if (mine && row.touched > (labeling.task.touched ?? 0)) this.reload();
  }

  /** Open `task`: to label if it can be, else to look at. */
  async open(task) {
    if (task === this.labeling.name) return;
    const turn = ++this.turn;
    try {
      await this.#sent();
      const seen = await api.document(task);
      const closed = ["submitted", "skipped", "bad"].includes(seen.status);
      const answer = closed ? seen : await api.lease(task);
      if (turn !== this.turn) return;
      this.#leave();
      this.#show(answer);
    } catch (error) {
      this.say(`${error.message}.`, "warn");
    }
  }

  /** Show the newest model's suggestions in the open task if nothing was done in it yet; whether they are shown. */
  async refresh() {
    const { labeling, turn } = this;
    const task = labeling.name;
    if (!labeling.untouched) return false;
    try {
      await this.#sent();
      const answer = await api.lease(task);
      if (turn !== this.turn || labeling.name !== task || !labeling.untouched) return false;
      labeling.show(answer);
      return true;
    } catch {
      return false; // those that are shown will do
    }
  }

  /** Read the open task from the server again, after everything before is sent. */
  async reload() {
    const task = this.labeling.name;
    const turn = this.turn;
    try {
      await this.#sent();
      const answer = await api.document(task);
      const current = turn === this.turn && this.labeling.name === task && !this.outbox.pending(task);
      if (current) this.labeling.show(answer);
    } catch (error) {
      this.say(`${error.message}.`, "warn");
    }
  }

  // Resolves when the outbox is empty, or after a while: who waits for the server asks it anyway.
  #sent() {
    const late = new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    return Promise.race([this.outbox.flush(), late]).then(() => {
      if (this.outbox.pending() && this.outbox.state.name !== "blocked") throw new api.Unreachable("not everything is saved yet");
    });
  }

  #show(answer) {
    this.nothing = "";
    this.renewed = Date.now();
    this.ahead.drop((task) => task !== answer.task);
    this.labeling.show(answer);
    sessionStorage.setItem(opened(this.project), answer.task);
    this.opened();
  }

  #leave() {
    if (this.labeling.untouched) this.labeling.record("released");
    if (this.labeling.task) this.labeling.close();
  }

  #none() {
    this.nothing =
      "Nothing is left to label for now. When the next training step is done, new micrographs appear here by themselves.";
    sessionStorage.removeItem(opened(this.project));
    this.opened();
  }

  async submit() {
    const { labeling } = this;
    if (!labeling.editable) return;
    if (labeling.incomplete) {
      this.say(labeling.incomplete, "warn");
      return;
    }
    const task = labeling.name;
    if (!(await askSubmit(`Submit ${labeling.task.micrograph}`, labeling.summary()))) return;
    if (labeling.name !== task || !labeling.editable) return;
    labeling.record("submitted");
    labeling.task.status = "submitted";
    await this.next();
  }

  async skip(bad) {
    const { labeling } = this;
    if (!labeling.editable) return;
    const task = labeling.name;
    const reason = await askReason(bad);
    if (reason === null || labeling.name !== task) return;
    labeling.record("skipped", { reason, bad });
    labeling.task.status = bad ? "bad" : "skipped";
    await this.next();
  }

  /** Edit a submitted or skipped task again. */
  async reopen() {
    if (!this.labeling.closed) return;
    this.labeling.record("reopened");
    await this.reload();
    this.opened();
  }

  #renew() {
    const { labeling } = this;
    if (!labeling.editable || !labeling.activity.active || Date.now() - this.renewed < RENEW_MS) return;
    this.renewed = Date.now();
    labeling.record("renewed");
  }

  #answered({ task, answer }) {
    const { labeling } = this;
    if (task !== labeling.name || this.outbox.pending(task)) return;
    this.renewed = Date.now();
    labeling.task.lease_until = answer.lease_until;
    labeling.task.touched = answer.touched;
    const same = answer.cursor === labeling.document.cursor && answer.n_ops === labeling.document.nOps;
    // Another window of the same person has changed it too.
    if (!same || (labeling.editable && answer.status !== labeling.task.status)) this.reload();
  }

  #refused({ task, command, message }) {
    const where = task === this.labeling.name ? "" : " (another micrograph)";
    this.say(`Not taken${where}: ${message}.`, "warn");
    if (task === this.labeling.name) this.reload();
    else if (command.kind === "submitted") this.open(task);
  }

  async #lost({ task, message }) {
    for (;;) {
      try {
        const answer = await api.lease(task);
        await this.outbox.resume(task);
        if (task === this.labeling.name && answer.mine) await this.reload();
        return;
      } catch (error) {
        const words = error instanceof api.Refused ? error.message : message;
        if ((await askLost(words, this.outbox.pending(task))) === "next") break;
      }
    }
    this.outbox.giveUp(task, "another person has the micrograph");
    if (task !== this.labeling.name) return;
    this.labeling.close();
    await this.next();
  }
}
