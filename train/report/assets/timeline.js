"use strict";
// The events of the runs in lanes over the samples seen. `panel.data`: lanes. Choosing an event shows it below.
report.renderers.timeline = (() => {
  const { el } = report;
  const NEAR = 0.04; // share of the run around an event that "Zoom there" shows

  function colourOf(event, colours) {
    if (event.lane === "faults") return colours.fault;
    if (event.lane === "rollbacks" || event.lane === "left out") return colours.colours[3];
    return event.lane === "changes" ? colours.colours[4] : colours.colours[event.lane === "checkpoints" ? 2 : 0];
  }

  function tell(event, context) {
    const { runs } = report.state.data;
    context.detail.replaceChildren(
      el("p", {}, el("b", {}, event.text)),
      el("p", { class: "quiet" }, [
        runs.length > 1 ? `${runs[event.run].name}, ` : "",
        `sample ${report.number(event.at)}`, event.time ? `, ${report.date(event.time)}` : "",
      ].join("")),
      el("button", { type: "button", class: "switch", onclick: () => jump(event) }, "Zoom there"),
    );
  }

  function jump(event) {
    const { min, max } = report.state.data.axis;
    const around = (max - min) * NEAR;
    report.zoom.set(event.at - around, (event.until ?? event.at) + around);
  }

  function draw(chart, panel) {
    const colours = report.theme();
    const { lanes } = panel.data;
    const { events, runs } = report.state.data;
    const axis = report.axisStyle(colours);
    const lane = (event) => lanes.length - 1 - lanes.indexOf(event.lane);
    const offset = (event) => (runs.length > 1 ? ((event.run + 0.5) / runs.length - 0.5) * 0.8 : 0);
    const points = events.map((event, place) => ({
      value: [event.at, lane(event) - offset(event), place],
      symbol: report.style(runs.length > 1 ? event.run : 0).symbol,
      itemStyle: { color: colourOf(event, colours) },
    }));
    const bars = events.map((event, place) => [event, place]).filter(([event]) => event.until !== null).map(([event, place]) => ({
      value: [event.at, event.until, lane(event) - offset(event), place],
      itemStyle: { color: colourOf(event, colours) },
    }));
    chart.setOption({
      grid: { left: 8, right: 16, top: 8, bottom: 44, outerBoundsMode: "same", outerBoundsContain: "axisLabel" },
      xAxis: { ...report.samplesAxis(colours), splitLine: { show: true, lineStyle: { color: colours.line, opacity: 0.5 } } },
      yAxis: {
        ...axis, type: "value", min: -0.5, max: lanes.length - 0.5, interval: 1,
        axisTick: { show: false }, axisLine: { show: false },
        splitLine: { show: false },
        axisLabel: {
          ...axis.axisLabel, customValues: lanes.map((_, place) => place),
          formatter: (value) => lanes[lanes.length - 1 - Math.round(value)] ?? "",
        },
      },
      tooltip: {
        ...report.tooltip(colours), trigger: "item",
        formatter: ({ value }) => {
          const event = events[value.at(-1)];
          return report.tooltipContent(`sample ${report.number(event.at)}`, [[null, event.text, ""]]);
        },
      },
      ...options(colours),
      series: [
        {
          type: "custom", name: "stretches", data: bars, encode: { x: [0, 1], y: 2 },
          renderItem: (params, api) => {
            const [x, y] = api.coord([api.value(0), api.value(2)]);
            const [end] = api.coord([api.value(1), api.value(2)]);
            return { type: "rect", shape: { x, y: y - 4, width: Math.max(3, end - x), height: 8, r: 3 },
              style: { fill: api.visual("color"), opacity: 0.45 } };
          },
        },
        { type: "scatter", name: "events", data: points, symbolSize: runs.length > 1 ? 8 : 11, cursor: "pointer", large: false },
      ],
    }, { notMerge: true });
    report.zoom.select(chart);
  }

  function options(colours) {
    const shared = report.zoom.options("none");
    const [startValue, endValue] = report.zoom.current();
    return {
      ...shared,
      dataZoom: [...shared.dataZoom, {
        type: "slider", xAxisIndex: 0, filterMode: "none", startValue, endValue, height: 20, bottom: 6,
        brushSelect: false, showDataShadow: false, showDetail: false, borderColor: colours.line,
        fillerColor: colours.isDark ? "rgba(109, 184, 242, 0.18)" : "rgba(0, 104, 168, 0.12)",
        handleStyle: { color: colours.card, borderColor: colours.accent },
        moveHandleStyle: { color: colours.quiet, opacity: 0.5 },
        backgroundColor: "transparent",
      }],
    };
  }

  const render = (element, panel, context) => {
    const chart = report.chart(element);
    const redraw = () => draw(chart, panel);
    redraw();
    const leave = report.zoom.join(chart);
    chart.on("click", ({ value }) => {
      const event = report.state.data.events[value.at(-1)];
      if (event) tell(event, context);
    });
    const list = chooser(context);
    const refresh = () => { redraw(); list(); };
    return { chart, resize: () => chart.resize(), refresh, dispose: () => { leave(); chart.dispose(); }, table };
  };

  // The same by keyboard: a list to choose an event from. The function that is returned renews it.
  function chooser(context) {
    const select = el("select", {
      class: "switch", "aria-label": "Event",
      onchange: () => { if (select.value !== "") tell(report.state.data.events[Number(select.value)], context); },
    });
    let listed = null;
    const list = () => {
      const { events } = report.state.data;
      const found = JSON.stringify(events);
      if (found === listed) return; // a list that is open must not close
      listed = found;
      const chosen = select.selectedOptions[0]?.textContent;
      select.replaceChildren(
        el("option", { value: "" }, `${report.number(events.length)} events`),
        ...events.map((event, place) => el("option", { value: place }, `${report.number(event.at)}: ${event.text}`.slice(0, 90))),
      );
      select.selectedIndex = Math.max(0, [...select.options].findIndex((option) => option.textContent === chosen));
    };
    list();
    context.tools.replaceChildren(select);
    return list;
  }

  function table() {
    const { events, runs } = report.state.data;
    return {
      columns: ["time", "run", "sample", "event"],
      rows: events.map((event) => [report.date(event.time), runs[event.run].name, event.at, event.text]),
    };
  }

  render.isOverRun = true;
  return render;
})();
