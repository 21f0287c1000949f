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

function fileOfPane(row, { kind, model }) {
  const what = {
    original: "original.png",
    picture: `${model}.png`,
    difference: `${model}.diff.jpg`,
    pca: `${model}.pca.png`,
  };
  return fileOf(row, what[kind]);
}

function describePane(row, { kind, model }) {
  const name = about.models[model];
  const text = {
    original: `Original of ${row.key}`,
    picture: `${row.key} as ${name} gives it back`,
    difference: `Difference of ${name} to the original of ${row.key}; grey is none`,
    pca: `Latents of ${row.key} by ${name} in three colours`,
  };
  return text[kind];
}

// The original, then by kind one pane for each model.
function panesOf(row, shown) {
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
    image.after(element("p", { class: "gone" }, `No file ${fileOfPane(row, pane)}`));
  });
  image.src = fileOfPane(row, pane);
  return image;
}

function caption(row, pane) {
  const told = element("figcaption", {}, element("b", {}, pane.name));
  if (pane.model !== null) told.prepend(swatch(pane.model));
  const [measure] = about.measures;
  if (pane.kind === "picture" && measure) {
    told.append(element("span", {}, withUnit(figureOf(row, pane.model, 0), measure)));
  }
  if (pane.kind === "difference") told.append(element("span", { class: "gain-note" }));
  if (pane.kind === "pca") told.append(element("span", {}, "latents"));
  return told;
}

// Columns under which panes of the picture's shape come out largest; with several models the
// orders that put a model's panes in one line or one column win over others nearly as large.
function bestColumns(panes, area, row) {
  const widthWith = (columns) => paneSize(panes, columns, area, row).width;
  const counts = panes.map((_, i) => i + 1);
  const best = counts.reduce((a, b) => (widthWith(b) > widthWith(a) * 1.001 ? b : a));
  const models = new Set(panes.map((pane) => pane.model).filter((model) => model !== null)).size;
  const tidy = models > 1 && panes[0] === original ? models + 1 : best;
  return tidy <= panes.length && widthWith(tidy) > 0.8 * widthWith(best) ? tidy : best;
}

function paneSize(panes, columns, area, row) {
  const shape = row.width / row.height;
  const lines = Math.ceil(panes.length / columns);
  const width = (area.width - PANE_GAP * (columns - 1)) / columns;
  const height = (area.height - PANE_GAP * (lines - 1)) / lines - CAPTION;
  const fits = Math.max(48, Math.floor(Math.min(width, Math.max(1, height) * shape)));
  return { width: fits, height: Math.ceil(fits / shape) };
}

// In tidy columns a model's panes stand under each other, the original alone in the first.
function placePanes(figures, panes, columns) {
  const models = [...new Set(panes.map((pane) => pane.model).filter((model) => model !== null))];
  const kinds = [...new Set(panes.map((pane) => pane.kind).filter((kind) => kind !== "original"))];
  const tidy = models.length > 1 && columns === models.length + 1 && panes[0] === original;
  figures.forEach((figure, i) => {
    const { model, kind } = panes[i];
    figure.style.gridColumn = tidy ? (model === null ? 1 : models.indexOf(model) + 2) : "";
    figure.style.gridRow = tidy ? (model === null ? 1 : kinds.indexOf(kind) + 1) : "";
  });
}
