"use strict";
// The page's own namespace: its data, what all pictures share, and the table of renderers that other scripts add to.
//
//   report.renderers.NAME = (element, panel, context) => handle
//
// draws a panel of kind NAME into `element`, whose size is set. `handle` is an ECharts instance, or an object with
// dispose() and resize(), and where they make sense refresh() (theme, smoothing or scale has changed), chart (its ECharts
// instance, for tests) and table() ({columns, rows}, where the panel has none). `context` has the elements of the panel's
// card: card, legend, tools, detail. A renderer may have `isOverRun` (its x axis is that of the samples: it has
// report.zoom.options() and report.zoom.join(chart), and the keys to zoom) or `isText` (no picture: as high as its words). Text from the data is only ever shown as text: by report.el, or on a canvas.
const report = (() => {
  const state = {
    data: JSON.parse(document.getElementById("report-data").textContent),
    range: null, // [first, last] samples seen that all pictures show; null: the whole run
    smoothing: 0, // share of the run over which curves are averaged; 0: not at all
  };

  // Colours that colour-blind people can tell apart (after Okabe and Ito), dark enough on white, light enough on black.
  const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#b5568f", "#8c6d00", "#4b4b57", "#5b5bd6", "#7a4a2b", "#a02c2c", "#5f7d95"];
  const DARK = ["#56b4e9", "#e69f00", "#2fbf95", "#e08bbd", "#f0e442", "#c9c9d1", "#9a9af5", "#c99a78", "#ff8f87", "#8fb4cf"];
  const DASHES = ["solid", [7, 3], [2, 3], [10, 3, 2, 3], [14, 4], [5, 2, 1, 2, 1, 2], [3, 1], [12, 3, 5, 3], [1, 1], [18, 3]];
  const SYMBOLS = ["circle", "rect", "triangle", "diamond", "emptyCircle", "emptyRect", "emptyTriangle", "emptyDiamond"];

  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value === true ? "" : String(value));
    }
    for (const child of children.flat()) {
      if (child !== null && child !== undefined) made.append(child);
    }
    return made;
  }

  function svg(tag, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
    made.append(...children);
    return made;
  }

  const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

  function number(value) {
    if (value === null || value === undefined) return "\u2013";
    if (typeof value !== "number") return String(value);
    const size = Math.abs(value);
    if (size >= 1e15) return value.toExponential(2);
    if (Number.isInteger(value) || size >= 1e3) return grouped.format(value);
    if (size < 1e-2) return value.toExponential(2).replace("e-", "e\u2212");
    return String(Number(value.toPrecision(4)));
  }

  function compact(value) {
    const size = Math.abs(value);
    for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
      if (size >= unit) return String(Number((value / unit).toPrecision(4))) + letter;
    }
    if (size !== 0 && size < 1e-2) return value.toExponential(2).replace("e-", "e\u2212").replace(/\.?0+e/, "e");
    return String(Number(value.toPrecision(4)));
  }

  function duration(seconds) {
    if (seconds === null || seconds === undefined) return "\u2013";
    const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
    const first = Math.max(0, parts.findIndex(([unit]) => seconds >= unit));
    if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
    let rest = Math.round(seconds);
    const words = [];
    for (const [unit, name] of parts.slice(first, first + 2)) {
      const count = Math.floor(rest / unit);
      rest -= count * unit;
      if (count) words.push(`${count} ${name}`);
    }
    return words.join(" ");
  }

  function date(seconds) {
    if (!seconds) return "\u2013";
    const found = new Date(seconds * 1000);
    return Number.isNaN(found.getTime()) ? "\u2013" : found.toISOString().replace("T", " ").slice(0, 19) + " UTC";
  }

  function isDark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  function theme() {
    const styles = getComputedStyle(document.documentElement);
    const named = (name) => styles.getPropertyValue(name).trim();
    return {
      isDark: isDark(),
      ink: named("--ink"),
      quiet: named("--quiet"),
      line: named("--line"),
      page: named("--page"),
      card: named("--card"),
      accent: named("--accent"),
      fault: named("--fault"),
      font: getComputedStyle(document.body).fontFamily,
      colours: isDark() ? DARK : LIGHT,
    };
  }

  function cycled(list, place) {
    return list[place % list.length];
  }

  // A key of runs or curves: what tells it from the others beside its colour. Each round of the colours begins with
  // another dash, so that places ten apart differ in it.
  function style(place) {
    const { colours } = theme();
    return {
      colour: cycled(colours, place),
      dash: cycled(DASHES, place + Math.floor(place / colours.length)),
      symbol: cycled(SYMBOLS, place),
    };
  }

  function swatch(place) {
    const { colour, dash } = style(place);
    const pattern = dash === "solid" ? "none" : dash.join(" ");
    const line = svg("line", {
      x1: 0, x2: 26, y1: 5, y2: 5, stroke: colour, "stroke-width": 2.5, "stroke-dasharray": pattern,
    });
    return svg("svg", { width: 26, height: 10, viewBox: "0 0 26 10", "aria-hidden": "true", class: "swatch" }, line);
  }

  // An ECharts instance in the page's type and colours.
  function chart(element) {
    const made = echarts.init(element, null, { renderer: "canvas" });
    made.setOption({ animation: false, textStyle: { fontFamily: theme().font }, aria: { enabled: false } });
    return made;
  }

  function axisStyle(colours = theme()) {
    return {
      axisLine: { lineStyle: { color: colours.line } },
      axisTick: { lineStyle: { color: colours.line } },
      axisLabel: { color: colours.quiet, fontSize: 11, hideOverlap: true },
      splitLine: { lineStyle: { color: colours.line, opacity: 0.6 } },
      nameTextStyle: { color: colours.quiet, fontSize: 11 },
    };
  }

  // The axis that all pictures over the run share.
  function samplesAxis(colours = theme()) {
    const { min, max } = state.data.axis;
    const base = axisStyle(colours);
    return {
      type: "value",
      min,
      max: Math.max(max, min + 1),
      ...base,
      axisLine: { ...base.axisLine, onZero: false },
      splitLine: { show: false },
      axisLabel: { ...base.axisLabel, formatter: (value) => compact(value) },
    };
  }

  return {
    state, renderers: {}, handles: new Map(),
    el, svg, number, compact, duration, date, theme, style, swatch, chart, axisStyle, samplesAxis, isDark,
  };
})();
