/**
 * The blind check: pairs from before and after a Teach, unnamed and shuffled. The same keys as for picking. The answer
 * comes at the end, and then what to do with it.
 */

import { BlindResult } from "./blind_result.mjs";
import { el, icon, mark, say } from "./dom.mjs";
import { decoded } from "./preload.mjs";
import { Prompt, Stage } from "./stage.mjs";
import { Watch } from "./timing.mjs";
import { WorkLine } from "./waiting.mjs";

/** @typedef {import("./types").BlindPair} BlindPair */
/** @typedef {import("./types").Command} Command */
/** @typedef {import("./dom.mjs").IconName} IconName */
/** @typedef {import("./session.mjs").Session} Session */
/** @typedef {import("./types").ShellLike} ShellLike */
/** @typedef {import("./text.mjs").Text} Text */

const RETRY_MS = 1500;

export class BlindView {
  /**
   * @param {Session} session
   * @param {Text} text
   * @param {ShellLike} shell
   */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.shell = shell;
    this.visible = false;
    /** @type {BlindPair | null} the pair on screen */
    this.pair = null;
    /** how many pairs were answered here */
    this.answered = 0;
    /** the next pair is being fetched */
    this.fetching = false;
    /** @type {number | undefined} */
    this.waitTimer = undefined;
    this.watch = new Watch();
    this.prompt = new Prompt(text);
    const painted = () => this.watch.start(this.stage.paintedAt);
    this.stage = new Stage({
      text,
      chosen: (at, event) => this.answer(at, event.timeStamp),
      zoomed: () => this.#buttons(),
      painted,
    });
    this.waitWords = el("p", { class: "title" });
    this.work = new WorkLine(text);
    this.wait = el("div", { class: "empty", role: "status" }, this.waitWords, this.work.element);
    this.none = this.#tool("tie", "T", "blind.none", (event) => this.answer(null, event.timeStamp));
    this.zoomButton = this.#tool("zoom", "", "bar.zoom", () => this.stage.zoom.toggle());
    this.later = this.#tool("close", "", "blind.later", () => shell.go("pick"));
    const bar = el(
      "div",
      { class: "bar", role: "toolbar", "aria-label": text.t("bar.title") },
      this.none,
      this.zoomButton,
      this.later,
    );
    this.beads = el("div", { class: "beads", role: "img" });
    const middle = el("div", { class: "middle" }, this.stage.element, this.wait);
    this.asking = el(
      "div",
      { class: "pick asking" },
      this.prompt.element,
      middle,
      bar,
      el("div", { class: "foot" }, this.beads),
    );
    this.result = new BlindResult(session, text, shell);
    this.element = el(
      "section",
      { class: "blind", "aria-label": text.t("blind.title") },
      this.asking,
      this.result.element,
    );
    session.addEventListener("state", () => this.visible && this.refresh());
  }

  focus() {
    const inner = this.result.element.hidden ? this.stage.element : this.result.element;
    inner.focus({ preventScroll: true });
  }

  /** @param {boolean} on */
  shown(on) {
    this.visible = on;
    this.session.watch(on);
    this.stage.zoom.off();
    if (!on) return;
    this.refresh();
    this.#next();
  }

  get blind() {
    return this.session.state?.blind ?? null;
  }

  refresh() {
    const { blind } = this;
    const over = Boolean(blind?.result) && !this.session.outbox.waiting.some((entry) => entry.kind === "answer");
    const revealed = over && Boolean(this.result.element.hidden);
    this.asking.hidden = over;
    this.result.element.hidden = !over;
    if (over && blind?.result) this.result.refresh({ ...blind, result: blind.result }, revealed);
    if (revealed && this.visible) this.focus();
    this.#buttons();
    this.#drawBeads();
    if (!this.pair) this.#explainWait();
  }

  /**
   * @param {Command} command
   * @param {KeyboardEvent} event
   * @returns {boolean} whether it was ours
   */
  command(command, event) {
    if (!this.result.element.hidden) return false;
    if (command.name === "zoom") return this.#holdZoom(event);
    if (command.by) return this.#moved(command.by, event);
    if (event.repeat) return true;
    if (command.name === "choose" && command.at !== undefined) this.answer(command.at, event.timeStamp);
    else if (command.name === "tie") this.answer(null, event.timeStamp);
    else return command.name === "confirm";
    return true;
  }

  /** @param {KeyboardEvent} event */
  keyUp(event) {
    if (event.code === "Space") this.stage.zoom.hold(false);
  }

  leave() {
    if (!this.stage.zoom.on) return false;
    this.stage.zoom.off();
    return true;
  }

  /** @param {number | null} at position on screen, or null for no difference @param {number} now */
  answer(at, now) {
    if (!this.blind || !this.pair || (at !== null && at > 1) || !this.stage.ready(now)) return;
    const { index, images } = this.pair;
    const decision_ms = this.watch.read(now);
    this.pair = null;
    this.answered = index + 1;
    this.session
      .answerBlind(this.blind.check, index, at === null ? null : images[at].side, decision_ms)
      .then(() => this.#next());
    this.stage.clear();
    mark(this.asking, "waiting", true);
    this.#drawBeads();
    this.#explainWait();
    this.shell.speak(this.text.t(at === null ? "say.no_difference" : "say.answered", { n: (at ?? 0) + 1 }));
  }

  /** Asks for the next pair until there is one, or none is left. */
  async #next() {
    if (this.fetching || this.pair) return;
    this.fetching = true;
    while (this.visible && !this.session.stopped && this.blind && !this.blind.result) {
      const answer = await this.session.ask("blind/next", { check: this.blind.check });
      if (answer?.pair) {
        await this.#show(answer.pair);
        break;
      }
      await new Promise((done) => setTimeout(done, RETRY_MS));
    }
    this.fetching = false;
    this.refresh();
  }

  /** @param {BlindPair} pair */
  async #show(pair) {
    const { api, ending } = this.session;
    const pictures = await Promise.all(pair.images.map((image) => decoded(api.url(image.url), ending.signal)));
    this.pair = pair;
    this.wait.hidden = true;
    clearTimeout(this.waitTimer);
    mark(this.asking, "waiting", false);
    this.prompt.show(pair.prompt);
    const names = [1, 2].map((n) => this.text.t("pick.picture", { n, of: 2 }));
    this.stage.show(pictures, {
      label: this.text.t("blind.choose", { n: pair.index + 1, of: this.blind?.of ?? 0, prompt: pair.prompt }),
      names,
    });
    this.#buttons();
    this.#drawBeads();
    this.#warm(pair);
  }

  /** The next pair's images come into the browser's cache while this one is looked at. @param {BlindPair} pair */
  #warm({ index, images }) {
    const { blind } = this;
    if (!blind || index + 1 >= blind.of) return;
    const { api, path } = this.session;
    for (const { side } of images) {
      new Image().src = api.url(`${path}/blind/image/${blind.check}/${index + 1}/${side}`);
    }
  }

  #explainWait() {
    const { state, api } = this.session;
    if (this.wait.hidden && !this.waitTimer) this.waitTimer = setTimeout(() => this.#revealWait(), 400);
    say(this.waitWords, this.text.t(api.away ? "waiting.away" : this.blind ? "blind.wait" : "blind.gone"));
    this.work.refresh(api.away ? null : (state?.work ?? null));
  }

  #revealWait() {
    this.waitTimer = undefined;
    this.wait.hidden = Boolean(this.pair);
  }

  #drawBeads() {
    const { blind } = this;
    if (!blind) return;
    const done = Math.max(blind.done, this.answered);
    const beads = Array.from({ length: blind.of }, (_, at) =>
      el("span", { class: at < done ? "bead on" : at === done ? "bead now" : "bead" }),
    );
    this.beads.replaceChildren(...beads);
    this.beads.setAttribute("aria-label", this.text.t("blind.progress", { done, of: blind.of }));
  }

  #buttons() {
    this.none.disabled = this.zoomButton.disabled = !this.pair;
    this.zoomButton.setAttribute("aria-pressed", String(this.stage.zoom.on));
  }

  /** @param {[number, number]} by @param {KeyboardEvent} event */
  #moved([x, y], event) {
    if (this.stage.zoom.on) this.stage.zoom.nudge([x, y]);
    else if (!event.repeat && this.pair) {
      const way = x || (this.stage.stacked ? y : 0);
      if (way) this.answer(way > 0 ? 1 : 0, event.timeStamp);
    }
    return true;
  }

  /** @param {KeyboardEvent} event */
  #holdZoom(event) {
    if (!event.repeat && this.pair) this.stage.zoom.hold(true);
    return true;
  }

  /**
   * @param {IconName} name
   * @param {string} key
   * @param {string} label
   * @param {(event: MouseEvent) => void} press
   */
  #tool(name, key, label, press) {
    /** @param {MouseEvent} event */
    const clicked = (event) => {
      press(event);
      if (event.detail > 0) this.focus();
    };
    const words = el("span", { class: "label" }, this.text.t(label));
    const attributes = { type: "button", class: "tool", "data-tool": label, title: this.text.t(label) };
    const hint = key && el("kbd", { "aria-hidden": "true" }, key);
    return el("button", { ...attributes, onclick: clicked }, icon(name), words, hint);
  }
}
