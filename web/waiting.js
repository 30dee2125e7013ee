/** What stands in the pictures' place while there are none: why, for how long, and that nothing is lost by waiting. */

import { el, mark, say } from "./dom.js";
import { WorkLine } from "./work_line.js";

// A pause that nobody would notice is not announced.
const QUIET_MS = 350;

export class Waiting {
  /**
   * @param {import("./session.js").Session} session
   * @param {import("./text.js").Text} text
   * @param {{asked: (name: string) => void}} shell
   */
  constructor(session, text, shell) {
    Object.assign(this, { session, text });
    this.title = el("p", { class: "title" });
    this.hint = el("p", { class: "hint" });
    this.work = new WorkLine(text);
    this.draw = el("button", {
      class: "main",
      type: "button",
      hidden: true,
      onclick: async () => (await session.ask("draw", { groups: 8 })) && shell.asked("draw"),
    });
    say(this.draw, text.t("waiting.draw"));
    this.element = el(
      "div",
      { class: "empty", role: "status", hidden: true },
      this.title,
      this.work.element,
      this.hint,
      this.draw,
    );
  }

  refresh(busy) {
    if (busy) {
      clearTimeout(this.timer);
      this.timer = 0;
      this.element.hidden = true;
      return;
    }
    if (!this.timer) this.timer = setTimeout(() => (this.element.hidden = Boolean(this.session.current)), QUIET_MS);
    this.#fill();
  }

  #fill() {
    const { session, text } = this;
    const { state, api, refusal } = session;
    const key = this.#reason();
    say(this.title, refusal?.what || text.t(`waiting.${key}`));
    say(this.hint, refusal ? refusal.do : text.has(`waiting.${key}.hint`) ? text.t(`waiting.${key}.hint`) : "");
    this.work.refresh(api.away ? null : (state?.work ?? null));
    this.draw.hidden = !(key === "none" && state?.can.includes("draw"));
    mark(this.element, "calm", key === "loading");
  }

  #reason() {
    const { state, api, coming } = this.session;
    if (api.away) return "away";
    if (coming.size || !state) return "loading";
    if (state.work?.kind === "drawing" || state.work?.kind === "loading") return "drawing";
    if (state.work) return "busy";
    return state.groups.waiting ? "loading" : "none";
  }
}
