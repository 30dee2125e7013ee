/** Picking: a prompt, its images, and what can be said about them. The heart of the gallery. */

import { el, mark } from "./dom.mjs";
import { flagMarks, hasFlag, nameWithFlags, pressedFlag, showFlags } from "./flags.mjs";
import { PickBar, PickFoot } from "./pick_controls.mjs";
import { Prompt, Stage } from "./stage.mjs";
import { Watch } from "./timing.mjs";
import { Waiting } from "./waiting.mjs";

/** @typedef {import("./types").Command} Command */
/** @typedef {import("./types").PickKind} PickKind */
/** @typedef {import("./preload.mjs").Prepared} Prepared */
/** @typedef {import("./session.mjs").Session} Session */
/** @typedef {import("./types").ShellLike} ShellLike */
/** @typedef {import("./text.mjs").Text} Text */

// The last flag of a group ends it; another press so soon after was still meant for that image.
const FLAG_GUARD_MS = 600;

export class PickView {
  /**
   * @param {Session} session
   * @param {Text} text
   * @param {ShellLike} shell
   */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.shell = shell;
    this.ranking = new Ranking();
    this.rankMode = false;
    this.flagMode = false;
    /** The flag for which an image is to be named, or "". */
    this.asking = "";
    this.flagsFrom = 0;
    this.watch = new Watch();
    this.prompt = new Prompt(text);
    this.stage = new Stage({
      text,
      chosen: (at, event) => this.#pressed(at, event),
      zoomed: () => this.bar.refresh(),
      painted: () => this.watch.start(this.stage.paintedAt),
      marks: () => flagMarks(text),
    });
    this.waiting = new Waiting(session, text, shell);
    this.bar = new PickBar(this, text);
    this.foot = new PickFoot(session, text, shell);
    this.element = el(
      "section",
      { class: "pick", "aria-label": text.t("pick.title") },
      this.prompt.element,
      el("div", { class: "middle" }, this.stage.element, this.waiting.element),
      this.bar.element,
      this.foot.element,
    );
    session.addEventListener("group", () => this.#show());
    session.addEventListener("flags", () => this.#badges());
    session.addEventListener("state", () => this.refresh());
    document.addEventListener("visibilitychange", () => this.#look(!document.hidden), {
      signal: session.ending.signal,
    });
    this.#show();
  }

  focus() {
    this.stage.element.focus({ preventScroll: true });
  }

  /** The view is on screen or not; the watch counts only while a person looks. @param {boolean} on */
  shown(on) {
    this.#look(on);
    if (!on) this.stage.zoom.off();
  }

  refresh() {
    this.waiting.refresh(this.session.current !== null);
    this.bar.refresh();
    this.foot.refresh();
  }

  /**
   * @param {Command} command
   * @param {KeyboardEvent} event
   * @returns {boolean} whether it was ours
   */
  command(command, event) {
    if (command.name === "zoom") return this.#holdZoom(event);
    if (command.by) return this.#moved(command.by, event);
    if (event.repeat) return true;
    if (command.at !== undefined) this.stage.byKeys = true;
    const { at = -1 } = command;
    const now = event.timeStamp;
    /** @type {Record<string, () => void>} */
    const acts = {
      choose: () => this.choose(at, now),
      rank: () => this.rank(at, now),
      defective: () => this.flag("defective", now),
      unsafe: () => this.flag("unsafe", now),
      confirm: () => this.confirm(now),
      tie: () => this.say("tie", now),
      all_bad: () => this.say("all_bad", now),
      skip: () => this.say("skipped", now),
      undo: () => this.undo(),
    };
    const act = acts[command.name];
    act?.();
    return Boolean(act);
  }

  /** @param {KeyboardEvent} event */
  keyUp(event) {
    if (event.code === "Space") this.stage.zoom.hold(false);
  }

  /** @returns {boolean} whether there was something to leave */
  leave() {
    if (this.asking) return this.#ask("");
    if (!this.stage.zoom.on) return false;
    this.stage.zoom.off();
    return true;
  }

  /** @param {number} at @param {number} now */
  choose(at, now) {
    if (this.asking) this.#flag(at, this.asking, now);
    else if (this.rankMode || this.ranking.order.length) this.rank(at, now);
    else if (this.#accepts(at, now)) this.#pick("favourite", [at], now);
  }

  /** @param {number} at @param {number} now */
  rank(at, now) {
    if (!this.#accepts(at, now)) return;
    const complete = this.ranking.add(at);
    if (complete) return this.#finishRanking(now);
    this.#badges();
    this.shell.speak(this.text.t("say.ranked", { n: at + 1, place: this.ranking.place(at) }));
  }

  /** Enter: a ranking in the making is confirmed, or the highlighted picture is the favourite. @param {number} now */
  confirm(now) {
    if (!this.#accepts(0, now)) return;
    if (this.asking) return void (this.stage.highlight >= 0 && this.#flag(this.stage.highlight, this.asking, now));
    if (this.ranking.order.length && !this.rankMode) return this.#finishRanking(now);
    if (this.rankMode) return this.#confirmInRankMode(now);
    if (this.stage.highlight >= 0) this.#pick("favourite", [this.stage.highlight], now);
  }

  /**
   * Flags the image that is pointed at, or takes that off again; without one, the next number or press names it.
   * @param {string} kind
   * @param {number} now
   */
  flag(kind, now) {
    if (!this.#accepts(0, now)) return;
    const { aim } = this.stage;
    if (this.asking || aim < 0) this.#ask(this.asking === kind ? "" : kind);
    else this.#flag(aim, kind, now);
  }

  /** @param {boolean} on */
  setFlagMode(on) {
    this.flagMode = on;
    mark(this.stage.element, "flagging", on);
    this.bar.refresh();
  }

  /** @param {PickKind} kind @param {number} now */
  say(kind, now) {
    if (this.#accepts(0, now)) this.#pick(kind, [], now);
  }

  undo() {
    if (this.asking) return void this.#ask("");
    if (this.ranking.order.length) {
      this.ranking.back();
      return this.#badges();
    }
    if (!this.session.canUndo) return;
    this.session.undo();
    this.shell.speak(this.text.t("say.undone"));
  }

  /** @param {boolean} on */
  setRankMode(on) {
    this.rankMode = on;
    this.ranking.begin(this.stage.frames.length);
    this.#badges();
  }

  /**
   * Asks for the image that a flag is meant for; "" asks no more.
   * @param {string} kind
   * @returns {true}
   */
  #ask(kind) {
    this.asking = kind;
    this.#badges();
    if (kind) this.shell.speak(this.text.t("say.which", { flag: this.text.t(`flag.${kind}`) }));
    return true;
  }

  /** @param {number} at @param {string} kind @param {number} now */
  #flag(at, kind, now) {
    const { current } = this.session;
    if (!current || !this.#accepts(at, now) || now < this.flagsFrom) return;
    this.asking = "";
    const { images } = current.card;
    const on = this.session.flag(images[at].candidate, kind);
    const flags = this.session.current?.card.flags ?? [];
    const values = { n: at + 1, flag: this.text.t(`flag.${kind}`) };
    this.shell.speak(this.text.t(on ? "say.flagged" : "say.unflagged", values));
    // Nothing is left to be said about these.
    if (on && images.every(({ candidate }) => hasFlag(flags, candidate))) {
      this.flagsFrom = now + FLAG_GUARD_MS;
      this.#pick("all_bad", [], now);
    }
  }

  /** @param {number} at @param {MouseEvent} event */
  #pressed(at, event) {
    const kind = pressedFlag(event);
    if (kind) this.#flag(at, kind, event.timeStamp);
    else if (event.shiftKey) this.rank(at, event.timeStamp);
    else this.choose(at, event.timeStamp);
  }

  /**
   * With arrows and Enter alone a whole ranking can be made: Enter ranks what is new, and confirms what is ranked.
   * @param {number} now
   */
  #confirmInRankMode(now) {
    const at = this.stage.highlight;
    if (at >= 0 && !this.ranking.place(at)) this.rank(at, now);
    else if (this.ranking.order.length) this.#finishRanking(now);
  }

  /** @param {number} now */
  #finishRanking(now) {
    // With two images a ranking says no more than the favourite.
    const two = this.stage.frames.length === 2;
    this.#pick(two ? "favourite" : "ranking", two ? this.ranking.order.slice(0, 1) : this.ranking.order, now);
  }

  /** @param {number} at @param {number} now */
  #accepts(at, now) {
    return Boolean(this.session.current) && at < this.stage.frames.length && this.stage.ready(now);
  }

  /** @param {PickKind} kind @param {number[]} positions best first @param {number} now */
  #pick(kind, positions, now) {
    const images = this.session.current?.card.images ?? [];
    const decision_ms = this.watch.read(now);
    this.watch.stop();
    const order = positions.map((at) => images[at].candidate);
    this.session.pick(kind, order, decision_ms);
    const next = this.session.current;
    const picked = this.text.t(`say.${kind}`, { n: positions[0] + 1 });
    this.shell.speak(next ? this.text.t("say.next", { picked, prompt: next.card.prompt }) : picked);
  }

  /** @param {[number, number]} by @param {KeyboardEvent} event */
  #moved(by, event) {
    if (this.stage.zoom.on) this.stage.zoom.nudge(by);
    else if (!this.session.current) return true;
    else if (this.stage.frames.length > 2 || this.rankMode) this.stage.move(by);
    else if (!event.repeat) this.#pickByArrow(by, event.timeStamp);
    return true;
  }

  /** @param {[number, number]} by @param {number} now */
  #pickByArrow([x, y], now) {
    const way = x || (this.stage.stacked ? y : 0);
    if (way) this.choose(way > 0 ? 1 : 0, now);
  }

  /** @param {KeyboardEvent} event */
  #holdZoom(event) {
    if (!event.repeat && this.session.current) this.stage.zoom.hold(true);
    return true;
  }

  #show() {
    const { current } = this.session;
    mark(this.element, "waiting", !current);
    this.prompt.show(current?.card.prompt ?? "");
    if (current) this.#showGroup(current);
    else this.stage.clear();
    this.refresh();
  }

  /** @param {Prepared} prepared */
  #showGroup({ card, pictures }) {
    const { text } = this;
    const n = pictures.length;
    this.ranking.begin(n);
    this.asking = "";
    const names = pictures.map((_, at) => text.t("pick.picture", { n: at + 1, of: n }));
    this.stage.show(pictures, { label: text.t("pick.choose", { n, prompt: card.prompt }), names });
    this.#badges();
  }

  #badges() {
    const { text } = this;
    const { was, images, flags } = this.session.current?.card ?? { was: null, images: [], flags: [] };
    this.stage.frames.forEach((frame, at) => {
      const { candidate } = images[at];
      const place = this.ranking.place(at);
      const before = was?.order?.indexOf(candidate) === 0;
      const name = text.t("pick.picture", { n: at + 1, of: images.length });
      frame.setAttribute("aria-label", nameWithFlags(text, name, flags, candidate));
      showFlags(frame, flags, candidate);
      const which = this.asking && { n: at + 1, flag: text.t(`flag.${this.asking}`) };
      if (which) this.stage.badge(at, text.t("pick.which", which), "asks");
      else if (place) this.stage.badge(at, this.text.t("pick.place", { n: place }), "ranked");
      else this.stage.badge(at, this.text.value(at + 1), before ? "before" : "");
    });
    this.bar.refresh();
  }

  /** @param {boolean} on */
  #look(on) {
    const now = performance.now();
    if (!on) this.watch.pause(now);
    else if (this.session.current && this.stage.paintedAt < now) this.watch.resume(now);
  }
}

/** A ranking in the making: positions on screen, best first. */
export class Ranking {
  constructor() {
    this.count = 0;
    /** @type {number[]} */
    this.order = [];
  }

  /** @param {number} count candidates of a new group */
  begin(count) {
    this.count = count;
    this.order = [];
  }

  /**
   * Ranks one more, or takes it out again if it is ranked.
   * @param {number} at
   * @returns {boolean} whether the ranking is complete by that
   */
  add(at) {
    if (this.order.includes(at)) this.order = this.order.filter((one) => one !== at);
    else this.order = [...this.order, at];
    if (this.order.length < this.count - 1) return false;
    // Only one place is left for the last.
    for (let rest = 0; rest < this.count; rest++) if (!this.order.includes(rest)) this.order = [...this.order, rest];
    return true;
  }

  back() {
    this.order = this.order.slice(0, -1);
  }

  /** 1 for the best, or 0. @param {number} at */
  place(at) {
    return this.order.indexOf(at) + 1;
  }
}
