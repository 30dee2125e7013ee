/** One pick in the history: its images with what was said of them. A press shows one large, where it can be chosen. */

import { button, el, icon, mark, say } from "./dom.mjs";
import { flagMarks, nameWithFlags, pressedFlag, showFlags } from "./flags.mjs";
import { maskOf, Veil } from "./masks.mjs";

/** @import { HistoryView } from "./history_view.mjs" */
/** @import { Cell, Image, Item } from "./types" */

export class HistoryItem {
  /** @param {Item} item @param {HistoryView} list */
  constructor(item, list) {
    this.item = item;
    this.list = list;
    this.session = list.session;
    this.text = list.text;
    const { text } = list;
    this.cells = item.images.map((image, at) => this.#picture(image, at));
    this.kind = el("span.tag");
    this.meta = el("span.when");
    const label = text.t("history.remove");
    const onclick = () => this.#remove();
    this.remove = button("bare", { "aria-label": label, title: label, onclick }, icon("remove"));
    this.flags = this.#flagButton();
    const pictures = el("div.pictures", {}, ...this.cells.map((cell) => cell.element));
    pictures.style.setProperty("--columns", String(item.images.length <= 4 ? Math.min(2, item.images.length) : 3));
    const caption = el("p.caption", { title: item.prompt }, item.prompt);
    const meta = el("p.meta", {}, this.kind, this.meta, this.flags, this.remove);
    this.parts = [pictures, caption, meta];
    this.element = el("li.pickcard", {}, ...this.parts);
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
  #refreshPicture({ element, press, badge, veil }, image, at) {
    const place = this.item.order.indexOf(image.candidate);
    const best = place === 0 || (this.item.kind === "scores" && this.item.scores[image.candidate] > 0);
    const name = this.text.t(best ? "history.is_favourite" : "history.picture", { n: at + 1 });
    press.setAttribute("aria-pressed", String(best));
    const rows = maskOf(this.item.masks, image.candidate);
    const named = nameWithFlags(this.text, name, this.item.flags, image.candidate);
    press.setAttribute("aria-label", rows.length ? this.text.t("pick.painted", { name: named }) : named);
    mark(press, "chosen", best);
    showFlags(element, this.item.flags, image.candidate);
    veil.show(rows);
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
    const attributes = { type: "button", title: this.text.t("history.look"), onclick: () => this.#look(at) };
    const veil = new Veil(picture);
    const press = el("button", attributes, picture, veil.element, badge);
    /** @param {MouseEvent} event */
    const onclick = (event) => {
      const kind = pressedFlag(event);
      if (kind) this.flag(at, kind);
    };
    const element = el("div.cell", { onclick }, press, flagMarks(this.text));
    return { element, press, badge, veil };
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

  /** Shows a picture large, with a way to choose it instead. @param {number} at */
  #look(at) {
    const { item, list, text } = this;
    const { url, candidate } = item.images[at];
    const choose = () => {
      list.shell.shut();
      this.#correct(at);
    };
    const chosen = item.kind === "favourite" && item.order[0] === candidate;
    const press = button("action main", { "data-action": "correct", onclick: choose }, text.t("history.correct"));
    const picture = el("img.large", { src: this.session.api.url(url), alt: "", decoding: "async" });
    const words = el("p.hint", {}, item.prompt);
    list.lookedAt = this.cells[at].press;
    const title = text.t(chosen ? "history.is_favourite" : "history.picture", { n: at + 1 });
    list.shell.open("picture", title, picture, words, ...(chosen ? [] : [press]));
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

  /** Deleted here, with a way back; on the server after some seconds, or as soon as something else is done. */
  #remove() {
    const { text } = this;
    const back = button("small", { "data-action": "restore", onclick: () => this.restore() }, text.t("bar.undo"));
    this.element.replaceChildren(el("p.meta", { role: "status" }, text.t("history.removed"), " ", back));
    this.list.settle(this);
    back.focus();
  }

  restore() {
    this.list.unsettle();
    this.element.replaceChildren(...this.parts);
    this.remove.focus();
  }

  /** For the list: it is not taken back any more. */
  settle() {
    this.session.remove(this.item);
    const focused = this.element.matches(":focus-within");
    this.element.remove();
    if (focused) this.list.focus();
    this.list.oneLess();
  }
}
