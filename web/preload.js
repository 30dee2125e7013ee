/** Pictures that are loaded and decoded before they are shown, so that a group appears at once and whole. */

import { Backoff } from "./pause.js";

/**
 * @typedef {object} Prepared
 * @property {any} card
 * @property {HTMLImageElement[]} pictures decoded, in the order to show
 */

/**
 * Resolves when every picture of the card is decoded, however long the server is away.
 * @param {(path: string) => string} url
 * @param {AbortSignal} signal
 * @returns {Promise<Prepared>}
 */
export async function prepare(card, url, signal, onTrouble = () => {}) {
  const pictures = await Promise.all(card.images.map((image) => decoded(url(image.url), signal, onTrouble)));
  return { card, pictures };
}

/** @returns {Promise<HTMLImageElement>} */
export async function decoded(address, signal, onTrouble = () => {}) {
  const backoff = new Backoff(400, 8000);
  for (;;) {
    const picture = new Image();
    // It is decoded by then; "sync" makes all pictures of a group appear in the same frame.
    picture.decoding = "sync";
    picture.draggable = false;
    picture.alt = "";
    picture.src = address;
    try {
      await picture.decode();
      return picture;
    } catch {
      signal.throwIfAborted();
      onTrouble();
      await new Promise((done) => setTimeout(done, backoff.step()));
      signal.throwIfAborted();
    }
  }
}
