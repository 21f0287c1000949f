// The charts above the pictures: a measure by model, and its difference to the baseline.
const charts = { measure: 0, marks: [], shown: rows };

function startCharts() {
  const box = byId("spread");
  if (!about.measures.length || !rows.length) return;
  box.hidden = false;
  const picks = about.measures.map((measure, k) => {
    const button = element("button", { type: "button" }, measure.label);
    button.addEventListener("click", () => chooseMeasure(k));
    return button;
  });
  byId("spread-measures").append(...picks);
  byId("spread-measures").hidden = picks.length < 2;
  chooseMeasure(0);
  let width = box.clientWidth;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    drawCharts();
  }).observe(box);
}

function chooseMeasure(k) {
  charts.measure = k;
  [...byId("spread-measures").children].forEach((button, i) => {
    button.setAttribute("aria-pressed", i === k);
  });
  drawCharts();
}

function showInCharts(list) {
  charts.shown = list;
  if (about.measures.length) drawCharts();
}

function drawCharts() {
  const measure = about.measures[charts.measure];
  const many = counted(charts.shown.length, about.pictures);
  const unit = measure.unit ? `, ${measure.unit}` : "";
  charts.marks = [
    histogramChart(byId("spread-values"), {
      title: `${measure.label}${unit}`,
      caption: `Distribution over ${many}. Hover over a picture, or open it, to find it here.`,
      series: modelIds.map((m) => seriesOf(m, (row) => figureOf(row, m, charts.measure), false)),
      all: rows.flatMap((row) => modelIds.map((m) => figureOf(row, m, charts.measure))),
      measure,
      zero: false,
    }),
  ];
  if (about.models.length > 1) charts.marks.push(drawDifferences(measure, many));
}

function drawDifferences(measure, many) {
  const base = about.baseline ?? 0;
  const others = modelIds.filter((m) => m !== base);
  const of = (m) => (row) => differenceOf(row, m, base, charts.measure);
  const unit = measure.unit ? `, ${measure.unit}` : "";
  const side = measure.higher_is_better ? "Right" : "Left";
  byId("spread-differences").hidden = false;
  return histogramChart(byId("spread-differences"), {
    title: `${measure.label}, difference to ${about.models[base]}${unit}`,
    caption: `Picture by picture over ${many}. ${side} of zero: better than ${about.models[base]}.`,
    series: others.map((m) => seriesOf(m, of(m), true)),
    all: rows.flatMap((row) => others.map((m) => of(m)(row))),
    measure,
    zero: true,
  });
}

function seriesOf(model, of, isSigned) {
  return {
    model,
    name: about.models[model],
    colour: seriesColour(model),
    values: charts.shown.map(of),
    of,
    signed: isSigned,
  };
}

// A small chart of all pictures beside an open one, which it marks.
function placeOf(row, box) {
  const measure = about.measures[charts.measure];
  const series = modelIds.map((m) => seriesOf(m, (one) => figureOf(one, m, charts.measure), false));
  const all = series.flatMap((one) => one.values);
  const title = `${measureHead(measure)}, among all`;
  histogramChart(box, { title, series, all, measure, zero: false })(row);
}

const pointInCharts = (row) => charts.marks.forEach((mark) => mark(row));
