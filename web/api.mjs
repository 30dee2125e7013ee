/**
 * Talking to the server. A failure is one of two kinds: it is away (try again later), or it refused (trying again will
 * not help).
 */

/** @import { Answer, Problem } from "./types" */

const PATIENCE_MS = 30000;
const TRY_AGAIN = new Set([408, 425, 429]);

/** The server could not be reached or is in trouble; the same request may be sent again. */
export class Away extends Error {
  /** @param {Problem | null} problem what the server itself says, if it could */
  constructor(problem = null) {
    super("away");
    this.problem = problem;
  }
}

/** The server understood and will not do it. */
export class Refused extends Error {
  /** @param {number} status @param {Problem} [problem] */
  constructor(status, problem) {
    super("refused");
    this.status = status;
    this.problem = problem ?? { what: "", do: "", safe: "" };
  }
}

/** It sends the events "change", and "ended" once an invited person's link no longer works. */
export class Api extends EventTarget {
  /** @param {string} base @param {string} [guest] name of an invited person, who may pick and nothing else */
  constructor(base, guest = "") {
    super();
    this.base = base.replace(/\/+$/, "");
    this.guest = guest;
    this.away = false;
    /** @type {Problem | null} */
    this.trouble = null;
  }

  /** An address under the base, whatever the path says. @param {string} path */
  url(path) {
    return `${this.base}/${String(path).replace(/^\/+/, "")}`;
  }

  /**
   * @param {string} path @param {Record<string, string | number | undefined>} query what is empty is left out
   * @returns {Promise<any>}
   */
  get(path, query = {}) {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      if (value !== "" && value !== undefined) search.set(name, String(value));
    }
    return this.#ask(search.size ? `${path}?${search}` : path, {});
  }

  /** @param {string} path @param {object} body @returns {Promise<Answer>} */
  post(path, body) {
    return this.#ask(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  /** @param {string} path @param {RequestInit} options */
  async #ask(path, options) {
    let response;
    let answer;
    try {
      response = await fetch(this.url(path), { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
      answer = await response.json();
    } catch {
      // A proxy's page or a server's last words are not JSON; a 4xx stays a refusal all the same.
      if (!response || response.ok || response.status >= 500) throw this.#lost(null);
    }
    if (response.status >= 500 || TRY_AGAIN.has(response.status)) throw this.#lost(answer?.error ?? null);
    this.#set(false, null);
    if (this.guest && response.status === 403) {
      // What was picked meanwhile is kept here, for when there is a new link.
      this.dispatchEvent(new Event("ended"));
      throw new Away();
    }
    if (!response.ok) throw new Refused(response.status, answer?.error);
    return answer;
  }

  /** @param {Problem | null} problem */
  #lost(problem) {
    this.#set(true, problem);
    return new Away(problem);
  }

  /** @param {boolean} away @param {Problem | null} trouble */
  #set(away, trouble) {
    if (this.away === away && this.trouble?.what === trouble?.what) return;
    this.away = away;
    this.trouble = trouble;
    this.dispatchEvent(new Event("change"));
  }
}
