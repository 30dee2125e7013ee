/** Images that are loaded and decoded before they are shown, so that a group appears at once and whole. */

import { Backoff } from "./timing.mjs";

/** @import { Card, Prepared } from "./types" */

/**
 * Resolves when every image of the card is decoded, however long the server is away.
 * @param {Card} card @param {(path: string) => string} url @param {AbortSignal} signal @returns {Promise<Prepared>}
 */
export async function prepare(card, url, signal) {
  const pictures = await Promise.all(card.images.map((image) => decoded(url(image.url), signal)));
  return { card, pictures };
}

/** Loads and decodes one, again and again until it is there. @param {string} address @param {AbortSignal} signal */
export async function decoded(address, signal) {
  const backoff = new Backoff(400, 8000);
  for (;;) {
    const picture = new Image();
    // It is decoded by then; "sync" makes all images of a group appear in the same frame.
    picture.decoding = "sync";
    picture.draggable = false;
    picture.alt = "";
    picture.src = address;
    try {
      await picture.decode();
      return picture;
    } catch {
      signal.throwIfAborted();
      await new Promise((done) => setTimeout(done, backoff.step()));
      signal.throwIfAborted();
    }
  }
}
