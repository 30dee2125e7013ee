/** What is in the images' place while there are none: the reason, the time left, and that waiting loses nothing. */

import { button, el, mark, say } from "./dom.mjs";

/** @import { Session, ShellLike, Text, Work } from "./types" */

// A pause that nobody would notice is not announced.
const QUIET_MS = 350;

export class Waiting {
  /** @param {Session} session @param {Text} text @param {ShellLike} shell */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    /** @type {number | undefined} */
    this.timer = undefined;
    this.title = el("p.title");
    this.hint = el("p.hint");
    this.work = new WorkLine(text);
    const draw = async () => (await session.ask("draw", { groups: 8 })) && shell.asked("draw");
    this.draw = button("main", { hidden: true, onclick: draw }, text.t("waiting.draw"));
    const parts = [this.title, this.work.element, this.hint, this.draw];
    this.element = el("div.empty", { role: "status", hidden: true }, ...parts);
  }

  /** @param {boolean} busy */
  refresh(busy) {
    if (busy) {
      clearTimeout(this.timer);
      this.timer = undefined;
      this.element.hidden = true;
      return;
    }
    if (!this.timer) this.timer = setTimeout(() => (this.element.hidden = Boolean(this.session.current)), QUIET_MS);
    this.#fill();
  }

  #fill() {
    const { session, text } = this;
    const { state, api, refusal } = session;
    const key = this.#cause();
    say(this.title, refusal?.what || text.t(`waiting.${key}`, { n: state?.tournament?.of ?? 0 }));
    say(this.hint, refusal ? refusal.do : text.has(`waiting.${key}.hint`) ? text.t(`waiting.${key}.hint`) : "");
    this.work.refresh(api.away ? null : (state?.work ?? null));
    this.draw.hidden = !(["none", "played"].includes(key) && state?.can.includes("draw"));
    mark(this.element, "calm", key === "loading");
  }

  #cause() {
    const { state, api, cards } = this.session;
    if (api.away) return "away";
    if (cards.coming.size || !state) return "loading";
    if (state.work?.kind === "drawing" || state.work?.kind === "loading") return "drawing";
    if (state.work) return "busy";
    if (state.groups.waiting) return "loading";
    return state.tournament ? "played" : "none";
  }
}

/** What the server is doing: in words, with a bar and the time left. */
export class WorkLine {
  /** @param {Text} text */
  constructor(text) {
    this.text = text;
    this.words = el("p.words");
    this.fill = el("span.fill");
    const bar = { role: "progressbar", "aria-valuemin": 0, "aria-label": text.t("work.title") };
    this.track = el("div.track", bar, this.fill);
    this.element = el("div.work", { hidden: true }, this.words, this.track);
  }

  /** @param {Work | null} work */
  refresh(work) {
    this.element.hidden = !work;
    if (!work) return;
    const { text } = this;
    const counted = work.of || !text.has(`work.${work.kind}.begin`);
    const parts = [text.t(counted ? `work.${work.kind}` : `work.${work.kind}.begin`, { done: work.done, of: work.of })];
    if (work.left_s !== null) parts.push(text.t("work.left", { time: text.duration(work.left_s) }));
    if (work.queued) parts.push(text.t("work.queued", { n: work.queued }));
    if (work.text) parts.push(work.text);
    say(this.words, parts.join(" · "));
    this.fill.style.inlineSize = `${work.of ? Math.min(100, (100 * work.done) / work.of) : 0}%`;
    this.track.setAttribute("aria-valuemax", String(work.of || 1));
    this.track.setAttribute("aria-valuenow", String(work.done));
    mark(this.track, "unknown", !work.of);
  }
}
