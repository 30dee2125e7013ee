/** Time: waiting that can be cut short, waiting longer after each failure, and how long a person takes for a pick. */

import { forEver, keep, recall } from "./stored.mjs";

export class Pause {
  #cut = () => {};

  /** Resolves after this time, or as soon as cut() is called. @param {number} ms */
  wait(ms) {
    return new Promise((done) => {
      const timer = setTimeout(done, ms);
      this.#cut = () => {
        clearTimeout(timer);
        done(undefined);
      };
    });
  }

  cut() {
    this.#cut();
  }
}

export class Backoff {
  /** @param {number} first @param {number} longest */
  constructor(first, longest) {
    this.first = first;
    this.longest = longest;
    this.next = first;
  }

  reset() {
    this.next = this.first;
  }

  /** How long to wait this time. A little randomness keeps many tabs from calling at the same moment. */
  step() {
    const now = this.next * (0.85 + 0.3 * Math.random());
    this.next = Math.min(this.longest, this.next * 2);
    return now;
  }
}

const LAST = 40;
const ENOUGH = 3;

/** How long this person takes for a pick: the median of the last ones. */
export class Pace {
  /** @param {string} who */
  constructor(who) {
    this.key = `d3po/pace/${who}`;
    /** @type {number[]} */
    this.times = recall(forEver, this.key, []);
  }

  /** @param {number} decision_ms */
  add(decision_ms) {
    this.times = [...this.times, Math.round(decision_ms)].slice(-LAST);
    keep(forEver, this.key, this.times);
  }

  /** Seconds for a number of picks, or null while too little is known. @param {number} picks */
  seconds(picks) {
    if (this.times.length < ENOUGH) return null;
    const sorted = [...this.times].sort((a, b) => a - b);
    return (picks * sorted[Math.floor(sorted.length / 2)]) / 1000;
  }
}

/** A stopwatch that stands still while the person looks elsewhere. */
export class Watch {
  begun = Infinity;
  before = 0;

  stop() {
    this.begun = Infinity;
    this.before = 0;
  }

  /** @param {number} now milliseconds, as performance.now() and event.timeStamp count them */
  start(now) {
    this.before = 0;
    this.begun = now;
  }

  /** @param {number} now */
  pause(now) {
    if (!this.running) return;
    this.before += now - this.begun;
    this.begun = Infinity;
  }

  /** @param {number} now */
  resume(now) {
    if (!this.running) this.begun = now;
  }

  get running() {
    return this.begun !== Infinity;
  }

  /** Milliseconds counted so far. @param {number} now */
  read(now) {
    return Math.max(0, Math.round(this.before + (this.running ? now - this.begun : 0)));
  }
}
