/** The prompt above the pictures: two lines, and all of it on a press where that is not enough. */

import { el, say } from "./dom.js";

export class Prompt {
  constructor(text) {
    this.words = el("span", { class: "words" });
    this.more = el("button", { class: "more", type: "button", hidden: true, onclick: () => this.#toggle() });
    this.element = el("div", { class: "prompt" }, this.words, this.more);
    this.text = text;
    new ResizeObserver(() => this.#measure()).observe(this.words);
  }

  show(prompt) {
    if (this.words.textContent === prompt) return;
    this.element.removeAttribute("open");
    say(this.words, prompt);
    this.#measure();
  }

  /** Measured after the frame, so that showing the next group never waits for it. */
  #measure() {
    requestAnimationFrame(() => {
      const open = this.element.hasAttribute("open");
      this.more.hidden = !open && this.words.scrollHeight <= this.words.clientHeight + 2;
      say(this.more, this.text.t(open ? "prompt.less" : "prompt.more"));
      this.more.setAttribute("aria-expanded", String(open));
    });
  }

  #toggle() {
    this.element.toggleAttribute("open");
    this.#measure();
  }
}
