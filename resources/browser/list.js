// The list of examples. Only the lines that can be seen are in the document.

const LINE = 40; // pixels, as in report_browser.css
const BEYOND = 5; // lines above and below those that can be seen

const SIGNS = { won: "+", lost: "−", tied: "=", open: "?" };

// `line(place)` gives {outcome, first, tokens, id}. `choose(place)` is called when the reader clicks a line or moves to
// one. Returns a function that draws the list: its arguments are the number of lines and the place of the chosen one.
function makeList(box, line, choose) {
  const rows = element("div", undefined, "rows");
  rows.setAttribute("role", "presentation");
  box.append(rows);
  let count = 0, chosen = 0;

  function draw() {
    const from = Math.max(0, Math.floor(box.scrollTop / LINE) - BEYOND);
    const to = Math.min(count, Math.ceil((box.scrollTop + box.clientHeight) / LINE) + BEYOND);
    rows.replaceChildren();
    for (let place = from; place < to; place += 1) rows.append(row(place, line(place), count, place === chosen));
    if (chosen >= from && chosen < to) box.setAttribute("aria-activedescendant", `example-${chosen}`);
    else box.removeAttribute("aria-activedescendant");
  }

  function reveal() {
    const top = chosen * LINE;
    if (top < box.scrollTop) box.scrollTop = top;
    if (top + LINE > box.scrollTop + box.clientHeight) box.scrollTop = top + LINE - box.clientHeight;
  }

  box.addEventListener("scroll", draw);
  box.addEventListener("click", (event) => {
    const clicked = event.target.closest(".row");
    if (clicked) choose(Number(clicked.dataset.place));
  });
  box.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(box.clientHeight / LINE) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -count, End: count };
    if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey || !count) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(count - 1, chosen + steps[event.key])));
  });
  return (newCount, newChosen) => {
    count = newCount;
    chosen = newChosen;
    rows.style.height = `${count * LINE}px`;
    reveal();
    draw();
  };
}

function row(place, { outcome, first, tokens, id }, count, selected) {
  const node = element("div", undefined, "row");
  node.id = `example-${place}`;
  node.dataset.place = place;
  node.style.top = `${place * LINE}px`;
  const attributes = { role: "option", "aria-selected": selected, "aria-posinset": place + 1, "aria-setsize": count };
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  const sign = element("span", SIGNS[outcome], `sign ${outcome}`);
  sign.setAttribute("role", "img");
  sign.setAttribute("aria-label", outcome === "open" ? "not compared" : outcome);
  node.append(sign, element("bdi", first ?? id), element("span", tokens, "tokens"));
  return node;
}
