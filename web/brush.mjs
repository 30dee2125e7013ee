/**
 * The brush: while it is on, pointers paint over the part of an image that is meant, and pick nothing. The right button
 * or Shift wipes off, the wheel and [ ] change the size. With keys, arrows move it and Space paints. Every stroke is
 * saved as it ends, so that leaving loses nothing.
 */

import { el, mark } from "./dom.mjs";
import { CELLS, dabbed } from "./masks.mjs";

const SIZES = [1, 1.6, 2.5, 4, 6, 9];
const RIGHT = 2;

/** @typedef {{x: number, y: number}} Place in cells of the picture's grid */

export class Brush {
  /**
   * @param {HTMLElement} stage its frames have the class "frame"
   * @param {{frames: () => HTMLElement[], rows: (at: number) => number[], show: (at: number, rows: number[]) => void,
   *   save: (at: number, rows: number[]) => void, changed: () => void}} view
   */
  constructor(stage, view) {
    this.stage = stage;
    this.view = view;
    this.on = false;
    this.size = 3;
    this.ring = el("span.ring", { "aria-hidden": "true" });
    /** @type {{at: number, rows: number[]}[]} what strokes have changed, the last one at the end */
    this.strokes = [];
    /** @type {{at: number, before: number[], rows: number[], last: Place, wipe: boolean} | null} */
    this.stroke = null;
    /** Where keys paint. */
    this.cursor = { at: 0, x: CELLS / 2, y: CELLS / 2 };
    this.#listen();
  }

  /** @param {boolean} on */
  turn(on) {
    if (on === this.on) return;
    this.on = on;
    this.stroke = null;
    this.strokes = [];
    if (!on) this.ring.remove();
    mark(this.stage, "brushing", on);
    this.view.changed();
  }

  /** Takes the last stroke back; whether there was one. */
  undo() {
    const last = this.strokes.pop();
    if (!last) return false;
    this.view.show(last.at, last.rows);
    this.view.save(last.at, last.rows);
    this.view.changed();
    return true;
  }

  /** @param {number} by how many sizes larger */
  resize(by) {
    this.size = Math.min(SIZES.length - 1, Math.max(0, this.size + by));
    this.#drawRing();
  }

  /** Starts painting by keys on an image. @param {number} at */
  point(at) {
    if (at >= 0 && at !== this.cursor.at) this.cursor = { at, x: CELLS / 2, y: CELLS / 2 };
  }

  /** An arrow key. @param {[number, number]} by */
  nudge([x, y]) {
    /** @param {number} value */
    const inside = (value) => Math.min(CELLS, Math.max(0, value));
    this.cursor = { ...this.cursor, x: inside(this.cursor.x + x), y: inside(this.cursor.y + y) };
    this.#ringAt(this.cursor.at, this.cursor);
  }

  /** Space. @param {boolean} wipe */
  dab(wipe) {
    const { at } = this.cursor;
    if (!this.view.frames()[at]) return;
    this.#ringAt(at, this.cursor);
    this.#begin(at, this.cursor, wipe);
    this.#end();
  }

  #listen() {
    /** @param {keyof HTMLElementEventMap} type @param {(event: any) => void} act */
    const listen = (type, act) => {
      /** @param {Event} event */
      const heard = (event) => {
        if (!this.on) return;
        // Zoom and picking listen on the way up.
        event.stopPropagation();
        if (event.cancelable && type !== "pointerdown") event.preventDefault();
        act(event);
      };
      this.stage.addEventListener(type, heard, { capture: true, passive: false });
    };
    listen("pointerdown", (event) => this.#pressed(event));
    listen("pointermove", (event) => this.#moved(event));
    listen("pointerup", () => this.#end());
    listen("pointercancel", () => this.#cancel());
    listen("wheel", (event) => event.deltaY && this.resize(event.deltaY < 0 ? 1 : -1));
    listen("click", () => {});
    listen("contextmenu", () => {});
    listen("touchmove", () => {});
    this.stage.addEventListener("pointerleave", () => this.ring.remove());
  }

  /** @param {PointerEvent} event */
  #pressed(event) {
    this.stage.focus({ preventScroll: true });
    const at = this.#under(event);
    if (at < 0 || this.stroke) return;
    this.stage.setPointerCapture(event.pointerId);
    this.#begin(at, this.#place(at, event), event.button === RIGHT || event.shiftKey);
  }

  /** @param {PointerEvent} event */
  #moved(event) {
    const at = this.stroke?.at ?? this.#under(event);
    if (at < 0) return this.ring.remove();
    const place = this.#place(at, event);
    this.#ringAt(at, place);
    if (!this.stroke) return;
    const { last } = this.stroke;
    const count = Math.ceil(2 * Math.hypot(place.x - last.x, place.y - last.y));
    for (let step = 1; step <= count; step++) {
      this.#dab({ x: last.x + ((place.x - last.x) * step) / count, y: last.y + ((place.y - last.y) * step) / count });
    }
    this.stroke.last = place;
    this.view.show(at, this.stroke.rows);
  }

  /** @param {number} at @param {Place} place @param {boolean} wipe */
  #begin(at, place, wipe) {
    const before = this.view.rows(at);
    this.stroke = { at, before, rows: before, last: place, wipe };
    this.#dab(place);
    this.view.show(at, this.stroke.rows);
  }

  /** @param {Place} place */
  #dab(place) {
    if (this.stroke) this.stroke.rows = dabbed(this.stroke.rows, place, SIZES[this.size], this.stroke.wipe);
  }

  #end() {
    const { stroke } = this;
    this.stroke = null;
    if (!stroke || String(stroke.rows) === String(stroke.before)) return;
    this.strokes.push({ at: stroke.at, rows: stroke.before });
    this.view.save(stroke.at, stroke.rows);
    this.view.changed();
  }

  #cancel() {
    if (this.stroke) this.view.show(this.stroke.at, this.stroke.before);
    this.stroke = null;
  }

  /** Which image is under the pointer, or -1. @param {PointerEvent} event */
  #under(event) {
    const path = event.composedPath();
    return this.view.frames().findIndex((frame) => path.includes(frame));
  }

  /** The place of a pointer on an image's grid. @param {number} at @param {PointerEvent} event @returns {Place} */
  #place(at, event) {
    const box = shown(this.view.frames()[at]);
    return {
      x: (CELLS * (event.clientX - box.left)) / box.width,
      y: (CELLS * (event.clientY - box.top)) / box.height,
    };
  }

  /** @param {number} at @param {Place} place */
  #ringAt(at, { x, y }) {
    const frame = this.view.frames()[at];
    const box = shown(frame);
    const outer = frame.getBoundingClientRect();
    const { style } = this.ring;
    style.left = `${box.left - outer.left + (x / CELLS) * box.width}px`;
    style.top = `${box.top - outer.top + (y / CELLS) * box.height}px`;
    this.cell = { width: box.width / CELLS, height: box.height / CELLS };
    this.#drawRing();
    if (this.ring.parentElement !== frame) frame.append(this.ring);
  }

  #drawRing() {
    if (!this.cell) return;
    this.ring.style.width = `${2 * SIZES[this.size] * this.cell.width}px`;
    this.ring.style.height = `${2 * SIZES[this.size] * this.cell.height}px`;
  }
}

/** Where a frame's picture is on the screen, without the margins that another shape leaves. @param {HTMLElement} frame */
function shown(frame) {
  const picture = frame.querySelector("img");
  const { left, top, width, height } = frame.getBoundingClientRect();
  const { naturalWidth = 1, naturalHeight = 1 } = picture ?? {};
  const scale = Math.min(width / (naturalWidth || 1), height / (naturalHeight || 1));
  const fit = { width: scale * (naturalWidth || 1), height: scale * (naturalHeight || 1) };
  return { ...fit, left: left + (width - fit.width) / 2, top: top + (height - fit.height) / 2 };
}
