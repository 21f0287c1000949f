// Elements by their names, attributes and children; text is always text.
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function drawn(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children);
  return node;
}

function option(value, label) {
  return element("option", { value }, label);
}

const seriesColour = (model) => `var(--series-${model % 6})`;

// A dot in the model's colour; the name beside it says the same in words.
function swatch(model) {
  return element("span", { class: "swatch", style: `--mark: ${seriesColour(model)}` });
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const thousands = (number) => number.toLocaleString("en");
const counted = (number, many) => `${thousands(number)} ${number === 1 ? many.replace(/s$/, "") : many}`;
