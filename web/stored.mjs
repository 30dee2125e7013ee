/**
 * JSON in the browser's own store. A full or forbidden store is no reason to stop picking: what was asked just is not
 * kept.
 */

export const forEver = () => window.localStorage;
export const forThisTab = () => window.sessionStorage;

/**
 * @template Value
 * @param {() => Storage} where
 * @param {string} key
 * @param {Value} otherwise where nothing is kept
 * @returns {Value}
 */
export function recall(where, key, otherwise) {
  try {
    const text = where().getItem(key);
    return text === null ? otherwise : JSON.parse(text);
  } catch {
    return otherwise;
  }
}

/**
 * @param {() => Storage} where @param {string} key @param {unknown} value JSON-able
 * @returns {boolean} whether it is kept
 */
export function keep(where, key, value) {
  try {
    where().setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** @param {() => Storage} where @param {string} key */
export function forget(where, key) {
  try {
    where().removeItem(key);
  } catch {
    // Nothing was kept there.
  }
}

/** All keys that begin with a prefix. @param {() => Storage} where @param {string} prefix */
export function keysUnder(where, prefix) {
  try {
    return Object.keys(where()).filter((key) => key.startsWith(prefix));
  } catch {
    return [];
  }
}

/** 32 hex digits that nobody else has. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
