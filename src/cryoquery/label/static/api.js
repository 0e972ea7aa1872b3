// Requests to the server that served this page, and to no other.

import { Session, linked, random, unlink } from "./session.js";

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

/** What answers is not the server that this page belongs to, or it no longer knows this page. */
export class Stranger extends Unreachable {
  constructor() {
    super("this page is not logged in; open the link that cryoquery label shows");
  }
}

const TIMEOUT_MS = 20000;
const PICTURE_MS = 120000;
const LOGIN = "/api/session";

let session = null;

/**
 * Log in with the link in the address, or as before; resolves to what the server says of the session. A page that
 * was logged in goes on only as the same `person` in the same `project`.
 */
export async function open({ person, project } = {}) {
  const secret = linked();
  const sessions = [secret && (await Session.ofLink(secret)), Session.kept()].filter(Boolean);
  for (const tried of sessions) {
    try {
      let answer = await request("GET", LOGIN, undefined, tried);
      if (person && !answer.person) answer = await request("POST", LOGIN, { person }, tried);
      tried.keep();
      if (secret) unlink();
      if (!person || (answer.person === person && answer.id === project)) session = tried;
      return answer;
    } catch (error) {
      if (!(error instanceof Stranger)) throw error;
    }
  }
  throw new Stranger();
}

/** The answer to a request, if the server proves that it is its own; else `Stranger` or `Unreachable`. */
async function ask(method, path, body, { asker = session, cache = "no-store", timeout = TIMEOUT_MS } = {}) {
  if (!asker) throw new Stranger();
  // Nothing is told to a program that has not just shown that it is the right one.
  if (body) await request("GET", LOGIN, undefined, asker);
  const [nonce, stop] = [random(), new AbortController()];
  const timer = setTimeout(() => stop.abort(), timeout);
  const headers = { Authorization: await asker.authorization(method, path, body, nonce) };
  if (body) headers["Content-Type"] = "application/json";
  const options = { method, headers, cache, credentials: "omit", signal: stop.signal, redirect: "error" };
  if (body) options.body = body;
  try {
    const response = await fetch(path, options);
    const content = await response.arrayBuffer();
    const fresh = cache === "default" ? undefined : nonce;
    if (!(await asker.proves(response, content, method, path, fresh))) throw new Stranger();
    return { response, content };
  } catch (error) {
    throw error instanceof Stranger ? error : new Unreachable("the server does not answer");
  } finally {
    clearTimeout(timer);
  }
}

function refusal(response, content) {
  const status = response.ok ? 502 : response.status;
  let words = `the server answered ${response.status}`;
  try {
    words = JSON.parse(new TextDecoder().decode(content)).error ?? words;
  } catch {
    // It is no JSON.
  }
  return new Refused(status, words, Number(response.headers.get("Retry-After")) || 0);
}

async function request(method, path, body, asker = session) {
  const { response, content } = await ask(method, path, body === undefined ? "" : JSON.stringify(body), { asker });
  if (!response.ok) throw refusal(response, content);
  try {
    return JSON.parse(new TextDecoder().decode(content));
  } catch {
    throw refusal(response, content);
  }
}

/** A picture as a blob, from this browser's cache where it is there. */
export async function picture(path) {
  let found;
  try {
    found = await ask("GET", path, "", { cache: "default", timeout: PICTURE_MS });
  } catch (error) {
    if (!(error instanceof Stranger)) throw error;
    found = await ask("GET", path, "", { cache: "reload", timeout: PICTURE_MS }); // kept from an earlier session
  }
  const { response, content } = found;
  if (!response.ok) throw refusal(response, content);
  return new Blob([content], { type: response.headers.get("Content-Type") });
}

const taskPath = (task) => `/api/tasks/${encodeURIComponent(task)}`;

export const introduce = (person) => request("POST", LOGIN, { person });
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
