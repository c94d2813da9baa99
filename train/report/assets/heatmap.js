"use strict";
// What was measured in every layer, over the samples seen. `panel.data`: x, ends of stretches; values, a list of each
// layer's values, null where there is none.
report.renderers.heatmap = (() => {
  // Viridis: its lightness rises evenly, so it reads without colours as well.
  const SCALE = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];

  function draw(chart, panel, view) {
    const colours = report.theme();
    const { x, values } = panel.data;
    const axis = report.axisStyle(colours);
    const known = values.flat().filter((value) => value !== null && (!view.isLog || value > 0));
    const low = known.reduce((a, b) => Math.min(a, b), Infinity);
    const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
    const scaled = (value) => (view.isLog ? Math.log10(value) : value);
    const [from, to] = known.length ? [scaled(low), scaled(high)] : [0, 1];
    const cells = values.flatMap((row, layer) => row.flatMap((value, at) => (
      value === null || (view.isLog && value <= 0) ? [] : [[at ? x[at - 1] : 0, x[at], layer, scaled(value), value]])));
    chart.setOption({
      grid: { left: 8, right: 62, top: 26, bottom: 8, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
      xAxis: report.samplesAxis(colours),
      yAxis: {
        ...axis, type: "value", min: -0.5, max: values.length - 0.5, splitLine: { show: false }, name: "layer",
        nameLocation: "end", nameGap: 10, nameTextStyle: { ...axis.nameTextStyle, align: "left" },
        minInterval: 1,
        axisLabel: { ...axis.axisLabel, showMinLabel: false, showMaxLabel: false,
          formatter: (value) => (Number.isInteger(value) ? String(value) : "") },
      },
      visualMap: {
        type: "continuous", dimension: 3, min: from, max: from === to ? to + 1 : to,
        inRange: { color: SCALE }, right: 0, top: 20, itemWidth: 10, itemHeight: 150, calculable: false,
        formatter: (value) => report.compact(view.isLog ? 10 ** value : value),
        text: known.length ? [report.compact(high), report.compact(low)] : ["", ""], textStyle: { color: colours.quiet, fontSize: 11 },
      },
      tooltip: {
        ...report.tooltip(colours), trigger: "item",
        formatter: ({ value }) => report.tooltipContent(`layer ${value[2]}`, [
          [null, `samples ${report.number(value[0])} to ${report.number(value[1])}`, report.number(value[4])],
        ]),
      },
      ...report.zoom.options("none"),
      series: [{
        type: "custom", name: panel.title, data: cells, encode: { x: [0, 1], y: 2 }, clip: true,
        renderItem: (params, api) => {
          const [left, top] = api.coord([api.value(0), api.value(2) + 0.5]);
          const [right, bottom] = api.coord([api.value(1), api.value(2) - 0.5]);
          return { type: "rect", shape: { x: left, y: top, width: Math.max(0.5, right - left) + 0.4, height: bottom - top + 0.4 },
            style: { fill: api.visual("color") } };
        },
      }],
    }, { notMerge: true });
    report.zoom.select(chart);
  }

  const render = (element, panel, context) => {
    const view = { isLog: false };
    const chart = report.chart(element);
    const redraw = () => draw(chart, panel, view);
    redraw();
    const leave = report.zoom.join(chart);
    const button = report.el("button", {
      type: "button", class: "switch", "aria-pressed": "false", title: "Logarithmic colours",
      onclick: () => {
        view.isLog = !view.isLog;
        button.setAttribute("aria-pressed", String(view.isLog));
        redraw();
      },
    }, "log");
    context.tools.replaceChildren(button);
    return { chart, resize: () => chart.resize(), refresh: redraw, dispose: () => { leave(); chart.dispose(); } };
  };

  render.isOverRun = true;
  return render;
})();
