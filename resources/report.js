"use strict";
// The browser of responses: two arms side by side. Model text is only ever set as textContent.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const part = (id) => document.getElementById(id);
  const controls = { eval: part("eval"), a: part("arm-a"), b: part("arm-b"), show: part("show") };
  const same = { won: "won", lost: "lost", tied: "tied" };
  let place = 0; // in the list of examples found
  let found = [];
  let touched = false; // the address changes only once the reader has chosen something

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function pair() {
    const a = data.arms.indexOf(controls.a.value), b = data.arms.indexOf(controls.b.value);
    const held = data.evals[controls.eval.value].pairs[`${Math.min(a, b)}-${Math.max(a, b)}`];
    const flip = a > b ? { won: "lost", lost: "won", tied: "tied" } : same;
    return { a, b, held, outcome: (key) => flip[key] };
  }

  function select() {
    const { held, outcome } = pair();
    const counts = { all: 0, won: 0, lost: 0, tied: 0 }, totals = { all: 0, won: 0, lost: 0, tied: 0 };
    found = [];
    for (const seen of held ? ["won", "lost", "tied"] : []) {
      const ids = held[outcome(seen)], total = held.counts[outcome(seen)];
      counts[seen] = ids.length; counts.all += ids.length;
      totals[seen] = total; totals.all += total;
      if (controls.show.value === "all" || controls.show.value === seen) {
        for (const id of ids) found.push({ id, outcome: seen });
      }
    }
    for (const option of controls.show.options) {
      const key = option.value;
      option.textContent = `${key} (${counts[key]}${counts[key] < totals[key] ? ` of ${totals[key]}` : ""})`;
    }
    place = Math.max(0, Math.min(place, found.length - 1));
  }

  function text(index) {
    const whole = data.texts[index];
    return whole.length <= data.longest ? whole
      : `${whole.slice(0, data.longest)}\n[cut here after ${data.longest} characters; the tables hold all of it]`;
  }

  function block(label, content) {
    const made = document.createDocumentFragment();
    made.append(element("p", label, "label"));
    const box = element("div", content === "" ? "(empty)" : content, "text");
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", label);
    made.append(box);
    return made;
  }

  function mark(value, status, binary) {
    if (status === "error") return "not scored";
    if (status === "unjudged") return "not judged";
    if (status === "unverified" && value === null) return "no verdict: its check took too long or stumbled";
    if (status === "unparsed" && value === null) return "the judge's answer could not be read";
    const shown = binary ? (value === 1 ? "1 ✓" : "0 ✗") : String(value);
    if (status === "unverified") return `${shown} (its check took too long or stumbled)`;
    return status === "unparsed" ? `${shown} (no answer found in the response)` : shown;
  }

  function ending(r) {
    if (r.error) return ` (error: ${r.error})`;
    if (r.composed) return " (made of the responses above)";
    return r.finish_reason ? ` (ended by: ${r.finish_reason})` : "";
  }

  // The responses of a dialogue that are not scored. A prompt stands once where the next one is the same.
  function others(example, side) {
    const made = element("details"), all = example.others.length + (example.left_out ?? 0);
    made.append(element("summary", `${side}: ${all} other response${all > 1 ? "s" : ""} of this dialogue`));
    example.others.forEach((r, i) => {
      if (r.prompt !== example.others[i - 1]?.prompt) made.append(block(`${side}: prompt of response ${i + 1}`, text(r.prompt)));
      made.append(block(`${side}: response ${i + 1}${ending(r)}`, text(r.text)));
    });
    if (example.left_out) made.append(element("p", `${example.left_out} more; the tables hold all of them`, "soft"));
    return made;
  }

  function response(example, test, side) {
    if (!example) return element("p", "no response in the tables", "soft");
    const made = document.createDocumentFragment();
    if (example.others) made.append(others(example, side));
    if (test.asks === "loglikelihood") {
      const best = Math.max(...example.responses.map((r) => r.logprob ?? -Infinity));
      const many = example.responses.length > 1;
      const lines = example.responses.map((r) =>
        `${many && r.logprob === best ? "▸ " : many ? "  " : ""}${text(r.text)}  [${r.error ?? r.logprob ?? "no value"}]`);
      made.append(block(`${side}: ${many ? "options" : "text"} with log-likelihood in nats${many ? ", ▸ the highest" : ""}`,
        lines.join("\n")));
    } else {
      for (const r of example.responses) made.append(block(`${side}: response${ending(r)}`, text(r.text)));
    }
    if (example.state !== undefined) made.append(block(`${side}: how the dialogue ended`, text(example.state)));
    const list = element("ul", undefined, "values");
    for (const [metric, label, value, status] of example.values) {
      list.append(element("li", `${metric}${label ? ` · ${label}` : ""}: ${mark(value, status, test.binary.includes(metric))}`));
    }
    made.append(list);
    return made;
  }

  function show() {
    select();
    const { a, b, held } = pair();
    const test = data.evals[controls.eval.value], view = part("view"), item = found[place];
    part("previous").disabled = place <= 0;
    part("next").disabled = place >= found.length - 1;
    view.replaceChildren();
    if (a === b) {
      part("count").textContent = "choose two different arms";
    } else if (!held) {
      part("count").textContent = "these two arms share no scored example of this eval";
    } else if (!item) {
      part("count").textContent = "no such example";
    } else {
      part("count").textContent = `${place + 1} of ${found.length} · ${data.arms[a]} ${item.outcome} by ${test.metric}`;
      const both = test.examples[item.id] ?? {}, left = both[a], right = both[b];
      view.append(element("p", `example ${item.id}`, "label"));
      const alike = left && right && left.prompt === right.prompt;
      if (alike) view.append(block("prompt, the same for both", text(left.prompt)));
      const sides = element("div", undefined, "sides");
      for (const [arm, example] of [[a, left], [b, right]]) {
        const column = element("section");
        column.append(element("h4", data.arms[arm]));
        if (example && !alike) column.append(block(`${data.arms[arm]}: prompt`, text(example.prompt)));
        column.append(response(example, test, data.arms[arm]));
        sides.append(column);
      }
      view.append(sides);
    }
    const state = new URLSearchParams({ eval: controls.eval.value, a: controls.a.value, b: controls.b.value,
      show: controls.show.value, i: String(place + 1) });
    if (touched) history.replaceState(null, "", `#${state}`);
  }

  function fill(control, names, chosen) {
    for (const name of names) control.append(new Option(name, name));
    if (names.includes(chosen)) control.value = chosen;
  }

  function move(by) {
    touched = true;
    place += by;
    show();
  }

  const start = new URLSearchParams(location.hash.slice(1));
  fill(controls.eval, Object.keys(data.evals), start.get("eval"));
  const first = part("browse").dataset;
  fill(controls.a, data.arms, start.get("a") ?? first.arm);
  fill(controls.b, data.arms, start.get("b") ?? first.control);
  if (["all", "won", "lost", "tied"].includes(start.get("show"))) controls.show.value = start.get("show");
  place = (Number.parseInt(start.get("i"), 10) || 1) - 1;
  for (const control of Object.values(controls)) {
    control.addEventListener("change", () => { touched = true; place = 0; show(); });
  }
  part("previous").addEventListener("click", () => move(-1));
  part("next").addEventListener("click", () => move(1));
  part("browse").addEventListener("keydown", (event) => {
    if (event.target.closest("select, .text") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft" && place > 0) move(-1);
    if (event.key === "ArrowRight" && place < found.length - 1) move(1);
  });
  show();
})();
