"use strict";
// The passes of a pipeline's stages in one step. `panel.data`: stages, chunks, seconds, bubble, ideal, and passes of
// [stage, 0 forward or 1 backward, micro-batch, chunk, start, end].
report.renderers.schedule = (() => {
  const { percent, palette, rectangle, area, renderer, tip, said, number } = report.pictures;
  const KINDS = ["forward", "backward"];

  function draw(panel, width, dataZoom) {
    const colours = report.theme();
    const fill = palette(colours);
    const { data } = panel;
    const style = report.axisStyle(colours);
    return {
      grid: { left: 64, right: 16, top: 6, bottom: 40, show: true, borderWidth: 0, backgroundColor: colours.page },
      xAxis: {
        type: "value", min: 0, max: Math.max(data.seconds, 1e-9), ...style, splitLine: { show: false },
        name: "seconds since the first pass", nameLocation: "middle", nameGap: 24,
        axisLabel: { ...style.axisLabel, showMaxLabel: false, formatter: (value) => report.compact(value) },
      },
      yAxis: {
        type: "value", min: 0, max: data.stages, inverse: true, interval: 1, ...style, axisTick: { show: false },
        axisLabel: { ...style.axisLabel, hideOverlap: true, verticalAlign: "top", formatter: (value) => (value < data.stages ? `stage ${value}` : ""), padding: [Math.max(0, height(panel) / data.stages / 2 - 6), 0, 0, 0] },
      },
      tooltip: tip(colours, ({ value }) => ofPass(data, value)),
      dataZoom,
      series: [{
        type: "custom", data: data.passes, encode: { x: [4, 5], y: 0 }, progressive: 0,
        renderItem: (params, api) => {
          const stage = api.value(0);
          const kind = KINDS[api.value(1)];
          const box = rectangle(api, api.coord([api.value(4), stage + 0.12]), api.coord([api.value(5), stage + 0.88]), {
            fill: fill[kind], area: area(params), opacity: 1 - 0.5 * (api.value(3) / Math.max(data.chunks, 1)),
            stroke: colours.card, lineWidth: 0.5,
          });
          if (!box) return null;
          const isLabelled = box.shape.width > 15 && box.shape.height > 13;
          return { type: "group", children: [box, ...(isLabelled ? [{
            type: "text",
            style: {
              text: String(api.value(2)), x: box.shape.x + box.shape.width / 2, y: box.shape.y + box.shape.height / 2,
              align: "center", verticalAlign: "middle", fill: colours.isDark ? "#10151d" : "#ffffff", fontSize: 10.5, fontFamily: colours.font,
            },
          }] : [])] };
        },
      }],
    };
  }

  function ofPass(data, [stage, kind, microBatch, chunk, start, end]) {
    return said(`stage ${stage}: ${KINDS[kind]} pass`, [
      ["micro-batch", number(microBatch)],
      ...(data.chunks > 1 ? [["chunk", number(chunk)]] : []),
      ["from", `${number(start)} s`],
      ["took", `${number(end - start)} s`],
    ]);
  }

  function height({ data }) {
    return Math.max(90, Math.min(data.stages * 34, 480));
  }

  return renderer({
    height: (width, panel) => height(panel) + 46,
    zooms: 0,
    draw,
    entries: ({ data }, fill) => [
      [fill.forward, "forward"], [fill.backward, "backward"],
      [report.theme().page, `bubble ${percent(data.bubble)}, of equal passes ${percent(data.ideal)}`],
      ...(data.chunks > 1 ? [["none", "lighter: later chunks; numbers are micro-batches"]] : []),
    ],
  });
})();
