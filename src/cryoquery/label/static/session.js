// The session with the server, and how each shows the other that it is the right one: docs/dev/security.md.
// A browser lets any program at this address answer; only the server that made the link knows its secret.

export const KEPT = "cryoquery/session";
const HMAC = { name: "HMAC", hash: "SHA-256" };

const bytes = (text) => new TextEncoder().encode(text);
const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const digest = async (content) => hex(await crypto.subtle.digest("SHA-256", content));

async function sign(key, ...words) {
  const imported = await crypto.subtle.importKey("raw", key, HMAC, false, ["sign"]);
  return hex(await crypto.subtle.sign("HMAC", imported, bytes(words.join(" "))));
}

export const random = () => hex(crypto.getRandomValues(new Uint8Array(16)));

export class Session {
  constructor(id, key) {
    this.id = id;
    this.key = key; // hexadecimal
  }

  /** The one that the link's `secret` opens in this browser. */
  static async ofLink(secret) {
    const [link, browser] = [await sign(bytes(secret), "link"), random()];
    return new Session(link.slice(0, 32) + browser, await sign(bytes(secret), "session", browser));
  }

  /** The one that was kept in this browser, or null. */
  static kept() {
    try {
      const { id, key } = JSON.parse(localStorage.getItem(KEPT));
      return new Session(id, key);
    } catch {
      return null;
    }
  }

  keep() {
    try {
      localStorage.setItem(KEPT, JSON.stringify(this));
    } catch {
      // With a full storage it ends when the page is loaded again.
    }
  }

  /** The header that shows who asks. */
  async authorization(method, path, body, nonce) {
    const words = [nonce, await digest(bytes(body))];
    return ["Cryoquery", this.id, ...words, await sign(unhex(this.key), method, path, ...words)].join(" ");
  }

  /** Whether the answer with this `content` is the server's to that request; without `nonce`, to an earlier one. */
  async proves(response, content, method, path, nonce) {
    const [asked, signature] = (response.headers.get("Cryoquery-Proof") ?? "").split(" ");
    if (nonce !== undefined && asked !== nonce) return false;
    const words = [response.status, method, path, asked, await digest(content)];
    return signature === (await sign(unhex(this.key), ...words));
  }
}

/** The secret of the link that this page was opened with, or null. */
export const linked = () => new URLSearchParams(location.hash.slice(1)).get("token");

/** Take the secret out of the address. */
export const unlink = () => history.replaceState(null, "", "/");
