/**
 * What one gallery has and no other: a taste's seat, and an id.
 *
 * Of several galleries on one page (those that want it so), one at a time sits with a taste; the others rest. Two would
 * each hold groups that the other one lacks.
 *
 * The id survives a reload and no other gallery has it, even in a duplicated tab (which inherits the store) or twice on
 * one page. It is held by a lock, so that others see whether its owner lives.
 */

import { forEver, forget, forThisTab, keep, newId, recall } from "./stored.mjs";

/** @import { Sitter, Tab } from "./types" */

/** @type {Map<string, Sitter>} who sits */
const seats = new Map();
/** @type {Set<{place: string, sitter: Sitter}>} who would like to */
const waiting = new Set();

/**
 * @param {string} place server and taste @param {Sitter} sitter @param {boolean} insists whoever sits there gives way
 * @returns {Promise<boolean>} whether the seat is taken now; if not, `wake` is called once it is free
 */
export async function takeSeat(place, sitter, insists) {
  leaveSeats(sitter, place);
  const before = seats.get(place);
  if (before && before !== sitter && !insists) {
    waiting.add({ place, sitter });
    return false;
  }
  seats.set(place, sitter);
  if (before && before !== sitter) {
    waiting.add({ place, sitter: before });
    await before.giveWay();
  }
  return true;
}

/** @param {Sitter} sitter @param {string} [except] a seat to keep */
export function leaveSeats(sitter, except) {
  for (const one of waiting) if (one.sitter === sitter) waiting.delete(one);
  for (const [place, sitting] of seats) {
    if (sitting !== sitter || place === except) continue;
    seats.delete(place);
    const next = [...waiting].find((one) => one.place === place);
    if (next) waiting.delete(next);
    next?.sitter.wake();
  }
}

const MINE = "d3po/tabs";
const ALIVE = "d3po/alive/";
const BEAT_MS = 5000;
// A hidden tab's timers may fire only once a minute.
const DEAD_AFTER_MS = 150000;

/** @returns {Promise<Tab>} */
export async function claimTab() {
  const known = recall(forThisTab, MINE, /** @type {string[]} */ ([]));
  for (const id of known) {
    const release = await hold(id);
    if (release) return { id, release };
  }
  const id = newId();
  keep(forThisTab, MINE, [...known, id]);
  return { id, release: (await hold(id)) ?? (async () => {}) };
}

/**
 * Holds an id if nobody else does.
 * @param {string} id
 * @returns {Promise<(() => Promise<unknown>) | null>} what lets it go again, or null if its owner is alive
 */
export function hold(id) {
  return navigator.locks ? holdByLock(id) : Promise.resolve(holdByHeartbeat(id));
}

/** @param {string} id */
function holdByLock(id) {
  return new Promise((answer) => {
    const over = navigator.locks.request(`d3po/tab/${id}`, { ifAvailable: true }, (lock) => {
      if (!lock) return answer(null);
      return new Promise((release) => {
        answer(() => {
          release(undefined);
          return over;
        });
      });
    });
    over.catch(() => answer(null));
  });
}

/** Pages on plain http from another machine have no locks. @param {string} id */
function holdByHeartbeat(id) {
  const key = ALIVE + id;
  if (Date.now() - recall(forEver, key, 0) < DEAD_AFTER_MS) return null;
  const beat = () => keep(forEver, key, Date.now());
  const stop = () => forget(forEver, key);
  beat();
  const timer = setInterval(beat, BEAT_MS);
  window.addEventListener("pagehide", stop);
  return async () => {
    clearInterval(timer);
    window.removeEventListener("pagehide", stop);
    stop();
  };
}
