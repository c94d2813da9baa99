"use strict";
// The attention mask of a row and its positions. `panel.data`: length, window, segments of {start, split, stop, spans}, and for
// each segment the corners of its positions and block positions.
report.renderers.mask = (() => {
  const { palette, renderer, tip, said, number } = report.pictures;
  const [LEFT, RIGHT, BETWEEN, BELOW] = [44, 16, 30, 100];
  const LARGEST = 520;

  function side(width) {
    return Math.max(120, Math.min(width - LEFT - RIGHT, LARGEST));
  }

  // [kind, row from, row to, column from, column to, segment, is it a triangle] of all that may be attended to.
  function areas(data) {
    return data.segments.flatMap(({ start, split, stop, spans }, index) => [
      ["context", start, split, start, split, index, 0],
      ["asks", split, stop, start, split, index, 0],
      ["targets", split, stop, split, stop, index, 1],
      ...(spans.length > 1 ? spans.map((first, at) => ["own", first, spans[at + 1] ?? stop, first, spans[at + 1] ?? stop, index, 1]) : []),
    ].filter(([, from, to, first, last]) => to > from && last > first));
  }

  function draw(panel, width) {
    const colours = report.theme();
    const fill = palette(colours);
    const { data } = panel;
    const size = side(width);
    const style = report.axisStyle(colours);
    const found = areas(data);
    const windows = Array.from({ length: Math.floor(data.length / data.window) - 1 }, (_, at) => ({ at: (at + 1) * data.window }));
    const top = 10;
    const grid = { left: LEFT, width: size };
    const axis = { type: "value", min: 0, max: data.length, ...style, splitLine: { show: false } };
    const lines = (all, colour) => ({
      type: "line", xAxisIndex: 1, yAxisIndex: 1, symbol: "none", silent: true,
      lineStyle: { color: colour, width: 1.6, type: colour === fill.block ? [3, 2] : "solid" },
      data: all.flatMap((each) => [...each, [each.at(-1)?.[0] ?? 0, null]]),
    });
    return {
      grid: [
        { ...grid, top, height: size, show: true, borderColor: colours.line, backgroundColor: colours.page },
        { ...grid, top: top + size + BETWEEN, height: BELOW - BETWEEN - 20 },
      ],
      xAxis: [{ ...axis, gridIndex: 0, axisLabel: { ...style.axisLabel, showMaxLabel: false } }, { ...axis, gridIndex: 1, show: false }],
      yAxis: [
        { ...axis, gridIndex: 0, inverse: true, axisLabel: { ...style.axisLabel, showMaxLabel: false } },
        { type: "value", gridIndex: 1, min: 0, splitNumber: 2, ...style, axisLabel: { ...style.axisLabel, formatter: (value) => report.compact(value) } },
      ],
      tooltip: tip(colours, ({ seriesIndex, value }) => (seriesIndex === 0 ? ofArea(data, found[value[0]]) : "")),
      series: [
        {
          type: "custom", clip: true, data: found.map((_, at) => [at, 0]), encode: { x: -1, y: -1 }, progressive: 0,
          markLine: {
            silent: true, symbol: "none", label: { show: false }, lineStyle: { color: colours.quiet, type: "solid", width: 1, opacity: 0.5 },
            data: windows.flatMap(({ at }) => [{ xAxis: at }, { yAxis: at }]),
          },
          renderItem: (params, api) => shape(found[api.value(0)], fill, (x, y) => api.coord([x, y])),
        },
        lines(data.positions, fill.position),
        lines(data.block_positions, fill.block),
      ],
    };
  }

  // A token sees itself and those before it: the exact stairs where they can be seen, their slope where they cannot.
  function shape([kind, from, to, first, last, , isTriangle], fill, at) {
    const style = { fill: fill[kind] };
    if (!isTriangle) {
      const [x, y] = at(first, from);
      const [right, below] = at(last, to);
      return { type: "rect", shape: { x, y, width: Math.max(right - x, 0.5), height: Math.max(below - y, 0.5) }, style };
    }
    const count = to - from;
    const points = [at(first, from)];
    const stretch = Math.max(1, Math.ceil(count / 256));
    for (let step = 0; step < count; step += stretch) {
      const next = Math.min(step + stretch, count);
      points.push(at(first + next, from + step), at(first + next, from + next));
    }
    points.push(at(first, to));
    return { type: "polygon", shape: { points }, style };
  }

  function ofArea(data, [kind, from, to, first, last, index]) {
    const words = {
      context: "context sees its context, in both directions",
      asks: "targets see the whole context",
      targets: "each target sees the targets before it",
      own: "the tokens of one blank",
    };
    return said(`segment ${index + 1}`, [
      [words[kind], ""],
      ["tokens that attend", `${number(from)} to ${number(to - 1)}`],
      ["tokens that are seen", `${number(first)} to ${number(last - 1)}`],
    ]);
  }

  return renderer({
    height: (width) => side(width) + BELOW + 16,
    draw,
    entries: ({ data }, fill) => [
      [fill.context, "context sees context"], [fill.asks, "targets see context"], [fill.targets, "targets see earlier targets"],
      ...(data.segments.some((each) => each.spans.length > 1) ? [[fill.own, "tokens of one blank"]] : []),
      [fill.position, "below: position"], [fill.block, "below, dashed: position within the target"],
    ],
  });
})();
