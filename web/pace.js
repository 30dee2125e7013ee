/**
 * How long this person takes for a pick: the median of the last ones, and a watch that stands still while they look
 * elsewhere.
 */

import { forEver, keep, recall } from "./stored.js";

const LAST = 40;
const ENOUGH = 3;

export class Pace {
  constructor(who) {
    this.key = `d3po/pace/${who}`;
    /** @type {number[]} */
    this.times = recall(forEver, this.key, []);
  }

  add(ms) {
    this.times = [...this.times, Math.round(ms)].slice(-LAST);
    keep(forEver, this.key, this.times);
  }

  /** Seconds for so many picks, or null while too little is known. */
  seconds(picks) {
    if (this.times.length < ENOUGH) return null;
    const sorted = [...this.times].sort((a, b) => a - b);
    return (picks * sorted[Math.floor(sorted.length / 2)]) / 1000;
  }
}

export class Watch {
  constructor() {
    this.stop();
  }

  stop() {
    this.begun = Infinity;
    this.before = 0;
  }

  /** @param {number} now milliseconds, as performance.now() and event.timeStamp count them */
  start(now) {
    this.before = 0;
    this.begun = now;
  }

  pause(now) {
    if (!this.running) return;
    this.before += now - this.begun;
    this.begun = Infinity;
  }

  resume(now) {
    if (!this.running) this.begun = now;
  }

  get running() {
    return this.begun !== Infinity;
  }

  read(now) {
    return Math.max(0, Math.round(this.before + (this.running ? now - this.begun : 0)));
  }
}
