/**
 * Masks: the part of an image that a person means. A grid over the whole image, each row a number whose highest bit is
 * the cell at the left, as the server keeps it; and how it looks: what is not meant goes dark.
 */

/** @import { Card, Mask } from "./types" */

export const CELLS = 32;
const DARK = 150;
const FINE = 256;

/** The mask of an image, [] for none. @param {Mask[]} masks @param {number} candidate */
export function maskOf(masks, candidate) {
  return masks.find((mask) => mask.candidate === candidate)?.rows ?? [];
}

/** The list with another mask for an image. @param {Mask[]} masks @param {number} candidate @param {number[]} rows */
export function withMask(masks, candidate, rows) {
  const others = masks.filter((mask) => mask.candidate !== candidate);
  return rows.length ? [...others, { candidate, rows }] : others;
}

/** Masks painted in this sitting, of which the server may not know yet. */
export class MaskChanges {
  constructor() {
    /** @type {Map<string, Mask[]>} by group, each image's newest */
    this.changes = new Map();
  }

  /** @param {string} group_id @param {number} candidate @param {number[]} rows */
  note(group_id, candidate, rows) {
    const others = (this.changes.get(group_id) ?? []).filter((mask) => mask.candidate !== candidate);
    this.changes.set(group_id, [...others, { candidate, rows }]);
  }

  /** @param {string} group_id */
  forget(group_id) {
    this.changes.delete(group_id);
  }

  /** A card with its masks as they are now. A repeat comes as it came the first time. @param {Card} card */
  on(card) {
    const changes = (card.reason !== "repeat" && this.changes.get(card.group_id)) || [];
    /** @param {Mask[]} masks @param {Mask} mask */
    const apply = (masks, { candidate, rows }) => withMask(masks, candidate, rows);
    return { ...card, masks: changes.reduce(apply, card.masks ?? []) };
  }
}

/**
 * Paints a round dab, or wipes one off.
 * @param {number[]} rows @param {{x: number, y: number}} at in cells @param {number} radius in cells
 * @param {boolean} wipe @returns {number[]} the new rows, [] if nothing is painted
 */
export function dabbed(rows, at, radius, wipe) {
  const painted = Array.from({ length: CELLS }, (_, y) => {
    let row = rows[y] ?? 0;
    for (let x = 0; x < CELLS; x++) {
      if (Math.hypot(x + 0.5 - at.x, y + 0.5 - at.y) > radius) continue;
      const bit = 2 ** (CELLS - 1 - x);
      const on = Math.floor(row / bit) % 2 === 1;
      if (on === wipe) row += wipe ? -bit : bit;
    }
    return row;
  });
  return painted.some(Boolean) ? painted : [];
}

/** Shows a mask on a picture, by a canvas over it that is fitted into the frame as the picture is. */
export class Veil {
  /** @param {HTMLImageElement} picture loaded or not */
  constructor(picture) {
    this.picture = picture;
    this.element = document.createElement("canvas");
    this.element.className = "veil";
    this.element.setAttribute("aria-hidden", "true");
    /** @type {number[]} */
    this.rows = [];
    picture.addEventListener("load", () => this.show(this.rows), { once: true });
  }

  /** @param {number[]} rows */
  show(rows) {
    this.rows = rows;
    const { naturalWidth, naturalHeight } = this.picture;
    if (!naturalWidth) return;
    // The same shape as the picture, so that both are fitted into their frame alike.
    const fine = FINE / Math.max(naturalWidth, naturalHeight);
    this.element.width = Math.max(1, Math.round(naturalWidth * fine));
    this.element.height = Math.max(1, Math.round(naturalHeight * fine));
    if (rows.length) this.element.getContext("2d")?.drawImage(dark(rows), 0, 0, this.element.width, this.element.height);
  }
}

/** A canvas with a pixel for each cell, dark where nothing is painted. @param {number[]} rows */
function dark(rows) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = CELLS;
  const pixels = new ImageData(CELLS, CELLS);
  softened(rows).forEach((painted, cell) => {
    pixels.data[4 * cell + 3] = DARK * (1 - painted);
  });
  canvas.getContext("2d")?.putImageData(pixels, 0, 0);
  return canvas;
}

/** How much each cell and its neighbours are painted, 0 to 1, so that no steps show. @param {number[]} rows */
function softened(rows) {
  /** @param {number} at */
  const inside = (at) => Math.min(CELLS - 1, Math.max(0, at));
  const cells = rows.flatMap((row) => Array.from({ length: CELLS }, (_, x) => Math.floor(row / 2 ** (CELLS - 1 - x)) % 2));
  const near = [-1, 0, 1].flatMap((y) => [-1, 0, 1].map((x) => ({ x, y, weight: (2 - x * x) * (2 - y * y) })));
  return cells.map((_, cell) => {
    const [x, y] = [cell % CELLS, Math.floor(cell / CELLS)];
    const parts = near.map((by) => by.weight * cells[inside(y + by.y) * CELLS + inside(x + by.x)]);
    return parts.reduce((sum, part) => sum + part, 0) / 16;
  });
}
