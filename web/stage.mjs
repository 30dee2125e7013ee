/**
 * The images of one group: equal frames, as large as the space allows, all at once. For a screen reader it is a list
 * to choose from, which keeps the focus while the highlight moves. Used by picking and by the blind check.
 */

import { button, el, icon, mark, say } from "./dom.mjs";
import { Watch } from "./timing.mjs";
import { Zoom } from "./zoom.mjs";

/** @import { Attributes, Command, IconName, Session, ShellLike, Text } from "./types" */

// Input so soon after a group has appeared was meant for the one before.
const GUARD_MS = 150;

export class Stage {
  /** @param {StageView} view */
  constructor(view) {
    this.view = view;
    /** @type {HTMLElement[]} */
    this.frames = [];
    this.paintedAt = Infinity;
    this.highlight = -1;
    this.byKeys = false;
    this.element = el("div.stage", { role: "listbox", tabindex: 0, "aria-orientation": "horizontal" });
    this.zoom = new Zoom(this.element, () => view.refreshButtons());
    // A key that is let go elsewhere would never be heard of.
    this.element.addEventListener("blur", () => this.zoom.hold(false));
    // On the way down: a brush keeps it from going up.
    this.element.addEventListener("pointermove", (event) => this.#pointed(event), { capture: true });
    this.size = { width: 0, height: 0, gap: 8 };
    /** @type {{x: number, y: number} | null} */
    this.pointer = null;
    this.aspect = 1;
    this.grid = bestGrid(1, 1, this.size);
    new ResizeObserver(([entry]) => this.#resized(entry.contentRect)).observe(this.element);
  }

  /** @param {HTMLImageElement[]} pictures decoded @param {string} label for the ear */
  show(pictures, label) {
    this.paintedAt = Infinity;
    this.highlight = -1;
    this.aspect = commonAspect(pictures);
    this.frames = pictures.map((picture, at) => this.#frame(picture, at, pictures.length));
    this.element.setAttribute("aria-label", label);
    this.element.removeAttribute("aria-activedescendant");
    this.element.removeAttribute("aria-busy");
    this.#lay();
    this.zoom.next(Math.min(4, Math.max(2, pictures[0].naturalWidth / (this.grid.width || 1))));
    this.element.replaceChildren(...this.frames);
    requestAnimationFrame(() => setTimeout(() => this.#isPainted(pictures)));
  }

  clear() {
    this.paintedAt = Infinity;
    this.frames = [];
    this.element.setAttribute("aria-busy", "true");
    this.element.replaceChildren();
  }

  /** Whether input at this moment (an event's timeStamp) can be meant for what is on screen. @param {number} now */
  ready(now) {
    return now - this.paintedAt >= GUARD_MS;
  }

  /**
   * Shows small marks in the frames' corners: the number, or what `label` says instead.
   * @param {number} at @param {string} label
   */
  badge(at, label, look = "") {
    const badge = /** @type {HTMLElement} */ (this.frames[at].querySelector(".badge"));
    say(badge, label);
    badge.dataset.look = look;
  }

  /**
   * Moves the highlight.
   * @param {[number, number]} by an arrow's direction @returns {number} the position that is highlighted now
   */
  move([x, y]) {
    this.byKeys = true;
    const { columns } = this.grid;
    const last = this.frames.length - 1;
    if (this.highlight < 0) return this.point(x + y > 0 ? 0 : last);
    const to = this.highlight + x + y * columns;
    return this.point(to < 0 || to > last ? this.highlight : to);
  }

  /** Highlights a position; -1 for none. @param {number} at */
  point(at) {
    this.highlight = at;
    this.frames.forEach((frame, one) => {
      mark(frame, "highlighted", one === at);
      frame.setAttribute("aria-selected", String(one === at));
    });
    if (at >= 0) this.element.setAttribute("aria-activedescendant", this.frames[at].id);
    return at;
  }

  /**
   * The position that a key without a number means: what the mouse is over, or what the arrows point at, whichever was
   * used last; -1 for none. A mouse that only rests there means nothing to somebody who picks by keys.
   */
  get aim() {
    const under = this.byKeys ? -1 : this.frames.findIndex((frame) => frame.matches(":hover"));
    return under >= 0 ? under : this.highlight;
  }

  /** Some browsers send a move where only the image under the mouse has changed. @param {MouseEvent} event */
  #pointed({ clientX, clientY }) {
    if (this.pointer?.x !== clientX || this.pointer?.y !== clientY) this.byKeys = false;
    this.pointer = { x: clientX, y: clientY };
  }

  /** Which of two images an arrow means, or -1. @param {[number, number]} by */
  side([x, y]) {
    const way = x || (this.grid.columns === 1 ? y : 0);
    return way ? Number(way > 0) : -1;
  }

  /** @param {HTMLImageElement} picture @param {number} at @param {number} of */
  #frame(picture, at, of) {
    /** @param {MouseEvent} event */
    const press = (event) => {
      if (this.zoom.takesClick()) return;
      this.element.focus({ preventScroll: true });
      this.view.pressed(at, event);
    };
    const badge = el("span.badge", { "aria-hidden": "true" }, this.view.text.value(at + 1));
    const name = this.view.text.t("pick.picture", { n: at + 1, of });
    const option = { role: "option", id: `picture-${at + 1}`, "aria-label": name, "aria-selected": "false" };
    return el("div.frame", { ...option, onclick: press }, picture, badge, this.view.marks());
  }

  /** @param {HTMLImageElement[]} pictures */
  #isPainted(pictures) {
    if (!pictures[0].isConnected) return;
    this.paintedAt = performance.now();
    this.view.watch.start(this.paintedAt);
  }

  /** @param {{width: number, height: number}} box */
  #resized({ width, height }) {
    this.size = { width, height, gap: width < 480 ? 6 : 10 };
    if (this.frames.length) this.#lay();
  }

  #lay() {
    this.grid = bestGrid(this.frames.length, this.aspect, this.size);
    const { style } = this.element;
    style.setProperty("--columns", String(this.grid.columns));
    style.setProperty("--width", `${this.grid.width}px`);
    style.setProperty("--height", `${this.grid.height}px`);
    style.setProperty("--gap", `${this.size.gap}px`);
  }
}

/**
 * The grid that shows equal images as large as they can be.
 * @param {number} count pictures @param {number} aspect width / height of a picture
 * @param {{width: number, height: number, gap: number}} space in CSS pixels
 * @returns {{columns: number, rows: number, width: number, height: number}} of the grid, and of one picture
 */
export function bestGrid(count, aspect, { width, height, gap }) {
  let best = { columns: 1, rows: count, width: 0, height: 0 };
  let holes = 0;
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const across = (width - gap * (columns - 1)) / columns;
    const down = (height - gap * (rows - 1)) / rows;
    const fit = Math.floor(Math.max(0, Math.min(across, down * aspect)));
    const left = columns * rows - count;
    // A full grid wins a tie, then side by side: eyes compare better across than up and down.
    if (fit < best.width || (fit === best.width && left > holes)) continue;
    best = { columns, rows, width: fit, height: Math.floor(fit / aspect) };
    holes = left;
  }
  return best;
}

/**
 * The shape that all frames of a group get. Images of several shapes are shown whole inside it.
 * @param {HTMLImageElement[]} pictures
 */
export function commonAspect(pictures) {
  const logs = pictures.map((picture) => Math.log(picture.naturalWidth / picture.naturalHeight));
  return Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length);
}

/** What picking and the blind check share: a prompt, a stage, a stopwatch, buttons, and keys for looking closer. */
export class StageView {
  /** @param {Session} session @param {Text} text @param {ShellLike} shell */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.shell = shell;
    this.watch = new Watch();
    this.prompt = new Prompt(text);
    this.stage = new Stage(this);
  }

  focus() {
    this.stage.element.focus({ preventScroll: true });
  }

  /** @param {Command} command @param {KeyboardEvent} event @returns {boolean} whether it was ours */
  command({ name, by, at = -1 }, event) {
    const { zoom, frames } = this.stage;
    if (name === "zoom" && !event.repeat && frames.length) zoom.hold(true);
    else if (by && zoom.on) zoom.nudge(by);
    else if (by && frames.length) this.move(by, event);
    return name === "zoom" || Boolean(by) || event.repeat || this.act(name, at, event.timeStamp);
  }

  /** @param {KeyboardEvent} event */
  keyUp(event) {
    if (event.code === "Space") this.stage.zoom.hold(false);
  }

  /** Ends looking closer; whether there was something to leave. */
  leave() {
    if (!this.stage.zoom.on) return false;
    this.stage.zoom.off();
    return true;
  }

  /**
   * A button below the images. After a mouse, the keys go on acting on the images, and Space must not press it again.
   * @param {IconName} name @param {string} key its key, or "" @param {string} label
   * @param {Attributes} attributes @param {(event: MouseEvent) => void} press
   */
  tool(name, key, label, attributes, press) {
    /** @param {MouseEvent} event */
    const onclick = (event) => {
      press(event);
      if (event.detail > 0) this.focus();
    };
    const hint = key && el("kbd", { "aria-hidden": "true" }, key);
    return button("tool", { ...attributes, onclick }, icon(name), el("span.label", {}, this.text.t(label)), hint);
  }

  // What each of the two does in its own way

  refreshButtons() {}

  /** Makes what is laid on each image. @returns {Node | null} */
  marks() {
    return null;
  }

  /** @param {number} _at @param {MouseEvent} _event */
  pressed(_at, _event) {}

  /** Takes an arrow key. @param {[number, number]} _by @param {KeyboardEvent} _event */
  move(_by, _event) {}

  /** Takes another key; whether it was ours. @param {string} _name @param {number} _at @param {number} _now */
  act(_name, _at, _now) {
    return false;
  }
}

/** The prompt above the images: two lines, and all of it on a press where that is not enough. */
export class Prompt {
  /** @param {Text} text */
  constructor(text) {
    this.words = el("span.words");
    this.more = button("more", { hidden: true, onclick: () => this.#toggle() });
    this.element = el("div.prompt", {}, this.words, this.more);
    this.text = text;
    new ResizeObserver(() => this.#measure()).observe(this.words);
  }

  /** @param {string} prompt */
  show(prompt) {
    if (this.words.textContent === prompt) return;
    this.element.removeAttribute("open");
    say(this.words, prompt);
    this.#measure();
  }

  /** Measured after the frame, so that showing the next group never waits for it. */
  #measure() {
    requestAnimationFrame(() => {
      const open = this.element.hasAttribute("open");
      this.more.hidden = !open && this.words.scrollHeight <= this.words.clientHeight + 2;
      say(this.more, this.text.t(open ? "prompt.less" : "prompt.more"));
      this.more.setAttribute("aria-expanded", String(open));
    });
  }

  #toggle() {
    this.element.toggleAttribute("open");
    this.#measure();
  }
}
