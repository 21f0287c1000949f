// Keys of the comparison, what they do, and the page that lists them.
const COMPARE_KEYS = [
  { keys: ["ArrowRight", "n"], shown: "→", act: "next", text: "next picture" },
  { keys: ["ArrowLeft", "b"], shown: "←", act: "previous", text: "previous picture" },
  { keys: ["1"], shown: "1", act: "panes", text: "panes side by side" },
  { keys: ["2"], shown: "2", act: "slider", text: "slider" },
  { keys: ["3"], shown: "3", act: "flip", text: "flip" },
  { keys: ["4"], shown: "4", act: "fade", text: "fade one into the other" },
  { keys: [" "], shown: "Space", act: "swap", text: "swap A and B" },
  { keys: ["+", "="], shown: "+", act: "in", text: "zoom in" },
  { keys: ["-", "_"], shown: "−", act: "out", text: "zoom out" },
  { keys: ["0"], shown: "0", act: "fit", text: "fit into the pane" },
  { keys: ["o"], shown: "o", act: "actual", text: "one to one" },
  { keys: ["Shift+ArrowLeft"], shown: "Shift+arrows", act: "left", text: "move the picture" },
  { keys: ["Shift+ArrowRight"], act: "right" },
  { keys: ["Shift+ArrowUp"], act: "up" },
  { keys: ["Shift+ArrowDown"], act: "down" },
  { keys: ["]"], shown: "]", act: "stronger", text: "difference stronger" },
  { keys: ["["], shown: "[", act: "weaker", text: "difference weaker" },
  { keys: ["?"], shown: "?", act: "help", text: "these keys" },
  { shown: "Esc", text: "back to all pictures" },
];
const GRID_KEYS = [
  { shown: "/", text: "search" },
  { shown: "Arrows", text: "go from picture to picture" },
  { shown: "Home, End", text: "first and last picture" },
  { shown: "Enter", text: "compare the picture" },
  { shown: "?", text: "these keys" },
];
const MOUSE = [
  { shown: "Wheel, pinch", text: "zoom all panes" },
  { shown: "Drag", text: "move all panes" },
  { shown: "Double click", text: "zoom in there, or fit" },
  { shown: "Click, hold", text: "in flip: swap, or look at the other" },
  { shown: "Swipe", text: "next or previous picture" },
];

const actOfKey = new Map(
  COMPARE_KEYS.flatMap(({ keys = [], act }) => keys.map((key) => [key, act])),
);

function keyAct(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return null;
  const arrow = event.key.startsWith("Arrow");
  const name = arrow && event.shiftKey ? `Shift+${event.key}` : event.key;
  return usesKey(event.target, event.key) ? null : (actOfKey.get(name) ?? null);
}

// What has the focus keeps the keys that mean something to it.
function usesKey(target, key) {
  if (target.matches("select")) return key.startsWith("Arrow") || key.length === 1;
  if (target.matches("input[type=range]")) return key.startsWith("Arrow");
  if (target.matches("input[type=checkbox]")) return key === " ";
  return key === " " && target.matches("button:focus-visible, a");
}

function keyTable(title, list) {
  const lines = list
    .filter((one) => one.shown)
    .map(({ shown, text }) =>
      element("div", {}, element("dt", {}, element("kbd", {}, shown)), element("dd", {}, text)),
    );
  return element("section", {}, element("h3", {}, title), element("dl", {}, ...lines));
}

function startHelp() {
  byId("keys").append(
    keyTable("All pictures", GRID_KEYS),
    keyTable("Mouse and touch", MOUSE),
    keyTable("Comparing", COMPARE_KEYS),
  );
}
