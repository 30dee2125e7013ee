/**
 * The brush: while it is on, pointers paint over the part of an image that is meant, and pick nothing. The right button
 * or Shift wipes off, the wheel and [ ] change the size. With keys, arrows move it and Space paints. Every stroke is
 * saved as it ends, and leaving ends it, so that nothing is lost.
 */

import { el, mark } from "./dom.mjs";
import { CELLS, dabbed } from "./masks.mjs";

const SIZES = [1, 1.6, 2.5, 4, 6, 9];
const PAINTS = 0;
const WIPES = [2, 5]; // the right button, and a pen's other end
const NOTCH = 60;
const MOST_DABS = 256;

/** @typedef {{x: number, y: number}} Place in cells of the picture's grid */

export class Brush {
  /**
   * @param {HTMLElement} stage its frames have the class "frame"
   * @param {{frames: () => HTMLElement[], rows: (at: number) => number[], show: (at: number, rows: number[]) => void,
   *   save: (at: number, rows: number[]) => void, changed: () => void, deeds: () => number}} view
   *   `deeds` counts all else that can be taken back
   */
  constructor(stage, view) {
    this.stage = stage;
    this.view = view;
    this.on = false;
    this.size = 3;
    this.ring = el("span.ring", { "aria-hidden": "true" });
    /** @type {{at: number, rows: number[], deeds: number}[]} what this group's strokes have changed, in their order */
    this.strokes = [];
    /** @type {{at: number, pointer: number, before: number[], rows: number[], last: Place, wipe: boolean} | null} */
    this.stroke = null;
    /** Where keys paint. */
    this.cursor = { at: 0, x: CELLS / 2, y: CELLS / 2 };
    this.wheeled = 0;
    this.#listen();
  }

  /** A stroke under way is ended, and counts. @param {boolean} on @param {number} [at] the image that keys paint on */
  turn(on, at = -1) {
    this.end();
    if (on === this.on) return;
    this.on = on;
    this.cursor = { at: Math.max(0, at), x: CELLS / 2, y: CELLS / 2 };
    this.ring.remove();
    mark(this.stage, "brushing", on);
    this.view.changed();
  }

  /** Begins anew for another group; a stroke under way was meant for the one before, and is dropped. */
  next() {
    this.stroke = null;
    this.strokes = [];
    this.turn(false);
  }

  /** Takes the last stroke back, if nothing else was done since; whether there was one. */
  undo() {
    if (this.stroke) {
      this.#cancel();
      return true;
    }
    const last = this.strokes.at(-1);
    if (!last || this.view.deeds() > last.deeds) return false;
    this.strokes.pop();
    this.view.show(last.at, last.rows);
    this.view.save(last.at, last.rows);
    this.view.changed();
    return true;
  }

  /** Ends a stroke and saves it. */
  end() {
    const { stroke } = this;
    this.stroke = null;
    if (!stroke || String(stroke.rows) === String(stroke.before)) return;
    this.strokes.push({ at: stroke.at, rows: stroke.before, deeds: this.view.deeds() });
    this.view.save(stroke.at, stroke.rows);
    this.view.changed();
  }

  /** @param {number} by how many sizes larger */
  resize(by) {
    this.size = Math.min(SIZES.length - 1, Math.max(0, this.size + by));
    this.#drawRing();
  }

  /** Moves the place where keys paint. @param {[number, number]} by an arrow's direction */
  nudge([x, y]) {
    if (!this.view.frames()[this.cursor.at]) return;
    /** @param {number} value */
    const inside = (value) => Math.min(CELLS, Math.max(0, value));
    this.cursor = { ...this.cursor, x: inside(this.cursor.x + x), y: inside(this.cursor.y + y) };
    this.#ringAt(this.cursor.at, this.cursor);
  }

  /** Paints where the keys are. @param {boolean} wipe */
  dab(wipe) {
    const { at } = this.cursor;
    if (this.stroke || !this.view.frames()[at]) return;
    this.#ringAt(at, this.cursor);
    this.#begin(at, this.cursor, wipe, -1);
    this.end();
  }

  #listen() {
    /** @param {keyof HTMLElementEventMap} type @param {(event: any) => void} act */
    const listen = (type, act) => {
      /** @param {Event} event */
      const heard = (event) => {
        // A page is zoomed by Ctrl and the wheel.
        if (!this.on || (event instanceof WheelEvent && event.ctrlKey)) return;
        // Zoom and picking listen on the way up.
        event.stopPropagation();
        if (event.cancelable && type !== "pointerdown") event.preventDefault();
        act(event);
      };
      this.stage.addEventListener(type, heard, { capture: true, passive: false });
    };
    listen("pointerdown", (event) => this.#pressed(event));
    listen("pointermove", (event) => this.#moved(event));
    listen("pointerup", (event) => this.#isOurs(event) && this.end());
    listen("lostpointercapture", (event) => this.#isOurs(event) && this.end());
    listen("pointercancel", (event) => this.#isOurs(event) && this.#cancel());
    listen("wheel", (event) => this.#turned(event));
    listen("click", () => {});
    listen("contextmenu", () => {});
    listen("touchmove", () => {});
    this.stage.addEventListener("pointerleave", () => this.ring.remove());
  }

  /** @param {PointerEvent} event */
  #isOurs(event) {
    return this.stroke?.pointer === event.pointerId;
  }

  /** @param {PointerEvent} event */
  #pressed(event) {
    this.stage.focus({ preventScroll: true });
    const at = this.#under(event);
    const wipes = WIPES.includes(event.button);
    if (at < 0 || this.stroke || !(wipes || event.button === PAINTS)) return;
    this.stage.setPointerCapture(event.pointerId);
    this.#begin(at, this.#place(at, event), wipes || event.shiftKey, event.pointerId);
  }

  /** @param {PointerEvent} event */
  #moved(event) {
    if (this.stroke && !this.#isOurs(event)) return;
    const at = this.stroke?.at ?? this.#under(event);
    if (at < 0) return this.ring.remove();
    const place = this.#place(at, event);
    this.#ringAt(at, place);
    if (!this.stroke) return;
    // It was let go where nobody heard of it.
    if (event.buttons === 0) return this.end();
    const { last } = this.stroke;
    const count = Math.min(MOST_DABS, Math.ceil(2 * Math.hypot(place.x - last.x, place.y - last.y)));
    for (let step = 1; step <= count; step++) {
      this.#dab({ x: last.x + ((place.x - last.x) * step) / count, y: last.y + ((place.y - last.y) * step) / count });
    }
    this.stroke.last = place;
    this.view.show(at, this.stroke.rows);
  }

  /** Changes the size by a notch of a wheel, or as much of a trackpad. @param {WheelEvent} event */
  #turned(event) {
    this.wheeled = Math.sign(event.deltaY) === Math.sign(this.wheeled) ? this.wheeled + event.deltaY : event.deltaY;
    if (Math.abs(this.wheeled) < NOTCH) return;
    this.resize(this.wheeled < 0 ? 1 : -1);
    this.wheeled = 0;
  }

  /** @param {number} at @param {Place} place @param {boolean} wipe @param {number} pointer */
  #begin(at, place, wipe, pointer) {
    const before = this.view.rows(at);
    this.stroke = { at, pointer, before, rows: before, last: place, wipe };
    this.#dab(place);
    this.view.show(at, this.stroke.rows);
  }

  /** @param {Place} place */
  #dab(place) {
    if (this.stroke) this.stroke.rows = dabbed(this.stroke.rows, place, SIZES[this.size], this.stroke.wipe);
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
      x: (CELLS * (event.clientX - box.left)) / Math.max(1, box.width),
      y: (CELLS * (event.clientY - box.top)) / Math.max(1, box.height),
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
