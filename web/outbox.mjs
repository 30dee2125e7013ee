/**
 * What a person did and the server does not know yet: picks, flags, undos, removals and answers, kept in order in the
 * browser's store and sent one after the other. Nothing leaves it before the server has answered; every entry has an
 * id by which the server knows it again, so that sending twice has no effect. Leftovers of closed tabs are adopted.
 */

import { Away, Refused } from "./api.mjs";
import { hold } from "./claims.mjs";
import { forEver, forget, keep, keysUnder, recall } from "./stored.mjs";
import { Backoff, Pause } from "./timing.mjs";

/** @import { Answer, Api, Entry, Kept } from "./types" */

const ALL = "d3po/outbox/";
const ADOPT_EVERY_MS = 20000;
// Names of before, which a browser may still keep, and those that the server takes.
const RENAMED = new Map([
  ["group", "group_id"],
  ["shown", "shown_order"],
  ["ms", "decision_ms"],
  ["why", "reason"],
  ["said", "problem"],
]);

/** @param {object} fields @returns {any} the same fields under today's names */
function renamed(fields) {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [RENAMED.get(name) ?? name, value]));
}

/** @param {Entry} entry @returns {Entry} */
function withNewNames(entry) {
  const { body, card } = entry;
  return { ...renamed(entry), body: renamed(body), ...(card && { card: renamed(card) }) };
}

/** Reads what a tab has left in the store. @param {string} key @returns {{waiting: Entry[], refused: Entry[]}} */
function readKept(key) {
  const { waiting = [], refused = [] } = recall(forEver, key, /** @type {Kept} */ ({}));
  return { waiting: waiting.map(withNewNames), refused: refused.map(withNewNames) };
}

export class Outbox extends EventTarget {
  /** @param {Api} api @param {string} taste @param {string} tab */
  constructor(api, taste, tab) {
    super();
    this.api = api;
    this.taste = taste;
    this.tab = tab;
    // What an invited person did must not be sent for another one who opens a link in the same browser.
    this.key = `${ALL}${taste}/${api.guest && `${encodeURIComponent(api.guest)}/`}${tab}`;
    const { waiting, refused } = readKept(this.key);
    this.waiting = waiting;
    this.refused = refused;
    this.pause = new Pause();
    this.backoff = new Backoff(500, 15000);
    this.running = false;
    this.stopped = true;
    this.hurry = () => this.pause.cut();
    /** whether the browser could keep what waits */
    this.kept = true;
    /** @type {Map<string, (answer: Answer | null) => void>} */
    this.listeners = new Map();
  }

  async start() {
    this.stopped = false;
    window.addEventListener("online", this.hurry);
    document.addEventListener("visibilitychange", this.hurry);
    this.timer = setInterval(() => this.adopt(), ADOPT_EVERY_MS);
    await this.adopt();
    this.#run();
  }

  stop() {
    this.stopped = true;
    window.removeEventListener("online", this.hurry);
    document.removeEventListener("visibilitychange", this.hurry);
    clearInterval(this.timer);
    this.pause.cut();
  }

  /**
   * @param {Omit<Entry, "taste"|"base">} entry
   * @returns {Promise<Answer | null>} the server's answer, or null if it refused
   */
  add(entry) {
    this.waiting.push({ ...entry, taste: this.taste, base: this.api.base });
    this.#changed();
    this.#run();
    return new Promise((answer) => this.listeners.set(entry.id, answer));
  }

  /**
   * Takes an entry back that was never handed to the network.
   * @param {string} id @returns {boolean} whether that was still possible
   */
  cancel(id) {
    const at = this.waiting.findIndex((entry) => entry.id === id && !entry.tried);
    if (at < 0) return false;
    this.waiting.splice(at, 1);
    this.#changed();
    return true;
  }

  /** Resolves when nothing waits any more. */
  async empty() {
    while (this.waiting.length && !this.stopped) {
      await new Promise((done) => this.addEventListener("change", done, { once: true }));
    }
  }

  /** @param {string} id */
  retry(id) {
    const entry = this.#takeRefused(id);
    if (entry) this.waiting.push({ ...entry, problem: undefined });
    this.#changed();
    this.#run();
  }

  /** @param {string} id */
  drop(id) {
    this.#takeRefused(id);
    this.#changed();
  }

  /** Takes over what tabs that are gone have left behind, in their order. */
  async adopt() {
    for (const key of keysUnder(forEver, ALL)) {
      if (key === this.key) continue;
      const release = await hold(key.slice(key.lastIndexOf("/") + 1));
      if (!release) continue;
      this.#take(key);
      await release();
    }
  }

  /** @param {string} key */
  #take(key) {
    const left = readKept(key);
    /** @param {Entry} entry */
    const ours = (entry) =>
      entry.base === this.api.base &&
      (entry.taste === this.taste || !this.#servesOne) &&
      (!this.api.guest || entry.body.who === this.api.guest);
    const waiting = left.waiting.filter(ours);
    const refused = left.refused.filter(ours);
    const others = { waiting: left.waiting.filter((one) => !ours(one)), refused: left.refused.filter((one) => !ours(one)) };
    if (!waiting.length && !refused.length) return;
    this.waiting.push(...waiting);
    this.refused.push(...refused);
    this.#changed();
    // Ours are kept first: an entry may be in the store twice for a moment, never not at all.
    if (others.waiting.length || others.refused.length) keep(forEver, key, others);
    else forget(forEver, key);
    this.#run();
  }

  /** Whether the server knows one taste alone: then others, served at the same address before or after, are not its. */
  get #servesOne() {
    return this.api.base === ".";
  }

  /** @param {string} id */
  #takeRefused(id) {
    const entry = this.refused.find((one) => one.id === id);
    this.refused = this.refused.filter((one) => one !== entry);
    return entry;
  }

  #changed() {
    const empty = !this.waiting.length && !this.refused.length;
    if (empty) forget(forEver, this.key);
    else this.kept = keep(forEver, this.key, { waiting: this.waiting, refused: this.refused });
    this.dispatchEvent(new Event("change"));
  }

  async #run() {
    if (this.running || this.stopped) return;
    this.running = true;
    while (this.waiting.length && !this.stopped) await this.#sendFirst();
    this.running = false;
  }

  async #sendFirst() {
    const entry = this.waiting[0];
    if (!entry.tried) {
      entry.tried = true;
      keep(forEver, this.key, { waiting: this.waiting, refused: this.refused });
    }
    const begun = performance.now();
    try {
      this.#done(entry, await this.api.post(entry.path, entry.body), begun);
      this.backoff.reset();
    } catch (error) {
      if (error instanceof Refused) this.#setAside(entry, error, begun);
      else if (error instanceof Away) await this.pause.wait(this.backoff.step());
      else throw error;
    }
  }

  /** @param {Entry} entry @param {Answer | null} answer @param {number} begun */
  #done(entry, answer, begun) {
    this.waiting.shift();
    // The answer's state is taken before anybody hears of the change: the count on screen must not step back and forth.
    this.dispatchEvent(new CustomEvent("sent", { detail: { entry, answer, begun } }));
    this.#changed();
    this.listeners.get(entry.id)?.(answer);
    this.listeners.delete(entry.id);
  }

  /** @param {Entry} entry @param {Refused} error @param {number} begun */
  #setAside(entry, error, begun) {
    // Taking back what the server does not have is done already.
    const takesBack = entry.kind === "undo" || entry.kind === "remove";
    if (error.status === 404 && takesBack) return this.#done(entry, null, begun);
    this.waiting.shift();
    this.refused.push({ ...entry, problem: error.problem });
    this.#changed();
    this.listeners.get(entry.id)?.(null);
    this.listeners.delete(entry.id);
  }
}
