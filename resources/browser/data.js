"use strict";
// The data of the page: an index for each eval, and blocks of texts. Both are packed until they are needed.

const data = JSON.parse(document.getElementById("data").textContent);
const unpacked = new Map();

async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function once(key, packed) {
  if (!unpacked.has(key)) unpacked.set(key, unpack(packed));
  return unpacked.get(key);
}

// Lists over the examples that the page holds: ids, first words, strata; values, marks and tokens of each arm.
function indexOf(name) {
  return once(name, data.evals[name].index);
}

// The example of a rank, and the texts of its block.
async function exampleOf(name, rank) {
  const number = Math.floor(rank / data.block);
  const { texts, items } = await once(`${name} ${number}`, data.evals[name].blocks[number]);
  return { item: items[rank % data.block], texts };
}

// "won", "lost" or "tied" by arm a against arm b; "open" if a value is missing; null if an arm has no such example.
// Where an eval only samples, "open" if one of the arms has it.
// The tolerance is that of report/browser.py.
function outcomeOf(index, { metric, direction }, rank, a, b) {
  const missing = [a, b].filter((arm) => index.arms[arm].marks[rank] === null).length;
  if (missing > (metric === null ? 1 : 0)) return null;
  const left = index.arms[a].values[rank], right = index.arms[b].values[rank];
  if (left === null || right === null) return "open";
  const gap = (left - right) * (direction || 1);
  if (Math.abs(gap) <= 1e-9 * Math.max(1, Math.abs(left))) return "tied";
  return gap > 0 ? "won" : "lost";
}

// Won, lost and tied of all examples of the eval, also of those that the page does not hold.
function totalsOf(test, a, b) {
  const [won, lost, tied] = test.totals[`${Math.min(a, b)}-${Math.max(a, b)}`];
  return a < b ? { won, lost, tied } : { won: lost, lost: won, tied };
}
