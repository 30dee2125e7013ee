/** Asks the server for groups and news while a sitting lasts: often while something is awaited, else rarely. */

import { Away, Refused } from "./api.mjs";
import { Backoff, Pause } from "./timing.mjs";

/** @import { Session } from "./types" */

// The server takes no longer list.
const MOST_HELD = 64;
const FIRST_MS = 700;
const LONGEST_MS = 4000;
const IDLE_MS = 15000;
const HIDDEN_MS = 20000;

export class Polling {
  /** @param {Session} session */
  constructor(session) {
    this.session = session;
    this.pause = new Pause();
    this.away = new Backoff(700, 10000);
    this.backoff = new Backoff(FIRST_MS, LONGEST_MS);
    this.shown = false;
    this.watching = false;
    this.news = false;
  }

  /** Something was taken or has happened: asks again now. */
  askSoon() {
    this.backoff.reset();
    this.pause.cut();
  }

  /** There is something new: asks now, even right after the request under way. */
  hear() {
    this.news = true;
    this.askSoon();
  }

  /** Asks until the sitting ends. */
  async run() {
    const { session } = this;
    while (!session.stopped) {
      let wait;
      this.news = false;
      try {
        wait = await this.#round();
        this.away.reset();
      } catch (error) {
        if (error instanceof Refused) session.refusal = error.problem;
        else if (!(error instanceof Away)) throw error;
        session.tell("state");
        wait = this.away.step();
      }
      if (!session.stopped && !this.news && wait > 0) await this.pause.wait(wait);
    }
  }

  /** @returns {Promise<number>} milliseconds to the next round */
  async #round() {
    const { session } = this;
    const want = this.#room();
    const begun = performance.now();
    /** @type {{who: string, client?: string}} */
    const whose = this.#seen ? { client: session.tab.id, who: session.who } : { who: session.who };
    if (!want) {
      session.take(await session.api.get(`${session.path}/state`, whose), begun);
      return this.#room() ? 0 : this.#leisure();
    }
    const answer = await session.api.post(`${session.path}/next`, { ...whose, holding: this.#holding(), want });
    const cards = answer.cards ?? [];
    const fresh = cards.filter((card) => !this.#isOld(card.group_id, begun));
    for (const card of fresh) session.cards.load(session.withChanges(card));
    if (answer.state) session.take(answer.state, begun);
    if (fresh.length) this.backoff.reset();
    if (!this.#room()) return this.#leisure();
    if (cards.length >= want) return 0;
    return this.backoff.step();
  }

  get #seen() {
    return this.shown && !document.hidden;
  }

  #leisure() {
    if (document.hidden) return HIDDEN_MS;
    return this.watching || this.session.state?.work ? LONGEST_MS / 2 : IDLE_MS;
  }

  #room() {
    return this.#seen ? this.session.cards.room() : 0;
  }

  /** Groups that were picked here and that the server has not heard of. @returns {string[]} */
  #unsent() {
    const { waiting } = this.session.outbox;
    return waiting.filter((entry) => entry.kind === "pick").map((entry) => entry.body.group_id);
  }

  #holding() {
    return [...new Set([...this.session.cards.ids(), ...this.#unsent()])].slice(0, MOST_HELD);
  }

  /** @param {string} group_id @param {number} begun when it was asked for */
  #isOld(group_id, begun) {
    const known = this.session.cards.ids().includes(group_id) || this.#unsent().includes(group_id);
    return known || (this.session.pickedAt.get(group_id) ?? -Infinity) > begun;
  }
}
