/**
 * Flags: what makes a single image bad, whatever is picked beside it. A list of {candidate, kind}, as the server
 * tells it, and the marks on an image that show its flags and, pressed, put them or take them off.
 */

import { el, mark } from "./dom.mjs";

/** @import { Card, Flag, Text } from "./types" */

export const FLAGS = ["defective", "unsafe"];

/** @param {string} kind */
export const isFlag = (kind) => FLAGS.includes(kind);

/** Whether an image has this flag, or any if no kind is named. @param {Flag[]} flags @param {number} candidate */
export function hasFlag(flags, candidate, kind = "") {
  return flags.some((flag) => flag.candidate === candidate && (!kind || flag.kind === kind));
}

/**
 * The list with a flag put or taken off.
 * @param {Flag[]} flags @param {number} candidate @param {string} kind @param {boolean} on
 */
export function withFlag(flags, candidate, kind, on) {
  const others = flags.filter((flag) => flag.candidate !== candidate || flag.kind !== kind);
  return on ? [...others, { candidate, kind }] : others;
}

/** Flags put and taken off in this sitting, of which the server may not know yet. */
export class FlagChanges {
  constructor() {
    /** @type {Map<string, {candidate: number, kind: string, on: boolean}[]>} by group */
    this.changes = new Map();
  }

  /** @param {string} group_id @param {number} candidate @param {string} kind @param {boolean} on */
  note(group_id, candidate, kind, on) {
    this.changes.set(group_id, [...(this.changes.get(group_id) ?? []), { candidate, kind, on }]);
  }

  /** @param {string} group_id */
  forget(group_id) {
    this.changes.delete(group_id);
  }

  /**
   * A card with its flags as they are now. A repeat comes as it came the first time, without the changes since.
   * @param {Card} card
   */
  on(card) {
    const changes = (card.reason !== "repeat" && this.changes.get(card.group_id)) || [];
    /** @param {Flag[]} flags @param {{candidate: number, kind: string, on: boolean}} change */
    const apply = (flags, { candidate, kind, on }) => withFlag(flags, candidate, kind, on);
    return { ...card, flags: changes.reduce(apply, card.flags ?? []) };
  }
}

/**
 * Marks for an image that itself is pressed: for the eye and a pointer only. Keys and labels do the same.
 * @param {Text} text
 */
export function flagMarks(text) {
  const marks = FLAGS.map((kind) => el("span.flag", { "data-kind": kind }, text.t(`kind.${kind}`)));
  return el("span.flags", { "aria-hidden": "true" }, ...marks);
}

/** @param {HTMLElement} picture holds marks @param {Flag[]} flags @param {number} candidate */
export function showFlags(picture, flags, candidate) {
  mark(picture, "flagged", hasFlag(flags, candidate));
  for (const one of picture.querySelectorAll(".flag")) {
    mark(one, "on", hasFlag(flags, candidate, /** @type {HTMLElement} */ (one).dataset.kind));
  }
}

/** Which mark was pressed, or "". @param {Event} event */
export function pressedFlag(event) {
  const pressed = event.target instanceof Element ? event.target.closest(".flag") : null;
  return pressed instanceof HTMLElement ? (pressed.dataset.kind ?? "") : "";
}

/**
 * An image's name with its flags, for the ear.
 * @param {Text} text @param {string} name @param {Flag[]} flags @param {number} candidate
 */
export function nameWithFlags(text, name, flags, candidate) {
  const words = FLAGS.filter((kind) => hasFlag(flags, candidate, kind)).map((kind) => text.t(`flag.${kind}`));
  return [name, ...words].join(", ");
}
