/**
 * Looking closer, at the same point of every image at once. It is on while Space or a long press holds it, or until
 * it is switched off (button, pinch, wheel with Ctrl). Written into CSS variables of the stage, which images follow.
 */

const FIRST = 2;
const MOST = 8;
const STEP = 0.08;
const LONG_PRESS_MS = 380;
const STILL_PX = 10;

export class Zoom {
  /** @param {HTMLElement} stage its frames have the class "frame" @param {() => void} changed */
  constructor(stage, changed) {
    this.stage = stage;
    this.changed = changed;
    this.factor = 1;
    this.held = false;
    this.kept = false;
    this.point = [0.5, 0.5];
    this.usual = FIRST;
    /** it was pinched or wheeled, for this group alone */
    this.pinched = false;
    /** a long press holds it */
    this.pressing = false;
    /** the click that comes next belongs to a gesture */
    this.wasGesture = false;
    /** @type {Map<number, PointerEvent>} fingers on the stage */
    this.fingers = new Map();
    this.listen();
  }

  get on() {
    return this.held || this.kept;
  }

  /**
   * A new group: what is held stays, and what the button switched on; a pinch was meant for the one before.
   * @param {number} usual
   */
  next(usual) {
    this.usual = usual;
    if (this.pinched) this.off();
    else this.#draw();
  }

  /** @param {boolean} on */
  hold(on) {
    this.held = on;
    this.#draw();
  }

  toggle() {
    this.kept = !this.kept;
    this.factor = 1;
    this.pinched = false;
    this.#draw();
  }

  off() {
    this.held = this.kept = this.pinched = false;
    this.factor = 1;
    this.#draw();
  }

  /** An arrow key. @param {[number, number]} by */
  nudge([x, y]) {
    this.#look(this.point[0] + STEP * x, this.point[1] + STEP * y);
  }

  /** Whether the click that follows a gesture was none. */
  takesClick() {
    const taken = this.wasGesture;
    this.wasGesture = false;
    return taken;
  }

  /** How large it is shown now. */
  get #current() {
    if (!this.on) return 1;
    return this.factor > 1 ? this.factor : this.usual;
  }

  #draw() {
    this.stage.style.setProperty("--zoom", String(this.#current));
    this.stage.style.setProperty("--x", `${this.point[0] * 100}%`);
    this.stage.style.setProperty("--y", `${this.point[1] * 100}%`);
    this.stage.toggleAttribute("zoomed", this.on);
    this.changed();
  }

  /** @param {number} x @param {number} y */
  #look(x, y) {
    this.point = [Math.min(1, Math.max(0, x)), Math.min(1, Math.max(0, y))];
    if (this.on) this.#draw();
  }

  /** Looks where the pointer is within the image under it. @param {MouseEvent} event */
  #follow(event) {
    const frame = event.composedPath().find((node) => node instanceof Element && node.classList.contains("frame"));
    if (!(frame instanceof Element)) return;
    const box = frame.getBoundingClientRect();
    this.#look((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }

  /** @param {number} ratio */
  #by(ratio) {
    this.factor = Math.min(MOST, Math.max(1, this.#current * ratio));
    this.kept = this.pinched = this.factor > 1.02;
    if (!this.kept) return this.off();
    this.#draw();
  }

  listen() {
    const { stage } = this;
    stage.addEventListener("pointermove", (event) => this.#moved(event));
    stage.addEventListener("pointerdown", (event) => this.#touched(event));
    stage.addEventListener("pointerup", (event) => this.#lifted(event));
    stage.addEventListener("pointercancel", (event) => this.#lifted(event));
    stage.addEventListener("wheel", (event) => this.#wheeled(event), { passive: false });
    // A page must not scroll under a finger that looks around.
    stage.addEventListener("touchmove", (event) => this.on && event.cancelable && event.preventDefault(), {
      passive: false,
    });
    stage.addEventListener("contextmenu", (event) => this.fingers.size && event.preventDefault());
  }

  /** @param {WheelEvent} event */
  #wheeled(event) {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.#follow(event);
    this.#by(Math.exp(-event.deltaY / 240));
  }

  /** @param {PointerEvent} event */
  #touched(event) {
    if (event.pointerType !== "touch") return;
    this.wasGesture = false;
    this.fingers.set(event.pointerId, event);
    clearTimeout(this.longPress);
    if (this.fingers.size > 1) return this.#release();
    this.#follow(event);
    this.longPress = setTimeout(() => {
      this.wasGesture = true;
      this.pressing = true;
      this.hold(true);
    }, LONG_PRESS_MS);
  }

  /** @param {PointerEvent} event */
  #moved(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return this.#follow(event);
    if (this.fingers.size === 2) this.#pinch(event, before);
    else if (this.on && this.#strayed(event, before)) {
      this.wasGesture = true;
      this.#follow(event);
    } else if (this.#strayed(event, before)) clearTimeout(this.longPress);
    if (this.fingers.size === 2) this.fingers.set(event.pointerId, event);
  }

  /** @param {PointerEvent} event @param {PointerEvent} before */
  #strayed(event, before) {
    return this.pressing || Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY) > STILL_PX;
  }

  /** @param {PointerEvent} event @param {PointerEvent} before */
  #pinch(event, before) {
    const other = [...this.fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
    if (!other) return;
    /** @param {PointerEvent} one */
    const apart = (one) => Math.max(1, Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY));
    this.wasGesture = true;
    this.#by(apart(event) / apart(before));
  }

  /** @param {PointerEvent} event */
  #lifted(event) {
    this.fingers.delete(event.pointerId);
    clearTimeout(this.longPress);
    if (!this.fingers.size) this.#release();
  }

  #release() {
    if (!this.pressing) return;
    this.pressing = false;
    this.hold(false);
  }
}
