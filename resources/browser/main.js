// What the reader has chosen, the address that names the choice, and the keys.

const part = (id) => document.getElementById(id);
const controls = { eval: part("eval"), a: part("arm-a"), b: part("arm-b"), show: part("show"), q: part("search") };
const OUTCOMES = ["won", "lost", "tied"];
let listed = []; // {rank, outcome} of the examples in the list
let place = 0; // of the chosen one in `listed`
let index = null; // of the chosen eval
let differences = false;
let remark = ""; // about the address or the query
// How often fillList and showPlace were begun. A call that still waits for texts gives up when a newer one has begun.
let fills = 0, shows = 0;
let touched = false; // the address changes only once the reader has chosen something

const positions = () => [data.arms.indexOf(controls.a.value), data.arms.indexOf(controls.b.value)];
const chosenEval = () => data.evals[controls.eval.value];
const drawList = makeList(part("list"), lineOf, (chosen) => goTo(chosen));

function lineOf(at) {
  const { rank, outcome } = listed[at], tokens = positions().map((arm) => index.arms[arm].tokens[rank]);
  const shown = tokens.every((count) => count === null) ? "" : tokens.map((count) => count ?? "–").join(" / ");
  return { outcome, first: index.first[rank], tokens: shown, id: index.ids[rank] };
}

// The examples that both arms have. Writes into the options of `show` how many of them the page holds.
function pairExamples() {
  const [a, b] = positions(), test = chosenEval(), examples = [];
  const counts = { all: 0, won: 0, lost: 0, tied: 0 };
  for (let rank = 0; a !== b && rank < index.ids.length; rank += 1) {
    const outcome = outcomeOf(index, test, rank, a, b);
    if (outcome === null) continue;
    examples.push({ rank, outcome });
    counts.all += 1;
    if (outcome in counts) counts[outcome] += 1;
  }
  const totals = a === b ? counts : totalsOf(test, a, b);
  for (const option of controls.show.options) {
    const key = option.value, total = totals[key] ?? counts[key];
    option.textContent = `${key} (${counts[key]}${counts[key] < total ? ` of ${total}` : ""})`;
  }
  return examples;
}

function sayWhatIsHeld() {
  const test = chosenEval(), held = index.ids.length, certain = Math.min(held, test.discordant);
  const differing = `${certain < test.discordant ? `${certain} of the` : "all"} ${test.discordant} in which an arm won or lost`;
  part("held").textContent = held === test.n ? `All ${test.n} examples of this eval are here.`
    : test.metric === null ? `${held} of ${test.n} examples of this eval are here, drawn by hash. The tables hold the rest.`
    : `${held} of ${test.n} examples of this eval are here: ${differing} against an arm that it is compared with`
      + `${held > certain ? `, and ${held - certain} others, drawn by hash` : ""}. The tables hold the rest.`;
}

// Those of the examples that pass the search. Null if another fill of the list than `mine` has begun meanwhile.
async function searched(examples, mine) {
  const query = parseQuery(controls.q.value, index), arms = positions();
  if (query.problem) remark = query.problem;
  const passing = examples.filter(({ rank }) => query.tests.every((test) => test(index, rank, arms)));
  if (!query.words.length) return passing;
  const matching = [];
  for (const line of passing) {
    const example = exampleOf(controls.eval.value, line.rank);
    if (holdsWords(await example, arms, query.words)) matching.push(line);
    if (mine !== fills) return null;
  }
  return matching;
}

// Fill the list, and show the example with this id, or the first one. `asked`: the reader has asked for this example.
async function fillList(id, asked = false) {
  const mine = ++fills;
  const loaded = await indexOf(controls.eval.value);
  if (mine !== fills) return;
  index = loaded;
  sayWhatIsHeld();
  const examples = pairExamples().filter(({ outcome }) => [outcome, "all"].includes(controls.show.value));
  if (controls.q.value.trim()) part("count").textContent = "searching …";
  const passing = await searched(examples, mine);
  if (passing === null) return;
  listed = passing;
  place = Math.max(0, listed.findIndex(({ rank }) => index.ids[rank] === id));
  if (asked && listed.length && index.ids[listed[place].rank] !== id) remark = `example ${id} is not in this list`;
  await showPlace();
}

async function showPlace() {
  const mine = ++shows, [a, b] = positions(), line = listed[place], test = chosenEval();
  drawList(listed.length, place);
  part("previous").disabled = place <= 0;
  part("next").disabled = place >= listed.length - 1;
  const example = line && await exampleOf(controls.eval.value, line.rank);
  if (mine !== shows) return;
  const view = element("div");
  if (line) {
    const strata = Object.entries(index.strata[line.rank]).map(([name, value]) => `${name}: ${value}`).join(", ");
    view.append(element("p", `example ${index.ids[line.rank]}${strata ? ` · ${strata}` : ""}`, "label"));
    const names = [data.arms[a], data.arms[b]];
    remark = showExample(view, example, test, names, [a, b], differences) || remark;
  }
  part("view").replaceChildren(...view.childNodes);
  part("count").textContent = [remark, statusOf(line, a, b, test)].filter(Boolean).join("; ");
  remark = "";
  if (touched) history.replaceState(null, "", address(line));
}

function statusOf(line, a, b, test) {
  if (a === b) return "choose two different arms";
  if (!line) return controls.q.value.trim() || controls.show.value !== "all" ? "no such example"
    : test.metric === null ? `this eval was put to ${askedArms().join(", ")}; choose one of them`
    : "these two arms share no example of this eval";
  const values = [a, b].map((arm) => index.arms[arm].values[line.rank]).map(shortNumber);
  const outcome = test.metric === null ? "not scored: this eval only samples" : line.outcome === "open" ? "not compared: a value is missing"
    : `${data.arms[a]} ${line.outcome} by ${test.metric}, ${values[0]} against ${values[1]}`;
  return `${place + 1} of ${listed.length} · ${outcome}`;
}

// The arms that have responses to the chosen eval.
function askedArms() {
  return data.arms.filter((_, arm) => index.arms[arm].marks.some((marks) => marks !== null));
}

function shortNumber(value) {
  return value === null ? "–" : String(Number(value.toPrecision(4)));
}

function address(line) {
  const state = new URLSearchParams({ eval: controls.eval.value, a: controls.a.value, b: controls.b.value,
    show: controls.show.value });
  if (controls.q.value) state.set("q", controls.q.value);
  if (line) state.set("i", index.ids[line.rank]);
  return `#browse?${state}`;
}

// Take over what the address says, and the defaults for what it leaves open.
function readAddress() {
  const [anchor, query] = location.hash.split(/\?(.*)/s);
  const state = new URLSearchParams(anchor === "#browse" ? query : ""), defaults = part("browse").dataset;
  choose(controls.eval, state.get("eval") ?? controls.eval.value);
  choose(controls.a, state.get("a") ?? defaults.arm);
  choose(controls.b, state.get("b") ?? defaults.control);
  choose(controls.show, state.get("show") ?? "all");
  controls.q.value = state.get("q") ?? "";
  if (query) part("browse").scrollIntoView();
  const id = state.get("i");
  return fillList(id, id !== null);
}

function choose(control, value) {
  if ([...control.options].some((option) => option.value === value)) control.value = value;
  else remark = `this page holds no ${value}`;
}

function goTo(chosen) {
  if (chosen < 0 || chosen >= listed.length) return;
  touched = true;
  place = chosen;
  showPlace();
}

function toggleDifferences() {
  differences = !differences;
  part("differences").setAttribute("aria-pressed", differences);
  showPlace();
}

const KEYS = {
  j: () => goTo(place + 1),
  k: () => goTo(place - 1),
  d: toggleDifferences,
  "/": () => controls.q.focus(),
  "?": () => part("help").showModal(),
};

function pressed(event) {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (typing || event.altKey || event.ctrlKey || event.metaKey || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
}

function changed() {
  touched = true;
  const line = listed[place];
  fillList(line && index.ids[line.rank]).catch(fail);
}

function fail(error) {
  part("count").textContent = `the responses cannot be shown: ${error.message}`;
}

function start() {
  for (const name of Object.keys(data.evals)) controls.eval.append(new Option(name, name));
  for (const control of [controls.a, controls.b]) control.append(...data.arms.map((arm) => new Option(arm, arm)));
  for (const control of [controls.eval, controls.a, controls.b, controls.show]) control.addEventListener("change", changed);
  let waiting;
  controls.q.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(changed, 150);
  });
  part("previous").addEventListener("click", () => goTo(place - 1));
  part("next").addEventListener("click", () => goTo(place + 1));
  part("differences").addEventListener("click", toggleDifferences);
  part("ask").addEventListener("click", KEYS["?"]);
  document.addEventListener("keydown", pressed);
  window.addEventListener("hashchange", () => {
    if (location.hash.startsWith("#browse?")) readAddress().catch(fail);
  });
  document.addEventListener("click", (event) => {
    // A link to the state that the address has already changes no address.
    if (event.target.closest("a")?.hash === location.hash && location.hash) part("browse").scrollIntoView();
  });
  readAddress().catch(fail);
}

if ("DecompressionStream" in window) start();
else part("count").textContent = "this section needs a browser of 2023 or later";
