// The page's data as rows, and the ways to write and order their figures.
const byId = (id) => document.getElementById(id);
const readJson = (id) => JSON.parse(byId(id).textContent);

const about = readJson("about");
const rows = readJson("rows").map(unpackRow);
const rowOfIndex = new Map(rows.map((row) => [row.index, row]));
const modelIds = about.models.map((_, model) => model);
// The model that the page is about: the first that is not the baseline.
const mainModel = modelIds.find((model) => model !== about.baseline) ?? 0;
const measureIds = about.measures.map((_, measure) => measure);

function unpackRow([index, key, source, width, height, figures, pca, whole]) {
  return {
    index,
    key,
    source,
    width,
    height,
    figures: figures.map((list) => list.map(unpackFigure)),
    pca: pca.map(Boolean),
    whole: Boolean(whole), // false: of this picture the page holds the thumbnail alone.
    words: `${key}\n${source}`.toLowerCase(),
  };
}

// null: the pictures are the same and the measure has no upper end; false: not measured.
function unpackFigure(value) {
  if (value === false) return NaN;
  return value === null ? Infinity : value;
}

const fileName = (row, what) => `${String(row.index).padStart(6, "0")}.${what}`;

// The address of a file: inside the page where it is there, else beside it.
function fileOf(row, what) {
  const name = fileName(row, what);
  if (byId(`file-${name}`)) return readJson(`file-${name}`);
  const folder = String(Math.floor(row.index / 1000)).padStart(3, "0");
  return `files/${folder}/${name}`;
}

const figureOf = (row, model, measure) => row.figures[model]?.[measure] ?? NaN;

function differenceOf(row, model, against, measure) {
  const [a, b] = [figureOf(row, model, measure), figureOf(row, against, measure)];
  return a === b ? 0 : a - b;
}

function figureText(value, measure) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  return Math.abs(value).toFixed(measure.digits).replace(/^/, value < 0 ? "−" : "");
}

function withUnit(value, measure) {
  const text = figureText(value, measure);
  return measure.unit && !Number.isNaN(value) ? `${text} ${measure.unit}` : text;
}

const signed = (value, text) => (value > 0 ? `+${text}` : text);
const differenceText = (value, measure) => signed(value, figureText(value, measure));

// "good", "bad" or "" for a difference, by what the measure calls better and its digits can show.
function verdict(value, measure) {
  if (Number.isNaN(value) || Math.abs(value) < 0.5 * 10 ** -measure.digits) return "";
  return value > 0 === measure.higher_is_better ? "good" : "bad";
}

// Every pair of a few models; of many only those with the baseline (or the first).
function modelPairs() {
  const base = about.baseline ?? 0;
  const against = (b) => modelIds.filter((a) => a !== b).map((a) => [a, b]);
  if (about.models.length > 4) return against(base);
  const rest = modelIds.filter((id) => id !== base);
  const others = rest.flatMap((a, i) => rest.slice(i + 1).map((b) => [a, b]));
  return [...against(base), ...others];
}

function sortChoices() {
  const names = new Intl.Collator(undefined, { numeric: true });
  const plain = [
    { id: "order", label: "order of the inputs", compare: (a, b) => a.index - b.index },
    { id: "name", label: "name", compare: (a, b) => names.compare(a.key, b.key) },
    {
      id: "size",
      label: "size in pixels",
      value: (row) => row.width * row.height,
      show: (row) => `${row.width} × ${row.height}`,
    },
  ];
  return [...plain, ...about.measures.flatMap(measureChoices)];
}

function measureChoices(measure, k) {
  const one = modelIds.map((m) => ({
    id: `figure-${k}-${m}`,
    group: measure.label,
    label: about.models[m],
    models: [m],
    value: (row) => figureOf(row, m, k),
    show: (row) => withUnit(figureOf(row, m, k), measure),
    falls: !measure.higher_is_better,
  }));
  const two = modelPairs().map(([a, b]) => ({
    id: `difference-${k}-${a}-${b}`,
    group: measure.label,
    label: `${about.models[a]} − ${about.models[b]}`,
    models: [a, b],
    value: (row) => differenceOf(row, a, b, k),
    show: (row) => {
      const value = differenceOf(row, a, b, k);
      return signed(value, withUnit(value, measure));
    },
    falls: !measure.higher_is_better,
  }));
  return [...one, ...two];
}

// Rows without the figure come last both ways; equal rows keep the order of the inputs.
function sortRows(list, choice, falling) {
  const sign = falling ? -1 : 1;
  const order = choice.compare ?? ((a, b) => compareNumbers(choice.value(a), choice.value(b)));
  const missing = (row) => Boolean(choice.value) && Number.isNaN(choice.value(row));
  return [...list].sort(
    (a, b) => missing(a) - missing(b) || sign * order(a, b) || a.index - b.index,
  );
}

const compareNumbers = (a, b) => (a === b ? 0 : a < b ? -1 : a > b ? 1 : 0);

function findRows(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return words.length ? rows.filter((row) => words.every((word) => row.words.includes(word))) : rows;
}
