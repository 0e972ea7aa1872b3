// Requests to the server that served this page.

/** The server answered, and refused. */
export class Refused extends Error {
  constructor(status, message, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** No answer came. */
export class Unreachable extends Error {}

const TIMEOUT_MS = 20000;

async function request(method, path, body) {
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), TIMEOUT_MS);
  const options = { method, credentials: "same-origin", cache: "no-store", signal: stop.signal };
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  try {
    const response = await fetch(path, options);
    const text = await response.text();
    return answer(response, text);
  } catch (error) {
    throw error instanceof Refused ? error : new Unreachable("the server does not answer");
  } finally {
    clearTimeout(timer);
  }
}

function answer(response, text) {
  let data = null;
  try {
    data = JSON.parse(text);
  } catch {
    data = null;
  }
  if (response.ok && data !== null) return data;
  const words = data && typeof data.error === "string" ? data.error : `the server answered ${response.status}`;
  throw new Refused(response.ok ? 502 : response.status, words, Number(response.headers.get("Retry-After")) || 0);
}

const taskPath = (task) => `/api/tasks/${encodeURIComponent(task)}`;

export const session = () => request("GET", "/api/session");
export const introduce = (person) => request("POST", "/api/session", { person });
export const queue = () => request("GET", "/api/queue");
export const status = () => request("GET", "/api/status");
export const lease = (task) => request("POST", "/api/lease", task === undefined ? {} : { task });
export function ahead(besides) {
  const named = besides.map((task) => `besides=${encodeURIComponent(task)}`).join("&");
  return request("GET", `/api/ahead?${named}`);
}
export const document = (task) => request("GET", taskPath(task));
export const sendCommands = (task, commands) => request("POST", `${taskPath(task)}/commands`, { commands });

export const thumbnailPath = (item) => `/api/items/${item}/thumbnail`;

const filtered = (lowpass) => (lowpass ? `&lowpass=${lowpass}` : "");
export const picturePath = (item, size, lowpass) => `/api/items/${item}/picture?size=${size}${filtered(lowpass)}`;
export const cutoutsPath = (item, places, lowpass) => `/api/items/${item}/cutouts?at=${places.join(";")}${filtered(lowpass)}`;
export const heatPath = (item, model) => `/api/items/${item}/heat?model=${encodeURIComponent(model)}`;
export const tilePath = (item, factor, row, column, lowpass) =>
  `/api/items/${item}/tile?factor=${factor}&row=${row}&column=${column}${filtered(lowpass)}`;
