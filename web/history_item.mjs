/** One pick in the history: its images with what was said of them. Another image's press corrects it. */

import { button, el, icon, mark, say } from "./dom.mjs";
import { flagMarks, nameWithFlags, pressedFlag, showFlags } from "./flags.mjs";

/** @import { Cell, Image, Item, Session, Text } from "./types" */

export class HistoryItem {
  /** @param {Item} item @param {Session} session @param {Text} text @param {() => void} gone it was deleted */
  constructor(item, session, text, gone) {
    this.item = item;
    this.session = session;
    this.text = text;
    this.gone = gone;
    this.cells = item.images.map((image, at) => this.#picture(image, at));
    this.kind = el("span.tag");
    this.meta = el("span.when");
    this.asks = el("span.asks");
    this.flags = this.#flagButton();
    const pictures = el("div.pictures", {}, ...this.cells.map((cell) => cell.element));
    pictures.style.setProperty("--columns", String(item.images.length <= 4 ? Math.min(2, item.images.length) : 3));
    const caption = el("p.caption", { title: item.prompt }, item.prompt);
    const meta = el("p.meta", {}, this.kind, this.meta, this.flags, this.asks);
    this.element = el("li.pickcard", {}, pictures, caption, meta);
    this.#ask(false);
    this.#refresh();
  }

  #refresh() {
    const { item, text } = this;
    mark(this.element, "rejected", item.kind === "all_bad");
    say(this.kind, text.t(`kind.${item.kind}`));
    const parts = [
      text.t("history.number", { n: item.number }),
      item.who,
      text.when(item.when),
      item.held_out && text.t("history.held_out"),
    ];
    say(this.meta, parts.filter(Boolean).join(" · "));
    item.images.forEach((image, at) => this.#refreshPicture(this.cells[at], image, at));
  }

  /** @param {Cell} cell @param {Image} image @param {number} at */
  #refreshPicture({ element, press, badge }, image, at) {
    const place = this.item.order.indexOf(image.candidate);
    const best = place === 0 || (this.item.kind === "scores" && this.item.scores[image.candidate] > 0);
    const name = this.text.t(best ? "history.is_favourite" : "history.make_favourite", { n: at + 1 });
    press.setAttribute("aria-pressed", String(best));
    press.setAttribute("aria-label", nameWithFlags(this.text, name, this.item.flags, image.candidate));
    mark(press, "chosen", best);
    showFlags(element, this.item.flags, image.candidate);
    const ranked = this.item.kind === "ranking" && place >= 0;
    badge.replaceChildren(...(ranked ? [this.text.value(place + 1)] : best ? [icon("favourite")] : []));
  }

  /**
   * An image to press, and its marks beside that: not every browser tells which part of a button was pressed.
   * @param {Image} image @param {number} at @returns {Cell}
   */
  #picture(image, at) {
    const picture = el("img", { src: this.session.api.url(image.url), alt: "", loading: "lazy", decoding: "async" });
    const badge = el("span.badge", { "aria-hidden": "true" });
    const attributes = { type: "button", title: this.text.t("history.correct"), onclick: () => this.#correct(at) };
    const press = el("button", attributes, picture, badge);
    /** @param {MouseEvent} event */
    const onclick = (event) => {
      const kind = pressedFlag(event);
      if (kind) this.flag(at, kind);
    };
    const element = el("div.cell", { onclick }, press, flagMarks(this.text));
    return { element, press, badge };
  }

  /** Shows all marks on the images, to be pressed. */
  #flagButton() {
    const label = this.text.t("history.flag");
    const onclick = () => {
      const on = this.element.toggleAttribute("flagging");
      this.flags.setAttribute("aria-pressed", String(on));
    };
    return button("bare", { "aria-label": label, title: label, "aria-pressed": "false", onclick }, icon("flag"));
  }

  /** Puts a flag on a picture, or takes it off. @param {number} at @param {string} kind */
  flag(at, kind) {
    this.item = { ...this.item, flags: this.session.correctFlag(this.item, this.item.images[at].candidate, kind) };
    this.#refresh();
  }

  /** @param {number} at */
  #correct(at) {
    const { candidate } = this.item.images[at];
    if (this.item.kind === "favourite" && this.item.order[0] === candidate) return;
    const pick_id = this.session.correct(this.item, candidate);
    // Preferring an image outweighs its flags, here as on the server.
    const flags = this.item.flags.filter((flag) => flag.candidate !== candidate);
    this.item = { ...this.item, pick_id, kind: "favourite", order: [candidate], flags };
    this.#refresh();
  }

  /** Deleting asks once, in place. @param {boolean} sure */
  #ask(sure, focus = false) {
    const { text } = this;
    const label = text.t("history.remove");
    const [ask, keep] = [() => this.#ask(true, true), () => this.#ask(false, true)];
    const buttons = sure
      ? [
          button("small danger", { onclick: () => this.#remove() }, text.t("history.remove.yes")),
          button("small", { onclick: keep }, text.t("history.remove.no")),
        ]
      : [button("bare", { "aria-label": label, title: label, onclick: ask }, icon("remove"))];
    this.asks.replaceChildren(...buttons);
    if (focus) /** @type {HTMLElement} */ (this.asks.firstElementChild).focus();
  }

  #remove() {
    this.session.remove(this.item);
    const next = this.element.nextElementSibling ?? this.element.previousElementSibling;
    const scroll = this.element.closest(".scroll");
    this.element.remove();
    this.gone();
    /** @type {HTMLElement} */ (next?.querySelector(".asks button") ?? scroll).focus();
  }
}
