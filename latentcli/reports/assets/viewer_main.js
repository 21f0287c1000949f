// The toolbar, the address (#image-12 is open), the keys: what joins the other parts.
const chosen = { choices: sortChoices(), sort: null, falling: false, rows: [], entered: false };

function startToolbar() {
  const groups = new Map();
  for (const { id, label, group } of chosen.choices) {
    const parent = group ? (groups.get(group) ?? element("optgroup", { label: group })) : byId("sort");
    if (group) groups.set(group, parent);
    parent.append(option(id, label));
  }
  byId("sort").append(...groups.values());
  byId("sort").addEventListener("change", () => chooseSort(byId("sort").value));
  byId("direction").addEventListener("click", () => {
    chosen.falling = !chosen.falling;
    arrange();
  });
  let waiting = 0;
  byId("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 80);
  });
  byId("size").addEventListener("change", () => {
    grid.size = Number(byId("size").value);
    placeGrid();
  });
  document.querySelector(".toolbar").addEventListener("submit", (event) => event.preventDefault());
}

// A measure begins with its worst picture.
function chooseSort(id) {
  chosen.sort = chosen.choices.find((choice) => choice.id === id);
  chosen.falling = Boolean(chosen.sort.falls);
  arrange();
}

function search() {
  arrange();
  showInCharts(chosen.rows);
}

function arrange() {
  const found = findRows(byId("search").value);
  chosen.rows = sortRows(found, chosen.sort, chosen.falling);
  const usual = chosen.choices.find((choice) => choice.models?.[0] === mainModel);
  setGridRows(chosen.rows, chosen.sort.show ? chosen.sort : usual);
  const counted = found.length === rows.length ? "" : `${thousands(found.length)} of `;
  byId("count").value = `${counted}${thousands(rows.length)} shown`;
  byId("none").hidden = found.length > 0;
  const words = chosen.sort.compare ? ["first to last", "last to first"] : ["lowest first", "highest first"];
  byId("direction").textContent = `${chosen.falling ? "↓" : "↑"} ${words[Number(chosen.falling)]}`;
}

function rowOfAddress() {
  const found = /^#image-(\d+)$/.exec(location.hash);
  return found ? rowOfIndex.get(Number(found[1])) : undefined;
}

// The pictures that next and previous go through: those shown, if the open one is among them.
const listAround = (row) => (chosen.rows.includes(row) ? chosen.rows : rows);

function route() {
  const row = rowOfAddress();
  if (!row) return close();
  const list = listAround(row);
  const place = list.indexOf(row);
  showRow(row, place, list.length);
  pointInCharts(row);
  for (const near of [list[place + 1], list[place - 1]]) if (near) fetchSoon(near);
}

// Next to come, so that it is there at once.
function fetchSoon(row) {
  for (const pane of panesOf(row, compare.shown)) new Image().src = fileOfPane(row, pane);
}

const address = (hash) => `${location.pathname}${location.search}${hash}`;

function step(by) {
  if (!compare.row) return;
  const list = listAround(compare.row);
  const row = list[list.indexOf(compare.row) + by];
  if (!row) return;
  history.replaceState(history.state, "", address(`#image-${row.index}`));
  route();
}

function close() {
  const row = compare.row;
  hideCompare();
  if (row) focusRow(row);
}

// Back to where the reader came from; a page opened at a picture only loses its #image.
function leave() {
  if (chosen.entered) {
    chosen.entered = false;
    history.back();
  } else {
    history.replaceState(history.state, "", address(""));
  }
  close();
}

const ACTS = {
  next: () => step(1),
  previous: () => step(-1),
  panes: () => setMode("panes"),
  slider: () => setMode("slider"),
  fade: () => setMode("fade"),
  flip: () => setMode("flip"),
  swap: swapPair,
  in: () => zoomView(STEP),
  out: () => zoomView(1 / STEP),
  fit: fitView,
  actual: () => scaleView(oneToOne()),
  left: () => panView(64, 0),
  right: () => panView(-64, 0),
  up: () => panView(0, 64),
  down: () => panView(0, -64),
  stronger: () => setGain(compare.gain + 1),
  weaker: () => setGain(compare.gain - 1),
  help: () => byId("help").showModal(),
  "close-help": () => byId("help").close(),
  close: leave,
};

function startKeys() {
  compare.dialog.addEventListener("keydown", (event) => {
    const act = keyAct(event);
    if (!act) return;
    event.preventDefault();
    ACTS[act]();
  });
  compare.dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    leave();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input, select, textarea");
    if (compare.dialog.open || byId("help").open || typing) return;
    if (event.key === "/") byId("search").focus();
    else if (event.key === "?") ACTS.help();
    else return;
    event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) ACTS[button.dataset.do]();
  });
}

function start() {
  byId("gallery").hidden = rows.length === 0;
  startToolbar();
  startGrid(pointInCharts);
  startCharts();
  startCompare(step);
  startHelp();
  startKeys();
  chooseSort("order");
  addEventListener("hashchange", () => {
    if (!compare.row && rowOfAddress()) chosen.entered = true;
    route();
  });
  route();
}

start();
