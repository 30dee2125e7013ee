/**
 * Talking to the server. A failure is one of two kinds: it is away (try again later), or it refused (trying again will
 * not help).
 */

const PATIENCE_MS = 30000;
const TRY_AGAIN = new Set([408, 425, 429]);

/** The server could not be reached or is in trouble; the same request may be sent again. */
export class Away extends Error {
  /** @param {{what: string, do: string, safe: string} | null} said what the server itself says, if it could */
  constructor(said = null) {
    super("away");
    this.said = said;
  }
}

/** The server understood and will not do it. */
export class Refused extends Error {
  constructor(status, said) {
    super("refused");
    this.status = status;
    this.said = said ?? { what: "", do: "", safe: "" };
  }
}

export class Api extends EventTarget {
  constructor(base) {
    super();
    this.base = base.replace(/\/+$/, "");
    this.away = false;
    /** @type {Away["said"]} */
    this.trouble = null;
  }

  /** An address under the base, whatever the path says. */
  url(path) {
    return `${this.base}/${String(path).replace(/^\/+/, "")}`;
  }

  get(path, query = {}) {
    const search = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== null));
    return this.#ask(search.size ? `${path}?${search}` : path, {});
  }

  post(path, body) {
    return this.#ask(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  async #ask(path, options) {
    let answer;
    let said;
    try {
      answer = await fetch(this.url(path), { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
      said = await answer.json();
    } catch {
      // A proxy's page or a server's last words are not JSON; a 4xx stays a refusal all the same.
      if (!answer || answer.ok || answer.status >= 500) throw this.#lost(null);
    }
    if (answer.status >= 500 || TRY_AGAIN.has(answer.status)) throw this.#lost(said?.error ?? null);
    this.#reached();
    if (!answer.ok) throw new Refused(answer.status, said?.error);
    return said;
  }

  #lost(said) {
    this.#set(true, said);
    return new Away(said);
  }

  #reached() {
    this.#set(false, null);
  }

  #set(away, trouble) {
    if (this.away === away && this.trouble?.what === trouble?.what) return;
    this.away = away;
    this.trouble = trouble;
    this.dispatchEvent(new Event("change"));
  }
}
