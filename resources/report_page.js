"use strict";
// Tooltips, copies and details of the page. The browser of responses has scripts of its own. Text is only ever set as
// textContent.
(() => {
  // Tooltips: a chart's mark says its numbers in aria-label.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true"); // a screen reader reads the label itself
  document.body.append(tip);

  function tell(event) {
    const target = event.target;
    if (!(target instanceof Element) || !target.closest(".imprint-chart")) return;
    const mark = target.matches("a") ? target.querySelector("[aria-label]")
      : target.closest("[aria-label]:not(g, svg)");
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

  async function copy(text, bar, status) {
    bar.querySelector("textarea")?.remove();
    try {
      await navigator.clipboard.writeText(text);
      status.textContent = "copied";
    } catch { // some browsers refuse the clipboard to a page that is opened from the disk
      const box = document.createElement("textarea");
      box.readOnly = true;
      box.value = text;
      box.setAttribute("aria-label", "text to copy");
      bar.append(box);
      box.select();
      status.textContent = "press Ctrl+C or Cmd+C to copy the selected text";
    }
  }
  for (const bar of document.querySelectorAll("[data-copy]")) {
    const status = document.createElement("span");
    status.setAttribute("role", "status");
    bar.append("Copy as ");
    for (const [form, text] of Object.entries(copies[bar.dataset.copy])) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = form;
      button.addEventListener("click", () => copy(text, bar, status));
      bar.append(button);
    }
    bar.append(status);
    bar.hidden = false;
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
    for (const details of closed) details.open = true;
  });
  addEventListener("afterprint", () => { for (const details of closed) details.open = false; });
})();
