/** The D3PO tab's page: the gallery's element, the host's progress bar for our work, and the way into txt2img. */

const page = document.baseURI;
import(new URL("d3po/web/gallery.js", page).href);

let task = "";

/** The host's own progress bar, for as long as something of ours is done or waits in its queue. */
function showProgress(state) {
  const now = state?.work?.task ?? "";
  if (!now || now === task) return;
  task = now;
  const room = gradioApp().querySelector("#d3po_progress");
  requestProgress(now, room, null, () => {
    task = "";
  });
}

document.addEventListener("d3po-state", (event) => showProgress(event.detail));

/** Put a LoRA's tag at the end of txt2img's prompt, once, and go there. */
window.d3po_use = (tag) => {
  const prompt = gradioApp().querySelector("#txt2img_prompt textarea");
  if (!tag || !prompt) return [];
  if (!prompt.value.includes(tag)) prompt.value = `${prompt.value.trimEnd()} ${tag}`.trimStart();
  updateInput(prompt);
  switch_to_txt2img();
  return [];
};
