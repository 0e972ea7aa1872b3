// The keyboard: one table, for what the keys do and for the help that says so.

const GROUPS = ["Marking", "Keyboard cursor", "Suggestions", "Regions and loops", "Picture", "This micrograph"];

/**
 * Rows [group, keys, shown, words, action]. An action is the name of one of the app's actions,
 * or a name with an argument.
 */
const TABLE = [
  [0, ["p"], "P", "pick: click adds, accepts or selects", ["tool", "pick"]],
  [0, ["e"], "E", "erase: click or brush over what is to go; Shift: accept what is under the brush", ["tool", "erase"]],
  [0, ["l"], "L", "lasso: draw around many", ["tool", "lasso"]],
  [0, ["ctrl+z"], "Ctrl Z", "undo", ["undo"]],
  [0, ["ctrl+shift+z", "ctrl+y"], "Ctrl Y", "redo; also Ctrl Shift Z", ["redo"]],
  [0, ["n"], "N", "no particles here", ["empty"]],
  [1, ["arrowup", "arrowdown", "arrowleft", "arrowright"], "Arrows", "move the cursor", ["cursor", 12]],
  [1, ["shift+arrowup", "shift+arrowdown", "shift+arrowleft", "shift+arrowright"], "Shift Arrows", "… by one pixel of the screen", ["cursor", 1]],
  [1, ["enter"], "Enter", "add a particle or accept a suggestion; set down; set a corner", ["enter"]],
  [1, ["m"], "M", "take up the nearest to move it with the arrows, and set it down", ["carry"]],
  [1, ["delete", "backspace"], "Del", "remove the nearest; the last corner; what is in the loop", ["delete"]],
  [2, ["a"], "A", "accept all above the slider", ["acceptAll"]],
  [2, ["j", "k"], "J, K", "go to the next, to the one before", ["suggestion"]],
  [2, ["r"], "R", "reject; like Enter it goes on to the next", ["reject"]],
  [2, ["u", "shift+u"], "U, Shift U", "go to the next doubtful spot, to the one before", ["doubt"]],
  [2, ["[", "]"], "[, ]", "lower, raise the score", ["threshold"]],
  [3, ["i"], "I", "outline a region to ignore (carbon, ice)", ["region", "ignore"]],
  [3, ["d"], "D", "outline a region that is done", ["region", "done"]],
  [3, ["c"], "C", "close the outline", ["close"]],
  [3, ["escape"], "Esc", "give up the outline or the loop", ["cancel"]],
  [4, ["+", "=", "-"], "+, −", "zoom", ["zoom"]],
  [4, ["0", "1"], "0, 1", "whole, actual size", ["size"]],
  [4, ["ctrl+arrowup", "ctrl+arrowdown", "ctrl+arrowleft", "ctrl+arrowright"], "Ctrl Arrows", "pan", ["pan"]],
  [4, ["f", "shift+f"], "F, Shift F", "next low-pass, the one before", ["lowpass"]],
  [4, ["v"], "V", "invert", ["invert"]],
  [4, [",", "."], ",  .", "less, more contrast", ["contrast"]],
  [4, ["<", ">"], "<  >", "darker, brighter", ["brightness"]],
  [4, ["b"], "B", "circle, box, point", ["mark"]],
  [4, ["{", "}"], "{  }", "smaller, larger marks", ["marks"]],
  [4, ["h"], "H", "hide the marks", ["hide"]],
  [4, ["o"], "O", "lay the model's probability over the picture", ["heat"]],
  [4, ["t"], "T", "light or dark page", ["theme"]],
  [4, ["w"], "W", "more room: hide the list", ["wide"]],
  [5, ["ctrl+enter"], "Ctrl Enter", "submit", ["submit"]],
  [5, ["s"], "S", "skip, because …", ["skip"]],
  [5, ["x"], "X", "bad micrograph", ["bad"]],
  [5, ["g"], "G", "all marks and suggestions as small pictures", ["gallery"]],
  [5, ["y"], "Y", "progress: the learning curve, and who does what", ["overview"]],
  [5, ["q"], "Q", "go to the list (arrows, Enter)", ["queue"]],
  [5, ["?"], "?", "this help", ["help"]],
];

const MOUSE = [
  ["Click", "add, or accept a suggestion; Shift: add even close to another"],
  ["Drag", "pan; with Ctrl, or after a click on a particle: move it"],
  ["Right click", "delete, reject; also Alt and click"],
  ["Wheel", "zoom about the mouse; two fingers pan, and zoom when they spread"],
  ["Other buttons", "drag: pan; so does Space with the left one"],
  ["Outline", "drag freely, or click corners and double-click"],
];

const BY_KEY = new Map(TABLE.flatMap((row) => row[1].map((key) => [key, row[4]])));

/** `event`'s keys as written in the table. */
export function spell(event) {
  const key = event.key.toLowerCase();
  const control = event.ctrlKey || event.metaKey;
  const shift = event.shiftKey && (key.length > 1 || /[a-z]/.test(key));
  return `${control ? "ctrl+" : ""}${event.altKey ? "alt+" : ""}${shift ? "shift+" : ""}${key}`;
}

// Keys that what has the focus needs for itself.
function isTaken(target, key) {
  if (target.closest("dialog, input[type=text], select")) return true;
  if (target.closest("input[type=range]")) return /^(arrow|home|end|page)/.test(key);
  if (target.closest("#queue")) return /^(arrow|enter$| $)/.test(key);
  return Boolean(target.closest("button")) && (key === "enter" || key === " ");
}

/** Call `actions[name](argument, key)` for the keys of the table; `space(held)` for the space bar. */
export function listen(actions, space) {
  addEventListener("keydown", (event) => {
    if (!(event.target instanceof Element) || isTaken(event.target, spell(event))) return;
    if (event.key === " ") {
      event.preventDefault();
      space(true);
      return;
    }
    const action = BY_KEY.get(spell(event));
    if (!action || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    actions[action[0]](action[1], event.key);
  });
  addEventListener("keyup", (event) => event.key === " " && space(false));
  addEventListener("blur", () => space(false));
}

/** Write the help into `place`. */
export function describe(place) {
  const rows = TABLE.map(([group, , shown, words]) => [GROUPS[group], shown, words]);
  const all = [...MOUSE.map(([shown, words]) => ["Mouse", shown, words]), ...rows];
  place.replaceChildren(...["Mouse", ...GROUPS].map((title) => section(title, all)));
}

function section(title, rows) {
  const part = document.createElement("section");
  const head = document.createElement("h3");
  head.textContent = title;
  const list = document.createElement("dl");
  for (const [group, shown, words] of rows) {
    if (group !== title) continue;
    const keys = document.createElement("dt");
    const key = document.createElement(title === "Mouse" ? "span" : "kbd");
    key.textContent = shown;
    keys.append(key);
    const does = document.createElement("dd");
    does.textContent = words;
    list.append(keys, does);
  }
  part.append(head, list);
  return part;
}
