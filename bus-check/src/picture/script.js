"use strict";
(() => {
  const look = document.getElementById("look");
  const line = look.firstElementChild;
  const all = [...document.querySelectorAll("[data-i]")];
  const byId = new Map();
  for (const node of all) {
    for (const id of (node.dataset.i + " " + (node.dataset.e || "")).split(" ")) {
      if (id && id !== "0") byId.set(id, [...(byId.get(id) || []), node]);
    }
  }
  const causesOf = (id) => (byId.get(id) || []).flatMap((n) => (n.dataset.c || "").split(" ")).filter(Boolean);
  // What led to an event: its causes, theirs, and so on.
  const past = (ids) => {
    const seen = new Set();
    const next = [...ids];
    while (next.length) {
      const id = next.pop();
      if (seen.has(id)) continue;
      seen.add(id);
      for (const node of byId.get(id) || []) {
        if (node.dataset.e && node.dataset.e !== "0" && node.dataset.e === id) next.push(node.dataset.i);
      }
      next.push(...causesOf(id));
    }
    return seen;
  };
  const clear = () => {
    for (const node of document.querySelectorAll(".on")) node.classList.remove("on");
    for (const node of document.querySelectorAll(".dim")) node.classList.remove("dim");
    look.hidden = true;
  };
  const show = (node, isHeld) => {
    clear();
    const ids = node.dataset.i.split(" ").filter(Boolean);
    if (!ids.length) return;
    for (const id of past(ids)) for (const other of byId.get(id) || []) {
      if (other.closest("svg")) other.classList.add("on");
    }
    for (const id of ids) for (const other of byId.get(id) || []) other.classList.add("on");
    for (const svg of document.querySelectorAll("svg.space")) if (svg.querySelector(".on")) svg.classList.add("dim");
    const title = node.querySelector(":scope > title");
    const label = title && title.textContent;
    if (label) { line.textContent = label; look.hidden = false; }
    held = isHeld ? node : null;
  };
  let held = null;
  for (const node of all) {
    node.addEventListener("mouseenter", () => { if (!held) show(node, false); });
    node.addEventListener("mouseleave", () => { if (!held) clear(); });
    node.addEventListener("click", (event) => { event.stopPropagation(); show(node, true); });
  }
  document.addEventListener("click", () => { held = null; clear(); });
  // Up and down go through the events, left to the cause, right to what came of it.
  for (const svg of document.querySelectorAll("svg.space")) {
    const top = (node) => {
      const box = node.querySelector(".dot, .chip").getBoundingClientRect();
      return box.top + box.height / 2;
    };
    const events = [...svg.querySelectorAll(".ev")];
    for (const node of events) node.setAttribute("tabindex", "-1");
    svg.addEventListener("keydown", (event) => {
      const order = [...events].sort((a, b) => top(a) - top(b));
      const at = order.indexOf(held);
      const within = (ids) => order.find((n) => ids.includes(n.dataset.i) || ids.includes(n.dataset.e));
      let next = null;
      if (event.key === "ArrowDown") next = order[Math.min(at + 1, order.length - 1)];
      else if (event.key === "ArrowUp") next = order[Math.max(at - 1, 0)];
      else if (event.key === "ArrowLeft" && held) next = within(causesOf(held.dataset.i));
      else if (event.key === "ArrowRight" && held) {
        const from = [held.dataset.i, held.dataset.e];
        next = order.find((n) => (n.dataset.c || "").split(" ").some((c) => from.includes(c)));
      } else if (event.key === "Escape") { held = null; clear(); return; } else return;
      event.preventDefault();
      if (next) { show(next, true); next.focus({ preventScroll: true }); next.scrollIntoView({ block: "nearest", inline: "nearest" }); }
    });
  }
})();
