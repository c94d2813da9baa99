"use strict";
// Panels of words: tables, filled blanks and texts.
(() => {
  const { el } = report;
  const nothing = { resize() {}, dispose() {} };

  report.renderers.table = (element, panel) => {
    element.replaceChildren(panel.rows.length ? report.frame.table(panel.columns, panel.rows, panel.title, true) : "");
    return nothing;
  };
  report.renderers.table.isText = true;

  // `panel.data`: text, overrides.
  report.renderers.text = (element, panel) => {
    const { text, overrides } = panel.data;
    element.replaceChildren(
      ...(overrides ? [el("h4", {}, "Overrides"), el("pre", {}, overrides)] : []),
      el("pre", { tabindex: 0, "aria-label": panel.title }, text),
    );
    return nothing;
  };
  report.renderers.text.isText = true;

  // `panel.data`: blanks of {at, objective, text, truth, filled}; a slider chooses the evaluation.
  report.renderers.blanks = (element, panel) => {
    let positions = [];
    const list = el("ol", { class: "blanks" });
    const said = el("output", {});
    const slider = el("input", {
      type: "range", min: 0, "aria-label": "Evaluation", oninput: () => show(positions[Number(slider.value)]),
    });
    // The newest evaluation is followed; another one that the reader has chosen stays.
    function refresh() {
      const chosen = positions[Number(slider.value)];
      const wasLast = chosen === positions.at(-1);
      positions = [...new Set(panel.data.blanks.map((blank) => blank.at))];
      slider.max = positions.length - 1;
      slider.value = wasLast || !positions.includes(chosen) ? positions.length - 1 : positions.indexOf(chosen);
      show(positions[Number(slider.value)]);
    }
    function show(at) {
      said.textContent = `sample ${report.number(at)}`;
      slider.setAttribute("aria-valuetext", said.textContent);
      list.replaceChildren(...panel.data.blanks.filter((blank) => blank.at === at).map(item));
    }
    function item({ objective, text, truth, filled }) {
      return el("li", {},
        el("p", { class: "sentence" }, text),
        el("dl", {},
          el("dt", {}, "filled"), el("dd", { class: filled.trim() === truth.trim() ? "same" : "" }, filled || "\u2013"),
          el("dt", {}, "truth"), el("dd", {}, truth || "\u2013")),
        objective ? el("span", { class: "quiet objective" }, `[${objective}]`) : null);
    }
    refresh();
    element.replaceChildren(el("div", { class: "smoothing" }, slider, said), list);
    const columns = ["sample", "objective", "sentence", "filled", "truth"];
    const rows = () => panel.data.blanks.map((blank) => [blank.at, blank.objective, blank.text, blank.filled, blank.truth]);
    return { ...nothing, refresh, table: () => ({ columns, rows: rows() }) };
  };
  report.renderers.blanks.isText = true;
})();
