// One place and one scale for all panes: a view is where the middle of every pane looks.
const view = {
  fitted: true,
  scale: 1, // CSS pixels per pixel of the picture.
  x: 0, // The picture's pixel in the middle of a pane.
  y: 0,
  picture: { width: 1, height: 1 },
  pane: { width: 1, height: 1 },
};
const MOST = 64;
const STEP = 1.25;

const oneToOne = () => 1 / (devicePixelRatio || 1);

function fitScale() {
  const { picture, pane } = view;
  return Math.min(pane.width / picture.width, pane.height / picture.height);
}

function fitView() {
  view.fitted = true;
  placeView();
}

// Scales by a factor around a point of the pane (its middle where none is given).
function zoomView(factor, at = { x: view.pane.width / 2, y: view.pane.height / 2 }) {
  const low = Math.min(fitScale(), oneToOne()) / 2;
  const scale = clamp(view.scale * factor, low, MOST * oneToOne());
  const [dx, dy] = [at.x - view.pane.width / 2, at.y - view.pane.height / 2];
  view.x += dx / view.scale - dx / scale;
  view.y += dy / view.scale - dy / scale;
  view.scale = scale;
  view.fitted = false;
  placeView();
}

const scaleView = (scale, at) => zoomView(scale / view.scale, at);

function panView(dx, dy) {
  view.x -= dx / view.scale;
  view.y -= dy / view.scale;
  placeView();
}

// A fitted view opens what is near: one to one, or four times what fits, at the point.
function toggleZoom(at) {
  if (!view.fitted) return fitView();
  return scaleView(fitScale() < oneToOne() * 0.99 ? oneToOne() : fitScale() * 4, at);
}

const overflows = () =>
  view.picture.width * view.scale > view.pane.width + 1 ||
  view.picture.height * view.scale > view.pane.height + 1;

// A picture smaller than its pane stays in the middle; a larger one has no edge inside.
function held(middle, picture, pane) {
  const half = pane / 2 / view.scale;
  return picture <= 2 * half ? picture / 2 : clamp(middle, half, picture - half);
}

function placeView() {
  if (view.fitted) view.scale = fitScale();
  view.x = held(view.x, view.picture.width, view.pane.width);
  view.y = held(view.y, view.picture.height, view.pane.height);
  const whole = (value) => Math.round(value * devicePixelRatio) / devicePixelRatio;
  const left = whole(view.pane.width / 2 - view.x * view.scale);
  const top = whole(view.pane.height / 2 - view.y * view.scale);
  const transform = `translate(${left}px, ${top}px) scale(${view.scale})`;
  const stages = byId("stages");
  const zoom = view.scale / oneToOne();
  stages.classList.toggle("square", zoom > 2);
  stages.classList.toggle("movable", overflows());
  for (const image of stages.querySelectorAll("img")) {
    image.style.width = `${view.picture.width}px`;
    image.style.height = `${view.picture.height}px`;
    image.style.transform = transform;
  }
  byId("zoom").value = `${Math.round(100 * zoom)}%`;
}
