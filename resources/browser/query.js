// The small language of the search box. A query holds words, which must stand in the texts of an example, and tests on
// the index, which need no texts.

const MARKS = ["truncated", "unparsed", "error", "unverified", "unjudged"];
const COMPARE = {
  ">": (x, y) => x > y, "<": (x, y) => x < y, ">=": (x, y) => x >= y, "<=": (x, y) => x <= y, "=": (x, y) => x === y,
};

function parseQuery(query, index) {
  const parsed = { words: [], tests: [], problem: "" };
  const strata = new Set(index.strata.flatMap(Object.keys));
  for (const [term, quoted] of query.matchAll(/"([^"]*)"|\S+/g)) {
    const length = /^tokens([<>]=?|=)(\d+)$/i.exec(term), named = /^([^:"]+):(.+)$/.exec(term);
    if (quoted !== undefined) parsed.words.push(quoted.toLowerCase());
    else if (length) parsed.tests.push(hasTokens(COMPARE[length[1]], Number(length[2])));
    else if (named && named[1] === "is" && MARKS.includes(named[2])) parsed.tests.push(isMarked(named[2]));
    else if (named && named[1] === "is") parsed.problem = `${term} is no mark; write is:${MARKS.join(", is:")}`;
    else if (named && (named[1] === "type" || strata.has(named[1]))) parsed.tests.push(isOfType(named[1], named[2]));
    else parsed.words.push(term.toLowerCase());
  }
  return parsed;
}

function hasTokens(compare, bound) {
  return (index, rank, arms) => arms.some((arm) => {
    const tokens = index.arms[arm].tokens[rank];
    return tokens !== null && compare(tokens, bound);
  });
}

function isMarked(mark) {
  return (index, rank, arms) => arms.some((arm) => (index.arms[arm].marks[rank] ?? "").split(/[ ,]+/).includes(mark));
}

function isOfType(key, value) {
  const wanted = value.toLowerCase();
  return (index, rank) => Object.entries(index.strata[rank]).some(
    ([name, content]) => (name === key || key === "type") && String(content).toLowerCase().includes(wanted));
}

// Whether the question and the responses of two arms together hold all words.
function holdsWords({ item, texts }, arms, words) {
  const places = item.question === undefined ? [] : [item.question];
  for (const arm of arms) {
    const side = item.sides[arm];
    if (!side) continue;
    if (item.question === undefined) places.push(side.prompt);
    for (const response of [...side.responses, ...(side.others ?? [])]) {
      places.push(response.text, ...[response.before, response.after].filter((place) => place !== undefined));
    }
  }
  const searched = places.map((place) => texts[place].toLowerCase());
  return words.every((word) => searched.some((text) => text.includes(word)));
}
