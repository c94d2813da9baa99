"use strict";
// What is shown beside the pointer. The content is an element made of text nodes: ECharts only puts it in place.
report.tooltip = (colours = report.theme()) => ({
  trigger: "axis",
  confine: true,
  transitionDuration: 0,
  backgroundColor: colours.card,
  borderColor: colours.line,
  textStyle: { color: colours.ink, fontSize: 12 },
  axisPointer: { type: "line", lineStyle: { color: colours.quiet, width: 1 } },
});

// Args: heading; rows of [place of the swatch or null, label, value].
report.tooltipContent = (heading, rows) => {
  const { el } = report;
  return el(
    "div", { class: "tip" },
    el("div", { class: "tip-head" }, heading),
    el("table", {}, el("tbody", {}, rows.map(([place, label, value]) => el(
      "tr", {},
      el("td", {}, place === null ? null : report.swatch(place)),
      el("td", { class: "tip-label" }, label),
      el("td", { class: "tip-value" }, value),
    )))),
  );
};
