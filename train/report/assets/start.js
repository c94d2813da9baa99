"use strict";
// Draw the page, and anew when its colours change.
report.frame.show();
report.live.begin();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => report.frame.retheme());
addEventListener("beforeprint", () => report.frame.drawAll());
