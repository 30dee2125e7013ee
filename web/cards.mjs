/** The groups at hand: the one in front, those that come next, and those whose images are on their way. */

import { prepare } from "./preload.mjs";

/** @import { Card, Prepared } from "./types" */

const AHEAD = 3;
// A group whose images do not come is no longer counted as one of those ahead.
const STUCK_MS = 15000;
const MOST_STUCK = 4;

export class Cards {
  /**
   * @param {object} options @param {(path: string) => string} options.url
   * @param {AbortSignal} options.signal ends all loading
   * @param {() => void} options.changed another group, or none, is in front
   * @param {() => void} options.advanced the next group was taken: there is room for another one
   */
  constructor({ url, signal, changed, advanced }) {
    this.url = url;
    this.signal = signal;
    this.changed = changed;
    this.advanced = advanced;
    /** @type {Prepared | null} the group in front */
    this.current = null;
    /** @type {Prepared[]} loaded and decoded */
    this.ahead = [];
    /** @type {Map<string, number>} groups whose images are on their way, since when */
    this.coming = new Map();
    /** @type {string | null} the group that an undo brings back and that is still loading */
    this.returning = null;
  }

  /** How many more groups there is room for. */
  room() {
    const now = performance.now();
    const loading = [...this.coming.values()].filter((since) => now - since < STUCK_MS).length;
    if (this.coming.size - loading >= MOST_STUCK) return 0;
    return Math.max(0, AHEAD + 1 - this.ahead.length - loading - (this.current ? 1 : 0));
  }

  /** The ids of all groups at hand. */
  ids() {
    const ids = [...this.ahead.map((prepared) => prepared.card.group_id), ...this.coming.keys()];
    if (this.current) ids.push(this.current.card.group_id);
    return ids;
  }

  /** Puts the next group in front, or none. */
  advance() {
    this.current = this.ahead.shift() ?? null;
    this.changed();
    this.advanced();
  }

  /** Loads a group's images and adds it to those that come next. @param {Card} card */
  async load(card) {
    this.coming.set(card.group_id, performance.now());
    try {
      const prepared = await prepare(card, this.url, this.signal);
      this.coming.delete(card.group_id);
      // It may have come back by an undo in the meantime.
      if (this.ids().includes(card.group_id)) return;
      this.ahead.push(prepared);
      if (!this.current && !this.returning) this.advance();
    } catch (error) {
      if (!this.signal.aborted) throw error;
    }
  }

  /**
   * Brings a group back: the one in front steps back by one, and no pick is possible until all images are there.
   * @param {Card} card
   */
  async bringBack(card) {
    const { group_id } = card;
    this.ahead = this.ahead.filter((prepared) => prepared.card.group_id !== group_id);
    if (this.current && this.current.card.group_id !== group_id) this.ahead.unshift(this.current);
    this.current = null;
    this.returning = group_id;
    this.coming.set(group_id, performance.now());
    this.changed();
    const prepared = await prepare(card, this.url, this.signal);
    this.coming.delete(group_id);
    // It was overtaken by another undo, and comes right after that one's group.
    if (this.returning !== group_id) return void this.ahead.unshift(prepared);
    this.returning = null;
    this.current = prepared;
    this.changed();
  }

  /** @param {string} group_id @param {(card: Card) => Card} change */
  change(group_id, change) {
    /** @param {Prepared} prepared */
    const set = (prepared) =>
      prepared.card.group_id === group_id ? { ...prepared, card: change(prepared.card) } : prepared;
    this.current = this.current && set(this.current);
    this.ahead = this.ahead.map(set);
  }
}
