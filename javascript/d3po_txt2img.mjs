/** Between txt2img and the D3PO tab: a button that sends its settings, and the LoRA's tag into its prompt. */

if (Object.hasOwn(window, "d3po_open")) {
  throw new Error("D3PO is installed twice: delete one of its folders in extensions.");
}

/** An element of the host's page; what it is, the host decides. @param {string} selector @returns {any} */
const find = (selector) => gradioApp().querySelector(selector);
/** @param {string} selector @returns {any[]} */
const all = (selector) => [...gradioApp().querySelectorAll(selector)];
/** @param {string} id */
const text = (id) => find(`#txt2img_${id} textarea`)?.value ?? "";
/** @param {string} id */
const number = (id) => Number(find(`#txt2img_${id} input[type=number]`)?.value ?? 0);
/** @param {string} id */
const choice = (id) => find(`#${id} input`)?.value ?? "";
/** @param {Node | null | undefined} node */
const words = (node) => node?.textContent?.trim() ?? "";

/** Press the tab that shows a panel: the panel's place among its neighbours is the button's. */
window.d3po_open = (id) => {
  const panel = find(`#${id}`);
  const tabs = panel.parentElement;
  const at = [...tabs.querySelectorAll(":scope > .tabitem")].indexOf(panel);
  tabs.querySelectorAll(":scope > .tab-nav > button")[at].click();
};

/** A text as it is on the page, and all that the host may have translated it from. @param {string} shown */
const originals = (shown) => {
  const translated = window.localization ?? {};
  return [shown, ...Object.keys(translated).filter((original) => translated[original] === shown)];
};
const SWITCH = /^(enabled?|activated?|active)\b/i;

/** What is switched on among txt2img's accordions and in what extensions add, by the titles that people read there. */
function switchedOn() {
  const accordions = all("#tab_txt2img .input-accordion")
    .filter((one) => one.querySelector(".input-accordion-checkbox")?.checked)
    .map((one) => words(one.querySelector(".label-wrap span")));
  /** @param {Element} box */
  const label = (box) => words(box.closest("label"));
  /** @param {Element} box */
  const holder = (box) => words(box.closest(".gradio-accordion")?.querySelector(".label-wrap span"));
  const enabled = all("#txt2img_script_container input[type=checkbox]:checked")
    .filter((box) => originals(label(box)).some((title) => SWITCH.test(title)))
    .map((box) => holder(box) || label(box));
  return [...new Set([...accordions, ...enabled])];
}

/** For gradio: what stands in txt2img now, for txt2img.py to read. */
window.d3po_sent = () => {
  const page = {
    prompt: text("prompt"),
    negative: text("neg_prompt"),
    steps: number("steps"),
    cfg_scale: number("cfg_scale"),
    distilled_cfg_scale: number("distilled_cfg_scale"), // Forge Neo's and Forge's, as the next
    preset: choice("forge_ui_preset"),
    width: number("width"),
    height: number("height"),
    sampler: choice("txt2img_sampling"),
    scheduler: choice("txt2img_scheduler"),
    batch_count: number("batch_count"),
    batch_size: number("batch_size"),
    seed: number("seed"),
    variation: Boolean(find("#txt2img_subseed_show input")?.checked) && number("subseed_strength") > 0,
    styles: all("#txt2img_styles .token > span").map(words),
    script: choice("txt2img_script_container #script_list"),
    on: switchedOn(),
    comments: window.opts?.enable_prompt_comments ?? true,
  };
  return [JSON.stringify(page)];
};

let pressed = "";

/** For gradio: put a LoRA's tag into txt2img's prompt, in the place of an older one of the same taste, and go there. */
window.d3po_use = (message) => {
  const prompt = find("#txt2img_prompt textarea");
  // After a mistake gradio hands over what it had before.
  if (!message || message === pressed) return [];
  pressed = message;
  const { tag, names } = JSON.parse(message);
  let placed = false;
  /** @param {string} old @param {string} name */
  const placeOnce = (old, name) => {
    if (!names.includes(name)) return old;
    const first = !placed;
    placed = true;
    return first ? tag : "";
  };
  const replaced = prompt.value.replace(/<lora:([^:>]+)(:[^>]*)?>/g, placeOnce);
  prompt.value = placed ? replaced.trimEnd() : `${prompt.value.trimEnd()} ${tag}`.trimStart();
  updateInput(prompt);
  switch_to_txt2img();
  return [];
};

let begun = "";

/** For gradio: a taste was begun; on to its pictures. */
window.d3po_begun = (taste) => {
  if (taste && taste !== begun) window.d3po_open("d3po_pick");
  begun = taste;
  return [];
};

function send() {
  find("#d3po_send").click();
  window.d3po_open("tab_d3po");
  window.d3po_open("d3po_new");
}

/** A button among those below txt2img's pictures, dressed as its neighbours. */
onUiLoaded(() => {
  if (!find("#d3po_send")) return; // our tab is hidden by the host's settings
  const neighbour = find("#image_buttons_txt2img button:last-of-type");
  const button = document.createElement("button");
  button.id = "txt2img_send_to_d3po";
  button.className = neighbour.className;
  button.textContent = "❤️";
  button.title = "Send the prompts and settings to D3PO, to teach your taste in pictures of their kind.";
  button.addEventListener("click", send);
  neighbour.after(button);
});
