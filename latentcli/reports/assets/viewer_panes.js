// Which panes a picture has, how they lie beside each other, and what stands under each.
const KINDS = [
  { id: "original", label: "Original" },
  { id: "picture", label: "Reconstructions" },
  { id: "difference", label: "Differences" },
  { id: "pca", label: "Latents (PCA)" },
];
const CAPTION = 30;
const PANE_GAP = 8;

const original = { id: "original", kind: "original", model: null, name: "Original" };
const reconstructions = modelIds.map((model) => ({
  id: `picture-${model}`,
  kind: "picture",
  model,
  name: about.models[model],
}));
const sources = [original, ...reconstructions];

const WEBP_MOST = 16383; // Pixels a side; what is larger is kept as PNG.

function endingOf(row, { kind, model }) {
  if (!row.whole) return "thumb.webp";
  const lossless = Math.max(row.width, row.height) > WEBP_MOST ? "png" : "webp";
  const what = {
    original: `original.${lossless}`,
    picture: `${model}.${lossless}`,
    difference: `${model}.diff.jpg`,
    pca: `${model}.pca.png`,
  };
  return what[kind];
}

const fileOfPane = (row, pane) => fileOf(row, endingOf(row, pane));

function describePane(row, { kind, model }) {
  const name = about.models[model];
  const text = {
    original: `Original of ${row.key}`,
    picture: `Reconstruction of ${row.key} by ${name}`,
    difference: `Difference of ${name} to the original of ${row.key}; grey is none`,
    pca: `Latents of ${row.key} by ${name} in three colours`,
  };
  return text[kind];
}

// The original, then by kind one pane for each model.
function panesOf(row, shown) {
  if (!row.whole) return [original];
  const kinds = KINDS.slice(1).filter((kind) => shown.kinds.has(kind.id));
  const models = modelIds.filter((model) => shown.models.has(model));
  const panes = kinds.flatMap(({ id }) =>
    models
      .filter((model) => id !== "pca" || row.pca[model])
      .map((model) => ({ id: `${id}-${model}`, kind: id, model, name: about.models[model] })),
  );
  return shown.kinds.has("original") || !panes.length ? [original, ...panes] : panes;
}

function makePane(row, pane) {
  const stage = element("div", { class: `stage ${pane.kind}` }, layer(row, pane));
  return element("figure", { class: "pane", "data-pane": pane.id }, stage, caption(row, pane));
}

// A picture whose file is not there says so in its place.
function layer(row, pane) {
  const image = element("img", { alt: describePane(row, pane), draggable: "false" });
  image.addEventListener("load", () => image.classList.add("there"));
  image.addEventListener("error", () => {
    image.after(element("p", { class: "gone" }, `No file ${fileOfPane(row, pane).replace(/^data:.*/s, "inside this page")}`));
  });
  image.src = fileOfPane(row, pane);
  return image;
}

function latentsText(model) {
  const part = about.explained[model];
  return part == null ? "PCA" : `PCA, ${Math.round(100 * part)}% of variance`;
}

function caption(row, pane) {
  const told = element("figcaption", {}, element("b", { title: pane.name }, pane.name));
  if (pane.model !== null) told.prepend(swatch(pane.model));
  const [measure] = about.measures;
  if (pane.kind === "picture" && measure) {
    const text = withUnit(figureOf(row, pane.model, 0), measure);
    told.append(element("span", { class: "value" }, text));
  }
  if (pane.kind === "difference") told.append(element("span", { class: "gain-note" }));
  if (pane.kind === "pca") told.append(element("span", {}, latentsText(pane.model)));
  return told;
}

const modelsOf = (panes) => [...new Set(panes.map((pane) => pane.model).filter((m) => m !== null))];
const kindsOf = (panes) => [...new Set(panes.map((pane) => pane.kind).filter((k) => k !== "original"))];

// Columns and lines under which panes of the picture's shape come out largest; with several models,
// each in a column or in a line of its own wins over others that are nearly as large.
function layoutOf(panes, area, row) {
  const widest = (a, b) => (widthIn(b, area, row) > widthIn(a, area, row) * 1.001 ? b : a);
  const free = panes.map((_, i) => ({ columns: i + 1, lines: Math.ceil(panes.length / (i + 1)) }));
  const best = free.reduce(widest);
  const [models, kinds] = [modelsOf(panes).length, kindsOf(panes).length];
  if (models < 2 || panes[0] !== original) return best;
  const inColumns = { columns: models + 1, lines: kinds, across: "models" };
  const inLines = { columns: kinds + 1, lines: models, across: "kinds" };
  const tidy = widest(inColumns, inLines);
  return widthIn(tidy, area, row) > 0.8 * widthIn(best, area, row) ? tidy : best;
}

const widthIn = (layout, area, row) => paneSize(layout, area, row).width;

function paneSize({ columns, lines }, area, row) {
  const shape = row.width / row.height;
  const width = (area.width - PANE_GAP * (columns - 1)) / columns;
  const height = (area.height - PANE_GAP * (lines - 1)) / lines - CAPTION;
  const fits = Math.max(48, Math.floor(Math.min(width, Math.max(1, height) * shape)));
  return { width: fits, height: Math.ceil(fits / shape) };
}

// In a tidy layout the original stands alone in the first column.
function placePanes(figures, panes, { across }) {
  const [models, kinds] = [modelsOf(panes), kindsOf(panes)];
  figures.forEach((figure, i) => {
    const { model, kind } = panes[i];
    const place = model === null ? [-1, 0] : [models.indexOf(model), kinds.indexOf(kind)];
    if (across === "kinds" && model !== null) place.reverse();
    figure.style.gridColumn = across ? place[0] + 2 : "";
    figure.style.gridRow = across ? place[1] + 1 : "";
  });
}
