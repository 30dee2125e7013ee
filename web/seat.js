/**
 * Of several galleries on one page (those that want it so), one at a time sits with a taste; the others rest. Two would
 * each hold pictures that the other one lacks.
 */

/**
 * @typedef {object} Sitter
 * @property {() => Promise<unknown>} giveWay stands up and rests
 * @property {() => void} wake tries to sit again
 */

/** @type {Map<string, Sitter>} who sits */
const seats = new Map();
/** @type {Set<{place: string, sitter: Sitter}>} who would like to */
const waiting = new Set();

/**
 * @param {string} place server and taste
 * @param {Sitter} sitter
 * @param {boolean} insists whoever sits there gives way
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

/**
 * @param {Sitter} sitter
 * @param {string} [except] a seat to keep
 */
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
