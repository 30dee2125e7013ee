/** A tournament's pictures by prompt, best first. A press shows one large. */

import { Away, Refused } from "./api.mjs";
import { el, refill, say } from "./dom.mjs";

/** @import { RankedPicture, Ranking, Session, ShellLike, Text } from "./types" */

export class RankingView {
  /** @param {Session} session @param {Text} text @param {ShellLike} shell */
  constructor(session, text, shell) {
    this.session = session;
    this.text = text;
    this.shell = shell;
    /** matches that were over when the list was made */
    this.listed = -1;
    /** @type {HTMLElement | null} the picture that was looked at last, for the keyboard */
    this.lookedAt = null;
    this.lead = el("p.lead", { role: "status" });
    this.pools = el("div.pools");
    const page = el("div.page.wide", {}, this.lead, this.pools);
    this.element = el("section.scroll.ranking", { tabindex: -1, "aria-label": text.t("ranking.title") }, page);
    session.addEventListener("state", () => !this.element.hidden && this.#refresh());
  }

  focus() {
    (this.lookedAt?.isConnected ? this.lookedAt : this.element).focus({ preventScroll: true });
  }

  /** @param {boolean} on */
  shown(on) {
    if (on) this.#refresh();
  }

  async #refresh() {
    const { session, text } = this;
    const tournament = session.state?.tournament;
    if (!tournament) return;
    const over = tournament.done >= tournament.of;
    say(this.lead, text.t(over ? "ranking.over" : "ranking.so_far", tournament));
    if (this.listed === tournament.done) return;
    this.listed = tournament.done;
    try {
      this.#show(await session.api.get(`${session.path}/ranking`));
    } catch (error) {
      this.listed = -1;
      if (error instanceof Refused) say(this.lead, error.problem.what);
      else if (!(error instanceof Away)) throw error;
    }
  }

  /** @param {Ranking} ranking */
  #show({ pools }) {
    refill(this.pools, pools, () =>
      pools.map(({ prompt, pictures }) =>
        el(
          "section.pool",
          {},
          el("h3", { title: prompt }, prompt),
          el("ol.ranked", {}, ...pictures.map((picture) => this.#picture(picture, prompt))),
        ),
      ),
    );
  }

  /** @param {RankedPicture} picture @param {string} prompt */
  #picture(picture, prompt) {
    const { text } = this;
    const { place, won, played, name, image } = picture;
    const words = text.t("ranking.won", { won, played });
    const url = this.session.api.url(image.url);
    const label = `${text.t("ranking.place", { n: place })}. ${words}. ${name}`;
    const press = el(
      "button",
      { type: "button", title: name, "aria-label": label },
      el("img", { src: url, alt: "", loading: "lazy", decoding: "async" }),
      el("span.badge", { "aria-hidden": "true" }, text.value(place)),
    );
    press.addEventListener("click", () => {
      this.lookedAt = press;
      const large = el("img.large", { src: url, alt: "", decoding: "async" });
      const lines = [el("p.hint", {}, prompt), el("p.hint", {}, `${words} · ${name}`)];
      this.shell.open("picture", text.t("ranking.place", { n: place }), large, ...lines);
    });
    return el("li", {}, press, el("span.hint", {}, words));
  }
}
