// How a measure spreads over the pictures that are shown: steps per model, and a mark for one row.
const CHART = { height: 150, left: 2, right: 2, label: 13, lane: 5 };
const RUG = 250; // Up to so many pictures each one has a tick of its own.

function histogramChart(box, { title, caption, series, measure, zero, all }) {
  const scale = chartScale(all, zero);
  const frame = chartFrame(box, series.length, Boolean(caption));
  const [left, right] = [CHART.left, frame.width - CHART.right];
  const x = (value) => left + ((value - scale.low) / (scale.high - scale.low)) * (right - left);
  const counts = series.map((one) => binned(one.values, scale));
  const most = Math.max(1, ...counts.flat());
  const marks = drawn("g", { class: "marks" });
  const svg = drawn(
    "svg",
    {
      viewBox: `0 0 ${frame.width} ${frame.height}`,
      role: "img",
      "aria-label": spoken(title, series, measure),
    },
    ...axis(scale, x, zero, frame),
    ...series.map((one, i) => steps(counts[i], most, scale, x, frame, one.colour)),
    ...series.flatMap((one, i) => rug(one, i, x, frame)),
    marks,
  );
  box.replaceChildren(element("h3", {}, title), svg);
  if (caption) box.append(legend(series, measure, zero), element("figcaption", {}, caption));
  const marked = (row) => series.flatMap((one, i) => mark(one, i, row, x, measure, frame));
  return (row) => marks.replaceChildren(...(row ? marked(row) : []));
}

// Above the steps a line of words for each mark, below them the ticks and the axis.
function chartFrame(box, series, full) {
  const width = Math.max(240, Math.round(box.clientWidth));
  const top = full ? 4 + CHART.label * series : 8;
  const floor = top + (full ? CHART.height : 64);
  return { width, top, floor, full, height: floor + CHART.lane * series + 24 };
}

// Round limits around every finite value, so that a search does not move the axis.
function chartScale(values, zero) {
  const finite = values.filter(Number.isFinite);
  const among = zero ? [...finite, 0] : finite;
  const least = among.reduce((a, b) => Math.min(a, b), Infinity);
  const most = among.reduce((a, b) => Math.max(a, b), -Infinity);
  const bins = clamp(Math.round(2.5 * Math.sqrt(rows.length)), 12, 64);
  if (!among.length) return { low: 0, high: 1, step: 0.5, bins, width: 1 / bins };
  const spread = most - least || Math.abs(most) * 0.1 || 1;
  const step = roundStep(spread / 6);
  const low = Math.floor((least - spread * 0.01) / step) * step;
  const high = Math.ceil((most + spread * 0.01) / step) * step;
  return { low, high, step, bins, width: (high - low) / bins };
}

function roundStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}

function binned(values, { low, width, bins }) {
  const counts = new Array(bins).fill(0);
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    counts[clamp(Math.floor((value - low) / width), 0, bins - 1)] += 1;
  }
  return counts;
}

function steps(counts, most, { low, width }, x, { floor, top }, colour) {
  const height = (count) => floor - (count / most) * (floor - top);
  const path = counts.map((count, i) => `V${height(count).toFixed(1)}H${x(low + (i + 1) * width).toFixed(1)}`);
  const line = `M${x(low).toFixed(1)} ${floor}${path.join("")}V${floor}`;
  return drawn("path", { d: line, class: "steps", style: `--mark: ${colour}` });
}

function rug(one, i, x, { floor }) {
  if (one.values.length > RUG) return [];
  const [top, finite] = [floor + 2 + CHART.lane * i, one.values.filter(Number.isFinite)];
  const path = finite.map((value) => `M${x(value).toFixed(1)} ${top}v4`).join("");
  return [drawn("path", { d: path, class: "rug", style: `--mark: ${one.colour}` })];
}

function axis({ low, high, step }, x, zero, { width, floor, top, height }) {
  const parts = [drawn("path", { d: `M${CHART.left} ${floor}H${width - CHART.right}`, class: "floor" })];
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const number = Math.round((high - low) / step);
  const skip = width / number < 44 ? 2 : 1;
  for (let i = number % skip; i <= number; i += skip) {
    const value = low + i * step;
    const anchor = i === 0 ? "start" : i === number ? "end" : "middle";
    const text = Math.abs(value).toFixed(digits);
    const sign = Number(text) === 0 ? "" : value < 0 ? "−" : zero ? "+" : "";
    parts.push(drawn("text", { x: x(value), y: height - 4, "text-anchor": anchor }, sign + text));
  }
  if (zero) parts.push(drawn("path", { d: `M${x(0)} ${top}V${floor}`, class: "zero" }));
  return parts;
}

// The value of the row under the pointer, on the axis and in figures.
function mark(one, i, row, x, measure, { width, floor, full }) {
  const value = one.of(row);
  if (!Number.isFinite(value)) return [];
  const at = clamp(x(value), CHART.left, width - CHART.right);
  const top = full ? CHART.label * (i + 1) : 0;
  const style = `--mark: ${one.colour}`;
  const line = drawn("path", { d: `M${at} ${top}V${floor}`, class: "mark", style });
  if (!full) return [line];
  const near = at > width - 60 ? { x: at - 5, "text-anchor": "end" } : { x: at + 5 };
  const text = one.signed ? differenceText(value, measure) : figureText(value, measure);
  return [line, drawn("text", { ...near, y: top - 2, class: "mark", style }, text)];
}

function medianOf(values) {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort(compareNumbers);
  if (!sorted.length) return NaN;
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function tellOf(one, measure, zero) {
  const median = medianOf(one.values);
  if (!zero) return `median ${withUnit(median, measure)}`;
  const counted = one.values.filter((value) => !Number.isNaN(value));
  const better = counted.filter((value) => value !== 0 && value > 0 === measure.higher_is_better);
  const share = counted.length ? Math.round((100 * better.length) / counted.length) : 0;
  return `median ${signed(median, withUnit(median, measure))}, better on ${share}% of pictures`;
}

function legend(series, measure, zero) {
  const items = series.map((one) =>
    element("li", {}, swatch(one.model), element("b", {}, one.name), ` ${tellOf(one, measure, zero)}`),
  );
  return element("ul", { class: "legend" }, ...items);
}

function spoken(title, series, measure) {
  const each = series.map((one) => `${one.name}: ${tellOf(one, measure, Boolean(one.signed))}`);
  return `${title}. ${each.join("; ")}.`;
}
