// The comparison: one picture, its panes, slider, flip or fade, and what stands beside them.
const compare = {
  dialog: byId("compare"),
  row: null,
  mode: "panes",
  shown: { kinds: new Set(KINDS.map((kind) => kind.id)), models: new Set(modelIds) },
  pair: ["original", `picture-${mainModel}`],
  front: 1, // Which of the pair flip shows.
  held: null,
  gain: 0,
};
const stages = byId("stages");

function showRow(row, place, total) {
  const other = row !== compare.row;
  compare.row = row;
  view.picture = { width: row.width, height: row.height };
  byId("compare-key").textContent = row.key;
  byId("compare-place").textContent = `${thousands(place + 1)} of ${thousands(total)}`;
  byId("told").replaceChildren(toldFigures(row));
  if (!compare.dialog.open) {
    compare.dialog.showModal();
    compare.dialog.scrollTop = 0;
  }
  if (about.measures.length) placeOf(row, compare.dialog.querySelector(".told-box .chart"));
  if (other) fillStages();
}

// Of a picture without its files only the thumbnail can be shown.
const modeOf = (row) => (row.whole ? compare.mode : "panes");

function fillStages() {
  const { row } = compare;
  if (!row) return;
  const mode = modeOf(row);
  view.fitted = view.fitted || !sameShape(row);
  stages.dataset.mode = mode;
  const build = { panes: fillPanes, slider: fillSlider, flip: fillFlip, fade: fillFade };
  stages.replaceChildren(...build[mode](row));
  byId("divider-row").hidden = mode !== "slider";
  byId("fade-row").hidden = mode !== "fade";
  byId("pair").hidden = mode === "panes";
  byId("shown").hidden = mode !== "panes" || !row.whole;
  byId("gain-row").hidden = mode !== "panes" || !row.whole || !compare.shown.kinds.has("difference");
  for (const button of compare.dialog.querySelectorAll(".segments [data-do]")) {
    if (!(button.dataset.do in build)) continue;
    button.setAttribute("aria-pressed", button.dataset.do === mode);
    button.setAttribute("aria-disabled", !row.whole); // One that is disabled would lose the keys.
  }
  showGain();
  measurePanes();
}

// A zoomed view stays where it is from picture to picture of one size.
let lastShape = "";
function sameShape({ width, height }) {
  const shape = `${width}x${height}`;
  const same = shape === lastShape;
  lastShape = shape;
  return same;
}

function fillPanes(row) {
  compare.panes = panesOf(row, compare.shown);
  return compare.panes.map((pane) => makePane(row, pane));
}

const pairPanes = () => compare.pair.map((id) => sources.find((pane) => pane.id === id));

// Both pictures in one pane; the second is cut off at the divider.
function fillSlider(row) {
  const [a, b] = pairPanes();
  const over = element("div", { class: "over" }, layer(row, b));
  const line = element("div", { class: "line", "aria-hidden": "true" });
  line.addEventListener("pointerdown", startDivider);
  const stage = element("div", { class: "stage" }, layer(row, a), over, line);
  byId("divider-ends").textContent = `Left ${a.name}, right ${b.name}`;
  const names = element("figcaption", { class: "ends" }, nameOf(row, a), nameOf(row, b));
  requestAnimationFrame(placeDivider);
  return [element("figure", { class: "pane", "data-pane": "slider" }, stage, names)];
}

function nameOf(row, pane) {
  return element("span", { class: "end" }, ...caption(row, pane).childNodes);
}

function startDivider(event) {
  const line = event.currentTarget;
  const box = line.parentNode.getBoundingClientRect();
  event.stopPropagation();
  line.setPointerCapture(event.pointerId);
  line.onpointermove = (move) => {
    byId("divider").value = (100 * (move.clientX - box.left)) / box.width;
    placeDivider();
  };
  line.onpointerup = line.onpointercancel = () => (line.onpointermove = null);
}

function placeDivider() {
  const at = `${byId("divider").value}%`;
  stages.style.setProperty("--divider", at);
}

// Both pictures in one pane, the second over the first and more or less opaque.
function fillFade(row) {
  const [a, b] = pairPanes();
  const over = element("div", { class: "fading" }, layer(row, b));
  const stage = element("div", { class: "stage" }, layer(row, a), over);
  const names = element("figcaption", { class: "ends" }, nameOf(row, a), nameOf(row, b));
  requestAnimationFrame(placeFade);
  return [element("figure", { class: "pane", "data-pane": "fade" }, stage, names)];
}

function placeFade() {
  const [a, b] = pairPanes();
  const part = Number(byId("fade").value);
  stages.style.setProperty("--fade", part / 100);
  byId("fade-ends").textContent = `${a.name} ${100 - part}%, ${b.name} ${part}%`;
}

function fillFlip(row) {
  const layers = pairPanes().map((pane) => layer(row, pane));
  const stage = element("div", { class: "stage flips" }, ...layers);
  const names = element("figcaption", { "aria-live": "polite" });
  requestAnimationFrame(showFront);
  return [element("figure", { class: "pane", "data-pane": "flip" }, stage, names)];
}

function showFront() {
  if (stages.dataset.mode !== "flip" || !compare.row) return;
  stages.querySelectorAll("img").forEach((image, i) => {
    image.classList.toggle("behind", i !== compare.front);
    image.toggleAttribute("aria-hidden", i !== compare.front);
  });
  const badge = element("span", { class: "badge" }, "AB"[compare.front]);
  const name = caption(compare.row, pairPanes()[compare.front]);
  stages.querySelector("figcaption").replaceChildren(badge, ...name.childNodes);
}

function flip() {
  compare.front = 1 - compare.front;
  showFront();
}

// In place where one hides the other; in the slider and the fade they change sides.
function swapPair() {
  if (compare.mode === "flip") return flip();
  if (compare.mode === "panes") return null;
  compare.pair.reverse();
  [byId("first").value, byId("second").value] = compare.pair;
  return fillStages();
}

function setMode(mode) {
  compare.mode = mode;
  fillStages();
}

function showGain() {
  const factor = 2 ** compare.gain;
  const total = about.gain * factor;
  const text = `× ${Number(total.toPrecision(3))}`;
  byId("gain-shown").value = text;
  byId("gain").setAttribute("aria-valuetext", `times ${Number(total.toPrecision(3))}`);
  for (const note of stages.querySelectorAll(".gain-note")) note.textContent = `difference ${text}`;
  // No difference is 128 of 255, so that level is what the factor turns around.
  for (const part of document.querySelectorAll("#amplify feComponentTransfer > *")) {
    part.setAttribute("slope", factor);
    part.setAttribute("intercept", (128 / 255) * (1 - factor));
  }
}

function setGain(value) {
  compare.gain = clamp(value, -2, 4);
  byId("gain").value = compare.gain;
  showGain();
}

// One column on a narrow screen, where panes are as high as the picture; else all fit at once.
function measurePanes() {
  const figures = [...stages.querySelectorAll(".pane")];
  if (!figures.length || !compare.dialog.open) return;
  const area = { width: stages.clientWidth - 2 * PANE_GAP, height: stages.clientHeight - 2 * PANE_GAP };
  const narrow = matchMedia("(max-width: 719px)").matches;
  const panes = modeOf(compare.row) === "panes" ? compare.panes : [original];
  const layout = narrow ? { columns: 1, lines: panes.length } : layoutOf(panes, area, compare.row);
  stages.style.setProperty("--columns", layout.columns);
  sizePanes(layout, area);
  stages.style.setProperty("--shape", clamp(compare.row.width / compare.row.height, 0.6, 3));
  placePanes(figures, panes, layout);
  const stage = figures[0].querySelector(".stage");
  view.pane = { width: stage.clientWidth, height: stage.clientHeight };
  placeView();
}

// Panes are as large as the picture that fits into them; a single one takes all there is.
function sizePanes(layout, area) {
  const { width, height } = paneSize(layout, area, compare.row);
  const alone = modeOf(compare.row) !== "panes";
  stages.style.setProperty("--width", alone ? "minmax(0, 1fr)" : `${width}px`);
  stages.style.setProperty("--height", alone ? "minmax(0, 1fr)" : `${height + CAPTION}px`);
}

function hideCompare() {
  if (compare.dialog.open) compare.dialog.close();
  stages.replaceChildren();
  compare.row = null;
}

function addChecks() {
  const box = byId("shown");
  const long = about.models.some((name) => name.length > 14);
  const add = (set, id, label) => {
    const input = element("input", { type: "checkbox", checked: true, value: id });
    input.addEventListener("change", () => {
      if (input.checked) set.add(id);
      else set.delete(id);
      fillStages();
    });
    box.append(element("label", { class: long && set === compare.shown.models ? "long" : null }, input, ...label));
  };
  const colours = rows.some((row) => row.pca.some(Boolean));
  for (const { id, label } of KINDS) if (id !== "pca" || colours) add(compare.shown.kinds, id, [label]);
  if (about.models.length < 2) return;
  box.append(element("hr"));
  for (const m of modelIds) add(compare.shown.models, m, [swatch(m), about.models[m]]);
}

function addPair() {
  ["first", "second"].forEach((name, i) => {
    const select = byId(name);
    select.append(...sources.map((pane) => option(pane.id, pane.name)));
    select.value = compare.pair[i];
    select.addEventListener("change", () => {
      compare.pair[i] = select.value;
      fillStages();
    });
  });
}

function startCompare(step) {
  addChecks();
  addPair();
  byId("gain").addEventListener("input", (event) => setGain(Number(event.target.value)));
  byId("divider").addEventListener("input", placeDivider);
  byId("fade").addEventListener("input", placeFade);
  new ResizeObserver(() => measurePanes()).observe(stages);
  startGestures(stages, {
    swiped: step,
    pressed: () => {
      compare.held = compare.front;
      if (compare.mode === "flip") flip();
    },
    released: (clicked) => {
      if (compare.mode === "flip" && !clicked && compare.front !== compare.held) flip();
    },
  });
}
