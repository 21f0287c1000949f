// Wheel, drag, pinch, double click, swipe and press on the panes, told to the view and the caller.
const SWIPE = 56;
const HOLD = 250; // Milliseconds after which a press is a look and no click.

// The place of an event in the pane under it, or null beside the panes.
function pointIn(event) {
  const stage = event.target.closest?.(".stage");
  if (!stage) return null;
  const box = stage.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

function startGestures(area, { swiped, pressed, released }) {
  const pointers = new Map();
  const drag = { moved: 0, x: 0, y: 0, since: 0, pinched: false };

  area.addEventListener(
    "wheel",
    (event) => {
      const at = pointIn(event);
      if (!at) return;
      event.preventDefault();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 32 : 1;
      zoomView(Math.exp(-clamp(event.deltaY * lines, -240, 240) / 400), at);
    },
    { passive: false },
  );

  area.addEventListener("dblclick", (event) => {
    const at = pointIn(event);
    if (at && !event.target.closest(".flips")) toggleZoom(at);
  });

  area.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !pointIn(event)) return;
    pointers.set(event.pointerId, event);
    event.target.setPointerCapture(event.pointerId);
    if (pointers.size > 1) return endPress(false);
    Object.assign(drag, { moved: 0, x: 0, y: 0, since: event.timeStamp, pinched: false });
    pressed();
  });

  area.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    if (pointers.size === 2) pinch(before, event);
    else dragOn(event.clientX - before.clientX, event.clientY - before.clientY);
    pointers.set(event.pointerId, event);
  });

  function dragOn(dx, dy) {
    drag.x += dx;
    drag.y += dy;
    drag.moved = Math.max(drag.moved, Math.hypot(drag.x, drag.y));
    if (overflows() && !drag.pinched) panView(dx, dy);
  }

  function pinch(before, event) {
    const [other] = [...pointers.values()].filter((one) => one.pointerId !== event.pointerId);
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    const at = pointIn(other);
    drag.pinched = true;
    if (at && apart(before) > 0) zoomView(apart(event) / apart(before), at);
  }

  // A short press that did not move is a click.
  function endPress(clicked) {
    released(clicked);
  }

  function end(event) {
    if (!pointers.delete(event.pointerId) || pointers.size) return;
    const still = drag.moved < 6 && !drag.pinched && event.type === "pointerup";
    endPress(still && event.timeStamp - drag.since < HOLD);
    const level = Math.abs(drag.x) > SWIPE && Math.abs(drag.x) > 2 * Math.abs(drag.y);
    const touch = event.pointerType === "touch" && event.type === "pointerup";
    if (touch && level && !overflows() && !drag.pinched) swiped(drag.x < 0 ? 1 : -1);
  }
  area.addEventListener("pointerup", end);
  area.addEventListener("pointercancel", end);
}
