/**
 * An id for one gallery in one tab that survives a reload and that no other gallery has, even in a duplicated tab
 * (which inherits the store) or twice on one page. It is held by a lock, so that others see whether its owner lives.
 */

import { forEver, forThisTab, forget, keep, newId, recall } from "./stored.js";

const MINE = "d3po/tabs";
const ALIVE = "d3po/alive/";
const BEAT_MS = 5000;
// A hidden tab's timers may fire only once a minute.
const DEAD_AFTER_MS = 150000;

/** @typedef {{id: string, release: () => Promise<unknown>}} Tab release resolves when others can hold the id */

/** @returns {Promise<Tab>} */
export async function claimTab() {
  const known = recall(forThisTab, MINE, []);
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
 * @returns {Promise<(() => Promise<unknown>) | null>} what lets it go again, or null if its owner is alive
 */
export function hold(id) {
  return navigator.locks ? holdByLock(id) : Promise.resolve(holdByHeartbeat(id));
}

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

/** Pages on plain http from another machine have no locks. */
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
