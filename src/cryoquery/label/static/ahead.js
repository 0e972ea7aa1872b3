// What comes next, read and its picture fetched before it is wanted: nothing waits for the network between two
// micrographs, and the page goes on where the connection does not.

const N_AHEAD = 2;

export class Ahead {
  /** `ask(besides)` resolves to the document of the task that comes next; `prepare(task)` fetches its picture. */
  constructor(ask, prepare) {
    Object.assign(this, { ask, prepare });
    this.kept = [];
    this.open = null;
    this.filling = null;
  }

  /** The one that comes next and is here, or null. */
  take() {
    return this.kept.shift() ?? null;
  }

  /** Read what is missing, beside the task `open`. */
  fill(open) {
    this.open = open;
    this.filling ??= this.#fill()
      .catch(() => {}) // it is asked for again when it is needed
      .finally(() => {
        this.filling = null;
      });
    return this.filling;
  }

  async #fill() {
    while (this.kept.length < N_AHEAD) {
      const { kept, open } = this;
      const answer = await this.ask([open, ...kept.map(({ task }) => task)]);
      if (answer.task === null) return;
      if (kept !== this.kept || open !== this.open) continue; // the person has gone on meanwhile
      kept.push(answer);
      await this.prepare(answer); // one after the other: the server has more to do for the open one
    }
  }

  /** Forget all that `may(task)` does not let stay. */
  drop(may = () => false) {
    this.kept = this.kept.filter(({ task }) => may(task));
  }
}
