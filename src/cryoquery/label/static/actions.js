// What keys and buttons do.

import * as api from "./api.js";
import { showOverview } from "./overview.js";
import { DEFAULT, keepLook } from "./look.js";
import { showHelp } from "./dialogs.js";

const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
const MARKS = ["circle", "box", "point"];
const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

/** The actions by name; `flow` has submit, skip and what else concerns the server; `shown()`: redraw. */
export function makeActions({ gallery, labeling, stage, tools, look, flow, list, shown, say }) {
  const { view } = stage;
  const setLook = (name, value) => {
    look[name] = value;
    keepLook(look);
    if (name === "lowpass" && labeling.task) stage.picture.setLowpass(stage.lowpass());
    stage.redraw(true);
    shown();
  };
  const edit = (change) => () => labeling.task && stage.picture.ready && change();

  const cursorAt = () => tools.cursor ?? tools.pointer ?? view.toImage(view.width / 2, view.height / 2);
  const setCursor = ({ y, x }) => {
    tools.spot = null;
    const [top, left, height, width] = labeling.task.region ?? [0, 0, labeling.task.height, labeling.task.width];
    tools.cursor = { y: clamp(y, top - 0.5, top + height - 0.5), x: clamp(x, left - 0.5, left + width - 0.5) };
    if (tools.carried) tools.preview = { key: tools.carried.point.key, ...tools.cursor };
    if (tools.path) tools.path.points = [...tools.path.corners, [tools.cursor.y, tools.cursor.x]];
    tools.hover = tools.carried ? null : tools.hitAt(tools.cursor.y, tools.cursor.x)?.point.key ?? null;
    view.reveal(tools.cursor.y, tools.cursor.x);
    stage.redraw(true);
  };
  const setDown = () => {
    const { carried, preview } = tools;
    tools.carried = tools.preview = null;
    if (preview) tools.drop(carried, preview);
    stage.redraw();
  };

  // To the suggestion after or before the cursor, by what `key` says.
  const walk = (key) => {
    if (!labeling.task || !labeling.undecided.length) return;
    const next = neighbor(labeling.undecided, tools.cursor, labeling.diameter, key === "j" ? 1 : -1);
    if (!view.fitted) view.center(next.y, next.x);
    setCursor(next);
    tools.walking = true;
  };
  // Decide on the suggestion under the cursor, and go on if that was come to by walking.
  const decide = (decided) => {
    if (decided && tools.walking) walk("j");
    return decided;
  };

  const loop = (what) => {
    const held = tools.loop;
    if (!held) return false;
    const suggestions = () => labeling.undecided.filter((point) => held.suggestions.includes(point.key));
    const choices = {
      delete: () => (held.particles.length ? labeling.delete(held.particles) : labeling.reject(held.suggestions)),
      accept: () => labeling.accept(suggestions()),
      reject: () => labeling.reject(held.suggestions),
      ignore: () => labeling.addRegion("ignore", held.polygon),
      done: () => labeling.addRegion("done", held.polygon),
      cancel: () => true,
    };
    tools.loop = null;
    choices[what]();
    shown();
    stage.redraw();
    return true;
  };

  return {
    setLook,
    loop,
    tool: (name) => {
      tools.choose(name);
      shown();
    },
    region: (kind) => {
      if (loop(kind)) return;
      tools.choose(kind);
      shown();
    },
    undo: edit(() => labeling.undo()),
    redo: edit(() => labeling.redo()),
    empty: edit(() => labeling.toggleEmpty()),
    cursor: (step, key) => {
      if (!labeling.task) return;
      const [dy, dx] = ARROWS[key];
      const at = cursorAt();
      tools.walking = false;
      setCursor({ y: at.y + (dy * step) / view.scale, x: at.x + (dx * step) / view.scale });
    },
    enter: edit(() => {
      const at = tools.place();
      if (tools.carried) return setDown();
      if (loop("accept") || !at || tools.keyCorner()) return undefined;
      const hit = tools.hitAt(at.y, at.x);
      if (hit?.kind === "suggestion") return decide(labeling.accept([hit.point]));
      if (!hit && tools.spot?.point) return labeling.accept([tools.spot.point]);
      return hit ? undefined : labeling.add(at.y, at.x);
    }),
    carry: edit(() => {
      if (tools.carried) return setDown();
      const at = tools.place();
      const hit = at && labeling.editable ? tools.hitAt(at.y, at.x) : null;
      if (!hit) return undefined;
      tools.carried = hit;
      return setCursor(hit.point);
    }),
    delete: edit(() => {
      if (loop("delete") || tools.dropCorner()) return;
      if (tools.selected !== null) {
        const key = tools.selected;
        tools.selected = null;
        labeling.delete([key]);
        return;
      }
      const at = tools.place();
      if (at) tools.remove(at.y, at.x);
    }),
    reject: edit(() => {
      if (loop("reject")) return;
      const at = tools.place();
      const hit = at && tools.hitAt(at.y, at.x);
      if (hit?.kind === "suggestion") decide(labeling.reject([hit.point.key]));
    }),
    acceptAll: edit(() => labeling.accept(labeling.undecided)),
    setThreshold: (value) => labeling.task && labeling.setThreshold(value),
    threshold: (_, key) => labeling.task && labeling.setThreshold(labeling.threshold + (key === "[" ? -0.02 : 0.02)),
    suggestion: (_, key) => walk(key),
    gallery: () => gallery.open(),
    overview: async () => {
      try {
        showOverview(await api.status(), list.entries);
      } catch (error) {
        say(`${error.message}.`, "warn");
      }
    },
    go: (place) => {
      view.zoom(Math.max(1, 90 / (labeling.diameter * view.scale)));
      view.center(place.y, place.x);
      setCursor(place);
    },
    doubt: (_, key) => {
      if (!labeling.task) return;
      const spots = labeling.doubts;
      if (!spots.length) {
        say("There is nothing that the model doubts.");
        return;
      }
      const spot = neighbor(spots, tools.cursor, labeling.diameter, key === "u" ? 1 : -1);
      if (view.fitted) view.zoom(Math.max(1, 90 / (labeling.diameter * view.scale)));
      view.center(spot.y, spot.x);
      setCursor(spot);
      tools.spot = spot;
      say(spot.text, "spot");
    },
    close: () => tools.path && tools.closePath(),
    cancel: () => {
      tools.cancel();
      shown();
    },
    zoom: (_, key) => {
      const at = tools.cursor && view.toScreen(tools.cursor.y, tools.cursor.x);
      view.zoom(key === "-" ? 1 / 1.25 : 1.25, at?.x, at?.y);
      stage.redraw(true);
    },
    size: (_, key) => {
      if (!labeling.task) return;
      if (key === "0") return stage.fit();
      const at = tools.place() ?? view.toImage(view.width / 2, view.height / 2);
      view.zoom(1 / view.scale);
      view.center(at.y, at.x);
      stage.redraw(true);
    },
    pan: (_, key) => {
      const [dy, dx] = ARROWS[key];
      view.pan(-80 * dx, -80 * dy);
      stage.redraw(true);
    },
    lowpass: (_, key) => {
      if (!labeling.task) return;
      const values = [...new Set([0, ...labeling.task.lowpass])].sort((a, b) => a - b);
      const step = key === "f" ? 1 : values.length - 1;
      setLook("lowpass", values[(values.indexOf(stage.lowpass()) + step) % values.length]);
    },
    invert: () => setLook("invert", !look.invert),
    contrast: (_, key) => setLook("contrast", clamp(look.contrast + (key === "," ? -10 : 10), 20, 400)),
    brightness: (_, key) => setLook("brightness", clamp(look.brightness + (key === "<" ? -6 : 6), 20, 200)),
    resetLook: () => {
      for (const name of ["contrast", "brightness", "gamma"]) look[name] = DEFAULT[name];
      setLook("invert", false);
    },
    heat: () => setLook("heat", !look.heat),
    theme: () => setLook("theme", look.theme === "dark" ? "light" : "dark"),
    marks: (_, key) => setLook("size", clamp(look.size + (key === "{" ? -10 : 10), 30, 200)),
    mark: () => setLook("mark", MARKS[(MARKS.indexOf(look.mark) + 1) % MARKS.length]),
    hide: () => setLook("hidden", !look.hidden),
    wide: () => setLook("wide", !look.wide),
    submit: () => flow.submit(),
    skip: () => flow.skip(false),
    bad: () => flow.skip(true),
    queue: () => list.focus(),
    help: () => showHelp(),
  };
}

// The suggestion after or before `from` in reading order, in rows as high as a particle.
function neighbor(points, from, diameter, step) {
  const order = ({ y, x }) => [Math.floor(y / diameter), x];
  const compare = (a, b) => a[0] - b[0] || a[1] - b[1];
  const sorted = [...points].sort((a, b) => compare(order(a), order(b)));
  if (!from) return step > 0 ? sorted[0] : sorted.at(-1);
  const here = order(from);
  if (step > 0) return sorted.find((point) => compare(order(point), here) > 0) ?? sorted[0];
  return sorted.findLast((point) => compare(order(point), here) < 0) ?? sorted.at(-1);
}
