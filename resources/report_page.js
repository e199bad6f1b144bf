"use strict";
// What the page can do beside its browser of responses. Text of the page is only ever set as textContent.
(() => {
  // Tooltips: a chart's mark says its numbers in aria-label.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true"); // a screen reader reads the label itself
  document.body.append(tip);

  function tell(event) {
    const at = event.target;
    if (!(at instanceof Element) || !at.closest(".imprint-chart")) return;
    const mark = at.matches("a") ? at.querySelector("[aria-label]") : at.closest("[aria-label]:not(g, svg)");
    if (!mark) return;
    tip.textContent = mark.getAttribute("aria-label");
    tip.hidden = false;
    const box = mark.getBoundingClientRect(), below = box.bottom + 8;
    const fits = below + tip.offsetHeight < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${fits ? below : Math.max(8, box.top - tip.offsetHeight - 8)}px`;
  }
  const hide = () => { tip.hidden = true; };
  for (const name of ["pointerover", "focusin"]) document.addEventListener(name, tell);
  for (const name of ["pointerout", "focusout"]) document.addEventListener(name, hide);
  document.addEventListener("scroll", hide, true);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // Copies: a button for each form of a table.
  const copies = JSON.parse(document.getElementById("copies").textContent);

  async function copy(text, place, said) {
    place.querySelector("textarea")?.remove();
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "copied";
    } catch { // some browsers give a page from the disk no clipboard
      const box = document.createElement("textarea");
      box.readOnly = true;
      box.value = text;
      box.setAttribute("aria-label", "text to copy");
      place.append(box);
      box.select();
      said.textContent = "press Ctrl+C or Cmd+C to copy the selected text";
    }
  }
  for (const place of document.querySelectorAll("[data-copy]")) {
    const said = document.createElement("span");
    said.setAttribute("role", "status");
    place.append("Copy as ");
    for (const [form, text] of Object.entries(copies[place.dataset.copy])) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = form;
      button.addEventListener("click", () => copy(text, place, said));
      place.append(button);
    }
    place.append(said);
    place.hidden = false;
  }

  // Details open when an address leads to them, and on paper.
  function open() {
    const target = document.getElementById(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) target.open = true;
  }
  addEventListener("hashchange", open);
  open();
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const each of closed) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of closed) each.open = false; });
})();
