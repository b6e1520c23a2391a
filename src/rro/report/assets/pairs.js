// Chosen and rejected side by side, with the difference marked.

const MOST_CELLS = 4e6; // size of the comparison's table; longer texts are marked as a whole

/** Two texts as parts: [text, differs] for each, by the longest common run of words. */
function compare(left, right) {
  const a = left.match(/\w+|\s+|[^\w\s]/g) ?? [],
    b = right.match(/\w+|\s+|[^\w\s]/g) ?? [];
  let start = 0,
    end = 0;
  while (start < Math.min(a.length, b.length) && a[start] === b[start]) start++;
  while (end < Math.min(a.length, b.length) - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const [x, y] = [a, b].map((words) => words.slice(start, words.length - end));
  const same = x.length * y.length <= MOST_CELLS ? common(x, y) : [new Set(), new Set()];
  return [
    [a, x, same[0]],
    [b, y, same[1]],
  ].map(([words, middle, kept]) =>
    joined(words, (i) => i >= start && i < start + middle.length && !kept.has(i - start)),
  );
}

/** The places of a longest common subsequence in both. */
function common(x, y) {
  const wide = y.length + 1,
    length = new Uint32Array((x.length + 1) * wide);
  for (let i = x.length - 1; i >= 0; i--)
    for (let j = y.length - 1; j >= 0; j--)
      length[i * wide + j] =
        x[i] === y[j]
          ? length[(i + 1) * wide + j + 1] + 1
          : Math.max(length[(i + 1) * wide + j], length[i * wide + j + 1]);
  const kept = [new Set(), new Set()];
  for (let i = 0, j = 0; i < x.length && j < y.length;) {
    if (x[i] === y[j]) (kept[0].add(i++), kept[1].add(j++));
    else if (length[(i + 1) * wide + j] >= length[i * wide + j + 1]) i++;
    else j++;
  }
  return kept;
}

function joined(words, differs) {
  const parts = [];
  words.forEach((word, i) => {
    if (parts.length && parts.at(-1)[1] === differs(i)) parts.at(-1)[0] += word;
    else parts.push([word, differs(i)]);
  });
  return parts;
}

function marked(parts, kind) {
  return el(
    "pre",
    { tabindex: 0 },
    parts.map(([text, differs]) => (differs ? el("mark", { class: kind }, text) : text)),
  );
}

function side(task, pair, name, texts) {
  const answer = pair[name];
  const where = answer.node
    ? el("a", { href: address({ view: "trees", node: answer.node }) }, "show in the tree")
    : null;
  return el(
    "section",
    { class: `side ${name}`, "aria-label": name },
    el("h3", {}, name === "chosen" ? "+ chosen " : "− rejected ", chip(answer.reward, head.range)),
    el(
      "p",
      { class: "about" },
      `${estimateText({ ...answer, mean: answer.reward, low: null })} `,
      where,
    ),
    answer.messages.map(([role], i) =>
      el(
        "section",
        { class: "message" },
        el("h4", {}, { assistant: "agent", thought: "thought" }[role] ?? "environment"),
        marked(texts[i], name),
      ),
    ),
  );
}

function pairView(task, pair) {
  const texts = ["chosen", "rejected"].map((name) =>
    pair[name].messages.map(([, i]) => task.text(i)),
  );
  const longest = Math.max(texts[0].length, texts[1].length);
  const compared = Array.from({ length: longest }, (_, i) =>
    compare(texts[0][i] ?? "", texts[1][i] ?? ""),
  );
  const history = pair.prompt.map(([role, i]) =>
    message(role === "assistant" ? "agent" : role === "user" ? "environment" : role, task.text(i)),
  );
  return [
    el(
      "h2",
      {},
      pair.kind === "trajectory" ? "Whole trajectories" : `Step ${pair.step}`,
      pair.kind === "continuation" ? ", the rest of the episode" : "",
    ),
    folded(`shared history: ${plural(history.length, "message")}`, () => history.slice(0, -1)),
    ...history.slice(-1),
    el(
      "div",
      { class: "sides" },
      side(
        task,
        pair,
        "chosen",
        compared.map(([left]) => left),
      ),
      side(
        task,
        pair,
        "rejected",
        compared.map(([, right]) => right),
      ),
    ),
  ];
}

function pairList(task, chosen) {
  return el(
    "ul",
    { class: "pairlist", "aria-label": "Pairs of this task" },
    task.pairs.map((pair, i) =>
      el(
        "li",
        {},
        el(
          "a",
          { href: address({ pair: i }), "aria-current": i === chosen ? "true" : null },
          pair.kind === "trajectory" ? "whole " : `step ${pair.step} `,
          chip(pair.chosen.reward, head.range),
          " over ",
          chip(pair.rejected.reward, head.range),
        ),
      ),
    ),
  );
}
