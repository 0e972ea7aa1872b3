// Questions to the person. Each resolves to the answer, or to null.

const byId = (id) => document.getElementById(id);

const REASONS = [
  "too thick ice or too much contamination to tell",
  "particles too crowded to label",
  "out of focus or drifted",
  "I am not sure what is a particle here",
];

/** Show `dialog` until it is sent (true) or closed otherwise (false); `check` may keep it open. */
function ask(dialog, check = async () => true) {
  return new Promise((resolve) => {
    const form = dialog.querySelector("form");
    let sent = false;
    const send = async (event) => {
      event.preventDefault();
      if (!(await check())) return;
      sent = true;
      dialog.close();
    };
    const press = (event) => {
      const button = event.target.closest("button[value]");
      if (button) dialog.close(button.value);
    };
    form.addEventListener("submit", send);
    dialog.addEventListener("click", press);
    dialog.addEventListener(
      "close",
      () => {
        form.removeEventListener("submit", send);
        dialog.removeEventListener("click", press);
        byId("overlay").focus({ preventScroll: true });
        resolve(sent);
      },
      { once: true },
    );
    dialog.returnValue = "";
    dialog.showModal();
  });
}

/** Ask for a name until `introduce(name)` takes it; null if an old name is kept. */
export async function askName(current, introduce) {
  const dialog = byId("name-dialog");
  const field = byId("name");
  const error = byId("name-error");
  field.value = current ?? "";
  error.hidden = true;
  let answer = null;
  const check = async () => {
    try {
      answer = await introduce(field.value.trim());
      return true;
    } catch (refused) {
      error.textContent = refused.message;
      error.hidden = false;
      field.focus();
      return false;
    }
  };
  do {
    await ask(dialog, check);
  } while (answer === null && !current);
  return answer;
}

/** Why it is skipped, or null; `bad`: it is never to be asked for again. */
export async function askReason(bad) {
  byId("skip-title").textContent = bad ? "Bad micrograph, because …" : "Skip, because …";
  byId("skip-note").textContent = bad
    ? "It is never asked for again, and its labels do not count."
    : "Its labels do not count. Somebody else may still be asked for it; you will not.";
  byId("skip-ok").textContent = bad ? "Mark as bad" : "Skip";
  byId("reason").value = "";
  byId("skip-error").hidden = true;
  byId("reasons").replaceChildren(...REASONS.map(choice));
  const given = () => byId("reason").value.trim() || byId("reasons").querySelector("input:checked")?.value;
  const check = async () => {
    byId("skip-error").hidden = Boolean(given());
    return Boolean(given());
  };
  const answered = ask(byId("skip-dialog"), check);
  byId("reasons").querySelector("input").focus();
  return (await answered) ? given() : null;
}

function choice(words) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { type: "radio", name: "why", value: words });
  label.append(input, words);
  return label;
}

/** Whether to submit, given what it means in `sentences`. */
export async function askSubmit(title, sentences) {
  byId("submit-title").textContent = title;
  byId("summary").replaceChildren(
    ...sentences.map((sentence) => {
      const item = document.createElement("li");
      item.textContent = sentence;
      return item;
    }),
  );
  const answered = ask(byId("submit-dialog"));
  byId("submit-ok").focus();
  return answered;
}

/** "next" or "again": the lease of a task with `unsaved` commands was lost, as `message` says. */
export async function askLost(message, unsaved) {
  const lost = unsaved === 1 ? "1 change of yours was" : `${unsaved} changes of yours were`;
  byId("lost-text").textContent = `${message}. ${lost} not saved and cannot be added to the other person's work.`;
  const next = await ask(byId("lost-dialog"));
  return next ? "next" : "again";
}

export function showHelp() {
  return ask(byId("help"));
}
