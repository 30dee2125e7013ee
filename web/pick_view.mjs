/** Picking: a prompt, its images, and what can be said about them. The heart of the gallery. */

import { Brush } from "./brush.mjs";
import { el, mark } from "./dom.mjs";
import { flagMarks, hasFlag, nameWithFlags, pressedFlag, showFlags } from "./flags.mjs";
import { maskOf, Veil } from "./masks.mjs";
import { PickBar, PickFoot } from "./pick_controls.mjs";
import { StageView } from "./stage.mjs";
import { Waiting } from "./waiting.mjs";

/** @import { Card, Command, PickKind, Prepared, Session, ShellLike, Text } from "./types" */

// The last flag of a group ends it; another press so soon after was still meant for that image.
const FLAG_GUARD_MS = 600;
/** @type {Pick<Card, "images" | "flags" | "masks" | "was">} */
const NO_CARD = { was: null, images: [], flags: [], masks: [] };

export class PickView extends StageView {
  /** @param {Session} session @param {Text} text @param {ShellLike} shell */
  constructor(session, text, shell) {
    super(session, text, shell);
    this.ranking = new Ranking();
    this.rankMode = false;
    this.flagMode = false;
    /** The flag for which an image is to be named, or "". */
    this.asking = "";
    this.flagsFrom = 0;
    /** `#deeds` when this group came. */
    this.deedsBefore = 0;
    /** @type {Veil[]} by place on screen */
    this.veils = [];
    this.brush = new Brush(this.stage.element, {
      frames: () => this.stage.frames,
      rows: (at) => this.veils[at].rows,
      show: (at, rows) => this.veils[at].show(rows),
      save: (at, rows) => this.#mask(at, rows),
      changed: () => this.refresh(),
      deeds: () => this.#deeds,
    });
    this.waiting = new Waiting(session, text, shell);
    this.bar = new PickBar(this, text);
    this.foot = new PickFoot(session, text, shell);
    this.element = el(
      "section.pick",
      { "aria-label": text.t("pick.title") },
      this.prompt.element,
      el("div.middle", {}, this.stage.element, this.waiting.element),
      this.bar.element,
      this.foot.element,
    );
    const { signal } = session.ending;
    session.addEventListener("group", () => this.#show());
    session.addEventListener("flags", () => this.#badges());
    session.addEventListener("masks", () => this.#badges());
    session.addEventListener("state", () => this.refresh());
    document.addEventListener("visibilitychange", () => this.#look(!document.hidden), { signal });
    this.#show();
  }

  /** The view is on screen or not; the watch counts only while a person looks. @param {boolean} on */
  shown(on) {
    this.#look(on);
    if (on) return;
    this.stage.zoom.off();
    this.brush.turn(false);
  }

  refresh() {
    this.waiting.refresh(this.session.current !== null);
    this.bar.refresh();
    this.foot.refresh(this.brush.on ? this.text.t("foot.brush") : "");
  }

  refreshButtons() {
    this.bar.refresh();
  }

  marks() {
    return flagMarks(this.text);
  }

  /** While the brush is on, keys that move and look closer are its own. @param {Command} command @param {KeyboardEvent} event */
  command(command, event) {
    const { name, by } = command;
    if (this.brush.on && by) this.brush.nudge(by);
    else if (this.brush.on && name === "zoom") this.brush.dab(event.shiftKey);
    else return super.command(command, event);
    return true;
  }

  /** @param {string} name @param {number} at @param {number} now */
  act(name, at, now) {
    if (at >= 0) this.stage.byKeys = true;
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
      brush: () => this.setBrush(!this.brush.on),
      larger: () => this.brush.resize(1),
      smaller: () => this.brush.resize(-1),
    };
    acts[name]?.();
    return name in acts;
  }

  leave() {
    if (this.brush.on) return this.setBrush(false);
    return this.asking ? this.#ask("") : super.leave();
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
    if (this.brush.on) return void this.setBrush(false);
    if (!this.#accepts(0, now)) return;
    if (this.asking) return void (this.stage.highlight >= 0 && this.#flag(this.stage.highlight, this.asking, now));
    if (this.ranking.order.length && !this.rankMode) return this.#finishRanking(now);
    if (this.rankMode) return this.#confirmInRankMode(now);
    if (this.stage.highlight >= 0) this.#pick("favourite", [this.stage.highlight], now);
  }

  /**
   * Flags the image that is pointed at, or takes that off again; without one, the next number or press names it.
   * @param {string} kind @param {number} now
   */
  flag(kind, now) {
    if (!this.#accepts(0, now)) return;
    const { aim } = this.stage;
    if (this.asking || aim < 0) this.#ask(this.asking === kind ? "" : kind);
    else this.#flag(aim, kind, now);
  }

  /** Paints on images, from now on or no longer. @param {boolean} on @returns {true} */
  setBrush(on) {
    if (on && !this.session.current) return true;
    this.stage.zoom.off();
    this.#ask("");
    this.brush.turn(on, this.stage.aim);
    this.shell.speak(this.text.t(on ? "say.brush" : "say.brush_off"));
    return true;
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
    if (this.brush.undo()) return;
    // Once too often is not to leave the pictures that are being painted on.
    if (this.brush.on && this.#deeds === this.deedsBefore) return;
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

  /** Asks for the image that a flag is meant for; "" asks no more. @param {string} kind @returns {true} */
  #ask(kind) {
    this.asking = kind;
    if (kind) this.brush.turn(false);
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

  /** How much was done here that can be taken back, besides strokes. */
  get #deeds() {
    return this.session.made.length + this.ranking.order.length;
  }

  /** @param {number} at @param {number[]} rows */
  #mask(at, rows) {
    const image = this.session.current?.card.images[at];
    if (image) this.session.mask(image.candidate, rows);
  }

  /** @param {number} at @param {MouseEvent} event */
  pressed(at, event) {
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
    this.brush.end();
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
  move(by, event) {
    if (this.stage.frames.length > 2 || this.rankMode) return void this.stage.move(by);
    const side = this.stage.side(by);
    if (!event.repeat && side >= 0) this.choose(side, event.timeStamp);
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
    const n = pictures.length;
    this.ranking.begin(n);
    this.asking = "";
    this.brush.next();
    this.deedsBefore = this.#deeds;
    this.stage.show(pictures, this.text.t("pick.choose", { n, prompt: card.prompt }));
    this.veils = pictures.map((picture) => new Veil(picture));
    this.veils.forEach((veil, at) => this.stage.frames[at].querySelector("img")?.after(veil.element));
    this.#badges();
  }

  #badges() {
    const { text } = this;
    const { was, images, flags, masks } = this.session.current?.card ?? NO_CARD;
    this.stage.frames.forEach((frame, at) => {
      const { candidate } = images[at];
      const place = this.ranking.place(at);
      const before = was?.order?.indexOf(candidate) === 0;
      const name = text.t("pick.picture", { n: at + 1, of: images.length });
      const rows = maskOf(masks, candidate);
      const named = nameWithFlags(text, name, flags, candidate);
      frame.setAttribute("aria-label", rows.length ? text.t("pick.painted", { name: named }) : named);
      if (!this.brush.stroke) this.veils[at].show(rows);
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
  count = 0;
  /** @type {number[]} */
  order = [];

  /** @param {number} count candidates of a new group */
  begin(count) {
    this.count = count;
    this.order = [];
  }

  /**
   * Ranks one more, or takes it out again if it is ranked.
   * @param {number} at @returns {boolean} whether the ranking is complete by that
   */
  add(at) {
    if (this.order.includes(at)) this.order = this.order.filter((one) => one !== at);
    else this.order = [...this.order, at];
    const rest = Array.from({ length: this.count }, (_, place) => place).filter((one) => !this.order.includes(one));
    // Only one place is left for the last.
    if (rest.length > 1) return false;
    this.order = [...this.order, ...rest];
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
