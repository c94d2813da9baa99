"use strict";
// Goodput: all of a run's wall time as one bar, and below it each attempt, as wide as it was long and divided by its parts.
// `panel.data`: share, seconds, parts of {name, label, seconds}, attempts of {number, begin, end, from, to, ending, parts}.
report.renderers.goodput = (() => {
  const { percent, palette, rectangle, area, renderer, tip, said, duration } = report.pictures;

  const DATES = {
    year: "{yyyy}", month: "{d} {MMM}", day: "{d} {MMM}", hour: "{HH}:{mm}", minute: "{HH}:{mm}", second: "{HH}:{mm}:{ss}", millisecond: "{ss}.{SSS}",
  };

  // [attempt, part, x from, x to, y from, y to] of all that is drawn below.
  function blocks(data) {
    return data.attempts.flatMap((attempt, index) => {
      const whole = attempt.parts.reduce((a, b) => a + b, 0);
      let below = 0;
      return attempt.parts.flatMap((seconds, part) => {
        if (!(seconds > 0) || !(whole > 0)) return [];
        const from = below;
        below += seconds / whole;
        return [[index, part, attempt.begin * 1000, attempt.end * 1000, from, below]];
      });
    });
  }

  function draw(panel, width, dataZoom) {
    const colours = report.theme();
    const fill = palette(colours);
    const { data } = panel;
    const parts = data.parts.map((part) => part.name);
    const style = report.axisStyle(colours);
    const first = Math.min(...data.attempts.map((each) => each.begin));
    const last = Math.max(...data.attempts.map((each) => each.end));
    let before = 0;
    const whole = data.parts.flatMap((part, index) => {
      const from = before;
      before += part.seconds;
      return part.seconds > 0 ? [[index, from, before]] : [];
    });
    const line = { stroke: colours.card, lineWidth: 1 };
    return {
      useUTC: true,
      grid: [
        { left: 44, right: 16, top: 6, height: 34 },
        { left: 44, right: 16, top: 62, bottom: 28, show: true, borderWidth: 0, backgroundColor: fill.idle },
      ],
      xAxis: [
        { gridIndex: 0, type: "value", min: 0, max: Math.max(data.seconds, 1e-9), show: false },
        { gridIndex: 1, type: "time", min: first * 1000, max: Math.max(last, first + 1e-3) * 1000, ...style, splitLine: { show: false },
          axisLabel: { ...style.axisLabel, formatter: DATES } },
      ],
      yAxis: [
        { gridIndex: 0, type: "value", min: 0, max: 1, show: false },
        { gridIndex: 1, type: "value", min: 0, max: 1, interval: 0.5, ...style, splitLine: { show: false },
          axisLabel: { ...style.axisLabel, formatter: (value) => `${100 * value} %` } },
      ],
      tooltip: tip(colours, ({ seriesIndex, value }) => (seriesIndex === 0 ? ofAll(data, value) : ofAttempt(data, value))),
      dataZoom,
      series: [
        {
          type: "custom", xAxisIndex: 0, yAxisIndex: 0, data: whole, encode: { x: [1, 2] },
          renderItem: (params, api) => {
            const part = data.parts[api.value(0)];
            const box = rectangle(api, api.coord([api.value(1), 0]), api.coord([api.value(2), 1]), { fill: fill[part.name], area: area(params), ...line });
            const text = percent(part.seconds / data.seconds);
            return box && {
              type: "group",
              children: [box, ...(box.shape.width > 52 ? [{
                type: "text",
                style: {
                  text, x: box.shape.x + box.shape.width / 2, y: box.shape.y + box.shape.height / 2, align: "center", verticalAlign: "middle",
                  fill: part.name === "idle" ? colours.ink : colours.card, fontSize: 13, fontWeight: 600, fontFamily: colours.font,
                },
              }] : [])],
            };
          },
        },
        {
          type: "custom", xAxisIndex: 1, yAxisIndex: 1, data: blocks(data), encode: { x: [2, 3], y: [4, 5] },
          renderItem: (params, api) => rectangle(
            api, api.coord([api.value(2), api.value(4)]), api.coord([api.value(3), api.value(5)]),
            { fill: fill[parts[api.value(1)]], area: area(params) },
          ),
        },
      ],
    };
  }

  function ofAll(data, [index]) {
    const part = data.parts[index];
    return said(part.label, [["time", duration(part.seconds)], ["of all", percent(part.seconds / data.seconds)]]);
  }

  function ofAttempt(data, [index]) {
    const attempt = data.attempts[index];
    const whole = attempt.end - attempt.begin;
    return said(`attempt ${attempt.number}, ${report.date(attempt.begin)}`, [
      ["lasted", duration(whole)],
      ["samples", `${report.number(attempt.from)} to ${report.number(attempt.to)}`],
      ["ended", attempt.ending.slice(0, 80)],
      ...attempt.parts.flatMap((seconds, part) => (seconds > 0 ? [[data.parts[part].label, `${duration(seconds)}, ${percent(seconds / whole)}`]] : [])),
    ]);
  }

  return renderer({
    height: (width) => (width < 520 ? 230 : 260),
    zooms: 1,
    draw,
    entries: ({ data }, fill) => data.parts.filter((part) => part.seconds > 0)
      .map((part) => [fill[part.name], `${part.label} ${percent(part.seconds / data.seconds)}`]),
  });
})();
