"use strict";

// Keeps the part of the page named "live" fresh.
(() => {
  const EVERY_MS = 10_000;
  const stale = document.getElementById("stale");
  let fresh = new Date();
  let ahead = 0; // of the server's clock
  let busy = false;

  const ago = (at) => {
    const s = Math.max(0, Math.floor((Date.now() - ahead - Date.parse(at)) / 1000));
    if (s < 1) return "just now";
    if (s < 60) return `${s} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
    return s < 172800 ? "1 day ago" : `${Math.floor(s / 86400)} days ago`;
  };

  const relabel = () => {
    for (const time of document.querySelectorAll("[data-ago]")) time.textContent = ago(time.dateTime);
  };

  const swap = (live, next) => {
    const active = document.activeElement;
    const href = live.contains(active) && active.getAttribute("href");
    live.replaceWith(next);
    if (href) next.querySelector(`[href="${CSS.escape(href)}"]`)?.focus({ preventScroll: true });
  };

  const load = async () => {
    const response = await fetch(location.href, {
      headers: { Accept: "text/html" },
      signal: AbortSignal.timeout(EVERY_MS),
    });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const next = page.getElementById("live");
    if (!response.ok || !next) throw response.status;
    const date = Date.parse(response.headers.get("date"));
    ahead = date ? Date.now() - date : 0;
    document.title = page.title;
    return next;
  };

  const refresh = async () => {
    const live = document.getElementById("live");
    if (!live || busy || document.hidden || live.querySelector("form:focus-within")) return;
    busy = true;
    try {
      swap(live, await load());
      fresh = new Date();
      stale.textContent = "";
    } catch {
      stale.textContent = `Not updated since ${fresh.toISOString().slice(11, 16)} UTC`;
    }
    busy = false;
    relabel();
  };

  setInterval(refresh, EVERY_MS);
  relabel();
  document.addEventListener("visibilitychange", refresh);
})();
