"use strict";
// The pictures whose axes are not the samples: goodput, the ranks on their nodes, the pipeline schedule, the attention mask.
report.pictures = (() => {
  const { el, svg, number, duration } = report;
  const LEAST_WIDTH = 0.5; // pixels of what is drawn of a very short thing

  function percent(share) {
    return share === null || !Number.isFinite(share) ? "\u2013" : `${Number((100 * share).toPrecision(3))} %`;
  }

  // Colours by a name of their own, the same in a picture and in its legend.
  function palette(colours = report.theme()) {
    const [blue, orange, green, pink, olive, grey, violet, brown] = colours.colours;
    return {
      productive: green, evaluation: blue, checkpoint: violet, left_out: olive, rollback: orange, repeated: pink,
      start_up: brown, other: grey, idle: colours.line,
      forward: blue, backward: orange, context: blue, asks: violet, targets: orange, own: pink, position: blue, block: orange,
    };
  }

  // A square of a colour; with a pattern where the colour is that of nothing.
  function square(colour, border) {
    return svg("svg", { width: 12, height: 12, viewBox: "0 0 12 12", "aria-hidden": "true", class: "swatch" },
      svg("rect", { x: 0.5, y: 0.5, width: 11, height: 11, rx: 2, fill: colour, stroke: border ?? colour }));
  }

  function legend(entries) {
    const { ink } = report.theme();
    return el("div", { class: "legend" }, entries.map(([colour, label]) => el(
      "span", { class: "key" }, square(colour, colour === report.theme().line ? ink : null), el("span", {}, label),
    )));
  }

  function rectangle(api, from, to, style) {
    const [x, y] = from;
    const [right, below] = to;
    const shape = echarts.graphic.clipRectByRect(
      { x: Math.min(x, right), y: Math.min(y, below), width: Math.max(Math.abs(right - x), LEAST_WIDTH), height: Math.abs(below - y) },
      style.area,
    );
    return shape && { type: "rect", shape, style: { fill: style.fill, stroke: style.stroke, lineWidth: style.lineWidth ?? 0, opacity: style.opacity ?? 1 } };
  }

  function area(params) {
    const { x, y, width, height } = params.coordSys;
    return { x, y, width, height };
  }

  // Zoom of a picture's own axes, by the keys that zoom the samples elsewhere, by wheel with Ctrl, and by two fingers.
  function ownZoom(element, chart, axis) {
    const now = () => {
      const { start, end } = chart.getOption().dataZoom[0];
      return [start, end];
    };
    const set = (start, end) => {
      const width = Math.min(end - start, 100);
      const first = Math.max(0, Math.min(start, 100 - width));
      chart.dispatchAction({ type: "dataZoom", dataZoomIndex: 0, start: first, end: first + width });
    };
    const scale = (factor) => {
      const [start, end] = now();
      const middle = (start + end) / 2;
      set(middle - ((end - start) / 2) * factor, middle + ((end - start) / 2) * factor);
    };
    const move = (share) => {
      const [start, end] = now();
      set(start + (end - start) * share, end + (end - start) * share);
    };
    const reset = () => set(0, 100);
    report.zoom.keys(element, { scale, move, reset });
    chart.getZr().on("dblclick", reset);
    return [{
      type: "inside", xAxisIndex: axis, filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseWheel: false,
      moveOnMouseMove: !matchMedia("(pointer: coarse)").matches, preventDefaultMouseMove: false, minSpan: 0.01,
    }];
  }

  // A renderer whose picture is drawn anew when its size or its colours change.
  // Args: height of the picture by its width; draw(panel, width, dataZoom), the options of ECharts; entries of the legend;
  // zooms: the x axis that it zooms by itself, null for none.
  function renderer({ height, draw, entries, zooms = null }) {
    return (element, panel, context) => {
      const fit = () => { element.style.flexBasis = `${Math.round(height(element.clientWidth, panel))}px`; };
      fit();
      const chart = report.chart(element);
      const zoom = zooms === null ? [] : ownZoom(element, chart, zooms);
      const redraw = () => {
        const kept = chart.getOption().dataZoom?.[0];
        const dataZoom = zoom.map((each) => ({ ...each, start: kept?.start ?? 0, end: kept?.end ?? 100 }));
        chart.setOption({ animation: false, ...draw(panel, element.clientWidth, dataZoom) }, { notMerge: true });
        context.legend.replaceChildren(legend(entries(panel, palette())));
      };
      redraw();
      return {
        chart,
        refresh: redraw,
        resize: () => { fit(); chart.resize(); redraw(); },
        dispose: () => chart.dispose(),
      };
    };
  }

  function tip(colours, content) {
    return { ...report.tooltip(colours), trigger: "item", formatter: content };
  }

  function said(heading, rows) {
    return report.tooltipContent(heading, rows.map(([label, value]) => [null, label, value]));
  }

  return { percent, palette, legend, rectangle, area, renderer, tip, said, number, duration };
})();
