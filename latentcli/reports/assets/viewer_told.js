// The figures of one picture: every measure of every model, with the difference to the baseline.
const TOLD_ROOM = 34; // Characters in a line of the panel.

function toldFigures(row) {
  const base = about.models.length > 1 ? (about.baseline ?? 0) : null;
  const head = ["", ...about.measures.map(measureHead)];
  const wide = isWide(base);
  const body = wide
    ? [element("tbody", {}, ...modelIds.flatMap((m) => modelLines(row, m, base)))]
    : modelIds.map((m) => modelList(row, m, base));
  const table = element("table", { class: wide ? "told" : "told long" });
  if (wide) table.append(element("thead", {}, element("tr", {}, ...head.map(headCell))));
  table.append(...body);
  return element("div", { class: "told-box" }, element("h3", {}, "This picture"), table, element("figure", { class: "chart" }), files(row));
}

// Whether a column for each measure leaves room for the models' names in the panel beside the panes.
function isWide(base) {
  const longest = Math.max(...about.models.map((name) => name.length)) + (base === null ? 0 : 2);
  const columns = about.measures.map((measure) => measure.digits + (base === null ? 3 : 4));
  return longest + columns.reduce((a, b) => a + b, 0) <= TOLD_ROOM;
}

const measureHead = (measure) => (measure.unit ? `${measure.label}, ${measure.unit}` : measure.label);
const headCell = (text) =>
  text ? element("th", { scope: "col" }, text) : element("td", {}, "");

function modelLines(row, m, base) {
  const cells = measureIds.map((k) =>
    element("td", {}, figureText(figureOf(row, m, k), about.measures[k])),
  );
  const name = element("th", { scope: "row" }, swatch(m), about.models[m]);
  const line = element("tr", {}, name, ...cells);
  if (base === null || m === base) return [line];
  const less = element("th", { scope: "row" }, `− ${about.models[base]}`);
  const deltas = measureIds.map((k) => deltaCell(row, m, base, k));
  return [line, element("tr", { class: "delta" }, less, ...deltas)];
}

function deltaCell(row, m, base, k) {
  const value = differenceOf(row, m, base, k);
  const measure = about.measures[k];
  return element("td", { class: verdict(value, measure) }, differenceText(value, measure));
}

// With many measures each has a line of its own under the model's name.
function modelList(row, m, base) {
  const versus = base !== null && m !== base;
  const name = element("th", { scope: "rowgroup", colspan: 2 }, swatch(m), about.models[m]);
  const against = versus ? element("th", { scope: "col" }, `− ${about.models[base]}`) : element("td");
  const lines = measureIds.map((k) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, measureHead(about.measures[k])),
      element("td", {}, figureText(figureOf(row, m, k), about.measures[k])),
      versus ? deltaCell(row, m, base, k) : element("td"),
    ),
  );
  return element("tbody", {}, element("tr", { class: "of" }, name, against), ...lines);
}

// A file inside the page can be saved; one beside it can be opened too.
function fileLink(row, pane) {
  const href = fileOfPane(row, pane);
  const download = href.startsWith("data:") ? fileName(row, endingOf(row, pane)) : null;
  return element("a", { href, download }, pane.name);
}

function files(row) {
  const list = (row.whole ? sources : []).map((pane) => element("li", {}, fileLink(row, pane)));
  const facts = element("p", { class: "note" }, `${row.width} × ${row.height}`);
  if (!row.whole) facts.prepend("This page has only a thumbnail of this picture: the pictures before it use up the space.", element("br"));
  if (row.source && row.source !== row.key) facts.append(element("br"), row.source);
  return element(
    "div",
    { class: "files" },
    element("h3", {}, "Files"),
    element("ul", {}, ...list),
    facts,
  );
}
