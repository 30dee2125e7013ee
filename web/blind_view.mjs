/**
 * The blind check: pairs from before and after a Teach, unnamed and shuffled. The same keys as for picking. The answer
 * comes at the end, and then what to do with it.
 */

import { BlindResult } from "./blind_result.mjs";
import { el, mark, say } from "./dom.mjs";
import { decoded } from "./preload.mjs";
import { StageView } from "./stage.mjs";
import { WorkLine } from "./waiting.mjs";

/** @import { BlindPair, Command, IconName, Session, ShellLike, Text } from "./types" */

const RETRY_MS = 1500;

export class BlindView extends StageView {
  /** @param {Session} session @param {Text} text @param {ShellLike} shell */
  constructor(session, text, shell) {
    super(session, text, shell);
    /** @type {BlindPair | null} the pair on screen */
    this.pair = null;
    /** how many pairs were answered here */
    this.answered = 0;
    /** the next pair is being fetched */
    this.fetching = false;
    /** a new one whenever what is being fetched must not be shown any more */
    this.edition = {};
    /** the check that this is about */
    this.check = "";
    /** @type {number | undefined} */
    this.waitTimer = undefined;
    this.waitWords = el("p.title");
    this.work = new WorkLine(text);
    this.wait = el("div.empty", { role: "status" }, this.waitWords, this.work.element);
    this.none = this.#tool("tie", "T", "blind.none", (event) => this.answer(null, event.timeStamp));
    this.undo = this.#tool("undo", "Z", "bar.undo", () => this.takeBack());
    this.zoomButton = this.#tool("zoom", "", "bar.zoom", () => this.stage.zoom.toggle());
    const later = this.#tool("close", "", "blind.later", () => shell.go("pick"));
    const toolbar = { role: "toolbar", "aria-label": text.t("bar.title") };
    this.beads = el("div.beads", { role: "img" });
    this.asking = el(
      "div.pick.asking",
      {},
      this.prompt.element,
      el("div.middle", {}, this.stage.element, this.wait),
      el("div.bar", toolbar, this.undo, this.none, this.zoomButton, later),
      el("div.foot", {}, this.beads),
    );
    this.result = new BlindResult(session, text, shell);
    this.element = el("section.blind", { "aria-label": text.t("blind.title") }, this.asking, this.result.element);
    session.addEventListener("state", () => this.#visible && this.refresh());
  }

  focus() {
    if (this.result.element.hidden) super.focus();
    else this.result.element.focus({ preventScroll: true });
  }

  /** @param {boolean} on */
  shown(on) {
    this.session.watch(on);
    this.stage.zoom.off();
    if (!on) return;
    this.refresh();
    this.#next();
  }

  get #visible() {
    return !this.element.hidden;
  }

  get blind() {
    return this.session.state?.blind ?? null;
  }

  refresh() {
    const { blind } = this;
    if (this.check !== (blind?.check ?? "")) this.#begin(blind?.check ?? "");
    const over = Boolean(blind?.result) && !this.session.outbox.waiting.some((entry) => entry.kind === "answer");
    const revealed = over && Boolean(this.result.element.hidden);
    this.asking.hidden = over;
    this.result.element.hidden = !over;
    if (over && blind?.result) this.result.refresh({ ...blind, result: blind.result }, revealed);
    if (revealed && this.#visible) this.focus();
    this.refreshButtons();
    this.#drawBeads();
    if (!this.pair) this.#explainWait();
  }

  /** Another check has come, or the one that was shown is gone. @param {string} check */
  #begin(check) {
    this.check = check;
    this.answered = 0;
    this.#clear();
    this.#next();
  }

  /** Takes the pair away; one that is being fetched will not be shown. */
  #clear() {
    this.edition = {};
    this.fetching = false;
    this.pair = null;
    this.stage.clear();
    mark(this.asking, "waiting", true);
  }

  /** @param {Command} command @param {KeyboardEvent} event */
  command(command, event) {
    return this.result.element.hidden && super.command(command, event);
  }

  /** @param {string} name @param {number} at @param {number} now */
  act(name, at, now) {
    if (name === "choose") this.answer(at, now);
    if (name === "tie") this.answer(null, now);
    if (name === "undo") this.takeBack();
    return ["choose", "tie", "confirm", "undo"].includes(name);
  }

  /** @param {[number, number]} by @param {KeyboardEvent} event */
  move(by, event) {
    const side = this.stage.side(by);
    if (!event.repeat && side >= 0) this.answer(side, event.timeStamp);
  }

  /** @param {number} at @param {MouseEvent} event */
  pressed(at, event) {
    this.answer(at, event.timeStamp);
  }

  /** @param {number | null} at position on screen, or null for no difference @param {number} now */
  answer(at, now) {
    if (!this.blind || !this.pair || (at !== null && at > 1) || !this.stage.ready(now)) return;
    const { index, images } = this.pair;
    const decision_ms = this.watch.read(now);
    const side = at === null ? null : images[at].side;
    this.answered = index + 1;
    this.#clear();
    this.session.answerBlind(this.blind.check, index, side, decision_ms).then(() => this.#next());
    this.#drawBeads();
    this.#explainWait();
    this.shell.speak(this.text.t(at === null ? "say.no_difference" : "say.answered", { n: (at ?? 0) + 1 }));
  }

  /** Takes the last answer back; once all are given, the sides are known, and it stays. */
  async takeBack() {
    const { blind, session } = this;
    if (!blind || !this.#done) return;
    await session.outbox.empty();
    const answer = await session.ask("blind/undo", { check: blind.check });
    if (!answer?.blind || answer.blind.check !== this.check) return;
    this.answered = answer.blind.done;
    this.#clear();
    this.shell.speak(this.text.t("say.undone"));
    this.#next();
  }

  /** How many pairs are answered, here or before. */
  get #done() {
    return Math.max(this.blind?.done ?? 0, this.answered);
  }

  /** Asks for the next pair until there is one, or none is left. */
  async #next() {
    if (this.fetching || this.pair) return;
    const { edition } = this;
    this.fetching = true;
    while (this.#visible && !this.session.stopped && this.blind && !this.blind.result) {
      const answer = await this.session.ask("blind/next", { check: this.blind.check });
      if (edition !== this.edition) return;
      if (answer?.pair) {
        await this.#show(answer.pair);
        if (edition !== this.edition) return;
        break;
      }
      await new Promise((done) => setTimeout(done, RETRY_MS));
      if (edition !== this.edition) return;
    }
    this.fetching = false;
    this.refresh();
  }

  /** @param {BlindPair} pair */
  async #show(pair) {
    const { edition, session } = this;
    const { api, ending } = session;
    const pictures = await Promise.all(pair.images.map((image) => decoded(api.url(image.url), ending.signal)));
    if (edition !== this.edition) return;
    this.pair = pair;
    this.wait.hidden = true;
    clearTimeout(this.waitTimer);
    this.waitTimer = undefined;
    mark(this.asking, "waiting", false);
    this.prompt.show(pair.prompt);
    const values = { n: pair.index + 1, of: this.blind?.of ?? 0, prompt: pair.prompt };
    this.stage.show(pictures, this.text.t("blind.choose", values));
    this.refreshButtons();
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
    const done = this.#done;
    const beads = Array.from({ length: blind.of }, (_, at) =>
      el("span", { class: at < done ? "bead on" : at === done ? "bead now" : "bead" }),
    );
    this.beads.replaceChildren(...beads);
    this.beads.setAttribute("aria-label", this.text.t("blind.progress", { done, of: blind.of }));
  }

  refreshButtons() {
    this.undo.disabled = !this.#done;
    this.none.disabled = this.zoomButton.disabled = !this.pair;
    this.zoomButton.setAttribute("aria-pressed", String(this.stage.zoom.on));
  }

  /** @param {IconName} name @param {string} key @param {string} label @param {(event: MouseEvent) => void} press */
  #tool(name, key, label, press) {
    return this.tool(name, key, label, { "data-tool": label, title: this.text.t(label) }, press);
  }
}
