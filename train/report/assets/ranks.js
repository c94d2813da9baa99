"use strict";
// The ranks of a layout on their nodes. `panel.data`: tp, pp, dp, nodes of [name, first rank, number], seconds of each rank or
// null, and the slow ones as {rank, excess}.
report.renderers.ranks = (() => {
  const { palette, area, renderer, tip, said } = report.pictures;
  const GAP = 0.6; // cells between two stages
  const NAMED = 8; // nodes that the legend has; the pointer and the table name them all

  // Where a rank stands: stages side by side, in each its tensor-parallel ranks; a row is a replica.
  function place({ tp, dp }, rank) {
    const stage = Math.floor(rank / (tp * dp));
    return [stage * (tp + GAP) + (rank % tp), Math.floor(rank / tp) % dp, stage];
  }

  // The outlines of a node: its ranks of each stage, as boxes of whole rows and what is left of others.
  function outlines(data, first, count) {
    const boxes = [];
    for (let rank = first; rank < first + count;) {
      const [x, y] = place(data, rank);
      const inRow = Math.min(data.tp - (rank % data.tp), first + count - rank);
      const rest = first + count - rank;
      const rowsLeft = data.dp - y;
      const rows = rank % data.tp === 0 ? Math.min(Math.max(Math.floor(rest / data.tp), 1), rowsLeft) : 1;
      const columns = rows > 1 || inRow === data.tp ? data.tp : inRow;
      boxes.push([x, y, columns, rows]);
      rank += columns * rows;
    }
    return boxes;
  }

  function layout(data, width) {
    const columns = data.pp * (data.tp + GAP) - GAP;
    const side = Math.max(3, Math.min(34, (width - 56) / columns));
    return { columns, side, rowHeight: Math.max(8, Math.min(34, side, 560 / data.dp)) };
  }

  function draw(panel, width) {
    const colours = report.theme();
    const { data } = panel;
    const { columns, side, rowHeight } = layout(data, width);
    const style = report.axisStyle(colours);
    const known = (data.seconds ?? []).filter((value) => value !== null);
    const slow = new Map(data.slow.map((each) => [each.rank, each.excess]));
    const size = data.tp * data.pp * data.dp;
    const cells = Array.from({ length: size }, (_, rank) => [...place(data, rank), rank, data.seconds?.[rank] ?? null]);
    const boxes = data.nodes.flatMap(([, first, count]) => outlines(data, first, count));
    const low = Math.min(...known);
    const high = Math.max(...known, low * 1.02);
    const left = 44;
    return {
      grid: { left, top: 26, width: columns * side, height: data.dp * rowHeight },
      xAxis: { type: "value", min: 0, max: columns, show: false },
      yAxis: {
        type: "value", min: 0, max: data.dp, inverse: true, ...style, interval: Math.max(1, Math.ceil(data.dp / 16)),
        axisLine: { show: false }, axisTick: { show: false }, splitLine: { show: false },
        axisLabel: { ...style.axisLabel, formatter: (value) => (value < data.dp ? String(value) : ""), margin: 8, verticalAlign: "top", padding: [Math.max(0, rowHeight / 2 - 6), 0, 0, 0] },
      },
      visualMap: known.length ? {
        type: "continuous", min: low, max: high, dimension: 4, seriesIndex: 0, calculable: false, orient: "horizontal",
        left, bottom: 0, itemWidth: 12, itemHeight: 120, precision: 4, textStyle: { color: colours.quiet, fontSize: 11 },
        text: [`${report.number(high)} s`, `${report.number(low)} s`],
        inRange: { color: colours.isDark ? ["#20405f", "#3f7fae", "#8cc5ee", "#f3f0c6"] : ["#dceaf5", "#8fbbdd", "#3c7fb5", "#0b3d66"] },
        outOfRange: { color: colours.line },
      } : undefined,
      tooltip: tip(colours, ({ seriesIndex, value }) => (seriesIndex === 0 ? ofRank(data, slow, value) : "")),
      series: [
        {
          type: "custom", data: cells, encode: { x: 0, y: 1, tooltip: [3, 4] },
          renderItem: (params, api) => {
            const [x, y] = api.coord([api.value(0), api.value(1)]);
            const inset = side > 8 ? 1 : 0.4;
            const box = {
              type: "rect",
              shape: { x: x + inset, y: y + inset, width: side - 2 * inset, height: rowHeight - 2 * inset, r: side > 10 ? 2 : 0 },
              style: { fill: known.length && Number.isFinite(api.value(4)) ? api.visual("color") : colours.line },
            };
            const rank = api.value(3);
            const marks = slow.has(rank) ? [triangle(x + side / 2, y + rowHeight / 2, Math.min(side, rowHeight) * 0.62, colours)] : [];
            const label = side > 22 && rowHeight > 15 && !slow.has(rank) && size <= 256 && !known.length ? [{
              type: "text", style: { text: String(rank), x: x + side / 2, y: y + rowHeight / 2, align: "center", verticalAlign: "middle", fill: colours.ink, fontSize: 10 },
            }] : [];
            return { type: "group", children: [box, ...label, ...marks] };
          },
        },
        {
          type: "custom", silent: true, data: boxes, encode: { x: 0, y: 1 }, z: 5,
          renderItem: (params, api) => {
            const [x, y] = api.coord([api.value(0), api.value(1)]);
            return {
              type: "rect", silent: true,
              shape: { x: x + 0.5, y: y + 0.5, width: api.value(2) * side - 1, height: api.value(3) * rowHeight - 1, r: 2 },
              style: { fill: "none", stroke: colours.ink, lineWidth: side > 10 ? 1.4 : 1, opacity: 0.75 },
            };
          },
        },
        {
          type: "custom", silent: true, data: Array.from({ length: data.pp }, (_, stage) => [stage * (data.tp + GAP) + data.tp / 2, 0, stage]), encode: { x: 0, y: 1 },
          renderItem: (params, api) => {
            const [x, y] = api.coord([api.value(0), 0]);
            const isWide = (data.tp + GAP) * side > 50;
            return { type: "text", silent: true, style: { text: isWide ? `stage ${api.value(2)}` : String(api.value(2)), x, y: y - 6, align: "center", verticalAlign: "bottom", fill: colours.quiet, fontSize: 11, fontFamily: colours.font } };
          },
        },
      ],
    };
  }

  function triangle(x, y, size, colours) {
    const half = Math.max(size, 7) / 2;
    return {
      type: "polygon", z2: 10,
      shape: { points: [[x, y - half], [x + half, y + half], [x - half, y + half]] },
      style: { fill: colours.fault, stroke: colours.card, lineWidth: 1 },
    };
  }

  function ofRank(data, slow, [, replica, stage, rank, seconds]) {
    const node = data.nodes.find(([, first, count]) => rank >= first && rank < first + count);
    return said(`rank ${rank}`, [
      ["node", node ? node[0] : "not recorded"],
      ["stage, replica, tensor slice", `${stage}, ${replica}, ${rank % data.tp}`],
      ...(Number.isFinite(seconds) ? [["own seconds", report.number(seconds)]] : []),
      ...(slow.has(rank) ? [["slow", `+${Math.round(100 * slow.get(rank))} %`]] : []),
    ]);
  }

  return renderer({
    height: (width, { data }) => 26 + data.dp * layout(data, width).rowHeight + (data.seconds ? 48 : 14),
    draw,
    entries: ({ data }) => [
      ...(data.slow.length ? [[report.theme().fault, `slow: ${data.slow.length} ${data.slow.length === 1 ? "rank" : "ranks"}`]] : []),
      ...(data.nodes.length <= NAMED ? data.nodes.map(([name, first, count]) => [
        report.theme().line, `${name}: ${count === 1 ? `rank ${first}` : `ranks ${first} to ${first + count - 1}`}`,
      ]) : []),
    ],
  });
})();
