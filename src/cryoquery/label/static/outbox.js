// Commands on their way to the server: kept in localStorage until it has acknowledged them, sent in order.
// What it refuses for good stays there too, until a person has it as a file and forgets it here.

import { Stranger, Unreachable } from "./api.js";
import { random } from "./session.js";

export { random as newId };

const BATCH = 50;
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 30000;

const KEY = /^cryoquery\/[^/]+\/[^/]+\/\d{15}-/;

const keysOf = (storage) => Array.from({ length: storage.length }, (_, i) => storage.key(i));

/** Commands of anybody that this browser still has. */
export const countKept = () => keysOf(localStorage).filter((key) => KEY.test(key)).length;

/**
 * Events: "state" when `state` or `refused` changed; "answered" {task, answer}; "refused" {task, command, message};
 * "lost" {task, message} when another has the lease, after which commands of that task wait for
 * `resume` or `giveUp`.
 */
export class Outbox extends EventTarget {
  /** `prefix` keeps projects and people apart; `send(task, commands)` resolves to the server's answer. */
  constructor(prefix, send, storage = localStorage) {
    super();
    this.prefix = `${prefix}/`;
    this.send = send;
    this.storage = storage;
    this.counter = 0;
    this.failures = 0;
    this.oneByOne = 0;
    this.blocked = new Set();
    this.running = null;
    this.wake = null;
    const stored = this.#stored();
    this.refused = stored.filter((entry) => entry.refused); // with the server's words
    this.entries = stored.filter((entry) => !entry.refused);
    this.state = { name: this.entries.length ? "saving" : "saved", retryAt: 0 };
    addEventListener("online", () => this.retryNow());
    addEventListener("offline", () => this.entries.length && this.#become("offline"));
  }

  #stored() {
    const own = keysOf(this.storage).filter((key) => key.startsWith(this.prefix)).sort();
    return own.map((key) => ({ key, ...JSON.parse(this.storage.getItem(key)) }));
  }

  /** Keep `command` of `task` and send it as soon as possible. */
  put(task, command) {
    const order = `${Date.now().toString().padStart(15, "0")}-${(this.counter++).toString().padStart(6, "0")}`;
    const id = random();
    const entry = { key: `${this.prefix}${order}-${id.slice(0, 6)}`, task, command: { id, ...command } };
    this.entries.push(entry);
    try {
      this.storage.setItem(entry.key, JSON.stringify({ task, command: entry.command }));
    } catch {
      this.dispatchEvent(new CustomEvent("full"));
    }
    this.dispatchEvent(new CustomEvent("state"));
    this.flush();
    return id;
  }

  pending(task) {
    return task === undefined ? this.entries.length : this.entries.filter((e) => e.task === task).length;
  }

  /** Resolves when nothing is left to send, or nothing that can be sent now. */
  flush() {
    this.running ??= this.#run().finally(() => {
      this.running = null;
    });
    return this.running;
  }

  retryNow() {
    this.failures = 0;
    if (this.wake) this.wake();
    return this.flush();
  }

  /** Send commands of `task` again, after its lease was taken again. */
  resume(task) {
    this.blocked.delete(task);
    return this.flush();
  }

  /** Give up sending commands of `task`, for the reason in `words`. */
  giveUp(task, words) {
    this.blocked.delete(task);
    this.#refuse(this.entries.filter((entry) => entry.task === task), words);
    this.#settle();
  }

  /** Forget what was refused. */
  forgetRefused() {
    for (const entry of this.refused) this.storage.removeItem(entry.key);
    this.refused = [];
    this.dispatchEvent(new CustomEvent("state"));
  }

  #refuse(entries, words) {
    for (const entry of entries) {
      entry.refused = words;
      try {
        this.storage.setItem(entry.key, JSON.stringify({ task: entry.task, command: entry.command, refused: words }));
      } catch {
        // Where the words do not fit it is sent once more when the page is loaded again.
      }
    }
    this.entries = this.entries.filter((entry) => !entry.refused);
    this.refused.push(...entries);
    this.dispatchEvent(new CustomEvent("state"));
  }

  async #run() {
    for (;;) {
      const first = this.entries.find((entry) => !this.blocked.has(entry.task));
      if (!first) break;
      this.#become("saving");
      const batch = this.#batch(first.task);
      try {
        const answer = await this.send(first.task, batch.map((entry) => entry.command));
        this.failures = 0;
        this.oneByOne = Math.max(0, this.oneByOne - 1);
        this.#forget(new Set(answer.acknowledged));
        this.dispatchEvent(new CustomEvent("answered", { detail: { task: first.task, answer } }));
      } catch (error) {
        await this.#recover(error, first.task, batch);
      }
    }
    this.#settle();
  }

  #batch(task) {
    const batch = [];
    for (const entry of this.entries) {
      if (this.blocked.has(entry.task)) continue;
      if (entry.task !== task || batch.length === (this.oneByOne ? 1 : BATCH)) break;
      batch.push(entry);
    }
    return batch;
  }

  /** What to do about `error`: only what the server itself refuses is not sent again. */
  async #recover(error, task, batch) {
    const later = [403, 408, 429].includes(error.status) || error.status >= 500; // 403: it waits for a name
    if (error instanceof Unreachable || later) {
      await this.#pause(error);
      return;
    }
    if (error.status === 409) {
      this.blocked.add(task);
      this.dispatchEvent(new CustomEvent("lost", { detail: { task, message: error.message } }));
      return;
    }
    if (error.status === undefined) throw error;
    if (batch.length > 1) {
      this.oneByOne = batch.length;
    } else {
      this.#refuse(batch, error.message);
      const detail = { task, command: batch[0].command, message: error.message };
      this.dispatchEvent(new CustomEvent("refused", { detail }));
    }
  }

  async #pause(error) {
    const grown = FIRST_WAIT_MS * 2 ** Math.min(this.failures, 10);
    const wait = Math.max(Math.min(grown, LONGEST_WAIT_MS), 1000 * (error.retryAfter ?? 0));
    this.failures += 1;
    const offline = error instanceof Unreachable && navigator.onLine === false;
    const name = offline ? "offline" : error instanceof Stranger ? "signed out" : "retrying";
    this.#become(name, Date.now() + wait);
    await new Promise((resolve) => {
      this.wake = resolve;
      setTimeout(resolve, wait);
    });
    this.wake = null;
  }

  #forget(ids) {
    for (const entry of this.entries) if (ids.has(entry.command.id)) this.storage.removeItem(entry.key);
    this.entries = this.entries.filter((entry) => !ids.has(entry.command.id));
  }

  #settle() {
    if (!this.running || !this.entries.some((entry) => !this.blocked.has(entry.task))) {
      this.#become(this.entries.length ? "blocked" : "saved");
    }
  }

  #become(name, retryAt = 0) {
    this.state = { name, retryAt };
    this.dispatchEvent(new CustomEvent("state"));
  }
}
