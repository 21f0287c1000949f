// The thumbnails: only those near the screen are in the document, whatever their number.
const GAP = 16;
const TEXT_HEIGHT = 48;
const LEAST = 48; // Thumbnails in the document even while the grid is far below the screen.

const grid = {
  list: byId("grid"),
  rows: [],
  active: 0, // The place of the one thumbnail that Tab reaches.
  cells: new Map(),
  choice: null, // Whose figure stands under each thumbnail.
  size: 152,
  columns: 1,
  width: 0,
  pointed: () => {},
};

// One shape for all boxes: that of the pictures where they agree, else a square.
const boxAspect = (() => {
  const shapes = new Set(rows.map((row) => (row.width / row.height).toFixed(2)));
  return shapes.size === 1 ? clamp(Number([...shapes][0]), 0.5, 2) : 1;
})();

function setGridRows(list, choice) {
  grid.rows = list;
  grid.choice = choice;
  grid.active = 0;
  grid.cells.clear();
  grid.list.replaceChildren();
  placeGrid();
}

function placeGrid() {
  const room = grid.list.clientWidth;
  grid.columns = Math.max(1, Math.floor((room + GAP) / (Math.min(grid.size, room) + GAP)));
  grid.width = (room - GAP * (grid.columns - 1)) / grid.columns;
  const lines = Math.ceil(grid.rows.length / grid.columns);
  grid.list.style.height = `${Math.max(0, lines * rowStep() - GAP)}px`;
  for (const [index, cell] of grid.cells) moveCell(cell, cell.place, index);
  renderGrid();
}

const boxHeight = () => Math.round(grid.width / boxAspect);
const rowStep = () => boxHeight() + TEXT_HEIGHT + GAP;

// The places to have in the document: a screen more above and below, and the focused one.
function wantedPlaces() {
  const top = -grid.list.getBoundingClientRect().top;
  const first = Math.floor((top - innerHeight) / rowStep()) * grid.columns;
  const last = Math.ceil((top + 2 * innerHeight) / rowStep()) * grid.columns;
  const from = clamp(first, 0, Math.max(0, grid.rows.length - LEAST));
  const to = clamp(last, Math.min(from + LEAST, grid.rows.length), grid.rows.length);
  const places = Array.from({ length: to - from }, (_, i) => from + i);
  if (!gridHasFocus()) grid.active = clamp(firstVisible(top), 0, grid.rows.length - 1);
  if (grid.active < from) places.unshift(grid.active);
  if (grid.active >= to && grid.active < grid.rows.length) places.push(grid.active);
  return places;
}

const firstVisible = (top) => Math.max(0, Math.ceil(top / rowStep())) * grid.columns;
const gridHasFocus = () => grid.list.contains(document.activeElement);

function renderGrid() {
  const places = grid.rows.length ? wantedPlaces() : [];
  const wanted = new Set(places.map((place) => grid.rows[place].index));
  for (const [index, cell] of grid.cells) {
    if (wanted.has(index)) continue;
    cell.remove();
    grid.cells.delete(index);
  }
  places.forEach((place, i) => {
    const cell = cellAt(place);
    cell.firstChild.tabIndex = place === grid.active ? 0 : -1;
    if (grid.list.children[i] !== cell) grid.list.insertBefore(cell, grid.list.children[i] ?? null);
  });
}

function cellAt(place) {
  const row = grid.rows[place];
  const known = grid.cells.get(row.index);
  if (known) return known;
  const cell = makeCell(row, place);
  grid.cells.set(row.index, cell);
  moveCell(cell, place);
  return cell;
}

function makeCell(row, place) {
  const image = element("img", {
    src: fileOf(row, "thumb.webp"),
    alt: "",
    loading: "lazy",
    decoding: "async",
    draggable: "false",
  });
  image.addEventListener("error", () => {
    image.classList.add("gone");
    byId("lost").hidden = false;
  });
  const link = element(
    "a",
    { href: `#image-${row.index}`, title: row.key },
    element("span", { class: "box" }, image),
    element("span", { class: "key" }, row.key),
    figureLine(row),
  );
  const cell = element("li", { "aria-setsize": grid.rows.length, "aria-posinset": place + 1 }, link);
  cell.place = place;
  return cell;
}

// The figure and, as there may be several models, whose it is.
function figureLine(row) {
  const { choice } = grid;
  const line = element("span", { class: "figure" });
  if (!choice) return line;
  if (choice.models) line.append(element("span", { class: "of" }, swatch(choice.models[0]), choice.label), " ");
  line.append(element("span", { class: "value" }, choice.show(row)));
  return line;
}

function moveCell(cell, place) {
  const [line, column] = [Math.floor(place / grid.columns), place % grid.columns];
  cell.style.width = `${grid.width}px`;
  cell.style.setProperty("--box", `${boxHeight()}px`);
  cell.style.transform = `translate(${column * (grid.width + GAP)}px, ${line * rowStep()}px)`;
}

// Brings a place onto the screen, under the toolbar, and puts the focus there.
function focusPlace(place) {
  if (!grid.rows.length) return;
  grid.active = clamp(place, 0, grid.rows.length - 1);
  const list = grid.list.getBoundingClientRect();
  const top = list.top + Math.floor(grid.active / grid.columns) * rowStep();
  const head = document.querySelector(".toolbar").getBoundingClientRect().height + GAP;
  const low = innerHeight - rowStep();
  if (top < head) scrollBy(0, top - head);
  else if (top > low) scrollBy(0, top - Math.max(low, head));
  const link = cellAt(grid.active).firstChild;
  if (!link.isConnected) grid.list.append(link.parentNode);
  link.focus({ preventScroll: true });
  renderGrid();
}

function focusRow(row) {
  const place = grid.rows.indexOf(row);
  if (place >= 0) focusPlace(place);
}

const GRID_STEPS = {
  ArrowLeft: () => grid.active - 1,
  ArrowRight: () => grid.active + 1,
  ArrowUp: () => (grid.active < grid.columns ? grid.active : grid.active - grid.columns),
  ArrowDown: () => grid.active + grid.columns,
  Home: () => 0,
  End: () => grid.rows.length - 1,
};

const rowUnder = (target) => {
  const cell = target.closest?.("li");
  return cell ? grid.rows[cell.place] : null;
};

function startGrid(pointed) {
  let asked = 0;
  const soon = (work) => () => {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(work);
  };
  addEventListener("scroll", soon(renderGrid), { passive: true });
  new ResizeObserver(soon(placeGrid)).observe(grid.list.parentNode);
  grid.list.addEventListener("keydown", (event) => {
    if (!GRID_STEPS[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    focusPlace(GRID_STEPS[event.key]());
  });
  grid.list.addEventListener("focusin", (event) => {
    const row = rowUnder(event.target);
    grid.active = event.target.closest("li").place;
    pointed(row);
    renderGrid();
  });
  grid.list.addEventListener("pointerover", (event) => pointed(rowUnder(event.target)));
  grid.list.addEventListener("pointerleave", () => pointed(null));
}
