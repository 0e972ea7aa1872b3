// How the picture is shown. Kept in this browser.

const KEY = "cryoquery/look";
export const DEFAULT = {
  contrast: 100, // %
  brightness: 85, // %
  gamma: 1,
  size: 100, // of marks, % of the particle's diameter
  invert: false,
  mark: "circle",
  lowpass: null,
  wide: false,
  heat: false,
  theme: "dark",
};

export function storedLook() {
  let stored = {};
  try {
    stored = JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    stored = {};
  }
  const look = { ...DEFAULT, hidden: false };
  for (const name of Object.keys(DEFAULT)) if (name in stored) look[name] = stored[name];
  return look;
}

export function keepLook({ hidden, ...look }) {
  try {
    localStorage.setItem(KEY, JSON.stringify(look));
  } catch {
    // A full storage costs no more than the sliders' places.
  }
}
