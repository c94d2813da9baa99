"use strict";
// The page of `--serve`: it asks its server every few seconds for what has changed, and shows it where the reader is:
// range, smoothing and colours stay, and open tables and lists unless a panel has come or gone.
report.live = (() => {
  const { el, state } = report;
  const [SOON, HIDDEN, LATEST] = [4000, 30000, 60000]; // milliseconds between two questions; LATEST after failures
  const LONGEST = 300000; // milliseconds for an answer
  let pause = SOON;
  let timer = null;
  let asking = null; // the question that is under way: there is one at a time, and one timer for the next
  let sign = null;

  function begin() {
    if (!state.data.live) return;
    sign = el("p", { class: "quiet live" });
    place();
    tell(true);
    timer = setTimeout(ask, SOON);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) ask();
    });
  }

  function place() {
    document.querySelector("header.head").after(sign);
  }

  function tell(isHeard, why = "") {
    sign.setAttribute("role", isHeard ? "note" : "alert");
    sign.textContent = isHeard
      ? `Live: as of ${report.date(state.data.written)}.`
      : `The server does not answer${why ? `: ${why}` : ""}. This page is as of ${report.date(state.data.written)}.`;
  }

  function ask() {
    asking ??= once().finally(() => {
      asking = null;
      clearTimeout(timer);
      timer = setTimeout(ask, document.hidden ? Math.max(pause, HIDDEN) : pause);
    });
    return asking;
  }

  async function once() {
    try {
      const headers = { "If-None-Match": `"${JSON.stringify(state.data.written)}"` };
      const answer = await fetch("/data", { headers, cache: "no-store", signal: AbortSignal.timeout(LONGEST) });
      if (answer.status === 200) take(await answer.json());
      else if (answer.status !== 304) throw new Error(await answer.text());
      pause = SOON;
      tell(true);
    } catch (error) {
      pause = Math.min(2 * pause, LATEST);
      tell(false, error instanceof TypeError ? "" : error.message.slice(0, 300));
    }
  }

  function take(fresh) {
    if (fresh.version !== state.data.version) {
      location.reload(); // another program serves it now
      return;
    }
    const isSame = sameCards(state.data, fresh);
    const isLonger = shared(state.data) !== shared(fresh);
    const texts = new Map(state.data.panels.map((panel) => [panel.key, JSON.stringify(panel)]));
    const isNew = fresh.panels.map((panel) => texts.get(panel.key) !== JSON.stringify(panel));
    const { scrollX, scrollY } = window;
    const panels = new Map(state.data.panels.map((panel) => [panel.key, panel]));
    fresh.panels = fresh.panels.map((panel) => Object.assign(panels.get(panel.key) ?? {}, panel));
    Object.assign(state.data, fresh);
    if (isSame) {
      renewHead();
      state.data.panels.forEach((panel, at) => {
        if (isNew[at] || (isLonger && report.renderers[panel.kind].isOverRun)) renew(panel, at);
      });
      document.querySelector("footer").replaceWith(report.frame.foot(state.data));
      report.zoom.set(...report.zoom.current(), null, false); // the whole run may have become longer
    } else {
      report.frame.show();
      scrollTo(scrollX, scrollY);
    }
    place();
  }

  function sameCards(before, after) {
    const shape = ({ panels, runs }) => JSON.stringify([panels.map(({ key, kind, group, wide }) => [key, kind, group, wide]), runs.length]);
    return shape(before) === shape(after);
  }

  // What all pictures over the run show besides their own data.
  function shared({ axis, events, runs }) {
    return JSON.stringify([axis, events, runs.map(({ name }) => name)]);
  }

  function renewHead() {
    const before = document.querySelector("header.head");
    const after = report.frame.head(state.data);
    const stops = (head) => [...head.querySelectorAll("button, [tabindex]")];
    const focused = stops(before).indexOf(document.activeElement);
    const left = before.querySelector(".scrolled")?.scrollLeft;
    before.replaceWith(after);
    if (left) after.querySelector(".scrolled").scrollLeft = left;
    stops(after)[focused]?.focus({ preventScroll: true });
  }

  function renew(panel, at) {
    const card = document.querySelector(`.panel[data-place="${at}"]`);
    card.querySelector("h3").textContent = panel.title;
    card.querySelector(".note").textContent = panel.note;
    const handle = report.handles.get(panel.key);
    if (!handle) return; // it is drawn when it comes into sight
    if (handle.refresh) handle.refresh();
    else {
      handle.dispose?.();
      report.handles.delete(panel.key);
      report.frame.draw(card);
    }
    const table = card.querySelector("details.behind");
    if (!table || table.childElementCount < 2) return;
    const { scrollTop, scrollLeft } = table.lastElementChild;
    table.lastElementChild.remove();
    const made = panel.columns.length ? panel : report.handles.get(panel.key).table?.();
    if (!table.open || !made) return; // it is filled when it is opened
    table.append(report.frame.table(made.columns, made.rows, panel.title));
    table.lastElementChild.scrollTo(scrollLeft, scrollTop);
  }

  return { begin, ask, take };
})();
