// The words in which two texts differ: those outside a longest common subsequence.

const MOST_CELLS = 4_000_000; // of the table of two texts; 8 MB

function wordsOf(text) {
  return text.match(/\S+\s*|^\s+/g) ?? [];
}

// Two lists of booleans: which words of each text are common to both. Null if the texts are too long to be compared.
function commonWords(left, right) {
  const a = left.map((word) => word.trim()), b = right.map((word) => word.trim());
  let start = 0, end = 0;
  while (start < Math.min(a.length, b.length) && a[start] === b[start]) start += 1;
  while (end < Math.min(a.length, b.length) - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const rows = a.length - start - end, columns = b.length - start - end;
  if ((rows + 1) * (columns + 1) > MOST_CELLS) return null;
  const inLeft = a.map((_, i) => i < start || i >= a.length - end);
  const inRight = b.map((_, i) => i < start || i >= b.length - end);
  const table = lengths(a, b, start, rows, columns);
  for (let i = 0, j = 0; i < rows && j < columns;) {
    const here = i * (columns + 1) + j;
    if (a[start + i] === b[start + j]) {
      inLeft[start + i] = inRight[start + j] = true;
      i += 1;
      j += 1;
    } else if (table[here + columns + 1] >= table[here + 1]) i += 1;
    else j += 1;
  }
  return [inLeft, inRight];
}

// The length of the longest common subsequence from word i of one and word j of the other text on, row by row.
function lengths(a, b, start, rows, columns) {
  const width = columns + 1, table = new Uint16Array((rows + 1) * width);
  for (let i = rows - 1; i >= 0; i -= 1) {
    for (let j = columns - 1; j >= 0; j -= 1) {
      const here = i * width + j;
      table[here] = a[start + i] === b[start + j]
        ? table[here + width + 1] + 1 : Math.max(table[here + width], table[here + 1]);
    }
  }
  return table;
}

// A text as nodes, with the words that the other text lacks marked.
function marked(words, common) {
  const nodes = document.createDocumentFragment();
  for (let i = 0; i < words.length;) {
    let end = i;
    while (end < words.length && common[end] === common[i]) end += 1;
    const run = words.slice(i, end).join("");
    nodes.append(common[i] ? run : element("mark", run));
    i = end;
  }
  return nodes;
}
