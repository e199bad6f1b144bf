// One example: the question, the reference, and the responses of two arms side by side. What a model wrote is only ever
// set as text.

function element(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

// A labelled box. `content` is a text or a fragment of texts and marks.
function block(label, content, className) {
  const box = element("div", undefined, className), body = element("div", undefined, "text");
  body.append(content === "" ? "(empty)" : content);
  body.tabIndex = 0;
  body.setAttribute("role", "region");
  body.setAttribute("aria-label", label);
  box.append(element("p", label, "label"), body);
  return box;
}

function folded(label, ...content) {
  const details = element("details");
  details.append(element("summary", label), ...content);
  return details;
}

function mark(value, status, binary) {
  if (status === "error") return "not scored";
  if (status === "unjudged") return "not judged";
  if (status === "unverified" && value === null) return "no verdict: its check took too long or failed";
  if (status === "unparsed" && value === null) return "the judge's answer could not be read";
  const shown = binary ? (value === 1 ? "1 ✓" : "0 ✗") : String(value);
  if (status === "unverified") return `${shown} (its check took too long or failed)`;
  return status === "unparsed" ? `${shown} (no answer found in the response)` : shown;
}

function ending(response) {
  if (response.error) return ` (error: ${response.error})`;
  if (response.composed) return " (made of the responses above)";
  const parts = [];
  if (response.tokens !== undefined) {
    const fewer = response.answer_tokens !== undefined && response.answer_tokens !== response.tokens;
    parts.push(`${response.tokens} tokens${fewer ? `, ${response.answer_tokens} of them in the answer` : ""}`);
  }
  if (response.finish_reason) parts.push(`ended by: ${response.finish_reason}`);
  return parts.length ? ` (${parts.join(", ")})` : "";
}

// The responses of a dialogue that are not scored. A prompt that equals the previous response's prompt is not repeated.
function others(side, arm, texts) {
  const all = side.others.length + (side.left_out ?? 0), parts = [];
  side.others.forEach((response, i) => {
    if (response.prompt !== side.others[i - 1]?.prompt) {
      parts.push(block(`${arm}: prompt of response ${i + 1}`, texts[response.prompt]));
    }
    parts.push(block(`${arm}: response ${i + 1}${ending(response)}`, texts[response.text]));
  });
  if (side.left_out) parts.push(element("p", `${side.left_out} more; the tables hold all of them`, "soft"));
  return folded(`${arm}: ${all} other response${all > 1 ? "s" : ""} of this dialogue`, ...parts);
}

function options(item, side, arm, texts) {
  const many = side.responses.length > 1;
  const best = Math.max(...side.responses.map((response) => response.logprob ?? -Infinity));
  const lines = side.responses.map((response, i) => {
    const arrow = many && response.logprob === best ? "▸ " : many ? "  " : "";
    const right = i === item.right ? "  ✓ right" : "";
    return `${arrow}${texts[response.text]}  [${response.error ?? response.logprob ?? "no value"}]${right}`;
  });
  return block(`${arm}: ${many ? "options" : "text"} with log-likelihood in nats${many ? ", ▸ the highest" : ""}`,
    lines.join("\n"));
}

// What is scored, with what the model wrote around it. `content` is the scored text, marked or not.
function response(written, content, arm, texts) {
  const parts = document.createDocumentFragment();
  if (written.before !== undefined) {
    parts.append(block(`${arm}: written before the answer, not scored`, texts[written.before], "unscored"));
  }
  parts.append(block(`${arm}: response${written.before === undefined ? "" : ", scored part"}${ending(written)}`, content));
  if (written.after !== undefined) {
    parts.append(block(`${arm}: written after the answer, not scored`, texts[written.after], "unscored"));
  }
  return parts;
}

// The values of one side: those of the whole response, then a line for each item that is judged apart, which says in
// words what the item asks for.
function verdicts(item, side, binary, texts) {
  const list = element("ul", undefined, "values"), items = new Map();
  for (const [metric, place, label, value, status] of side.values) {
    const shown = verdict(metric, value, status, binary.includes(metric));
    if (place === null) {
      list.append(element("li"));
      list.lastChild.append(shown);
    } else {
      if (!items.has(place)) items.set(place, { label, shown: [] });
      items.get(place).shown.push(shown);
    }
  }
  for (const [place, { label, shown }] of [...items].sort(([one], [other]) => one - other)) {
    const required = item.required?.[place] === undefined ? "" : texts[item.required[place]];
    const line = element("li", `${[label ?? `item ${place + 1}`, required].filter(Boolean).join(" · ")}: `);
    shown.forEach((span, i) => line.append(i ? ", " : "", span));
    list.append(line);
  }
  return list;
}

function verdict(metric, value, status, binary) {
  const judged = binary && value !== null ? (value === 1 ? "right" : "wrong") : "";
  return element("span", `${metric} ${mark(value, status, binary)}`, judged);
}

// The scored texts of two sides, with marks on the words that the other lacks.
function compared(sides, texts) {
  const [left, right] = sides.map((side) => wordsOf(texts[side.responses[0].text]));
  const common = commonWords(left, right);
  return common && [marked(left, common[0]), marked(right, common[1])];
}

// A text as nodes, with marks where the text breaks an instruction. `places` are [start, end], in order.
function withFaults(text, places) {
  const nodes = document.createDocumentFragment();
  let from = 0;
  for (const [start, end] of places) {
    if (start < from) continue; // within the last mark
    nodes.append(text.slice(from, start), element("mark", text.slice(start, end), "fault"));
    from = end;
  }
  nodes.append(text.slice(from));
  return nodes;
}

function showSide(item, side, arm, test, texts, content) {
  const section = element("section");
  section.append(element("h4", arm));
  if (!side) {
    section.append(element("p", "no response in the tables", "soft"));
    return section;
  }
  if (side.others) section.append(others(side, arm, texts));
  if (test.asks === "loglikelihood") section.append(options(item, side, arm, texts));
  else {
    for (const written of side.responses) {
      const text = texts[written.text];
      section.append(response(written, content ?? (side.faults ? withFaults(text, side.faults) : text), arm, texts));
    }
    if (side.faults && !content) section.append(element("p", "Marked: where it breaks an instruction.", "soft"));
  }
  if (side.state !== undefined) section.append(block(`${arm}: how the dialogue ended`, texts[side.state]));
  section.append(verdicts(item, side, test.binary, texts));
  return section;
}

// Fill `view` with an example. Returns a remark for the reader, or an empty text.
function showExample(view, { item, texts }, test, names, positions, differences) {
  const sides = positions.map((position) => item.sides[position]);
  const known = sides.filter(Boolean), alike = known.length === 2 && known[0].prompt === known[1].prompt;
  if (item.question !== undefined) view.append(block("question", texts[item.question]));
  const prompts = alike ? [block("prompt as rendered, the same for both", texts[known[0].prompt])]
    : sides.map((side, i) => side && block(`${names[i]}: prompt as rendered`, texts[side.prompt])).filter(Boolean);
  if (item.question === undefined) view.append(...prompts);
  else view.append(folded(known.length < 2 ? "prompt" : alike ? "prompt, the same for both" : "prompts, not the same", ...prompts));
  if (item.reference !== undefined) view.append(folded("reference", block("reference", texts[item.reference])));
  const comparable = differences && known.length === 2 && known.every((side) => side.responses.length === 1);
  const contents = comparable ? compared(sides, texts) : null;
  const columns = element("div", undefined, "sides");
  sides.forEach((side, i) => columns.append(showSide(item, side, names[i], test, texts, contents?.[i])));
  view.append(columns);
  return comparable && !contents ? "too long to mark differences" : "";
}
